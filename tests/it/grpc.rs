//! gRPC streams of small messages: each is a DATA frame of its own, however little it holds. Windows are what stops a
//! sender, never the number of frames.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use crate::h2::{connect_with, request, run, serve};
use crate::tls::Secure;

/// A message of 20 bytes with its length in front.
const MESSAGE: &[u8] = b"\0\0\0\0\x14twenty bytes of text";
/// Frames of one connection that a peer of the tests may leave unread.
const PATIENT: usize = 1 << 40;

fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder.data_frame_budget(PATIENT);
    builder
}

fn server() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder.data_frame_budget(PATIENT);
    builder
}

fn ok() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn status(code: &'static str) -> HeaderMap {
    [("grpc-status".parse().unwrap(), code.parse().unwrap())].into_iter().collect()
}

/// Sends this many messages, one a frame, as fast as the window lets it; `at` hears how many have gone. `None`: the stream
/// was ended.
async fn send_all(stream: &mut SendStream<Bytes>, count: usize, mut at: impl FnMut(usize)) -> Option<()> {
    for number in 0..count {
        stream.reserve_capacity(MESSAGE.len());
        while stream.capacity() < MESSAGE.len() {
            std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        }
        stream.send_data(Bytes::from_static(MESSAGE), false).ok()?;
        at(number + 1);
    }
    Some(())
}

/// Reads to the end; all messages must be whole. How many there were.
async fn read_all(stream: &mut RecvStream) -> Result<usize, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        let _ = stream.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    assert!(bytes.chunks(MESSAGE.len()).all(|message| message == MESSAGE));
    Ok(bytes.len() / MESSAGE.len())
}

/// A server that leaves the body of a call unread for as long as it can be sent.
#[test]
fn twenty_thousand_small_messages_of_a_client_pass_to_a_server_that_reads_late() {
    const COUNT: usize = 20_000;
    let (go, gone) = oneshot::channel();
    let gone = Arc::new(Mutex::new(Some(gone)));
    let address = serve(move |stream| {
        let gone = gone.clone();
        async move {
            let mut connection = server().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let gone = gone.lock().unwrap().take().unwrap();
                tokio::spawn(async move {
                    let _ = gone.await;
                    let read = read_all(&mut request.into_body()).await.unwrap();
                    let mut answer = respond.send_response(ok(), false).unwrap();
                    answer.send_data(read.to_string().into(), false).unwrap();
                    answer.send_trailers(status("0")).unwrap();
                });
            }
        }
    });
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    run(async {
        let mut send = connect_with(&client(), &secure.authority, secure.gateway.tls, "a.example.com").await;
        let fields = [("te", "trailers"), ("content-type", "application/grpc")];
        let (answer, mut up) = send.send_request(request("POST /app.Service/Put", &fields), false).unwrap();
        // what is sent at first is all that nobody reads
        let mut go = Some(go);
        let late = |sent| {
            if let Some(go) = go.take_if(|_| sent == 5_000) {
                go.send(()).unwrap();
            }
        };
        send_all(&mut up, COUNT, late).await.unwrap();
        up.send_data(Bytes::new(), true).unwrap();
        let mut down = answer.await.unwrap().into_body();
        assert_eq!(down.data().await.unwrap().unwrap(), COUNT.to_string());
        assert!(down.data().await.is_none());
        assert_eq!(down.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

/// A client that leaves eight calls unread for as long as the server can send.
#[test]
fn small_messages_of_a_server_wait_for_a_client_that_reads_late() {
    const CALLS: u32 = 8;
    const COUNT: usize = 10_000;
    // half of what the server's window with us takes, and the client's
    const HELD: usize = 5_500;
    let (held, mut holds) = unbounded_channel();
    let address = serve(move |stream| {
        let held = held.clone();
        async move {
            let mut connection = server().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let held = held.clone();
                tokio::spawn(async move {
                    let mut answer = respond.send_response(ok(), false).unwrap();
                    let tell = |sent| {
                        if sent == HELD {
                            held.send(()).unwrap();
                        }
                    };
                    if send_all(&mut answer, COUNT, tell).await.is_some() {
                        answer.send_trailers(status("0")).unwrap();
                    }
                });
            }
        }
    });
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    run(async {
        let mut wide = client();
        wide.initial_connection_window_size(CALLS * 65_535);
        let send = connect_with(&wide, &secure.authority, secure.gateway.tls, "a.example.com").await;
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            let fields = [("te", "trailers"), ("content-type", "application/grpc")];
            let mut send = send.clone().ready().await.unwrap();
            let (answer, _) = send.send_request(request("POST /app.Service/Get", &fields), true).unwrap();
            calls.push(answer.await.unwrap().into_body());
        }
        for _ in 0..CALLS {
            holds.recv().await.unwrap();
        }
        for down in &mut calls {
            assert_eq!(read_all(down).await.unwrap(), COUNT);
            assert_eq!(down.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        }
    });
}

/// A body is ended by a frame that holds nothing, and some programs write pieces that hold nothing: the crate ends a
/// connection over the hundred and first of the latter.
#[test]
fn three_hundred_calls_with_frames_that_hold_nothing_share_one_connection_on_both_sides() {
    const CALLS: usize = 300;
    let (opened, connections) = std::sync::mpsc::channel();
    let address = serve(move |stream| {
        opened.send(()).unwrap();
        async move {
            let mut connection = server().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    assert_eq!(read_all(&mut request.into_body()).await.unwrap(), 1);
                    let mut answer = respond.send_response(ok(), false).unwrap();
                    for piece in [b"", MESSAGE, b""] {
                        answer.send_data(Bytes::from_static(piece), false).unwrap();
                    }
                    answer.send_trailers(status("0")).unwrap();
                });
            }
        }
    });
    let secure = Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    run(async {
        let send = secure.h2().await;
        for _ in 0..CALLS {
            let fields = [("te", "trailers"), ("content-type", "application/grpc")];
            let mut send = send.clone().ready().await.unwrap();
            let (answer, mut up) = send.send_request(request("POST /app.Service/Once", &fields), false).unwrap();
            for piece in [b"", MESSAGE, b""] {
                up.send_data(Bytes::from_static(piece), false).unwrap();
            }
            up.send_data(Bytes::new(), true).unwrap();
            let mut down = answer.await.unwrap().into_body();
            assert_eq!(read_all(&mut down).await.unwrap(), 1);
            assert_eq!(down.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        }
    });
    assert_eq!(connections.try_iter().count(), 1);
}

/// gRPC over HTTP/2, "Responses": a status is how a call ends, so that its client knows why and signs in again.
#[test]
fn a_call_whose_session_ends_gets_status_16_where_no_message_is_under_way() {
    // sends what the call's body says, and no end; a call without a body gets no answer
    let address = serve(async |stream| {
        let mut connection = server().handshake::<_, Bytes>(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let data = request.into_body().data().await.map(Result::unwrap);
                let Some(data) = data.filter(|data| !data.is_empty()) else { std::future::pending().await };
                let mut answer = respond.send_response(ok(), false).unwrap();
                answer.send_data(data, false).unwrap();
                std::future::pending::<()>().await;
            });
        }
    });
    let secure = Secure::start(&format!("[[route]]\nupstream = \"h2c://{address}\"\n"));
    let cookie = secure.first_account();
    run(async {
        let send = secure.h2().await;
        let call = async |body: &'static [u8]| {
            let fields = [("te", "trailers"), ("content-type", "application/grpc+proto"), ("cookie", cookie.as_str())];
            let mut send = send.clone().ready().await.unwrap();
            let (answer, mut up) = send.send_request(request("POST /app.Service/Talk", &fields), false).unwrap();
            if body.is_empty() {
                up.send_data(Bytes::new(), true).unwrap();
            } else {
                up.send_data(Bytes::from_static(body), false).unwrap();
            }
            (answer, up)
        };
        let mut answered = Vec::new();
        for body in [MESSAGE, &MESSAGE[..10]] {
            let (answer, up) = call(body).await;
            let mut down = answer.await.unwrap().into_body();
            assert_eq!(down.data().await.unwrap().unwrap(), body);
            answered.push((down, up));
        }
        let (waiting, _up) = call(b"").await;
        crate::gateway::eventually("all calls are open", || secure.gateway.metric("authgate_live_connections") == 3);
        secure.gateway.cli(&["session", "revoke", "--user", "ada@example.com"]);
        let [(whole, _), (begun, _)] = &mut answered[..] else { unreachable!() };
        assert!(whole.data().await.is_none());
        assert_eq!(whole.trailers().await.unwrap().unwrap()["grpc-status"], "16");
        let ended = begun.data().await.unwrap().unwrap_err();
        assert_eq!(ended.reason(), Some(h2::Reason::CANCEL), "a message broken off is no end");
        let refused = waiting.await.unwrap();
        assert_eq!((refused.status().as_u16(), refused.headers()["grpc-status"].as_bytes()), (200, &b"16"[..]));
        assert!(refused.body().is_end_stream());
    });
}

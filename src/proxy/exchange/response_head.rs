//! Reads the head of a server's response in HTTP/1, with the interim responses in front of it.

use std::io;

use bytes::BytesMut;
use http::{StatusCode, Version};
use pingora_core::{Error, ErrorType};
use pingora_http::RequestHeader;

use super::attempt_error::{AttemptError, client_disconnected};
use super::downstream::WaitingClient;
use crate::proxy::attempt::count_interim;
use crate::wire::response_head::{self, Answer};
use crate::wire::response_view::ResponseHeadView as _;
use crate::wire::stream::Stream;

/// What heads are read from.
pub(super) trait HeadSource {
    /// Appends what the server sends; 0 is the end.
    async fn read_more(&mut self, buffer: &mut BytesMut) -> io::Result<usize>;
}

impl HeadSource for Stream {
    fn read_more(&mut self, buffer: &mut BytesMut) -> impl Future<Output = io::Result<usize>> {
        self.read_on(buffer)
    }
}

/// Waits for the head of the final response, or of a 101.
pub(super) async fn read_head(
    source: &mut impl HeadSource,
    request: &RequestHeader,
    client: &mut impl WaitingClient,
) -> Result<Answer, AttemptError> {
    let mut buffer = BytesMut::new();
    let (mut begun, mut interims, mut seen) = (false, 0, 0);
    loop {
        match response_head::read(&mut buffer, &request.method, seen)? {
            Some(mut answer) if is_interim(answer.head.status()) => {
                count_interim(&mut interims)?;
                (buffer, seen) = (answer.take_rest(), 0);
                // boxed, because it is rare, and each waiting request would have room for it
                Box::pin(forward_interim(answer, request, client)).await?;
                continue;
            }
            Some(answer) => return Ok(answer),
            None => seen = buffer.len(),
        }
        let received = tokio::select! {
            biased;
            received = source.read_more(&mut buffer) => received,
            () = client.disconnected() => return Err(AttemptError::Final(client_disconnected())),
        };
        let failed = |e| if begun { AttemptError::Final(e) } else { AttemptError::NoResponse(e) };
        match received {
            Ok(0) => return Err(failed(Error::explain(ErrorType::ConnectionClosed, "no response").into_up())),
            Ok(_) => begun = true,
            Err(e) => return Err(failed(Error::because(ErrorType::ReadError, "no response", e).into_up())),
        }
    }
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Of the interim responses clients get 100 and 103 (RFC 8297). HTTP/1.0 has none (RFC 9110, 15.2).
async fn forward_interim(
    answer: Answer,
    request: &RequestHeader,
    client: &mut impl WaitingClient,
) -> Result<(), AttemptError> {
    let status = answer.head.status();
    if matches!(status, StatusCode::CONTINUE | StatusCode::EARLY_HINTS) && request.version != Version::HTTP_10 {
        let fields = answer.head.into_map(false)?;
        client.interim(status, &fields.headers).await;
    }
    Ok(())
}

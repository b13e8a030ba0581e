//! Attacks that HTTP/2 servers and proxies are known to have fallen to, each beside what must go on working. Frames
//! are written by hand where no well-behaved client would send them (RFC 9113).

use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backend::{Backend, accept, ok, silent};
use crate::gateway::{Gateway, command, configured, eventually};
use crate::h2::{ask, connect, read, request, run, serve};
use crate::tls::{Secure, Tls};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A client that sends what it is told to.
struct Raw(Tls);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// What a connection or a stream ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// RST_STREAM with this code.
    Stream(u32),
    /// GOAWAY with this code.
    Connection(u32),
    /// Closed without a word.
    Closed,
}

impl Raw {
    fn connect(secure: &Secure, settings: &[u8]) -> Self {
        let mut raw = Self(secure.authority.connect(secure.gateway.tls, Some("a.example.com"), "h2"));
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw.send(SETTINGS, 0, 0, settings);
        raw
    }

    /// The gateway may have ended the connection already: what it said is still read.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.0.write_all(&frame(kind, flags, stream, payload));
    }

    /// `None` at the end.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap()) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Whether the connection still stands after this time. What comes meanwhile is thrown away.
    fn is_silent_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.0.sock.set_read_timeout(Some(left)).unwrap();
            match self.0.read(&mut [0; 1024]) {
                Ok(1..) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                _ => return false,
            }
        }
    }

    /// How the stream, or the whole connection, ends.
    fn end_of(&mut self, stream: u32) -> End {
        let code = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        loop {
            match self.next() {
                None => return End::Closed,
                Some(frame) if frame.kind == GOAWAY => return End::Connection(code(&frame.payload[4..8])),
                Some(frame) if frame.kind == RST_STREAM && frame.stream == stream => {
                    return End::Stream(code(&frame.payload));
                }
                Some(_) => {}
            }
        }
    }

    /// The first byte of the answer's head (a status of the static table), once it has come.
    fn status(&mut self, stream: u32) -> u8 {
        loop {
            let frame = self.next().expect("no response");
            assert!(frame.kind != GOAWAY && (frame.kind, frame.stream) != (RST_STREAM, stream), "{frame:?}");
            if (frame.kind, frame.stream) == (HEADERS, stream) {
                return frame.payload[0];
            }
        }
    }

    /// Sends batches until the gateway has enough; how it ended the connection. `batch` is told its number.
    fn flood(&mut self, batches: u32, mut batch: impl FnMut(u32) -> Vec<u8>) -> Option<End> {
        for number in 0..batches {
            let sent = self.0.write_all(&batch(number)).and_then(|()| self.0.write_all(&frame(PING, 0, 0, &[7; 8])));
            // whatever was answered to this batch stands before the answer to the ping
            loop {
                match self.next() {
                    None => return Some(End::Closed),
                    Some(frame) if frame.kind == GOAWAY => {
                        return Some(End::Connection(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())));
                    }
                    Some(frame) if frame.kind == PING && frame.flags == ACK && frame.payload == [7; 8] => break,
                    Some(_) => {}
                }
            }
            if sent.is_err() {
                return Some(End::Closed);
            }
        }
        None
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals without an index, not packed (RFC 7541, 6.2.2).
fn fields(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127 + 128);
            if text.len() < 127 {
                block.push(u8::try_from(text.len()).unwrap());
            } else {
                block.extend([127, u8::try_from(text.len() - 127).unwrap()]);
            }
            block.extend_from_slice(text);
        }
    }
    block
}

const GET: [(&[u8], &[u8]); 4] =
    [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example.com"), (b":path", b"/")];
const POST: [(&[u8], &[u8]); 4] =
    [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a.example.com"), (b":path", b"/")];

fn open_to(upstream: &str) -> Secure {
    Secure::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"{upstream}\"\n"))
}

/// Resident memory of the gateway, in KiB.
fn resident_kib(secure: &Secure) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", secure.gateway.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The gateway serves others, and has not grown by what was sent to it.
fn is_well(secure: &Secure, before_kib: u64) {
    let grown = resident_kib(secure).saturating_sub(before_kib);
    assert!(grown < 20 << 10, "grown by {grown} KiB");
    let mut raw = Raw::connect(secure, &[]);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[GET.as_slice(), &[(b"x-twin", b"1")]].concat()));
    assert_eq!(raw.status(1), 0x88);
}

/// A server that answers whoever says `x-twin`, and nobody else.
fn picky() -> Backend {
    Backend::start(|request, stream| {
        if request.field("x-twin").is_some() {
            return ok(request, stream);
        }
        std::thread::park();
        false
    })
}

/// G1. CVE-2023-44487: streams that are opened and reset at once.
#[test]
fn rapid_resets_end_the_connection_and_a_few_do_not() {
    let backend = picky();
    let secure = open_to(&format!("http://{}", backend.address));
    let before = resident_kib(&secure);
    let head = fields(&GET);
    let pairs = |number: u32| -> Vec<u8> {
        (0..50)
            .flat_map(|at| {
                let stream = (number * 50 + at) * 2 + 1;
                [frame(HEADERS, END_HEADERS | END_STREAM, stream, &head), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            })
            .flatten()
            .collect()
    };
    let ended = Raw::connect(&secure, &[]).flood(60, pairs);
    assert_eq!(ended, Some(End::Connection(ENHANCE_YOUR_CALM)));
    is_well(&secure, before);
    // a person who clicks away now and then
    run(async {
        let send = secure.h2().await;
        for _ in 0..100 {
            let mut taken_back = send.clone().ready().await.unwrap();
            let (answer, mut stream) = taken_back.send_request(request("GET /", &[]), true).unwrap();
            stream.send_reset(h2::Reason::CANCEL);
            drop(answer);
            assert_eq!(ask(&send, request("GET /", &[("x-twin", "1")]), b"").await.unwrap().status(), 200);
        }
    });
}

/// G2. CVE-2025-8671 (MadeYouReset): frames that make the server reset its own streams.
#[test]
fn frames_that_make_us_reset_streams_end_the_connection() {
    let backend = picky();
    let secure = open_to(&format!("http://{}", backend.address));
    let before = resident_kib(&secure);
    let head = fields(&GET);
    let pairs = |number: u32| -> Vec<u8> {
        (0..50)
            .flat_map(|at| {
                let stream = (number * 50 + at) * 2 + 1;
                // a window that grows by nothing
                [frame(HEADERS, END_HEADERS | END_STREAM, stream, &head), frame(WINDOW_UPDATE, 0, stream, &[0; 4])]
            })
            .flatten()
            .collect()
    };
    let ended = Raw::connect(&secure, &[]).flood(60, pairs);
    assert!(matches!(ended, Some(End::Connection(_))), "{ended:?}");
    is_well(&secure, before);
}

/// G3. RUSTSEC-2024-0332: a head that never ends.
#[test]
fn endless_continuations_end_the_connection_and_some_are_read() {
    let backend = picky();
    let secure = open_to(&format!("http://{}", backend.address));
    let before = resident_kib(&secure);
    let mut raw = Raw::connect(&secure, &[]);
    raw.send(HEADERS, END_STREAM, 1, &fields(&GET));
    for number in 0..10_000u32 {
        let name = format!("x-{number}");
        raw.send(CONTINUATION, 0, 1, &fields(&[(name.as_bytes(), b"1")]));
    }
    // what was sent behind the end may cut the last word off
    let ended = raw.end_of(1);
    assert!(matches!(ended, End::Connection(ENHANCE_YOUR_CALM) | End::Closed), "{ended:?}");
    let mut raw = Raw::connect(&secure, &[]);
    raw.send(HEADERS, END_STREAM, 1, &fields(&GET));
    raw.send(CONTINUATION, 0, 1, &fields(&[(b"x-a", b"1")]));
    raw.send(CONTINUATION, END_HEADERS, 1, &fields(&[(b"x-twin", b"1")]));
    assert_eq!(raw.status(1), 0x88);
    is_well(&secure, before);
}

/// G4. RUSTSEC-2026-0258: frames of data that hold none.
#[test]
fn endless_empty_data_ends_the_connection_and_some_is_read() {
    let backend = picky();
    let secure = open_to(&format!("http://{}", backend.address));
    let before = resident_kib(&secure);
    let mut raw = Raw::connect(&secure, &[]);
    raw.send(HEADERS, END_HEADERS, 1, &fields(&POST));
    let empty = frame(DATA, 0, 1, b"").repeat(100);
    let ended = raw.flood(100, |_| empty.clone());
    assert!(matches!(ended, Some(End::Connection(ENHANCE_YOUR_CALM) | End::Closed)), "{ended:?}");
    let mut raw = Raw::connect(&secure, &[]);
    raw.send(HEADERS, END_HEADERS, 1, &fields(&[POST.as_slice(), &[(b"x-twin", b"1")]].concat()));
    for _ in 0..10 {
        raw.send(DATA, 0, 1, b"");
    }
    raw.send(DATA, END_STREAM, 1, b"body");
    assert_eq!(raw.status(1), 0x88);
    is_well(&secure, before);
}

/// G5. CVE-2026-49975: a byte on the wire that is a whole field in memory, cookies too.
#[test]
fn heads_of_very_many_fields_or_crumbs_are_431_and_reach_no_one() {
    let backend = Backend::start(ok);
    let secure = open_to(&format!("http://{}", backend.address));
    run(async {
        let send = secure.h2().await;
        for (name, count, status) in
            [("x-a", 90, 200), ("x-a", 1_000, 431), ("x-a", 2_500, 431), ("cookie", 90, 200), ("cookie", 1_000, 431)]
        {
            let answer = ask(&send, request("GET /", &vec![(name, "b"); count]), b"").await.unwrap();
            assert_eq!(answer.status(), status, "{count} times {name}");
        }
    });
    assert_eq!(backend.all().len(), 2);
    // 5,000 bytes that each name an entry of the table
    let mut raw = Raw::connect(&secure, &[]);
    let block = [fields(&GET), b"\x40\x01a\x01b".to_vec(), vec![0xbe; 5_000]].concat();
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 3, &fields(&GET));
    assert_eq!(raw.status(3), 0x88);
    assert_eq!(backend.all().len(), 1);
}

/// G6. A window that is held shut while the answer waits, opened by a byte at a time.
#[test]
fn an_answer_that_is_not_taken_is_given_up_at_the_idle_limit() {
    let backend = Backend::start(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
        stream.write_all(head).and_then(|()| stream.write_all(&vec![b'x'; 1_000_000])).is_ok()
    });
    let secure = Secure::start(&format!(
        "[limits]\nidle = \"1s\"\n[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    let mut raw = Raw::connect(&secure, &[0, 4, 0, 0, 0, 0]);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&GET));
    assert_eq!(raw.status(1), 0x88);
    raw.0.sock.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
    let mut ended = false;
    let mut seen = Vec::new();
    eventually("the stream is reset", || {
        raw.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
        let mut bytes = [0; 4096];
        match raw.0.read(&mut bytes) {
            Ok(0) => ended = true,
            Ok(count) => seen.extend_from_slice(&bytes[..count]),
            Err(error) => ended = !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
        // RST_STREAM of stream 1
        ended || seen.windows(9).any(|nine| nine == [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1])
    });
    // whoever reads gets all of it
    run(async {
        let send = secure.h2().await;
        let (status, text, _) = read(ask(&send, request("GET /", &[]), b"").await.unwrap()).await.unwrap();
        assert_eq!((status, text.len()), (200, 1_000_000));
    });
}

/// A head of entries of the table, a byte each on the wire, whose answer is ours and is not taken: 79 KiB a stream.
#[test]
fn answers_of_ours_that_are_not_taken_hold_no_heads_and_are_bounded_in_all() {
    const CONNECTIONS: usize = 20;
    let backend = picky();
    let secure = open_to(&format!("http://{}", backend.address));
    let before = resident_kib(&secure);
    let page = (&b"accept"[..], &b"text/html"[..]);
    let crumb = b"\x40\x06cookie\x01b".to_vec();
    let mut raws = Vec::new();
    let (mut answered, mut reset) = (0, 0);
    for _ in 0..CONNECTIONS {
        // SETTINGS_INITIAL_WINDOW_SIZE = 0
        let mut raw = Raw::connect(&secure, &[0, 4, 0, 0, 0, 0]);
        let head = fields(&[GET.as_slice(), &[page]].concat());
        for at in 0..100 {
            // the first one puts the crumb into the table
            let first = if at == 0 { crumb.clone() } else { Vec::new() };
            let block = [head.clone(), first, vec![0xbe; 1_600]].concat();
            raw.send(HEADERS, END_HEADERS | END_STREAM, at * 2 + 1, &block);
        }
        let mut left: Vec<u32> = (0..100).map(|at| at * 2 + 1).collect();
        while !left.is_empty() {
            let frame = raw.next().unwrap();
            match frame.kind {
                HEADERS => answered += 1,
                RST_STREAM => reset += 1,
                _ => continue,
            }
            left.retain(|stream| *stream != frame.stream);
        }
        raws.push(raw);
    }
    assert_eq!(answered, CONNECTIONS * 100, "each has its head; {reset} were reset");
    let grown = resident_kib(&secure).saturating_sub(before);
    println!("{} KiB a stream", grown / (CONNECTIONS as u64 * 100));
    assert!(grown < 80 << 10, "grown by {grown} KiB");
    // whoever opens the window has the whole answer
    run(async {
        let send = secure.h2().await;
        let answer = ask(&send, request("GET /", &vec![("cookie", "b"); 1_000]), b"").await.unwrap();
        assert_eq!(read(answer).await.unwrap().0, 431);
    });
}

/// A client that opens its windows as far as they go, and reads nothing.
#[test]
fn answers_that_lie_unread_in_the_connection_are_little_a_stream() {
    let backend = Backend::start(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
        stream.write_all(head).and_then(|()| stream.write_all(&vec![b'x'; 1_000_000])).is_ok()
    });
    let secure = open_to(&format!("http://{}", backend.address));
    let before = resident_kib(&secure);
    // SETTINGS_INITIAL_WINDOW_SIZE and the connection's: all that there is
    let mut raw = Raw::connect(&secure, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    raw.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]);
    for at in 0..100 {
        raw.send(HEADERS, END_HEADERS | END_STREAM, at * 2 + 1, &fields(&GET));
    }
    let mut asked = 0;
    eventually("all are asked", || {
        asked += backend.all().len();
        asked == 100
    });
    let (mut grown, mut same) = (0, 0);
    eventually("it takes in no more", || {
        let now = resident_kib(&secure).saturating_sub(before);
        same = if now == grown { same + 1 } else { 0 };
        grown = now;
        same == 200
    });
    assert!(grown < 20 << 10, "grown by {grown} KiB");
    let mut data = 0;
    while data < 100_000_000 {
        let frame = raw.next().unwrap();
        assert!(!matches!(frame.kind, RST_STREAM | GOAWAY), "{frame:?}");
        data += if frame.kind == DATA { frame.payload.len() } else { 0 };
    }
}

/// RFC 9110, 15.2: a server in HTTP/1.1 whose interim answers never end; each would wait for the client in memory.
#[test]
fn interim_answers_without_end_are_502_and_some_pass() {
    let backend = Backend::start(|request, stream| {
        let hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        let hints = if request.field("x-twin").is_some() { 3 } else { 10_000 };
        if !(0..hints).all(|_| stream.write_all(hint).is_ok()) {
            return false;
        }
        if hints == 3 {
            return ok(request, stream);
        }
        std::thread::park();
        false
    });
    let secure = open_to(&format!("http://{}", backend.address));
    run(async {
        let send = secure.h2().await;
        for (fields, status) in [(&[("x-twin", "1")][..], 200), (&[], 502), (&[("x-twin", "1")], 200)] {
            assert_eq!(ask(&send, request("GET /", fields), b"").await.unwrap().status(), status);
        }
    });
}

/// G7. RFC 9113, 8.1.1: a length that is not that of the data.
#[test]
fn a_length_that_the_data_do_not_have_is_a_stream_error_and_never_a_whole_request() {
    let backend = Backend::start(ok);
    let secure = open_to(&format!("http://{}", backend.address));
    for (length, data) in [("5", &b"abc"[..]), ("2", b"abc"), ("0", b"abc"), ("x", b"abc"), ("-3", b"abc")] {
        let mut raw = Raw::connect(&secure, &[]);
        let head = [POST.as_slice(), &[(b"content-length", length.as_bytes())]].concat();
        raw.send(HEADERS, END_HEADERS, 1, &fields(&head));
        raw.send(DATA, END_STREAM, 1, data);
        assert_eq!(raw.end_of(1), End::Stream(PROTOCOL_ERROR), "{length}");
    }
    // the byte that is too many comes in a frame of its own
    let mut raw = Raw::connect(&secure, &[]);
    raw.send(HEADERS, END_HEADERS, 1, &fields(&[POST.as_slice(), &[(b"content-length", b"2")]].concat()));
    raw.send(DATA, 0, 1, b"ab");
    raw.send(DATA, END_STREAM, 1, b"c");
    assert_eq!(raw.end_of(1), End::Stream(PROTOCOL_ERROR));
    assert!(backend.all().is_empty());
    let mut raw = Raw::connect(&secure, &[]);
    raw.send(HEADERS, END_HEADERS, 1, &fields(&[POST.as_slice(), &[(b"content-length", b"3")]].concat()));
    raw.send(DATA, 0, 1, b"ab");
    raw.send(DATA, END_STREAM, 1, b"c");
    assert_eq!(raw.status(1), 0x88);
    assert_eq!(backend.next().body, b"abc");
}

/// G8. RFC 9113, 8.2.2: fields about one connection would be read again behind us.
#[test]
fn fields_about_the_connection_are_a_stream_error() {
    let backend = Backend::start(ok);
    let secure = open_to(&format!("http://{}", backend.address));
    for (name, value) in [
        (&b"transfer-encoding"[..], &b"chunked"[..]),
        (b"connection", b"close"),
        (b"connection", b"x-own"),
        (b"upgrade", b"websocket"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"te", b"gzip"),
        (b"X-Upper", b"1"),
    ] {
        let mut raw = Raw::connect(&secure, &[]);
        raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[GET.as_slice(), &[(name, value)]].concat()));
        let ended = raw.end_of(1);
        let malformed = matches!(ended, End::Stream(PROTOCOL_ERROR) | End::Connection(PROTOCOL_ERROR));
        assert!(malformed, "{}: {ended:?}", String::from_utf8_lossy(name));
    }
    assert!(backend.all().is_empty());
    let mut raw = Raw::connect(&secure, &[]);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[GET.as_slice(), &[(b"te", b"trailers")]].concat()));
    assert_eq!(raw.status(1), 0x88);
    assert_eq!(backend.next().field("te"), None);
}

/// G9. RFC 9113, 8.2.1 and 10.3: bytes that would be line ends or spaces in HTTP/1.1.
#[test]
fn bytes_that_would_cut_a_line_in_http1_reach_no_one() {
    let backend = Backend::start(ok);
    let secure = open_to(&format!("http://{}", backend.address));
    for value in [&b"a\r\nx-own: 1"[..], b"a\nb", b"a\rb", b"a\0b"] {
        let mut raw = Raw::connect(&secure, &[]);
        raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[GET.as_slice(), &[(b"x-a", value)]].concat()));
        let ended = raw.end_of(1);
        assert!(ended != End::Closed, "{ended:?}");
    }
    // blanks that only some readers cut off (RFC 9113, 8.2.1): 400
    for value in [&b" a"[..], b"a\t", b" "] {
        for name in [&b"authorization"[..], b"cookie", b"x-a"] {
            let mut raw = Raw::connect(&secure, &[]);
            raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[GET.as_slice(), &[(name, value)]].concat()));
            assert_eq!(raw.status(1), 0x8c, "{value:?}");
        }
    }
    for path in [&b"/a b"[..], b"/a\r\nb", b"/a\0b", b"", b"a", b"http://b.example.com/"] {
        let head = [&GET[..3], &[(&b":path"[..], path)]].concat();
        let mut raw = Raw::connect(&secure, &[]);
        raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&head));
        raw.send(HEADERS, END_HEADERS | END_STREAM, 3, &fields(&GET));
        // reset, or answered with 400 (0x8c)
        let mut answered = false;
        while let Some(frame) = raw.next() {
            match (frame.kind, frame.stream) {
                (RST_STREAM, 1) | (GOAWAY, _) => answered = true,
                (HEADERS, 1) => {
                    assert_eq!(frame.payload[0], 0x8c, "{}", String::from_utf8_lossy(path));
                    answered = true;
                }
                _ => {}
            }
            if answered {
                break;
            }
        }
        assert!(answered, "{}", String::from_utf8_lossy(path));
    }
    eventually("the twins have come", || !backend.all().is_empty());
}

/// docs/http.md: over HTTP/1.1 such a query passes (`as_it_came`), and escaped it does here.
#[test]
fn a_query_that_the_library_does_not_take_is_a_protocol_error_in_http2() {
    let backend = Backend::start(ok);
    let secure = open_to(&format!("http://{}", backend.address));
    let ask = |raw: &mut Raw, stream, path: &[u8]| {
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &fields(&[&GET[..3], &[(&b":path"[..], path)]].concat()));
    };
    let mut raw = Raw::connect(&secure, &[]);
    ask(&mut raw, 1, b"/x?up{job=\"a\"}");
    assert_eq!(raw.end_of(1), End::Stream(PROTOCOL_ERROR));
    ask(&mut raw, 3, b"/x?up{job=%22a%22}&caf\xc3\xa9");
    assert_eq!(raw.status(3), 0x88);
    assert_eq!(backend.next().line, "GET /x?up{job=%22a%22}&caf\u{e9} HTTP/1.1");
    ask(&mut raw, 5, b"/x?caf\xe9");
    assert_eq!(raw.end_of(5), End::Connection(PROTOCOL_ERROR));
}

/// RFC 9113, 8.3.1: a path has no fragment. The library cuts it off before a head is ours to refuse (HTTP/1: 400), so what is
/// judged and what an app gets must both be without it.
#[test]
fn a_fragment_in_a_path_is_neither_checked_nor_forwarded() {
    let backend = Backend::start(ok);
    let secure = Secure::start(&format!(
        "[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"http://{0}\"\n[[route]]\npath = \"/**\"\naccess = \"deny\"\n",
        backend.address
    ));
    let mut raw = Raw::connect(&secure, &[]);
    for (stream, (path, arrives)) in (1..).step_by(2).zip([
        (&b"/public/x"[..], "/public/x"),
        (b"/public/x#/../../admin", "/public/x"),
        (b"/public/x?q=1#?q=2", "/public/x?q=1"),
        (b"/public/x#%zz\"", "/public/x"),
        (b"/public#/x", "/public"),
        (b"/admin#/../public/x", ""),
        (b"/#/public/x", ""),
        (b"/admin?#/public/x", ""),
    ]) {
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &fields(&[&GET[..3], &[(&b":path"[..], path)]].concat()));
        let shown = String::from_utf8_lossy(path);
        assert_eq!(raw.status(stream) == 0x88, !arrives.is_empty(), "{shown}");
        let lines: Vec<_> = backend.all().into_iter().map(|received| received.line).collect();
        let forwarded = format!("GET {arrives} HTTP/1.1");
        assert_eq!(lines, if arrives.is_empty() { vec![] } else { vec![forwarded] }, "{shown}");
    }
    let log = secure.gateway.into_log();
    assert!(log.contains("\"path\":\"/public/x\"") && !log.contains('#'), "{log}");
}

/// G10. RFC 9113, 8.3.1: two names for one place.
#[test]
fn an_authority_and_a_host_that_differ_are_400() {
    let backend = Backend::start(ok);
    let secure = open_to(&format!("http://{}", backend.address));
    run(async {
        let send = secure.h2().await;
        for (host, status) in [
            ("b.example.com", 400),
            ("a.example.com:8443", 400),
            ("", 400),
            ("a.example.com", 200),
            ("A.Example.com", 200),
        ] {
            let answer = ask(&send, request("GET /", &[("host", host)]), b"").await.unwrap();
            assert_eq!(answer.status(), status, "{host}");
        }
    });
    assert_eq!(backend.all().len(), 2);
}

/// G11. RFC 9113, 8.2.3: a cookie that was cut in pieces is one, for us and for the app.
#[test]
fn cookie_crumbs_are_joined_before_anything_is_decided() {
    let backend = Backend::start(ok);
    let secure = Secure::start(&format!("[[route]]\nupstream = \"http://{}\"\n", backend.address));
    let cookie = secure.first_account();
    run(async {
        let send = secure.h2().await;
        let crumbs = [("cookie", "a=1"), ("cookie", cookie.as_str()), ("x-own", "y"), ("cookie", "b=2; c=3")];
        assert_eq!(ask(&send, request("GET /", &crumbs), b"").await.unwrap().status(), 200);
        // and two valid sessions in two crumbs are as ambiguous as in one line
        let other = {
            let body = serde_json::json!({ "email": "ada@example.com", "password": crate::gateway::PASSWORD });
            secure.client("a.example.com").post_json("/.auth/login", &[], &body).session_cookie()
        };
        let crumbs = [("cookie", cookie.as_str()), ("cookie", other.as_str())];
        assert_eq!(ask(&send, request("GET /", &crumbs), b"").await.unwrap().status(), 401);
    });
    let received = backend.next();
    let cookies: Vec<_> = received
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("cookie"))
        .map(|(_, value)| value)
        .collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
    assert_eq!(received.field("remote-email"), Some("ada@example.com"));
}

/// G12. RFC 9110, 7.4; Traefik's advisories on SNI: a connection for one name, a request for another.
#[test]
fn an_authority_that_the_certificate_does_not_cover_is_421() {
    let secure = Secure::whoami();
    run(async {
        for (name, host, status) in [
            ("a.example.com", "b.example.com", 421),
            ("a.example.com", "x.wild.example.com", 421),
            ("b.example.com", "x.wild.example.com", 200),
            ("a.example.com", "a.example.com", 200),
        ] {
            let send = connect(&secure.authority, secure.gateway.tls, name).await;
            let get = http::Request::builder().uri(format!("https://{host}/public/x")).body(()).unwrap();
            let answer = ask(&send, get, b"").await.unwrap();
            assert_eq!(answer.status(), status, "{name}, then {host}");
        }
    });
}

/// G13. Frames that cost an answer, or nothing but time: a client that reads none of the answers waits for itself.
#[test]
fn floods_of_settings_pings_and_priorities_hold_nothing_and_no_one() {
    let backend = picky();
    let secure = open_to(&format!("http://{}", backend.address));
    let before = resident_kib(&secure);
    let floods = [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[1; 8]), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])];
    for kind in floods {
        let mut raw = Raw::connect(&secure, &[]);
        // each batch is answered before the next, or the connection is ended: both are well
        let ended = raw.flood(100, |_| kind.repeat(100));
        if ended.is_none() {
            raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[GET.as_slice(), &[(b"x-twin", b"1")]].concat()));
            assert_eq!(raw.status(1), 0x88);
        }
        // and nobody reads at all
        let mut deaf = Raw::connect(&secure, &[]);
        deaf.0.sock.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        for _ in 0..100 {
            if deaf.0.write_all(&kind.repeat(100)).is_err() {
                break;
            }
        }
        is_well(&secure, before);
    }
}

/// Streams beyond the hundred that are announced are refused, and the others are served (RFC 9113, 5.1.2).
#[test]
fn a_hundred_streams_are_open_at_once_and_no_more() {
    let (listener, address) = silent();
    let secure = open_to(&format!("http://{address}"));
    let mut raw = Raw::connect(&secure, &[]);
    let head = fields(&GET);
    for at in 0..101 {
        raw.send(HEADERS, END_HEADERS | END_STREAM, at * 2 + 1, &head);
    }
    assert_eq!(raw.end_of(201), End::Stream(7), "REFUSED_STREAM");
    drop(listener);
}

/// Each forwarded stream may hold a connection to a server: beyond the first of a connection, those of one address have a
/// quarter of all places, and are refused as unseen above that (RFC 9113, 8.7). They are no connections of the address.
#[test]
fn streams_of_one_address_hold_no_more_than_a_quarter_of_all_places_and_give_it_back() {
    let backend = picky();
    let secure = Secure::start(&format!(
        "[limits]\nconnections = 28\nconnections_per_address = 1\n[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    let twin = fields(&[GET.as_slice(), &[(b"x-twin", b"1")]].concat());
    let mut raw = Raw::connect(&secure, &[]);
    for stream in (1..60).step_by(2) {
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &twin);
        assert_eq!(raw.status(stream), 0x88);
    }
    for stream in (101..141).step_by(2) {
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &fields(&GET));
    }
    let mut held: Vec<u32> = (101..141).step_by(2).collect();
    while held.len() > 8 {
        let frame = raw.next().unwrap();
        if frame.kind == RST_STREAM {
            assert_eq!(frame.payload, [0, 0, 0, 7], "REFUSED_STREAM");
            held.retain(|stream| *stream != frame.stream);
        }
    }
    // those that are left wait for the server, and nobody's stream gets in beside them
    raw.send(HEADERS, END_HEADERS | END_STREAM, 201, &twin);
    assert_eq!(raw.end_of(201), End::Stream(7));
    assert_eq!(secure.gateway.metric("authgate_connections"), 8);
    for stream in held {
        raw.send(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    }
    eventually("the places come back", || secure.gateway.metric("authgate_connections") == 1);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 203, &twin);
    assert_eq!(raw.status(203), 0x88);
}

/// What a gallery asks for in ten tabs, all of which is slow: nothing is refused by default.
#[test]
fn ten_connections_with_thirty_one_streams_each_of_one_address_have_none_refused() {
    let (listener, address) = silent();
    let secure = open_to(&format!("http://{address}"));
    let head = fields(&GET);
    let mut tabs: Vec<_> = (0..10).map(|_| Raw::connect(&secure, &[])).collect();
    for tab in &mut tabs {
        for stream in (1..62).step_by(2) {
            tab.send(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        }
    }
    let mut images: Vec<_> = (0..310).map(|_| accept(&listener)).collect();
    for image in &mut images {
        image.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
    for tab in &mut tabs {
        let mut answered = 0;
        while answered < 31 {
            let frame = tab.next().expect("the connection goes on");
            assert_ne!(frame.kind, RST_STREAM, "{frame:?}");
            answered += usize::from(frame.kind == HEADERS);
        }
    }
}

/// So do those that ask a page of ours: 25,000 at once, on 250 connections, filled the store's queue, and other people's
/// sign-ins found no place in it.
#[test]
fn streams_to_pages_are_no_more_either() {
    let secure = Secure::start("[limits]\nconnections = 28\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let page = (&b":path"[..], &b"/.auth/login"[..]);
    let [twin, form] = [GET, POST].map(|head| fields(&[&head[..3], &[page]].concat()));
    let mut raw = Raw::connect(&secure, &[]);
    for stream in (1..60).step_by(2) {
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, &twin);
        assert_eq!(raw.status(stream), 0x88);
    }
    // their forms do not come
    for stream in (101..141).step_by(2) {
        raw.send(HEADERS, END_HEADERS, stream, &form);
    }
    let mut held: Vec<u32> = (101..141).step_by(2).collect();
    while held.len() > 8 {
        let frame = raw.next().unwrap();
        if frame.kind == RST_STREAM {
            assert_eq!(frame.payload, [0, 0, 0, 7], "REFUSED_STREAM");
            held.retain(|stream| *stream != frame.stream);
        }
    }
    for stream in held {
        raw.send(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    }
    eventually("the places come back", || secure.gateway.metric("authgate_connections") == 1);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 203, &twin);
    assert_eq!(raw.status(203), 0x88);
}

/// Connections and their servers' may be as many as the system lets us have files; too few are told at the start.
#[test]
fn the_limit_of_open_files_is_raised_and_too_low_a_one_is_reported() {
    for (connections, warns) in [(200, false), (300, true)] {
        let rest = format!("[limits]\nconnections = {connections}\n[[route]]\nupstream = \"builtin:whoami\"\n");
        let folder = configured(&rest);
        let own = command(folder.path(), &["run"]);
        let mut limited = Command::new("prlimit");
        limited.arg("--nofile=256:512").arg(own.get_program()).args(own.get_args()).env_remove("RUST_LOG");
        let gateway = Gateway::spawn(limited, folder);
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().collect::<Vec<_>>()[3..5], ["512", "512"]);
        assert_eq!(gateway.into_log().contains("open file limit too low for limits.connections"), warns);
    }
}

/// RFC 9113, 8.3: a head without its parts, or with parts of an answer, is none.
#[test]
fn heads_without_their_parts_are_stream_errors() {
    let backend = Backend::start(ok);
    let secure = open_to(&format!("http://{}", backend.address));
    let broken = [
        GET[1..].to_vec(),
        [&GET[..1], &GET[2..]].concat(),
        GET[..3].to_vec(),
        [GET.as_slice(), &[(b":status", b"200")]].concat(),
        [GET.as_slice(), &[(b":path", b"/twice")]].concat(),
        [GET.as_slice(), &[(b":protocol", b"websocket")]].concat(),
        [&[(&b"x-first"[..], &b"1"[..])], GET.as_slice()].concat(),
    ];
    for head in broken {
        let mut raw = Raw::connect(&secure, &[]);
        raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&head));
        let ended = raw.end_of(1);
        assert!(matches!(ended, End::Stream(PROTOCOL_ERROR) | End::Connection(PROTOCOL_ERROR)), "{ended:?}");
    }
    assert!(backend.all().is_empty());
}

/// A head that is never sent to its end costs as little as in HTTP/1 (CWE-400; `limits.head_time`), also beside streams
/// that are open. A body may take its time.
#[test]
fn half_a_header_block_ends_the_connection_and_half_a_body_does_not() {
    let backend = Backend::start(ok);
    let secure = Secure::start(&format!(
        "[limits]\nhead_time = \"1s\"\n[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    let block = fields(&POST);
    let half = [frame(DATA, 0, 1, b"half"), frame(HEADERS, 0, 3, &block[..10])].concat();
    let part = frame(HEADERS, END_HEADERS, 3, &block);
    for (first, drips) in [(&half[..], false), (&half, true), (&part[..20], false), (&part[..5], false)] {
        let mut raw = Raw::connect(&secure, &[]);
        raw.send(HEADERS, END_HEADERS, 1, &block);
        raw.0.write_all(first).unwrap();
        let mut rest = block[10..].iter();
        let began = Instant::now();
        while raw.is_silent_for(Duration::from_millis(150)) {
            assert!(began.elapsed() < Duration::from_secs(10), "{} bytes, {drips}", first.len());
            if drips && let Some(byte) = rest.next() {
                raw.send(CONTINUATION, 0, 3, &[*byte]);
            }
        }
        assert!(began.elapsed() > Duration::from_millis(900), "{} bytes, {drips}", first.len());
    }
    let mut raw = Raw::connect(&secure, &[]);
    raw.send(HEADERS, END_HEADERS, 1, &block);
    let body = frame(DATA, END_STREAM, 1, b"body");
    raw.0.write_all(&body[..11]).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        assert!(raw.is_silent_for(Duration::from_millis(150)));
    }
    raw.0.write_all(&body[11..]).unwrap();
    assert_eq!(raw.status(1), 0x88);
    assert_eq!(backend.next().body, b"body");
}

/// Streams of many clients share a connection to a server in HTTP/2: those who do not read take no room from the others
/// (RFC 9113, 5.2 and 10.5).
#[test]
fn clients_that_read_nothing_do_not_hold_up_others_answers_on_a_shared_connection() {
    const BIG: usize = 64 << 20;
    let address = serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::task::spawn_local(async move {
                let mut left = if request.uri().path() == "/big" { BIG } else { 100_000 };
                let head = http::Response::builder().header("content-length", left).body(()).unwrap();
                let Ok(mut body) = respond.send_response(head, false) else { return };
                while left > 0 {
                    body.reserve_capacity(left.min(64 << 10));
                    let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return };
                    let piece = room.min(left);
                    left -= piece;
                    if body.send_data(vec![b'x'; piece].into(), left == 0).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    let mut deaf: Vec<_> = (0..60).map(|_| gateway.client()).collect();
    for client in &mut deaf {
        client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.head().status, 200);
    }
    // on whichever thread they are
    for _ in 0..8 {
        assert_eq!(gateway.client().get("/small", &[]).body.len(), 100_000);
    }
    assert_eq!(deaf.remove(0).take(BIG).len(), BIG, "it waits, and is not lost");
}

/// CVE-2023-44487, one hop on: a server ends a connection on which streams are taken back again and again, with all that
/// others have on it.
#[test]
fn clients_that_go_away_again_and_again_end_no_one_elses_stream_at_a_server_in_http2() {
    static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
    let address = serve(|stream| async move {
        CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut taken_back = 0;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        loop {
            let next = tokio::select! {
                next = connection.accept() => next,
                Some(()) = told.recv() => {
                    taken_back += 1;
                    // as nginx, Envoy and Go do, each in its way
                    if taken_back > 60 {
                        connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                    }
                    continue;
                }
            };
            let Some(Ok((request, mut respond))) = next else { return };
            let tell = tell.clone();
            tokio::task::spawn_local(async move {
                let Ok(mut body) = respond.send_response(http::Response::new(()), false) else { return };
                let _ = body.send_data("begun".into(), false);
                if request.uri().path() == "/served" {
                    let _ = body.send_trailers(http::HeaderMap::new());
                } else if request.uri().path() == "/twin" {
                    let mut upload = request.into_body();
                    while let Some(Ok(_)) = upload.data().await {}
                    let _ = body.send_data("ended".into(), true);
                } else if std::future::poll_fn(|cx| body.poll_reset(cx)).await.is_ok() {
                    let _ = tell.send(());
                }
            });
        }
    });
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    let mut twins: Vec<_> = (0..2).map(|_| gateway.client()).collect();
    for twin in &mut twins {
        twin.send(b"POST /twin HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        assert_eq!((twin.head().status, twin.chunk()), (200, b"begun".to_vec()));
    }
    for _ in 0..200 {
        let mut client = gateway.client();
        client.send(b"GET /left HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((client.head().status, client.chunk()), (200, b"begun".to_vec()));
    }
    let mut client = gateway.client();
    client.get("/served", &[]);
    let before = CONNECTIONS.load(Ordering::Relaxed);
    for _ in 0..30 {
        assert_eq!(client.get("/served", &[]).text(), "begun");
    }
    assert_eq!(CONNECTIONS.load(Ordering::Relaxed), before, "what ends is not held against a connection");
    for twin in &mut twins {
        twin.send(b"0\r\n\r\n");
        assert_eq!((twin.chunk(), twin.chunk()), (b"ended".to_vec(), vec![]));
    }
}

/// The same all at once: of streams that it has not seen yet, hyper (and so tonic) lets 20 be taken back.
#[test]
fn clients_that_go_away_all_at_once_do_not_make_a_server_in_http2_end_a_connection() {
    static CALMED: AtomicUsize = AtomicUsize::new(0);
    let address = serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        loop {
            match connection.accept().await {
                Some(Ok((request, mut respond))) if request.uri().path() == "/served" => {
                    let _ = respond.send_response(http::Response::new(()), true);
                }
                Some(Ok((_, mut respond))) => {
                    tokio::task::spawn_local(async move { std::future::poll_fn(|cx| respond.poll_reset(cx)).await });
                }
                Some(Err(_)) => {
                    CALMED.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                None => return,
            }
        }
    });
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    for _ in 0..5 {
        let mut clients: Vec<_> = (0..150).map(|_| std::net::TcpStream::connect(gateway.address).unwrap()).collect();
        for client in &mut clients {
            client.write_all(b"GET /left HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            // for good: an end alone could mean that nothing more is sent
            socket2::SockRef::from(&*client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
        drop(clients);
        eventually("they are gone", || gateway.metric("authgate_connections") == 0);
        for _ in 0..4 {
            assert_eq!(gateway.client().get("/served", &[]).status, 200);
        }
    }
    assert_eq!(CALMED.load(Ordering::Relaxed), 0);
}

/// A call that sends what is echoed, and reads nothing, fills the room that a server has for all that is sent to it on a
/// connection: other clients' bodies must not wait for that room (RFC 9113, 5.2.1).
#[test]
fn a_client_that_sends_without_reading_holds_up_no_other_ones_bodies() {
    let address = serve(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::task::spawn_local(async move {
                let Ok(mut answer) = respond.send_response(http::Response::new(()), false) else { return };
                let mut body = request.into_body();
                while let Some(Ok(mut data)) = body.data().await {
                    let length = data.len();
                    while !data.is_empty() {
                        answer.reserve_capacity(data.len());
                        let Some(Ok(room)) = std::future::poll_fn(|cx| answer.poll_capacity(cx)).await else { return };
                        let _ = answer.send_data(data.split_to(room.min(data.len())), false);
                    }
                    let _ = body.flow_control().release_capacity(length);
                }
                let _ = answer.send_data(bytes::Bytes::new(), true);
            });
        }
    });
    let gateway = Gateway::start(&format!("[[route]]\naccess = \"public\"\nupstream = \"h2c://{address}\"\n"));
    let connect = |from: &str, room: usize| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(room).unwrap();
        socket.bind(&std::net::SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
        socket.connect(&gateway.address.into()).unwrap();
        std::net::TcpStream::from(socket)
    };
    let mut deaf: Vec<_> = (0..4).map(|_| connect("127.0.0.2", 4096)).collect();
    for client in &mut deaf {
        client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        client.write_all(b"POST /deaf HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        // until nobody takes any more
        let chunk = [&b"40000\r\n"[..], &vec![b'x'; 0x40000], b"\r\n"].concat();
        while client.write_all(&chunk).is_ok() {}
    }
    for _ in 0..8 {
        let stream = connect("127.0.0.3", 1 << 20);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let answer =
            crate::client::Client::over(stream, "a".to_owned()).request("POST /twin", &[], &vec![b'y'; 100_000]);
        assert_eq!((answer.status, answer.body.len()), (200, 100_000));
    }
}

//! What kind of body a response has: one piece, an event stream, or gRPC messages.

use http::header;

use crate::wire::response_view::ResponseHeadView;

/// Content types that are sent piece by piece for as long as there are events, and whether they end by themselves:
/// server-sent events (WHATWG HTML, 9.2), camera images (the same, 7.1.7), and JSON text sequences (RFC 7464, and
/// variants without an RFC).
const STREAMS: [(&[u8], bool); 6] = [
    (b"text/event-stream", false),
    (b"multipart/x-mixed-replace", false),
    (b"application/json-seq", true),
    (b"application/stream+json", true),
    (b"application/x-ndjson", true),
    (b"application/jsonl", true),
];

/// Whether a response is a stream of server-sent events. These have no end of their own, so any end is a clean one.
pub(crate) fn is_server_sent(answer: &impl ResponseHeadView) -> bool {
    kind_of_body(answer).is_some_and(|kind| kind.eq_ignore_ascii_case(STREAMS[0].0))
}

/// Whether it is a gRPC response, which has its status in the trailers.
pub(crate) fn is_grpc(answer: &impl ResponseHeadView) -> bool {
    kind_of_body(answer)
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/grpc") || kind.starts_with(b"application/grpc+"))
}

fn kind_of_body(answer: &impl ResponseHeadView) -> Option<&[u8]> {
    let kind = answer.values(&header::CONTENT_TYPE).next()?;
    Some(kind.split(|&byte| byte == b';').next()?.trim_ascii())
}

/// Whether a response is an event stream; if so, whether it ends by itself.
pub(crate) fn is_event_stream(answer: &impl ResponseHeadView) -> Option<bool> {
    let kind = kind_of_body(answer)?;
    STREAMS.iter().find(|(stream, _)| stream.eq_ignore_ascii_case(kind)).map(|(_, ends)| *ends)
}

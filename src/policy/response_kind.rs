//! What kind of body a response has: one piece, a stream of events, or a gRPC call's.

use http::header;

use crate::wire::response_view::ResponseHeadView;

/// Kinds of answers that are sent piece by piece for as long as there is something to tell, and whether they come to
/// an end by themselves: server-sent events (WHATWG HTML, 9.2), the pictures of cameras (the same, 7.1.7), and JSON
/// texts in a row (RFC 7464, and its relatives that have no RFC).
const STREAMS: [(&[u8], bool); 6] = [
    (b"text/event-stream", false),
    (b"multipart/x-mixed-replace", false),
    (b"application/json-seq", true),
    (b"application/stream+json", true),
    (b"application/x-ndjson", true),
    (b"application/jsonl", true),
];

/// Whether an answer is a stream of server-sent events: these have no end of their own, so that any is a clean one.
pub(crate) fn is_server_sent(answer: &impl ResponseHeadView) -> bool {
    kind_of_body(answer).is_some_and(|kind| kind.eq_ignore_ascii_case(STREAMS[0].0))
}

/// Whether it is the answer to a gRPC call, which has a status in its trailers.
pub(crate) fn is_grpc(answer: &impl ResponseHeadView) -> bool {
    kind_of_body(answer)
        .is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/grpc") || kind.starts_with(b"application/grpc+"))
}

fn kind_of_body(answer: &impl ResponseHeadView) -> Option<&[u8]> {
    let kind = answer.values(&header::CONTENT_TYPE).next()?;
    Some(kind.split(|&byte| byte == b';').next()?.trim_ascii())
}

/// Whether an answer is a stream of events; if so, whether it ends by itself.
pub(crate) fn is_event_stream(answer: &impl ResponseHeadView) -> Option<bool> {
    let kind = kind_of_body(answer)?;
    STREAMS.iter().find(|(stream, _)| stream.eq_ignore_ascii_case(kind)).map(|(_, ends)| *ends)
}

//! Bytes on connections: sockets and their deadlines, request and response heads, body framing, WebSocket frames. Knows
//! neither accounts nor rules; callers pass in what depends on them.

pub(crate) mod body;
pub(crate) mod chunked;
pub(crate) mod deadline;
pub(crate) mod framed_body;
pub(crate) mod grpc_messages;
pub(crate) mod h2_body;
pub(crate) mod h2_pacing;
pub(crate) mod head_error;
pub(crate) mod hop_by_hop;
pub(crate) mod peer_liveness;
pub(crate) mod request_head;
pub(crate) mod request_target;
pub(crate) mod response_head;
pub(crate) mod response_view;
pub(crate) mod server_verifier;
pub(crate) mod stream;
pub(crate) mod tls_info;
pub(crate) mod websocket_frames;

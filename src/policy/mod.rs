//! Who may pass, and what is sent: pure functions without I/O or `await`. Live requests, `check` and `explain` call the
//! same ones.

pub(crate) mod app_cookies;
pub(crate) mod authenticate;
pub(crate) mod authorize;
pub(crate) mod caching;
pub(crate) mod cors;
pub(crate) mod decide;
pub(crate) mod destination;
pub mod explain;
pub(crate) mod forwarding;
pub(crate) mod header_filter;
pub(crate) mod hsts;
pub(crate) mod loop_detection;
pub(crate) mod normalize;
pub(crate) mod oversized_head;
pub(crate) mod reasons;
pub(crate) mod refuse;
pub(crate) mod reply_head;
pub(crate) mod request_headers;
pub(crate) mod response_headers;
pub(crate) mod response_kind;
pub(crate) mod route;
pub(crate) mod second_method;
pub(crate) mod service_worker;
pub(crate) mod trailers;
pub(crate) mod websocket_credentials;

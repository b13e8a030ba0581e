//! Connections and the exchanges over them: reads each request, asks [`crate::policy`], forwards it or answers it, and
//! writes its line to the access log.

pub(crate) mod accepted_connection;
mod access_log;
pub(crate) mod build_gateway;
mod attempt;
mod body_time;
mod client_disconnected;
mod connection_activity;
mod connection_handle;
mod connection_handler;
pub(crate) mod connection_limits;
mod connection_reuse;
mod exchange;
mod failure;
mod flow;
mod gateway;
pub(crate) mod h1;
mod h2;
mod limit_log;
mod live_connections;
mod own_page;
#[cfg(any(test, fuzzing))]
pub mod properties;
pub(crate) mod metrics_report;
mod provider_token;
mod request_state;
pub(crate) mod server_app;
pub(crate) mod tls_handshake;
mod unknown_credentials;
mod untrusted_proxy_warning;

pub use build_gateway::Current;
pub use gateway::Gateway;

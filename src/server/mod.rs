//! The process: listening sockets, one worker thread per core for the proxy, a separate runtime for everything else,
//! signals, reloads and shutdown. No request is authorized here.

mod admin;
mod descriptors;
mod dns;
mod error;
mod file_watch;
mod lifecycle;
mod listen;
mod reload;
mod signals;
mod supervisor;
mod tls;
mod whoami;
mod workers;

pub use error::ServeError;
pub use lifecycle::serve;
pub use reload::Source;

//! The process: sockets that we bind ourselves, one thread and one runtime a core for the proxy, a
//! runtime apart for everything else, signals, reloading, draining. No request is judged here.

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

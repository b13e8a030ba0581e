//! Why an exchange with a server failed: what the log may say of it, and whether the cause is this machine.

use pingora_core::{Error, ErrorType, ImmutStr};
use rustix::io::Errno;

/// What is at the bottom of a failure, as far as it cannot hold what was sent: pingora's own texts quote heads and
/// bodies.
pub(crate) fn root_cause(e: &Error) -> String {
    let deeper = e.cause.as_deref().and_then(|cause| cause.downcast_ref::<Box<Error>>());
    match (deeper, io_error(e), &e.context) {
        (Some(deeper), _, _) => root_cause(deeper),
        (None, Some(io), _) => io.to_string(),
        (None, None, Some(ImmutStr::Static(text))) => (*text).to_owned(),
        // before anything was sent: what is wrong with the server's certificate, or that it speaks no TLS
        (None, None, Some(text)) if *e.etype() == ErrorType::TLSHandshakeFailure => {
            let text = text.as_str();
            text.rsplit_once("cause: ").map_or(text, |(_, cause)| cause).to_owned()
        }
        // our own words: what a resolver said
        (None, None, Some(text)) if matches!(e.etype(), ErrorType::HTTPStatus(_)) => text.as_str().to_owned(),
        _ => String::new(),
    }
}

/// The error of the system's in it, if there is one; not what a deeper error of pingora's holds.
fn io_error(e: &Error) -> Option<&std::io::Error> {
    let cause = e.cause.as_deref()?;
    cause.downcast_ref().or_else(|| cause.source().and_then(|source| source.downcast_ref()))
}

/// Whether it is this machine that cannot connect, to whatever server: it has no descriptors or memory left.
pub(crate) fn is_our_own(e: &Error) -> bool {
    const OWN: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    if let Some(deeper) = e.cause.as_deref().and_then(|cause| cause.downcast_ref::<Box<Error>>()) {
        return is_our_own(deeper);
    }
    let code = io_error(e).and_then(std::io::Error::raw_os_error);
    code.is_some_and(|code| OWN.iter().any(|own| own.raw_os_error() == code))
}

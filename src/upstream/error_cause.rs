//! Why an exchange with an upstream server failed: the part that is safe to log, and whether this machine is the cause.

use pingora_core::{Error, ErrorType, ImmutStr};
use rustix::io::Errno;

/// The root cause of a failure, only where it cannot contain what was sent: pingora's own texts quote heads and bodies.
pub(crate) fn root_cause(e: &Error) -> String {
    let deeper = e.cause.as_deref().and_then(|cause| cause.downcast_ref::<Box<Error>>());
    match (deeper, io_error(e), &e.context) {
        (Some(deeper), _, _) => root_cause(deeper),
        (None, Some(io), _) => io.to_string(),
        (None, None, Some(ImmutStr::Static(text))) => (*text).to_owned(),
        // before anything was sent: a fault in the server's certificate, or a server that does not speak TLS
        (None, None, Some(text)) if *e.etype() == ErrorType::TLSHandshakeFailure => {
            let text = text.as_str();
            text.rsplit_once("cause: ").map_or(text, |(_, cause)| cause).to_owned()
        }
        // the gateway's own text: the resolver's error
        (None, None, Some(text)) if matches!(e.etype(), ErrorType::HTTPStatus(_)) => text.as_str().to_owned(),
        _ => String::new(),
    }
}

/// The I/O error that is the cause, if there is one; not that of a nested pingora error.
fn io_error(e: &Error) -> Option<&std::io::Error> {
    let cause = e.cause.as_deref()?;
    cause.downcast_ref().or_else(|| cause.source().and_then(|source| source.downcast_ref()))
}

/// Whether this machine cannot connect to any server: it is out of descriptors, buffers or memory.
pub(crate) fn is_our_own(e: &Error) -> bool {
    const OWN: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    if let Some(deeper) = e.cause.as_deref().and_then(|cause| cause.downcast_ref::<Box<Error>>()) {
        return is_our_own(deeper);
    }
    let code = io_error(e).and_then(std::io::Error::raw_os_error);
    code.is_some_and(|code| OWN.iter().any(|own| own.raw_os_error() == code))
}

//! The next piece of a body. Its end is a value, never the absence of more bytes: a reset connection, a stall or a failed
//! upload can look like an end, too.

use bytes::Bytes;

/// The next piece of a body. An error in its place means that the body was truncated.
#[derive(Debug)]
pub(crate) enum Part {
    Data(Bytes),
    End(Complete),
}

/// Proof that a body was read to the end of its framing. It is required to write a last chunk, an END_STREAM or a clean close
/// for a body that is forwarded.
#[derive(Debug)]
pub(crate) struct Complete(());

impl Complete {
    /// Server-sent events have no end: they are complete wherever they stop.
    pub(crate) fn of_events() -> Self {
        Self(())
    }

    /// Only for code that follows the framing.
    pub(crate) fn by_framing() -> Self {
        Self(())
    }
}

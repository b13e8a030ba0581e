//! What comes next of a body. That it has ended is a value, never the absence of more bytes: a reset connection, a stall or
//! a failed upload can look like an end, too.

use bytes::Bytes;

/// The next of a body. Where there is an error in its place, the body was cut.
#[derive(Debug)]
pub(crate) enum Part {
    Data(Bytes),
    End(Complete),
}

/// A body was read to the end that its framing gives it. Whoever writes a last chunk, an END_STREAM or a clean close for a
/// body of somebody else's has to show it.
#[derive(Debug)]
pub(crate) struct Complete(());

impl Complete {
    /// Server-sent events have no end of their own: they are whole wherever they stop.
    pub(crate) fn of_events() -> Self {
        Self(())
    }

    /// To be said by whoever follows the framing, and nobody else.
    pub(crate) fn by_framing() -> Self {
        Self(())
    }
}

//! Why the head of a request is rejected, for all protocols: a value without any text for users.

/// Why a head is refused; each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// 400: the method, target, Host, framing or a forwarded field reads two ways, or not at all.
    Ambiguous(&'static str),
    /// 405: CONNECT, TRACE or TRACK.
    Method,
    /// 414: the target is longer than a head may be.
    TargetTooLong,
    /// 431: too many fields or bytes.
    TooLarge,
    /// 408: it was not whole within `limits.head_time`.
    TooSlow,
    /// 421: the connection's certificate does not speak for this host.
    Misdirected,
}

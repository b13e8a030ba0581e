//! `[sign_up] mode`, which each provider may override.

/// `sign_up.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignUp {
    /// No sign-up; accounts are created on the command line.
    Closed,
    /// Only with an invite link.
    Invite,
    /// Anyone.
    Open,
}

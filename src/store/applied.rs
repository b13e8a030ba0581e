//! Whether what a command changed is in force where it is served.

/// Whether running gateways have applied a change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// Applied.
    Yes,
    /// No gateway uses this database.
    NotServed,
    /// Not confirmed in time.
    NotYet,
    /// Some of several nodes have not confirmed it: which, for people.
    Partly(String),
}

//! What the commands do to accounts, in a process of their own, with or without a running
//! gateway. Blocking. The same rules hold as for people in a browser.

/// The accounts as commands see them.
pub struct Admin {}

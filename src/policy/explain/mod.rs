//! How a request would be handled, without sending it: what `explain` and `check` report.

#[cfg(any(test, fuzzing))]
pub mod reach;
pub mod report;
pub mod simulate;

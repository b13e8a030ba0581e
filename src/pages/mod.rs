//! Being laid out.

pub mod whoami;

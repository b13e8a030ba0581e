//! Nodes: what a process calls itself, and how they are listed.

use crate::clock::UnixSecs;
use crate::secret::{NoRandomness, random_bytes};

/// What a process calls itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeId {
    /// Random, new at each start.
    pub id: String,
    /// The name of its host.
    pub name: String,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NodeRow {
    pub id: String,
    pub name: String,
    /// Of the program.
    pub version: String,
    /// The schema that it knows.
    pub schema: u64,
    pub started: UnixSecs,
    /// Seconds since it was last heard of.
    pub silent_secs: u64,
}

impl NodeId {
    /// A new one for this process.
    pub fn new() -> Result<Self, NoRandomness> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let id = data_encoding::HEXLOWER.encode(&random_bytes::<4>()?);
        Ok(Self { name: format!("{host}-{id}"), id })
    }
}

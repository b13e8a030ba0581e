//! A `PostgreSQL` that several nodes share: connections, transactions, the schema, and the feed of other nodes' changes.

mod connect;
mod database;
mod dialect;
mod faults;
mod feed;
pub(super) mod nodes;
mod rows;
pub(super) mod schema;
mod tls;

pub(super) use connect::Server;
pub(super) use database::{Excludes, Postgres};
pub(super) use feed::{Feed, Polled};

//! Facts on disk: one `SQLite` database in the state folder. Every public function over a [`Db`] is one transaction:
//! it happens as a whole or not at all. Nothing outside this room uses SQL. The store knows nothing of tokens, hashing
//! or HTTP, and never decides who may do what.

pub mod api_tokens;
mod applied;
#[cfg(test)]
mod contract;
#[cfg(test)]
#[path = "../../tests/it/fixtures/mod.rs"]
pub(crate) mod fixtures;
pub mod audit;
mod backup;
pub mod backup_key;
mod convert;
mod copy;
mod db;
pub mod devices;
mod error;
mod folder;
mod foreign;
pub mod identities;
pub mod imports;
mod inspect;
mod jobs;
pub mod keys;
mod link_rows;
pub mod links;
mod migrate;
mod node_rows;
pub mod nodes;
pub mod noted;
mod postgres;
pub mod provider_logouts;
pub mod provider_sign_ins;
pub mod purge;
pub mod rechecks;
mod restore;
pub mod sealed_tokens;
pub mod secret_key;
pub mod sessions;
mod shared_threads;
pub mod sign_ins;
mod sql;
mod sqlite;
mod sqlite_statements;
mod sqlite_thread;
pub mod sync;
mod thread;
pub mod throttle;
mod user_rows;
pub mod users;

pub use api_tokens::{ApiTokenRow, Kept, NewApiToken, TokenProof};
pub use applied::Applied;
pub use audit::{AuditEvent, AuditRow};
pub use backup::{KeyText, back_up};
pub use db::Db;
pub use devices::LastHere;
pub use error::StoreError;
pub use folder::{Folder, Lock, has_database};
pub use foreign::{ForeignTable, has_table, read_table};
pub use identities::{IdentityRow, Linked, NewIdentity, ProviderSummary, Unlinked, WaysIn};
pub use imports::Import;
pub use inspect::{Judged, judge};
pub use jobs::Hooks;
pub use keys::{APP_COOKIES, KeyRow, NewKey, Rotation, Seal, StoredSecret};
pub use link_rows::NewLink;
pub use links::{InviteRow, LinkRow, LinkUse};
pub use migrate::{Check, Migrated};
pub use node_rows::{NodeId, NodeRow};
pub use provider_sign_ins::{Entry, ProviderIntent, ProviderOutcome, ProviderSignIn};
pub use restore::{KeyCheck, KeyIn, Restored, restore};
pub use sealed_tokens::{SealedToken, SignedOut};
pub use sessions::{NewSession, SessionEnd, SessionIdentity, SessionRow, SessionSelector};
pub use sign_ins::{Begun, SignIn};
pub use sync::{Account, ActiveIds, ActiveSession, Change, IdentityGroups, Reload};
pub use thread::Store;
pub use throttle::{CountedAttempt, Limit, Rule, Throttled};
pub use user_rows::{ADMIN_GROUP, UserRow};
pub use users::{Keeps, NewId, NewUser, Password, UserChange, Written};

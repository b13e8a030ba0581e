//! # authgate: the map
//!
//! One request, one straight line:
//!
//! ```text
//! listener -> request head -> normalize -> route -> authenticate -> authorize -> forward -> response -> access log
//! ```
//!
//! Login, sign-up and account pages are a second line beside it:
//!
//! ```text
//! listener -> request head -> normalize -> page -> guard -> account -> store -> reply -> access log
//! ```
//!
//! Both are served by [`proxy`]: it reads each head once, strictly. A forwarded request is an exchange (`proxy/exchange`: a small
//! body is read whole first, others are streamed) or a WebSocket tunnel. All of them use the same `Gateway::decide_request`, `attempt` and
//! `access_log`.
//!
//! Both begin and end in [`proxy`]. Between them they meet only in [`account`] and [`store`]. Who may pass, and which fields
//! are sent either way, is decided in [`policy`]: pure functions, which `check` and `explain` ask as well. The servers behind
//! the gateway, their health and the connections to them that are kept are [`upstream`]. Requests that the gateway itself
//! makes, to identity providers, are `client`. The bytes under all of them (sockets, deadlines, heads, bodies, WebSocket
//! frames) are read and written in [`wire`], which knows neither accounts nor rules.
//!
//! The rooms stand in a strict order, the order of the `mod` lines below: a room uses only rooms
//! below it. `tests/tidy.rs` reads that order from here.
//!
//! ## Glossary
//!
//! - **route**: one `[[route]]`: which requests it takes, who may pass, where they go.
//! - **upstream**: the servers behind the gateway that a route forwards to.
//! - **credential**: what a request presents to say who it is: the session cookie, a Bearer token, an API token, a ticket.
//! - **session**: a row in the store, named by the JWT in the cookie. It ends by itself or is revoked.
//! - **identity**: who a valid credential stands for: account, groups, session.
//! - **API token**: a credential of a program, with a **grant** of scopes.
//! - **ticket**: a credential for one WebSocket handshake.
//! - **backend token**: the short-lived JWT that an upstream gets; made here, accepted nowhere here.
//! - **sealing key**: opens the secrets in the database; kept outside it.
//! - **admission**: the proof that a request may be forwarded; only `policy::authorize` makes one. An **approval**
//!   is one that holds for every reading of the request; only `policy::decide` makes one.
//! - **refusal**: why a request is not forwarded.
//! - **page**: one of the gateway's own pages or endpoints.
//! - **reply**: an answer that the gateway itself writes.
//! - **fault**: something wrong in the configuration, with its place and its remedy.

pub mod cli;
pub mod command;
pub mod server;
pub mod proxy;
pub mod policy;
pub mod pages;
pub mod whoami;
pub mod account;
pub mod upstream;
pub(crate) mod client;
pub mod store;
pub mod wire;
pub mod config;
pub mod web;
pub mod critical;
pub mod metrics;
pub mod logging;
pub mod sealing;
pub mod secret;
pub mod clock;

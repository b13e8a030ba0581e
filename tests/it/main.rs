//! The contract, asked of the real binary over real sockets.

// one binary: nothing here is reachable from outside it
#![allow(unreachable_pub)]
// a test that cannot go on ends there, helpers included
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod api_tokens;
mod app_cookies;
mod as_it_came;
mod authjs;
mod backend;
mod backup;
mod behind;
mod body_ends;
mod caching;
mod callers;
mod client;
mod clock;
mod commands;
mod config;
mod cors;
mod crowds;
mod decisions;
mod docs;
mod explain;
mod faults;
mod forge;
mod flowing;
mod forwarded;
mod framing;
mod gateway;
mod growth;
mod half_open;
mod h2;
mod import;
mod known_attacks_h2;
mod known_attacks;
mod lenient;
mod login;
mod logs;
mod look;
mod loops;
mod manual;
mod methods;
mod metrics;
mod operators;
mod origins;
mod own_cookies;
mod paths;
mod peers;
mod refusals;
mod reload;
mod replies;
mod restore;
mod retired;
mod schema;
mod service_workers;
mod sessions;
mod spoofing;
mod switching;
mod systemd;
mod tls;
mod tokens;
mod upstream_tls;
mod upstreams;
mod websockets;

//! Whatever the two ends speak and do, what arrives is whole and right, or is broken off in a way that the receiver's
//! protocol shows. Clients in HTTP/1.1 and HTTP/2, with TLS and without, servers in HTTP/1.1, TLS, h2c and HTTP/2 over TLS;
//! sizes, cuts, pauses, interim answers, trailers, early answers, cancels and resets follow from a seed.
//!
//! `DIFFERENTIAL_SEED=7 DIFFERENTIAL_COUNT=100000 cargo test --test it differential` is another run, and a longer one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::gateway::{Gateway, configured};
use crate::tls::{Authority, Secure};

mod clients;
mod others;
mod plan;
mod servers;

use plan::Plan;

/// Exchanges of one client after the other; so many clients of each kind at once.
const CLIENTS: u64 = 4;
const COUNT: u64 = 3_000;
/// For one exchange.
const PATIENCE: Duration = Duration::from_secs(20);

/// What went wrong, at whichever end it was seen.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<String>>>);

impl Faults {
    fn add(&self, plan: &Plan, what: impl std::fmt::Display) {
        let mut all = self.0.lock().unwrap();
        if all.len() < 20 {
            let mut shown = plan.clone();
            shown.down.pieces.truncate(3);
            if let Some(up) = &mut shown.up {
                up.pieces.truncate(3);
            }
            all.push(format!("{what}: {shown:?}"));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http1Tls,
    Http2,
}

/// What a client has seen of an exchange.
#[derive(Debug)]
pub enum Seen {
    /// An answer that its framing calls whole.
    Whole { status: u16, id: Option<u64>, body: plan::Arrived, trailer: Option<u64> },
    /// One that breaks off, or none.
    Broken(String),
}

/// What an exchange may come to.
fn judge(plan: &Plan, speaks: Speaks, seen: &Seen, faults: &Faults) {
    let (status, id, body, trailer) = match seen {
        Seen::Broken(how) if plan.is_sound() => return faults.add(plan, format!("{speaks:?}: broken off: {how}")),
        Seen::Broken(_) => return,
        Seen::Whole { status, id, body, trailer } => (*status, *id, body, *trailer),
    };
    if id.is_none() && !plan.is_sound() && matches!(status, 400 | 408 | 502 | 504) {
        return;
    }
    if id != Some(plan.id) || status != plan.status {
        return faults.add(plan, format!("{speaks:?}: the answer {status} of {id:?}"));
    }
    let length = if plan.has_no_answer_body() { 0 } else { plan.down.length };
    if plan.cut.is_some() {
        return faults.add(plan, format!("{speaks:?}: what was cut looks whole"));
    }
    if !body.is(length) {
        return faults.add(plan, format!("{speaks:?}: {} bytes, wrong: {}", body.length, body.wrong));
    }
    let carries = speaks == Speaks::Http2 && plan.upstream >= 2 && plan.down_trailers && !plan.has_no_answer_body();
    if carries && trailer != Some(plan.id) {
        faults.add(plan, format!("the trailers are {trailer:?}"));
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn routes(servers: &[String; 4]) -> String {
    let route = |(at, server): (usize, &String)| {
        format!("[[route]]\npath = \"/{at}/**\"\naccess = \"public\"\nupstream = \"{server}\"\n")
    };
    servers.iter().enumerate().map(route).collect()
}

#[test]
fn what_arrives_is_whole_and_right_or_is_seen_to_be_broken_off() {
    let (seed, count) = (number("DIFFERENTIAL_SEED", 1), number("DIFFERENTIAL_COUNT", COUNT));
    let (faults, authority) = (Faults::default(), Authority::new());
    let servers = servers::start(seed, &authority, &faults);
    let roots = authority.roots();
    let trusts = [("SSL_CERT_FILE", roots.to_str().unwrap())];
    let limits = "[limits]\nconnections = 20000\n";
    let plain = Gateway::serve_with(configured(&format!("{limits}{}", routes(&servers))), &trusts);
    let secure = Secure::start_with(&format!("{limits}{}", routes(&servers)), &trusts);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for (kind, speaks) in [Speaks::Http1, Speaks::Http1Tls, Speaks::Http2].into_iter().enumerate() {
            let tls = (speaks != Speaks::Http1).then(|| secure.authority.client_config(protocol(speaks)));
            let address: SocketAddr = if tls.is_some() { secure.gateway.tls } else { plain.address };
            for number in 0..CLIENTS {
                let (first, tls, faults) = (kind as u64 * CLIENTS + number, tls.clone(), faults.clone());
                let plans = (first..count).step_by(3 * usize::try_from(CLIENTS).unwrap());
                clients.spawn(async move {
                    let mut client = clients::Client::new(speaks, address, tls);
                    for id in plans {
                        let plan = Plan::new(seed, id);
                        let seen = tokio::time::timeout(PATIENCE, client.exchange(&plan)).await;
                        let seen = seen.unwrap_or_else(|_| {
                            faults.add(&plan, format!("{speaks:?}: nothing came of it"));
                            client.forget();
                            Seen::Broken("late".to_owned())
                        });
                        judge(&plan, speaks, &seen, &faults);
                    }
                });
            }
        }
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    });
    let faults = faults.0.lock().unwrap();
    assert!(faults.is_empty(), "DIFFERENTIAL_SEED={seed}\n{}", faults.join("\n"));
}

fn protocol(speaks: Speaks) -> &'static str {
    if speaks == Speaks::Http2 { "h2" } else { "http/1.1" }
}

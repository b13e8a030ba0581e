//! Requests on several nodes of one PostgreSQL: sessions, API tokens and tickets of another node, and the database away.

use std::net::SocketAddr;
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::fixtures::{Cluster, Mode, Proxy, url};
use crate::gateway::{Gateway, PASSWORD, configured, eventually};
use crate::websockets;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const ROUTES: &str = "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n
[[route]]\npath = \"/public/**\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n
[[route]]\npath = \"/optional/**\"\naccess = \"optional\"\nupstream = \"builtin:whoami\"\n
[[route]]\nwebsocket = { token = [\"query:ticket\"] }\nupstream = \"builtin:whoami\"\n";

/// A node on the database at this address.
fn node(database: SocketAddr, name: &str, store: &str) -> Gateway {
    let url = url(&[database], name);
    let folder = configured(&format!(
        "[secrets]\nkey = {{ env = \"KEY\" }}\n[store]\nurl = {{ env = \"STORE\" }}\n{store}\n{ROUTES}"
    ));
    Gateway::serve_with(folder, &[("KEY", KEY), ("STORE", &format!("{url}?sslmode=disable"))])
}

fn status(gateway: &Gateway, path: &str, cookie: &str) -> u16 {
    gateway.client().get(path, &[("Cookie", cookie)]).status
}

/// The first request of a session, on another node than the sign-in, is served; so is the first one with an API token.
#[test]
fn a_session_is_known_on_every_node_at_its_first_request() {
    const ROUNDS: usize = 10;
    const REQUESTS: usize = 100;
    let Some(cluster) = Cluster::shared() else { return };
    let name = cluster.create_database("first");
    let [one, two] = [(); 2].map(|()| node(cluster.address(), &name, ""));
    let cookie = one.first_account();
    for _ in 0..ROUNDS {
        let mut clients: Vec<Client> = (0..REQUESTS).map(|_| two.client()).collect();
        let begin = Barrier::new(REQUESTS + 1);
        let cookie = OnceLock::<String>::new();
        let (begin, cookie) = (&begin, &cookie);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter_mut()
                .map(|client| {
                    scope.spawn(move || {
                        begin.wait();
                        client.get("/x", &[("Cookie", cookie.get().unwrap())]).status
                    })
                })
                .collect();
            cookie.set(one.sign_in("ada@example.com")).unwrap();
            begin.wait();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(statuses, [200; REQUESTS]);
    }
    let token = json!({ "token_name": "job", "scopes": "* /**", "days": 7, "current_password": PASSWORD });
    let made = one.client().post_json("/.auth/account/tokens", &[("Cookie", &cookie)], &token);
    assert_eq!(made.status, 201, "{made:?}");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let bearer = |token: &str| two.client().get("/x", &[("Authorization", &format!("Bearer {token}"))]).status;
    assert_eq!(bearer(&token), 200);
    // what no node knows is refused as ever: a token that was made up, a signature, a session that has ended
    let made_up: String = token.chars().rev().take(43).collect();
    assert_eq!(bearer(&format!("agt_{made_up}")), 401);
    assert_eq!(status(&two, "/x", &format!("{}AAAAA", &cookie[..cookie.len() - 5])), 401);
    let ended = one.sign_in("ada@example.com");
    assert_eq!(one.client().post_json("/.auth/logout", &[("Cookie", &ended)], &json!({})).status, 204);
    eventually("the end of a session is known", || status(&two, "/x", &ended) == 401);
    assert_eq!(status(&two, "/public/x", &ended), 200);
}

/// Without the database a node cannot know what another one has begun: it says so, and sends no one to the login page.
#[test]
fn an_unknown_session_is_not_refused_while_the_database_is_away() {
    let Some(cluster) = Cluster::shared() else { return };
    let name = cluster.create_database("away");
    let network = Proxy::start(cluster.address());
    let (one, two) = (node(cluster.address(), &name, ""), node(network.address, &name, ""));
    let old = one.first_account();
    assert_eq!(status(&two, "/x", &old), 200);
    network.set(Mode::Swallow);
    let new = one.sign_in("ada@example.com");
    let began = Instant::now();
    let answer = two.client().get("/x", &[("Cookie", &new)]);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("unavailable")));
    assert!(answer.field("retry-after").is_some() && began.elapsed() < Duration::from_secs(5));
    let page = two.client().get("/x", &[("Cookie", &new), ("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")]);
    assert_eq!((page.status, page.field("location")), (503, None));
    for (path, expected) in [("/optional/x", 503), ("/.auth/me", 503), ("/public/x", 200), ("/.auth/jwks.json", 200)] {
        assert_eq!(status(&two, path, &new), expected, "{path}");
    }
    // whom this node knows, and who presents nothing
    assert_eq!((status(&two, "/x", &old), status(&two, "/optional/x", "a=b")), (200, 200));
    assert_eq!(status(&two, "/x", "a=b"), 401);
    network.set(Mode::Pass);
    eventually("the database is there again", || status(&two, "/x", &new) == 200);
}

/// For `blind_max` everything goes on but changes. After it nobody is taken for who they were, until the database is back.
#[test]
fn without_the_database_sessions_are_relied_on_for_blind_max_and_no_longer() {
    let Some(cluster) = Cluster::shared() else { return };
    let name = cluster.create_database("blind");
    let network = Proxy::start(cluster.address());
    let patient = node(network.address, &name, "");
    let strict = node(network.address, &name, "blind_max = \"0s\"");
    let cookie = patient.first_account();
    let ready =
        |gateway: &Gateway, query: &str| Client::connect(gateway.admin).get(&format!("/readyz{query}"), &[]).status;
    assert_eq!([&patient, &strict].map(|gateway| status(gateway, "/x", &cookie)), [200; 2]);
    assert_eq!([&patient, &strict].map(|gateway| (ready(gateway, ""), ready(gateway, "?store"))), [(200, 200); 2]);
    let [mut kept, mut closed] = [&patient, &strict].map(|gateway| websockets::open(gateway, "/x", &cookie));
    kept.read().unwrap();
    network.set(Mode::Swallow);
    assert_eq!(websockets::close_code(&mut closed), 1013);
    eventually("the strict node says so", || ready(&strict, "") == 503);
    for (path, expected) in [("/x", 503), ("/optional/x", 503), ("/.auth/me", 503), ("/public/x", 200)] {
        assert_eq!(status(&strict, path, &cookie), expected, "{path}");
    }
    // who presents nothing
    assert_eq!((status(&strict, "/optional/x", "a=b"), status(&strict, "/x", "a=b")), (200, 401));
    // the other one is patient
    assert_eq!((status(&patient, "/x", &cookie), ready(&patient, "")), (200, 200));
    websockets::echo(&mut kept, "still here");
    assert_eq!([&patient, &strict].map(|gateway| ready(gateway, "?store")), [503; 2]);
    // no change is acknowledged, and sign-out does not say more than is true
    assert_eq!(patient.login("ada@example.com", PASSWORD).status, 503);
    let page = [("Cookie", cookie.as_str()), ("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")];
    let left = patient.client().post_form("/.auth/logout", &page, "");
    assert_eq!(left.status, 503);
    assert!(left.text().contains("could not be ended"), "{}", left.text());
    assert!(left.all("set-cookie").iter().any(|cookie| cookie.starts_with("authgate=;")), "{left:?}");
    assert_eq!(status(&patient, "/x", &cookie), 200);
    network.set(Mode::Pass);
    eventually("the database is there again", || status(&strict, "/x", &cookie) == 200);
    eventually("both are ready", || [&patient, &strict].iter().all(|gateway| ready(gateway, "?store") == 200));
    assert_eq!((ready(&strict, ""), patient.login("ada@example.com", PASSWORD).status), (200, 200));
}

/// Any node takes a ticket of any other, and all of them together take it once.
#[test]
fn a_ticket_opens_one_socket_on_one_node() {
    const TICKETS: usize = 10;
    let Some(cluster) = Cluster::shared() else { return };
    let name = cluster.create_database("tickets");
    let network = Proxy::start(cluster.address());
    let nodes = [network.address, cluster.address()].map(|address| node(address, &name, ""));
    let [one, two] = &nodes;
    let cookie = one.first_account();
    let ask = |gateway: &Gateway| gateway.client().request("POST /.auth/ws-ticket", &[("Cookie", &cookie)], b"");
    let fresh = || ask(one).json()["ticket"].as_str().unwrap().to_owned();
    let open = |gateway: &Gateway, target: &str| {
        let fields = [websockets::HANDSHAKE, &[("Host", "a.test")]].concat();
        gateway.client().request(&format!("GET {target}"), &fields, b"").status
    };
    let at_host = |ticket: &str, gateway: &Gateway| {
        gateway.client().request(&format!("GET /x?ticket={ticket}"), websockets::HANDSHAKE, b"").status
    };
    for _ in 0..TICKETS {
        let ticket = fresh();
        let begin = Barrier::new(2);
        let mut statuses = std::thread::scope(|scope| {
            let threads = nodes.each_ref().map(|node| {
                let (begin, ticket) = (&begin, &ticket);
                scope.spawn(move || {
                    begin.wait();
                    at_host(ticket, node)
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [101, 401]);
        assert_eq!(nodes.each_ref().map(|node| at_host(&ticket, node)), [401; 2]);
    }
    // it is for one host, no other credential, and ends with its session
    let ticket = fresh();
    assert_eq!(open(two, &format!("/x?ticket={ticket}")), 401);
    assert_eq!(two.client().get("/x", &[("Authorization", &format!("Bearer {ticket}"))]).status, 401);
    let longer = ticket.replacen('.', ".9", 1);
    assert_eq!((at_host(&longer, two), at_host(&ticket, two)), (401, 101));
    let ticket = fresh();
    network.set(Mode::Swallow);
    assert_eq!(at_host(&ticket, one), 503);
    eventually("none is issued that could not be used", || ask(one).status == 503);
    network.set(Mode::Pass);
    eventually("tickets are issued again", || ask(one).status == 200);
    assert_eq!(at_host(&fresh(), one), 101);
    let ticket = fresh();
    one.client().post_json("/.auth/logout", &[("Cookie", &cookie)], &json!({}));
    assert_eq!(at_host(&ticket, two), 401);
}

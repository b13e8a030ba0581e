//! Requests on several nodes of one PostgreSQL: sessions, API tokens and tickets of another node, and the database away.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::fixtures::{Cluster, Mode, Proxy, url};
use crate::gateway::{Gateway, PASSWORD, configured, eventually};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const ROUTES: &str = "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n
[[route]]\npath = \"/public/\"\naccess = \"public\"\nupstream = \"builtin:whoami\"\n
[[route]]\npath = \"/optional/\"\naccess = \"optional\"\nupstream = \"builtin:whoami\"\n
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
        let cookie = std::sync::OnceLock::new();
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = clients
                .iter_mut()
                .map(|client| {
                    scope.spawn(|| {
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
    assert_eq!(made.status, 200, "{made:?}");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let bearer = |token: &str| two.client().get("/x", &[("Authorization", &format!("Bearer {token}"))]).status;
    assert_eq!(bearer(&token), 200);
    // what no node knows is refused as ever: a token that was made up, a signature, a session that has ended
    let made_up: String = token.chars().rev().take(43).collect();
    assert_eq!(bearer(&format!("agt_{made_up}")), 401);
    assert_eq!(status(&two, "/x", &format!("{}AAAAA", &cookie[..cookie.len() - 5])), 401);
    let ended = one.sign_in("ada@example.com");
    assert_eq!(one.client().post_json("/.auth/logout", &[("Cookie", &ended)], &json!({})).status, 204);
    assert_eq!(status(&two, "/x", &ended), 401);
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

//! Many routes, accounts and sessions: all are there after a start, each answers for itself, and what a command
//! changes among them is in force.

use crate::forge::{Token, now_secs, session_key};
use crate::gateway::{Gateway, eventually};

const SESSIONS: usize = 60_000;
const ROUTES: usize = 10_000;

/// Routes by path and by host, of which each takes what no other takes.
fn routes() -> String {
    let one = |n: usize| match n % 3 {
        0 => format!("path = \"/app{n}/**\""),
        1 => format!("path = \"/api/*/part{n}/x\""),
        _ => format!("host = \"*.team{n}.example.com\""),
    };
    let tables = (0..ROUTES).map(|n| format!("[[route]]\n{}\nupstream = \"builtin:whoami\"\n", one(n)));
    let closed = "[[route]]\npath = \"/app3/closed\"\naccess = \"deny\"\n".to_owned();
    std::iter::once(closed).chain(tables).collect::<Vec<_>>().concat()
}

/// Accounts `2..` with a session `s2..` each; every tenth has been revoked.
fn fill(gateway: &Gateway) {
    let database = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    let now = now_secs();
    let rows = format!(
        "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= {SESSIONS}),
              rev (at) AS (SELECT value FROM counter WHERE name = 'rev')"
    );
    database
        .execute_batch(&format!(
            "BEGIN; UPDATE counter SET value = value + 1 WHERE name = 'rev';
             {rows} INSERT INTO user (id, email, name, picture, groups, created, rev)
               SELECT i, 'user' || i || '@example.com', 'User ' || i, '', 'staff', {now}, at FROM n, rev;
             {rows} INSERT INTO session (id, user_id, created, expires, seen, remember, address, user_agent, ended_at, rev)
               SELECT 's' || i, i, {now}, {now} + 9999, {now}, 1, '', '', iif(i % 10 = 0, {now}, NULL), at FROM n, rev;
             COMMIT;"
        ))
        .unwrap();
}

#[test]
fn of_many_routes_and_sessions_each_is_found_and_a_change_to_one_is_in_effect() {
    let mut gateway = Gateway::whoami();
    let own = Token::of(&gateway.first_account());
    let key = session_key(&gateway);
    gateway.terminate();
    fill(&gateway);
    let folder = gateway.into_folder();
    let head = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin_listen = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("gateway.toml"), format!("{head}{}", routes())).unwrap();
    let gateway = Gateway::serve(folder);

    let cookie = |n: usize| own.claim("sid", format!("s{n}")).claim("sub", n.to_string()).signed(&key);
    let mut client = gateway.client();
    let mut ask = |cookie: &str, path: &str| client.get(path, &[("Cookie", cookie)]);
    for n in [2, 3, 777, SESSIONS - 1, SESSIONS + 1] {
        let answer = ask(&cookie(n), "/app9999/x");
        assert_eq!((answer.status, answer.seen("remote-id")), (200, vec![n.to_string()]));
        assert_eq!(answer.seen("remote-groups"), ["staff"]);
    }
    // revoked before the start; another account's session; no such session
    let others = own.claim("sid", "s2").claim("sub", "3").signed(&key);
    for cookie in [cookie(10), others, cookie(SESSIONS + 2)] {
        assert_eq!(ask(&cookie, "/app9999/x").status, 401);
    }
    let route = |path: &str| ask(&cookie(2), path).status;
    assert_eq!(
        ["/app0", "/app3/closed", "/app3/open", "/api/v1/part9997/x", "/app1/x", "/api/v1/part9997"].map(route),
        [200, 403, 200, 200, 404, 404]
    );
    // in force while it serves, for this account and for no other
    gateway.cli(&["user", "set", "user777@example.com", "--group", "ops"]);
    assert_eq!(ask(&cookie(777), "/app0").seen("remote-groups"), ["ops"]);
    assert_eq!(ask(&cookie(778), "/app0").seen("remote-groups"), ["staff"]);
    gateway.cli(&["session", "revoke", "s778"]);
    eventually("one session is over", || ask(&cookie(778), "/app0").status == 401);
    assert_eq!(ask(&cookie(777), "/app0").status, 200);
}

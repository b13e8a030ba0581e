//! Another configuration while the gateway serves (README, "Changing it while it runs"; security cases J3 and J4).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::backend::{Backend, accept, nobody, ok};
use crate::client::Client;
use crate::forge::Token;
use crate::gateway::{Gateway, PASSWORD, configured, eventually, text};
use crate::tls::Authority;
use crate::websockets::{close_code, echo, open};

const PUBLIC: &str = "[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n";

fn status(gateway: &Gateway, path: &str) -> u16 {
    gateway.client().get(path, &[]).status
}

#[test]
fn a_reload_swaps_routes_upstreams_limits_pages_and_cors_also_for_connections_that_are_open() {
    let (one, two) = (Backend::start(ok), Backend::start(ok));
    let routes = |backend: SocketAddr, more: &str| {
        format!("{more}[[route]]\npath = \"/x/**\"\naccess = \"public\"\nupstream = \"http://{backend}\"\n")
    };
    let mut gateway = Gateway::start(&routes(one.address, ""));
    let mut client = gateway.client();
    assert_eq!(client.get("/x/1", &[]).status, 200);
    assert_eq!(one.next().line, "GET /x/1 HTTP/1.1");
    assert_eq!(client.get("/y", &[]).status, 404);
    let more = "[limits]\nhead_fields = 10\n[pages]\ntitle = \"Another title\"\nlogin = \"/y\"\n\
                [cors]\norigins = [\"https://app.example.com\"]\n";
    gateway.reload(&routes(two.address, more));
    assert_eq!(client.get("/x/2", &[]).status, 200);
    assert_eq!((two.next().line.as_str(), one.all().len()), ("GET /x/2 HTTP/1.1", 0));
    assert!(client.get("/y", &[]).text().contains("Another title"));
    let shared = client.get("/x/3", &[("Origin", "https://app.example.com")]);
    assert_eq!(shared.field("access-control-allow-origin"), Some("https://app.example.com"));
    let fields: Vec<(String, &str)> = (0..20).map(|number| (format!("A-{number}"), "1")).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(client.get("/x/4", &fields).status, 431);
    // a streamed exchange takes the new configuration too
    assert_eq!(gateway.client().request("POST /x/5", &[("Expect", "100-continue")], b"hi").status, 200);
    gateway.reload(&routes(one.address, ""));
    assert_eq!(gateway.client().get("/x/6", &fields).status, 200);
}

#[test]
fn a_bad_file_changes_nothing_and_is_reported_as_check_reports_it() {
    let mut gateway = Gateway::start(PUBLIC);
    assert_eq!(gateway.metric("authgate_config_last_reload_successful"), 1);
    let loaded = gateway.metric("authgate_config_last_reload_success_timestamp_seconds");
    assert!(loaded > 1_000_000_000);
    let bad = "[limits]\nidle = \"soon\"\n[[route]]\naccess = \"deny\"\nupstreem = \"builtin:whoami\"\n";
    gateway.write(&text(bad));
    gateway.signal("HUP");
    let mut report = None;
    let mut places: Vec<(u64, u64)> = Vec::new();
    gateway.wait_for(|_, line| {
        let event: Value = serde_json::from_str(line).unwrap();
        if let (Some(line), Some(column)) = (event["line"].as_str(), event["column"].as_str()) {
            assert!(!event["message"].as_str().unwrap().is_empty());
            assert!(event["remedy"].is_string());
            places.push((line.parse().unwrap(), column.parse().unwrap()));
        }
        report = event["report"].as_str().map(str::to_owned);
        report.is_some()
    });
    let check = gateway.cli_with(&["check"], "");
    assert_eq!(check.status.code(), Some(64));
    let check = String::from_utf8(check.stderr).unwrap();
    assert!(check.contains('^') && check.contains("upstreem"), "{check}");
    assert_eq!(report.unwrap().trim(), check.trim());
    let json: Value = serde_json::from_slice(&gateway.cli_with(&["check", "--json"], "").stdout).unwrap();
    let told = |fault: &Value| (fault["line"].as_u64().unwrap(), fault["column"].as_u64().unwrap());
    assert_eq!(places, json["faults"].as_array().unwrap().iter().map(told).collect::<Vec<_>>());
    assert_eq!(status(&gateway, "/x"), 200);
    assert_eq!(gateway.metric("authgate_config_last_reload_successful"), 0);
    assert_eq!(gateway.metric("authgate_config_last_reload_success_timestamp_seconds"), loaded);
    gateway.reload(&PUBLIC.replace("public", "deny"));
    assert_eq!(status(&gateway, "/x"), 403);
    assert_eq!(gateway.metric("authgate_config_last_reload_successful"), 1);
}

/// Security case J2: no secret in a log at any level. The report of a faulty file shows its lines.
#[test]
fn a_secret_typed_into_the_file_appears_nowhere_in_the_log_nor_in_what_check_says() {
    const SECRET: &str = "Tr0ub4dor-and-a-horse";
    let mut gateway = Gateway::start(PUBLIC);
    let upstream = |token: &str| format!("{PUBLIC}[[upstream]]\nname = \"a\"\nservers = [\"127.0.0.1:1\"]\n{token}\n");
    for (token, what) in [
        (format!("token = {{ secret = \"{SECRET}\" }}"), "`secret` cannot be written in the configuration itself"),
        (format!("token = {{ secret = {{ env = \"{SECRET}\" }} }}"), "the environment variable *** is not set"),
        (format!("token = {{ secret = {{ value = \"{SECRET}\" }} }}"), "unknown key `value` in secret"),
        (format!("token = {{ secert = \"{SECRET}\" }}"), "unknown key `secert` in token"),
        (format!("token = {{ secret = {SECRET} }}"), "invalid TOML"),
        (format!("health = {{ path = \"http://me:{SECRET}@a.example.com/\" }}"), "invalid path `***`"),
    ] {
        gateway.write(&text(&upstream(&token)));
        gateway.signal("HUP");
        let mut lines = Vec::new();
        gateway.wait_for(|_, line| {
            lines.push(line.to_owned());
            line.contains("stays in use")
        });
        let log = lines.concat();
        assert!(log.contains(what) && log.contains("^^^") && log.contains("***"), "{token}: {log}");
        for arguments in [&["check"][..], &["check", "--json"]] {
            let said = gateway.cli_with(arguments, "");
            let said = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
            assert!(said.contains(what) && !said.contains(SECRET), "{said}");
        }
        assert!(!log.contains(SECRET), "{log}");
    }
}

#[test]
fn a_file_that_is_gone_or_an_address_that_is_taken_changes_nothing() {
    let mut gateway = Gateway::start(PUBLIC);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = gateway.folder().join("gateway.toml");
    std::fs::remove_file(&file).unwrap();
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("not reloaded"));
    let other = text(&PUBLIC.replace("public", "deny"))
        .replace("[\"127.0.0.1:0\"]", &format!("[\"127.0.0.1:0\", \"{}\"]", taken.local_addr().unwrap()));
    gateway.write(&other);
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("not reloaded") && line.contains("Address already in use"));
    assert_eq!(status(&gateway, "/x"), 200);
    drop(taken);
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("configuration reloaded"));
    assert_eq!(status(&gateway, "/x"), 403);
}

#[test]
fn a_request_under_way_keeps_the_configuration_that_it_began_with() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let route = |rest: &str| format!("[[route]]\nupstream = \"http://{}\"\n{rest}", backend.local_addr().unwrap());
    let mut gateway = Gateway::start(&route("access = \"public\"\ntimeout = \"20s\"\n"));
    // one on each way: plain, and one whose body must be streamed
    let mut plain = gateway.client();
    plain.send(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut first = accept(&backend);
    let mut streamed = gateway.client();
    streamed.send(b"POST /streamed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut second = accept(&backend);
    gateway.reload(&route("access = \"deny\"\n"));
    assert_eq!(status(&gateway, "/x"), 403);
    streamed.send(b"0\r\n\r\n");
    // an answer before the end of the body would end the connection
    let mut received = Vec::new();
    while !received.ends_with(b"0\r\n\r\n") {
        let mut byte = [0];
        second.read_exact(&mut byte).unwrap();
        received.extend(byte);
    }
    for (server, client) in [(&mut first, &mut plain), (&mut second, &mut streamed)] {
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
        let answer = client.answer();
        assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
        assert_eq!(client.get("/x", &[]).status, 403);
    }
}

#[test]
fn open_sockets_and_streams_that_a_new_configuration_does_not_allow_are_closed_with_4403_and_others_continue() {
    fn stream(_: &crate::backend::Received, stream: &mut dyn Write) -> bool {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").unwrap();
        std::thread::park();
        false
    }
    let events = Backend::start(stream);
    let route =
        |path: &str, rest: &str| format!("[[route]]\npath = \"{path}\"\nupstream = \"builtin:whoami\"\n{rest}\n");
    let stream_route = |path: &str, rest: &str| {
        format!("[[route]]\npath = \"{path}\"\nupstream = \"http://{}\"\n{rest}\n", events.address)
    };
    let before = [
        route("/a/**", ""),
        route("/b/**", ""),
        route("/open/**", "access = \"public\""),
        route("/c/**", ""),
        stream_route("/s/**", ""),
        stream_route("/t/**", "access = \"public\""),
        stream_route("/u/**", ""),
    ];
    let mut gateway = Gateway::start(&before.concat());
    let cookie = gateway.first_account();
    let paths = ["/a/x", "/b/x", "/open/x", "/c/x"];
    let [mut kept, mut groups, mut nobody, mut gone] = paths.map(|path| {
        let mut socket = open(&gateway, path, if path == "/open/x" { "a=1" } else { &cookie });
        socket.read().unwrap();
        socket
    });
    let [mut kept_stream, mut nobodys_stream, mut gone_stream] = ["/s/x", "/t/x", "/u/x"].map(|path| {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n").as_bytes());
        assert_eq!(client.head().status, 200);
        assert_eq!(client.take(14), b"9\r\ndata: 1\n\n\r\n");
        client
    });
    // the same routes stand elsewhere: it is not their number that counts
    let shuffled: Vec<String> = before.iter().rev().cloned().collect();
    gateway.reload(&shuffled.concat());
    for socket in [&mut kept, &mut groups, &mut nobody, &mut gone] {
        echo(socket, "still open");
    }
    let after = [
        route("/a/**", "access = \"optional\""),
        route("/b/**", "groups = [\"staff\"]"),
        route("/open/**", ""),
        stream_route("/s/**", ""),
        stream_route("/t/**", "groups = [\"staff\"]"),
    ];
    gateway.reload(&after.concat());
    for socket in [&mut groups, &mut nobody, &mut gone] {
        assert_eq!(close_code(socket), 4403);
    }
    for stream in [&mut gone_stream, &mut nobodys_stream] {
        assert_eq!(stream.take(5), b"0\r\n\r\n", "an event stream ends, it is not broken off");
        assert!(stream.is_closed());
    }
    echo(&mut kept, "still open");
    // signing out ends what the new configuration lets be
    assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &cookie)], b"").status, 303);
    assert_eq!(close_code(&mut kept), 4403);
    assert_eq!(kept_stream.take(5), b"0\r\n\r\n");
    assert!(kept_stream.is_closed());
}

#[test]
fn listeners_come_and_go_and_their_connections_stay() {
    let folder = configured(PUBLIC);
    let socket = folder.path().join("http.sock");
    let mut gateway = Gateway::serve(folder);
    let (old, old_admin) = (gateway.address, gateway.admin);
    let mut kept = gateway.client();
    assert_eq!(kept.get("/x", &[]).status, 200);
    let (new, new_admin) = (nobody(), nobody());
    gateway.write(&format!(
        "[server]\nwatch = false\nlisten = [\"{new}\", \"unix:http.sock\"]\nadmin_listen = \"{new_admin}\"\n{PUBLIC}"
    ));
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("configuration reloaded"));
    assert_eq!(Client::connect(new).get("/x", &[]).status, 200);
    assert_eq!(Client::connect(new_admin).get("/readyz", &[]).status, 200);
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    eventually("the old addresses refuse", || {
        TcpStream::connect(old).is_err() && TcpStream::connect(old_admin).is_err()
    });
    assert_eq!(kept.get("/x", &[]).status, 200);
    gateway.write(&format!("[server]\nwatch = false\nlisten = [\"{new}\"]\nadmin_listen = \"\"\n{PUBLIC}"));
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("configuration reloaded"));
    assert!(!socket.exists());
    assert_eq!(Client::connect(new).get("/x", &[]).status, 200);
    eventually("the admin address refuses", || TcpStream::connect(new_admin).is_err());
    assert_eq!(kept.get("/x", &[]).status, 200);
}

/// Issue 5: "listeners too". The socket stays, so nobody is refused; what is on it is another matter from one reload
/// to the next.
#[test]
fn an_address_takes_tls_and_plain_http_again_by_a_reload_and_its_connections_stay() {
    let authority = Authority::new();
    let pair = authority.pair("own", &["127.0.0.1"]);
    let address = nobody();
    let plain = format!("[server]\nwatch = false\nlisten = [\"{address}\"]\nadmin_listen = \"\"\n{PUBLIC}");
    let tls = format!(
        "[server]\nwatch = false\nlisten = [\"https://{address}\"]\nadmin_listen = \"\"\npublic_url = \"https://{address}\"\n\
         [server.tls]\ncertificates = [{pair}]\n{PUBLIC}"
    );
    let folder = configured(PUBLIC);
    std::fs::write(folder.path().join("gateway.toml"), &plain).unwrap();
    let mut gateway = Gateway::serve(folder);
    let encrypted = || Client::over(authority.connect(address, None, "http/1.1"), address.to_string());
    let mut in_the_clear = Client::connect(address);
    assert_eq!(in_the_clear.get("/x", &[]).status, 200);
    for round in 0..5 {
        let reload = |gateway: &mut Gateway, text: &str| {
            gateway.write(text);
            gateway.signal("HUP");
            gateway.wait_for(|_, line| line.contains("configuration reloaded"));
        };
        reload(&mut gateway, &tls);
        let mut kept = encrypted();
        assert_eq!(kept.get("/x", &[]).status, 200, "{round}");
        // the one that is still plain is sent on to https, as on any plain listener
        assert_eq!(in_the_clear.get("/x", &[]).status, 308);
        let mut plain_on_tls = Client::connect(address);
        assert_eq!(plain_on_tls.get("/x", &[]).status, 400, "plain HTTP on a TLS listener");
        reload(&mut gateway, &plain);
        assert_eq!(Client::connect(address).get("/x", &[]).status, 200, "{round}");
        assert_eq!(in_the_clear.get("/x", &[]).status, 200);
        assert_eq!(kept.get("/x", &[]).status, 200);
    }
}

#[test]
fn people_s_rules_change_with_a_reload_and_sessions_stay() {
    let mut gateway = Gateway::start(&format!("[sign_up]\nmode = \"closed\"\n{PUBLIC}"));
    let cookie = gateway.first_account();
    let sign_up = |gateway: &Gateway, email: &str, password: &str| {
        let body = json!({ "email": email, "name": "B", "password": password });
        gateway.client().post_json("/.auth/signup", &[], &body).status
    };
    assert_eq!(sign_up(&gateway, "bob@example.com", PASSWORD), 403);
    gateway.reload(&format!(
        "[sign_up]\nmode = \"open\"\n[password]\nmin_length = 8\nblocklist = false\n\
         argon2 = {{ memory_kib = 8192, iterations = 1, parallelism = 1 }}\n[throttle]\nmax_retries = 1\n\
         [session]\nmax_age = \"2d\"\nidle = \"1d\"\n{PUBLIC}"
    ));
    assert_eq!(sign_up(&gateway, "bob@example.com", "8letters"), 201);
    let database = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    let hash = "SELECT password FROM user WHERE email = 'bob@example.com'";
    let hash: String = database.query_one(hash, [], |row| row.get(0)).unwrap();
    assert!(hash.contains("m=8192,t=1,p=1"), "{hash}");
    assert_eq!(gateway.client().get("/.auth/me", &[("Cookie", &cookie)]).status, 200);
    let bobs = gateway.login("bob@example.com", "8letters");
    assert!(
        bobs.all("set-cookie")
            .iter()
            .any(|cookie| cookie.contains("Max-Age=17279") || cookie.contains("Max-Age=172800"))
    );
    assert_eq!(gateway.login("ada@example.com", "wrong").status, 401);
    assert_eq!(gateway.login("ada@example.com", "wrong").status, 429);
    assert_eq!(
        gateway.cli_with(&["user", "add", "carl@example.com", "--password-stdin"], "8letters").status.code(),
        Some(0)
    );
}

/// docs/operations.md: shorter limits hold for the sessions that stand, after a reload and after a restart.
#[test]
fn a_shorter_life_of_sessions_holds_for_those_that_stand_and_a_longer_one_for_new_ones() {
    const WHOAMI: &str = "[[route]]\nupstream = \"builtin:whoami\"\n";
    let mut gateway = Gateway::start(WHOAMI);
    let [old, unused, new] =
        [gateway.first_account(), gateway.sign_in("ada@example.com"), gateway.sign_in("ada@example.com")];
    gateway.terminate();
    let database = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    let id = |cookie: &str| Token::of(cookie).claims["sid"].as_str().unwrap().to_owned();
    let two_days = 2 * 86_400;
    for (cookie, column) in [(&old, "created"), (&unused, "seen")] {
        let sql = format!("UPDATE session SET {column} = {column} - {two_days} WHERE id = ?1");
        assert_eq!(database.execute(&sql, [id(cookie)]).unwrap(), 1);
    }
    let me = |gateway: &Gateway, cookie: &str| gateway.client().get("/.auth/me", &[("Cookie", cookie)]);
    let status = |gateway: &Gateway, cookies: [&str; 3]| cookies.map(|cookie| me(gateway, cookie).status);
    let list = |gateway: &Gateway| -> Vec<String> {
        let list: Vec<Value> = serde_json::from_str(&gateway.cli(&["session", "list", "--json"])).unwrap();
        list.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut gateway = Gateway::serve(gateway.into_folder());
    // `unused` is not asked for: that would be use
    assert_eq!(status(&gateway, [&old, &new, &new]), [200; 3]);
    assert_eq!(list(&gateway).len(), 3);
    let mut socket = open(&gateway, "/x", &old);
    socket.read().unwrap();
    let short = format!("[session]\nmax_age = \"1d\"\nidle = \"1d\"\n{WHOAMI}");
    gateway.reload(&short);
    assert_eq!(close_code(&mut socket), 4401);
    assert_eq!(status(&gateway, [&old, &unused, &new]), [401, 401, 200]);
    assert_eq!(list(&gateway), [id(&new)]);
    let ends = me(&gateway, &new).json()["expires"].as_str().unwrap().to_owned();
    let in_database = "SELECT strftime('%Y-%m-%dT%H:%M:%S', created + 86400, 'unixepoch') FROM session WHERE id = ?1";
    let due: String = database.query_row(in_database, [id(&new)], |row| row.get(0)).unwrap();
    assert!(ends.starts_with(&due), "{ends} {due}");
    // longer again: what is over stays over
    gateway.reload(WHOAMI);
    assert_eq!(status(&gateway, [&old, &new, &new]), [401, 200, 200]);
    let again = gateway.sign_in("ada@example.com");
    assert!(me(&gateway, &again).json()["expires"].as_str().unwrap() > ends.as_str());
    gateway.terminate();
    gateway.write(&text(&short));
    let gateway = Gateway::serve(gateway.into_folder());
    assert_eq!(status(&gateway, [&old, &unused, &new]), [401, 401, 200]);
    assert_eq!(list(&gateway).len(), 2);
    let longest = "SELECT max(expires - created) FROM session";
    eventually("it is written", || database.query_row(longest, [], |row| row.get::<_, i64>(0)).unwrap() == 86_400);
}

#[test]
fn a_backend_gets_the_token_of_its_own_upstream_and_never_another_s() {
    let (one, two) = (Backend::start(ok), Backend::start(ok));
    let upstream = |backend: &Backend, name: &str, secret: &str| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nservers = [\"{}\"]\ntoken = {{ secret = {{ env = \"{secret}\" }}, send = [\"bearer\"] }}\n",
            backend.address
        )
    };
    let route = |name: &str| format!("[[route]]\npath = \"/{name}/**\"\nupstream = \"{name}\"\n");
    let (secret_one, secret_two) =
        ("eGq0m1vWb9Tz4Yd7Kc2Rp5Nj8Hs3Lf6XaU".to_owned(), "Pz7wQn3Bk9Ev5Mr1Tc8Yh4Jd6Gs2Xf0LuA".to_owned());
    let folder = configured(&format!("{}{}", upstream(&one, "one", "SECRET_ONE"), route("one")));
    let mut gateway = Gateway::serve_with(folder, &[("SECRET_ONE", &secret_one), ("SECRET_TWO", &secret_two)]);
    let cookie = gateway.first_account();
    let told = |gateway: &Gateway, backend: &Backend, path: &str| {
        assert_eq!(gateway.client().get(path, &[("Cookie", &cookie)]).status, 200);
        let token = backend.next().field("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let by = [&secret_one, &secret_two].into_iter().position(|secret| {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
            ring::hmac::verify(&key, signed.as_bytes(), &signature).is_ok()
        });
        (by, token)
    };
    let (by, first) = told(&gateway, &one, "/one/x");
    assert_eq!(by, Some(0));
    // another upstream stands where this one stood
    gateway.reload(
        &[upstream(&two, "two", "SECRET_TWO"), upstream(&one, "one", "SECRET_ONE"), route("two"), route("one")]
            .concat(),
    );
    assert_eq!(told(&gateway, &two, "/two/x").0, Some(1));
    assert_eq!(told(&gateway, &one, "/one/x"), (Some(0), first), "what has not changed keeps its token");
    gateway.reload(&[upstream(&one, "one", "SECRET_TWO"), route("one")].concat());
    assert_eq!(told(&gateway, &one, "/one/x").0, Some(1));
}

#[test]
fn what_cannot_change_is_a_warning_and_keeps_its_value() {
    let mut gateway = Gateway::start(PUBLIC);
    let cookie = gateway.first_account();
    gateway.write(&text(&format!("state_dir = \"elsewhere\"\n{}", PUBLIC.replace("public", "signed_in"))));
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("change of `state_dir` ignored until restart"));
    gateway.wait_for(|_, line| line.contains("configuration reloaded"));
    assert!(!gateway.folder().join("elsewhere").exists());
    assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
    let store = "[secrets]\nkey = { file = \"state/secret.key\" }\n[store]\nurl = \"postgres://me@127.0.0.1:1/x\"\n";
    gateway.write(&text(&format!("{store}{}", PUBLIC.replace("public", "signed_in"))));
    gateway.signal("HUP");
    gateway.wait_for(|_, line| line.contains("change of `[store]` ignored until restart"));
    gateway.wait_for(|_, line| line.contains("configuration reloaded"));
    assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
}

#[test]
fn an_unchanged_upstream_keeps_its_connections() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = backend.local_addr().unwrap();
    let connections = AtomicUsize::new(0);
    let connections: &'static AtomicUsize = Box::leak(Box::new(connections));
    std::thread::spawn(move || {
        for stream in backend.incoming().map_while(Result::ok) {
            connections.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut stream = std::io::BufReader::new(stream);
                let mut line = String::new();
                while std::io::BufRead::read_line(&mut stream, &mut line).is_ok_and(|read| read > 0) {
                    if line == "\r\n" {
                        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                    }
                    line.clear();
                }
            });
        }
    });
    let route = |rest: &str| format!("{rest}[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n");
    let mut gateway = Gateway::start(&route(""));
    // one connection of ours is served by one thread, which keeps one connection
    let mut client = gateway.client();
    assert_eq!(client.get("/x", &[]).status, 200);
    for round in 0..5 {
        let other = format!("[[route]]\npath = \"/{round}\"\nupstream = \"http://{}\"\n", nobody());
        gateway.reload(&route(&other));
        assert_eq!(client.get("/x", &[]).status, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_thousand_reloads_under_load_lose_no_request_and_no_socket_and_mix_no_configurations() {
    const RELOADS: usize = 1000;
    let echo_backend = Backend::start(|request, stream| {
        let id = request.field("x-id").unwrap_or("none").to_owned();
        let path = request.line.split(' ').nth(1).unwrap().to_owned();
        let body = format!("{path} {id}");
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
    });
    // prefix and identity header change together: an answer that shows one of each is a mixture
    let config = |even: bool| {
        let (prefix, word) = if even { ("/x/a", "a") } else { ("/x", "b") };
        format!(
            "[[upstream]]\nname = \"app\"\nservers = [\"{}\"]\nidentity = {{ \"X-Id\" = \"{word}\" }}\n\
             [[route]]\npath = \"/x/a/**\"\nupstream = \"app\"\nstrip_prefix = \"{prefix}\"\n\
             [[route]]\npath = \"/ws\"\nupstream = \"builtin:whoami\"\n",
            echo_backend.address
        )
    };
    let mut gateway = Gateway::start(&config(true));
    let cookie = gateway.first_account();
    let mut socket = open(&gateway, "/ws", &cookie);
    socket.read().unwrap();
    let done = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let address = gateway.address;
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (done, asked, cookie) = (&done, &asked, &cookie);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                while !done.load(Ordering::Relaxed) {
                    if number == 0 {
                        client = Client::connect(address);
                    }
                    let answer = if number == 1 {
                        let fields = [("Cookie", cookie.as_str()), ("Connection", "a"), ("A", "1")];
                        client.request("GET /x/a/y", &fields, b"")
                    } else {
                        client.get("/x/a/y", &[("Cookie", cookie)])
                    };
                    assert_eq!(answer.status, 200);
                    assert!(["/y a", "/a/y b"].contains(&answer.text().as_str()), "mixed: {}", answer.text());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // on a machine that does much else, until there was a load
        for round in (0..100 * RELOADS).take_while(|&round| round < RELOADS || asked.load(Ordering::Relaxed) <= 100) {
            gateway.reload(&config(round % 2 == 1));
            if round % 100 == 0 {
                echo(&mut socket, "still open");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    echo(&mut socket, "still open");
}

#[test]
fn a_change_of_the_file_is_applied_written_replaced_or_behind_a_link() {
    let watched = |rest: &str| text(rest).replace("watch = false", "watch = true");
    let folder = configured(PUBLIC);
    std::fs::write(folder.path().join("gateway.toml"), watched(PUBLIC)).unwrap();
    let mut gateway = Gateway::serve(folder);
    let file = gateway.folder().join("gateway.toml");
    let aside = gateway.folder().join("new.toml");
    let denied = watched(&PUBLIC.replace("public", "deny"));
    let reloaded = |gateway: &mut Gateway| gateway.wait_for(|_, line| line.contains("configuration reloaded"));
    // written in place
    std::fs::write(&file, &denied).unwrap();
    reloaded(&mut gateway);
    assert_eq!(status(&gateway, "/x"), 403);
    // another file takes its place, as editors and configuration management do it
    std::fs::write(&aside, watched(PUBLIC)).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    reloaded(&mut gateway);
    assert_eq!(status(&gateway, "/x"), 200);
    // a link takes its place, and then a folder on the way is exchanged, as Kubernetes does it
    for (name, content) in [("one", &denied), ("two", &watched(PUBLIC))] {
        std::fs::create_dir(gateway.folder().join(name)).unwrap();
        std::fs::write(gateway.folder().join(name).join("gateway.toml"), content).unwrap();
    }
    let root = gateway.folder().to_path_buf();
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, &aside).unwrap();
        std::fs::rename(&aside, root.join(name)).unwrap();
    };
    link("one", "data");
    link("data/gateway.toml", "gateway.toml");
    reloaded(&mut gateway);
    assert_eq!(status(&gateway, "/x"), 403);
    link("two", "data");
    reloaded(&mut gateway);
    assert_eq!(status(&gateway, "/x"), 200);
    // behind all links: the file itself
    std::fs::write(gateway.folder().join("two/gateway.toml"), &denied).unwrap();
    reloaded(&mut gateway);
    assert_eq!(status(&gateway, "/x"), 403);
    // a file with faults changes nothing, and neither does one that is not to be watched
    std::fs::write(&file, "[[route]]\n").unwrap();
    gateway.wait_for(|_, line| line.contains("not reloaded"));
    assert_eq!(status(&gateway, "/x"), 403);
    std::fs::write(&file, text(PUBLIC)).unwrap();
    reloaded(&mut gateway);
    std::fs::write(&file, &denied).unwrap();
    gateway.signal("HUP");
    reloaded(&mut gateway);
    assert_eq!(status(&gateway, "/x"), 403);
}

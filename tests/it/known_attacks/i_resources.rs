//! R: resources. Everything that can grow has an end, and whoever waits for it is told.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{CHUNKED, head, resident_kib, still_serves};
use crate::backend::{Backend, ok};
use crate::client::Client;
use crate::gateway::{Gateway, PASSWORD, eventually};

fn open(backend: &Backend, limits: &str) -> Gateway {
    Gateway::start(&format!("{limits}[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address))
}

/// Slowloris: in bytes, in fields and in time, for the first head of a connection and for later ones.
#[test]
fn r1_a_head_has_bounds_in_bytes_fields_and_time() {
    let backend = Backend::start(ok);
    let route = format!("[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n", backend.address);
    let gateway = Gateway::start(&format!("[limits]\nhead_time = \"1s\"\n{route}"));
    let many: Vec<(String, String)> = (0..101).map(|n| (format!("X-{n}"), "1".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(gateway.client().get("/", &many).status, 431);
    assert_eq!(gateway.client().get("/", &many[..99]).status, 200);
    let kilobyte = "a".repeat(1000);
    let heavy: Vec<_> = (0..200).map(|_| ("X", kilobyte.as_str())).collect();
    assert_eq!(gateway.client().get("/", &heavy).status, 431);
    let large = "a".repeat(33 << 10);
    assert_eq!(gateway.client().get("/", &[("X", &large)]).status, 431);
    assert_eq!(gateway.client().get("/", &[("X", &large[..31 << 10])]).status, 200);
    assert_eq!(gateway.client().get(&format!("/{}", &large[..17 << 10]), &[]).status, 414);
    assert_eq!(gateway.client().get(&format!("/{}", &large[..16_000]), &[]).status, 200);
    // the first head of a connection and the ones after it
    for first in [true, false] {
        let mut client = gateway.client();
        if !first {
            assert_eq!(client.get("/", &[]).status, 200);
        }
        let began = Instant::now();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ");
        assert_eq!(client.answer().status, 408);
        assert!(client.is_closed());
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    }
    let log = gateway.into_log();
    let told = |line: &&str| line.contains("\"status\":408") && line.contains("\"why\":\"head_time\"");
    assert_eq!(log.lines().filter(told).count(), 2, "{log}");
}

/// Traefik CVE-2026-26998 (a body without bound), by length and by chunk.
#[test]
fn r2_a_body_has_a_bound_however_it_is_framed() {
    let backend = Backend::start(ok);
    let gateway = Gateway::start(&format!(
        "[[route]]\naccess = \"public\"\nbody_max = \"1KiB\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    let chunked = |length: usize| {
        let mut client = gateway.client();
        client.send(head("POST /", &[&[("Host", "a")], CHUNKED].concat()).as_bytes());
        client.send(&[format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n0\r\n\r\n"].concat());
        client.answer().status
    };
    assert_eq!(gateway.client().request("POST /", &[], &[b'x'; 1025]).status, 413);
    assert_eq!(chunked(1025), 413);
    assert_eq!((gateway.client().request("POST /", &[], &[b'x'; 1024]).status, chunked(1024)), (200, 200));
    assert!(backend.all().iter().all(|request| request.body.len() == 1024));
    still_serves(&gateway);
}

/// Slowloris with connections that say nothing, or a byte now and then: 400 here.
#[test]
fn r3_idle_and_dripping_connections_hinder_no_one_and_are_shed() {
    let backend = Backend::start(ok);
    let gateway = open(&backend, "[limits]\nhead_time = \"2s\"\nconnections_per_address = 1000\n");
    let idle: Vec<Client> = (0..200).map(|_| gateway.client()).collect();
    let mut dripping: Vec<Client> = (0..200).map(|_| gateway.client()).collect();
    let began = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nX:".chunks(6) {
        for client in &mut dripping {
            client.send(byte);
        }
        assert_eq!(gateway.client().get("/", &[]).status, 200);
    }
    for client in &mut dripping {
        assert!(client.answer().status == 408);
        assert!(client.is_closed());
    }
    assert!(began.elapsed() >= Duration::from_millis(1900), "not before their time: {:?}", began.elapsed());
    let mut idle = idle;
    assert_eq!(idle[0].get("/", &[]).status, 200, "an idle one has said nothing wrong");
    still_serves(&gateway);
}

/// EMFILE: a loop around accept would take a whole core.
#[test]
fn r4_without_descriptors_it_rests_and_then_continues() {
    let backend = Backend::start(ok);
    let mut gateway = open(&backend, "");
    let used = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    let limit = format!("--nofile={0}:{0}", used + 8);
    let set = Command::new("prlimit").args(["--pid", &gateway.pid().to_string(), &limit]).status();
    assert!(set.unwrap().success());
    let many: Vec<Client> = (0..60).map(|_| gateway.client()).collect();
    gateway.wait_for(|_, line| line.contains("accept failed"));
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    // a second is what is measured: hundredths of it that were spent
    std::thread::sleep(Duration::from_secs(1));
    let spent = ticks() - before;
    assert!(spent < 30, "{spent} hundredths of a second");
    drop(many);
    eventually("it serves again", || {
        let mut client = gateway.client();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.rest().starts_with(b"HTTP/1.1 200")
    });
    still_serves(&gateway);
}

/// Slow read. `limits.idle` ends what does not move at all; somebody slow is served.
#[test]
fn r5_a_client_that_reads_nothing_is_cut_off_and_its_upstream_freed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, ended) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || {
                // all of it: closing on bytes that were not read resets the connection, and takes the answer's end away
                let mut request = Vec::new();
                let end =
                    |request: &[u8]| if request.starts_with(b"GET") { &b"\r\n\r\n"[..] } else { b"\r\n0\r\n\r\n" };
                while !request.ends_with(end(&request)) {
                    let mut part = [0; 4096];
                    let Ok(count @ 1..) = stream.read(&mut part) else { return };
                    request.extend(&part[..count]);
                }
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20).as_bytes());
                let block = vec![b'x'; 1 << 20];
                let whole = (0..64).all(|_| stream.write_all(&block).is_ok());
                let _ = sender.send(whole);
            });
        }
    });
    let mut gateway = Gateway::start(&format!(
        "[limits]\nidle = \"4s\"\n[[route]]\naccess = \"public\"\nupstream = \"http://{address}\"\n"
    ));
    for (line, fields, body) in [("GET /", &[][..], ""), ("POST /", CHUNKED, "0\r\n\r\n")] {
        let ask = || {
            let mut client = gateway.client();
            client.send(head(line, &[&[("Host", "a")], fields].concat()).as_bytes());
            client.send(body.as_bytes());
            assert_eq!(client.head().status, 200);
            client
        };
        let deaf = ask();
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(false), "{line}");
        drop(deaf);
        let mut reader = ask();
        for _ in 0..64 {
            reader.take(1 << 20);
        }
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(true), "{line}");
        gateway.wait_for(|_, line| {
            assert!(!line.contains("bad_"), "{line}");
            line.contains("\"outcome\":\"client_gone\"")
        });
    }
    still_serves(&gateway);
}

/// argon2 as a weapon: 200 at once here; each would take 19 MiB and 20 ms of a core.
#[test]
fn r6_a_flood_of_sign_ins_is_bounded_and_leaves_sessions_alone() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 1000\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let cookie = gateway.first_account();
    let address = gateway.address;
    let threads: Vec<_> = (0..200)
        .map(|number| {
            std::thread::spawn(move || {
                let body = json!({ "email": format!("user{number}@example.com"), "password": "wrong wrong wrong" });
                let answer = Client::connect(address).post_json("/.auth/login", &[], &body);
                assert_eq!((answer.status == 503).then_some("5"), answer.field("retry-after"));
                answer.status
            })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
    }
    let statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&401));
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 192 << 10, "{peak}");
    eventually("the queue is free again", || gateway.login("ada@example.com", PASSWORD).status == 200);
    still_serves(&gateway);
}

/// Traefik CVE-2026-26998: what our own pages read has a bound, and two forms.
#[test]
fn r7_ten_megabytes_to_the_login_page_are_refused_unread() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let before = resident_kib(&gateway);
    let large = vec![b'a'; 10 << 20];
    for (kind, status) in [
        ("application/json", 413),
        ("application/x-www-form-urlencoded", 413),
        ("multipart/form-data; boundary=x", 413),
    ] {
        let answer = gateway.client().request("POST /.auth/login", &[("Content-Type", kind)], &large);
        assert_eq!(answer.status, status, "{kind}");
        still_serves(&gateway);
    }
    let small = [("Content-Type", "multipart/form-data; boundary=x")];
    assert_eq!(gateway.client().request("POST /.auth/login", &small, b"--x--").status, 415);
    assert!(resident_kib(&gateway).saturating_sub(before) < 8 << 10);
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 200);
}

/// A memory of tokens that were wrong would be the attacker's to fill: 4,000 here, of 1.5 KiB each.
#[test]
fn r8_wrong_tokens_are_remembered_nowhere() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let mut client = gateway.client();
    let mut ask = |count: usize| {
        for number in 0..count {
            let wrong = format!("{cookie}{number:01500}");
            assert_eq!(client.get("/x", &[("Cookie", &wrong)]).status, 401);
        }
    };
    ask(500);
    let before = resident_kib(&gateway);
    ask(4000);
    let grown = resident_kib(&gateway).saturating_sub(before);
    assert!(grown < 2 << 10, "{grown} KiB, of 6 MiB that were sent");
    assert_eq!(client.get("/x", &[("Cookie", &cookie)]).status, 200);
    still_serves(&gateway);
}

/// The limiter is the attacker's to fill too. Its table has a bound (here it is found with twice as many rows),
/// and all addresses of one customer's /64 are one.
#[test]
fn r9_the_limiter_is_bounded_and_a_network_is_one_address() {
    let config =
        "trusted_proxies = [\"127.0.0.1\"]\n[throttle]\nmax_retries = 1\n[[route]]\nupstream = \"builtin:whoami\"\n";
    let gateway = Gateway::start(config);
    gateway.first_account();
    let folder = gateway.into_folder();
    let database = rusqlite::Connection::open(folder.path().join("state/authgate.db")).unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000)
        INSERT INTO attempt (name, at, until) SELECT 'address:' || i, unixepoch(), unixepoch() + 900 FROM n";
    assert_eq!(database.execute(fill, []).unwrap(), 500_000);
    let gateway = Gateway::serve(folder);
    let wrong = |number: usize, address: &str| {
        let body = json!({ "email": format!("user{number}@example.com"), "password": "wrong wrong wrong" });
        gateway.client().post_json("/.auth/login", &[("X-Forwarded-For", address)], &body).status
    };
    let statuses: Vec<u16> = (0..21).map(|number| wrong(number, &format!("2001:db8::{number:x}:1"))).collect();
    assert_eq!(statuses, [vec![401; 20], vec![429]].concat());
    assert_eq!(wrong(99, "2001:db8:0:1::1"), 401, "another network");
    let rows: i64 = database.query_row("SELECT count(*) FROM attempt", [], |row| row.get(0)).unwrap();
    assert!(rows <= 250_001, "{rows}");
    still_serves(&gateway);
}

/// A stranger takes no more connections than the cap; a trusted proxy's are many people's.
#[test]
fn r10_a_stranger_gets_no_more_connections_than_the_cap() {
    let backend = Backend::start(ok);
    let gateway = open(&backend, "[limits]\nconnections_per_address = 3\n");
    // uploads that do not end: none of them can make room
    let mut open: Vec<_> = (0..3).map(|_| gateway.client()).collect();
    for client in &mut open {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    }
    eventually("all are at work", || {
        let mut client = gateway.client();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.is_closed()
    });
    open.clear();
    eventually("a place is free again", || {
        let mut client = gateway.client();
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        !client.is_closed()
    });
}

/// CWE-770: an address whose tries are used up waits in the queue before the hash workers all the same, for as
/// long as it takes to tell it so. It waits behind itself, however many connections it opens. 200 here.
#[test]
fn r11_one_address_never_holds_all_places_for_signing_in() {
    let gateway = Gateway::start(
        "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n[throttle]\nmax_retries = 1\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    gateway.first_account();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..200)
            .map(|number| {
                let (mut client, ended) = (Client::connect_from("127.0.0.2", gateway.address), &ended);
                scope.spawn(move || {
                    let body = json!({ "email": format!("user{number}@example.com"), "password": "wrong wrong wrong" });
                    let mut seen = BTreeSet::new();
                    while !ended.load(Ordering::Relaxed) {
                        seen.insert(client.post_json("/.auth/login", &[], &body).status);
                    }
                    seen
                })
            })
            .collect();
        eventually("it is banned", || gateway.cli(&["ban", "list"]).contains("127.0.0.2"));
        let statuses: Vec<u16> = (0..20).map(|_| gateway.login("ada@example.com", PASSWORD).status).collect();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(statuses, [200; 20]);
        let seen: BTreeSet<u16> = floods.into_iter().flat_map(|flood| flood.join().unwrap()).collect();
        assert_eq!(seen, BTreeSet::from([401, 429]));
    });
    still_serves(&gateway);
}

/// CWE-770: whoever else is on the machine reaches the admin listener, which knows no limits of clients. 300 connections here.
#[test]
fn r12_connections_to_the_admin_listener_take_no_descriptors_from_clients() {
    let gateway = Gateway::whoami();
    let used = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    let limit = format!("--nofile={0}:{0}", used + 100);
    let set = Command::new("prlimit").args(["--pid", &gateway.pid().to_string(), &limit]).status();
    assert!(set.unwrap().success());
    let began = Instant::now();
    let mut many: Vec<Client> = (0..300).map(|_| Client::connect(gateway.admin)).collect();
    assert_eq!(many[31].get("/healthz", &[]).status, 200, "those before it are let in, and say nothing");
    let mut clients: Vec<Client> = (0..20).map(|_| gateway.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/.auth/login", &[]).status, 200);
    }
    // after five seconds those that say nothing would be let go of in any case
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(many);
    assert_eq!(Client::connect(gateway.admin).get("/readyz", &[]).status, 200, "and the next when they have gone");
    still_serves(&gateway);
}

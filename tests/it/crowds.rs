//! Ordinary crowds: a school class behind one address, an office at nine o'clock, a job with many workers. Nobody who
//! knows the password is turned away; and each limit that a crowd meets still holds what it was made against.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::client::{Answer, Client};
use crate::gateway::{Gateway, PASSWORD, eventually};
use crate::websockets::{echo, open};

const CHEAP: &str = "[password]\nargon2 = { memory_kib = 7168, iterations = 1, parallelism = 1 }\n";
const ROUTE: &str = "[[route]]\nupstream = \"builtin:whoami\"\n";

/// A gateway with accounts `u0@example.com` to `u{count - 1}@example.com`, all with the usual password.
fn with_people(config: &str, count: usize) -> Gateway {
    let gateway = Gateway::start(&format!("{config}{CHEAP}{ROUTE}"));
    gateway.first_account();
    let database = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    let fill = format!(
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1)
         INSERT INTO user (id, email, name, picture, groups, password, created, rev)
         SELECT 'u' || i, 'u' || i || '@example.com', '', '', '', password, user.created, user.rev FROM n, user"
    );
    assert_eq!(database.execute(&fill, []).unwrap(), count);
    gateway
}

/// Sends these sign-ins (from, e-mail, password) at the same moment; answers in the same order.
fn at_once(gateway: &Gateway, tries: &[(String, String, &str)]) -> Vec<Answer> {
    let start = Barrier::new(tries.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = tries
            .iter()
            .map(|(from, email, password)| {
                let (mut client, start) = (Client::connect_from(from, gateway.address), &start);
                scope.spawn(move || {
                    start.wait();
                    client.post_json("/.auth/login", &[], &json!({ "email": email, "password": password }))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

fn person(number: usize) -> String {
    format!("u{number}@example.com")
}

#[test]
fn sixty_people_who_sign_in_at_once_all_get_in_from_one_address_and_from_sixty() {
    let gateway = with_people("", 60);
    for from in [|_| "127.0.0.2".to_owned(), |number: usize| format!("127.0.1.{number}")] {
        let tries: Vec<_> = (0..60).map(|number| (from(number), person(number), PASSWORD)).collect();
        let answers = at_once(&gateway, &tries);
        assert_eq!(count(&answers, 200), 60, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    }
}

/// The queue for hashing was made against floods: they wait behind themselves.
#[test]
fn beside_a_guesser_with_forty_connections_forty_people_elsewhere_get_in() {
    let gateway = with_people("[throttle]\nmax_retries = 1000\n", 40);
    let (ended, begun) = (AtomicBool::new(false), Barrier::new(41));
    std::thread::scope(|scope| {
        for number in 0..40 {
            let (mut client, ended, begun) = (Client::connect_from("127.0.0.2", gateway.address), &ended, &begun);
            scope.spawn(move || {
                let guess = json!({ "email": format!("x{number}@example.com"), "password": "wrong wrong wrong" });
                client.post_json("/.auth/login", &[], &guess);
                begun.wait();
                while !ended.load(Ordering::Relaxed) {
                    client.post_json("/.auth/login", &[], &guess);
                }
            });
        }
        begun.wait();
        let tries: Vec<_> = (0..40).map(|number| (format!("127.0.1.{number}"), person(number), PASSWORD)).collect();
        let answers = at_once(&gateway, &tries);
        ended.store(true, Ordering::Relaxed);
        assert_eq!(count(&answers, 200), 40, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    });
}

#[test]
fn sixteen_workers_that_sign_in_to_one_account_at_once_all_get_in() {
    let gateway = with_people("", 1);
    let tries: Vec<_> = (0..16).map(|_| ("127.0.0.2".to_owned(), person(0), PASSWORD)).collect();
    assert_eq!(count(&at_once(&gateway, &tries), 200), 16);
}

/// OWASP ASVS 6.1.1. What the limit of an account was made against, beside the test before this one.
#[test]
fn of_twenty_wrong_tries_at_one_account_at_once_exactly_as_many_are_decided_as_it_may_fail() {
    let gateway = with_people("", 1);
    // from many addresses: the account's limit alone
    let tries: Vec<_> = (0..20).map(|number| (format!("127.0.1.{number}"), person(0), "wrong wrong wrong")).collect();
    let answers = at_once(&gateway, &tries);
    assert_eq!((count(&answers, 401), count(&answers, 429)), (5, 15));
    let refused = gateway.login(&person(0), PASSWORD);
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert_eq!((refused.status, (1..=300).contains(&wait)), (429, true), "{wait}");
}

#[test]
fn thirty_invites_are_accepted_at_once() {
    let gateway = with_people("", 1);
    let invite = |number: usize| {
        let said = gateway.cli(&["invite", "--email", &format!("new{number}@example.com")]);
        said[said.find("/.auth/invite/").unwrap()..].split_whitespace().next().unwrap().to_owned()
    };
    let links: Vec<_> = (0..30).map(invite).collect();
    let start = Barrier::new(30);
    let accepted: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = links
            .iter()
            .map(|link| {
                let (mut client, start) = (gateway.client(), &start);
                scope.spawn(move || {
                    start.wait();
                    client.post_json(link, &[], &json!({ "name": "X", "password": PASSWORD })).status
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(accepted, [200; 30]);
}

#[test]
fn a_class_of_thirty_that_mistypes_once_each_gets_in_from_one_address() {
    let gateway = with_people("", 30);
    let from = || "127.0.0.2".to_owned();
    let wrong: Vec<_> = (0..30).map(|number| (from(), person(number), "wrong wrong wrong")).collect();
    assert_eq!(count(&at_once(&gateway, &wrong), 401), 30);
    let right: Vec<_> = (0..30).map(|number| (from(), person(number), PASSWORD)).collect();
    assert_eq!(count(&at_once(&gateway, &right), 200), 30);
}

#[test]
fn a_class_of_forty_signs_up_at_once_from_one_address_and_who_continues_is_slowed() {
    let gateway = with_people("[sign_up]\nmode = \"open\"\n[throttle]\nmax_retries = 2\n", 1);
    let sign_up = |number: usize| {
        let body = json!({ "email": format!("new{number}@example.com"), "password": PASSWORD });
        gateway.client().post_json("/.auth/signup", &[], &body).status
    };
    let class: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..40).map(|number| scope.spawn(move || sign_up(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(class, [201; 40]);
    assert_eq!(sign_up(40), 429);
}

#[test]
fn forty_tabs_with_three_sockets_each_of_one_person_are_all_served() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let mut sockets: Vec<_> = (0..120).map(|_| open(&gateway, "/ws", &cookie)).collect();
    for socket in &mut sockets {
        socket.read().unwrap();
        echo(socket, "served");
    }
}

/// A balancer that says nothing of its clients is many people; a proxy that names them is not.
#[test]
fn behind_a_trusted_proxy_without_addresses_accounts_are_counted_and_the_proxy_is_not() {
    let gateway = with_people("trusted_proxies = [\"127.0.0.1\"]\n[throttle]\nmax_retries = 1\n", 1);
    let fail = |number: usize, said: &[(&str, &str)]| {
        let body = json!({ "email": format!("x{number}@example.com"), "password": "wrong wrong wrong" });
        gateway.client().post_json("/.auth/login", said, &body).status
    };
    let silent: Vec<u16> = (0..25).map(|number| fail(number, &[])).collect();
    assert_eq!(silent, [401; 25]);
    assert_eq!(gateway.login(&person(0), PASSWORD).status, 200);
    assert_eq!(fail(0, &[]), 429, "the account is counted all the same");
    let named: Vec<u16> = (100..121).map(|number| fail(number, &[("X-Forwarded-For", "203.0.113.5")])).collect();
    assert_eq!(named, [vec![401; 20], vec![429]].concat());
    assert_eq!(fail(200, &[]), 401);
}

/// A job that signs in every few minutes to a person's account: after 60 sign-ins without cookies the person's browser
/// is still a known one, which nobody locks out.
#[test]
fn a_job_that_signs_in_again_and_again_makes_no_one_a_stranger_and_ends_no_ones_session() {
    let gateway = with_people("[throttle]\nmax_retries = 2\n", 1);
    let body = |password: &str| json!({ "email": person(0), "password": password });
    let first = gateway.client().post_json("/.auth/login", &[], &body(PASSWORD));
    let device = first.all("set-cookie").into_iter().find(|cookie| cookie.starts_with("authgate-device=")).unwrap();
    let device = device.split(';').next().unwrap();
    let known = |password: &str| gateway.client().post_json("/.auth/login", &[("Cookie", device)], &body(password));
    let browser = known(PASSWORD).session_cookie();
    let id = crate::forge::Token::of(&browser).claims["sid"].as_str().unwrap().to_owned();
    let database = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    database.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
    // begun and used hours ago; and 440 of the job's since
    let fill = format!(
        "BEGIN; UPDATE counter SET value = value + 1 WHERE name = 'rev';
         UPDATE session SET created = created - 40000, seen = seen - 20000 WHERE id = '{id}';
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 440)
         INSERT INTO session (id, user_id, created, expires, seen, remember, address, user_agent, rev)
           SELECT 's' || i, user_id, seen + 1000 + i, expires, seen + 1000 + i, 1, '', '', counter.value
           FROM n, session, counter WHERE id = '{id}' AND counter.name = 'rev';
         COMMIT;"
    );
    database.execute_batch(&fill).unwrap();
    for _ in 0..62 {
        assert_eq!(gateway.login(&person(0), PASSWORD).status, 200);
    }
    assert_eq!(gateway.client().get("/x", &[("Cookie", &browser)]).status, 200);
    let wrong: Vec<u16> = (0..3).map(|_| gateway.login(&person(0), "wrong wrong wrong").status).collect();
    assert_eq!(wrong, [401, 401, 429]);
    assert_eq!(known(PASSWORD).status, 200);
    let log = gateway.into_log();
    let hints = log.lines().filter(|line| line.contains("API token")).count();
    assert_eq!(hints, 1, "said once a day: {log}");
}

#[test]
fn metrics_show_who_waits_to_be_hashed_and_for_how_long() {
    let gateway = Gateway::start(&format!(
        "[password]\nargon2 = {{ memory_kib = 32768, iterations = 2, parallelism = 1 }}\n{ROUTE}"
    ));
    gateway.first_account();
    let clients: Vec<Client> = (0..5)
        .map(|number| {
            let mut client = gateway.client();
            let body =
                json!({ "email": format!("x{number}@example.com"), "password": "wrong wrong wrong" }).to_string();
            let head = "POST /.auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ";
            client.send(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
            client
        })
        .collect();
    let value = |name: &str| {
        let text = Client::connect(gateway.admin).get("/metrics", &[]).text();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    eventually("somebody waits", || {
        value("authgate_password_hash_queue") > 0.0 && value("authgate_password_hash_longest_wait_seconds") > 0.0
    });
    for mut client in clients {
        assert_eq!(client.answer().status, 401);
    }
    assert!(value("authgate_password_hash_wait_seconds_count") >= 6.0);
    assert_eq!(
        (value("authgate_password_hash_queue"), value("authgate_password_hash_longest_wait_seconds")),
        (0.0, 0.0)
    );
}

//! Ordinary crowds: a school class behind one address, an office at nine o'clock, a job with many workers. Nobody who
//! knows the password is turned away; and each limit that a crowd meets still holds what it was made against.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::client::{Answer, Client};
use crate::gateway::{Gateway, PASSWORD};

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

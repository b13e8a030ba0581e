//! The wall clock jumps while the gateway runs (reliability goal G-11): the real binary under libfaketime, which is
//! told another time while it serves. Timers are the monotonic clock's, which goes on as it is.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::gateway::{Gateway, PASSWORD, command, configured, eventually, not_here};
use crate::websockets::{close_code, echo, open};

const RULES: &str = "[throttle]\nmax_retries = 3\n[[route]]\nupstream = \"builtin:whoami\"\n";

fn library() -> Option<String> {
    let libraries = ["x86_64", "aarch64"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime/libfaketime.so.1"));
    libraries.into_iter().find(|path| std::path::Path::new(path).exists())
}

fn has_no_library() -> bool {
    let missing = library().is_none();
    if missing {
        not_here("libfaketime is not installed");
    }
    missing
}

/// A gateway, and a hand on its clock.
struct Turned(Gateway);

impl Turned {
    fn start() -> Self {
        Self::serve(configured(RULES), 0)
    }

    /// With a clock that is so far from the true time at the start.
    fn serve(folder: TempDir, secs: i64) -> Self {
        let library = library().expect("asked for before");
        let hand = folder.path().join("hand");
        std::fs::write(&hand, format!("{secs:+}")).unwrap();
        let mut run = command(folder.path(), &["run"]);
        run.env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", hand)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        Self(Gateway::spawn(run, folder))
    }

    /// Waits for the one line that a jump has, and for the chores that are due after it.
    fn notices(&mut self, what: &str) {
        self.0.wait_for(|_, line| line.contains("\"warn\"") && line.contains(what));
        // they run behind each look into the store
        assert!(self.is_ready());
        assert!(self.is_ready());
    }

    /// Sets the clock so far from the true time, in seconds.
    fn turn(&self, secs: i64) {
        // in one step: a file that is half written is another time
        let (next, hand) = (self.0.folder().join("next"), self.0.folder().join("hand"));
        std::fs::write(&next, format!("{secs:+}")).unwrap();
        std::fs::rename(next, hand).unwrap();
    }

    fn seen(&self, cookie: &str) -> u16 {
        self.0.client().get("/x", &[("Cookie", cookie)]).status
    }

    fn sign_in(&self, password: &str) -> u16 {
        self.0.login("bea@example.com", password).status
    }

    fn is_ready(&self) -> bool {
        Client::connect(self.0.admin).get("/readyz", &[]).status == 200
    }
}

const DAY: i64 = 86_400;

#[test]
fn a_clock_that_jumps_a_year_ahead_and_back_locks_no_one_out_and_brings_no_session_back() {
    if has_no_library() {
        return;
    }
    let turned = Turned::start();
    let gateway = &turned.0;
    let cookie = gateway.first_account();
    gateway.add_user("bea@example.com", &[]);
    let ended = gateway.sign_in("ada@example.com");
    assert_eq!(gateway.client().request("POST /.auth/logout", &[("Cookie", &ended)], b"").status, 303);
    assert_eq!((turned.seen(&cookie), turned.seen(&ended)), (200, 401));
    let mut socket = open(gateway, "/ws", &cookie);
    socket.read().unwrap();
    echo(&mut socket, "before");
    let ticket = gateway.client().post_json("/.auth/ws-ticket", &[("Cookie", &cookie)], &json!({}));
    assert_eq!(ticket.status, 200, "{ticket:?}");

    turned.turn(365 * DAY);
    // what is past its life ends, sockets too
    assert_eq!(close_code(&mut socket), 4401);
    assert_eq!((turned.seen(&cookie), turned.seen(&ended)), (401, 401));
    let later = gateway.sign_in("ada@example.com");
    assert_eq!(turned.seen(&later), 200);
    // a ban of that year
    assert_eq!([0; 3].map(|_| turned.sign_in("a wrong password")), [401, 401, 401]);
    assert_eq!(turned.sign_in(PASSWORD), 429);
    assert!(turned.is_ready());

    turned.turn(0);
    assert_eq!(turned.seen(&ended), 401);
    // neither is what was issued in the future, nor anything lost that was there before
    assert_eq!((turned.seen(&later), turned.seen(&cookie)), (200, 200));
    let again = gateway.sign_in("ada@example.com");
    assert_eq!(turned.seen(&again), 200);
    // the ban is no longer than any other from now on
    let wait = gateway.login("bea@example.com", PASSWORD);
    let secs: u64 = wait.field("retry-after").unwrap().parse().unwrap();
    assert!(wait.status == 429 && secs <= 300, "{secs}");

    gateway.cli(&["ban", "lift", "bea@example.com"]);
    assert_eq!(turned.sign_in(PASSWORD), 200);
    assert_eq!(turned.seen(&again), 200);

    turned.turn(-DAY);
    assert_eq!(turned.seen(&ended), 401);
    let yesterday = gateway.sign_in("ada@example.com");
    assert_eq!(turned.seen(&yesterday), 200);
    let mut socket = open(gateway, "/ws", &yesterday);
    socket.read().unwrap();
    echo(&mut socket, "yesterday");
    // what goes by the monotonic clock goes on: the sweep sees a session that ends
    gateway.cli(&["session", "revoke", "--user", "ada@example.com"]);
    assert_eq!(close_code(&mut socket), 4403);
    eventually("it is ready", || turned.is_ready());
}

/// What a person has that could be erased.
struct Belongings {
    cookie: String,
    token: String,
    link: String,
    events: usize,
}

fn events(gateway: &Gateway) -> usize {
    let listed = gateway.cli(&["audit", "list", "--since", "90d", "--json"]);
    serde_json::from_str::<Vec<Value>>(&listed).unwrap().len()
}

impl Belongings {
    fn of(gateway: &Gateway) -> Self {
        let cookie = gateway.first_account();
        let token = gateway.cli(&["token", "create", "ada@example.com", "--name", "backup"]).trim().to_owned();
        let link = gateway.cli(&["invite"]);
        let link = link[link.find("/.auth/").unwrap()..].trim().to_owned();
        Self { cookie, token, link, events: events(gateway) }
    }

    fn are_there(&self, gateway: &Gateway) {
        let bearer = format!("Bearer {}", self.token);
        let seen = |headers: &[(&str, &str)]| gateway.client().get("/x", headers).status;
        assert_eq!(seen(&[("Cookie", &self.cookie)]), 200, "the session");
        assert_eq!(seen(&[("Authorization", &bearer)]), 200, "the API token");
        assert_eq!(gateway.client().get(&self.link, &[]).status, 200, "the link");
        assert!(events(gateway) >= self.events, "the audit trail");
    }
}

#[test]
fn a_clock_that_is_sixty_days_ahead_for_a_moment_erases_nothing() {
    if has_no_library() {
        return;
    }
    let mut turned = Turned::start();
    let belongings = Belongings::of(&turned.0);
    turned.turn(60 * DAY);
    turned.notices("system clock jumped");
    assert_eq!(turned.seen(&belongings.cookie), 401, "it is past its life by that clock");
    turned.turn(0);
    turned.notices("system clock jumped");
    belongings.are_there(&turned.0);
    let again = Turned::serve(turned.0.into_folder(), 0);
    belongings.are_there(&again.0);
    assert!(!again.0.into_log().contains("clock"), "nothing is told of a clock that is right");
}

#[test]
fn a_clock_that_is_set_back_an_hour_signs_no_one_out() {
    if has_no_library() {
        return;
    }
    let mut turned = Turned::start();
    let belongings = Belongings::of(&turned.0);
    turned.turn(-3600);
    turned.notices("system clock jumped");
    belongings.are_there(&turned.0);
    let cookie = turned.0.sign_in("ada@example.com");
    assert_eq!(turned.seen(&cookie), 200);
    turned.turn(0);
    assert_eq!(turned.seen(&cookie), 200);
}

/// Whoever guesses gets no further tries out of a clock that jumps, and whoever is banned is so for no longer.
#[test]
fn tries_and_bans_go_on_as_they_would_have_whatever_becomes_of_the_clock() {
    if has_no_library() {
        return;
    }
    let mut turned = Turned::start();
    turned.0.first_account();
    turned.0.add_user("bea@example.com", &[]);
    let wrong = |turned: &Turned| turned.sign_in("a wrong password");
    assert_eq!([0; 2].map(|_| wrong(&turned)), [401, 401]);
    turned.turn(3600);
    turned.notices("system clock jumped");
    assert_eq!([wrong(&turned), wrong(&turned)], [401, 429], "the third one is the last");
    for secs in [60 * DAY, 0] {
        turned.turn(secs);
        turned.notices("system clock jumped");
        let refused = turned.0.login("bea@example.com", PASSWORD);
        let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        assert!(refused.status == 429 && (200..=300).contains(&wait), "{wait}");
    }
}

/// What an alert about keys that are never rotated reads.
#[test]
fn the_age_of_a_signing_key_is_what_the_clock_says() {
    if has_no_library() {
        return;
    }
    let turned = Turned::start();
    let age = || {
        let text = Client::connect(turned.0.admin).get("/metrics", &[]).text();
        let line = text.lines().find(|line| line.starts_with("authgate_signing_key_age_seconds{kid=\""));
        let line = line.unwrap_or_else(|| panic!("no key in {text}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(age() < 60, "made at the start: {}", age());
    turned.turn(86_400);
    assert!((86_400..86_460).contains(&age()), "a day old: {}", age());
}

/// No battery, or a wrong one: the clock is set right a moment after the start.
#[test]
fn a_machine_that_boots_in_1970_or_years_ahead_loses_nothing() {
    if has_no_library() {
        return;
    }
    let turned = Turned::start();
    let belongings = Belongings::of(&turned.0);
    let mut folder = turned.0.into_folder();
    let since_1970 = i64::try_from(crate::forge::now_secs()).unwrap() - 60;
    for (offset, refused) in [(-since_1970, false), (400 * DAY, true)] {
        let mut booted = Turned::serve(folder, offset);
        let seen = booted.seen(&belongings.cookie);
        assert_eq!(seen, if refused { 401 } else { 200 });
        assert!(booted.is_ready());
        assert!(booted.is_ready());
        booted.turn(0);
        booted.notices("system clock jumped");
        belongings.are_there(&booted.0);
        let log;
        (folder, log) = booted.0.into_folder_and_log();
        assert_eq!(log.matches("system clock far from the newest record").count(), 1, "{log}");
    }
    belongings.are_there(&Turned::serve(folder, 0).0);
}

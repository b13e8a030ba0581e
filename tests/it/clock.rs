//! The wall clock jumps while the gateway runs (reliability goal G-11): the real binary under libfaketime, which is
//! told another time while it serves. Timers are the monotonic clock's, which goes on as it is.

use serde_json::json;

use crate::client::Client;
use crate::gateway::{Gateway, PASSWORD, command, configured, eventually};
use crate::websockets::{close_code, echo, open};

const RULES: &str = "[throttle]\nmax_retries = 3\n[[route]]\nupstream = \"builtin:whoami\"\n";

/// A gateway, and a hand on its clock.
struct Turned(Gateway);

impl Turned {
    fn start() -> Self {
        let library = ["x86_64", "aarch64"].map(|cpu| format!("/usr/lib/{cpu}-linux-gnu/faketime/libfaketime.so.1"));
        let library = library.iter().find(|path| std::path::Path::new(path).exists()).expect("needs libfaketime");
        let folder = configured(RULES);
        let hand = folder.path().join("hand");
        std::fs::write(&hand, "+0").unwrap();
        let mut run = command(folder.path(), &["run"]);
        run.env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", hand)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        Self(Gateway::spawn(run, folder))
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
fn a_clock_that_jumps_a_year_ahead_and_back_locks_nobody_out_and_brings_no_session_back() {
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
    // issued in the future: whoever has it signs in again, and can
    assert_eq!(turned.seen(&later), 401);
    let again = gateway.sign_in("ada@example.com");
    assert_eq!(turned.seen(&again), 200);
    // the ban is no longer than any other from now on
    let wait = gateway.login("bea@example.com", PASSWORD);
    let secs: u64 = wait.field("retry-after").unwrap().parse().unwrap();
    assert!(wait.status == 429 && secs <= 300, "{secs}");

    turned.turn(301);
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

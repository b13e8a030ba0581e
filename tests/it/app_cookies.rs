//! `session.app_cookies`, `route.cookies`: nothing that an app set under one account reaches it under another.

use crate::one_browser::{Jar, Stored, World};
use crate::websockets::HANDSHAKE;

#[test]
fn an_apps_session_of_one_account_is_not_sent_for_the_next_one_at_the_same_browser() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    assert_eq!(world.open("/page"), "sid=ada");
    world.sign_out();
    world.sign_in("bob@example.com");
    assert_eq!(world.open("/page"), "");
    assert_eq!(world.jar.names(), [] as [&str; 0], "and it is taken away");
    world.open("/?set=sid=bob,Path=/");
    assert_eq!(world.open("/page"), "sid=bob");
    // nor the other way round
    world.sign_out();
    world.sign_in("ada@example.com");
    assert_eq!(world.open("/page"), "");
}

#[test]
fn the_same_account_finds_its_app_cookies_again_also_after_another_user_was_there() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    world.sign_out();
    world.sign_in("ada@example.com");
    assert_eq!(world.open("/page"), "sid=ada");
    world.sign_out();
    // Bob opens nothing of this app
    world.sign_in("bob@example.com");
    world.sign_out();
    world.sign_in("ada@example.com");
    assert_eq!(world.open("/page"), "sid=ada");
}

/// No request says under which path a cookie was set, so the names of two apps below one host are told apart by value.
#[test]
fn cookies_of_one_name_under_two_paths_do_not_pass_for_each_other() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/a/?set=sid=ada-a,Path=/a");
    world.open("/b/?set=sid=ada-b,Path=/b/");
    world.open("/a/deep/x?set=sid=ada-deep");
    world.sign_out();
    world.sign_in("bob@example.com");
    assert_eq!(world.open("/a/"), "");
    world.open("/a/?set=sid=bob-a,Path=/a");
    assert_eq!(world.open("/a/"), "sid=bob-a");
    assert_eq!(world.open("/b/"), "", "Ada's cookie of the other app");
    assert_eq!(world.open("/a/deep/x"), "sid=bob-a", "Ada's under a longer path");
    world.open("/b/?set=sid=bob-b,Path=/b/");
    assert_eq!((world.open("/a/").as_str(), world.open("/b/").as_str()), ("sid=bob-a", "sid=bob-b"));
}

#[test]
fn cookies_that_scripts_set_and_twenty_at_once_are_kept_apart_too() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    for at in 0..20 {
        let stored = Stored { name: format!("c{at}"), path: "/".into(), domain: at % 2 == 0, value: "ada".into() };
        world.jar.0.push(stored);
    }
    assert_eq!(world.open("/x/y").matches("=ada").count(), 20);
    world.sign_out();
    world.sign_in("bob@example.com");
    for _ in 0..3 {
        assert_eq!(world.open("/x/y"), "");
    }
    assert_eq!(world.jar.names(), [] as [&str; 0]);
}

#[test]
fn the_record_is_written_when_something_is_new_and_not_again() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    let before = world.jar.0.iter().find(|cookie| cookie.name == "authgate-apps").unwrap().value.clone();
    let header = world.jar.header("/");
    for target in ["/", "/?set=sid=ada2,Path=/"] {
        let answer = world.gateway.client().get(target, &[("Cookie", &header)]);
        let cookies = answer.all("set-cookie");
        assert!(!cookies.iter().any(|line| line.starts_with("authgate-apps=")), "{target}: {cookies:?}");
    }
    let other = world.gateway.client().get("/?set=new=x", &[("Cookie", &header)]);
    let line = other.all("set-cookie").into_iter().find(|line| line.starts_with("authgate-apps=")).unwrap().to_owned();
    assert!(line.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=34560000") && !line.contains(&before), "{line}");
    assert!(line.len() < 1024);
}

/// What a person at the browser, an app or a neighbouring host may write into it changes nothing.
#[test]
fn a_forged_record_does_nothing_and_an_app_cannot_set_one() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    let adas = world.jar.clone();
    world.sign_out();
    world.sign_in("bob@example.com");
    let record = |jar: &Jar| jar.0.iter().find(|cookie| cookie.name == "authgate-apps").unwrap().value.clone();
    let (kept, session) =
        (record(&adas), world.jar.0.iter().find(|cookie| cookie.name == "authgate").unwrap().value.clone());
    for forged in ["", "AQ", &format!("{kept}A"), &kept.replace(&kept[10..14], "AAAA")] {
        // beside the true one, before and behind it
        for line in [
            format!("authgate={session}; authgate-apps={forged}; authgate-apps={kept}; sid=ada"),
            format!("authgate={session}; authgate-apps={kept}; authgate-apps={forged}; sid=ada"),
        ] {
            assert_eq!(world.gateway.client().get("/page", &[("Cookie", &line)]).status, 200);
            assert_eq!(world.backend.next().field("cookie"), None, "{line}");
        }
    }
    world.open("/?set=authgate-apps=forged,Path=/");
    assert!(world.jar.0.iter().all(|cookie| cookie.value != "forged"));
}

#[test]
fn without_a_session_nothing_is_kept_back_and_keep_forwards_all() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    world.sign_out();
    assert_eq!(world.open("/public/x"), "sid=ada");
    world.sign_in("bob@example.com");
    assert_eq!(world.open("/public/x"), "", "a public route, with a session");
    let mut keeping = World::start("[session]\napp_cookies = \"keep\"");
    keeping.sign_in("ada@example.com");
    keeping.open("/?set=sid=ada,Path=/");
    keeping.sign_out();
    keeping.sign_in("bob@example.com");
    assert_eq!(keeping.open("/page"), "sid=ada");
}

/// A page of another site may open a socket with a ticket: the browser sends the app's cookies then, and not the session's.
#[test]
fn an_apps_session_of_one_account_stays_behind_where_another_ones_session_is_shown_elsewhere_too() {
    let mut world = World::start("");
    let mut shown = Vec::new();
    for email in ["ada@example.com", "bob@example.com"] {
        world.sign_out();
        world.sign_in(email);
        if email.starts_with("ada") {
            world.open("/?set=sid=ada,Path=/");
        }
        let session = world.jar.0.iter().find(|cookie| cookie.name == "authgate").unwrap().value.clone();
        let mut jar = world.jar.clone();
        jar.0.retain(|cookie| cookie.name != "authgate");
        let fields = [("Authorization", format!("Bearer {session}")), ("Cookie", jar.header("/page"))];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(world.gateway.client().get("/page", &fields).status, 200);
        shown.push(world.backend.next().field("cookie").map(str::to_owned));
    }
    assert_eq!(shown, [Some("sid=ada".to_owned()), None]);
}

/// Browsers take cookies of a 304, too.
#[test]
fn a_cookie_that_came_with_a_304_is_its_accounts() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/fresh?set=sid=ada,Path=/");
    // the session is gone without a word
    world.jar.0.retain(|cookie| cookie.name != "authgate");
    world.sign_in("bob@example.com");
    assert_eq!(world.open("/fresh"), "");
    assert_eq!(world.jar.names(), ["sid/"], "all fields of a 304 become those of what is stored");
    assert_eq!(world.open("/page"), "");
    assert_eq!(world.jar.names(), [] as [&str; 0]);
}

/// Each of them has a record without the other's cookie, and the browser keeps one.
#[test]
fn cookies_that_two_answers_set_at_the_same_time_are_sorted_out_by_signing_out() {
    for over in [false, true] {
        let mut world = World::start("");
        world.sign_in("ada@example.com");
        let header = world.jar.header("/");
        for target in ["/?set=sid=ada,Path=/", "/?set=theme=dark,Path=/"] {
            let answer = world.gateway.client().get(target, &[("Cookie", &header)]);
            world.jar.take("/", &answer);
            world.backend.next();
        }
        assert_eq!(world.jar.names(), ["sid/", "theme/"]);
        if !over {
            world.sign_out();
        }
        world.sign_in("bob@example.com");
        assert_eq!(world.open("/page"), "", "over her session: {over}");
    }
}

#[test]
fn what_the_first_of_four_accounts_had_reaches_none_of_the_others() {
    let mut world = World::start("");
    for person in ["cleo", "dan"] {
        world.gateway.add_user(&format!("{person}@example.com"), &[]);
    }
    world.sign_in("ada@example.com");
    world.open("/apps/one/?set=sid=ada,Path=/apps/one");
    for person in ["bob", "cleo", "dan"] {
        world.sign_out();
        world.sign_in(&format!("{person}@example.com"));
        world.open(&format!("/?set=own-{person}=x,Path=/"));
    }
    assert_eq!(world.jar.names().first().map(String::as_str), Some("own-dan/"));
    assert_eq!(world.open("/apps/one/"), "own-dan=x");
}

/// One that an app sets for the hosts beside its own cannot be taken away without knowing its `Domain`: it stays behind.
#[test]
fn a_cookie_for_a_whole_domain_is_kept_back_at_the_host_that_set_it() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/,Domain=example.com");
    world.sign_out();
    world.sign_in("bob@example.com");
    let cookie = Stored { name: "sid".into(), path: "/".into(), domain: true, value: "ada".into() };
    for _ in 0..3 {
        // the browser has it still
        world.jar.0.retain(|own| own.name != "sid");
        world.jar.0.push(cookie.clone());
        assert_eq!(world.open("/page"), "");
    }
}

/// Public parts of an app that has sessions of its own: a disabled account's app session would go on there.
#[test]
fn a_route_may_forward_no_cookies_at_all() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    assert_eq!(world.open("/public/x"), "sid=ada");
    assert_eq!(world.open("/bare/x"), "");
}

#[test]
fn the_record_survives_a_restart_and_a_rotated_key() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    world.sign_out();
    world.gateway.cli(&["key", "rotate"]);
    world.gateway = world.gateway.kill_and_restart();
    world.sign_in("bob@example.com");
    assert_eq!(world.open("/page"), "");
    assert_eq!(world.gateway.cli(&["key", "list"]).matches("app-cookies").count(), 0);
}

/// Browsers take cookies of a 101, too.
#[test]
fn a_cookie_that_came_with_a_handshakes_answer_is_its_accounts() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    let handshake = |world: &mut World, target: &str| {
        let header = world.jar.header("/ws");
        let mut client = world.gateway.client();
        let fields = [HANDSHAKE, &[("Cookie", &header)]].concat();
        client.send(
            crate::known_attacks::head(&format!("GET {target}"), &[&[("Host", "a")], &fields[..]].concat()).as_bytes(),
        );
        let answer = client.head();
        assert_eq!(answer.status, 101);
        world.jar.take("/ws", &answer);
        world.backend.next().field("cookie").map(str::to_owned)
    };
    assert_eq!(handshake(&mut world, "/ws?set=sid=ada,Path=/"), None);
    assert_eq!(handshake(&mut world, "/ws").as_deref(), Some("sid=ada"));
    // the session is gone without a word
    world.jar.0.retain(|cookie| cookie.name != "authgate");
    world.sign_in("bob@example.com");
    assert_eq!(handshake(&mut world, "/ws"), None);
    assert_eq!(world.jar.names(), [] as [&str; 0], "and it is taken away");
    assert_eq!(world.open("/page"), "");
}

/// The first that an app sets is mostly its session.
#[test]
fn of_more_cookies_than_a_record_holds_none_is_the_next_accounts() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    for at in 0..64 {
        world.open(&format!("/?set=c{at}=ada,Path=/"));
    }
    let header = world.jar.header("/");
    let answer = world.gateway.client().get("/?set=c64=ada,Path=/", &[("Cookie", &header)]);
    world.jar.take("/", &answer);
    world.backend.next();
    assert_eq!(answer.all("set-cookie"), ["c64=ada; Path=/"], "the record is not written again and again");
    assert_eq!(world.open("/page").matches("=ada").count(), 66, "they are hers");
    world.sign_out();
    world.sign_in("bob@example.com");
    for _ in 0..8 {
        assert_eq!(world.open("/page"), "");
    }
    assert_eq!(world.jar.names(), [] as [&str; 0]);
    world.open("/?set=sid=bob,Path=/");
    assert_eq!(world.open("/page"), "sid=bob");
}

/// To another site's request the browser adds an app's cookie that says `SameSite=None`, and not the record.
#[test]
fn where_a_session_is_shown_without_the_record_no_app_cookie_passes_and_none_is_claimed() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    world.sign_out();
    world.sign_in("bob@example.com");
    let bearer = format!("Bearer {}", world.jar.own("authgate"));
    let ask = |target: &str, fields: &[(&str, &str)]| {
        let answer = world.gateway.client().get(target, &[&[("Authorization", bearer.as_str())], fields].concat());
        let set = answer.all("set-cookie").join("\n");
        (world.backend.next().field("cookie").map(str::to_owned), set)
    };
    for _ in 0..2 {
        assert_eq!(ask("/page", &[("Cookie", "sid=ada; theme=dark")]), (None, String::new()));
    }
    // a program that keeps what it is given goes on
    let (_, set) = ask("/?set=own=1", &[]);
    let record = set.lines().find_map(|line| line.strip_prefix("authgate-apps=")?.split(';').next()).unwrap();
    let jar = format!("own=1; authgate-apps={record}");
    assert_eq!(ask("/page", &[("Cookie", &jar)]).0.as_deref(), Some("own=1"));
    // and at the browser itself nothing has changed
    assert_eq!(world.open("/page"), "");
    world.sign_out();
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    assert_eq!(world.open("/page"), "sid=ada");
}

#[test]
fn an_api_token_in_a_browser_gets_none_of_another_accounts_cookies_and_a_program_keeps_its_own() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=sid=ada,Path=/");
    let record = world.jar.own("authgate-apps");
    for (email, with_record, without) in [("ada", Some("sid=ada"), "sid=ada"), ("bob", None, "sid=ada")] {
        let token = world.gateway.cli(&["token", "create", &format!("{email}@example.com"), "--name", "x"]);
        let token = token.split_whitespace().find(|word| word.starts_with("agt_")).unwrap().to_owned();
        let ask = |cookies: &str| {
            let fields = [("X-Authgate-Token", token.as_str()), ("Cookie", cookies)];
            assert_eq!(world.gateway.client().get("/page", &fields).status, 200);
            world.backend.next().field("cookie").map(str::to_owned)
        };
        assert_eq!(ask(&format!("sid=ada; authgate-apps={record}")).as_deref(), with_record, "{email}");
        assert_eq!(ask("sid=ada").as_deref(), Some(without), "{email}");
    }
}

/// Over plain http, where its name has no prefix, an app may have planted an old one under a longer path.
#[test]
fn an_older_record_beside_the_browsers_hides_nothing_of_it() {
    let mut world = World::start("");
    world.sign_in("ada@example.com");
    world.open("/?set=theme=dark,Path=/");
    let old = world.jar.own("authgate-apps");
    world.open("/?set=sid=ada,Path=/");
    world.sign_out();
    world.sign_in("bob@example.com");
    let (new, session) = (world.jar.own("authgate-apps"), world.jar.own("authgate"));
    for records in [[&old, &new], [&new, &old]] {
        let [first, second] = records;
        let line = format!("authgate={session}; authgate-apps={first}; authgate-apps={second}; sid=ada; own=x");
        assert_eq!(world.gateway.client().get("/page", &[("Cookie", &line)]).status, 200);
        assert_eq!(world.backend.next().field("cookie"), Some("own=x"));
    }
}

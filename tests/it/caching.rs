//! `route.cache`: what was made for one account is shown to no other, out of no cache.

use std::io::Write;

use crate::backend::{Backend, Received};
use crate::gateway::{Gateway, PASSWORD};

/// Answers with the fields that the request's path names: `/app/cc=public, max-age=60/type=text/html`, `~` for `/`.
fn echo(received: &Received, stream: &mut dyn Write) -> bool {
    let path = received.line.split(' ').nth(1).unwrap().replace("%20", " ");
    let mut head = String::from("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n");
    for item in path.split('/').filter_map(|item| item.split_once('=')) {
        let name = match item.0 {
            "cc" => "Cache-Control",
            "type" => "Content-Type",
            "vary" => "Vary",
            "surrogate" => "Surrogate-Control",
            "cdn" => "CDN-Cache-Control",
            "connection" => "Connection",
            other => panic!("{other}"),
        };
        head = format!("{head}{name}: {}\r\n", item.1.replace('~', "/"));
    }
    stream.write_all(format!("{head}\r\nok").as_bytes()).is_ok()
}

fn gateway() -> (Gateway, Backend) {
    let backend = Backend::start(echo);
    let route = |path: &str, more: &str| {
        format!("[[route]]\npath = \"/{path}/**\"\nupstream = \"http://{}\"\n{more}\n", backend.address)
    };
    let routes = [
        route("app", ""),
        route("optional", "access = \"optional\""),
        route("public", "access = \"public\""),
        route("own", "cache = \"app\""),
    ];
    (Gateway::start(&routes.concat()), backend)
}

#[test]
fn answers_for_one_account_are_private_and_vary_by_cookie() {
    let (gateway, _backend) = gateway();
    let cookie = gateway.first_account();
    for route in ["app", "optional", "public"] {
        for (told, cache_control, vary) in [
            ("type=text~html", "private", Some("Cookie")),
            ("cc=public,%20max-age=3600/type=text~html", "private, max-age=3600", Some("Cookie")),
            ("cc=s-maxage=600/vary=Accept", "private", Some("Accept, Cookie")),
            ("cc=no-store", "no-store", Some("Cookie")),
            // what says so is no connection's to take away
            (
                "cc=private,%20max-age=5/vary=Cookie/connection=cache-control,%20vary",
                "private, max-age=5",
                Some("Cookie"),
            ),
            ("cc=public,%20max-age=3600/type=image~png", "private, max-age=3600", None),
            ("cc=max-age=60/type=text~css/vary=Accept-Encoding", "private, max-age=60", Some("Accept-Encoding")),
        ] {
            let answer = gateway.client().get(&format!("/{route}/{told}"), &[("Cookie", &cookie)]);
            assert_eq!(answer.all("cache-control"), [cache_control], "{told}");
            assert_eq!(answer.all("vary"), vary.into_iter().collect::<Vec<_>>(), "{told}");
        }
        let told = "surrogate=max-age=60/cdn=public";
        let answer = gateway.client().get(&format!("/{route}/{told}"), &[("Cookie", &cookie)]);
        assert_eq!((answer.field("surrogate-control"), answer.field("cdn-cache-control")), (None, None));
    }
}

/// An app behind a public route is told who is signed in, too.
#[test]
fn answers_for_everyone_and_routes_that_leave_it_to_the_app_pass_as_they_came() {
    let (gateway, _backend) = gateway();
    let cookie = gateway.first_account();
    for (route, cookie) in [("public", "a=1"), ("public", "authgate=ended"), ("own", &cookie)] {
        let told = "cc=public,%20max-age=3600/type=text~html/surrogate=max-age=60";
        let answer = gateway.client().get(&format!("/{route}/{told}"), &[("Cookie", cookie)]);
        assert_eq!(answer.all("cache-control"), ["public, max-age=3600"], "{route}");
        assert_eq!((answer.field("surrogate-control"), answer.field("vary")), (Some("max-age=60"), None), "{route}");
    }
}

/// A page may ask for one address with one account's token and then with another's.
#[test]
fn what_a_token_was_answered_varies_by_the_fields_that_it_may_stand_in() {
    let (gateway, _backend) = gateway();
    let cookie = gateway.first_account();
    let token = gateway.cli(&["token", "create", "ada@example.com", "--name", "x"]);
    let token = token.split_whitespace().find(|word| word.starts_with("agt_")).unwrap();
    let bearer = format!("Bearer {token}");
    let basic = format!("Basic {}", data_encoding::BASE64.encode(format!("ada:{token}").as_bytes()));
    for (name, value) in [
        ("Authorization", &bearer),
        ("Authorization", &basic),
        ("X-Authgate-Token", &token.to_owned()),
        ("Proxy-Authorization", &bearer),
    ] {
        let ask = |told: &str| gateway.client().get(&format!("/app/cc=max-age=60/{told}"), &[(name, value)]);
        let (page, part) = (ask("type=text~html"), ask("type=image~png/vary=Accept-Encoding"));
        let fields = "Authorization, X-Authgate-Token, Proxy-Authorization";
        assert_eq!((page.status, page.all("vary")), (200, vec![format!("Cookie, {fields}").as_str()]), "{name}");
        assert_eq!(
            (part.status, part.all("vary")),
            (200, vec![format!("Accept-Encoding, {fields}").as_str()]),
            "{name}"
        );
    }
    let by_cookie = gateway.client().get("/app/type=image~png", &[("Cookie", &cookie)]);
    assert_eq!((by_cookie.status, by_cookie.field("vary")), (200, None));
}

/// Back, after signing out, shows nothing of before.
#[test]
fn signing_out_and_signing_in_as_another_user_empty_the_browsers_cache() {
    let (gateway, _backend) = gateway();
    let ada = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let login = |email: &str, cookie: &str| {
        let body = serde_json::json!({ "email": email, "password": PASSWORD });
        gateway.client().post_json("/.auth/login", &[("Cookie", cookie)], &body)
    };
    let device = |answer: &crate::client::Answer| {
        let set = answer.all("set-cookie").into_iter().find(|line| line.starts_with("authgate-device="));
        set.unwrap().split(';').next().unwrap().to_owned()
    };
    let again = login("ada@example.com", &ada);
    assert_eq!((again.status, again.field("clear-site-data")), (200, None), "the same account");
    let ada = gateway.sign_in("ada@example.com");
    let bob = login("bob@example.com", &ada);
    assert_eq!((bob.status, bob.field("clear-site-data")), (200, Some("\"cache\"")));
    // the session may have ended unseen: styles, scripts and images outlive it
    let first = login("ada@example.com", "a=1");
    assert_eq!(first.field("clear-site-data"), Some("\"cache\""), "nobody knows who was there");
    let browser = device(&first);
    let ada_again = login("ada@example.com", &browser);
    assert_eq!((ada_again.field("clear-site-data"), device(&ada_again)), (None, browser.clone()), "the same person");
    assert_eq!(login("bob@example.com", &browser).field("clear-site-data"), Some("\"cache\""));
    assert_eq!(login("ada@example.com", &browser).field("clear-site-data"), Some("\"cache\""), "after Bob");
    let bob = gateway.sign_in("bob@example.com");
    let out = gateway.client().request("POST /.auth/logout", &[("Cookie", &bob)], b"");
    assert_eq!((out.status, out.field("clear-site-data")), (303, Some("\"cache\"")));
}

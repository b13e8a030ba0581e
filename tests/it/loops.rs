//! A browser whose session cookie does not come back is told why, instead of being asked again and again.

use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD};

const BROWSER: &[(&str, &str)] =
    &[("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html"), ("User-Agent", "Mozilla/5.0 Test")];
const LOST: &str = "You signed in, but your browser did not keep you signed in.";

fn with(extra: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [BROWSER, extra].concat()
}

fn sign_in(gateway: &Gateway, fields: &[(&str, &str)], place: &str) -> Answer {
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("email", "ada@example.com"), ("password", PASSWORD), ("callbackUrl", place)])
        .finish();
    let answer = gateway.client().post_form("/.auth/login", fields, &body);
    assert_eq!((answer.status, answer.field("location")), (303, Some(place)));
    answer
}

/// Goes where a browser without cookies is sent, until a page comes.
fn follow(gateway: &Gateway, from: &str, fields: &[(&str, &str)]) -> Answer {
    // the page that the browser came from, over all redirects
    let host = fields.iter().find(|(name, _)| *name == "Host").map_or(gateway.host(), |(_, host)| (*host).to_owned());
    let referer = format!("http://{host}/.auth/login");
    let fields = [fields, &[("Referer", referer.as_str())]].concat();
    let mut place = from.to_owned();
    for _ in 0..5 {
        let answer = gateway.client().get(&place, &fields);
        match answer.field("location") {
            Some(next) => next.clone_into(&mut place),
            None => return answer,
        }
    }
    panic!("round in circles at {place}");
}

#[test]
fn a_client_that_drops_cookies_is_told_that_they_are_blocked_and_others_are_not() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    // the first visit is no loop
    assert!(!follow(&gateway, "/app?x=1", BROWSER).text().contains(LOST));
    sign_in(&gateway, BROWSER, "/app?x=1");
    let page = follow(&gateway, "/app?x=1", BROWSER);
    assert_eq!(page.status, 200);
    assert!(page.text().contains(LOST) && page.text().contains("Allow cookies for 127.0.0.1"), "{}", page.text());
    assert!(page.text().contains("<form method=\"post\""), "one can try again");
    // another browser, another place
    let other = [("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html"), ("User-Agent", "another")];
    assert!(!follow(&gateway, "/app?x=1", &other).text().contains(LOST));
    assert!(!follow(&gateway, "/other", BROWSER).text().contains(LOST));
    // the cookie comes back and is not ours: clocks or keys differ
    let page = follow(&gateway, "/app?x=1", &with(&[("Cookie", "authgate=a.b.c")]));
    assert!(
        page.text().contains(LOST) && page.text().contains("the clocks of this site&#39;s servers differ"),
        "{}",
        page.text()
    );
    assert!(gateway.into_log().contains("session cookie missing or invalid after sign-in"));
}

#[test]
fn who_signs_in_and_out_and_in_again_is_in_no_loop() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let cookie = sign_in(&gateway, BROWSER, "/app").session_cookie();
    assert_eq!(gateway.client().get("/app", &[("Cookie", &cookie)]).status, 200);
    let signed_out = gateway.client().post_form("/.auth/logout", &[("Cookie", &cookie)], "");
    assert_eq!(signed_out.status, 303);
    let page = follow(&gateway, "/app", BROWSER);
    assert!(page.status == 200 && !page.text().contains(LOST), "{}", page.text());
    // signed out at once, without a look at the app
    let cookie = sign_in(&gateway, BROWSER, "/app").session_cookie();
    gateway.client().post_form("/.auth/logout", &[("Cookie", &cookie)], "");
    assert!(!follow(&gateway, "/app", BROWSER).text().contains(LOST));
    // a wrong password is no sign-in
    let wrong = gateway.client().post_form("/.auth/login", BROWSER, "email=ada%40example.com&password=wrong");
    assert!(matches!(wrong.status, 303 | 401));
    assert!(!wrong.text().contains(LOST));
}

#[test]
fn a_secure_cookie_over_http_is_named_as_the_cause() {
    let gateway = Gateway::start(
        "public_url = \"https://app.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let told = [("Host", "app.example.com"), ("X-Forwarded-Proto", "https")];
    let fields = [BROWSER, &told].concat();
    let body = serde_json::json!({ "email": "ada@example.com", "password": PASSWORD });
    gateway.client().post_json(gateway.invite.as_deref().unwrap(), &told, &body);
    sign_in(&gateway, &fields, "/app");
    let page = follow(&gateway, "/app", &fields);
    assert!(page.text().contains("The cookie is only sent over https."), "{}", page.text());
    assert!(page.text().contains("open https://app.example.com instead"));
    // over https browsers say more
    let page = follow(&gateway, "/app", &[fields.as_slice(), &[("Sec-Fetch-Site", "same-origin")]].concat());
    assert!(page.text().contains("Allow cookies for app.example.com"), "{}", page.text());
    // a form from the http page of a host that we take for https
    let form = [fields.as_slice(), &[("Origin", "http://app.example.com")]].concat();
    let refused = gateway.client().post_form("/.auth/login", &form, "email=ada%40example.com&password=x");
    assert_eq!(refused.status, 403);
    assert!(
        refused
            .text()
            .contains("This page was opened at http://app.example.com, but the gateway sees https://app.example.com.")
    );
    let foreign = [fields.as_slice(), &[("Origin", "https://evil.test")]].concat();
    let refused = gateway.client().post_form("/.auth/login", &foreign, "email=ada%40example.com&password=x");
    assert!(refused.status == 403);
    assert!(refused.text().contains("This form was submitted from another site"));
}

#[test]
fn a_host_outside_the_shared_domain_gets_the_cause_and_no_redirect() {
    let gateway = Gateway::start(
        "public_url = \"https://login.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]\n[session]\ndomain = \"example.com\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    let ask = |host: &'static str| gateway.client().get("/x", &with(&[("Host", host), ("X-Forwarded-Proto", "https")]));
    let refused = ask("app.example.org");
    assert_eq!((refused.status, refused.field("location")), (401, None));
    assert!(
        refused.text().contains("Sessions are shared across example.com, and app.example.org is outside it."),
        "{}",
        refused.text()
    );
    assert!(refused.text().contains(refused.field("x-request-id").unwrap()));
    let sent = ask("app.example.com");
    assert_eq!(sent.status, 303);
    assert!(
        sent.field("location")
            .unwrap()
            .starts_with("https://login.example.com/.auth/login?callbackUrl=https://app.example.com/x")
    );
}

/// The same browser, a window that was opened later: its address bar leads here, no page of ours.
#[test]
fn a_fresh_window_after_an_interrupted_sign_in_is_shown_no_lost_cookie() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let agent = ("User-Agent", "Mozilla/5.0 Test");
    let login = format!("http://{}/.auth/login?callbackUrl=%2Fapp", gateway.host());
    let (elsewhere, host) = ("http://127.0.0.1.example.com/".to_owned(), gateway.host());
    for (fields, lost) in [
        (vec![("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")], false),
        (vec![("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")], false),
        (vec![], false),
        (vec![("Referer", elsewhere.as_str())], false),
        (vec![("Referer", login.as_str())], true),
        (vec![("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "navigate")], true),
    ] {
        sign_in(&gateway, BROWSER, "/app");
        let fields = [&[("Accept", "text/html"), agent, ("Host", host.as_str())][..], &fields].concat();
        let page = gateway.client().get("/.auth/login?callbackUrl=%2Fapp", &fields);
        assert_eq!((page.status, page.text().contains(LOST)), (200, lost), "{fields:?}");
    }
}

//! A form that failed: a browser is led to its page by 303, which says why, once. Answering the form itself with the page
//! makes Back and reload ask whether to send it again. Whoever is no browser gets the status.

use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD};

const ROUTES: &str =
    "[sign_up]\nmode = \"open\"\n[throttle]\nmax_retries = 50\n[[route]]\nupstream = \"builtin:whoami\"\n";

/// Sends a form as browsers do.
fn send(gateway: &Gateway, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Answer {
    let origin = format!("http://{}", gateway.host());
    let browser = [("Sec-Fetch-Mode", "navigate"), ("Origin", origin.as_str()), ("Cookie", cookie)];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    gateway.client().post_form(path, &browser, &body)
}

/// Opens the page that an answer leads to, with the cookie that it set.
fn follow(gateway: &Gateway, answer: &Answer, cookie: &str) -> Answer {
    assert_eq!(answer.status, 303, "{}", answer.text());
    let own = answer.all("set-cookie").first().map_or("", |line| line.split(';').next().unwrap()).to_owned();
    let fields = [("Sec-Fetch-Mode", "navigate"), ("Cookie", &*format!("{cookie}; {own}"))];
    gateway.client().get(answer.field("location").unwrap(), &fields)
}

#[test]
fn a_failed_sign_in_leads_a_browser_to_the_page_which_says_why_once_and_in_that_browser_alone() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 3\n[[route]]\nupstream = \"builtin:whoami\"\n");
    gateway.first_account();
    let origin = format!("http://{}", gateway.host());
    let navigation = [("Sec-Fetch-Mode", "navigate"), ("Origin", origin.as_str())];
    let form = "email=ada%2Bx%40example.com&password=wrong&remember_shown=1&callbackUrl=%2Fapp%3Fa%3Db";
    for (attempt, told) in
        ["Incorrect e-mail", "Incorrect e-mail", "Incorrect e-mail", "Too many attempts"].iter().enumerate()
    {
        let sent = gateway.client().post_form("/.auth/login", &navigation, form);
        assert_eq!(
            (sent.status, sent.field("location")),
            (303, Some("/.auth/login?callbackUrl=/app?a=b")),
            "{attempt}"
        );
        let line = sent.all("set-cookie")[0];
        assert!(line.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=60"), "{line}");
        let cookie = line.split(';').next().unwrap();
        let get = |cookie: &str| {
            let fields = [("Sec-Fetch-Mode", "navigate"), ("Cookie", cookie)];
            gateway.client().get("/.auth/login?callbackUrl=/app?a=b", &fields)
        };
        let page = get(cookie);
        assert_eq!(page.status, 200);
        for part in [*told, "value=\"ada+x@example.com\"", "value=\"/app?a=b\""] {
            assert!(page.text().contains(part), "{part}: {}", page.text());
        }
        // "Stay signed in" was not ticked
        assert!(!page.text().contains("checked"), "{}", page.text());
        assert_eq!(page.all("set-cookie"), ["authgate-flash=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0"]);
        // without the cookie, as on reload or in another browser, it says nothing
        let again = get("a=1");
        assert!(!again.text().contains(told) && !again.text().contains("ada"), "{}", again.text());
    }
    for value in ["", "AA", "bm8", &"A".repeat(3000)] {
        let page = gateway.client().get("/.auth/login", &[("Cookie", &format!("authgate-flash={value}"))]);
        assert_eq!((page.status, page.text().contains("role=\"alert\"")), (200, false), "{value}");
    }
    let markup = "email=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E&password=wrong";
    let sent = gateway.client().post_form("/.auth/login", &navigation, markup);
    let page = follow(&gateway, &sent, "a=1");
    assert!(page.text().contains("role=\"alert\"") && !page.text().contains("<script>alert"), "{}", page.text());
    // programs get the status, as before
    assert_eq!(gateway.client().post_form("/.auth/login", &[], form).status, 429);
}

/// An app on the host, or a host beside it, can plant a cookie of that name: it would have the login page say what it likes.
#[test]
fn what_the_gateway_did_not_write_says_nothing_on_its_pages() {
    let gateway = Gateway::start("[authjs]\nbase_path = \"/api/auth\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    gateway.first_account();
    let origin = format!("http://{}", gateway.host());
    let navigation = [("Sec-Fetch-Mode", "navigate"), ("Origin", origin.as_str())];
    let form = "email=ada%40example.com&password=wrong&callbackUrl=%2F";
    let sent = gateway.client().post_form("/.auth/login", &navigation, form);
    let written = sent.all("set-cookie")[0].split(';').next().unwrap().to_owned();
    let (value, seal) = written.strip_prefix("authgate-flash=").unwrap().split_once('.').unwrap();
    let says = |value: &str| {
        let page = gateway.client().get("/.auth/login", &[("Cookie", &format!("authgate-flash={value}"))]);
        assert_eq!(page.status, 200, "{value}");
        page.text().contains("role=\"alert\"")
    };
    assert!(says(&format!("{value}.{seal}")), "as it was written");
    let elsewhere = [("Host", "b.example.com"), ("Cookie", &*written)];
    let elsewhere = gateway.client().get("/.auth/login", &elsewhere);
    assert_eq!((elsewhere.status, elsewhere.text().contains("role=\"alert\"")), (200, false), "on another host");
    let forged = br#"{"form":["login",""],"error":"Call +1 555 0100 to unlock","field":"","typed":[]}"#;
    let forged = data_encoding::BASE64URL_NOPAD.encode(forged);
    let csrf = gateway.client().get("/api/auth/csrf", &[]);
    let (_, other_seal) = csrf.all("set-cookie")[0].split(';').next().unwrap().rsplit_once('.').unwrap();
    for value in [
        value.to_owned(),
        format!("{value}."),
        format!("{forged}.{seal}"),
        format!("{forged}.{other_seal}"),
        forged.clone(),
        format!("{value}.{}", &seal[1..]),
        format!("{value}.{seal}.x"),
    ] {
        assert!(!says(&value), "{value}");
    }
}

#[test]
fn each_of_our_forms_that_fails_leads_a_browser_to_its_page_with_what_was_typed() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    let link =
        |told: &str| format!("/.auth/{}", told.split("/.auth/").nth(1).unwrap().split_whitespace().next().unwrap());
    let invite = link(&gateway.cli(&["invite"]));
    let reset = link(&gateway.cli(&["user", "reset", "ada@example.com"]));
    let (signup, account) = ("/.auth/signup", "/.auth/account");
    let own = |name: &str| format!("{account}/{name}");
    let short = [("email", "bob@example.com"), ("name", "Bob"), ("password", "sh0rt"), ("callbackUrl", "/app?x=1")];
    let profile = [("name", "Ada L."), ("picture", "ftp://example.com/a.png")];
    let password = [("current_password", "wrong and secret"), ("password", "another quite long sentence")];
    let token = [("token_name", "backup"), ("scopes", "GET /a\nGET"), ("days", "7"), ("current_password", PASSWORD)];
    for (path, fields, page, parts) in [
        (
            signup,
            &short[..],
            format!("{signup}?callbackUrl=/app?x=1"),
            &["value=\"Bob\"", "value=\"/app?x=1\"", "id=\"error\""][..],
        ),
        (&invite, &short, format!("{invite}?callbackUrl=/app?x=1"), &["value=\"bob@example.com\"", "invited"]),
        (&reset, &short[2..3], reset.clone(), &["value=\"ada@example.com\"", "Save password"]),
        (&own("profile"), &profile, account.to_owned(), &["value=\"Ada L.\"", "value=\"ftp://example.com/a.png\""]),
        (&own("password"), &password, account.to_owned(), &["id=\"current\"", "aria-invalid"]),
        (&own("tokens"), &token, account.to_owned(), &["value=\"backup\"", "GET /a\nGET<", "value=\"7\""]),
    ] {
        let sent = send(&gateway, path, &cookie, fields);
        assert_eq!((sent.status, sent.field("location")), (303, Some(page.as_str())), "{path}: {}", sent.text());
        let shown = follow(&gateway, &sent, &cookie);
        let text = shown.text();
        assert_eq!((shown.status, text.matches("role=\"alert\"").count()), (200, 1), "{path}: {text}");
        for part in parts {
            assert!(text.contains(part), "{path}: no {part} in {text}");
        }
        for (name, secret) in fields.iter().filter(|(name, _)| name.ends_with("password")) {
            assert!(!text.contains(secret), "{path}: {name}");
        }
        let taken = "authgate-flash=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0";
        assert!(shown.all("set-cookie").contains(&taken), "{path}: {:?}", shown.all("set-cookie"));
        // what is no navigation is answered itself
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let by_script = gateway.client().post_form(path, &[("Cookie", &cookie), ("Sec-Fetch-Mode", "cors")], &body);
        assert_eq!((by_script.status, by_script.all("set-cookie").len()), (400, 0), "{path}");
        assert!(by_script.text().contains("role=\"alert\""), "{path}");
        let json =
            serde_json::Value::Object(fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
        assert_eq!(gateway.client().post_json(path, &[("Cookie", &cookie)], &json).status, 400, "{path}");
    }
}

/// Over plain http of a host name browsers send no fetch metadata.
#[test]
fn a_browser_is_known_by_its_navigation_and_a_program_is_none() {
    let gateway = Gateway::start(ROUTES);
    let (metadata, html, upgrade) =
        (("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html,*/*;q=0.8"), ("Upgrade-Insecure-Requests", "1"));
    let script = ("Sec-Fetch-Mode", "cors");
    for (fields, status) in [
        (&[metadata][..], 303),
        (&[html, upgrade], 303),
        (&[html], 400),
        (&[upgrade], 400),
        (&[html, upgrade, script], 400),
        (&[html, upgrade, ("X-Requested-With", "XMLHttpRequest")], 400),
        (&[], 400),
    ] {
        let form = "email=bob%40example.com&password=sh0rt";
        assert_eq!(gateway.client().post_form("/.auth/signup", fields, form).status, status, "{fields:?}");
    }
}

#[test]
fn what_one_account_typed_is_not_shown_to_another_at_the_same_browser_nor_by_another_form() {
    let gateway = Gateway::start(ROUTES);
    let ada = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let sent = send(&gateway, "/.auth/account/profile", &ada, &[("name", "Ada L."), ("picture", "ftp://a")]);
    assert!(follow(&gateway, &sent, &ada).text().contains("Ada L."));
    let shown = follow(&gateway, &sent, &bob);
    assert!(shown.text().contains("bob@example.com") && !shown.text().contains("Ada L."), "{}", shown.text());
    let own = sent.all("set-cookie")[0].split(';').next().unwrap();
    for path in ["/.auth/login", "/.auth/signup"] {
        let page = gateway.client().get(path, &[("Cookie", own), ("Accept", "text/html")]);
        assert_eq!((page.status, page.text().contains("role=\"alert\"")), (200, false), "{path}");
    }
}

#[test]
fn more_than_a_cookie_takes_is_on_the_page_that_answers_the_form() {
    let gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    let picture = format!("ftp://example.com/{}", "a".repeat(1800));
    let sent = send(&gateway, "/.auth/account/profile", &cookie, &[("name", "Ada L."), ("picture", &picture)]);
    assert_eq!((sent.status, sent.all("set-cookie").len()), (400, 0));
    assert!(sent.text().contains(&picture));
    assert!(sent.text().contains("role=\"alert\""));
}

/// Also where nothing is left that could be done again.
#[test]
fn a_form_that_has_no_page_any_more_leads_a_browser_to_the_page_that_says_so() {
    let mut gateway = Gateway::start(ROUTES);
    let cookie = gateway.first_account();
    let used = gateway.invite.clone().unwrap();
    let account = [("email", "bob@example.com"), ("password", PASSWORD)];
    let dead = send(&gateway, &used, "a=1", &account);
    assert_eq!(dead.field("location"), Some(used.as_str()));
    let page = follow(&gateway, &dead, "a=1");
    assert!(page.status == 404 && page.text().contains("This link is not valid"), "{}", page.text());
    for (path, field, said) in
        [("sessions", "id", "That session was signed out."), ("tokens", "revoke", "That token was revoked.")]
    {
        let gone = send(&gateway, &format!("/.auth/account/{path}"), &cookie, &[(field, "none")]);
        let page = follow(&gateway, &gone, &cookie);
        assert!(page.status == 200 && page.text().contains(said), "{path}: {}", page.text());
        let fields = [("Cookie", cookie.as_str())];
        let program = gateway.client().post_form(&format!("/.auth/account/{path}"), &fields, &format!("{field}=none"));
        assert_eq!(program.status, 404, "{path}");
    }
    gateway.reload(&ROUTES.replace("open", "closed"));
    let closed = send(&gateway, "/.auth/signup", "a=1", &account);
    assert_eq!(closed.field("location"), Some("/.auth/signup"));
    assert_eq!(follow(&gateway, &closed, "a=1").status, 403);
}

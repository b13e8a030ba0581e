//! E: signing in and up. Not here: E16 to E20, since there is no sign-in through other providers yet.

use serde_json::{Value, json};

use super::still_serves;
use crate::client::Answer;
use crate::gateway::{Gateway, PASSWORD};

const FORM: &str = "email=ada%40example.com&password=correct+horse+battery+staple";

fn open() -> Gateway {
    Gateway::start(
        "[sign_up]\nmode = \"open\"\n[throttle]\nmax_retries = 100\n[pages]\ncallback_origins = [\"https://other.example.org\"]\n[[route]]\nupstream = \"builtin:whoami\"\n",
    )
}

/// One whose sign-ups count.
struct SignUp(Gateway);

impl SignUp {
    fn start() -> Self {
        let gateway = open();
        gateway.first_account();
        Self(gateway)
    }

    fn post(&self, email: &str, password: &str, name: &str) -> Answer {
        let body = json!({ "email": email, "password": password, "name": name });
        self.0.client().post_json("/.auth/signup", &[], &body)
    }

    /// Refused for the sake of this field.
    fn refuses(&self, email: &str, password: &str, name: &str, field: &str) {
        let answer = self.post(email, password, name);
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!(field)), "{email} {password} {name}");
    }

    /// Made, and good for signing in.
    fn takes(&self, email: &str, password: &str) {
        assert_eq!(self.post(email, password, "X").status, 201, "{password}");
        assert_eq!(self.0.login(email, password).status, 200, "{password}");
    }
}

/// OWASP ASVS 6.3.8.
#[test]
fn e1_unknown_wrong_disabled_and_passwordless_accounts_are_answered_alike() {
    let gateway = open();
    gateway.first_account();
    gateway.add_user("off@example.com", &[]);
    gateway.cli(&["user", "disable", "off@example.com"]);
    gateway.cli(&["user", "add", "invited@example.com"]);
    let same = |answer: &Answer| {
        let fields: Vec<_> = answer
            .fields
            .iter()
            .filter(|(name, _)| !matches!(name.to_lowercase().as_str(), "date" | "x-request-id"))
            .cloned()
            .collect();
        (answer.status, fields, answer.text())
    };
    let wrong = gateway.login("ada@example.com", "wrong wrong wrong wrong");
    assert_eq!((wrong.status, wrong.json()), (401, json!({ "error": "credentials" })));
    for email in ["nobody@example.com", "off@example.com", "invited@example.com", "no e-mail", ""] {
        let password = if email.starts_with("off") { PASSWORD } else { "wrong wrong wrong wrong" };
        assert_eq!(same(&gateway.login(email, password)), same(&wrong), "{email}");
    }
    let page = |email: &str| {
        gateway.client().post_form("/.auth/login", &[("Accept", "text/html")], &format!("email={email}&password=wrong"))
    };
    let (known, unknown) = (page("ada@example.com"), page("eve@example.com"));
    assert_eq!(known.status, 401);
    assert_eq!(known.text().replace("ada@", "eve@"), unknown.text());
    assert!(known.text().contains("role=\"alert\""));
    assert!(!known.text().contains("wrong"));
    still_serves(&gateway);
}

/// OWASP ASVS 6.1.1, NIST SP 800-63B-4; the account counted under its one name: CVE-2025-24806, CVE-2026-47203.
#[test]
fn e2_tries_are_counted_per_account_known_or_not_in_every_spelling_and_survive_a_restart() {
    let gateway =
        Gateway::start("[throttle]\nmax_retries = 3\nban_time = \"30s\"\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let live = gateway.first_account();
    for email in ["ada@example.com", "nobody@example.com"] {
        for spelling in [email.to_owned(), email.to_uppercase(), format!(" {email}")] {
            assert_eq!(gateway.login(&spelling, "wrong wrong wrong").status, 401);
        }
        let banned = gateway.login(email, PASSWORD);
        assert_eq!((banned.status, banned.json()), (429, json!({ "error": "throttled" })), "{email}");
        let wait: u64 = banned.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
    }
    assert_eq!(gateway.client().get("/x", &[("Cookie", &live)]).status, 200);
    let gateway = gateway.kill_and_restart();
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 429);
    gateway.cli(&["ban", "lift", "ada@example.com"]);
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 200);
    still_serves(&gateway);
}

/// CVE-2025-24806, CVE-2026-47203: one account, however it is typed; the compatibility forms of Unicode are others.
#[test]
fn e3_an_address_in_another_spelling_is_the_same_account() {
    let on = SignUp::start();
    on.takes("bea@example.com", PASSWORD);
    for spelling in ["BEA@EXAMPLE.COM", " bea@example.com", "bea@example.com ", "Bea@Example.Com"] {
        assert_eq!(on.post(spelling, "another long sentence here", "X").status, 201, "{spelling}");
        assert_eq!(on.0.login(spelling, "another long sentence here").status, 401, "{spelling}");
        assert_eq!(on.0.login(spelling, PASSWORD).status, 200, "{spelling}");
    }
    let users: Value = serde_json::from_str(&on.0.cli(&["user", "list", "--json"])).unwrap();
    assert_eq!(users.as_array().unwrap().len(), 2);
    for other in ["\u{ff42}ea@example.com", "bea@ex\u{3131}mple.com", "bea@example\u{3002}com"] {
        assert_eq!(on.0.login(other, "another long sentence here").status, 401, "{other}");
    }
    still_serves(&on.0);
}

/// OWASP ASVS 6.1.1.
#[test]
fn e4_no_one_can_lock_out_a_browser_that_has_signed_in_before() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 2\n[[route]]\nupstream = \"builtin:whoami\"\n");
    gateway.first_account();
    let known = gateway.login("ada@example.com", PASSWORD);
    let device = known.all("set-cookie").into_iter().find(|cookie| cookie.starts_with("authgate-device=")).unwrap();
    let device = device.split(';').next().unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(gateway.login("ada@example.com", "wrong wrong wrong").status, 401);
    }
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 429);
    let body = |password: &str| json!({ "email": "ada@example.com", "password": password });
    let mut tries = vec![PASSWORD, "wrong wrong wrong", "wrong wrong wrong", PASSWORD]
        .into_iter()
        .map(|password| gateway.client().post_json("/.auth/login", &[("Cookie", &device)], &body(password)).status);
    assert_eq!((tries.next(), tries.next(), tries.next(), tries.next()), (Some(200), Some(401), Some(401), Some(429)));
    let forged = gateway.client().post_json("/.auth/login", &[("Cookie", "authgate-device=x")], &body(PASSWORD));
    assert_eq!(forged.status, 429);
    // docs/security.md: a new browser comes in by a reset link while others guess, and is a known one from then on
    let link = gateway.cli(&["user", "reset", "ada@example.com"]);
    let link = &link[link.find("/.auth/reset/").unwrap()..].trim_end();
    let reset = gateway.client().post_json(link, &[], &json!({ "password": PASSWORD }));
    assert_eq!(reset.status, 200, "{reset:?}");
    let device = reset.all("set-cookie").into_iter().find(|cookie| cookie.starts_with("authgate-device=")).unwrap();
    let device = device.split(';').next().unwrap();
    assert_eq!(gateway.login("ada@example.com", PASSWORD).status, 429);
    assert_eq!(gateway.client().post_json("/.auth/login", &[("Cookie", device)], &body(PASSWORD)).status, 200);
    still_serves(&gateway);
}

/// OWASP ASVS 6.3.8.
#[test]
fn e5_signing_up_with_a_taken_address_is_answered_as_with_a_new_one() {
    let on = SignUp::start();
    let (new, taken) = (on.post("bea@example.com", PASSWORD, "X"), on.post("ada@example.com", PASSWORD, "X"));
    for answer in [&new, &taken] {
        assert_eq!((answer.status, answer.text(), answer.all("set-cookie").len()), (201, new.text(), 0));
    }
    assert_eq!(on.0.login("bea@example.com", PASSWORD).status, 200);
    still_serves(&on.0);
}

/// oauth2-proxy CVE-2026-40574, caddy-security CVE-2024-21499.
#[test]
fn e6_an_address_with_two_ats_and_a_name_with_a_line_end_are_refused() {
    let on = SignUp::start();
    for email in ["a@evil.test@example.com", "nobody", "@example.com", "a@", "a b@example.com", "a@example.com\r\nX: y"]
    {
        on.refuses(email, PASSWORD, "X", "email");
    }
    for name in ["Zoe\r\nX-Role: admin", "Zoe\u{0}", "Zoe\u{1b}[31m"] {
        on.refuses("c@example.com", PASSWORD, name, "name");
    }
    on.takes("c@example.com", PASSWORD);
    still_serves(&on.0);
}

/// OWASP ASVS 6.2.1 and 6.2.9, NIST SP 800-63B-4: characters are counted, not bytes, and the limit comes before the work.
#[test]
fn e7_a_password_has_fifteen_characters_to_two_hundred_and_fifty_six() {
    let on = SignUp::start();
    on.refuses("c@example.com", "fourteen chars", "X", "password");
    on.refuses("c@example.com", &"é".repeat(257), "X", "password");
    on.refuses("c@example.com", "🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀🦀", "X", "password");
    let long: String = "éàüñçøßåîōşțłğĉžêùïõ".chars().cycle().take(256).collect();
    for password in ["exactly 15 char", &long, "🦀🐙🐠🐳🦑🦐🐟🐬🦈🐚🐌🦞🐡🐊🐋"] {
        on.takes(&format!("p{}@example.com", password.len()), password);
    }
    still_serves(&on.0);
}

/// OWASP ASVS 6.2.4 and 6.2.11.
#[test]
fn e8_a_common_password_or_one_with_the_own_name_in_it_is_refused() {
    let on = SignUp::start();
    on.refuses("charlotte@example.com", "charlotte is a fine name", "X", "password");
    on.refuses("c@example.com", "passwordpassword", "X", "password");
    on.refuses("c@example.com", "qwertyuiopasdfghjkl", "X", "password");
    on.takes("c@example.com", "charlotte is a fine name");
    still_serves(&on.0);
}

/// OWASP ASVS 6.2.8: it is taken as it was typed.
#[test]
fn e9_spaces_around_a_password_are_part_of_it() {
    let on = SignUp::start();
    on.takes("bea@example.com", "  spaces count too  ");
    assert_eq!(on.0.login("bea@example.com", "spaces count too").status, 401);
    assert_eq!(on.0.login("bea@example.com", "  Spaces count too  ").status, 401);
    still_serves(&on.0);
}

/// OWASP ASVS 3.5.1: login CSRF.
#[test]
fn e10_pages_of_ours_refuse_forms_of_other_origins() {
    let gateway = open();
    let cookie = gateway.first_account();
    for path in [
        "/.auth/login",
        "/.auth/signup",
        "/.auth/logout",
        "/.auth/account/profile",
        "/.auth/account/password",
        "/.auth/account/sessions",
    ] {
        for field in
            [("Origin", "https://evil.test"), ("Sec-Fetch-Site", "cross-site"), ("Referer", "https://evil.test/")]
        {
            let answer = gateway.client().post_form(path, &[("Cookie", &cookie), field], FORM);
            assert_eq!((answer.status, answer.all("set-cookie").len()), (403, 0), "{path} {field:?}");
        }
    }
    assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
    let own = format!("http://{}", gateway.host());
    assert_eq!(gateway.client().post_form("/.auth/login", &[("Origin", &own)], FORM).status, 303);
    still_serves(&gateway);
}

/// CWE-352: what is open to all is open to other sites' pages as well, but they speak for nobody.
#[test]
fn e25_a_foreign_page_speaks_for_no_one_on_a_public_route() {
    let gateway = Gateway::start(
        "[[route]]\npath = \"/lifted\"\naccess = \"public\"\ndanger_cross_origin = true\nupstream = \"builtin:whoami\"\n[[route]]\naccess = \"public\"\nupstream = \"builtin:whoami\"\n",
    );
    let cookie = gateway.first_account();
    let own = format!("http://{}", gateway.host());
    let ask = |line: &str, field: (&str, &str)| {
        let answer = gateway.client().request(line, &[("Cookie", &cookie), field], b"");
        (answer.status, answer.seen("remote-user").len())
    };
    for foreign in [("Origin", "https://evil.test"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site")]
    {
        assert_eq!(
            ["POST /x", "GET /x", "POST /lifted"].map(|line| ask(line, foreign)),
            [(200, 0), (200, 1), (200, 1)]
        );
    }
    assert_eq!(ask("POST /x", ("Origin", &own)), (200, 1));
    still_serves(&gateway);
}

/// OWASP ASVS 3.4.3 to 3.4.6: no frame, no foreign script.
#[test]
fn e11_every_page_carries_the_fields_that_keep_it_to_itself() {
    let gateway = open();
    let cookie = gateway.first_account();
    for path in
        ["/.auth/login", "/.auth/signup", "/.auth/logout", "/.auth/signed-out", "/.auth/account", "/.auth/nothing"]
    {
        let inside = ["/.auth/account", "/.auth/logout"].contains(&path);
        let cookie = if inside { cookie.as_str() } else { "a=1" };
        let page = gateway.client().get(path, &[("Accept", "text/html"), ("Cookie", cookie)]);
        let policy = page.field("content-security-policy").unwrap();
        assert!(
            policy.starts_with(
                "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'"
            ),
            "{policy}"
        );
        assert!(policy.ends_with("base-uri 'none'; frame-ancestors 'none'"), "{policy}");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", if path.ends_with("login") { "same-origin" } else { "strict-origin" }),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(page.field(name), Some(value), "{path}");
        }
        // error pages may answer in an app's place, where it would cut Back off from what was typed
        let isolated = if path.ends_with("nothing") { None } else { Some("same-origin") };
        assert_eq!(page.field("cross-origin-opener-policy"), isolated, "{path}");
        let handlers = ["onclick=", "onsubmit=", "onload=", "style=", "<style", "<script>", "javascript:"];
        assert!(handlers.iter().all(|inline| !page.text().contains(inline)), "{path}");
    }
    still_serves(&gateway);
}

fn place(gateway: &Gateway, wanted: &str) -> Value {
    let body = json!({ "email": "ada@example.com", "password": PASSWORD, "callbackUrl": wanted });
    gateway.client().post_json("/.auth/login", &[], &body).json()["callbackUrl"].clone()
}

/// oauth2-proxy GHSA-qqxw-m5fj-f7gv, GHSA-4mf2-f3wh-gvf2, OWASP ASVS 3.7.2; many more in `web::return_to`.
#[test]
fn e12_no_one_is_sent_to_another_origin_after_signing_in() {
    let gateway = open();
    gateway.first_account();
    for evil in
        ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", "https:evil.test", "/\t/evil.test"]
    {
        assert_eq!(place(&gateway, evil), "/", "{evil}");
        let form = format!("{FORM}&callbackUrl={}", form_urlencoded(evil));
        let form = gateway.client().post_form("/.auth/login", &[], &form);
        assert_eq!((form.status, form.field("location")), (303, Some("/")), "{evil}");
    }
    assert_eq!(place(&gateway, "/x?a=b#c"), "/x?a=b#c");
    still_serves(&gateway);
}

fn form_urlencoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// oauth2-proxy GHSA-4mf2-f3wh-gvf2: origins are compared whole.
#[test]
fn e13_a_second_origin_is_exactly_the_one_that_is_configured() {
    let gateway = open();
    gateway.first_account();
    for evil in [
        "https://other.example.org.evil.test/",
        "https://other.example.org@evil.test/",
        "https://evil.test/https://other.example.org/",
        "http://other.example.org/",
        "https://other.example.org:8443/",
        "https://sub.other.example.org/",
    ] {
        assert_eq!(place(&gateway, evil), "/", "{evil}");
    }
    assert_eq!(place(&gateway, "https://other.example.org/x?y"), "https://other.example.org/x?y");
    still_serves(&gateway);
}

/// A place to return to that signs out, or in again, is none.
#[test]
fn e14_no_one_is_sent_back_to_a_page_that_acts() {
    let gateway = open();
    let cookie = gateway.first_account();
    for own in ["/.auth/logout", "/.auth/login", "/.auth/login?callbackUrl=/.auth/login", "/x/../.auth/logout"] {
        assert_eq!(place(&gateway, own), "/", "{own}");
    }
    assert_eq!(place(&gateway, "/.auth/account"), "/.auth/account");
    let on = gateway
        .client()
        .get("/.auth/login?callbackUrl=%2F.auth%2Flogin", &[("Cookie", &cookie), ("Accept", "text/html")]);
    assert_eq!((on.status, on.field("location")), (303, Some("/")));
    assert_eq!(gateway.client().get("/x", &[("Cookie", &cookie)]).status, 200);
    still_serves(&gateway);
}

/// caddy-security CVE-2024-21496.
#[test]
fn e15_what_is_in_the_address_is_text_on_the_page() {
    let gateway = open();
    gateway.first_account();
    for (name, value) in [
        ("callbackUrl", "/%22%3E%3Cscript%3Ealert(1)%3C/script%3E"),
        ("rd", "/%22%20autofocus%20onfocus=alert(1)%20x=%22"),
        ("error", "%3Cimg%20src=x%20onerror=alert(1)%3E"),
        ("email", "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"),
    ] {
        let page = gateway.client().get(&format!("/.auth/login?{name}={value}"), &[("Accept", "text/html")]);
        assert_eq!(page.status, 200);
        for raw in ["<script>alert", "\" autofocus onfocus", "<img src=x"] {
            assert!(!page.text().contains(raw), "{name}: {}", page.text());
        }
    }
    let typed = "email=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E&password=x";
    let page = gateway.client().post_form("/.auth/login", &[("Accept", "text/html")], typed);
    assert_eq!(page.status, 401);
    assert!(!page.text().contains("<script>alert") && page.text().contains("&#60;script&#62;alert"), "{}", page.text());
    still_serves(&gateway);
}

/// OWASP ASVS 7.2.4: signing in ends the session that the browser had.
#[test]
fn e21_another_users_sign_in_ends_the_session_that_was_there() {
    let gateway = open();
    let ada = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let body = json!({ "email": "bob@example.com", "password": PASSWORD });
    let bob = gateway.client().post_json("/.auth/login", &[("Cookie", &ada)], &body).session_cookie();
    assert_eq!(gateway.client().get("/x", &[("Cookie", &ada)]).status, 401);
    let seen = gateway.client().get("/x", &[("Cookie", &bob)]);
    assert_eq!(seen.seen("remote-user"), ["bob@example.com"]);
    // one that ended beside one that is valid is no contradiction; two valid ones are nobody, not one of the two
    let asks = |cookies: &str| gateway.client().get("/x", &[("Cookie", cookies)]).status;
    assert_eq!(asks(&format!("{ada}; {bob}")), 200);
    let ada = gateway.sign_in("ada@example.com");
    assert_eq!((asks(&format!("{ada}; {bob}")), asks(&format!("{bob}; {ada}")), asks(&ada)), (401, 401, 200));
    still_serves(&gateway);
}

/// What is no navigation is never redirected: oauth2-proxy's api-routes, every gateway's most frequent complaint.
#[test]
fn e22_a_script_or_a_socket_without_a_session_gets_401_and_no_redirect() {
    let gateway = open();
    let cookie = gateway.first_account();
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    for fields in [
        &[("Accept", "application/json")][..],
        &[("Sec-Fetch-Mode", "cors")],
        &[("Accept", "text/event-stream")],
        &upgrade,
    ] {
        let refused = gateway.client().get("/x", fields);
        assert_eq!((refused.status, refused.field("location")), (401, None), "{fields:?}");
        let status = gateway.client().get("/x", &[fields, &[("Cookie", cookie.as_str())]].concat()).status;
        assert!([200, 101].contains(&status), "{fields:?}: {status}");
    }
    still_serves(&gateway);
}

/// Go 1.25's `CrossOriginProtection`: whoever sends none of the three is no browser.
#[test]
fn e23_a_sign_in_without_a_word_on_where_it_comes_from_is_served_and_a_foreign_one_is_not() {
    let gateway = open();
    gateway.first_account();
    let own = format!("http://{}", gateway.host());
    let own_page = format!("{own}/.auth/login");
    for (fields, status) in [
        (&[][..], 303),
        (&[("Sec-Fetch-Site", "same-origin")], 303),
        (&[("Sec-Fetch-Site", "none")], 303),
        (&[("Origin", own.as_str())], 303),
        (&[("Referer", own_page.as_str())], 303),
        (&[("Sec-Fetch-Site", "same-site")], 403),
        (&[("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Origin", "null")], 403),
        (&[("Origin", "https://evil.test")], 403),
        (&[("Referer", "https://evil.test/.auth/login")], 403),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", own.as_str())], 403),
    ] {
        let answer = gateway.client().post_form("/.auth/login", fields, FORM);
        assert_eq!((answer.status, answer.all("set-cookie").is_empty()), (status, status == 403), "{fields:?}");
    }
    still_serves(&gateway);
}

/// OWASP ASVS 2.4.1, 6.3.1: a script that makes accounts. An address (IPv6 by /64) gets twenty times `max_retries`.
#[test]
fn e24_a_client_that_makes_many_accounts_waits_and_no_one_else_does() {
    let gateway = Gateway::start(
        "trusted_proxies = [\"127.0.0.1\"]\n[sign_up]\nmode = \"open\"\n[throttle]\nmax_retries = 1\nban_time = \"90s\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
    );
    gateway.first_account();
    let form = |n: u8| format!("email=u{n}%40example.com&name=X&password=correct+horse+battery+staple");
    let post = |from: &str, n: u8| {
        gateway.client().post_form("/.auth/signup", &[("X-Forwarded-For", from), ("Accept", "text/html")], &form(n))
    };
    for n in 0..20 {
        assert_eq!(post(&format!("2001:db8::{n}"), n).status, 303, "{n}");
    }
    let refused = post("2001:db8::9", 99);
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    // an hour has room for twenty
    assert!((120..=180).contains(&wait), "{wait}");
    let page = refused.text();
    assert!(page.contains("Too many attempts. Wait 3 minutes, then try again."), "{page}");
    assert!(page.contains("value=\"u99@example.com\""), "what was typed stays: {page}");
    let body = json!({ "email": "u99@example.com", "password": PASSWORD });
    let program = gateway.client().post_json("/.auth/signup", &[("X-Forwarded-For", "2001:db8::9")], &body);
    assert_eq!((program.status, program.json()), (429, json!({ "error": "throttled" })));
    assert!(program.field("retry-after").is_some());
    // made before, from the same address; somebody else's address; and once it is lifted
    let body = json!({ "email": "u0@example.com", "password": PASSWORD });
    let sign_in = gateway.client().post_json("/.auth/login", &[("X-Forwarded-For", "2001:db8::9")], &body);
    assert_eq!(sign_in.status, 200);
    assert_eq!(post("2001:db8:0:1::1", 100).status, 303);
    gateway.cli(&["ban", "lift", "2001:db8::9"]);
    assert_eq!(post("2001:db8::9", 99).status, 303);
    still_serves(&gateway);
}

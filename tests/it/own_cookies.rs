//! Several gateways, and others, at one browser: cookies know no ports, and those of a parent domain come along.

use crate::backend::Backend;
use crate::gateway::{Gateway, PASSWORD};
use crate::known_attacks::{both_ways, mirror};
use serde_json::json;

fn status(gateway: &Gateway, cookies: &str) -> u16 {
    gateway.client().get("/x", &[("Cookie", cookies)]).status
}

/// mod_auth_openidc 560, oauth2-proxy 2177: a cookie of the same name from a parent domain, or of any host under it.
#[test]
fn a_session_cookie_is_found_among_others_of_its_name_and_two_sessions_are_none() {
    let gateway = Gateway::whoami();
    let ada = gateway.first_account();
    let again = gateway.sign_in("ada@example.com");
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let junk = "authgate=eyJ0eXAiOiJhdXRoZ2F0ZStqd3QiLCJhbGciOiJIUzI1NiIsImtpZCI6IngifQ.e30.AAAA";
    let foreign = Gateway::whoami().first_account();
    for cookies in [
        format!("authgate=junk; {ada}"),
        format!("{ada}; authgate=junk"),
        format!("authgate=; {ada}"),
        format!("{foreign}; {ada}"),
        format!("{junk}; a=b; {ada}; {foreign}"),
        format!("{ada}; {ada}"),
        format!("{}; {ada}", vec!["authgate=junk"; 20].join("; ")),
    ] {
        assert_eq!(status(&gateway, &cookies), 200, "{cookies}");
    }
    for cookies in [
        format!("{ada}; {bob}"),
        format!("{ada}; {again}"),
        format!("{ada}; authgate=junk; {bob}"),
        format!("authgate=junk; {foreign}"),
        format!("{}; {ada}", vec!["authgate=junk"; 40].join("; ")),
    ] {
        assert_eq!(status(&gateway, &cookies), 401, "{cookies}");
    }
    // whoever is signed out in one of them is signed in with the other
    gateway.client().request("POST /.auth/logout", &[("Cookie", &bob)], b"");
    assert_eq!(status(&gateway, &format!("{ada}; {bob}")), 200);
    // lines in HTTP/1.1 as crumbs in HTTP/2
    let lines = [("Cookie", "authgate=junk"), ("Cookie", ada.as_str())];
    assert_eq!(gateway.client().get("/x", &lines).status, 200);
    assert!(gateway.client().get("/x", &lines).seen("cookie").is_empty());
}

#[test]
fn two_gateways_on_one_host_name_sign_no_one_out_of_the_other_and_keep_their_sessions_from_apps() {
    let backend = Backend::start(mirror);
    let start = |name: &str| {
        Gateway::start(&format!(
            "[session]\ncookie_name = \"{name}\"\n[authjs]\nbase_path = \"/api/auth\"\n[[route]]\nupstream = \"http://{}\"\n",
            backend.address
        ))
    };
    let (one, two) = (start("one"), start("two.b_c-1"));
    let joined = |gateway: &Gateway| {
        let body = json!({ "email": "ada@example.com", "name": "Ada", "password": PASSWORD });
        gateway.client().post_json(gateway.invite.as_ref().unwrap(), &[], &body)
    };
    let names = |cookies: Vec<&str>| -> Vec<String> {
        cookies.iter().map(|cookie| cookie.split('=').next().unwrap().to_owned()).collect()
    };
    let (first, second) = (joined(&one), joined(&two));
    assert_eq!(names(first.all("set-cookie")), ["one", "one-device"]);
    assert_eq!(names(second.all("set-cookie")), ["two.b_c-1", "two.b_c-1-device"]);
    assert_eq!(names(one.client().get("/api/auth/csrf", &[]).all("set-cookie")), ["one-csrf"]);
    let both = [first.all("set-cookie"), second.all("set-cookie")].concat();
    let both: Vec<_> = both.iter().map(|cookie| cookie.split(';').next().unwrap()).collect();
    let both = format!("{}; app=kept; authgate=default", both.join("; "));
    for gateway in [&one, &two] {
        for seen in
            both_ways(gateway, "/x", &[("Cookie", both.as_str()), ("Origin", &format!("http://{}", gateway.host()))])
        {
            assert_eq!(seen.status, 200);
            let arrived = seen.seen("cookie").concat();
            // of the other gateway's only what is no session comes along
            assert!(arrived.contains("app=kept") && !arrived.contains("eyJ"), "{arrived}");
            let own = if gateway.address == one.address { "one" } else { "two" };
            assert!(!arrived.contains(&format!("{own}-device")) && !arrived.contains("authgate"), "{arrived}");
        }
    }
    assert_eq!(one.client().get("/x", &[("Cookie", &both.replace("one=", "authgate="))]).status, 401);
    // an app cannot set it
    let out = one.client().request("POST /.auth/logout", &[("Cookie", &both)], b"");
    assert!(out.all("set-cookie").iter().any(|cookie| cookie.starts_with("one=;")), "{out:?}");
    assert_eq!([status(&one, &both), status(&two, &both)], [401, 200]);
}

#[test]
fn an_app_cannot_set_cookies_of_ours_under_their_own_name() {
    let backend = Backend::start(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: one=evil\r\nSet-Cookie: __Host-one-device=evil\r\nSet-Cookie: one-more=app\r\n\r\n")
            .is_ok()
    });
    let gateway = Gateway::start(&format!(
        "[session]\ncookie_name = \"one\"\n[[route]]\naccess = \"public\"\nupstream = \"http://{}\"\n",
        backend.address
    ));
    assert_eq!(gateway.client().get("/x", &[]).all("set-cookie"), ["one-more=app"]);
}

//! One spelling of a method from the door on (RFC 9110, 9.1: methods are case-sensitive, and apps fold them): what rules
//! are asked about is what an app may take the request for.

use std::fmt::Write as _;

use crate::backend::Backend;
use crate::gateway::{Gateway, command};
use crate::known_attacks::{both_ways, head, mirror, still_serves};
use crate::{h2, tls::Secure};

/// Members may do what is not for admins alone or closed to everybody.
fn routes(backend: &Backend) -> String {
    format!(
        "[[route]]\npath = \"/x/**\"\nmethods = [\"POST\", \"DELETE\"]\ngroups = [\"admin\"]\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/x/**\"\nmethods = [\"PATCH\"]\naccess = \"deny\"\n\
         [[route]]\nupstream = \"http://{0}\"\n",
        backend.address
    )
}

const SMALL: [&str; 9] = ["delete", "Delete", "dELETE", "get", "patch", "trace", "connect", "GETs", "m-search"];

#[test]
fn a_method_with_small_letters_is_400_and_reaches_no_app() {
    let backend = Backend::start(mirror);
    let gateway = Gateway::start(&routes(&backend));
    let admin = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    for method in SMALL {
        for cookie in ["a=b", bob.as_str(), admin.as_str()] {
            let mut client = gateway.client();
            let answer = client.request(&format!("{method} /x/7"), &[("Cookie", cookie)], b"");
            assert_eq!(answer.status, 400, "{method}");
            assert!(client.is_closed(), "{method}");
        }
        let mut client = gateway.client();
        let fields = [("Host", "a"), ("Cookie", bob.as_str()), ("Transfer-Encoding", "chunked")];
        client.send(head(&format!("{method} /x/7"), &fields).as_bytes());
        assert_eq!(client.answer().status, 400, "{method}, streamed");
    }
    assert!(backend.all().is_empty());
    let ask = |line: &str, cookie: &str| gateway.client().request(line, &[("Cookie", cookie)], b"").status;
    assert_eq!([ask("DELETE /x/7", &bob), ask("DELETE /x/7", &admin), ask("PATCH /x/7", &admin)], [403, 200, 403]);
    assert_eq!([ask("GET /x/7", &bob), ask("M-SEARCH /x/7", &bob), ask("CUSTOM_1 /x/7", &bob)], [200; 3]);
    still_serves(&gateway);
}

#[test]
fn a_method_with_small_letters_is_400_in_http2_too() {
    let backend = Backend::start(mirror);
    let secure = Secure::start(&routes(&backend));
    let admin = secure.first_account();
    h2::run(async {
        let send = secure.h2().await;
        for method in SMALL {
            let request = h2::request(&format!("{method} /x/7"), &[("cookie", &admin)]);
            assert_eq!(h2::ask(&send, request, b"").await.unwrap().status(), 400, "{method}");
        }
        assert!(backend.all().is_empty());
        for (method, status) in [("DELETE", 200), ("PATCH", 403), ("M-SEARCH", 200)] {
            let request = h2::request(&format!("{method} /x/7"), &[("cookie", &admin)]);
            assert_eq!(h2::ask(&send, request, b"").await.unwrap().status(), status, "{method}");
        }
    });
}

#[test]
fn explain_and_tests_read_small_letters_as_a_request_is_checked() {
    let backend = Backend::start(mirror);
    let mut text = routes(&backend);
    for method in SMALL {
        write!(text, "[[test]]\nrequest = \"{method} /x/7\"\nuser = {{ groups = [\"admin\"] }}\nexpect = \"400\"\n")
            .unwrap();
    }
    text += "[[test]]\nrequest = \"DELETE /x/7\"\nuser = { groups = [\"admin\"] }\nexpect = \"forward http://";
    writeln!(text, "{}\"", backend.address).unwrap();
    text += "[[test]]\nrequest = \"POST /open?_method=delete\"\nuser = { groups = [\"staff\"] }\nexpect = \"forward http://";
    writeln!(text, "{}\"", backend.address).unwrap();
    text += "[[test]]\nrequest = \"PUT /x/7?_method=delete\"\nuser = { groups = [\"staff\"] }\nexpect = \"403\"\n";
    let folder = crate::gateway::configured(&text);
    let run = |arguments: &[&str]| command(folder.path(), arguments).output().unwrap();
    let check = run(&["check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let told = run(&["explain", "dELETE", "/x/7", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["verdict"], &told["reply"]["status"]), (&"400".into(), &400.into()));
}

/// Symfony, Laravel, Spring, Slim and Express read `_method` in the query, under names that PHP and form decoders fold onto it.
#[test]
fn a_second_method_in_the_query_or_a_field_must_be_let_in_too() {
    let backend = Backend::start(mirror);
    let gateway = Gateway::start(&format!(
        "[[route]]\npath = \"/x\"\nmethods = [\"DELETE\"]\ngroups = [\"admin\"]\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/x\"\nmethods = [\"PATCH\"]\naccess = \"deny\"\n\
         [[route]]\npath = \"/x\"\nmethods = [\"GET\", \"POST\", \"PUT\"]\nupstream = \"http://{0}\"\n\
         [[route]]\npath = \"/any\"\nupstream = \"http://{0}\"\n",
        backend.address
    ));
    let admin = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    for spelling in [
        "_method=DELETE",
        "_method=delete",
        "_method=%64elete",
        "a=b&_method=DELETE",
        "a=b;_method=DELETE",
        "_method=GET&_method=DELETE",
        "%5Fmethod=DELETE",
        "_%6dethod=DELETE",
        ".method=DELETE",
        "+_method=DELETE",
        "%20_method=DELETE",
        "_method[]=DELETE",
        "_method%5B0%5D=DELETE",
        "_method=+DELETE",
        "_METHOD=DELETE",
    ] {
        let [plain, streamed] = both_ways(&gateway, &format!("/x?{spelling}"), &[("Cookie", &bob)]);
        assert_eq!([plain.status, streamed.status], [403; 2], "{spelling}");
        assert_eq!(gateway.client().request(&format!("POST /x?{spelling}"), &[("Cookie", &admin)], b"").status, 200);
    }
    assert!(!backend.all().iter().any(|got| got.field("remote-user") == Some("bob@example.com")));
    let ask = |target: &str| gateway.client().request(&format!("POST {target}"), &[("Cookie", &bob)], b"").status;
    for (query, status) in [
        ("_method=PATCH", 403),
        ("_method=LINK", 404),
        ("_method=PUT", 200),
        ("_method=", 200),
        ("_method", 200),
        ("_method=no+method", 200),
        ("x_method=DELETE", 200),
        ("method=DELETE", 200),
        ("+method=DELETE", 200),
        ("_methods=DELETE", 200),
        ("a=_method=DELETE", 200),
        ("a=%26_method=DELETE", 200),
    ] {
        assert_eq!(ask(&format!("/x?{query}")), status, "{query}");
    }
    assert_eq!(ask(&format!("/x?{}", ["_method=GET"; 9].join("&"))), 404);
    assert_eq!(ask("/any?_method=DELETE"), 200, "no rule tells them apart");
    for name in ["X-Method", "X-Original-Method"] {
        let named = |method| gateway.client().request("POST /x", &[("Cookie", &bob), (name, method)], b"").status;
        assert_eq!([named("delete"), named("PATCH"), named("PUT"), named("post")], [403, 403, 200, 200], "{name}");
    }
    // what is never served is not asked for in that way either
    for method in ["TRACE", "connect", "Track"] {
        let named = [("Cookie", bob.as_str()), ("X-HTTP-Method-Override", method)];
        assert_eq!(gateway.client().request("POST /any", &named, b"").status, 404, "{method}");
    }
    // a link of another site's page is a GET that changes something
    let foreign = [("Cookie", admin.as_str()), ("Sec-Fetch-Site", "cross-site")];
    let ask = |query: &str| gateway.client().get(&format!("/any?{query}"), &foreign).status;
    assert_eq!([ask("_method=DELETE"), ask("_method=GET"), ask("a=DELETE")], [403, 200, 200]);
    still_serves(&gateway);
}

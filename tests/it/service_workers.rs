//! A service worker stands before all pages of its scope, for as long as the browser keeps it (W3C Service Workers). What
//! an app may say of it does not reach beyond the paths that lead to that app: the sign-in page, and other apps.

use std::io::Write;

use crate::backend::{Backend, Received};
use crate::gateway::Gateway;

/// Answers with what it is told to allow.
fn allowing(request: &Received, stream: &mut dyn Write) -> bool {
    let allowed = request.field("x-allow").map(|scope| format!("Service-Worker-Allowed: {scope}\r\n"));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", allowed.unwrap_or_default());
    stream.write_all(head.as_bytes()).is_ok()
}

#[test]
fn an_app_allows_its_service_worker_no_more_than_its_own_paths() {
    let (main, other) = (Backend::start(allowing), Backend::start(allowing));
    let gateway = Gateway::start(&format!(
        "[[upstream]]\nname = \"main\"\nservers = [\"{}\"]\n[[upstream]]\nname = \"other\"\nservers = [\"{}\"]\n\
         [[route]]\npath = \"/code/**\"\nstrip_prefix = \"/code\"\naccess = \"public\"\nupstream = \"other\"\n\
         [[route]]\npath = \"/files/*/x/**\"\naccess = \"public\"\nupstream = \"other\"\n\
         [[route]]\npath = \"/worker.js\"\naccess = \"public\"\nupstream = \"other\"\n\
         [[route]]\npath = \"/static/**\"\naccess = \"public\"\nupstream = \"main\"\n\
         [[route]]\naccess = \"public\"\nupstream = \"main\"\n",
        main.address, other.address
    ));
    let ask = |path: &str, allow: &str| {
        let answer = gateway.client().get(path, &[("X-Allow", allow)]);
        assert_eq!(answer.status, 200);
        answer.field("service-worker-allowed").map(str::to_owned)
    };
    let told = |scope: &str| Some(scope.to_owned());
    // the app that has the root keeps what it says, in whatever route its script stands
    for path in ["/sw.js", "/static/sw.js", "/static/deep/sw.js"] {
        assert_eq!(ask(path, "/"), told("/"), "{path}");
    }
    assert_eq!(ask("/static/sw.js", "../"), told("../"));
    // another one has its own folder, which is what it means: its prefix is cut
    for allow in [
        "/",
        "/.auth/",
        "/static/",
        "/codes/",
        "/code",
        "/code/../",
        "/code/%2e%2e/",
        "..",
        "http://a/",
        "//a/",
        "\\",
        "/co",
        "",
    ] {
        assert_eq!(ask("/code/sw.js", allow), told("/code/"), "{allow:?}");
    }
    assert_eq!(ask("/code/a/sw.js", "/code/a/b/"), told("/code/a/b/"));
    assert_eq!(ask("/code/a/sw.js", "/code/"), told("/code/"));
    // before a star the paths of an app end in no folder of its own
    assert_eq!(ask("/files/1/x/sw.js", "/"), None);
    assert_eq!(ask("/worker.js", "/"), None);
    // nothing is said where the app says nothing
    assert_eq!(gateway.client().get("/code/sw.js", &[]).field("service-worker-allowed"), None);
}

//! Several hosts without a session in common, and one redirect URI for all of them: that of `public_url`.

use std::collections::HashMap;
use std::net::TcpStream;

use crate::client::{Answer, Client};
use crate::gateway::{Gateway, configured};
use crate::provider::{Provider, SECRET};

const CALLBACK: &str = "/.auth/oauth/corp/callback";

/// `public_url` on auth.example.com, and routes for app.example.com, one more port, and all names below dev.example.com.
fn serve(provider: &Provider) -> Gateway {
    let hosts = ["auth.example.com", "app.example.com:8443", "app.example.com", "*.dev.example.com"];
    let routes = hosts.map(|host| format!("[[route]]\nhost = \"{host}\"\nupstream = \"builtin:whoami\"\n"));
    let text = format!(
        "public_url = \"http://auth.example.com\"\n{}{}",
        provider.configured("corp", "sign_up = \"open\"\n"),
        routes.concat()
    );
    Gateway::serve_with(configured(&text), &[("CLIENT_SECRET", SECRET)])
}

/// A browser: the cookies that it holds for each host.
#[derive(Default)]
pub struct Browser(HashMap<String, Vec<(String, String)>>);

impl Browser {
    pub fn get(&mut self, gateway: &Gateway, host: &str, path: &str) -> Answer {
        let jar = self.0.entry(host.to_owned()).or_default();
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut client = Client::over(TcpStream::connect(gateway.address).unwrap(), host.to_owned());
        let fields = [
            ("Cookie", cookies.join("; ")),
            ("Accept", "text/html".to_owned()),
            ("Sec-Fetch-Mode", "navigate".to_owned()),
        ];
        let answer = client.get(path, &fields.each_ref().map(|(name, value)| (*name, value.as_str())));
        for cookie in answer.all("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            jar.retain(|(own, _)| own != name);
            jar.push((name.to_owned(), value.to_owned()));
        }
        answer
    }

    /// Follows a redirect to another host.
    pub fn follow(&mut self, gateway: &Gateway, answer: &Answer) -> Answer {
        let location = answer.field("location").unwrap().strip_prefix("http://").unwrap();
        let (host, path) = location.split_once('/').unwrap();
        self.get(gateway, host, &format!("/{path}"))
    }

    pub fn is_signed_in(&mut self, gateway: &Gateway, host: &str) -> bool {
        self.get(gateway, host, "/.auth/me").status == 200
    }
}

/// Starts at a host; the redirect URI that the provider was given, and the callback's path and query.
fn start(browser: &mut Browser, gateway: &Gateway, provider: &Provider, host: &str) -> (String, String) {
    let started = browser.get(gateway, host, "/.auth/oauth/corp?callbackUrl=/page");
    let url = started.field("location").unwrap();
    let query = url.split_once('?').unwrap().1;
    let redirect_uri = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "redirect_uri").unwrap().1;
    (redirect_uri.into_owned(), provider.agree(url))
}

#[test]
fn a_host_that_a_route_names_signs_in_through_the_redirect_uri_of_public_url() {
    let provider = Provider::start();
    let gateway = serve(&provider);
    let mut browser = Browser::default();
    let (redirect_uri, callback) = start(&mut browser, &gateway, &provider, "app.example.com");
    assert_eq!(redirect_uri, format!("http://auth.example.com{CALLBACK}"));
    let passed_on = browser.get(&gateway, "auth.example.com", &callback);
    assert_eq!(passed_on.status, 303, "{passed_on:?}");
    assert!(passed_on.field("location").unwrap().starts_with(&format!("http://app.example.com{CALLBACK}?")));
    assert_eq!(passed_on.all("set-cookie"), Vec::<&str>::new());
    let done = browser.follow(&gateway, &passed_on);
    assert_eq!((done.status, done.field("location")), (303, Some("/page")), "{done:?}");
    assert!(browser.is_signed_in(&gateway, "app.example.com"));
    assert!(!browser.is_signed_in(&gateway, "auth.example.com"), "sessions of the two are apart");
    // and on the host of public_url itself
    let (_, callback) = start(&mut browser, &gateway, &provider, "auth.example.com");
    assert_eq!(browser.get(&gateway, "auth.example.com", &callback).field("location"), Some("/page"));
}

#[test]
fn an_answer_that_is_passed_on_counts_in_its_own_browser_alone() {
    let provider = Provider::start();
    let gateway = serve(&provider);
    let (mut attacker, mut victim) = (Browser::default(), Browser::default());
    let (_, callback) = start(&mut attacker, &gateway, &provider, "app.example.com");
    start(&mut victim, &gateway, &provider, "app.example.com");
    let passed_on = victim.get(&gateway, "auth.example.com", &callback);
    assert_eq!(victim.follow(&gateway, &passed_on).status, 400);
    assert!(!victim.is_signed_in(&gateway, "app.example.com"));
    let passed_on = attacker.get(&gateway, "auth.example.com", &callback);
    assert_eq!(attacker.follow(&gateway, &passed_on).status, 303, "in its own it does");
}

/// RFC 9700, 4.11: no name but those of the configuration is redirected to, and no port.
#[test]
fn answers_are_passed_on_to_no_host_that_routes_do_not_name_in_full() {
    let provider = Provider::start();
    let gateway = serve(&provider);
    let mut browser = Browser::default();
    for host in ["a.dev.example.com", "app.example.com:8443", "app.example.com:81"] {
        let (redirect_uri, _) = start(&mut browser, &gateway, &provider, host);
        assert_eq!(redirect_uri, format!("http://{host}{CALLBACK}"));
    }
    let (_, callback) = start(&mut browser, &gateway, &provider, "auth.example.com");
    for host in
        ["evil.example.com", "a.dev.example.com", "app.example.com:8443", "app.example.com/", "@evil.example.com", ""]
    {
        let changed = callback.replace("&iss", &format!("~{host}&iss"));
        let refused = browser.get(&gateway, "auth.example.com", &changed);
        assert_eq!((refused.status, refused.field("location")), (400, None), "{host}");
    }
    assert_eq!(browser.get(&gateway, "auth.example.com", &callback).status, 303, "the one that was not changed");
}

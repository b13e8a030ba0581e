//! `[[test]]` tables: the same decision as for real requests, asked without a socket.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, StatusCode, header};

use super::authenticate::Authentication;
use super::authorize::Refusal;
use super::decide::{self, Verdict};
use super::head::{self, BadHead, Peer};
use crate::account::{Identity, Session, User};
use crate::config::{Config, Refuse, Test, TestUser};
use crate::web::incoming::Incoming;
use crate::web::origin::{Origin, Scheme};

/// What came out, in the words of `expect`: `forward NAME`, `login`, `page`, or a status.
pub fn prove(config: &Config, test: &Test) -> Result<String, String> {
    let (host, scheme, target) = split_target(config, &test.target)?;
    let parts = head_of(test, &host, &target)?;
    let peer = Peer::default();
    let read =
        head::check(&parts, target.len(), 0, &config.limits).and_then(|()| head::read(&parts, peer, &config.server));
    let mut known = match read {
        Ok(known) => known,
        Err(bad) => return Ok(status_of(bad)),
    };
    known.scheme = scheme;
    let incoming = match head::incoming(&parts, target.as_bytes(), &known) {
        Ok(incoming) => incoming,
        Err(bad) => return Ok(status_of(bad)),
    };
    let authentication = match &test.user {
        None => Authentication::Anonymous,
        Some(user) => Authentication::Known { identity: pretend(user), by_cookie: true },
    };
    if is_page(config, incoming.path.as_str()) {
        return Ok("page".to_owned());
    }
    let found = decide::find_route(config, &incoming);
    Ok(word(config, decide::decide(config, None, found, &incoming, &authentication), &incoming))
}

fn word(config: &Config, verdict: Verdict, incoming: &Incoming<'_>) -> String {
    match verdict {
        Verdict::Forward(admission) => format!("forward {}", config.upstreams[admission.upstream()].name),
        Verdict::Page(_) => "page".to_owned(),
        Verdict::Preflight => StatusCode::NO_CONTENT.as_str().to_owned(),
        Verdict::ToHttps => StatusCode::PERMANENT_REDIRECT.as_str().to_owned(),
        Verdict::Status(code) => code.as_str().to_owned(),
        Verdict::Refuse(_, Refusal::Forbidden | Refusal::CrossOrigin) => "403".to_owned(),
        Verdict::Refuse(route, Refusal::SignedOut) => {
            let to_login = match config.routes[route].refuse {
                Refuse::Auto => incoming.is_navigation(),
                Refuse::Redirect => !incoming.is_websocket && matches!(incoming.method.as_str(), "GET" | "HEAD"),
                Refuse::Status => false,
            };
            if to_login { "login".to_owned() } else { "401".to_owned() }
        }
    }
}

fn is_page(config: &Config, path: &str) -> bool {
    let below = path.strip_prefix(config.server.prefix.as_str());
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        || config
            .authjs
            .base_path
            .as_deref()
            .and_then(|base| path.strip_prefix(base))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        || [&config.pages.login, &config.pages.signup].into_iter().any(|extra| extra.as_deref() == Some(path))
}

fn split_target(config: &Config, target: &str) -> Result<(String, Scheme, String), String> {
    let public = &config.server.public_url;
    if target.starts_with('/') {
        return Ok((public.authority(), public.scheme(), target.to_owned()));
    }
    let bad = || format!("`{target}` is neither a path nor an http(s) address");
    let (scheme, rest) = target.split_once("://").ok_or_else(bad)?;
    let at = rest.find('/').unwrap_or(rest.len());
    let origin = Origin::parse(&format!("{scheme}://{}", &rest[..at])).ok_or_else(bad)?;
    let path = if at == rest.len() { "/" } else { &rest[at..] };
    Ok((origin.authority(), origin.scheme(), path.to_owned()))
}

/// A GET is a navigation unless the test's own headers say otherwise.
fn head_of(test: &Test, host: &str, target: &str) -> Result<http::request::Parts, String> {
    let mut request = Request::builder().method(test.method.clone()).uri("/").header(header::HOST, host);
    let tells = |name: &str| test.headers.iter().any(|(own, _)| own == name);
    if test.method == http::Method::GET
        && !["accept", "sec-fetch-mode", "upgrade", "content-type"].into_iter().any(tells)
    {
        request = request
            .header("sec-fetch-mode", HeaderValue::from_static("navigate"))
            .header(header::ACCEPT, HeaderValue::from_static("text/html"));
    }
    for (name, value) in &test.headers {
        request = request.header(name, value);
    }
    let (mut parts, ()) = request.body(()).map_err(|error| format!("`{target}`: {error}"))?.into_parts();
    if tells("host") {
        parts.headers.remove(header::HOST);
        for (name, value) in test.headers.iter().filter(|(name, _)| name == header::HOST) {
            parts.headers.append(name, value.clone());
        }
    }
    Ok(parts)
}

fn status_of(bad: BadHead) -> String {
    match bad {
        BadHead::Ambiguous(_) => "400",
        BadHead::Method => "405",
        BadHead::TargetTooLong => "414",
        BadHead::TooLarge => "431",
        BadHead::Misdirected => "421",
    }
    .to_owned()
}

/// Somebody with these groups, who exists for one test.
fn pretend(user: &TestUser) -> Identity {
    let email = user.email.clone().unwrap_or_else(|| "somebody@example.com".to_owned());
    let user = User::new("0".to_owned(), email, String::new(), String::new(), user.groups.clone(), false);
    let user = Arc::new(user);
    let session = Session::new(String::new(), Arc::new(ArcSwap::new(user.clone())), 0, u64::MAX, 0);
    Identity { session: Arc::new(session), user, issued: 0, grant: None }
}

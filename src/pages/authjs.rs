//! The HTTP surface that unmodified next-auth/react (version 4) and Auth.js (version 5) clients call, at
//! `authjs.base_path`. Responses to scripts are JSON with an absolute `url`: anything else makes
//! the clients throw. `session` reads only memory. Navigations are redirected to the gateway's own pages.

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::call::{Call, Pages};
use super::form::{Fields, query};
use super::login::BUSY_SECS;
use super::site::Site;
use super::{errors, logout, provider_lists, provider_relay, provider_replies, providers, session_cookies};
use crate::account::identity::sign_out;
use crate::account::provider::identity::Intent;
use crate::account::{Identity, SignInError, sign_in};
use crate::config::AuthJsClient;
use crate::logging::Timestamp;
use crate::secret::{random_bytes, same_bytes};
use crate::web::cookie::{self, Presented};
use crate::web::reply::Reply;

/// How a client expects responses to its forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `json=true` in the form: version 4.
    V4,
    /// `X-Auth-Return-Redirect`: version 5.
    V5,
    /// Neither: a plain HTML form, which follows redirects.
    Plain,
}

/// A client's form, with the fields that all forms have.
struct Form {
    fields: Fields,
    style: Style,
    csrf_is_right: bool,
}

/// The response to a page of another origin: JSON that the clients can parse.
pub(super) fn cross_origin(pages: &Pages, call: &Call<'_>) -> Reply {
    let url = absolute(call, &format!("{}?error=AccessDenied", pages.login_path));
    Reply::json(StatusCode::FORBIDDEN, &json!({ "error": "forbidden", "url": url }))
}

pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    let base = pages.authjs.base_path.as_deref().unwrap_or_default();
    let action = call.incoming.path.as_str().strip_prefix(base).unwrap_or_default().trim_start_matches('/');
    let posted = match *call.incoming.method {
        Method::GET | Method::HEAD => false,
        Method::POST => true,
        _ => return bad_request(),
    };
    match (action, posted) {
        ("session", false) => session(pages, call),
        ("session", true) => update(pages, call),
        ("csrf", false) => csrf(pages, call),
        ("providers", false) => provider_list(pages, call),
        ("callback/credentials", true) if pages.has_passwords => sign_in(pages, call).await,
        ("signout", true) => sign_out(pages, call).await,
        ("signout", false) => found(&format!("{}/logout", pages.prefix)),
        ("error", false) => error(pages, call),
        ("_log", true) => Reply::empty(StatusCode::OK),
        ("signin", _) => found(&login_with(pages, call, None)),
        (provider, false) if provider.starts_with("signin/") => found(&login_with(pages, call, None)),
        (provider, true) if provider.starts_with("signin/") => {
            start(pages, call, provider.trim_start_matches("signin/")).await
        }
        _ => bad_request(),
    }
}

fn bad_request() -> Reply {
    Reply::json(StatusCode::BAD_REQUEST, &"Bad request.")
}

fn nobody(pages: &Pages) -> Value {
    match pages.authjs.client {
        AuthJsClient::Auto => false.into(),
        AuthJsClient::V4 => json!({}),
        AuthJsClient::V5 => Value::Null,
    }
}

fn session_json(pages: &Pages, call: &Call<'_>) -> Value {
    let Some(who) = call.identity.clone().or_else(|| asked_by_an_app(pages, call)) else { return nobody(pages) };
    let or_null = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    json!({
        "user": {
            "name": or_null(&who.user.name),
            "email": who.user.email,
            "image": or_null(&who.user.picture),
            "id": who.user.id,
        },
        "expires": Timestamp::new(who.session.expires().saturating_mul(1000)).as_str(),
    })
}

/// Server-side `getSession({ req })` sends the cookies that the app received from the gateway.
fn asked_by_an_app(pages: &Pages, call: &Call<'_>) -> Option<Identity> {
    let mut cookies = cookie::pairs(call.incoming.headers);
    cookies.find_map(|(name, value)| {
        let named = pages.token_cookies.iter().any(|own| own.as_bytes() == name);
        std::str::from_utf8(value)
            .ok()
            .filter(|_| named)
            .and_then(|token| pages.accounts.identity_of_cookie_token(token))
    })
}

fn session(pages: &Pages, call: &Call<'_>) -> Reply {
    let reply = Reply::json(StatusCode::OK, &session_json(pages, call));
    match &call.renewed {
        Some(cookie) => reply.with(header::SET_COOKIE, cookie.clone()),
        None => reply,
    }
}

/// `update()`: returns the session again. The data that the page sends is ignored.
fn update(pages: &Pages, call: &Call<'_>) -> Reply {
    match form(pages, call) {
        Some(form) if form.csrf_is_right => session(pages, call),
        _ => Reply::json(StatusCode::BAD_REQUEST, &nobody(pages)),
    }
}

/// The CSRF token and its cookie: the token stays the same as long as the cookie does.
fn csrf(pages: &Pages, call: &Call<'_>) -> Reply {
    if let Some(token) = proved_token(pages, call) {
        return Reply::json(StatusCode::OK, &json!({ "csrfToken": token }));
    }
    let made = random_bytes::<32>().ok().map(|bytes| data_encoding::HEXLOWER.encode(&bytes));
    let made = made.and_then(|token| pages.accounts.tag(&format!("csrf {token}")).map(|tag| (token, tag)));
    let Some((token, tag)) = made else { return errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call) };
    let reply = Reply::json(StatusCode::OK, &json!({ "csrfToken": token }));
    match pages.cookies.set(pages.cookies.csrf(), &format!("{token}.{tag}"), None) {
        Some(cookie) => reply.with(header::SET_COOKIE, cookie),
        None => reply,
    }
}

fn proved_token(pages: &Pages, call: &Call<'_>) -> Option<String> {
    let Presented::One(value) = cookie::find(call.incoming.headers, pages.cookies.csrf()) else { return None };
    let (token, tag) = std::str::from_utf8(value).ok()?.split_once('.')?;
    let proved = same_bytes(pages.accounts.tag(&format!("csrf {token}"))?.as_bytes(), tag.as_bytes());
    proved.then(|| token.to_owned())
}

fn provider_list(pages: &Pages, call: &Call<'_>) -> Reply {
    let base = absolute(call, pages.authjs.base_path.as_deref().unwrap_or_default());
    let credentials = json!({
        "id": "credentials",
        "name": "Credentials",
        "type": "credentials",
        "signinUrl": format!("{base}/signin/credentials"),
        "callbackUrl": format!("{base}/callback/credentials"),
    });
    let (redirect, _) = provider_relay::redirect(pages, call.incoming.origin());
    let mut all = serde_json::Map::new();
    if pages.has_passwords {
        all.insert("credentials".to_owned(), credentials);
    }
    for provider in provider_lists::all(pages) {
        // version 4 uses "oauth" for OpenID Connect as well
        let is_oidc = pages.authjs.client == AuthJsClient::V5 && provider.kind.is_openid();
        let one = json!({
            "id": provider.name,
            "name": provider.label,
            "type": if is_oidc { "oidc" } else { "oauth" },
            "signinUrl": format!("{base}/signin/{}", provider.name),
            "callbackUrl": format!("{redirect}{}", provider.callback),
        });
        all.insert(provider.name.clone(), one);
    }
    Reply::json(StatusCode::OK, &Value::Object(all))
}

/// `signIn("google")`: returns the provider's URL, which the client opens itself.
async fn start(pages: &Pages, call: &Call<'_>, name: &str) -> Reply {
    let Some(form) = form(pages, call) else { return malformed(pages, call) };
    if !provider_lists::all(pages).any(|provider| provider.name == name) {
        return url(call, form.style, StatusCode::OK, &login_with(pages, call, None));
    }
    if !form.csrf_is_right {
        return url(call, form.style, StatusCode::OK, &without_csrf(pages, form.style, "signin"));
    }
    let (wanted, params) = (form.fields.get("callbackUrl"), provider_lists::client_params(call));
    let begun = providers::begin(pages, call, name, wanted, (Intent::SignIn, false), &params).await;
    if let Ok(started) = begun {
        let reply = url(call, form.style, StatusCode::OK, started.url.as_str());
        return provider_replies::with_browser(pages, reply, &started.browser);
    }
    url(call, form.style, StatusCode::OK, &login_with(pages, call, Some("OAuthSignin")))
}

async fn sign_in(pages: &Pages, call: &Call<'_>) -> Reply {
    let Some(form) = form(pages, call) else { return malformed(pages, call) };
    if !form.csrf_is_right {
        return url(call, form.style, StatusCode::OK, &without_csrf(pages, form.style, "signin"));
    }
    let fields = &form.fields;
    let email = fields.get("email").or_else(|| fields.get("username")).unwrap_or_default();
    let begun = sign_in::with_password(&pages.accounts, &call.caller, email, fields.secret("password"), true).await;
    match begun {
        Ok(begun) => {
            let place = pages.return_to(fields.get("callbackUrl"), call.incoming);
            let reply = url(call, form.style, StatusCode::OK, place.as_str());
            session_cookies::signed_in(pages, call, reply, Some(place.as_str()), &begun)
        }
        Err(SignInError::Credentials) => {
            let base = pages.authjs.base_path.as_deref().unwrap_or_default();
            let (status, place) = match form.style {
                Style::V4 => {
                    (StatusCode::UNAUTHORIZED, format!("{base}/error?error=CredentialsSignin&provider=credentials"))
                }
                Style::V5 => (StatusCode::OK, login_with(pages, call, Some("CredentialsSignin&code=credentials"))),
                Style::Plain => (StatusCode::OK, login_with(pages, call, Some("CredentialsSignin"))),
            };
            url(call, form.style, status, &place)
        }
        Err(SignInError::PasswordsOff) => bad_request(),
        Err(SignInError::Throttled { retry_after_secs }) => {
            let place = login_with(pages, call, Some("RateLimited"));
            url(call, form.style, StatusCode::TOO_MANY_REQUESTS, &place)
                .with(header::RETRY_AFTER, HeaderValue::from(retry_after_secs))
        }
        Err(error @ (SignInError::Busy | SignInError::Unavailable)) => {
            let place = login_with(pages, call, Some("Unavailable"));
            let secs = if error == SignInError::Busy { BUSY_SECS } else { 2 };
            url(call, form.style, StatusCode::SERVICE_UNAVAILABLE, &place)
                .with(header::RETRY_AFTER, HeaderValue::from(secs))
        }
    }
}

async fn sign_out(pages: &Pages, call: &Call<'_>) -> Reply {
    let Some(form) = form(pages, call) else { return malformed(pages, call) };
    if !form.csrf_is_right {
        return url(call, form.style, StatusCode::OK, &without_csrf(pages, form.style, "signout"));
    }
    let mut at_provider = None;
    if let Some(who) = &call.identity {
        let return_uri = logout::return_uri(pages);
        let signed_out = sign_out::sign_out(&pages.accounts, &call.caller, &who.session, &return_uri).await;
        let Ok(further) = signed_out else {
            let place = login_with(pages, call, Some("Unavailable"));
            return url(call, form.style, StatusCode::SERVICE_UNAVAILABLE, &place);
        };
        at_provider = further;
    }
    let ticket = at_provider.and_then(|url| pages.accounts.providers()?.keep_sign_out(url));
    let place = match ticket {
        // by way of a page of ours, so that scripts never see the ID token
        Some(ticket) => format!("{}/signed-out?{}={}", pages.prefix, logout::TICKET, ticket.expose()),
        None => pages.return_to(form.fields.get("callbackUrl"), call.incoming).as_str().to_owned(),
    };
    let reply = url(call, form.style, StatusCode::OK, &place);
    session_cookies::without_cookie(pages, reply)
}

/// Sign-in errors are shown on the login page, others on a page of their own.
fn error(pages: &Pages, call: &Call<'_>) -> Reply {
    match query(call, &["error"]).as_deref() {
        Some("AccessDenied" | "Verification") => errors::refused(pages, StatusCode::FORBIDDEN, call),
        Some("Configuration") => errors::refused(pages, StatusCode::INTERNAL_SERVER_ERROR, call),
        _ => found(&login_with(pages, call, None)),
    }
}

fn form(pages: &Pages, call: &Call<'_>) -> Option<Form> {
    let fields = Fields::read(call).ok()?;
    let style = if fields.get("json") == Some("true") {
        Style::V4
    } else if call.incoming.headers.contains_key("x-auth-return-redirect") {
        Style::V5
    } else {
        Style::Plain
    };
    let csrf_is_right = proved_token(pages, call)
        .is_some_and(|token| same_bytes(token.as_bytes(), fields.text("csrfToken").as_bytes()));
    Some(Form { fields, style, csrf_is_right })
}

fn malformed(pages: &Pages, call: &Call<'_>) -> Reply {
    let url = absolute(call, &format!("{}?error=Unavailable", pages.login_path));
    Reply::json(StatusCode::BAD_REQUEST, &json!({ "error": "malformed", "url": url }))
}

/// Where each version is redirected without a CSRF token.
fn without_csrf(pages: &Pages, style: Style, action: &str) -> String {
    let base = pages.authjs.base_path.as_deref().unwrap_or_default();
    match style {
        Style::V4 => format!("{base}/{action}?csrf=true"),
        Style::V5 | Style::Plain if action == "signout" => format!("{base}/signout?error=MissingCSRF"),
        Style::V5 | Style::Plain => format!("{}?error=MissingCSRF", pages.login_path),
    }
}

/// The login page's address with the return URL of the query and an error: the given one, or the query's.
fn login_with(pages: &Pages, call: &Call<'_>, error: Option<&str>) -> String {
    let mut pairs = Vec::new();
    for name in ["error", "callbackUrl"] {
        let value = query(call, &[name]).filter(|value| !value.is_empty() && value.len() <= 2048);
        if let Some(value) = value.filter(|_| name != "error" || error.is_none()) {
            pairs.push(format!("{name}={}", form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>()));
        }
    }
    pairs.extend(error.map(|error| format!("error={error}")));
    let question = if pairs.is_empty() { "" } else { "?" };
    format!("{}{question}{}", pages.login_path, pairs.join("&"))
}

/// An absolute URL, which the clients need.
fn absolute(call: &Call<'_>, place: &str) -> String {
    if place.starts_with('/') { format!("{}{place}", call.incoming.origin()) } else { place.to_owned() }
}

/// The response to a form: JSON with the URL for scripts, a redirect for plain forms.
fn url(call: &Call<'_>, style: Style, status: StatusCode, place: &str) -> Reply {
    match style {
        Style::V4 | Style::V5 => Reply::json(status, &json!({ "url": absolute(call, place) })),
        Style::Plain => found(place),
    }
}

/// 302, which browsers follow with GET.
fn found(place: &str) -> Reply {
    let mut reply = Site::see_other(place);
    reply.status = StatusCode::FOUND;
    reply
}

//! The HTTP surface that unmodified next-auth/react (version 4) and Auth.js (version 5) clients call, at
//! `authjs.base_path`. Every answer that a script reads is JSON, its `url` absolute: anything else makes
//! the clients throw. `session` reads memory alone. Page navigations are sent to the gateway's own pages.

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::form::{Fields, query};
use super::login::BUSY_SECS;
use super::{Call, Pages, Site};
use crate::account::{Identity, SignInError, sign_in, user_sessions};
use crate::config::AuthJsClient;
use crate::logging::Timestamp;
use crate::secret::{random_bytes, same_bytes};
use crate::web::cookie::{self, Presented};
use crate::web::reply::Reply;

/// How a client reads answers to its forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `json=true` in the form: version 4.
    V4,
    /// `X-Auth-Return-Redirect`: version 5.
    V5,
    /// Neither: a plain HTML form, which follows redirects.
    Plain,
}

/// A form of a client, with what all of them carry.
struct Form {
    fields: Fields,
    style: Style,
    csrf_is_right: bool,
}

impl Site {
    /// Whether a path is part of the surface.
    pub(super) fn is_authjs(&self, path: &str) -> bool {
        let Some(base) = &self.authjs.base_path else { return false };
        path.strip_prefix(base.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Pages {
    /// The answer to somebody's page of another origin: JSON that the clients can read.
    pub(super) fn authjs_cross_origin(&self, call: &Call<'_>) -> Reply {
        let url = Self::absolute(call, &format!("{}?error=AccessDenied", self.login_path));
        Reply::json(StatusCode::FORBIDDEN, &json!({ "error": "forbidden", "url": url }))
    }

    pub(super) async fn authjs(&self, call: &Call<'_>) -> Reply {
        let base = self.authjs.base_path.as_deref().unwrap_or_default();
        let action = call.incoming.path.as_str().strip_prefix(base).unwrap_or_default().trim_start_matches('/');
        let posted = match *call.incoming.method {
            Method::GET | Method::HEAD => false,
            Method::POST => true,
            _ => return Reply::json(StatusCode::BAD_REQUEST, &"Bad request."),
        };
        match (action, posted) {
            ("session", false) => self.authjs_session(call),
            ("session", true) => self.authjs_update(call),
            ("csrf", false) => self.authjs_csrf(call),
            ("providers", false) => self.authjs_providers(call),
            ("callback/credentials", true) => self.authjs_sign_in(call).await,
            ("signout", true) => self.authjs_sign_out(call).await,
            ("signout", false) => Self::found(&format!("{}/logout", self.prefix)),
            ("error", false) => self.authjs_error(call),
            ("_log", true) => Reply::empty(StatusCode::OK),
            ("signin", _) => Self::found(&self.login_with(call, None)),
            (provider, false) if provider.starts_with("signin/") => Self::found(&self.login_with(call, None)),
            (provider, true) if provider.starts_with("signin/") => {
                let style = self.form(call).map_or(Style::Plain, |form| form.style);
                Self::authjs_url(call, style, StatusCode::OK, &self.login_with(call, None))
            }
            _ => Reply::json(StatusCode::BAD_REQUEST, &"Bad request."),
        }
    }

    fn nobody(&self) -> Value {
        match self.authjs.client {
            AuthJsClient::Auto => false.into(),
            AuthJsClient::V4 => json!({}),
            AuthJsClient::V5 => Value::Null,
        }
    }

    fn session_json(&self, call: &Call<'_>) -> Value {
        let Some(who) = call.identity.clone().or_else(|| self.asked_by_an_app(call)) else { return self.nobody() };
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

    /// Server-side `getSession({ req })` asks with the cookies that the app received from us.
    fn asked_by_an_app(&self, call: &Call<'_>) -> Option<Identity> {
        let mut cookies = cookie::pairs(call.incoming.headers);
        cookies.find_map(|(name, value)| {
            let named = self.token_cookies.iter().any(|own| own.as_bytes() == name);
            std::str::from_utf8(value)
                .ok()
                .filter(|_| named)
                .and_then(|token| self.accounts.identity_of_cookie_token(token))
        })
    }

    fn authjs_session(&self, call: &Call<'_>) -> Reply {
        let reply = Reply::json(StatusCode::OK, &self.session_json(call));
        match &call.renewed {
            Some(cookie) => reply.with(header::SET_COOKIE, cookie.clone()),
            None => reply,
        }
    }

    /// `update()`: the session is told anew. What the page sends along changes nothing.
    fn authjs_update(&self, call: &Call<'_>) -> Reply {
        match self.form(call) {
            Some(form) if form.csrf_is_right => self.authjs_session(call),
            _ => Reply::json(StatusCode::BAD_REQUEST, &self.nobody()),
        }
    }

    /// The token, and the cookie that proves it: one cookie keeps one token.
    fn authjs_csrf(&self, call: &Call<'_>) -> Reply {
        if let Some(token) = self.proved_token(call) {
            return Reply::json(StatusCode::OK, &json!({ "csrfToken": token }));
        }
        let made = random_bytes::<32>().ok().map(|bytes| data_encoding::HEXLOWER.encode(&bytes));
        let made = made.and_then(|token| self.accounts.tag(&format!("csrf {token}")).map(|tag| (token, tag)));
        let Some((token, tag)) = made else { return self.refused(StatusCode::SERVICE_UNAVAILABLE, call) };
        let reply = Reply::json(StatusCode::OK, &json!({ "csrfToken": token }));
        match self.cookies.set(self.cookies.csrf(), &format!("{token}.{tag}"), None) {
            Some(cookie) => reply.with(header::SET_COOKIE, cookie),
            None => reply,
        }
    }

    fn proved_token(&self, call: &Call<'_>) -> Option<String> {
        let Presented::One(value) = cookie::find(call.incoming.headers, self.cookies.csrf()) else { return None };
        let (token, tag) = std::str::from_utf8(value).ok()?.split_once('.')?;
        let proved = same_bytes(self.accounts.tag(&format!("csrf {token}"))?.as_bytes(), tag.as_bytes());
        proved.then(|| token.to_owned())
    }

    fn authjs_providers(&self, call: &Call<'_>) -> Reply {
        let base = Self::absolute(call, self.authjs.base_path.as_deref().unwrap_or_default());
        let credentials = json!({
            "id": "credentials",
            "name": "Credentials",
            "type": "credentials",
            "signinUrl": format!("{base}/signin/credentials"),
            "callbackUrl": format!("{base}/callback/credentials"),
        });
        Reply::json(StatusCode::OK, &json!({ "credentials": credentials }))
    }

    async fn authjs_sign_in(&self, call: &Call<'_>) -> Reply {
        let Some(form) = self.form(call) else { return self.authjs_malformed(call) };
        if !form.csrf_is_right {
            return Self::authjs_url(call, form.style, StatusCode::OK, &self.without_csrf(form.style, "signin"));
        }
        let fields = &form.fields;
        let email = fields.get("email").or_else(|| fields.get("username")).unwrap_or_default();
        let begun = sign_in::with_password(&self.accounts, &call.caller, email, fields.secret("password"), true).await;
        match begun {
            Ok(begun) => {
                let place = self.return_to(fields.get("callbackUrl"), call.incoming);
                let reply = Self::authjs_url(call, form.style, StatusCode::OK, place.as_str());
                self.signed_in(call, reply, Some(place.as_str()), &begun)
            }
            Err(SignInError::Credentials) => {
                let base = self.authjs.base_path.as_deref().unwrap_or_default();
                let (status, place) = match form.style {
                    Style::V4 => {
                        (StatusCode::UNAUTHORIZED, format!("{base}/error?error=CredentialsSignin&provider=credentials"))
                    }
                    Style::V5 => (StatusCode::OK, self.login_with(call, Some("CredentialsSignin&code=credentials"))),
                    Style::Plain => (StatusCode::OK, self.login_with(call, Some("CredentialsSignin"))),
                };
                Self::authjs_url(call, form.style, status, &place)
            }
            Err(SignInError::Throttled { retry_after_secs }) => {
                let place = self.login_with(call, Some("RateLimited"));
                Self::authjs_url(call, form.style, StatusCode::TOO_MANY_REQUESTS, &place)
                    .with(header::RETRY_AFTER, HeaderValue::from(retry_after_secs))
            }
            Err(error @ (SignInError::Busy | SignInError::Unavailable)) => {
                let place = self.login_with(call, Some("Unavailable"));
                let secs = if error == SignInError::Busy { BUSY_SECS } else { 2 };
                Self::authjs_url(call, form.style, StatusCode::SERVICE_UNAVAILABLE, &place)
                    .with(header::RETRY_AFTER, HeaderValue::from(secs))
            }
        }
    }

    async fn authjs_sign_out(&self, call: &Call<'_>) -> Reply {
        let Some(form) = self.form(call) else { return self.authjs_malformed(call) };
        if !form.csrf_is_right {
            return Self::authjs_url(call, form.style, StatusCode::OK, &self.without_csrf(form.style, "signout"));
        }
        if let Some(who) = &call.identity
            && user_sessions::sign_out(&self.accounts, &call.caller, &who.session).await.is_err()
        {
            let place = self.login_with(call, Some("Unavailable"));
            return Self::authjs_url(call, form.style, StatusCode::SERVICE_UNAVAILABLE, &place);
        }
        let place = self.return_to(form.fields.get("callbackUrl"), call.incoming);
        self.without_cookie(Self::authjs_url(call, form.style, StatusCode::OK, place.as_str()))
    }

    /// Errors of signing in are told on the login page, the others on a page of their own.
    fn authjs_error(&self, call: &Call<'_>) -> Reply {
        match query(call, &["error"]).as_deref() {
            Some("AccessDenied" | "Verification") => self.refused(StatusCode::FORBIDDEN, call),
            Some("Configuration") => self.refused(StatusCode::INTERNAL_SERVER_ERROR, call),
            _ => Self::found(&self.login_with(call, None)),
        }
    }

    fn form(&self, call: &Call<'_>) -> Option<Form> {
        let fields = Fields::read(call).ok()?;
        let style = if fields.get("json") == Some("true") {
            Style::V4
        } else if call.incoming.headers.contains_key("x-auth-return-redirect") {
            Style::V5
        } else {
            Style::Plain
        };
        let csrf_is_right = self
            .proved_token(call)
            .is_some_and(|token| same_bytes(token.as_bytes(), fields.text("csrfToken").as_bytes()));
        Some(Form { fields, style, csrf_is_right })
    }

    fn authjs_malformed(&self, call: &Call<'_>) -> Reply {
        let url = Self::absolute(call, &format!("{}?error=Unavailable", self.login_path));
        Reply::json(StatusCode::BAD_REQUEST, &json!({ "error": "malformed", "url": url }))
    }

    /// Where each version is sent that lacks the CSRF token.
    fn without_csrf(&self, style: Style, action: &str) -> String {
        let base = self.authjs.base_path.as_deref().unwrap_or_default();
        match style {
            Style::V4 => format!("{base}/{action}?csrf=true"),
            Style::V5 | Style::Plain if action == "signout" => format!("{base}/signout?error=MissingCSRF"),
            Style::V5 | Style::Plain => format!("{}?error=MissingCSRF", self.login_path),
        }
    }

    /// The login page with what the query says of the way back, and an error: the given one, or the query's.
    fn login_with(&self, call: &Call<'_>, error: Option<&str>) -> String {
        let mut pairs = Vec::new();
        for name in ["error", "callbackUrl"] {
            let value = query(call, &[name]).filter(|value| !value.is_empty() && value.len() <= 2048);
            if let Some(value) = value.filter(|_| name != "error" || error.is_none()) {
                pairs.push(format!("{name}={}", form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>()));
            }
        }
        pairs.extend(error.map(|error| format!("error={error}")));
        let question = if pairs.is_empty() { "" } else { "?" };
        format!("{}{question}{}", self.login_path, pairs.join("&"))
    }

    /// A place as the clients want it: with scheme and host.
    fn absolute(call: &Call<'_>, place: &str) -> String {
        if place.starts_with('/') { format!("{}{place}", call.incoming.origin()) } else { place.to_owned() }
    }

    /// The answer to a form: JSON with the place for scripts, a redirect for plain forms.
    fn authjs_url(call: &Call<'_>, style: Style, status: StatusCode, place: &str) -> Reply {
        match style {
            Style::V4 | Style::V5 => Reply::json(status, &json!({ "url": Self::absolute(call, place) })),
            Style::Plain => Self::found(place),
        }
    }

    /// 302, which browsers follow with GET.
    fn found(place: &str) -> Reply {
        let mut reply = Site::see_other(place);
        reply.status = StatusCode::FOUND;
        reply
    }
}

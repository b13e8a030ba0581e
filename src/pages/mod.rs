//! The gateway's own pages and endpoints: (call, form) -> reply. Knows no pingora and no SQL; what
//! it does to accounts goes through [`crate::account`].

use std::ops::Deref;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use self::form::Fields;
use crate::account::{Accounts, Caller, Identity, SignedIn, TICKET_SECS};
use crate::config::{Config, SignUp};
use crate::logging::Timestamp;
use crate::web::cookie::CookieStyle;
use crate::web::incoming::{CallerKind, Incoming};
use crate::web::origin::Origin;
use crate::web::reply::Reply;

mod account;
mod assets;
mod authjs;
mod errors;
mod flash;
mod form;
pub mod guard;
mod link;
mod login;
mod logout;
mod loops;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod signup;
mod site;
mod tokens;
mod view;

pub use errors::word;
pub use site::Site;

/// One endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page(Endpoint);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Root,
    Login,
    Signup,
    Invite,
    Reset,
    Logout,
    SignedOut,
    Account,
    Profile,
    Password,
    Sessions,
    Tokens,
    Me,
    Jwks,
    WsTicket,
    Asset,
    AuthJs,
    ChangePassword,
    Unknown,
}

/// Empties the browser's cache of this origin, and leaves cookies alone (W3C Clear Site Data, 3.1).
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const CACHE: &str = "\"cache\"";

/// The Auth.js surface stands under a path of its own.
const AUTHJS: (&str, Endpoint, &str, &[Method], bool) =
    ("", Endpoint::AuthJs, "authjs", &[Method::GET, Method::POST], false);

/// Where password managers look for the page that changes one (W3C, "A Well-Known URL for Changing Passwords").
const CHANGE_PASSWORD: (&str, Endpoint, &str, &[Method], bool) =
    ("/.well-known/change-password", Endpoint::ChangePassword, "change_password", &[Method::GET], false);

/// What every endpoint is: its path under the prefix (ending in `/` where more follows), its name in
/// metrics, its methods, and whether it needs a session.
const TABLE: [(&str, Endpoint, &str, &[Method], bool); 16] = [
    ("", Endpoint::Root, "root", &[Method::GET], false),
    ("login", Endpoint::Login, "login", &[Method::GET, Method::POST], false),
    ("signup", Endpoint::Signup, "signup", &[Method::GET, Method::POST], false),
    ("invite/", Endpoint::Invite, "invite", &[Method::GET, Method::POST], false),
    ("reset/", Endpoint::Reset, "reset", &[Method::GET, Method::POST], false),
    ("logout", Endpoint::Logout, "logout", &[Method::GET, Method::POST], false),
    ("signed-out", Endpoint::SignedOut, "signed_out", &[Method::GET], false),
    ("account", Endpoint::Account, "account", &[Method::GET], true),
    ("account/profile", Endpoint::Profile, "account_profile", &[Method::POST], true),
    ("account/password", Endpoint::Password, "account_password", &[Method::POST], true),
    ("account/sessions", Endpoint::Sessions, "account_sessions", &[Method::GET, Method::POST], true),
    ("account/tokens", Endpoint::Tokens, "account_tokens", &[Method::GET, Method::POST], true),
    ("me", Endpoint::Me, "me", &[Method::GET], true),
    ("jwks.json", Endpoint::Jwks, "jwks", &[Method::GET], false),
    ("ws-ticket", Endpoint::WsTicket, "ws_ticket", &[Method::POST], true),
    ("assets/", Endpoint::Asset, "asset", &[Method::GET], false),
];

impl Page {
    fn entry(self) -> Option<&'static (&'static str, Endpoint, &'static str, &'static [Method], bool)> {
        [&AUTHJS, &CHANGE_PASSWORD].into_iter().chain(&TABLE).find(|entry| entry.1 == self.0)
    }

    /// The page that is there where no route takes its path.
    pub fn without_route(path: &[u8]) -> Option<Self> {
        (path == CHANGE_PASSWORD.0.as_bytes()).then_some(Self(CHANGE_PASSWORD.1))
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        self.entry().map_or("unknown", |entry| entry.2)
    }

    /// Whether a request with this method brings a body that is read.
    pub fn takes_body(self, method: &Method) -> bool {
        method == Method::POST && self.entry().is_some_and(|entry| entry.3.contains(method))
    }
}

/// A request to one of the pages, its body read.
pub struct Call<'a> {
    /// The request.
    pub incoming: &'a Incoming<'a>,
    /// Who asks, if a valid credential was presented.
    pub identity: Option<Identity>,
    /// The session cookie rewritten, where it is time for it.
    pub renewed: Option<HeaderValue>,
    /// The whole body.
    pub body: Bytes,
    /// Where it comes from.
    pub caller: Caller,
}

/// All pages; made once.
pub struct Pages {
    site: Site,
    accounts: Accounts,
    sign_up: SignUp,
    min_length: usize,
    /// Configured CORS origins: their pages may call our endpoints.
    shared_with: Vec<Origin>,
    /// Cookies that carry upstreams' tokens.
    token_cookies: Vec<String>,
    cookies: CookieStyle,
}

impl Deref for Pages {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Pages {
    /// Puts the pages together.
    pub fn new(config: &Config, accounts: Accounts) -> Self {
        let tokens = config.upstreams.iter().filter_map(|upstream| upstream.token.as_ref());
        Self {
            site: Site::new(config),
            accounts,
            sign_up: config.sign_up,
            min_length: config.password.min_length,
            shared_with: config.cors_origins.clone(),
            token_cookies: tokens.flat_map(|token| token.cookies.iter().cloned()).collect(),
            cookies: config.cookie_style(),
        }
    }

    /// Answers a call: method, origin and session are checked here, for all endpoints alike.
    pub async fn answer(&self, page: Page, call: Call<'_>) -> Reply {
        // what an API token may do is said by its scopes; a person's own pages are none of it
        let by_person = |who: &Identity| who.grant.is_none() || page.0 == Endpoint::Me;
        let call = Call { identity: call.identity.filter(by_person), ..call };
        let method = call.incoming.method;
        let Some((_, _, _, methods, needs_session)) = page.entry() else {
            return self.refused(StatusCode::NOT_FOUND, &call);
        };
        let reads = method == Method::GET || method == Method::HEAD;
        if !(methods.contains(method) || (reads && methods.contains(&Method::GET))) {
            if page.0 == Endpoint::AuthJs {
                return self.authjs(&call).await;
            }
            // where a form was refused its own address stays in the browser, and is opened again
            if matches!(page.0, Endpoint::Profile | Endpoint::Password) && call.incoming.is_navigation() {
                return Site::see_other(&format!("{}/account", self.prefix));
            }
            let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
            let reply = self.refused(StatusCode::METHOD_NOT_ALLOWED, &call);
            return match HeaderValue::try_from(allowed) {
                Ok(allowed) => reply.with(header::ALLOW, allowed),
                Err(_) => reply,
            };
        }
        if !reads && guard::is_cross_origin(call.incoming, &self.own(call.incoming), &self.shared_with) {
            if page.0 == Endpoint::AuthJs {
                return self.authjs_cross_origin(&call);
            }
            if let Some(reply) = self.wrong_scheme(&call) {
                return reply;
            }
            if call.incoming.wants_page() {
                return self.from_elsewhere(&call.caller.request_id, call.incoming);
            }
            return self.refused(StatusCode::FORBIDDEN, &call);
        }
        match &call.identity {
            Some(who) if *needs_session => self.with_session(page, &call, who).await,
            None if *needs_session => self.signed_out(page, &call),
            _ => self.without_session(page, &call).await,
        }
    }

    async fn without_session(&self, page: Page, call: &Call<'_>) -> Reply {
        match page.0 {
            Endpoint::Root | Endpoint::ChangePassword => Site::see_other(&format!("{}/account", self.prefix)),
            Endpoint::Login => self.login(call).await,
            Endpoint::Signup => self.signup(call).await,
            Endpoint::Invite | Endpoint::Reset => self.link(call).await,
            Endpoint::Logout => self.logout(call).await,
            Endpoint::SignedOut => self.signed_out_page(call),
            Endpoint::Jwks => self.jwks(),
            Endpoint::AuthJs => self.authjs(call).await,
            Endpoint::Asset => {
                self.assets.answer(call.incoming).unwrap_or_else(|| self.refused(StatusCode::NOT_FOUND, call))
            }
            _ => self.refused(StatusCode::NOT_FOUND, call),
        }
    }

    async fn with_session(&self, page: Page, call: &Call<'_>, who: &Identity) -> Reply {
        match page.0 {
            Endpoint::Account => self.own_account(call, who).await,
            Endpoint::Profile => self.change_profile(call, who).await,
            Endpoint::Password => self.change_password(call, who).await,
            Endpoint::Sessions => self.sessions(call, who).await,
            Endpoint::Tokens => self.tokens(call, who).await,
            Endpoint::Me => Self::me(who),
            Endpoint::WsTicket => self.ws_ticket(call, who),
            _ => self.refused(StatusCode::NOT_FOUND, call),
        }
    }

    /// What a form of ours, or the same as JSON, gets for a new session.
    fn signed_in_to(&self, call: &Call<'_>, fields: &Fields, wanted: Option<&str>, begun: &SignedIn) -> Reply {
        let place = self.return_to(wanted, call.incoming);
        if fields.is_json() {
            let told = json!({ "user": user_json(&begun.session.user.load()), "callbackUrl": place.as_str() });
            return self.signed_in(call, Reply::json(StatusCode::OK, &told), None, begun);
        }
        self.signed_in(call, Site::see_other(place.as_str()), Some(place.as_str()), begun)
    }

    /// Lays the cookies of a new session on a reply that leads a browser to `place`; `None`: to a program.
    fn signed_in(&self, call: &Call<'_>, reply: Reply, place: Option<&str>, begun: &SignedIn) -> Reply {
        const DEVICE_SECS: u64 = 400 * 86_400;
        if let Some(place) = place {
            self.accounts.expect_cookie(&call.caller, place, &begun.session);
        }
        let max_age = self.accounts.cookie_max_age(&begun.session);
        let session = self.cookies.set(self.cookies.session(), begun.token.expose(), max_age);
        let device = self.cookies.set(self.cookies.device(), begun.device.expose(), Some(DEVICE_SECS));
        // without a session the browser may still have kept what it was shown in the last one
        let is_same = |before: &Identity| before.user.id == begun.session.user.load().id;
        let reply = if call.identity.as_ref().map_or(begun.is_same_account, is_same) {
            reply
        } else {
            reply.with(CLEAR_SITE_DATA, HeaderValue::from_static(CACHE))
        };
        [session, device].into_iter().flatten().fold(reply, |reply, cookie| reply.with(header::SET_COOKIE, cookie))
    }

    /// Takes the session cookie away, and with it what the browser's cache holds of this account. `Clear-Site-Data:
    /// "cookies"` would take the app's own cookies too, which are the app's.
    fn without_cookie(&self, reply: Reply) -> Reply {
        let reply = reply.with(CLEAR_SITE_DATA, HeaderValue::from_static(CACHE));
        match self.cookies.remove(self.cookies.session()) {
            Some(cookie) => reply.with(header::SET_COOKIE, cookie),
            None => reply,
        }
    }

    /// The public keys of backends' tokens. A new key stands here before it signs; whoever meets an unknown `kid` all the same asks again.
    fn jwks(&self) -> Reply {
        let mut reply = Reply::json(StatusCode::OK, &self.accounts.public_keys());
        reply.headers.retain(|(name, _)| name != header::CACHE_CONTROL);
        reply.with(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"))
    }

    fn ws_ticket(&self, call: &Call<'_>, who: &Identity) -> Reply {
        match self.accounts.ticket(who, call.incoming.host) {
            Ok(ticket) => Reply::json(StatusCode::OK, &json!({ "ticket": ticket.expose(), "expires_in": TICKET_SECS })),
            Err(_) => self.refused(StatusCode::SERVICE_UNAVAILABLE, call),
        }
    }

    fn me(who: &Identity) -> Reply {
        let mut me = user_json(&who.user);
        me["expires"] = Timestamp::new(who.session.expires().saturating_mul(1000)).as_str().into();
        Reply::json(StatusCode::OK, &me)
    }

    /// The account page is a place to come back to, the other endpoints' answers are for programs.
    fn signed_out(&self, page: Page, call: &Call<'_>) -> Reply {
        if page.0 == Endpoint::Account && call.incoming.is_navigation() {
            return self.login_redirect(call.incoming, &call.caller.request_id);
        }
        let reply = if matches!(call.incoming.caller_kind(), CallerKind::Form | CallerKind::Turbo) {
            self.error_page(StatusCode::UNAUTHORIZED, &call.caller.request_id, Some(call.incoming))
        } else {
            Reply::json(
                StatusCode::UNAUTHORIZED,
                &json!({ "error": "signed_out", "login": self.login_url(call.incoming) }),
            )
        };
        reply.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }
}

/// An account as JSON endpoints show it.
fn user_json(user: &crate::account::User) -> serde_json::Value {
    json!({ "id": user.id, "email": user.email, "name": user.name, "picture": user.picture, "groups": user.groups })
}

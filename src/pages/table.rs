//! Every endpoint: its path, its name in metrics, its methods, and whether it needs a session.

use http::Method;

/// One endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page(pub(super) Endpoint);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// For everyone.
    Open(Open),
    /// For users who are signed in.
    Personal(Personal),
    /// A path under the prefix without an endpoint.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    Root,
    Login,
    Signup,
    Link,
    Logout,
    SignedOut,
    Jwks,
    Asset,
    AuthJs,
    ChangePassword,
    Provider,
    ProviderCallback,
    BackchannelLogout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Personal {
    Account,
    Profile,
    Password,
    Sessions,
    Tokens,
    Me,
    WsTicket,
    LinkProvider,
    UnlinkProvider,
}

/// One row of the table.
pub(super) struct Entry {
    /// Below the prefix; ends in `/` if more follows.
    pub(super) path: &'static str,
    pub(super) endpoint: Endpoint,
    /// In logs and metrics.
    name: &'static str,
    pub(super) methods: &'static [Method],
}

const READ: &[Method] = &[Method::GET];
const WRITE: &[Method] = &[Method::POST];
const BOTH: &[Method] = &[Method::GET, Method::POST];

const fn open(path: &'static str, name: &'static str, methods: &'static [Method], endpoint: Open) -> Entry {
    Entry { path, endpoint: Endpoint::Open(endpoint), name, methods }
}

const fn personal(path: &'static str, name: &'static str, methods: &'static [Method], endpoint: Personal) -> Entry {
    Entry { path, endpoint: Endpoint::Personal(endpoint), name, methods }
}

/// The Auth.js endpoints, below a path of their own.
static AUTHJS: Entry = open("", "authjs", BOTH, Open::AuthJs);

/// Where password managers look for the page that changes one (W3C, "A Well-Known URL for Changing Passwords").
static CHANGE_PASSWORD: Entry = open("/.well-known/change-password", "change_password", READ, Open::ChangePassword);

/// A provider's redirect URI, as configured. A few providers use POST.
static PROVIDER_CALLBACK: Entry = open("", "oauth_callback", BOTH, Open::ProviderCallback);

/// Below each OpenID provider's path; called by the provider, not by a browser.
static BACKCHANNEL_LOGOUT: Entry = open("", "oauth_backchannel_logout", WRITE, Open::BackchannelLogout);

/// The endpoints under the prefix.
pub(super) static TABLE: [Entry; 19] = [
    open("", "root", READ, Open::Root),
    open("login", "login", BOTH, Open::Login),
    open("signup", "signup", BOTH, Open::Signup),
    open("invite/", "invite", BOTH, Open::Link),
    open("reset/", "reset", BOTH, Open::Link),
    open("logout", "logout", BOTH, Open::Logout),
    open("signed-out", "signed_out", READ, Open::SignedOut),
    personal("account", "account", READ, Personal::Account),
    personal("account/profile", "account_profile", WRITE, Personal::Profile),
    personal("account/password", "account_password", WRITE, Personal::Password),
    personal("account/sessions", "account_sessions", BOTH, Personal::Sessions),
    personal("account/tokens", "account_tokens", BOTH, Personal::Tokens),
    personal("account/link/", "account_link", WRITE, Personal::LinkProvider),
    personal("account/unlink", "account_unlink", WRITE, Personal::UnlinkProvider),
    open("oauth/", "oauth", BOTH, Open::Provider),
    personal("me", "me", READ, Personal::Me),
    open("jwks.json", "jwks", READ, Open::Jwks),
    personal("ws-ticket", "ws_ticket", WRITE, Personal::WsTicket),
    open("assets/", "asset", READ, Open::Asset),
];

impl Page {
    /// Its row; `None` for a path without an endpoint.
    pub(super) fn entry(self) -> Option<&'static Entry> {
        let own = [&AUTHJS, &PROVIDER_CALLBACK, &BACKCHANNEL_LOGOUT, &CHANGE_PASSWORD];
        own.into_iter().chain(&TABLE).find(|entry| entry.endpoint == self.0)
    }

    /// Whether a provider calls it, not a browser: cookies and origin are ignored.
    pub fn is_for_providers(self) -> bool {
        self.0 == Endpoint::Open(Open::BackchannelLogout)
    }

    /// Whether what it shows or does depends on who asks.
    pub fn depends_on_identity(self) -> bool {
        use Open::{Asset, BackchannelLogout, ChangePassword, Jwks, Root};
        !matches!(self.0, Endpoint::Open(Asset | BackchannelLogout | ChangePassword | Jwks | Root) | Endpoint::Unknown)
    }

    /// The page that applies only if no route matches its path.
    pub fn without_route(path: &[u8]) -> Option<Self> {
        (path == CHANGE_PASSWORD.path.as_bytes()).then_some(Self(CHANGE_PASSWORD.endpoint))
    }

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        self.entry().map_or("unknown", |entry| entry.name)
    }

    /// Whether the body of a request with this method is read.
    pub fn takes_body(self, method: &Method) -> bool {
        method == Method::POST && self.entry().is_some_and(|entry| entry.methods.contains(method))
    }
}

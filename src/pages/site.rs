//! The part of the pages that depends only on the configuration: own paths, the login page's address, what a page
//! looks like. Denying a request needs nothing else, so `authgate explain` can use it as well.

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::assets::Assets;
use super::table::{Endpoint, Entry, Open, Page, TABLE};
use super::{content_security_policy, guard};
use crate::config::{AuthJs, Config};
use crate::web::host::HostPattern;
use crate::web::incoming::Incoming;
use crate::web::origin::Origin;
use crate::web::reply::Reply;
use crate::web::return_to::{PLACE_BYTES_MAX, ReturnRules, ReturnTo};

/// Bytes of a login page's address besides the return URL: page, parameter names, an origin.
const LOGIN_URL_BYTES_SPARE: usize = 512;

/// Paths, texts and look of the pages, built once per configuration.
pub struct Site {
    pub(super) prefix: String,
    pub(super) login_path: String,
    pub(super) signup_path: String,
    pub(super) title: String,
    /// The provider that the login page leads to at once (`pages.provider_first`).
    pub(super) first_provider: Option<String>,
    pub(super) public_url: Origin,
    pub(super) rules: ReturnRules,
    pub(super) authjs: AuthJs,
    pub(super) assets: Assets,
    pub(super) policy: HeaderValue,
    /// Redirect URIs (paths) of providers.
    callbacks: Vec<String>,
    /// Back-channel logout endpoints of OpenID providers.
    logouts: Vec<String>,
    /// Origins that receive callbacks by way of `public_url`.
    relayed: Vec<Origin>,
    /// Longest address of the login page that its own listener takes: half a head (`limits.head_bytes`).
    login_url_bytes_max: usize,
}

impl Site {
    /// Prepares what templates need: asset names, policies, paths.
    pub fn new(config: &Config) -> Self {
        let prefix = config.server.prefix.clone();
        let own = |extra: &Option<String>, name: &str| extra.clone().unwrap_or_else(|| format!("{prefix}/{name}"));
        let login_path = own(&config.pages.login, "login");
        let signup_path = own(&config.pages.signup, "signup");
        let rules = ReturnRules {
            after_login: config.pages.after_login.clone(),
            domain: config.session.domain.clone(),
            origins: config.pages.callback_origins.clone(),
            own_pages: [&prefix, &login_path, &signup_path]
                .into_iter()
                .chain(&config.authjs.base_path)
                .chain(config.providers.iter().map(|provider| &provider.callback))
                .cloned()
                .collect(),
        };
        Self {
            assets: Assets::new(&prefix, &config.pages.look),
            policy: content_security_policy::policy(config),
            callbacks: config.providers.iter().map(|provider| provider.callback.clone()).collect(),
            logouts: config
                .providers
                .iter()
                .filter(|provider| provider.kind.is_openid())
                .map(|provider| provider.backchannel_logout_path(&prefix))
                .collect(),
            relayed: relayed(config),
            login_url_bytes_max: (config.limits.head_bytes / 2).saturating_sub(LOGIN_URL_BYTES_SPARE),
            title: config.pages.title.clone(),
            first_provider: config
                .providers
                .first()
                .filter(|_| config.pages.provider_first)
                .map(|provider| provider.name.clone()),
            public_url: config.server.public_url.clone(),
            prefix,
            login_path,
            signup_path,
            rules,
            authjs: config.authjs.clone(),
        }
    }

    /// Whether a path, as a backend may read it, names a page of ours.
    pub fn is_own(&self, reading: &[u8]) -> bool {
        self.find(&String::from_utf8_lossy(reading)).is_some()
    }

    /// The page at a path; everything under the prefix belongs to the gateway, known or not.
    pub fn find(&self, path: &str) -> Option<Page> {
        if path == self.login_path {
            return Some(Page(Endpoint::Open(Open::Login)));
        }
        if path == self.signup_path {
            return Some(Page(Endpoint::Open(Open::Signup)));
        }
        if self.callbacks.iter().any(|callback| callback == path) {
            return Some(Page(Endpoint::Open(Open::ProviderCallback)));
        }
        if self.logouts.iter().any(|logout| logout == path) {
            return Some(Page(Endpoint::Open(Open::BackchannelLogout)));
        }
        if self.is_authjs(path) {
            return Some(Page(Endpoint::Open(Open::AuthJs)));
        }
        let below = path.strip_prefix(self.prefix.as_str())?;
        let rest = match below.strip_prefix('/') {
            Some(rest) => rest,
            None if below.is_empty() => "",
            None => return None,
        };
        let found = TABLE.iter().find(|Entry { path: own, .. }| {
            if own.ends_with('/') { rest.len() > own.len() && rest.starts_with(own) } else { rest == *own }
        });
        Some(Page(found.map_or(Endpoint::Unknown, |entry| entry.endpoint)))
    }

    /// Whether a path is below `authjs.base_path`.
    fn is_authjs(&self, path: &str) -> bool {
        let Some(base) = &self.authjs.base_path else { return false };
        path.strip_prefix(base.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The login page's address with callbackUrl; only navigations are returned to.
    pub fn login_url(&self, incoming: &Incoming<'_>) -> String {
        if incoming.is_navigation() {
            return self.login_url_for(incoming, &incoming.origin_form());
        }
        self.login_page(incoming)
    }

    /// The login page's address for htmx, which returns to the page that htmx runs on, if that is one of ours.
    pub fn htmx_login(&self, incoming: &Incoming<'_>) -> HeaderValue {
        let own = self.own(incoming);
        let page = incoming.single("hx-current-url").and_then(|url| ReturnTo::parse(url, &own, &self.rules));
        let url = match page {
            Some(page) => self.login_url_for(incoming, page.as_str()),
            None => self.login_page(incoming),
        };
        HeaderValue::try_from(url).unwrap_or(HeaderValue::from_static("/"))
    }

    /// The login page's address with the way back to `place`, a path on the host that was asked or an absolute address.
    /// If it is too long, only its path is kept, and the login page says so.
    pub(super) fn login_url_for(&self, incoming: &Incoming<'_>, place: &str) -> String {
        let page = self.login_page(incoming);
        let absolute = page.starts_with("http") && place.starts_with('/');
        let place = if absolute { format!("{}{place}", incoming.origin()) } else { place.to_owned() };
        let fits = |place: &str, url: &str| place.len() <= PLACE_BYTES_MAX && url.len() <= self.login_url_bytes_max;
        let url = Self::leading_to(&page, &place);
        if fits(&place, &url) {
            return url;
        }
        let path = place.split(['?', '#']).next().unwrap_or_default();
        let url = format!("{}&shortened=1", Self::leading_to(&page, path));
        if fits(path, &url) { url } else { page }
    }

    /// A page's address with a return URL. Escapes only what a value in a query cannot contain
    /// (RFC 3986, 3.4; `+` is a space there, `;` separates for some), so that long places stay short.
    pub(super) fn leading_to(page: &str, place: &str) -> String {
        const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b';');
        const ESCAPED_TOO: &AsciiSet = &ESCAPED
            .add(b'<')
            .add(b'>')
            .add(b'[')
            .add(b'\\')
            .add(b']')
            .add(b'^')
            .add(b'`')
            .add(b'{')
            .add(b'|')
            .add(b'}');
        format!("{page}?callbackUrl={}", utf8_percent_encode(place, ESCAPED_TOO))
    }

    /// The address of the page after a form: it keeps the form's return URL.
    pub(super) fn leading_back(&self, incoming: &Incoming<'_>, page: &str, wanted: Option<&str>) -> String {
        let place = wanted.map(|wanted| self.return_to(Some(wanted), incoming));
        place.map_or_else(|| page.to_owned(), |place| Self::leading_to(page, place.as_str()))
    }

    /// With `session.domain` the login page is at `public_url`, otherwise on every host.
    pub(super) fn login_page(&self, incoming: &Incoming<'_>) -> String {
        if self.rules.domain.is_some() && incoming.origin() != self.public_url {
            return format!("{}{}", self.public_url, self.login_path);
        }
        self.login_path.clone()
    }

    /// Whether this origin receives callbacks by way of `public_url`.
    pub(super) fn is_relayed(&self, origin: &Origin) -> bool {
        self.relayed.contains(origin)
    }

    /// The origin of this host, if it receives callbacks by way of `public_url`.
    pub(super) fn relayed_origin(&self, host: &str) -> Option<&Origin> {
        self.relayed.iter().find(|origin| origin.host() == host)
    }

    /// The gateway's own origins for this request.
    pub(super) fn own(&self, incoming: &Incoming<'_>) -> [Origin; 2] {
        guard::own_origins(&self.public_url, self.rules.domain.as_deref(), incoming)
    }

    pub(super) fn return_to(&self, wanted: Option<&str>, incoming: &Incoming<'_>) -> ReturnTo {
        ReturnTo::judge(wanted, &[incoming.origin(), self.public_url.clone()], &self.rules)
    }

    pub(super) fn see_other(place: &str) -> Reply {
        match HeaderValue::try_from(place) {
            Ok(place) => Reply::see_other(place),
            Err(_) => Reply::see_other(HeaderValue::from_static("/")),
        }
    }
}

/// Hosts that routes name in full, other than that of `public_url`, with its scheme and port.
fn relayed(config: &Config) -> Vec<Origin> {
    let server = &config.server;
    if server.is_public_url_guessed || config.providers.is_empty() {
        return Vec::new();
    }
    let mut origins: Vec<Origin> = Vec::new();
    for route in config.routes.iter() {
        let HostPattern::Exact(host) = &route.host else { continue };
        let origin = server.public_url.with_host(host);
        let has_port = host.port().is_none_or(|port| port == origin.port());
        if has_port && origin != server.public_url && !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    origins
}

//! What of the pages hangs on the configuration alone: which paths are ours, where login is, what a page
//! looks like. Refusing a request needs this and no account, so that `authgate explain` can ask it too.

use http::HeaderValue;

use super::assets::Assets;
use super::{Endpoint, Page, TABLE, view};
use crate::config::{AuthJs, Config};
use crate::web::incoming::Incoming;
use crate::web::origin::Origin;
use crate::web::reply::Reply;
use crate::web::return_to::{ReturnRules, ReturnTo};

/// Longest address of the login page with a way back in it: below half of `limits.head_bytes` and `limits.form_bytes`
/// at their defaults, as it is asked for and as it is sent with the form.
const LOGIN_URL_BYTES_MAX: usize = 6144;

/// Paths, texts and looks of the pages; made once.
pub struct Site {
    pub(super) prefix: String,
    pub(super) login_path: String,
    pub(super) signup_path: String,
    pub(super) title: String,
    pub(super) public_url: Origin,
    pub(super) rules: ReturnRules,
    pub(super) authjs: AuthJs,
    pub(super) assets: Assets,
    pub(super) policy: HeaderValue,
}

impl Site {
    /// Compiles templates' surroundings: asset names, policies, paths.
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
                .cloned()
                .collect(),
        };
        Self {
            assets: Assets::new(&prefix, &config.pages.look),
            policy: view::policy(config),
            title: config.pages.title.clone(),
            public_url: config.server.public_url.clone(),
            prefix,
            login_path,
            signup_path,
            rules,
            authjs: config.authjs.clone(),
        }
    }

    /// Which page a path names; everything under the prefix is ours, known or not.
    pub fn find(&self, path: &str) -> Option<Page> {
        if path == self.login_path {
            return Some(Page(Endpoint::Login));
        }
        if path == self.signup_path {
            return Some(Page(Endpoint::Signup));
        }
        if self.is_authjs(path) {
            return Some(Page(Endpoint::AuthJs));
        }
        let below = path.strip_prefix(self.prefix.as_str())?;
        let rest = match below.strip_prefix('/') {
            Some(rest) => rest,
            None if below.is_empty() => "",
            None => return None,
        };
        let found = TABLE.iter().find(|(own, ..)| {
            if own.ends_with('/') { rest.len() > own.len() && rest.starts_with(own) } else { rest == *own }
        });
        Some(Page(found.map_or(Endpoint::Unknown, |entry| entry.1)))
    }

    /// 303 to the login page, with the way back.
    pub fn login_redirect(&self, incoming: &Incoming<'_>, request_id: &str) -> Reply {
        if let Some(reply) = self.outside_domain(incoming, request_id) {
            return reply;
        }
        Self::see_other(&self.login_url(incoming))
    }

    /// The login page's address with callbackUrl; only a navigation is remembered as a way back.
    pub fn login_url(&self, incoming: &Incoming<'_>) -> String {
        let mut url = self.login_page(incoming);
        if incoming.is_navigation() {
            let query = incoming.query.map(|query| format!("?{query}")).unwrap_or_default();
            let away = url.starts_with("http");
            let origin = if away { incoming.origin().to_string() } else { String::new() };
            let back = format!("{origin}{}{query}", incoming.path.as_str());
            let with_way_back = Self::leading_to(&url, &back);
            // what is too long to be asked for would lead to no login page at all
            if with_way_back.len() <= LOGIN_URL_BYTES_MAX {
                url = with_way_back;
            }
        }
        url
    }

    /// A page's address, with the place where it is to lead.
    pub(super) fn leading_to(page: &str, place: &str) -> String {
        let place: String = form_urlencoded::byte_serialize(place.as_bytes()).collect();
        format!("{page}?callbackUrl={place}")
    }

    /// With a shared domain login is at `public_url`, else on every host.
    pub(super) fn login_page(&self, incoming: &Incoming<'_>) -> String {
        if self.rules.domain.is_some() && incoming.origin() != self.public_url {
            return format!("{}{}", self.public_url, self.login_path);
        }
        self.login_path.clone()
    }

    /// Origins that are ours for this request.
    pub(super) fn own(&self, incoming: &Incoming<'_>) -> [Origin; 2] {
        [incoming.origin(), self.public_url.clone()]
    }

    pub(super) fn return_to(&self, wanted: Option<&str>, incoming: &Incoming<'_>) -> ReturnTo {
        ReturnTo::judge(wanted, &self.own(incoming), &self.rules)
    }

    pub(super) fn see_other(place: &str) -> Reply {
        match HeaderValue::try_from(place) {
            Ok(place) => Reply::see_other(place),
            Err(_) => Reply::see_other(HeaderValue::from_static("/")),
        }
    }
}

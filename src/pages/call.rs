//! A request to one of the pages, and what all pages share.

use std::ops::Deref;

use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;

use super::site::Site;
use crate::account::{Accounts, Caller, Identity, User};
use crate::config::{Config, SameSite, SignUp};
use crate::web::cookie::CookieStyle;
use crate::web::incoming::Incoming;
use crate::web::origin::Origin;

/// A request to one of the pages, after its body was read.
pub struct Call<'a> {
    /// The request.
    pub incoming: &'a Incoming<'a>,
    /// The user, if a valid credential was presented.
    pub identity: Option<Identity>,
    /// Credentials were presented, and whether they are valid cannot be known now.
    pub is_unavailable: bool,
    /// The renewed session cookie, if it is due.
    pub renewed: Option<HeaderValue>,
    /// The whole body.
    pub body: Bytes,
    /// The client.
    pub caller: Caller,
}

/// All pages, built once per configuration.
pub struct Pages {
    pub(super) site: Site,
    pub(super) accounts: Accounts,
    pub(super) sign_up: SignUp,
    /// `password.enabled`: pages without forms for passwords otherwise.
    pub(super) has_passwords: bool,
    pub(super) min_length: usize,
    /// Configured CORS origins, which may call the gateway's endpoints.
    pub(super) shared_with: Vec<Origin>,
    /// Cookies that carry upstreams' tokens.
    pub(super) token_cookies: Vec<String>,
    pub(super) cookies: CookieStyle,
    pub(super) same_site: SameSite,
}

impl Deref for Pages {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Pages {
    /// Builds the pages.
    pub fn new(config: &Config, accounts: Accounts) -> Self {
        let tokens = config.upstreams.iter().filter_map(|upstream| upstream.token.as_ref());
        Self {
            site: Site::new(config),
            accounts,
            sign_up: config.sign_up,
            has_passwords: config.password.enabled,
            min_length: config.password.min_length,
            shared_with: config.cors_origins.clone(),
            token_cookies: tokens.flat_map(|token| token.cookies.iter().cloned()).collect(),
            cookies: config.cookie_style(),
            same_site: config.session.same_site,
        }
    }
}

/// An account as JSON.
pub(super) fn user_json(user: &User) -> serde_json::Value {
    json!({ "id": user.id, "email": user.email, "name": user.name, "picture": user.picture, "groups": user.groups })
}

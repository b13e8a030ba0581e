//! A backend token as it is sent, and the cached tokens of a session.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;

use super::signing_key::SigningKey;
use crate::account::session::user::User;
use crate::clock::UnixSecs;
use crate::config::{BackendToken, TokenFormat};

/// A token as it is sent, until it is renewed.
pub struct IssuedToken {
    /// `Bearer ...`
    pub bearer: Option<HeaderValue>,
    /// Value of `X-Authgate-Jwt-Assertion`.
    pub assertion: Option<HeaderValue>,
    /// `name=value` pairs joined by `; `; empty if no cookie carries it.
    pub cookies: String,
    pub(crate) user: Arc<User>,
    pub(crate) key: Option<Arc<SigningKey>>,
    pub(crate) renew_at: UnixSecs,
}

/// A session's cached tokens, by issuer id. Read by every request without a lock. `None` uses no memory.
#[derive(Default)]
pub struct IssuedTokens(pub(crate) ArcSwapOption<Vec<(u64, Arc<IssuedToken>)>>);

impl std::fmt::Debug for IssuedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MintedTokens(..)")
    }
}

impl IssuedToken {
    /// A readable placeholder for a token, where none is issued (`explain`).
    pub fn placeholder(spec: &BackendToken, upstream: &str, user: &Arc<User>) -> Self {
        let format = match spec.format {
            TokenFormat::Jwt => "JWT",
            TokenFormat::NextAuthV4 => "next-auth 4 token",
            TokenFormat::AuthJsV5 => "Auth.js 5 token",
        };
        let name = format!("<a {format} for {upstream}, good for {} s>", spec.lifetime.as_secs());
        let value = |text: String| HeaderValue::try_from(text).ok();
        Self {
            bearer: value(format!("Bearer {name}")).filter(|_| spec.bearer),
            assertion: value(name.clone()).filter(|_| spec.assertion),
            cookies: spec.cookies.iter().map(|cookie| format!("{cookie}={name}")).collect::<Vec<_>>().join("; "),
            user: Arc::clone(user),
            key: None,
            renew_at: 0,
        }
    }

    /// Not due for renewal, signed with the current key, and with the account's current data.
    pub(crate) fn is_valid(&self, user: &Arc<User>, key: Option<&Arc<SigningKey>>, now: UnixSecs) -> bool {
        let same_key = match (&self.key, key) {
            (None, None) => true,
            (Some(own), Some(key)) => Arc::ptr_eq(own, key),
            _ => false,
        };
        now < self.renew_at && same_key && Arc::ptr_eq(&self.user, user)
    }
}

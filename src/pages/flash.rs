//! What a failed sign-in says on the page that the browser is led to: once, in that browser alone. Answering the form
//! itself with the page would make Back and reload ask whether to send it again.

use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

use super::{Call, Pages};
use crate::web::cookie;
use crate::web::reply::Reply;

/// The next page is there within seconds.
const SECS: u64 = 60;
/// The longest value that is read, bytes.
const BYTES_MAX: usize = 1024;

/// What a failed sign-in leaves for the login page.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Flash {
    /// A word of [`super::login::message`].
    pub(super) error: String,
    /// With `throttled`: when a try can succeed.
    pub(super) wait_secs: u64,
    pub(super) email: String,
    pub(super) remember: bool,
}

impl Pages {
    /// Leaves it in the browser.
    pub(super) fn with_flash(&self, reply: Reply, flash: &Flash) -> Reply {
        let value = serde_json::to_vec(flash).unwrap_or_default();
        let value = data_encoding::BASE64URL_NOPAD.encode(&value);
        let fits = Some(value).filter(|value| value.len() <= BYTES_MAX);
        match fits.and_then(|value| self.cookies.set_for_host(self.cookies.flash(), &value, SECS)) {
            Some(cookie) => reply.with(header::SET_COOKIE, cookie),
            None => reply,
        }
    }

    /// What a failed sign-in left, if this is the page after it.
    pub(super) fn flash(&self, call: &Call<'_>) -> Option<Flash> {
        let (_, value) =
            cookie::pairs(call.incoming.headers).find(|(name, _)| *name == self.cookies.flash().as_bytes())?;
        let value = Some(value).filter(|value| value.len() <= BYTES_MAX)?;
        serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(value).ok()?).ok()
    }

    /// Takes it out of the browser.
    pub(super) fn without_flash(&self, reply: Reply) -> Reply {
        let cookie: Option<HeaderValue> = self.cookies.set_for_host(self.cookies.flash(), "", 0);
        cookie.into_iter().fold(reply, |reply, cookie| reply.with(header::SET_COOKIE, cookie))
    }
}

//! The error of a failed form, shown once on the page that the browser is redirected to. Responding to the form
//! with the page itself would make Back and reload ask whether to send the form again.

use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

use super::call::{Call, Pages};
use super::form::Fields;
use super::site::Site;
use crate::secret::same_bytes;
use crate::web::cookie;
use crate::web::reply::Reply;

/// The next page is loaded within seconds.
const SECS: u64 = 60;
/// Longest cookie value, bytes.
const BYTES_MAX: usize = 2048;
/// Fields that are filled in again; none of them is secret.
const KEPT: [&str; 10] = [
    "email",
    "remember",
    "remember_shown",
    "name",
    "picture",
    "keep_tokens",
    "callbackUrl",
    "token_name",
    "scopes",
    "days",
];

/// What a failed form passes to its page.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Flash {
    /// The form; on an account's page also the account's id.
    form: (String, String),
    /// The error message.
    error: String,
    /// The invalid field, or "".
    field: String,
    /// What was typed.
    typed: Vec<(String, String)>,
}

impl Flash {
    pub(super) fn new((form, account): (&str, &str), (error, field): (&str, &str), fields: &Fields) -> Self {
        let typed = KEPT.iter().filter_map(|name| Some(((*name).to_owned(), fields.get(name)?.to_owned())));
        Self {
            form: (form.to_owned(), account.to_owned()),
            error: error.to_owned(),
            field: field.to_owned(),
            typed: typed.collect(),
        }
    }

    /// The error message and the invalid field.
    pub(super) fn told(&self) -> (&str, &str) {
        (&self.error, &self.field)
    }

    pub(super) fn fields(&self) -> Fields {
        Fields::typed(self.typed.clone())
    }
}

/// Whether a browser sent this form and follows its redirect: a navigation, by its fetch metadata or, over plain
/// http, by other fields that only navigations have.
pub(super) fn is_browsers(call: &Call<'_>) -> bool {
    match call.incoming.single("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => call.incoming.single("upgrade-insecure-requests") == Some("1") && call.incoming.wants_page(),
    }
}

/// Redirects the browser that sent a form to the page at `place`, which shows the error. `None`: not a browser, or more
/// input than fits into a cookie.
pub(super) fn failed_form(pages: &Pages, call: &Call<'_>, place: &str, flash: &Flash) -> Option<Reply> {
    if !is_browsers(call) {
        return None;
    }
    let value = data_encoding::BASE64URL_NOPAD.encode(&serde_json::to_vec(flash).ok()?);
    let value = format!("{value}.{}", seal_of(pages, call, &value)?);
    let value = Some(value).filter(|value| value.len() <= BYTES_MAX)?;
    let cookie = pages.cookies.set_for_host(pages.cookies.flash(), &value, SECS)?;
    Some(Site::see_other(place).with(header::SET_COOKIE, cookie))
}

/// What one of these forms passed to this page, and which form it was.
pub(super) fn take(
    pages: &Pages,
    call: &Call<'_>,
    forms: &[&'static str],
    account: &str,
) -> Option<(&'static str, Flash)> {
    let (_, value) =
        cookie::pairs(call.incoming.headers).find(|(name, _)| *name == pages.cookies.flash().as_bytes())?;
    let value = std::str::from_utf8(value).ok().filter(|value| value.len() <= BYTES_MAX)?;
    let (value, seal) = value.split_once('.')?;
    if !same_bytes(seal_of(pages, call, value)?.as_bytes(), seal.as_bytes()) {
        return None;
    }
    let flash: Flash = serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(value.as_bytes()).ok()?).ok()?;
    let form = forms.iter().find(|form| **form == flash.form.0 && account == flash.form.1)?;
    Some((form, flash))
}

/// Proves that the gateway wrote it on this host: otherwise an app there, or a sibling host, could make the login page
/// say anything.
fn seal_of(pages: &Pages, call: &Call<'_>, value: &str) -> Option<String> {
    pages.accounts.tag(&format!("flash {} {value}", call.incoming.host.name()))
}

/// Deletes the cookie.
pub(super) fn without_flash(pages: &Pages, reply: Reply) -> Reply {
    let cookie: Option<HeaderValue> = pages.cookies.set_for_host(pages.cookies.flash(), "", 0);
    cookie.into_iter().fold(reply, |reply, cookie| reply.with(header::SET_COOKIE, cookie))
}

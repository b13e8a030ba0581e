//! Providers on pages: buttons, and the linked identities of an account.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::call::{Call, Pages};
use super::view::{Button, IdentityLine};
use crate::account::identity::links;
use crate::account::provider::providers::Providers;
use crate::account::provider::start::CLIENT_PARAMS;
use crate::account::{Identity, last_used};
use crate::config::Provider;

/// Buttons for all providers, in the order of the configuration. `more`: further query parameters.
pub(super) fn buttons(pages: &Pages, place: &str, more: &[(&str, &str)]) -> Vec<Button> {
    let button = |provider: &Provider| {
        let pairs = [("callbackUrl", place)].into_iter().chain(more.iter().copied());
        let query: Vec<String> = pairs
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        let question = if query.is_empty() { "" } else { "?" };
        let href = format!("{}/oauth/{}{question}{}", pages.prefix, provider.name, query.join("&"));
        let (name, kind) = (provider.name.clone(), provider.kind.word());
        Button { name, kind, label: provider.label.clone(), href, is_last_used: false }
    };
    all(pages).map(button).collect()
}

/// The buttons of the login page: the one that this browser used last is marked.
pub(super) async fn login_buttons(pages: &Pages, call: &Call<'_>, place: &str) -> Vec<Button> {
    let mut buttons = buttons(pages, place, &[]);
    if !buttons.is_empty() {
        let last_used = last_used::provider(&pages.accounts, &call.caller).await;
        for button in &mut buttons {
            button.is_last_used = last_used.as_ref() == Some(&button.name);
        }
    }
    buttons
}

/// All providers but one, for buttons of a form.
pub(super) fn others(pages: &Pages, but: &str) -> Vec<Button> {
    buttons(pages, "", &[]).into_iter().filter(|button| button.name != but).collect()
}

/// All providers, in the order of the configuration.
pub(super) fn all(pages: &Pages) -> impl Iterator<Item = &Provider> {
    pages.accounts.providers().into_iter().flat_map(Providers::list)
}

/// The account's linked identities; `None`: the store does not respond.
pub(super) async fn identity_lines(pages: &Pages, who: &Identity) -> Option<Vec<IdentityLine>> {
    let rows = links::list(&pages.accounts, who).await.ok()?;
    let label =
        |name: &str| all(pages).find(|provider| provider.name == name).map_or(name.to_owned(), |own| own.label.clone());
    Some(rows.into_iter().map(|row| IdentityLine::new(label(&row.provider), row, &pages.prefix)).collect())
}

/// Query parameters that are passed to the provider.
pub(super) fn client_params(call: &Call<'_>) -> Vec<(String, String)> {
    let pairs = form_urlencoded::parse(call.incoming.query.unwrap_or_default());
    pairs
        .filter(|(name, _)| CLIENT_PARAMS.contains(&name.as_ref()))
        .map(|(n, v)| (n.into_owned(), v.into_owned()))
        .collect()
}

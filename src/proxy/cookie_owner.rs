//! Whose cookies of apps a request carries.

use http::HeaderMap;

use super::gateway::Gateway;
use super::request_state::RequestState;
use crate::account::User;
use crate::config::AppCookieRule;
use crate::policy::app_cookies::Context;
use crate::web::cookie;

/// The account that the cookies of a request belong to, wherever its session was shown (a ticket, too, is sent by a browser with
/// the app's cookies); `None`: they are not looked at. An API token is a program's, unless a record shows a browser.
pub(super) fn owner<'s>(gateway: &Gateway, state: &'s RequestState, headers: &HeaderMap) -> Option<&'s User> {
    let identity = state.identity.as_ref()?;
    let by_browser = || cookie::values(headers, gateway.cookies.apps()).next().is_some();
    let looked_at = gateway.config.session.app_cookies == AppCookieRule::PerAccount;
    (looked_at && (identity.grant.is_none() || by_browser())).then_some(&identity.user)
}

pub(super) fn context(gateway: &Gateway) -> Context<'_> {
    Context {
        key: gateway.accounts.app_cookie_key(),
        cookies: &gateway.cookies,
        stripper: &gateway.stripper,
        settled: &gateway.settled,
    }
}

//! `[[provider]]`: what happens after the sign-in.

use std::time::Duration;

use crate::config::file::Table;
use crate::config::{KeptTokens, ProviderKind, SignOut};

/// Shortest time between two rechecks of a session.
const RECHECK_MIN: Duration = Duration::from_secs(5);

/// Apple documents one check of a refresh token a day.
const APPLE_RECHECK_MIN: Duration = Duration::from_secs(86_400);

/// `recheck`. Two kinds give no refresh token unless they are asked for one.
pub(super) fn recheck(
    table: &Table<'_>,
    kind: Option<ProviderKind>,
    scopes: &[String],
    params: &[(String, String)],
) -> Option<Duration> {
    let is_off = table.value("recheck").is_none_or(|value| value.get_ref().as_str() == Some(""));
    let every = if is_off { None } else { table.duration("recheck", RECHECK_MIN) }?;
    if let Some(missing) = kind.and_then(|kind| missing_offline(kind, scopes, params)) {
        let what = "this provider gives no refresh token, so every session ends at its first recheck";
        table.reading.warn(table.span_of("recheck"), what, format!("add {missing}"));
    }
    if kind == Some(ProviderKind::Apple) && every.value < APPLE_RECHECK_MIN {
        let what = "Apple may refuse to check a session more often than once a day";
        table.reading.warn(table.span_of("recheck"), what, "use recheck = \"1d\"");
    }
    Some(every.value)
}

/// What a provider needs to be asked for a refresh token, if it is not.
pub(super) fn missing_offline(
    kind: ProviderKind,
    scopes: &[String],
    params: &[(String, String)],
) -> Option<&'static str> {
    let has_param = |name: &str, value: &str| params.iter().any(|(own, text)| own == name && text == value);
    match kind {
        ProviderKind::Google if !has_param("access_type", "offline") => {
            Some("params = { access_type = \"offline\", prompt = \"consent\" }")
        }
        ProviderKind::Microsoft if !scopes.iter().any(|scope| scope == "offline_access") => {
            Some("scopes = [\"offline_access\"]")
        }
        _ => None,
    }
}

/// `sign_out`
pub(super) fn sign_out(table: &Table<'_>, kind: Option<ProviderKind>) -> SignOut {
    let sign_out = table.choice("sign_out", &[("local", SignOut::Local), ("provider", SignOut::Provider)]);
    let sign_out = sign_out.unwrap_or(SignOut::Local);
    let has_none = kind.filter(|kind| !kind.is_openid() || matches!(kind, ProviderKind::Google | ProviderKind::Apple));
    if let Some(kind) = has_none.filter(|_| sign_out == SignOut::Provider) {
        let what = format!("kind \"{}\" has no sign-out that a gateway can ask for", kind.word());
        table.reading.fault(table.span_of("sign_out"), what, "remove it: people sign out there themselves");
    }
    sign_out
}

/// The tokens that these keys ask for.
pub(super) fn kept(kind: ProviderKind, rechecks: bool, sign_out: SignOut) -> KeptTokens {
    KeptTokens { id: sign_out == SignOut::Provider, access: rechecks && !kind.is_openid(), refresh: rechecks }
}

//! Sign-in through providers alone: what then has to fit together.

use crate::config::file::Table;
use crate::config::{Pages, Password, Provider, SignUp};

/// The tables that faults point to.
pub(super) struct Tables<'a> {
    pub(super) password: Table<'a>,
    pub(super) pages: Table<'a>,
    pub(super) sign_up: Table<'a>,
}

/// Reports what would keep people out. `typed`: number of `[[provider]]` tables, sound or not. Gives the sign-up mode:
/// without passwords it is closed if no provider creates accounts.
pub(super) fn check(
    tables: &Tables<'_>,
    (password, pages, sign_up): (&Password, &Pages, SignUp),
    typed: usize,
    providers: &[Provider],
) -> SignUp {
    let fault =
        |table: &Table<'_>, key, what: &str, remedy: &str| table.reading.fault(table.span_of(key), what, remedy);
    if !password.enabled && typed == 0 {
        let what = "passwords are off and there is no [[provider]], so no one could sign in";
        fault(&tables.password, "enabled", what, "add a [[provider]], or leave `enabled` out");
    }
    if pages.provider_first && password.enabled {
        let what = "`provider_first` skips the login page, so people with a password could not sign in";
        let remedy = "if there are none, set `enabled = false` in [password]; otherwise leave `provider_first` out";
        fault(&tables.pages, "provider_first", what, remedy);
    } else if pages.provider_first && typed > 1 {
        let what = format!("`provider_first` skips the login page, where people choose one of {typed} providers");
        let remedy = "leave it out; a link to /.auth/login?provider=NAME skips the page for one of them";
        fault(&tables.pages, "provider_first", &what, remedy);
    }
    let creates_none = providers.len() == typed && providers.iter().all(|provider| provider.sign_up == SignUp::Closed);
    if password.enabled || typed == 0 || !creates_none || sign_up == SignUp::Closed {
        return sign_up;
    }
    if tables.sign_up.has("mode") {
        let what = "passwords are off and no provider creates accounts, so no one could sign up";
        let remedy = "set `mode = \"closed\"`, or leave `sign_up` out in a [[provider]]";
        fault(&tables.sign_up, "mode", what, remedy);
    }
    SignUp::Closed
}

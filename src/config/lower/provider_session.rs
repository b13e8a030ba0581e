//! `[[provider]]`: what happens after the sign-in.

use crate::config::file::Table;
use crate::config::{KeptTokens, ProviderKind, SignOut};

/// `sign_out`
pub(super) fn sign_out(table: &Table<'_>, kind: Option<ProviderKind>) -> SignOut {
    let sign_out = table.choice("sign_out", &[("local", SignOut::Local), ("provider", SignOut::Provider)]);
    let sign_out = sign_out.unwrap_or(SignOut::Local);
    let has_none = kind.filter(|kind| !kind.is_openid() || *kind == ProviderKind::Google);
    if let Some(kind) = has_none.filter(|_| sign_out == SignOut::Provider) {
        let what = format!("kind \"{}\" has no sign-out that a gateway can ask for", kind.word());
        table.reading.fault(table.span_of("sign_out"), what, "remove it: people sign out there themselves");
    }
    sign_out
}

/// The tokens that these keys ask for.
pub(super) fn kept(sign_out: SignOut) -> KeptTokens {
    KeptTokens { id: sign_out == SignOut::Provider, ..KeptTokens::default() }
}

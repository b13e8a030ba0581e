//! `upstream.token`: a short-lived JWT for one backend.

use std::time::Duration;

use crate::config::file::{Item, Table};
use crate::config::secret::secret;
use crate::config::{BackendToken, Secrets, TokenFormat, TokenKey};
use crate::secret::Secret;
use crate::web::cookie;

/// An HMAC key shorter than its hash output weakens the signature (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Hs256,
    EdDsa,
    Es256,
}

pub(super) fn token(upstream: &Table<'_>) -> Option<BackendToken> {
    if !upstream.has("token") {
        return None;
    }
    let table = upstream.table("token", "token");
    let words =
        [("jwt", TokenFormat::Jwt), ("next-auth-v4", TokenFormat::NextAuthV4), ("authjs-v5", TokenFormat::AuthJsV5)];
    let format = table.choice("format", &words).unwrap_or(TokenFormat::Jwt);
    let key = key(&table, format);
    let mut sent = BackendToken {
        key: TokenKey::Ed25519,
        format,
        bearer: false,
        assertion: false,
        cookies: Vec::new(),
        lifetime: lifetime(&table),
    };
    match table.texts("send", "bearer") {
        None => by_default(&mut sent),
        Some(list) => {
            for way in &list.value {
                send(way, &mut sent);
            }
            if list.value.is_empty() {
                list.fault("`send` is empty, so the token would never be sent", "set `send = [\"bearer\"]`");
            }
        }
    }
    Some(BackendToken { key: key?, ..sent })
}

fn key(table: &Table<'_>, format: TokenFormat) -> Option<TokenKey> {
    let words = [("HS256", Algorithm::Hs256), ("EdDSA", Algorithm::EdDsa), ("ES256", Algorithm::Es256)];
    let typed = table.choice("algorithm", &words);
    let encrypted = format != TokenFormat::Jwt;
    let secret = secret(table, "secret").filter(is_strong);
    let has_secret = table.has("secret");
    let fault = |key, what: &str, remedy: &str| table.reading.fault(table.span_of(key), what, remedy);
    let algorithm = typed.unwrap_or(if has_secret || encrypted { Algorithm::Hs256 } else { Algorithm::EdDsa });
    match algorithm {
        Algorithm::Hs256 => {
            if !has_secret {
                fault(
                    "secret",
                    "this token requires a secret shared with the backend",
                    "add `secret = { env = \"NEXTAUTH_SECRET\" }`",
                );
            }
            secret.map(|secret| TokenKey::Shared(secret.value))
        }
        _ if encrypted => {
            fault("algorithm", "next-auth's cookies are encrypted with a shared secret", "remove `algorithm`");
            None
        }
        _ if has_secret => {
            fault(
                "secret",
                "EdDSA and ES256 sign with the gateway's own key",
                "remove `secret`, or set algorithm = \"HS256\"",
            );
            None
        }
        Algorithm::EdDsa => Some(TokenKey::Ed25519),
        Algorithm::Es256 => Some(TokenKey::P256),
    }
}

/// Placeholders from guides and samples.
const PLACEHOLDERS: [&str; 6] =
    ["changeme", "yoursecret", "yournextauth", "supersecret", "nextauthsecret", "placeholder"];

/// Whether the secret looks hard to guess (OWASP ASVS 11.2.3, 13.2.3).
fn is_strong(secret: &Item<'_, Secret>) -> bool {
    const REMEDY: &str = "generate one with `openssl rand -base64 32`";
    let text = secret.value.expose();
    let different = text.bytes().collect::<std::collections::HashSet<_>>().len();
    let letters: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let what = if text.len() < SECRET_BYTES_MIN {
        "this secret is shorter than 32 bytes"
    } else if secret.reading.secrets == Secrets::Left {
        // a placeholder of an unloaded secret is never used
        return true;
    } else if different < 8 || PLACEHOLDERS.iter().any(|known| letters.contains(known)) {
        "this secret is easy to guess"
    } else {
        return true;
    };
    secret.fault(what, REMEDY);
    false
}

fn lifetime(table: &Table<'_>) -> Duration {
    let Some(typed) = table.duration("lifetime", Duration::from_secs(30)) else { return Duration::from_secs(300) };
    if typed.value > Duration::from_secs(86_400) {
        typed.fault("`lifetime` is too long: these tokens cannot be revoked", "use at most \"1d\"");
    }
    typed.value
}

fn by_default(token: &mut BackendToken) {
    match token.format {
        TokenFormat::Jwt => token.bearer = true,
        TokenFormat::NextAuthV4 => token.cookies.push("next-auth.session-token".to_owned()),
        TokenFormat::AuthJsV5 => token.cookies.push("authjs.session-token".to_owned()),
    }
}

fn send(way: &Item<'_, String>, token: &mut BackendToken) {
    match way.value.as_str() {
        "bearer" => token.bearer = true,
        "assertion" => token.assertion = true,
        other => match other.strip_prefix("cookie:").filter(|name| is_cookie_name(name)) {
            Some(name) => token.cookies.push(name.to_owned()),
            None => way.fault(
                format!("`{other}` is not a way to send a token"),
                "use \"bearer\", \"assertion\", or \"cookie:\" and a name that is not one of the gateway's cookies",
            ),
        },
    }
}

/// A token (RFC 6265, 4.1.1) that contains a letter or digit and is not one of the gateway's own cookies.
fn is_cookie_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    name.bytes().any(|b| b.is_ascii_alphanumeric())
        && name.len() <= 128
        && name.bytes().all(plain)
        && !cookie::is_own(cookie::DEFAULT_NAME, name.as_bytes())
}

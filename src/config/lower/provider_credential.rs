//! `[[provider]]`: how the client proves itself at the token endpoint.

use crate::config::file::Table;
use crate::config::secret::secret;
use crate::config::{AppleKey, ClientCredential, ProviderKind, Secrets, TokenAuth};
use crate::secret::Secret;

/// `client_secret`, `private_key`, or neither; for Apple `private_key` with `team_id` and `key_id`.
pub(super) fn credential(table: &Table<'_>, kind: Option<ProviderKind>) -> Option<ClientCredential> {
    if kind == Some(ProviderKind::Apple) {
        return apple(table);
    }
    for key in ["team_id", "key_id"] {
        if let Some(text) = table.text(key, "ABCDE12345").filter(|text| kind.is_some() && !text.value.is_empty()) {
            text.fault(format!("`{key}` is for kind = \"apple\" alone"), "remove it");
        }
    }
    let shared = secret(table, "client_secret");
    if table.has("client_secret") && table.has("private_key") {
        let what = "`client_secret` and `private_key` exclude each other";
        table.reading.fault(table.span_of("private_key"), what, "remove one of them");
        return None;
    }
    let is_read = table.reading.secrets == Secrets::Read;
    if let Some(secret) = shared {
        let text = secret.value.expose();
        if is_read && (text.is_empty() || text.bytes().any(|b| b == b'\n' || b == b'\r')) {
            let remedy = "write the secret alone, on one line; environment files must not quote or wrap it";
            secret.fault("`client_secret` is empty or has a line break", remedy);
            return None;
        }
        return Some(ClientCredential::Secret(secret.value));
    }
    if table.has("private_key") {
        let remedy = "use a PKCS#8 key (-----BEGIN PRIVATE KEY-----): Ed25519, P-256 or RSA";
        return pem_key(table, remedy).map(ClientCredential::PrivateKey);
    }
    (!table.has("client_secret")).then_some(ClientCredential::None)
}

/// `token_auth`
pub(super) fn token_auth(table: &Table<'_>, credential: Option<&ClientCredential>) -> TokenAuth {
    let words = [
        ("auto", TokenAuth::Auto),
        ("basic", TokenAuth::Basic),
        ("post", TokenAuth::Post),
        ("private_key", TokenAuth::PrivateKey),
        ("none", TokenAuth::None),
    ];
    let chosen = table.choice("token_auth", &words).unwrap_or(TokenAuth::Auto);
    let fits = match (chosen, credential) {
        (TokenAuth::Auto, _) | (_, None) => true,
        (_, Some(ClientCredential::Apple(_))) => chosen == TokenAuth::Post,
        (TokenAuth::Basic | TokenAuth::Post, Some(credential)) => matches!(credential, ClientCredential::Secret(_)),
        (TokenAuth::PrivateKey, Some(credential)) => matches!(credential, ClientCredential::PrivateKey(_)),
        (TokenAuth::None, Some(credential)) => matches!(credential, ClientCredential::None),
    };
    if !fits {
        let what = "`token_auth` does not fit: it requires another of `client_secret` and `private_key`, or neither";
        table.reading.fault(table.span_of("token_auth"), what, "remove `token_auth`, or set what it requires");
    }
    chosen
}

fn pem_key(table: &Table<'_>, remedy: &str) -> Option<Secret> {
    let key = secret(table, "private_key")?;
    if table.reading.secrets == Secrets::Read && !key.value.expose().contains("-----BEGIN PRIVATE KEY-----") {
        key.fault("`private_key` contains no PEM private key", remedy);
        return None;
    }
    Some(key.value)
}

/// Apple takes no fixed secret: it is signed for each request with the key that Apple gave out.
fn apple(table: &Table<'_>) -> Option<ClientCredential> {
    if table.has("client_secret") {
        let what = "Apple's client secret expires after six months at most; the gateway makes it from `private_key`";
        let remedy = "replace it with private_key = { file = \"AuthKey_KEYID.p8\" }, team_id and key_id";
        table.reading.fault(table.span_of("client_secret"), what, remedy);
        return None;
    }
    let missing: Vec<&str> = ["private_key", "team_id", "key_id"].into_iter().filter(|key| !table.has(key)).collect();
    if !missing.is_empty() {
        let what = format!("Apple requires {}", missing.join(", "));
        let remedy =
            "add private_key = { file = \"AuthKey_KEYID.p8\" }, and the Team ID and Key ID of its developer pages";
        table.reading.fault(table.span.clone(), what, remedy);
        return None;
    }
    let key = pem_key(table, "use the .p8 file as Apple gave it out");
    let id = |name: &'static str| {
        let text = table.text(name, "ABCDE12345")?;
        let is_id = text.value.len() == 10 && text.value.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if !is_id {
            text.fault(format!("`{name}` is not one of Apple's ids"), "it has ten capital letters and digits");
        }
        is_id.then_some(text.value)
    };
    let (team, id) = (id("team_id"), id("key_id"));
    Some(ClientCredential::Apple(AppleKey { key: key?, team: team?, id: id? }))
}

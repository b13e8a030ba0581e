//! Session tokens as an attacker would make them, with the right key or a wrong one.

use authgate::sealing::{Purpose, SealingKey};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD as B64;
use ring::hmac;
use serde_json::Value;

use crate::gateway::Gateway;

/// A token taken apart.
#[derive(Clone)]
pub struct Token {
    pub header: Value,
    pub claims: Value,
}

impl Token {
    /// The one in `name=value`.
    pub fn of(cookie: &str) -> Self {
        let parts: Vec<&str> = cookie.split_once('=').unwrap().1.split('.').collect();
        let part = |number: usize| serde_json::from_slice(&B64.decode(parts[number].as_bytes()).unwrap()).unwrap();
        Self { header: part(0), claims: part(1) }
    }

    /// With one claim changed.
    pub fn claim(&self, name: &str, value: impl Into<Value>) -> Self {
        let mut changed = self.clone();
        changed.claims[name] = value.into();
        changed
    }

    /// With one field of the header changed.
    pub fn header(&self, name: &str, value: impl Into<Value>) -> Self {
        let mut changed = self.clone();
        changed.header[name] = value.into();
        changed
    }

    /// Without a claim.
    pub fn without(&self, name: &str) -> Self {
        let mut changed = self.clone();
        changed.claims.as_object_mut().unwrap().remove(name);
        changed
    }

    /// What is signed.
    pub fn message(&self) -> String {
        let part = |value: &Value| B64.encode(value.to_string().as_bytes());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }

    /// As it would stand in the cookie.
    pub fn signed(&self, secret: &[u8]) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), self.message().as_bytes());
        format!("authgate={}.{}", self.message(), B64.encode(tag.as_ref()))
    }
}

/// The key that signs sessions, from the gateway's own database.
pub fn session_key(gateway: &Gateway) -> Vec<u8> {
    let database = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    let sql = "SELECT kid, secret FROM signing_key WHERE retired IS NULL AND algorithm = 'HS256'";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (kid, sealed): (String, Vec<u8>) = database.query_row(sql, [], row).unwrap();
    let key = SealingKey::parse(&std::fs::read(gateway.state().join("secret.key")).unwrap()).unwrap();
    let sealer = key.sealer(Purpose::SigningKeys).unwrap();
    sealer.open(&[b"signing_key", kid.as_bytes(), b"secret"], &sealed).unwrap().to_vec()
}

/// Unix seconds.
pub fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

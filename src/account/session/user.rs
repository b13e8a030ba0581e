//! An account as sessions and requests see it.

use std::sync::OnceLock;

use http::HeaderValue;

/// An account as sessions see it. Replaced as a whole when it changes.
#[derive(Debug, Clone, serde::Serialize)]
pub struct User {
    /// Opaque to everybody but the store.
    pub id: String,
    /// Canonical e-mail.
    pub email: String,
    /// Display name; may be empty.
    pub name: String,
    /// Picture URL; may be empty.
    pub picture: String,
    /// Groups, sorted, each without comma.
    pub groups: Vec<String>,
    /// Disabled accounts have no standing.
    #[serde(skip)]
    pub disabled: bool,
    #[serde(skip)]
    values: OnceLock<Box<IdentityValues>>,
}

/// Ready header values of an account.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct IdentityValues {
    pub id: HeaderValue,
    pub email: HeaderValue,
    pub name: HeaderValue,
    pub picture: HeaderValue,
    /// Joined by commas.
    pub groups: HeaderValue,
}

impl User {
    /// An account as it is now.
    pub fn new(id: String, email: String, name: String, picture: String, groups: Vec<String>, disabled: bool) -> Self {
        Self { id, email, name, picture, groups, disabled, values: OnceLock::new() }
    }

    /// It as header values: bytes outside 0x20-0x7E, and `%`, percent-encoded UTF-8. Made when they are first asked
    /// for: of many accounts few make requests.
    pub fn values(&self) -> &IdentityValues {
        self.values.get_or_init(|| {
            Box::new(IdentityValues {
                id: header_value(&self.id),
                email: header_value(&self.email),
                name: header_value(&self.name),
                picture: header_value(&self.picture),
                groups: header_value(&self.groups.join(",")),
            })
        })
    }
}

/// Bytes outside 0x20-0x7E, and `%`, percent-encoded UTF-8: no value can begin another header.
fn header_value(text: &str) -> HeaderValue {
    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
    let encoded = percent_encoding::utf8_percent_encode(text, ESCAPED).to_string();
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

//! An account as sessions and requests see it.

use std::sync::OnceLock;

use http::HeaderValue;

/// An account as sessions see it. Replaced as a whole when it changes.
#[derive(Debug, Clone, serde::Serialize)]
pub struct User {
    /// Opaque outside the store.
    pub id: String,
    /// Canonical e-mail.
    pub email: String,
    /// Display name; may be empty.
    pub name: String,
    /// Picture URL; may be empty.
    pub picture: String,
    /// Groups, sorted; none contains a comma.
    pub groups: Vec<String>,
    /// Sessions of disabled accounts are not valid.
    #[serde(skip)]
    pub disabled: bool,
    #[serde(skip)]
    values: OnceLock<Box<IdentityValues>>,
}

/// Prepared header values of an account.
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
    /// The account's current data.
    pub fn new(id: String, email: String, name: String, picture: String, groups: Vec<String>, disabled: bool) -> Self {
        Self { id, email, name, picture, groups, disabled, values: OnceLock::new() }
    }

    /// Header values: UTF-8 with `%` and bytes outside 0x20-0x7E percent-encoded. Created on first use, because few
    /// of many accounts make requests.
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

/// UTF-8 with `%` and bytes outside 0x20-0x7E percent-encoded: no value can start another header.
fn header_value(text: &str) -> HeaderValue {
    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
    let encoded = percent_encoding::utf8_percent_encode(text, ESCAPED).to_string();
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

//! Bodies of our own endpoints: urlencoded forms and JSON objects, read into the same fields.
//! Repeated fields and wrong types are rejected.

use std::collections::HashSet;
use std::fmt;

use http::{StatusCode, header};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

use super::call::{Call, Pages};
use super::errors;
use crate::secret::Secret;
use crate::web::reply::Reply;

/// The format of a request; the response has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Form,
    Json,
}

/// Maximum fields in a body; no form of ours has as many.
const FIELDS_MAX: usize = 64;

/// The fields of one body.
pub(super) struct Fields {
    pub(super) kind: Kind,
    pairs: Vec<(String, Secret)>,
}

/// Why a body is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadBody {
    /// Neither a form nor JSON: 415.
    Kind,
    /// Repeated fields, wrong types, or not an object: 400.
    Malformed,
}

/// The response to a rejected body, as a page or JSON.
pub(super) fn unread_body(pages: &Pages, call: &Call<'_>, bad: BadBody) -> Reply {
    let (code, word) = match bad {
        BadBody::Kind => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
        BadBody::Malformed => (StatusCode::BAD_REQUEST, "malformed"),
    };
    if call.incoming.wants_page() {
        return errors::refused(pages, code, call);
    }
    Reply::json(code, &json!({ "error": word }))
}

impl Fields {
    /// Reads the body by its Content-Type; an empty body without one is an empty form.
    pub(super) fn read(call: &Call<'_>) -> Result<Self, BadBody> {
        if call.incoming.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(BadBody::Kind);
        }
        let kind = match call.incoming.single("content-type") {
            Some(kind) => kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase(),
            None if call.body.is_empty() && !call.incoming.headers.contains_key(header::CONTENT_TYPE) => {
                let accepts_json =
                    call.incoming.single("accept").is_some_and(|accept| accept.contains("application/json"));
                return Ok(Self { kind: if accepts_json { Kind::Json } else { Kind::Form }, pairs: Vec::new() });
            }
            None => return Err(BadBody::Kind),
        };
        match kind.as_str() {
            "application/x-www-form-urlencoded" => Self::from_form(&call.body),
            "application/json" => Self::from_json(&call.body),
            _ => Err(BadBody::Kind),
        }
    }

    pub(super) fn from_form(body: &[u8]) -> Result<Self, BadBody> {
        let mut fields = Self { kind: Kind::Form, pairs: Vec::new() };
        for (name, value) in form_urlencoded::parse(body) {
            // invalid UTF-8 would be replaced silently, which would change a password
            if name.contains('\u{fffd}') || value.contains('\u{fffd}') {
                return Err(BadBody::Malformed);
            }
            fields.insert(name.into_owned(), value.into_owned())?;
        }
        Ok(fields)
    }

    pub(super) fn from_json(body: &[u8]) -> Result<Self, BadBody> {
        let mut fields = Self { kind: Kind::Json, pairs: Vec::new() };
        if body.is_empty() {
            return Ok(fields);
        }
        let Ok(Object(members)) = serde_json::from_slice(body) else { return Err(BadBody::Malformed) };
        let mut seen = HashSet::new();
        for (name, value) in members {
            if !seen.insert(name.clone()) {
                return Err(BadBody::Malformed);
            }
            match value {
                Value::String(text) => fields.insert(name, text)?,
                Value::Bool(yes) if BOXES.contains(&name.as_str()) => {
                    fields.insert(name, if yes { "on" } else { "" }.to_owned())?;
                }
                Value::Number(number) if name == "days" => fields.insert(name, number.to_string())?,
                Value::Null => {}
                _ if KNOWN.contains(&name.as_str()) => return Err(BadBody::Malformed),
                _ => {}
            }
        }
        Ok(fields)
    }

    /// The input of an earlier form.
    pub(super) fn typed(pairs: Vec<(String, String)>) -> Self {
        Self { kind: Kind::Form, pairs: pairs.into_iter().map(|(name, value)| (name, Secret::new(value))).collect() }
    }

    fn insert(&mut self, name: String, value: String) -> Result<(), BadBody> {
        // each is compared with all earlier ones
        if self.pairs.len() >= FIELDS_MAX || self.pairs.iter().any(|(own, _)| *own == name) {
            return Err(BadBody::Malformed);
        }
        self.pairs.push((name, Secret::new(value)));
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(own, _)| own == name).map(|(_, value)| value.expose())
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// A password.
    pub(super) fn secret(&self, name: &str) -> Secret {
        Secret::new(self.text(name).to_owned())
    }

    /// Whether a checkbox was checked.
    pub(super) fn ticked(&self, name: &str) -> bool {
        self.get(name).is_some_and(means_yes)
    }

    pub(super) fn is_json(&self) -> bool {
        self.kind == Kind::Json
    }
}

/// The members of a JSON object in order; `serde_json::Map` would silently keep the last of two.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Checkboxes: booleans in JSON.
const BOXES: [&str; 3] = ["remember", "everywhere", "keep_tokens"];

/// The value of a field in [`BOXES`].
pub(super) fn means_yes(value: &str) -> bool {
    !matches!(value, "" | "0" | "false" | "off")
}

/// All other fields must be strings.
const KNOWN: [&str; 15] = [
    "email",
    "password",
    "name",
    "picture",
    "current_password",
    "callbackUrl",
    "remember",
    "everywhere",
    "keep_tokens",
    "id",
    "form_id",
    "token_name",
    "scopes",
    "days",
    "revoke",
];

/// One parameter of a query; the first of these names that is present wins.
pub(super) fn query(call: &Call<'_>, names: &[&str]) -> Option<String> {
    let query = call.incoming.query?;
    names.iter().find_map(|wanted| {
        form_urlencoded::parse(query).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
    })
}

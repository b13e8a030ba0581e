//! JSON with a single interpretation. For duplicate names in an object, some parsers use the first value and others the
//! last, so a checker and a consumer of the document may see different values: such documents are rejected (RFC 8259,
//! 4; RFC 7519, 4; RFC 8725, 2.4).

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a document is rejected; quotes nothing from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonError {
    /// An object contains a name twice.
    DuplicateName,
    /// Invalid JSON at this line and column.
    Syntax(usize, usize),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateName => f.write_str("an object has a name twice"),
            Self::Syntax(line, column) => write!(f, "syntax error at line {line}, column {column}"),
        }
    }
}

/// Parses one UTF-8 document; at most 128 levels deep.
pub fn parse(text: &[u8]) -> Result<Value, JsonError> {
    let parsed = serde_json::from_slice::<Strict>(text);
    parsed.map(|strict| strict.0).map_err(|error| {
        // serde_json has no other data errors for a type that accepts every value
        if error.is_data() { JsonError::DuplicateName } else { JsonError::Syntax(error.line(), error.column()) }
    })
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Strict(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let mut map = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if map.insert(name, value).is_some() {
                return Err(de::Error::custom("duplicate name"));
            }
        }
        Ok(Strict(Value::Object(map)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_comes_twice_at_any_depth_is_refused() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":[{"b":1,"b":2}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(parse(text.as_bytes()), Err(JsonError::DuplicateName), "{text}");
        }
        let fine = r#"{"a":{"a":[1,-2,1.5,true,null,"x",{}]},"b":{"a":[]}}"#;
        assert_eq!(parse(fine.as_bytes()).unwrap(), serde_json::from_str::<Value>(fine).unwrap());
    }

    #[test]
    fn what_is_no_single_document_is_refused() {
        for text in [&b""[..], b"{", b"{} {}", b"{}x", b"\xff", b"{\"a\":NaN}", b"<html>"] {
            assert!(matches!(parse(text), Err(JsonError::Syntax(..))), "{text:?}");
        }
        assert!(matches!(parse("[".repeat(200).as_bytes()), Err(JsonError::Syntax(..))));
        assert_eq!(parse(b" {\"a\":1} ").unwrap()["a"], 1);
    }
}

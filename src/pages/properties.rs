//! What must hold for any body that a client sends: see `web::properties`.

#![allow(clippy::expect_used, reason = "a property that does not hold panics")]

use std::collections::HashSet;

use super::form::Fields;

/// Bodies of forms and JSON are read in one way or refused: no field stands twice, and what was read is what
/// another reader finds.
///
/// # Panics
/// Where a body is read in two ways.
pub fn bodies(bytes: &[u8]) {
    if let Ok(fields) = Fields::from_form(bytes) {
        let mut seen = HashSet::new();
        for (name, value) in url::form_urlencoded::parse(bytes) {
            assert_eq!(fields.get(&name), Some(&*value));
            assert!(seen.insert(name), "a field stands twice");
        }
    }
    if let Ok(fields) = Fields::from_json(bytes)
        && !bytes.is_empty()
    {
        let value: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        let object = value.as_object().expect("an object");
        for (name, value) in object {
            if let Some(text) = value.as_str() {
                assert_eq!(fields.get(name), Some(text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::web::properties::{holds_for_the_seeds, pieces};

    #[test]
    fn they_hold_for_the_seeds() {
        holds_for_the_seeds("bodies", bodies);
    }

    const PIECES: &[&str] = &[
        "email",
        "password",
        "=",
        "=",
        "&",
        "&",
        "%",
        "%41",
        "%ff",
        "+",
        "a",
        "{",
        "}",
        "\"email\"",
        "\"",
        ":",
        ",",
        "null",
        "true",
        "[",
        "]",
        "1",
        "\"a\"",
        "\\u0061",
        " ",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_body_is_read_in_one_way(bytes in pieces(PIECES, 14)) {
            bodies(&bytes);
        }
    }

    /// RFC 8259, section 4: readers differ in which of two they take.
    #[test]
    fn a_name_that_stands_twice_in_json_is_refused() {
        for twice in [r#"{"email":"a","email":"b"}"#, r#"{"x":1,"x":2}"#, r#"{"email":"a","\u0065mail":null}"#] {
            assert!(Fields::from_json(twice.as_bytes()).is_err(), "{twice}");
        }
        assert!(Fields::from_json(br#"{"email":"a","x":1,"y":1}"#).is_ok());
    }
}

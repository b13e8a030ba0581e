//! Properties of any body that a client may send: see `web::properties`.

#![allow(clippy::expect_used, reason = "a property that does not hold panics")]

use std::collections::HashSet;

use super::form::Fields;

/// Forms and JSON bodies are unambiguous or rejected: no field is repeated, and the result is what
/// another parser finds.
///
/// # Panics
/// If a body is ambiguous.
pub fn bodies(bytes: &[u8]) {
    if let Ok(fields) = Fields::from_form(bytes) {
        let mut seen = HashSet::new();
        for (name, value) in by_hand(bytes) {
            assert_eq!(fields.get(&name), Some(&*value));
            assert!(seen.insert(name), "a field stands twice");
        }
        assert!(seen.len() <= 64, "no form has as many fields");
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

/// A form as another parser reads it: split at `&`, each part at its first `=`, then unescaped (WHATWG URL, 5.1).
fn by_hand(bytes: &[u8]) -> Vec<(String, String)> {
    let text = |part: &[u8]| {
        let spaced: Vec<u8> = part.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
        let plain: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
        String::from_utf8(plain).expect("text that is no UTF-8 was read")
    };
    let parts = bytes.split(|b| *b == b'&').filter(|part| !part.is_empty());
    parts
        .map(|part| match part.iter().position(|b| *b == b'=') {
            Some(at) => (text(&part[..at]), text(&part[at + 1..])),
            None => (text(part), String::new()),
        })
        .collect()
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

    /// RFC 8259, section 4: parsers differ in which of two they take.
    #[test]
    fn a_name_that_appears_twice_in_json_is_refused() {
        for twice in [r#"{"email":"a","email":"b"}"#, r#"{"x":1,"x":2}"#, r#"{"email":"a","\u0065mail":null}"#] {
            assert!(Fields::from_json(twice.as_bytes()).is_err(), "{twice}");
        }
        assert!(Fields::from_json(br#"{"email":"a","x":1,"y":1}"#).is_ok());
    }
}

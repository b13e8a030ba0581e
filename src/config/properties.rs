//! What must hold for any text in gateway.toml: see `web::properties`.

use std::path::PathBuf;

/// A text is a configuration, or it has faults, each with a place and a remedy, that can be shown.
///
/// # Panics
/// Where it is neither.
pub fn any_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Err(faults) = super::parse(text, "gateway.toml", PathBuf::from("/nowhere"), &|_| None) else { return };
    assert!(!faults.list().is_empty());
    for fault in faults.list() {
        assert!(!fault.what.is_empty() && !fault.remedy.is_empty());
        let (line, column) = faults.place(fault);
        assert!(line >= 1 && column >= 1 && line <= text.matches('\n').count() + 1);
    }
    assert!(!faults.render(false).is_empty() && faults.to_json().is_array());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::web::properties::{holds_for_the_seeds, pieces};

    #[test]
    fn it_holds_for_the_seeds_and_for_every_broken_file() {
        holds_for_the_seeds("config", any_text);
        let broken = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/broken");
        for file in std::fs::read_dir(broken).unwrap() {
            any_text(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }

    const PIECES: &[&str] = &[
        "[server]\n",
        "[[route]]\n",
        "[[upstream]]\n",
        "[limits]\n",
        "[session]\n",
        "[[test]]\n",
        "listen",
        "path",
        "upstream",
        "servers",
        "name",
        "idle",
        "request",
        "expect",
        " = ",
        " = ",
        "\"",
        "\"a\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\n",
        "\n",
        "\"/x/**\"",
        "\"5m\"",
        "true",
        "1",
        "é",
        "\"unix:/x\"",
        "\"127.0.0.1:1\"",
        "\"${A}\"",
        "token",
        "secret",
        "'",
        "\\",
    ];

    proptest! {
        #[test]
        fn any_text_is_judged(bytes in pieces(PIECES, 24)) {
            any_text(&bytes);
        }
    }
}

//! Properties of any text in gateway.toml: see `web::properties`.

use std::path::PathBuf;

use super::{Access, Config, SignUp};

/// Any text is either a configuration that weakens only what the text names, or has faults, each with a position and a
/// suggested fix, that can be rendered.
///
/// # Panics
/// If it is neither.
pub fn any_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let faults = match super::parse(text, "gateway.toml", PathBuf::from("/nowhere"), &|_| None) {
        Ok(config) => return opens_only_what_is_named(&config, text),
        Err(faults) => faults,
    };
    assert!(!faults.list().is_empty());
    for fault in faults.list() {
        assert!(!fault.what.is_empty());
        assert!(!fault.remedy.is_empty());
        let (line, column) = faults.place(fault);
        assert!(line >= 1);
        assert!(column >= 1);
        assert!(line <= text.matches('\n').count() + 1);
    }
    assert!(!faults.render(false).is_empty());
    assert!(faults.to_json().is_array());
}

/// Every weakened setting appears in the text, verbatim or escaped: nothing is open by default.
fn opens_only_what_is_named(config: &Config, text: &str) {
    let named = |word: &str| text.contains(word) || text.contains('\\');
    assert!(!config.routes.is_empty(), "a gateway without routes");
    for route in &*config.routes {
        let word = match route.access {
            Access::Public => "public",
            Access::Optional => "optional",
            Access::SignedIn | Access::Deny => "",
        };
        assert!(named(word) && (!route.danger_cross_origin || named("danger_cross_origin")), "{route:?}");
        assert!(route.upstream.is_some_and(|at| at < config.upstreams.len()) || route.access == Access::Deny);
        assert!(route.groups.is_empty() || route.access == Access::SignedIn);
    }
    assert!(config.server.trusted_proxies.is_empty() || named("trusted_proxies"));
    assert!(config.sign_up != SignUp::Open || named("open"));
    assert!(config.cors_origins.is_empty() || named("origins"));
    assert!(!config.store_trust.danger_require || named("danger_store_tls"));
    assert!(config.store.is_none() || (named("store") && named("url") && config.sealing_key.is_some()));
    assert!(config.throttle.max_retries > 0);
    assert!(config.password.min_length > 0);
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
        "[store]\n",
        "url",
        "\"postgres://u:${A}@h/d\"",
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
        fn any_text_is_checked(bytes in pieces(PIECES, 24)) {
            any_text(&bytes);
        }
    }
}

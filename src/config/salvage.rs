//! Fallback for commands when the file is invalid TOML: single lines of a few keys.

use toml::de::DeTable;

/// Keys of `[server]` that no other table has.
const KEYS: [&str; 4] = ["state_dir", "admin_listen", "public_url", "prefix"];

/// The first valid line of each key.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let of = |key: &'static str| {
        let is_own = move |line: &&str| {
            let value = line.strip_prefix(key).map(str::trim_start);
            value.is_some_and(|value| value.starts_with('=')) && DeTable::parse(line).is_ok()
        };
        text.lines().map(str::trim).find(is_own)
    };
    KEYS.into_iter().filter_map(of)
}

/// Whether a line seems to begin this table, or to set a key of it.
pub(super) fn names(text: &str, table: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.lines().any(|line| {
        let line = line.trim_start_matches(['[', ' ', '\t', '"', '\'', '\u{feff}']);
        line.strip_prefix(table).is_some_and(|rest| !rest.starts_with(is_part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_good_by_itself_is_found_in_a_file_that_is_not() {
        let text = "[server]\nlisten = [\"127.0.0.1:1\"\n  state_dir = \"/srv/s\"  # here\nstate_dir_x = 1\nprefix = \"\nadmin_listen=\"[::1]:9\"\nadmin_listen = \"late\"\n[[route\n";
        let found: Vec<&str> = lines(text).collect();
        assert_eq!(found, ["state_dir = \"/srv/s\"  # here", "admin_listen=\"[::1]:9\""]);
        assert_eq!(lines("").count(), 0);
    }

    #[test]
    fn a_table_is_noticed_in_every_spelling_and_not_in_a_comment() {
        for text in
            ["[store]", "x = [\n[store]\n", "  [ store ]", "[\"store\"]", "store.url = 1", "store = {", "[store.ca]"]
        {
            assert!(names(text, "store"), "{text}");
        }
        for text in ["", "# [store]", "[stores]", "store_x = 1", "x = \"[store]\"", "[x.store]"] {
            assert!(!names(text, "store"), "{text}");
        }
    }
}

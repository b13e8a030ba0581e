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
}

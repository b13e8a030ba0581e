//! Redaction of error reports: secrets typed into the file instead of a reference, and values from the environment.
//! Reports are logged, and more people read the log than the file.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, nearest};

/// Keys of a secret reference. Their values are not secret.
const REFERENCE: [&str; 3] = ["file", "env", "credential"];

/// Keys that look like secrets but are settings.
const SETTINGS: [&str; 4] = ["app_cookies", "cookie_name", "cookies", "key_id"];

/// Replaces secrets in the text with stars, without moving any byte, and removes them from the faults.
pub(super) fn conceal(text: &str, document: &DeTable<'_>, is_toml: bool, faults: &mut [Fault]) -> String {
    let mut spans = Vec::new();
    in_table(document, 0, &mut spans);
    // as typed, and with escapes decoded
    let typed = spans.iter().filter_map(|(span, _)| text.get(span.clone())).map(unquoted);
    let words: Vec<&str> = typed.chain(spans.iter().filter_map(|(_, read)| read.as_deref())).collect();
    for fault in faults {
        for said in [&mut fault.what, &mut fault.remedy] {
            for word in words.iter().filter(|word| word.len() > 3) {
                *said = said.replace(word, "***");
            }
        }
    }
    let mut shown = text.to_owned();
    for (span, _) in spans {
        cover(&mut shown, span, "\"'");
    }
    if !is_toml {
        // the parsed document is unreliable after a syntax error: fall back to scanning lines
        for span in after_secret_words(text) {
            cover(&mut shown, span, "\"'{}[],=");
        }
    }
    shown
}

/// The span of a value, and its decoded text if it is a string.
type Hidden = (Range<usize>, Option<String>);

fn in_table(table: &DeTable<'_>, depth: usize, spans: &mut Vec<Hidden>) {
    for (key, value) in table {
        // `[password]` is a table of settings
        let settings = depth == 0 && key.get_ref() == "password" && value.get_ref().is_table();
        // the secret itself where a token table belongs, and not `query:name`
        let misplaced = key.get_ref() == "token" && value.get_ref().as_str().is_some_and(|text| !text.contains(':'));
        let hides = (is_secret(key.get_ref()) && !settings) || misplaced;
        in_value(value, hides, depth + 1, spans);
    }
}

fn in_value(value: &Spanned<DeValue<'_>>, hides: bool, depth: usize, spans: &mut Vec<Hidden>) {
    let mut hide = || spans.push((value.span(), value.get_ref().as_str().map(str::to_owned)));
    match value.get_ref() {
        DeValue::Table(table) if hides => {
            for (key, inner) in table {
                let key = key.get_ref().as_ref();
                // the secret itself where a variable name belongs
                let misplaced = key == "env" && inner.get_ref().as_str().is_some_and(|name| !is_variable(name));
                in_value(inner, misplaced || !REFERENCE.contains(&key), depth + 1, spans);
            }
        }
        DeValue::Table(table) => in_table(table, depth, spans),
        DeValue::Array(list) => list.iter().for_each(|one| in_value(one, hides, depth, spans)),
        _ if hides => hide(),
        DeValue::String(text) if has_user_info(text) || has_password_parameter(text) => hide(),
        _ => {}
    }
}

/// Whether a key holds a secret, or would if it were spelled correctly.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    if SETTINGS.contains(&key.as_str()) {
        return false;
    }
    ["secret", "passw", "key", "authorization", "cookie"].iter().any(|word| key.contains(word))
        || nearest(&key, ["secret", "password"]).is_some()
}

/// A variable name, as opposed to output of `openssl rand -hex 32`.
fn is_variable(name: &str) -> bool {
    let random = name.len() >= 32 && name.bytes().any(|b| b.is_ascii_digit());
    !random && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_${}".contains(&b))
}

/// Whether a URL, or an address without a scheme, contains a user name and password. A password that is one `${NAME}` is
/// not in the file.
fn has_user_info(text: &str) -> bool {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let Some((before, _)) = rest.rsplit_once('@') else { return false };
    let Some((_, password)) = before.split_once(':') else { return false };
    let name = password.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    if name.is_some_and(is_variable) {
        return false;
    }
    // a host with an optional port, then a path that may contain an @
    let is_host = |host: &str| {
        let port = host.split_once(':').map_or("", |(_, port)| port);
        port.bytes().all(|b| b.is_ascii_digit())
    };
    // a password of digits before a slash looks like a port; no path of a database has an @
    scheme.starts_with("postgres") || !before.split_once('/').is_some_and(|(host, _)| is_host(host))
}

/// `password=...` in the query of a URL, or in a list of settings for a database.
fn has_password_parameter(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.split_once("passw").is_some_and(|(_, rest)| rest.contains('='))
}

fn unquoted(raw: &str) -> &str {
    raw.trim_matches(['"', '\''])
}

/// What follows a secret's key, and addresses with a user name and password: the rest of the line, or the rest of the file where the value may span lines.
fn after_secret_words(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let mut at = start;
        if let Some(address) = line.find("://").filter(|&address| line[address + 3..].contains('@')) {
            spans.push(start + address + 3..start + line.len());
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        for word in line.split_inclusive(|c| !is_part(c)) {
            at += word.len();
            if is_secret(word.trim_end_matches(|c| !is_part(c))) {
                let rest = text[at..start + line.len()].trim_end();
                let goes_on =
                    rest.is_empty() || rest.ends_with('=') || ["\"\"\"", "'''"].iter().any(|q| rest.contains(q));
                spans.push(at..if goes_on { text.len() } else { start + line.len() });
                break;
            }
        }
        start += line.len();
    }
    spans
}

/// Replaces everything except `kept` and line ends with stars of the same length.
fn cover(text: &mut String, span: Range<usize>, kept: &str) {
    let Some(covered) = text.get(span.clone()) else { return };
    let star = |c: char| match c.len_utf8() {
        _ if kept.contains(c) || c == '\n' || c == '\r' => c,
        1 => '*',
        2 => '·',
        3 => '•',
        _ => '𐄁',
    };
    let stars: String = covered.chars().map(star).collect();
    text.replace_range(span, &stars);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let (document, errors) = DeTable::parse_recoverable(text);
        let shown = conceal(text, document.get_ref(), errors.is_empty(), &mut []);
        let shape = |text: &str| text.char_indices().map(|(at, c)| (at, c == '\n')).collect::<Vec<_>>();
        assert_eq!(shape(&shown), shape(text), "every character stays where it was");
        shown
    }

    #[test]
    fn secrets_become_stars_wherever_they_are_typed() {
        for text in [
            "token = { secret = \"hush-hush\" }",
            "[[upstream]]\ntoken.secret = 'hush-hush'",
            "secret = [\"hush-hush\", 'hüsh-hush-€-😀']",
            "secret = { value = \"hush-hush\" }",
            "secret = { env = \"hush+hush=\" }",
            "secret = { env = \"hush0123456789abcdef0123456789abcdef\" }",
            "secert = \"hush-hush\"",
            "smtp = { password = \"\"\"\nhush-hush\n\"\"\" }",
            "servers = [\"http://me:hush-hush@127.0.0.1:80\"]",
            "headers = { Authorization = \"Bearer hush-hush\", Cookie = \"a=hush-hush\" }",
            "url = \"postgres://me:hush@h/d\"",
            "url = \"postgres://me:12/hush@h/d\"",
            "url = \"postgres://me:${A}hush@h/d\"",
            "url = \"postgres://me:${A}@hush@h/d\"",
            "url = \"postgres://me:${A}@h/d?password=hush\"",
            "url = \"host=h user=me password=hush\"",
            "url = { env = \"postgres://me:hush@h/d\" }",
            // invalid TOML
            "url = postgres://me:hush@h/d",
            "secret = hush-hush",
            "secret \"hush-hush\"",
            "token = { secret = \"hush-hush\n[next]\n",
            "secret = \"\"\"\nhush-hush\n",
            "secret =\n\"hush-hush\"\n",
        ] {
            let shown = shown(text);
            assert!(!shown.contains("hush") && (shown.contains("**") || shown.contains('•')), "{shown}");
        }
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for text in [
            "[password]\nmin_length = \"15\"\nargon2 = { memory_kib = \"x\" }",
            "token = { secret = { env = \"NAME\" }, send = [\"bearer\"] }",
            "certificates = [{ certificate = \"a.pem\", key = { file = \"b.pem\" } }]",
            "upstream = \"http://127.0.0.1:3000/a@b\"",
            "[server]\nlisten = [\"127.0.0.1:80\"]",
            "url = \"postgres://me:${HUSH}@h:5432/d?sslmode=disable\"",
            "url = \"postgres://me@h:5432/d\"",
            "title = no quotes",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}

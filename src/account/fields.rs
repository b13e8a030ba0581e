//! Validates account fields: e-mail addresses in one canonical form, names, pictures, groups. Accepted values are
//! safe in a header value, a log line and a comma-separated list.

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD as B64;
use ring::hmac;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::errors::FieldError;
use crate::logging::{is_deceptive, is_joiner};
use crate::secret::random_bytes;

/// Longest e-mail in bytes (RFC 5321, 4.5.3.1.3).
const EMAIL_BYTES_MAX: usize = 254;
const NAME_CHARS_MAX: usize = 200;
const PICTURE_BYTES_MAX: usize = 2048;
const GROUP_CHARS_MAX: usize = 64;
/// Groups per account.
const GROUPS_MAX: usize = 64;

/// Characters that no field may contain.
pub(super) fn is_forbidden(c: char) -> bool {
    c.is_control() || is_deceptive(c)
}

/// The canonical form of an e-mail: trimmed, exactly one `@`, local part in NFC and lower case, domain in lower-case
/// ASCII (IDNA). `None`: not an address.
/// Each address has one spelling: two would mean two throttle counts or two accounts (CVE-2026-40574).
pub(super) fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > 4 * EMAIL_BYTES_MAX {
        return None;
    }
    let (local, domain) = text.split_once('@')?;
    if local.is_empty() || domain.contains('@') {
        return None;
    }
    let refused = |c: char| is_forbidden(c) || is_joiner(c) || c.is_whitespace() || "\"(),:;<>[\\]".contains(c);
    if local.contains(refused) {
        return None;
    }
    let composed: String = local.nfc().collect();
    let local: String = composed.to_lowercase().nfc().collect();
    let domain = idna::domain_to_ascii(domain).ok()?;
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && bytes.iter().all(|&b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if !domain.split('.').all(is_label) {
        return None;
    }
    let email = format!("{local}@{domain}");
    (email.len() <= EMAIL_BYTES_MAX).then_some(email)
}

/// Why an address is unsuitable for a new account. Existing accounts with such an address keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsuitable {
    /// Dangerous in apps that use it as a file name, command-line argument or spreadsheet cell.
    Unsafe,
    /// Not a dot-atom (RFC 5322, 3.2.3; non-ASCII letters by RFC 6532, 3.2).
    NotDotAtom,
    /// An app that normalizes letters would confuse it with another address.
    Confusable,
}

/// Checks a canonical address for a new account.
pub(super) fn check_new_address(email: &str) -> Result<(), Unsuitable> {
    let local = email.rsplit_once('@').map_or("", |(local, _)| local);
    if local.contains('/') || local.starts_with(['-', '|', '=']) {
        return Err(Unsuitable::Unsafe);
    }
    let is_text = |c: char| {
        c.is_ascii_alphanumeric()
            || "!#$%&'*+-=?^_`{|}~".contains(c)
            || (!c.is_ascii() && (c.is_alphanumeric() || is_combining_mark(c)))
    };
    let is_atom = |atom: &str| atom.chars().all(is_text) && atom.chars().next().is_some_and(|c| !is_combining_mark(c));
    if !local.split('.').all(is_atom) {
        return Err(Unsuitable::NotDotAtom);
    }
    // upper and lower again: `ß`, `ſ` and dotless `i` share another letter's upper case
    let folded: String = local.to_uppercase().to_lowercase().nfkc().collect();
    if folded == local { Ok(()) } else { Err(Unsuitable::Confusable) }
}

/// Prefix of the name that invalid addresses are counted under.
const NO_ADDRESS: &str = "no-address";

/// The name that attempts are counted under. Invalid addresses count too, under a pseudonym: people type passwords
/// into the wrong field, and this name is stored and logged.
pub(super) fn throttle_name(text: &str) -> String {
    canonical(text).unwrap_or_else(|| pseudonym(text))
}

/// The same for an address without an account: if its domain is a single label it may be a password.
pub(super) fn throttle_name_without_account(email: &str) -> String {
    let is_mail = email.rsplit_once('@').is_some_and(|(_, domain)| domain.contains('.'));
    if is_mail { email.to_owned() } else { pseudonym(email) }
}

/// Keyed, because a bare hash would confirm a guess.
fn pseudonym(text: &str) -> String {
    static KEY: LazyLock<Option<hmac::Key>> =
        LazyLock::new(|| Some(hmac::Key::new(hmac::HMAC_SHA256, &random_bytes::<32>().ok()?)));
    let is_name = |text: &str| text.strip_prefix(NO_ADDRESS).is_some_and(|rest| rest.len() == 17 && rest.is_ascii());
    match (text.trim(), &*KEY) {
        // already a pseudonym, as `ban list` shows it
        (name, _) if is_name(name) => name.to_owned(),
        (typed, Some(key)) => {
            format!("{NO_ADDRESS}-{}", B64.encode(&hmac::sign(key, typed.as_bytes()).as_ref()[..12]))
        }
        (_, None) => NO_ADDRESS.to_owned(),
    }
}

fn wrong(field: &'static str, code: &'static str, message: &str) -> FieldError {
    FieldError { field, code, message: message.to_owned() }
}

/// The canonical e-mail of a new account, or the error to show.
pub(super) fn email(text: &str) -> Result<String, FieldError> {
    let email = canonical(text).ok_or_else(|| wrong("email", "invalid", "This is not a valid e-mail address."))?;
    let why = match check_new_address(&email) {
        Ok(()) => return Ok(email),
        Err(Unsuitable::Unsafe) => {
            "An e-mail address that contains `/`, or starts with `-`, `|` or `=`, cannot be used here."
        }
        Err(Unsuitable::NotDotAtom) => "This is not a valid e-mail address: check its dots and special characters.",
        Err(Unsuitable::Confusable) => {
            "This e-mail address has letters that look like others: write it with plain ones."
        }
    };
    Err(wrong("email", "invalid", why))
}

/// A display name, trimmed; may be empty.
pub(super) fn name(text: &str) -> Result<String, FieldError> {
    let text: String = text.trim().nfc().collect();
    if text.contains(is_forbidden) {
        return Err(wrong("name", "invalid", "The name contains a character that cannot be displayed."));
    }
    if text.chars().count() > NAME_CHARS_MAX {
        return Err(wrong("name", "too_long", "The name is too long: 200 characters at most."));
    }
    Ok(text)
}

/// A name without everything that [`name`] rejects.
pub(super) fn cleaned_name(text: &str) -> String {
    let spaced: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).filter(|&c| !is_forbidden(c)).collect();
    let words = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    words.nfc().take(NAME_CHARS_MAX).collect::<String>().trim().to_owned()
}

/// A picture's URL, http or https; may be empty.
pub(super) fn picture(text: &str) -> Result<String, FieldError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    if text.len() > PICTURE_BYTES_MAX {
        return Err(wrong("picture", "too_long", "The picture's address is too long: 2048 bytes at most."));
    }
    let invalid = || wrong("picture", "invalid", "The picture must be an http or https address.");
    if text.contains(|c: char| is_forbidden(c) || c.is_whitespace()) {
        return Err(invalid());
    }
    let url = url::Url::parse(text).map_err(|_| invalid())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    let text = String::from(url);
    if plain && text.len() <= PICTURE_BYTES_MAX { Ok(text) } else { Err(invalid()) }
}

/// Group names, sorted and without duplicates.
pub(super) fn groups(names: &[String]) -> Result<Vec<String>, FieldError> {
    let mut groups = Vec::with_capacity(names.len());
    for name in names {
        let name = name.trim();
        let fits = !name.is_empty() && name.chars().count() <= GROUP_CHARS_MAX;
        if !fits || name.contains(|c: char| is_forbidden(c) || c == ',') {
            return Err(wrong(
                "group",
                "invalid",
                "A group name has 1 to 64 characters, without commas or control characters.",
            ));
        }
        groups.push(name.to_owned());
    }
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > GROUPS_MAX {
        return Err(wrong("group", "too_long", "An account can be in at most 64 groups."));
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_an_address_have_one_canonical_form() {
        for text in ["alice@example.com", "Alice@Example.COM", "  alice@example.com\t", "ALICE@EXAMPLE.com"] {
            assert_eq!(canonical(text).as_deref(), Some("alice@example.com"), "{text}");
        }
        // NFC, lower case beyond ASCII, IDNA
        assert_eq!(canonical("Jose\u{301}@Ex\u{e4}mple.com").as_deref(), Some("jos\u{e9}@xn--exmple-cua.com"));
        assert_eq!(canonical("\u{c9}va@example.com").as_deref(), Some("\u{e9}va@example.com"));
        assert_eq!(canonical("a.b+c@sub.example.com").as_deref(), Some("a.b+c@sub.example.com"));
        assert_eq!(canonical("root@localhost").as_deref(), Some("root@localhost"));
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        let long = format!("{}@example.com", "a".repeat(243));
        for text in [
            "",
            "@",
            "a@",
            "@example.com",
            "alice",
            "a@b@example.com",
            "a b@example.com",
            "a\0@example.com",
            "a@exa mple.com",
            "a@example..com",
            "a@.example.com",
            "a@example.com.",
            "a@-x.com",
            "a@[127.0.0.1]",
            "a@exa_mple.com",
            "a\r\nb@example.com",
            "a\u{202e}b@example.com",
            "a\u{200b}@example.com",
            "a\u{3164}@example.com",
            "a\u{61c}@example.com",
            "a\u{fe0f}@example.com",
            "a\u{e0061}@example.com",
            "\"a\"@example.com",
            "a,b@example.com",
            "a@example.com:80",
            "a@exam/ple.com",
            long.as_str(),
        ] {
            assert_eq!(canonical(text), None, "{text:?}");
        }
        let fits = format!("{}@example.com", "a".repeat(242));
        assert_eq!(canonical(&fits), Some(fits.clone()));
    }

    /// UTS 36, 2: a new account's address cannot be confused with another, nor with a file name or an option.
    #[test]
    fn confusable_and_dangerous_addresses_are_rejected_for_new_accounts_only() {
        for (text, odd) in [
            ("..@example.com", Unsuitable::NotDotAtom),
            (".a@example.com", Unsuitable::NotDotAtom),
            ("a.@example.com", Unsuitable::NotDotAtom),
            ("a..b@example.com", Unsuitable::NotDotAtom),
            ("\u{1f600}@example.com", Unsuitable::NotDotAtom),
            ("a\u{2019}b@example.com", Unsuitable::NotDotAtom),
            ("\u{301}a@example.com", Unsuitable::NotDotAtom),
            ("../../../tmp/x@example.com", Unsuitable::Unsafe),
            ("a/b@example.com", Unsuitable::Unsafe),
            ("-rf@example.com", Unsuitable::Unsafe),
            ("|id@example.com", Unsuitable::Unsafe),
            ("=1+1@example.com", Unsuitable::Unsafe),
            ("\u{17f}am@example.com", Unsuitable::Confusable),
            ("\u{ff53}\u{ff41}\u{ff4d}@example.com", Unsuitable::Confusable),
            ("\u{24e2}am@example.com", Unsuitable::Confusable),
            ("ad\u{aa}@example.com", Unsuitable::Confusable),
            ("wei\u{df}@example.com", Unsuitable::Confusable),
            ("\u{131}an@example.com", Unsuitable::Confusable),
            ("\u{fb01}n@example.com", Unsuitable::Confusable),
        ] {
            let canonical = canonical(text).unwrap();
            assert_eq!((text, check_new_address(&canonical)), (text, Err(odd)));
            assert_eq!(email(text).unwrap_err().code, "invalid", "{text}");
        }
        for text in [
            "ada@example.com",
            "Ada.Lovelace+news@Example.com",
            "o'neil@example.com",
            "_a-b_@example.com",
            "+4915112345678@example.com",
            "j\u{f6}rg.m\u{fc}ller@example.com",
            "Jose\u{301}@example.com",
            "\u{65e5}\u{672c}@example.com",
            "\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940}@example.com",
            "\u{645}\u{62d}\u{645}\u{62f}@example.com",
            "\u{43f}\u{435}\u{442}\u{440}@example.com",
            "\u{3bc}\u{3ac}\u{3c1}\u{3b9}\u{3b1}@example.com",
            "ng\u{169}\u{1ec5}n@example.com",
            "a@b\u{fc}cher.example",
        ] {
            assert!(email(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn names_pictures_and_groups_are_bounded() {
        assert_eq!(name("  Ada Lovelace "), Ok("Ada Lovelace".to_owned()));
        assert_eq!(name("a\nb").unwrap_err().code, "invalid");
        for hidden in ["a\u{202e}b", "a\u{61c}b", "a\u{3164}b", "a\u{e0061}b"] {
            assert_eq!(name(hidden).unwrap_err().code, "invalid", "{hidden:?}");
        }
        // Persian, a family emoji, a kanji variant
        for shown in ["\u{646}\u{200c}\u{627}", "\u{1f468}\u{200d}\u{1f469}", "\u{8fbb}\u{e0100}", "\u{2764}\u{fe0f}"] {
            assert!(name(shown).is_ok(), "{shown:?}");
        }
        assert!(name(&"x".repeat(200)).is_ok());
        assert_eq!(name(&"x".repeat(201)).unwrap_err().code, "too_long");
        assert_eq!(picture(""), Ok(String::new()));
        assert_eq!(picture("https://example.com/a.png"), Ok("https://example.com/a.png".to_owned()));
        for text in [
            "javascript:alert(1)",
            "data:image/png;base64,AA",
            "//example.com/a",
            "http://",
            "https://u:p@example.com/",
            "https://a b.com/",
        ] {
            assert_eq!(picture(text).unwrap_err().code, "invalid", "{text}");
        }
        let given = ["b", "a", "b"].map(str::to_owned);
        assert_eq!(groups(&given), Ok(vec!["a".to_owned(), "b".to_owned()]));
        for bad in ["a,b", "", "a\tb", &"x".repeat(65)] {
            assert!(groups(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn canonicalization_is_idempotent() {
        proptest::proptest!(|(text in "\\PC{0,20}@\\PC{0,20}")| {
            if let Some(email) = canonical(&text) {
                proptest::prop_assert_eq!(canonical(&email), Some(email));
            }
        });
    }
}

//! Policy for new passwords (NIST SP 800-63B-4, 3.1.1.2): long enough, not easy to guess, no words of the user's
//! e-mail or the page's title. No composition rules, no expiry.

use super::guessable;
use super::hasher::{hash_now, normalize};
use crate::account::errors::FieldError;
use crate::config;
use crate::secret::Secret;
use zeroize::Zeroizing;

/// Longest password in characters.
const CHARS_MAX: usize = 256;
/// Shortest word of an e-mail or title that a password may not contain, in characters.
const WORD_CHARS_MIN: usize = 4;

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().count() >= WORD_CHARS_MIN)
        .map(str::to_lowercase)
}

fn wrong(code: &'static str, message: String) -> FieldError {
    FieldError { field: "password", code, message }
}

/// Checks a new password.
///
/// # Errors
/// Codes `too_short`, `too_long`, `common`, `guessable`, always for the field `password`.
pub(crate) fn check(rules: &config::Password, title: &str, email: &str, password: &Secret) -> Result<(), FieldError> {
    let password = normalize(password);
    let length = password.chars().count();
    if length < rules.min_length {
        return Err(wrong(
            "too_short",
            format!("The password is too short: it needs at least {} characters.", rules.min_length),
        ));
    }
    if length > CHARS_MAX {
        return Err(wrong(
            "too_long",
            format!("The password is too long: it can have at most {CHARS_MAX} characters."),
        ));
    }
    if !rules.blocklist {
        return Ok(());
    }
    let lower = Zeroizing::new(password.to_lowercase());
    if guessable::is_guessable(&lower) {
        return Err(wrong("common", "This password is too easy to guess.".to_owned()));
    }
    if words(email).chain(words(title)).any(|word| lower.contains(&word)) {
        return Err(wrong(
            "guessable",
            "The password contains a word from your e-mail address or from this page's title.".to_owned(),
        ));
    }
    Ok(())
}

/// Checks and hashes a new password, for commands.
pub(crate) fn hash_checked(
    rules: &config::Password,
    title: &str,
    email: &str,
    password: &Secret,
) -> Result<Secret, String> {
    check(rules, title, email, password).map_err(|wrong| wrong.message)?;
    hash_now(rules.argon2, password).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(min_length: usize, blocklist: bool, password: &str) -> &'static str {
        let argon2 = config::Argon2 { memory_kib: 8, iterations: 1, parallelism: 1 };
        let rules = config::Password { enabled: true, min_length, blocklist, argon2 };
        let password = Secret::new(password.to_owned());
        check(&rules, "Photo Club", "marlene@example.com", &password).map_or_else(|error| error.code, |()| "ok")
    }

    #[test]
    fn length_is_counted_in_characters_after_composition() {
        assert_eq!(verdict(15, true, &"\u{1f600}".repeat(14)), "too_short");
        assert_eq!(verdict(15, false, &"\u{1f600}".repeat(15)), "ok");
        assert_eq!(verdict(15, true, &"e\u{301}".repeat(14)), "too_short");
        assert_eq!(verdict(15, false, &"xy".repeat(128)), "ok");
        assert_eq!(verdict(15, false, &format!("{}z", "xy".repeat(128))), "too_long");
        assert_eq!(verdict(15, true, "  leading and trailing  "), "ok");
    }

    #[test]
    fn common_passwords_are_rejected_in_any_case() {
        assert_eq!(verdict(8, true, "passw0rd"), "common");
        assert_eq!(verdict(8, true, "PassW0rd"), "common");
        assert_eq!(verdict(8, false, "passw0rd"), "ok");
        assert_eq!(verdict(8, true, "passw0rd and more"), "ok");
        assert_eq!(verdict(15, true, "PasswordPassword"), "common");
        assert_eq!(verdict(15, true, "password12345678password"), "common");
        assert_eq!(verdict(15, true, "PASSWORD and a good deal more"), "ok");
    }

    #[test]
    fn words_of_email_and_title_are_rejected() {
        assert_eq!(verdict(15, true, "xx MARLENE yyyyyyyyy"), "guessable");
        assert_eq!(verdict(15, true, "zz example zzzzzzzzz"), "guessable");
        assert_eq!(verdict(15, true, "a photograph of zebras"), "guessable");
        assert_eq!(verdict(15, true, "com is a short word of it"), "ok");
        assert_eq!(verdict(15, false, "xx MARLENE yyyyyyyyy"), "ok");
    }
}

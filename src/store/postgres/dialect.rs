//! The statements of the store as `PostgreSQL` writes them: `$1` for `?1`, and another name for the table `user`, which
//! is a reserved word there.

use std::collections::HashMap;

/// The table of accounts.
const ACCOUNT: &str = "account";

/// Statements that were translated. There are as many as the store has; those with numbers in them are not kept.
#[derive(Debug, Default)]
pub(super) struct Dialect(HashMap<String, String>);

/// Maximum statements that are kept.
const STATEMENTS_MAX: usize = 512;

impl Dialect {
    /// A statement in the dialect.
    pub(super) fn of(&mut self, sql: &str) -> String {
        if let Some(known) = self.0.get(sql) {
            return known.clone();
        }
        let translated = translate(sql);
        if self.0.len() < STATEMENTS_MAX {
            self.0.insert(sql.to_owned(), translated.clone());
        }
        translated
    }
}

/// Text in quotes stays as it is.
fn translate(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 16);
    for (at, part) in sql.split('\'').enumerate() {
        if at > 0 {
            out.push('\'');
        }
        if at % 2 == 1 {
            out.push_str(part);
            continue;
        }
        let mut rest = part;
        while let Some(found) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            out.push_str(&rest[..found].replace('?', "$"));
            rest = &rest[found..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            out.push_str(if &rest[..end] == "user" { ACCOUNT } else { &rest[..end] });
            rest = &rest[end..];
        }
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn parameters_and_the_table_of_accounts_have_other_names() {
        let sql = "SELECT user.id, 'user ?1' FROM user WHERE user_id = ?1 AND (?12 = '' OR value='user')";
        let expected = "SELECT account.id, 'user ?1' FROM account WHERE user_id = $1 AND ($12 = '' OR value='user')";
        assert_eq!(translate(sql), expected);
    }
}

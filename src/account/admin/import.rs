//! Imports accounts from other programs. Each row is checked on its own: what cannot be imported is dropped or
//! cleaned, and reported; all valid rows are written in one transaction.

use std::collections::{HashMap, HashSet};

use super::accounts::Admin;
use crate::account::errors::{AdminError, printable};
use crate::account::fields;
use crate::account::fields::Unsuitable;
use crate::account::password::hasher;
use crate::account::provider::identity::SUBJECT_BYTES_MAX;
use crate::secret::Secret;
use crate::store::identities::IDENTITIES_MAX;
use crate::store::{self, Import, NewId, NewIdentity, NewUser};

/// One row as read.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ImportRow {
    /// Line or row in its file, from 1.
    pub row: usize,
    pub id: Option<String>,
    pub email: String,
    /// The other program had the address confirmed.
    pub email_proved: bool,
    /// The password hash, as read; `None`: the account had none.
    pub password: Option<Secret>,
    pub name: String,
    pub picture: String,
    pub groups: Vec<String>,
    pub disabled: bool,
}

/// An identity of an account in another program: who its owner is at a provider.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct ImportIdentity {
    /// Line or row in its file, from 1.
    pub row: usize,
    /// Id of the account there.
    pub user_id: String,
    pub provider: String,
    pub subject: String,
}

/// A problem found in one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Line or row in its file, from 1.
    pub row: usize,
    /// Whether it is a row of identities.
    pub of_identities: bool,
    /// The problem and what was done about it.
    pub what: String,
}

/// The result of an import or dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// Accounts created.
    pub made: usize,
    /// Their identities: read, and not skipped.
    pub identities: usize,
    /// Rows skipped.
    pub skipped: usize,
    /// By row.
    pub findings: Vec<Finding>,
}

/// How to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRules {
    /// Write nothing.
    pub dry_run: bool,
    /// Write nothing if there is any finding.
    pub strict: bool,
    /// The highest id that the other program ever assigned: new ids are higher.
    pub highest_id: u64,
    /// Names of the providers that the configuration has.
    pub providers: Vec<String>,
}

struct Importer<'a> {
    admin: &'a mut Admin,
    emails: HashSet<String>,
    ids: HashSet<String>,
    /// Keys of identities.
    keys: HashSet<(String, String)>,
    /// Number of identities, by e-mail.
    identities: HashMap<String, u32>,
    done: Imported,
    row: usize,
    of_identities: bool,
}

/// Checks all rows, then writes all valid ones, or nothing.
///
/// # Errors
/// [`AdminError`]: nothing was written.
pub fn run(
    admin: &mut Admin,
    rows: Vec<ImportRow>,
    identities: Vec<ImportIdentity>,
    rules: &ImportRules,
) -> Result<Imported, AdminError> {
    let mut importer = Importer {
        admin,
        emails: HashSet::new(),
        ids: HashSet::new(),
        keys: HashSet::new(),
        identities: HashMap::new(),
        done: Imported::default(),
        row: 0,
        of_identities: false,
    };
    let mut ready = Import { highest_id: rules.highest_id, ..Import::default() };
    // accounts there, by id
    let mut accepted = HashMap::new();
    for row in rows {
        let id = row.id.clone();
        match importer.accept(row)? {
            Some(user) => {
                accepted.extend(id.map(|id| (id, user.0.email.clone())));
                ready.users.push(user);
            }
            None => importer.done.skipped += 1,
        }
    }
    importer.of_identities = true;
    for identity in identities {
        ready.identities.extend(importer.accept_identity(identity, &accepted, &rules.providers)?);
    }
    let mut done = importer.done;
    done.identities = ready.identities.len();
    let refused = rules.strict && !done.findings.is_empty();
    if !rules.dry_run && !refused {
        admin.write_import(&ready)?;
        done.made = ready.users.len();
    }
    Ok(done)
}

/// As [[provider]] names are: in URLs and in the audit trail.
fn is_provider_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// OpenID Connect Core 1.0, 2.
fn is_subject(subject: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) && subject.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

impl Importer<'_> {
    fn report(&mut self, what: impl Into<String>) {
        self.done.findings.push(Finding { row: self.row, of_identities: self.of_identities, what: what.into() });
    }

    /// `None`: the row is skipped.
    fn accept(&mut self, row: ImportRow) -> Result<Option<(NewUser, bool)>, AdminError> {
        self.row = row.row;
        let Some(email) = self.email(&row.email) else { return Ok(None) };
        if !self.emails.insert(email.clone()) {
            self.report(format!("{email} appears more than once, ignoring case: skipped"));
            return Ok(None);
        }
        if self.admin.has_email(&email)? {
            self.report(format!("an account with the e-mail {email} already exists: skipped"));
            return Ok(None);
        }
        let Some(id) = self.id(row.id)? else { return Ok(None) };
        let user = NewUser {
            id,
            name: self.name(&row.name),
            picture: self.picture(&row.picture),
            groups: self.groups(&row.groups),
            password: self.password(row.password),
            email,
            email_proved: row.email_proved,
        };
        Ok(Some((user, row.disabled)))
    }

    /// `None`: the row is skipped.
    fn accept_identity(
        &mut self,
        identity: ImportIdentity,
        accepted: &HashMap<String, String>,
        providers: &[String],
    ) -> Result<Option<(String, NewIdentity)>, AdminError> {
        let ImportIdentity { row, user_id, provider, subject } = identity;
        self.row = row;
        let Some(email) = accepted.get(&user_id) else {
            self.report(format!("its account {} was not imported: skipped", printable(&user_id)));
            return Ok(None);
        };
        if !is_provider_name(&provider) {
            let shown = printable(&provider);
            self.report(format!(
                "`{shown}` cannot be the name of a [[provider]] (use --provider {shown}=NAME): skipped"
            ));
            return Ok(None);
        }
        if !is_subject(&subject) {
            self.report(format!("the id of this person at {provider} is empty, too long or not ASCII: skipped"));
            return Ok(None);
        }
        let is_new = self.keys.insert((provider.clone(), subject.clone()));
        if !is_new || store::imports::has_identity(&mut self.admin.db, &provider, &subject)? {
            self.report(format!("this person of {provider} belongs to another account: skipped"));
            return Ok(None);
        }
        let count = self.identities.entry(email.clone()).or_default();
        *count += 1;
        if *count > IDENTITIES_MAX {
            self.report(format!("{email} has more than {IDENTITIES_MAX} of them: skipped"));
            return Ok(None);
        }
        if !providers.contains(&provider) {
            self.report(format!(
                "no [[provider]] is named \"{provider}\"; imported all the same (--provider {provider}=NAME imports under another name)"
            ));
        }
        Ok(Some((email.clone(), NewIdentity { provider, subject, ..NewIdentity::default() })))
    }

    /// Unusual addresses are kept; one that is dangerous to apps is skipped.
    fn email(&mut self, typed: &str) -> Option<String> {
        let Some(email) = fields::canonical(typed) else {
            self.report(format!("`{}` is not a valid e-mail address: skipped", printable(typed)));
            return None;
        };
        match fields::check_new_address(&email) {
            Ok(()) => {}
            Err(Unsuitable::Unsafe) => {
                self.report(format!("{email} could be mistaken for a file name or an option: skipped"));
                return None;
            }
            Err(Unsuitable::NotDotAtom) => {
                self.report(format!("{email} would not be accepted at sign-up; it was kept"));
            }
            Err(Unsuitable::Confusable) => {
                self.report(format!("{email} has letters that look like others; it was kept"));
            }
        }
        Some(email)
    }

    fn id(&mut self, id: Option<String>) -> Result<Option<NewId>, AdminError> {
        let Some(id) = id else { return Ok(Some(self.admin.new_id()?)) };
        if id.is_empty() || id.len() > 128 || !id.bytes().all(|b| b.is_ascii_graphic()) {
            self.report(format!("invalid id `{}`: skipped", printable(&id)));
            return Ok(None);
        }
        if !self.ids.insert(id.clone()) || self.admin.has_id(&id)? {
            self.report(format!("the id {id} is already in use: skipped"));
            return Ok(None);
        }
        Ok(Some(NewId::Given(id)))
    }

    fn name(&mut self, typed: &str) -> String {
        if let Ok(name) = fields::name(typed) {
            return name;
        }
        self.report("the name was shortened or cleaned: it was too long, or had characters that cannot be displayed");
        fields::cleaned_name(typed)
    }

    fn picture(&mut self, typed: &str) -> String {
        fields::picture(typed).unwrap_or_else(|wrong| {
            self.report(format!("the picture was left out: {}", wrong.message));
            String::new()
        })
    }

    fn groups(&mut self, typed: &[String]) -> Vec<String> {
        fields::groups(typed).unwrap_or_else(|wrong| {
            self.report(format!("the groups were left out: {}", wrong.message));
            Vec::new()
        })
    }

    fn password(&mut self, hash: Option<Secret>) -> Option<Secret> {
        let hash = hash?;
        let usable = hasher::is_usable(self.admin.argon2(), &hash);
        if !usable {
            self.report("the password hash is damaged or of an unknown kind: the account has no password");
        }
        usable.then_some(hash)
    }
}

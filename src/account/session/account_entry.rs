//! An account as its sessions share it: one value for all that began with a password or a link, and for API tokens; one
//! for the sessions of each identity, which have the groups of the provider besides the account's own.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::user::User;
use crate::store::{Account, IdentityGroups};

pub(super) struct AccountEntry {
    local: Arc<ArcSwap<User>>,
    by_identity: Vec<IdentityEntry>,
}

struct IdentityEntry {
    provider: Box<str>,
    subject: Box<str>,
    /// Sorted.
    groups: Vec<String>,
    user: Arc<ArcSwap<User>>,
}

impl AccountEntry {
    /// Until the store has supplied it, the account counts as disabled.
    pub(super) fn unknown(id: &str) -> Self {
        let [email, name, picture] = [const { String::new() }; 3];
        let unknown = User::new(id.to_owned(), email, name, picture, Vec::new(), true);
        Self { local: Arc::new(ArcSwap::from_pointee(unknown)), by_identity: Vec::new() }
    }

    /// The account data shared by the sessions that began with this identity, or with none.
    pub(super) fn shared(&mut self, identity: Option<(&str, &str)>) -> Arc<ArcSwap<User>> {
        let Some((provider, subject)) = identity else { return Arc::clone(&self.local) };
        if let Some(known) = self.by_identity.iter().find(|entry| entry.is(provider, subject)) {
            return Arc::clone(&known.user);
        }
        let user = Arc::new(ArcSwap::new(self.local.load_full()));
        let shared = Arc::clone(&user);
        self.by_identity.push(IdentityEntry {
            provider: provider.into(),
            subject: subject.into(),
            groups: Vec::new(),
            user,
        });
        shared
    }

    /// Applies a change of the account to all.
    pub(super) fn change(&mut self, row: &Account<'_>) {
        let groups: Vec<String> = split(row.groups).map(str::to_owned).collect();
        replace(&self.local, row, groups.clone());
        for entry in &self.by_identity {
            replace(&entry.user, row, united(&groups, &entry.groups));
        }
    }

    /// Applies the groups of an identity to its sessions; ignored if there are none.
    pub(super) fn change_identity(&mut self, row: &IdentityGroups<'_>) {
        let entry = self.by_identity.iter_mut().find(|entry| entry.is(row.provider, row.subject));
        let Some(entry) = entry else { return };
        if split(row.groups).eq(entry.groups.iter().map(String::as_str)) {
            return;
        }
        entry.groups = split(row.groups).map(str::to_owned).collect();
        let local = self.local.load();
        let User { id, email, name, picture, groups, disabled, .. } = &**local;
        let groups = united(groups, &entry.groups);
        let new = User::new(id.clone(), email.clone(), name.clone(), picture.clone(), groups, *disabled);
        entry.user.store(Arc::new(new));
    }

    /// Drops identities without sessions. Returns whether anything is still in use.
    pub(super) fn sweep(&mut self) -> bool {
        self.by_identity.retain(|entry| Arc::strong_count(&entry.user) > 1);
        !self.by_identity.is_empty() || Arc::strong_count(&self.local) > 1
    }
}

impl IdentityEntry {
    fn is(&self, provider: &str, subject: &str) -> bool {
        (&*self.provider, &*self.subject) == (provider, subject)
    }
}

fn split(groups: &str) -> impl Iterator<Item = &str> {
    groups.split(',').filter(|group| !group.is_empty())
}

/// Sorted, without duplicates.
fn united(own: &[String], provider: &[String]) -> Vec<String> {
    let mut groups: Vec<String> = own.iter().chain(provider).cloned().collect();
    groups.sort_unstable();
    groups.dedup();
    groups.shrink_to_fit();
    groups
}

/// Replaces the value unless it is the same already.
fn replace(shared: &ArcSwap<User>, row: &Account<'_>, groups: Vec<String>) {
    let old = shared.load();
    let same = (&*old.email, &*old.name, &*old.picture, old.disabled)
        == (row.email, row.name, row.picture, row.disabled)
        && groups == old.groups;
    if !same {
        let [id, email, name, picture] = [row.id, row.email, row.name, row.picture].map(str::to_owned);
        shared.store(Arc::new(User::new(id, email, name, picture, groups, row.disabled)));
    }
}

//! What the configuration says about people of a provider: who may sign in, which groups they have here. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::account::fields;
use crate::account::provider::identity::{EXTRA_TENANT, ProviderIdentity};
use crate::clock::UnixSecs;
use crate::config::{KeptTokens, LinkRule, Provider, ProviderKind, SignUp};
use crate::store::NewIdentity;

/// Groups of an identity at most; further ones are dropped.
const GROUPS_MAX: usize = 64;

/// The provider's own names that are kept of an identity; further ones are dropped.
const USED_GROUPS_MAX: usize = 256;

/// The rules of one `[[provider]]` that concern accounts.
#[derive(Debug, Clone)]
pub(crate) struct ProviderRules {
    pub(crate) name: String,
    pub(crate) allow: Allow,
    /// Their groups that are groups here.
    pub(crate) groups: BTreeMap<String, String>,
    /// Keeps their other groups, under names that begin so; empty: drops them.
    pub(crate) groups_prefix: String,
    /// Whether the provider's people may create accounts.
    pub(crate) sign_up: SignUp,
    /// A verified address links the identity to the account that has proved it.
    pub(crate) links_by_email: bool,
    /// The provider says when it authenticated a person: a session without that was not proved to be recent.
    pub(crate) says_auth_time: bool,
    /// The provider names the organization of its people (Google's `hd`), and that is what `allow.domains` compares.
    pub(crate) has_hosted_domains: bool,
    /// Which tokens are kept with a session.
    pub(crate) kept: KeptTokens,
}

/// Who may sign in: everybody whom the provider knows, unless something is listed. Addresses and domains are
/// alternatives; of groups and tenants one each is needed as well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allow {
    /// In lower-case ASCII (IDNA).
    pub(crate) domains: Vec<String>,
    /// Canonical.
    pub(crate) emails: Vec<String>,
    /// The provider's own names.
    pub(crate) groups: Vec<String>,
    pub(crate) tenants: Vec<String>,
}

/// Which rule an identity does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAllowed {
    Address,
    Group,
    Tenant,
}

impl NotAllowed {
    /// For logs and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Address => "address_not_allowed",
            Self::Group => "group_not_allowed",
            Self::Tenant => "tenant_not_allowed",
        }
    }
}

/// Consumer addresses that Google itself gives out; it says no `hd` about them.
const GOOGLE_MAIL: [&str; 2] = ["gmail.com", "googlemail.com"];

/// The canonical form of an address that the provider has verified.
fn verified_email(identity: &ProviderIdentity) -> Option<String> {
    let email = identity.email.as_ref().filter(|email| email.is_verified)?;
    fields::canonical(&email.address)
}

impl ProviderRules {
    /// Those of a `[[provider]]`.
    pub(crate) fn new(provider: &Provider) -> Self {
        let allow = &provider.allow;
        Self {
            name: provider.name.clone(),
            allow: Allow {
                domains: allow.domains.clone(),
                emails: allow.emails.clone(),
                groups: allow.groups.clone(),
                tenants: allow.tenants.clone(),
            },
            groups: provider.groups.iter().cloned().collect(),
            groups_prefix: provider.groups_prefix.clone().unwrap_or_default(),
            sign_up: provider.sign_up,
            links_by_email: provider.link == LinkRule::VerifiedEmail,
            says_auth_time: provider.kind == ProviderKind::Oidc,
            has_hosted_domains: provider.kind == ProviderKind::Google,
            kept: provider.kept,
        }
    }

    /// When a person who signs in now proved who they are; 0: not known. Kinds that never say it count from now.
    pub(crate) fn authenticated(&self, identity: &ProviderIdentity, now: UnixSecs) -> UnixSecs {
        if self.says_auth_time { identity.auth_time.map_or(0, |at| at.min(now)) } else { now }
    }

    /// Whether the identity may sign in. Asked at every sign-in.
    pub(crate) fn check(&self, identity: &ProviderIdentity) -> Result<(), NotAllowed> {
        let Allow { domains, emails, groups, tenants } = &self.allow;
        let has_address = domains.is_empty() && emails.is_empty()
            || verified_email(identity).is_some_and(|email| emails.contains(&email))
            || self.domain(identity).is_some_and(|domain| domains.contains(&domain));
        if !has_address {
            return Err(NotAllowed::Address);
        }
        if !groups.is_empty() && !identity.groups.iter().any(|group| groups.contains(group)) {
            return Err(NotAllowed::Group);
        }
        let tenant = identity.extra.get(EXTRA_TENANT);
        if !tenants.is_empty() && !tenant.is_some_and(|tenant| tenants.contains(tenant)) {
            return Err(NotAllowed::Tenant);
        }
        Ok(())
    }

    /// The domain that `allow.domains` compares. A company's address on an account that the company does not manage
    /// does not count as its domain (oauth2-proxy #2363); an address has one `@` in its canonical form
    /// (CVE-2026-40574).
    fn domain(&self, identity: &ProviderIdentity) -> Option<String> {
        if let Some(hosted) = &identity.hosted_domain {
            return idna::domain_to_ascii(hosted).ok();
        }
        let email = verified_email(identity)?;
        let domain = email.rsplit_once('@')?.1.to_owned();
        (!self.has_hosted_domains || GOOGLE_MAIL.contains(&domain.as_str())).then_some(domain)
    }

    /// Groups here: mapped ones, and the others under the prefix, if there is one. Sorted, no duplicates.
    pub(crate) fn mapped_groups(&self, theirs: &[String]) -> Vec<String> {
        let mapped = theirs.iter().filter_map(|name| self.groups.get(name).cloned());
        let mut groups: BTreeSet<String> = mapped.take(GROUPS_MAX).collect();
        if !self.groups_prefix.is_empty() {
            // a name that cleaning changes would become another's
            let plain = |name: &&String| name.trim() == name.as_str() && !self.groups.contains_key(*name);
            for name in theirs.iter().filter(plain) {
                if groups.len() >= GROUPS_MAX {
                    break;
                }
                // no name with a comma or a control character becomes one
                if let Ok(named) = fields::groups(&[format!("{}{name}", self.groups_prefix)]) {
                    groups.extend(named);
                }
            }
        }
        groups.into_iter().collect()
    }

    /// The provider's names that groups here are mapped from, so that they can be mapped again when the map changes.
    fn used_groups(&self, theirs: &[String]) -> Vec<String> {
        let mut names: Vec<&String> = theirs.iter().filter(|name| !name.contains(['\n', '\r'])).collect();
        // those of the map first
        names.sort_by_key(|name| !self.groups.contains_key(*name));
        let is_used = |name: &&String| !self.groups_prefix.is_empty() || self.groups.contains_key(*name);
        names.into_iter().filter(is_used).take(USED_GROUPS_MAX).cloned().collect()
    }

    /// What is written down of an identity: cleaned like typed input.
    pub(crate) fn row(&self, identity: &ProviderIdentity) -> NewIdentity {
        let text = |text: &Option<String>| fields::cleaned_name(text.as_deref().unwrap_or_default());
        let picture = identity.picture.as_deref().filter(|url| url.trim_start().starts_with("https:"));
        let extra: Vec<String> =
            identity.extra.iter().map(|(name, value)| format!("{name}={}", fields::cleaned_name(value))).collect();
        NewIdentity {
            provider: self.name.clone(),
            subject: identity.subject.clone(),
            issuer: identity.issuer.clone(),
            email: identity.email.as_ref().and_then(|email| fields::canonical(&email.address)),
            email_verified: verified_email(identity).is_some(),
            login: text(&identity.login),
            name: text(&identity.name),
            picture: picture.and_then(|url| fields::picture(url).ok()).unwrap_or_default(),
            groups: self.mapped_groups(&identity.groups),
            their_groups: self.used_groups(&identity.groups),
            proves_email: self.links_by_email,
            extra: extra.join("\n"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::account::provider::identity::ProviderEmail;

    pub(crate) fn rules(name: &str) -> ProviderRules {
        ProviderRules {
            name: name.to_owned(),
            allow: Allow::default(),
            groups: BTreeMap::new(),
            groups_prefix: String::new(),
            sign_up: SignUp::Open,
            links_by_email: false,
            says_auth_time: false,
            has_hosted_domains: false,
            kept: KeptTokens::default(),
        }
    }

    /// Of provider `corp`, with a verified address.
    pub(crate) fn person(subject: &str, email: &str) -> ProviderIdentity {
        ProviderIdentity {
            provider: "corp".to_owned(),
            subject: subject.to_owned(),
            issuer: Some("https://corp.example.com".to_owned()),
            email: Some(ProviderEmail { address: email.to_owned(), is_verified: true }),
            name: None,
            picture: None,
            login: None,
            groups: Vec::new(),
            session_id: None,
            hosted_domain: None,
            auth_time: None,
            extra: BTreeMap::new(),
        }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    /// CVE-2026-40574.
    #[test]
    fn a_domain_is_what_is_behind_the_single_at_sign_and_must_be_verified() {
        let allow = Allow { domains: texts(&["example.com", "xn--bcher-kva.example"]), ..Allow::default() };
        let rules = ProviderRules { allow, ..rules("corp") };
        for good in ["ada@example.com", "Ada@EXAMPLE.com", "ada@bücher.example", " ada@example.com "] {
            assert_eq!(rules.check(&person("1", good)), Ok(()), "{good}");
        }
        for bad in [
            "ada@evil.test@example.com",
            "ada@sub.example.com",
            "ada@example.com.evil.test",
            "ada@notexample.com",
            "\"ada@example.com\"@evil.test",
            "example.com",
            "ada@example.com@evil.test",
            "ada@example.com.",
            "",
        ] {
            assert_eq!(rules.check(&person("1", bad)), Err(NotAllowed::Address), "{bad}");
        }
        let mut unverified = person("1", "ada@example.com");
        unverified.email.as_mut().unwrap().is_verified = false;
        assert_eq!(rules.check(&unverified), Err(NotAllowed::Address));
        assert_eq!(rules.check(&ProviderIdentity { email: None, ..unverified }), Err(NotAllowed::Address));
    }

    #[test]
    fn where_a_provider_names_organizations_an_address_of_the_domain_is_not_enough() {
        let allow = Allow { domains: texts(&["example.com", "gmail.com"]), ..Allow::default() };
        let google = ProviderRules { allow, has_hosted_domains: true, ..rules("google") };
        let hosted = |domain: Option<&str>, email: &str| ProviderIdentity {
            hosted_domain: domain.map(str::to_owned),
            ..person("1", email)
        };
        assert_eq!(google.check(&hosted(Some("example.com"), "ada@example.com")), Ok(()));
        assert_eq!(google.check(&hosted(Some("Example.COM"), "ada@alias.test")), Ok(()));
        assert_eq!(google.check(&hosted(None, "ada@gmail.com")), Ok(()));
        assert_eq!(google.check(&hosted(Some("other.test"), "ada@example.com")), Err(NotAllowed::Address));
        assert_eq!(google.check(&hosted(None, "ada@example.com")), Err(NotAllowed::Address));
    }

    #[test]
    fn a_tenant_and_a_group_are_needed_besides_an_address() {
        let allow = Allow {
            emails: texts(&["ada@example.com"]),
            groups: texts(&["Ops", "dev"]),
            tenants: texts(&["9188040d"]),
            ..Allow::default()
        };
        let rules = ProviderRules { allow, ..rules("corp") };
        let mut ada = person("1", "ada@example.com");
        assert_eq!(rules.check(&ada), Err(NotAllowed::Group));
        ada.groups = texts(&["ops", "other"]);
        assert_eq!(rules.check(&ada), Err(NotAllowed::Group), "another spelling is another group");
        ada.groups.push("Ops".to_owned());
        assert_eq!(rules.check(&ada), Err(NotAllowed::Tenant));
        ada.extra.insert(EXTRA_TENANT, "other".to_owned());
        assert_eq!(rules.check(&ada), Err(NotAllowed::Tenant));
        ada.extra.insert(EXTRA_TENANT, "9188040d".to_owned());
        assert_eq!(rules.check(&ada), Ok(()));
        let bob = ProviderIdentity { extra: ada.extra.clone(), groups: ada.groups, ..person("2", "bob@example.com") };
        assert_eq!(rules.check(&bob), Err(NotAllowed::Address));
    }

    #[test]
    fn their_groups_are_ours_only_through_the_map() {
        let map = [("platform-team".to_owned(), "ops".to_owned())].into();
        let own = ProviderRules { groups: map, ..rules("corp") };
        let theirs = texts(&["admin", "platform-team", "x,admin", "a\nb"]);
        assert_eq!(own.mapped_groups(&theirs), ["ops"]);
        let kept = ProviderRules { groups_prefix: "gh:".to_owned(), ..own.clone() };
        assert_eq!(kept.mapped_groups(&theirs), ["gh:admin", "ops"]);
        assert_eq!(
            kept.mapped_groups(&texts(&["ops ", " x", "y\u{a0}"])),
            Vec::<String>::new(),
            "not the group of another name"
        );
        let long = ["x".repeat(61), "x".repeat(62)];
        assert_eq!(kept.mapped_groups(&long), [format!("gh:{}", long[0])], "the next longer one is not cut to it");
        assert_eq!(kept.used_groups(&theirs), ["platform-team", "admin", "x,admin"]);
        assert_eq!(own.used_groups(&theirs), ["platform-team"], "nothing is kept that is not needed");
        let many: Vec<String> = (0..200).map(|n| format!("g{n}")).chain(["platform-team".to_owned()]).collect();
        let mapped = kept.mapped_groups(&many);
        assert!(mapped.len() == GROUPS_MAX && mapped.contains(&"ops".to_owned()), "the map comes first");
    }

    #[test]
    fn names_and_pictures_are_cleaned_like_typed_ones() {
        let mut ada = person("1", "Ada@Example.com");
        ada.name = Some("Ada\r\nX-Admin: 1\u{202e}".to_owned());
        ada.login = Some("ada\u{7}".to_owned());
        for bad in ["javascript:alert(1)", "http://example.com/a.png", "https://u:p@example.com/", "data:,"] {
            ada.picture = Some(bad.to_owned());
            assert_eq!(rules("corp").row(&ada).picture, "", "{bad}");
        }
        ada.picture = Some("https://example.com/a.png".to_owned());
        let row = rules("corp").row(&ada);
        assert_eq!(
            (row.name.as_str(), row.login.as_str(), row.picture.as_str(), row.email.as_deref()),
            ("Ada X-Admin: 1", "ada", "https://example.com/a.png", Some("ada@example.com"))
        );
    }
}

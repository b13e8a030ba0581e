//! What a provider's documents say of a person: which claim is read where, and whose word proves an e-mail address.

use serde_json::Value;

use super::identity::ProviderEmail;
use crate::config::{Provider, ProviderKind};

/// Longest `user` field of Apple that is read, bytes.
const USER_FIELD_BYTES_MAX: usize = 1024;
/// Groups that are read of one person; Entra and GitLab know thousands.
pub(crate) const GROUPS_MAX: usize = 10_000;

/// The documents about one person, the one that was verified first.
pub(crate) struct Documents<'d> {
    pub(crate) provider: &'d Provider,
    /// Claims of the ID token, or the profile of a provider that gives none.
    pub(crate) first: &'d Value,
    /// Userinfo, if it was asked for beside an ID token.
    pub(crate) userinfo: Option<&'d Value>,
}

/// The value of a claim by its name, or by a JSON pointer (RFC 6901).
pub(crate) fn lookup<'d>(document: &'d Value, path: &str) -> Option<&'d Value> {
    let value = if path.starts_with('/') { document.pointer(path) } else { document.get(path) };
    value.filter(|value| !value.is_null())
}

/// A text that is not empty.
pub(crate) fn text(document: &Value, path: &str) -> Option<String> {
    lookup(document, path)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A number as an id, in decimal; a text stays. 0, "", null and fractions are no ids.
pub(crate) fn id_or_number(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => number.as_u64().filter(|id| *id != 0).map(|id| id.to_string()),
        _ => None,
    }
}

/// The display name in Apple's `user` field, which comes with the first sign-in alone. The browser sends it unsigned: it
/// is as good as a name that the person types, and its e-mail address is not read.
pub(crate) fn apple_name(user: &str) -> Option<String> {
    if user.len() > USER_FIELD_BYTES_MAX {
        return None;
    }
    let user: Value = serde_json::from_str(user).ok()?;
    let parts: Vec<String> =
        ["/name/firstName", "/name/lastName"].into_iter().filter_map(|path| text(&user, path)).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

impl Documents<'_> {
    /// Display name.
    pub(crate) fn name(&self) -> Option<String> {
        self.either(self.provider.claims.name.as_deref().unwrap_or("name"))
    }

    /// Address of a picture.
    pub(crate) fn picture(&self) -> Option<String> {
        self.either(self.provider.claims.picture.as_deref().unwrap_or("picture"))
    }

    /// User name.
    pub(crate) fn login(&self) -> Option<String> {
        self.either("preferred_username").or_else(|| self.either("nickname"))
    }

    /// The e-mail address; address and flag are of one document, never mixed.
    pub(crate) fn email(&self) -> Option<ProviderEmail> {
        let emails = || self.all().filter_map(|document| self.email_in(document));
        let flag = self.email_flag();
        let mut with_flag = self.all().filter(|document| lookup(document, flag).is_some());
        with_flag.find_map(|document| self.email_in(document)).or_else(|| emails().next())
    }

    fn email_in(&self, document: &Value) -> Option<ProviderEmail> {
        let address = text(document, self.provider.claims.email.as_deref().unwrap_or("email"))?;
        let is_verified = self.provider.danger_trust_email || self.proves(document, &address);
        Some(ProviderEmail { address, is_verified })
    }

    fn email_flag(&self) -> &str {
        self.provider.claims.email_verified.as_deref().unwrap_or("email_verified")
    }

    /// Whether this document proves that the person has the address, by the rule of the kind.
    fn proves(&self, document: &Value, address: &str) -> bool {
        let claims = &self.provider.claims;
        // a flag about the claim `email` says nothing about another one
        if claims.email.as_deref().is_some_and(|claim| claim != "email") && claims.email_verified.is_none() {
            return false;
        }
        let flag = lookup(document, self.email_flag());
        let is_flagged = flag == Some(&Value::Bool(true));
        match self.provider.kind {
            // Google is authoritative for its own domain and for those it hosts; for others its flag is old news
            ProviderKind::Google => {
                let is_gmail =
                    address.rsplit_once('@').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case("gmail.com"));
                is_flagged && (is_gmail || text(document, "hd").is_some())
            }
            // any tenant's administrator writes any address ("nOAuth"); these two claims say that its domain was proved
            ProviderKind::Microsoft => {
                let owned = document.get("verified_primary_email").and_then(Value::as_array);
                let is_owned = |list: &Vec<Value>| {
                    list.iter().filter_map(Value::as_str).any(|own| own.eq_ignore_ascii_case(address))
                };
                document.get("xms_edov") == Some(&Value::Bool(true)) || owned.is_some_and(is_owned)
            }
            // Cognito and Apple may send a text; Apple's relay addresses are verified as well
            ProviderKind::Oidc | ProviderKind::OAuth2 | ProviderKind::Apple => {
                is_flagged || flag.and_then(Value::as_str) == Some("true")
            }
            ProviderKind::GitLab => is_flagged,
            // its list of addresses decides, not the profile
            ProviderKind::GitHub => false,
        }
    }

    /// Names of groups; `None`: no document has any list.
    pub(crate) fn groups(&self) -> Option<Vec<String>> {
        let own: Vec<&str> = match (&self.provider.claims.groups, self.provider.kind) {
            (Some(path), _) => vec![path.as_str()],
            // what is inherited is in userinfo alone
            (None, ProviderKind::GitLab) => vec!["groups", "groups_direct"],
            (None, ProviderKind::Microsoft) => return self.microsoft_groups(),
            (None, _) => vec!["groups"],
        };
        own.iter().find_map(|path| {
            let found = self.userinfo.into_iter().chain([self.first]).find_map(|document| lookup(document, path));
            found.map(names)
        })
    }

    /// Whether userinfo has no more groups to give than the ID token.
    pub(crate) fn has_all_groups(&self) -> bool {
        // GitLab's ID token lacks those that are inherited
        self.provider.kind != ProviderKind::GitLab && (self.groups().is_some() || self.leaves_groups_out())
    }

    /// Ids of groups, and names of app roles.
    fn microsoft_groups(&self) -> Option<Vec<String>> {
        let [groups, roles] = ["groups", "roles"].map(|name| lookup(self.first, name).map(names));
        match (groups, roles) {
            (None, None) => None,
            (groups, roles) => Some([groups.unwrap_or_default(), roles.unwrap_or_default()].concat()),
        }
    }

    /// Whether the ID token leaves groups out because there are too many (Microsoft alone).
    pub(crate) fn leaves_groups_out(&self) -> bool {
        let reads_groups = self.provider.claims.groups.as_deref().is_none_or(|path| path == "groups");
        let is_elsewhere = self.first.get("_claim_names").is_some_and(|names| names.get("groups").is_some());
        let is_hinted = self.first.get("hasgroups").is_some_and(|hint| hint == true || hint == "true");
        self.provider.kind == ProviderKind::Microsoft && reads_groups && (is_elsewhere || is_hinted)
    }

    fn all(&self) -> impl Iterator<Item = &Value> {
        [self.first].into_iter().chain(self.userinfo)
    }

    fn either(&self, path: &str) -> Option<String> {
        self.all().find_map(|document| text(document, path))
    }
}

/// An array of texts, one text, or the keys of an object.
fn names(value: &Value) -> Vec<String> {
    let list: Vec<&str> = match value {
        Value::String(one) => vec![one.as_str()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::Object(map) => map.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    list.into_iter().filter(|name| !name.is_empty()).take(GROUPS_MAX).map(str::to_owned).collect()
}

/// Whether a decision depends on the groups of this provider.
pub(crate) fn needs_groups(provider: &Provider) -> bool {
    !provider.groups.is_empty() || provider.groups_prefix.is_some() || !provider.allow.groups.is_empty()
}

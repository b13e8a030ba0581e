//! Who a provider says somebody is, after all checks of the protocol, and what the sign-in was started for. The protocol
//! (this folder) makes these values; account decisions (which account, whether to link or to create one) use them. No
//! token of the provider is part of them.

use std::collections::BTreeMap;

use crate::clock::UnixSecs;

/// Longest subject, bytes (OpenID Connect Core 1.0, 2).
pub(crate) const SUBJECT_BYTES_MAX: usize = 255;
/// Key of [`ProviderIdentity::extra`]: the object id of a person in a Microsoft tenant.
pub(crate) const EXTRA_OBJECT_ID: &str = "oid";
/// Key of [`ProviderIdentity::extra`]: the Microsoft tenant.
pub(crate) const EXTRA_TENANT: &str = "tid";

/// A person as a provider describes them. The key is (`provider`, `subject`), compared byte by byte; the e-mail is
/// never a key. Texts are as the provider sent them and still have to be cleaned like typed input (`account/fields.rs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProviderIdentity {
    /// `name` of the `[[provider]]`.
    pub(crate) provider: String,
    /// The person at this provider: 1 to [`SUBJECT_BYTES_MAX`] bytes of printable ASCII.
    pub(crate) subject: String,
    /// Who made the statement, byte for byte, to be pinned to the identity. `None`: the kind has no issuer.
    pub(crate) issuer: Option<String>,
    /// The e-mail address, if the provider gave one.
    pub(crate) email: Option<ProviderEmail>,
    /// Display name.
    pub(crate) name: Option<String>,
    /// Address of a picture; never fetched here.
    pub(crate) picture: Option<String>,
    /// User name at the provider, for people to recognize the identity by. Providers give a name to others later, so it
    /// identifies no one.
    pub(crate) login: Option<String>,
    /// The provider's own group names, before the map of the configuration: none is a group here by itself.
    pub(crate) groups: Vec<String>,
    /// The provider's session (claim `sid`), which its logout names.
    pub(crate) session_id: Option<String>,
    /// Domain of the organization that manages the account (Google's `hd`): `allow.domains` compares it instead of the
    /// e-mail's domain. `None` for every other kind.
    pub(crate) hosted_domain: Option<String>,
    /// When the provider last authenticated the person (`auth_time`). Always there if the attempt asked for a fresh
    /// sign-in (`max_age=0`) and the kind can answer; then it is no older than that attempt.
    pub(crate) auth_time: Option<UnixSecs>,
    /// What an operator may need to find the person at the provider again, by [`EXTRA_OBJECT_ID`] and [`EXTRA_TENANT`].
    pub(crate) extra: BTreeMap<&'static str, String>,
}

/// An e-mail address that a provider gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProviderEmail {
    /// As the provider sent it, not canonical.
    pub(crate) address: String,
    /// Whether the provider's word proves by the rule of its kind that the person has this address. False where the kind
    /// merely displays it, whatever the provider's own flag says.
    pub(crate) is_verified: bool,
}

/// What a sign-in through a provider was started for. It is sealed in `state` and bound to the browser, so the callback
/// can trust it; whether a session or a link is still valid is checked again when the attempt ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    /// To sign in, or to create an account where `sign_up` allows it.
    SignIn,
    /// The same from the sign-up page.
    SignUp,
    /// To add this identity to an account, from its account page. An identity of another account is refused.
    Link {
        /// Id of the session that started it.
        session: String,
        /// Id of its account.
        account: String,
    },
    /// To accept an invite, or the link for the first account.
    Invite {
        /// SHA-256 of the link's token, as the store knows it.
        hash: [u8; 32],
    },
    /// To sign in to the account with the address of a pending identity, which is then added to it. No other account is
    /// signed in to, and none is created.
    Pending {
        /// SHA-256 of the sealed identity.
        hash: [u8; 32],
    },
}

//! Sign-in through Google, GitHub, GitLab, Microsoft and other OpenID Connect or OAuth 2.0 providers: the protocol. It
//! ends with a [`identity::ProviderIdentity`]; which account that is, is decided elsewhere.

pub(crate) mod identity;

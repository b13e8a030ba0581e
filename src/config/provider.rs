//! `[[provider]]` as used: who may be asked to sign people in, how, and what their word counts for.

use url::Url;

use super::authority::Authority;
use super::settings::SignUp;
use crate::secret::Secret;

/// One `[[provider]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// In URLs, identities and the audit log: 1 to 32 bytes of `[a-z0-9-]`.
    pub name: String,
    /// Which rules apply to it.
    pub kind: ProviderKind,
    /// For people: "Continue with ...".
    pub label: String,
    /// Who we are there.
    pub client_id: String,
    /// What proves it.
    pub credential: ClientCredential,
    /// Who must have made its statements.
    pub issuer: ProviderIssuer,
    /// Where it is, as far as the operator or the kind says so; the rest is in its metadata.
    pub endpoints: ProviderEndpoints,
    /// All scopes that are asked for, the kind's own first.
    pub scopes: Vec<String>,
    /// Further parameters of the authorization request; none of the protocol's own.
    pub params: Vec<(String, String)>,
    /// Path of the redirect URI on this gateway.
    pub callback: String,
    /// How the client proves itself at the token endpoint.
    pub token_auth: TokenAuth,
    /// Where its statements are read, beside the kind's own places.
    pub claims: ProviderClaims,
    /// Their group, and ours.
    pub groups: Vec<(String, String)>,
    /// Their other groups are kept under this prefix; `None` drops them.
    pub groups_prefix: Option<String>,
    /// Whom it may sign in.
    pub allow: ProviderAllow,
    /// Who may create an account through it.
    pub sign_up: SignUp,
    /// What happens if the e-mail belongs to an account already.
    pub link: LinkRule,
    /// Who signs its certificates; empty: this machine's authorities.
    pub authorities: Vec<Authority>,
    /// Its e-mail addresses count as verified.
    pub danger_trust_email: bool,
    /// PKCE is left out, for servers that reject it.
    pub danger_no_pkce: bool,
}

/// `kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ProviderKind {
    Google,
    GitHub,
    GitLab,
    Microsoft,
    /// Any provider with OpenID Connect Discovery.
    Oidc,
    /// OAuth 2.0 with a userinfo endpoint and without ID tokens.
    OAuth2,
}

impl ProviderKind {
    /// Whether it gives ID tokens.
    pub fn is_openid(self) -> bool {
        !matches!(self, Self::GitHub | Self::OAuth2)
    }

    /// As written in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Microsoft => "microsoft",
            Self::Oidc => "oidc",
            Self::OAuth2 => "oauth2",
        }
    }
}

/// `client_secret` or `private_key`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCredential {
    /// A public client: PKCE alone protects the code.
    None,
    /// `client_secret`
    Secret(Secret),
    /// `private_key`: a PKCS#8 document in PEM, for `private_key_jwt`.
    PrivateKey(Secret),
}

/// Who must have made a provider's statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderIssuer {
    /// Exactly this one, byte for byte.
    Exact(String),
    /// A Microsoft authority (`https://login.microsoftonline.com`) and a tenant that is no GUID: a domain, `common` or
    /// `organizations`. The issuer is `AUTHORITY/GUID/v2.0`.
    MicrosoftTenant {
        /// Without a slash at the end.
        authority: String,
        /// As written in URLs.
        tenant: String,
    },
    /// None is known, and what the provider says of it is ignored (kind oauth2 alone).
    Unknown,
}

/// `endpoints`, and those that a kind has anyway: the operator's word or ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProviderEndpoints {
    /// Where metadata is read instead of below the issuer.
    pub discovery: Option<Url>,
    pub authorize: Option<Url>,
    pub token: Option<Url>,
    pub userinfo: Option<Url>,
    pub jwks: Option<Url>,
}

/// `token_auth`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAuth {
    /// What the metadata lists, basic before post; else the kind's own.
    Auto,
    /// client_secret_basic
    Basic,
    /// client_secret_post
    Post,
    /// private_key_jwt
    PrivateKey,
    /// A public client.
    None,
}

/// `claims`: each the name of a claim, or a JSON pointer (starts with `/`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProviderClaims {
    pub id: Option<String>,
    pub email: Option<String>,
    pub email_verified: Option<String>,
    pub name: Option<String>,
    pub picture: Option<String>,
    pub groups: Option<String>,
}

/// `allow`: a list that is empty does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderAllow {
    /// Domains of verified e-mail addresses (for google: of the organization), in lower-case ASCII.
    pub domains: Vec<String>,
    /// Verified e-mail addresses, in canonical form.
    pub emails: Vec<String>,
    /// The provider's groups, by their own names.
    pub groups: Vec<String>,
    /// Microsoft tenants (GUIDs, lower case).
    pub tenants: Vec<String>,
}

impl ProviderAllow {
    /// Whether it lets everyone through whom the provider knows.
    pub fn is_everyone(&self) -> bool {
        *self == Self::default()
    }
}

/// `link`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRule {
    /// People are asked to sign in to the account first.
    Ask,
    /// Linked without a question if the address is proved on both sides.
    VerifiedEmail,
}

//! `[[provider]]` as used: identity providers, how to reach them, and what their claims may do.

use std::time::Duration;

use url::Url;

use super::authority::Authority;
use super::sign_up::SignUp;
use crate::secret::Secret;

/// One `[[provider]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Used in URLs, identities and the audit log: 1 to 32 bytes of `[a-z0-9-]`.
    pub name: String,
    /// Which rules apply to it.
    pub kind: ProviderKind,
    /// Display name: "Continue with ...".
    pub label: String,
    /// Client id registered with the provider.
    pub client_id: String,
    /// Client credential.
    pub credential: ClientCredential,
    /// Expected issuer of ID tokens.
    pub issuer: ProviderIssuer,
    /// Endpoints from the configuration or the kind's defaults; the rest comes from the provider's metadata.
    pub endpoints: ProviderEndpoints,
    /// All requested scopes, the kind's defaults first.
    pub scopes: Vec<String>,
    /// Extra parameters of the authorization request; never those of the protocol itself.
    pub params: Vec<(String, String)>,
    /// Path of the redirect URI on this gateway.
    pub callback: String,
    /// Client authentication at the token endpoint.
    pub token_auth: TokenAuth,
    /// Claims to read in addition to the kind's defaults.
    pub claims: ProviderClaims,
    /// Group mapping: provider group, local group.
    pub groups: Vec<(String, String)>,
    /// Prefix for unmapped provider groups; `None` drops them.
    pub groups_prefix: Option<String>,
    /// Who may sign in.
    pub allow: ProviderAllow,
    /// Who may sign up through it.
    pub sign_up: SignUp,
    /// What to do if the e-mail already belongs to an account.
    pub link: LinkRule,
    /// How often the provider is asked whether a session may go on; `None`: never.
    pub recheck: Option<Duration>,
    /// Where signing out ends a session.
    pub sign_out: SignOut,
    /// Which of its tokens are kept, sealed.
    pub kept: KeptTokens,
    /// Trusted CAs for its certificates; empty: the system roots.
    pub authorities: Vec<Authority>,
    /// Treats its e-mail addresses as verified.
    pub danger_trust_email: bool,
    /// Disables PKCE, for servers that reject it.
    pub danger_no_pkce: bool,
}

impl Provider {
    /// Path of its back-channel logout, which OpenID kinds have. `prefix` is the one of the gateway's own pages.
    pub fn backchannel_logout_path(&self, prefix: &str) -> String {
        format!("{prefix}/oauth/{}/backchannel-logout", self.name)
    }

    /// Whether the provider answers by a form that the browser posts (OAuth 2.0 Form Post Response Mode).
    pub fn posts_its_answer(&self) -> bool {
        self.params.iter().any(|(name, value)| name == "response_mode" && value == "form_post")
    }
}

/// `kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ProviderKind {
    Google,
    GitHub,
    GitLab,
    Microsoft,
    Apple,
    /// Any provider with OpenID Connect Discovery.
    Oidc,
    /// OAuth 2.0 with a userinfo endpoint and without ID tokens.
    OAuth2,
}

impl ProviderKind {
    /// Whether the provider issues ID tokens.
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
            Self::Apple => "apple",
            Self::Oidc => "oidc",
            Self::OAuth2 => "oauth2",
        }
    }
}

/// The key of `kind = "apple"`, from which each request's client secret is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppleKey {
    /// `private_key`: a P-256 key as a PKCS#8 document in PEM.
    pub key: Secret,
    /// `team_id`: who signs.
    pub team: String,
    /// `key_id`: names the key in the JWT's header.
    pub id: String,
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
    /// `private_key`, `team_id` and `key_id` of kind apple.
    Apple(AppleKey),
}

/// Expected issuer of a provider's ID tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderIssuer {
    /// Exactly this one, byte for byte.
    Exact(String),
    /// A Microsoft authority (`https://login.microsoftonline.com`) and a tenant that is not a GUID: a domain, `common`
    /// or `organizations`. The issuer is `AUTHORITY/GUID/v2.0`.
    MicrosoftTenant {
        /// Without a trailing slash.
        authority: String,
        /// As written in URLs.
        tenant: String,
    },
    /// No issuer is known, and the provider's own issuer value is ignored (kind oauth2 only).
    Unknown,
}

/// `endpoints`, or the kind's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProviderEndpoints {
    /// Metadata URL, if it is not below the issuer.
    pub discovery: Option<Url>,
    pub authorize: Option<Url>,
    pub token: Option<Url>,
    pub userinfo: Option<Url>,
    pub jwks: Option<Url>,
}

/// `token_auth`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenAuth {
    /// Chosen from the metadata, basic before post; else the kind's default.
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

/// `allow`: an empty list does not restrict.
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
    /// Whether every user of the provider is allowed.
    pub fn is_everyone(&self) -> bool {
        *self == Self::default()
    }
}

/// Tokens of a provider that are kept beyond the sign-in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct KeptTokens {
    pub id: bool,
    pub access: bool,
    pub refresh: bool,
}

/// `sign_out`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignOut {
    /// Here.
    Local,
    /// Here, then at the provider.
    Provider,
}

/// `link`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRule {
    /// The user must sign in to the account first.
    Ask,
    /// Linked without asking if the address is verified on both sides.
    VerifiedEmail,
}

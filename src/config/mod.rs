//! gateway.toml -> [`Config`]: parsed once into types that cannot hold a bad value. One pass collects all faults, each
//! with its position and suggested fix; nothing is validated per request.

pub use crate::web::cookie::SameSite;

mod authority;
mod certificate;
mod conceal;
mod fault;
mod file;
mod keys;
mod load;
mod look;
mod lower;
mod parse;
mod pattern;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod provider;
mod routes;
mod routing;
mod salvage;
mod schema;
mod sealing_key;
mod secret;
mod settings;
mod sign_up;
mod store;
mod store_url;
mod units;

pub use authority::{Authority, UpstreamTls};
pub use certificate::{Certificate, CertificateFiles, Tls, Unfit};
pub use fault::{Fault, Faults};
pub use file::Secrets;
pub use load::{load, load_broken};
pub use parse::{one_app, parse};
pub use pattern::{PathPattern, Segment};
pub use provider::{
    AppleKey, ClientCredential, KeptTokens, LinkRule, Provider, ProviderAllow, ProviderClaims, ProviderEndpoints,
    ProviderIssuer, ProviderKind, SignOut, TokenAuth,
};
pub use routes::Routes;
pub use routing::{
    Access, BackendToken, Cache, Cors, Health, IdentityHeaders, Miss, Paths, ProviderToken, ProviderTokenKind, Refuse,
    Route, TemplatePart, Test, TestUser, TokenFormat, TokenKey, Upstream, UpstreamHost, UpstreamProtocol,
    UpstreamServer, WebSocketToken,
};
pub use schema::schema;
pub use sealing_key::SealingKeyPlace;
pub use secret::SecretPlace;
pub use settings::{
    AppCookieRule, Argon2, AuthJs, AuthJsClient, Config, Limits, Listen, Look, Pages, Password, Server, Session,
    Throttle, UnixSocket, UserIds,
};
pub use sign_up::SignUp;
pub use store::{StoreConfig, StoreHost, StoreTls, StoreTrust, StoreUrl};
pub use store_url::parse_store_url;
pub use units::parse_duration;

//! Accounts, credentials and sessions: sign-in, sign-up, passwords, identity providers, API tokens, invites,
//! throttling. Serves no HTTP; requests to identity providers go through `crate::client`.

mod accounts;
pub mod admin;
mod api_token;
mod app_cookies;
mod audit;
mod backend_token;
mod caller;
pub mod credentials;
mod errors;
mod fields;
pub mod identity;
mod ids;
mod jws;
pub mod last_used;
mod limits;
mod maintenance;
pub mod one_time_link;
mod opening;
mod password;
pub mod profile;
pub(crate) mod provider;
mod secrets_at_rest;
mod session;
mod settings;
mod shared_ticket;
pub mod sign_in;
pub mod sign_up;
#[cfg(test)]
mod testing;
mod websocket_ticket;

pub use crate::store::{IdentityRow, Unlinked};
pub use accounts::Accounts;
pub use admin::accounts::{Admin, Details};
pub use admin::backups::{back_up, restore};
pub use admin::bans::Ban;
pub use admin::import::{Finding, ImportIdentity, ImportRow, ImportRules, Imported};
pub use admin::signing_keys::OldKeys;
pub use api_token::grant::{Grant, Scope};
pub use api_token::user_tokens::{self, PREFIX as API_TOKEN_PREFIX, TokenDetails, TokenInfo};
pub use app_cookies::{AccountTag, AppCookieKey, AppCookies, Owner};
pub use backend_token::issue::TokenIssueError;
pub use backend_token::token::{IssuedToken, IssuedTokens};
pub use caller::Caller;
pub use errors::{AdminError, ChangeError, FieldError, SignInError, StartError, StoreDown};
pub use one_time_link::LinkKind;
pub use secrets_at_rest::{judge as judge_sealing_key, place as sealing_key_place};
pub use session::cookie_token::{ISSUER, SESSION_TOKEN_START};
pub use session::draft::SignedIn;
pub use session::session::{Identity, Rejected, Session, SessionState};
pub(crate) use session::upstream_tokens::UpstreamToken;
pub use session::user::{IdentityValues, User};
pub use session::user_sessions::{self, SessionInfo};
pub use websocket_ticket::TICKET_SECS;

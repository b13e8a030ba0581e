//! The gateway's own pages and endpoints: (call, form) -> reply. Uses neither pingora nor SQL; it
//! changes accounts only through [`crate::account`].

mod account;
mod assets;
mod authjs;
mod backchannel_logout;
mod call;
mod content_security_policy;
mod dispatch;
mod endpoints;
pub mod errors;
mod flash;
mod form;
pub mod guard;
mod identities;
mod link;
mod login;
mod logout;
pub mod loops;
mod pending_answer;
mod pending_question;
mod pending_sign_in;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod provider_callback;
mod provider_form;
mod provider_lists;
mod provider_relay;
mod provider_replies;
mod providers;
mod session_cookies;
mod signup;
mod site;
mod table;
mod tokens;
mod view;

pub use call::{Call, Pages};
pub use dispatch::answer;
pub use errors::word;
pub use site::Site;
pub use table::Page;

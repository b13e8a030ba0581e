//! POST oauth/NAME/backchannel-logout: a provider reports that one of its sessions has ended (OpenID Connect
//! Back-Channel Logout 1.0, 2.5 and 2.8). Only the token in the form counts; cookies are not read.

use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::call::{Call, Pages};
use super::form::{Fields, Kind};
use super::{errors, provider_lists};
use crate::account::identity::logout::{self, LogoutError};
use crate::web::reply::Reply;

pub(super) async fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    let path = call.incoming.path.as_str();
    let provider = provider_lists::all(pages).find(|provider| provider.backchannel_logout_path(&pages.prefix) == path);
    let (Some(provider), Some(providers)) = (provider, pages.accounts.providers()) else {
        return errors::refused(pages, StatusCode::NOT_FOUND, call);
    };
    let fields = Fields::read(call).ok().filter(|fields| fields.kind == Kind::Form);
    let Some(fields) = fields.filter(|fields| fields.get("logout_token").is_some()) else {
        return refused(StatusCode::BAD_REQUEST, "invalid_request");
    };
    let token = fields.secret("logout_token");
    match logout::end_sessions(&pages.accounts, &call.caller, providers, &provider.name, &token).await {
        Ok(()) => Reply::empty(StatusCode::OK),
        Err(LogoutError::Invalid) => refused(StatusCode::BAD_REQUEST, "invalid_request"),
        Err(LogoutError::Throttled { retry_after_secs }) => refused(StatusCode::TOO_MANY_REQUESTS, "throttled")
            .with(header::RETRY_AFTER, HeaderValue::from(retry_after_secs)),
        Err(LogoutError::Unavailable) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable").with(header::RETRY_AFTER, HeaderValue::from(2u16))
        }
    }
}

fn refused(status: StatusCode, error: &str) -> Reply {
    Reply::json(status, &json!({ "error": error }))
}

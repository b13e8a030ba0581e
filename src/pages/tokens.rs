//! API tokens on the account page.

use http::StatusCode;
use serde_json::json;

use super::account::Shown;
use super::call::{Call, Pages};
use super::flash::is_browsers;
use super::form::Fields;
use super::site::Site;
use super::{account, errors, form};
use crate::account::{ChangeError, FieldError, Identity, TokenDetails, user_tokens};
use crate::web::reply::Reply;

/// Default and maximum lifetime of a token, days.
const DAYS: u64 = 90;
const DAYS_MAX: u64 = 3650;

/// GET lists tokens as JSON; POST revokes one (`revoke`), or creates one (`token_name`, `scopes` one per line, `days`,
/// `current_password`) and shows it, once.
pub(super) async fn answer(pages: &Pages, call: &Call<'_>, who: &Identity) -> Reply {
    if call.incoming.method != http::Method::POST {
        return match user_tokens::list(&pages.accounts, who).await {
            Ok(tokens) => Reply::json(StatusCode::OK, &json!({ "tokens": tokens })),
            Err(_) => errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call),
        };
    }
    let fields = match Fields::read(call) {
        Ok(fields) => fields,
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    match fields.get("revoke") {
        Some(id) => revoke_token(pages, call, who, &fields, id).await,
        None => create_token(pages, call, who, &fields).await,
    }
}

async fn revoke_token(pages: &Pages, call: &Call<'_>, who: &Identity, fields: &Fields, id: &str) -> Reply {
    match user_tokens::revoke(&pages.accounts, &call.caller, who, id).await {
        Err(_) => errors::refused(pages, StatusCode::SERVICE_UNAVAILABLE, call),
        Ok(false) if !is_browsers(call) => errors::refused(pages, StatusCode::NOT_FOUND, call),
        Ok(_) if fields.is_json() => Reply::empty(StatusCode::NO_CONTENT),
        Ok(_) => Site::see_other(&format!("{}/account?saved=token", pages.prefix)),
    }
}

async fn create_token(pages: &Pages, call: &Call<'_>, who: &Identity, fields: &Fields) -> Reply {
    let days = match fields.get("days").filter(|days| !days.is_empty()).map(str::parse) {
        None => Ok(DAYS),
        Some(Ok(days)) if (1..=DAYS_MAX).contains(&days) => Ok(days),
        Some(_) => Err(ChangeError::Field(FieldError {
            field: "days",
            code: "invalid",
            message: format!("A token can be valid for 1 to {DAYS_MAX} days."),
        })),
    };
    let made = match days {
        Ok(days) => {
            let scopes = fields.text("scopes").lines().map(str::trim).filter(|line| !line.is_empty());
            let details = TokenDetails {
                name: fields.text("token_name").to_owned(),
                scopes: scopes.map(str::to_owned).collect(),
                lasts_secs: days * 86_400,
                form_id: fields.get("form_id").filter(|id| !id.is_empty()).map(str::to_owned),
            };
            user_tokens::create(&pages.accounts, &call.caller, who, fields.secret("current_password"), &details).await
        }
        Err(error) => Err(error),
    };
    match made {
        Ok(Some((id, token))) if fields.is_json() => {
            Reply::json(StatusCode::CREATED, &json!({ "id": id, "token": token.expose() }))
        }
        // the form was sent again, by a reload or Back
        Ok(None) => Site::see_other(&format!("{}/account?saved=token_made", pages.prefix)),
        Ok(Some((_, token))) => account::show(pages, call, who, Shown::Token(token)).await,
        Err(error) => account::form_failed(pages, call, who, "token", fields, &error).await,
    }
}

//! A callback as a form that the browser posts (OAuth 2.0 Form Post Response Mode). It comes from another
//! site, so it carries no cookies of ours: it is redirected to the GET that other providers
//! use, and changes nothing.

use http::{HeaderValue, StatusCode, header};

use super::call::{Call, Pages};
use super::form::{self, Fields, Kind};
use super::site::Site;
use super::{errors, provider_lists};
use crate::web::reply::Reply;

/// Fields that are passed on.
const FIELDS: [&str; 5] = ["code", "state", "iss", "error", "user"];
/// Longest body, bytes.
const BODY_BYTES_MAX: usize = 8 << 10;

/// POST at a redirect URI; only for providers with form_post.
pub(super) fn answer(pages: &Pages, call: &Call<'_>) -> Reply {
    let path = call.incoming.path.as_str();
    let posts = provider_lists::all(pages).any(|provider| provider.callback == path && provider.posts_its_answer());
    if !posts {
        return errors::refused(pages, StatusCode::METHOD_NOT_ALLOWED, call)
            .with(header::ALLOW, HeaderValue::from_static("GET"));
    }
    if call.body.len() > BODY_BYTES_MAX {
        return errors::refused(pages, StatusCode::PAYLOAD_TOO_LARGE, call);
    }
    let fields = match Fields::read(call) {
        Ok(fields) if fields.kind == Kind::Form => fields,
        Ok(_) => return form::unread_body(pages, call, form::BadBody::Kind),
        Err(bad) => return form::unread_body(pages, call, bad),
    };
    let known = FIELDS.iter().filter_map(|name| Some((*name, fields.get(name)?)));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(known).finish();
    Site::see_other(&format!("{path}?{query}"))
}

//! Signing out: GET shows a button and ends nothing, POST ends the session.

use http::StatusCode;

use super::form::Fields;
use super::view::{Logout, Message};
use super::{Call, Pages, Site};
use crate::account::user_sessions;
use crate::web::reply::Reply;

impl Pages {
    pub(super) async fn logout(&self, call: &Call<'_>) -> Reply {
        if call.incoming.method != http::Method::POST {
            if call.identity.is_none() {
                return Site::see_other(&format!("{}/signed-out", self.prefix));
            }
            let action = format!("{}/logout", self.prefix);
            let template = Logout {
                frame: self.assets.frame(),
                heading: "Sign out?",
                action: &action,
                back: &self.rules.after_login,
            };
            return self.html(StatusCode::OK, &template, Some(call.incoming), true);
        }
        let fields = match Fields::read(call) {
            Ok(fields) => fields,
            Err(bad) => return self.unread_body(call, bad),
        };
        if let Some(who) = &call.identity
            && user_sessions::sign_out(&self.accounts, &call.caller, &who.session).await.is_err()
        {
            // the session still stands: to say otherwise would be a lie
            return self.refused(StatusCode::SERVICE_UNAVAILABLE, call);
        }
        let reply = if fields.is_json() {
            Reply::empty(StatusCode::NO_CONTENT)
        } else {
            Site::see_other(&format!("{}/signed-out", self.prefix))
        };
        self.without_cookie(reply)
    }

    pub(super) fn signed_out_page(&self, call: &Call<'_>) -> Reply {
        if call.identity.is_some() {
            return Site::see_other(&format!("{}/account", self.prefix));
        }
        let message = Message {
            frame: self.assets.frame(),
            heading: "Signed out",
            what: "You are signed out on this device.",
            remedy: "",
            link: &self.login_path,
            link_text: "Sign in again",
            target: "",
            turbo_frame: false,
            request_id: "",
        };
        self.html(StatusCode::OK, &message, Some(call.incoming), true)
    }
}

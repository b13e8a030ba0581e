//! Pages that say what went wrong: one sentence what happened, one what to do, and the request id
//! that whoever runs the gateway can look for in the log. Nothing about the inside.

use http::StatusCode;

use super::Site;
use super::view::Message;
use crate::web::incoming::Incoming;
use crate::web::reply::Reply;

/// Status, word in JSON bodies, heading, what happened, what to do.
const TEXTS: [(u16, &str, &str, &str, &str); 16] = [
    (
        400,
        "bad_request",
        "That request cannot be read",
        "The address or the request can be read in more than one way.",
        "Check the address, or go back and try again.",
    ),
    (
        401,
        "signed_out",
        "You are signed out",
        "Your session has ended, so the form was not sent.",
        "Sign in in a new tab, come back to this one and reload it: your browser then asks whether to send it again.",
    ),
    (
        403,
        "forbidden",
        "No access",
        "You are not allowed to do this here.",
        "If you think you should be, ask whoever runs this site.",
    ),
    (
        404,
        "not_found",
        "Not found",
        "There is nothing at this address.",
        "Check the address, or start again from the front page.",
    ),
    (
        405,
        "method_not_allowed",
        "That does not work here",
        "This address does not take this kind of request.",
        "Go back and try again.",
    ),
    (408, "request_timeout", "Too slow", "The request did not arrive in time.", "Try again."),
    (413, "too_large", "Too large", "What you sent is larger than this site takes.", "Send something smaller."),
    (414, "uri_too_long", "Address too long", "The address is longer than this site takes.", "Check the address."),
    (
        415,
        "unsupported_media_type",
        "Wrong format",
        "What you sent is not in a format that is read here.",
        "Go back and try again.",
    ),
    (
        421,
        "misdirected",
        "Wrong connection",
        "Your browser asked for this site over a connection that was made for another one.",
        "Close the tab and open the address anew.",
    ),
    (
        429,
        "throttled",
        "Too many tries",
        "There were too many tries in a short time.",
        "Wait a few minutes, then try again.",
    ),
    (
        431,
        "header_too_large",
        "Too many cookies",
        "Your browser sent more than this site takes.",
        "Delete this site's cookies, then try again.",
    ),
    (
        502,
        "bad_gateway",
        "The site does not answer",
        "The app behind this address cannot be reached.",
        "Try again in a moment.",
    ),
    (503, "unavailable", "Busy", "This cannot be done at the moment.", "Try again in a moment."),
    (
        504,
        "gateway_timeout",
        "The site is too slow",
        "The app behind this address did not answer in time.",
        "Try again in a moment.",
    ),
    (508, "loop_detected", "Round in circles", "This address leads back to itself.", "Tell whoever runs this site."),
];

/// The stable word of a status in JSON bodies.
pub fn word(code: StatusCode) -> &'static str {
    TEXTS.iter().find(|text| text.0 == code.as_u16()).map_or("error", |text| text.1)
}

impl Site {
    /// The page of a status: its words, and a way on where there is one.
    pub fn error_page(&self, code: StatusCode, request_id: &str, incoming: Option<&Incoming<'_>>) -> Reply {
        let fallback = (0, "error", "Something went wrong", "This did not work.", "Try again in a moment.");
        let text = TEXTS.iter().find(|text| text.0 == code.as_u16()).unwrap_or(&fallback);
        let (link, link_text) = match (code, incoming) {
            (StatusCode::UNAUTHORIZED, Some(incoming)) => (self.login_after_form(incoming), "Sign in in a new tab"),
            // whoever is signed in as somebody else sees it there, and changes it
            (StatusCode::FORBIDDEN, Some(_)) => (format!("{}/account", self.prefix), "Your account"),
            (StatusCode::NOT_FOUND, Some(incoming)) if incoming.path.as_str() != self.rules.after_login => {
                (self.rules.after_login.clone(), "Front page")
            }
            _ => (String::new(), ""),
        };
        let message = Message {
            frame: self.assets.frame(),
            heading: text.2,
            what: text.3,
            remedy: text.4,
            link: &link,
            link_text,
            // reloading this page sends the form again, once there is a session
            new_tab: code == StatusCode::UNAUTHORIZED,
            request_id,
        };
        self.html(code, &message, incoming, true)
    }

    /// 403 for what a page of another site sent.
    pub fn from_elsewhere(&self, request_id: &str, incoming: &Incoming<'_>) -> Reply {
        let message = Message {
            frame: self.assets.frame(),
            heading: "Not sent",
            what: "This came from a page of another site, or of one that does not say where it is, so nothing was done.",
            remedy: "Open this site by its own address, over https where it can be, and try it there.",
            link: &self.rules.after_login,
            link_text: "Front page",
            new_tab: false,
            request_id,
        };
        self.html(StatusCode::FORBIDDEN, &message, Some(incoming), true)
    }

    /// The way back after a form that was not sent is the page that it stood on.
    fn login_after_form(&self, incoming: &Incoming<'_>) -> String {
        let page = self.login_page(incoming);
        let account = format!("{}/account", self.prefix);
        // our own pages tell no more than their origin
        if incoming.path.as_str().strip_prefix(&account).is_some_and(|rest| rest.starts_with('/')) {
            return Self::leading_to(&page, &account);
        }
        match incoming.single("referer") {
            Some(referer) => Self::leading_to(&page, self.return_to(Some(referer), incoming).as_str()),
            None => page,
        }
    }
}

//! Templates, and the header fields that every page carries. HTML is escaped by the template engine.

use askama::Template;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::assets::{Frame, accepts_gzip, gzip};
use super::site::Site;
use crate::account::{IdentityRow, SessionInfo, TokenInfo};
use crate::logging::Timestamp;
use crate::web::incoming::{CALLER_FIELDS, Incoming};
use crate::web::reply::Reply;

#[derive(Template)]
#[template(path = "login.html", config = "login-ui/askama.toml")]
pub(super) struct Login<'a> {
    pub(super) frame: Frame,
    pub(super) heading: &'a str,
    pub(super) notice: &'a str,
    pub(super) error: &'a str,
    pub(super) action: &'a str,
    pub(super) callback_url: &'a str,
    /// Too long for a field of the form.
    pub(super) long_callback: bool,
    pub(super) email: &'a str,
    pub(super) remember: bool,
    pub(super) has_passwords: bool,
    /// Text about forgotten passwords.
    pub(super) forgotten: bool,
    pub(super) signup: &'a str,
    pub(super) providers: &'a [Button],
}

/// A link to a provider.
pub(super) struct Button {
    /// Name of the provider.
    pub(super) name: String,
    /// Its kind as written in the configuration, for the icon.
    pub(super) kind: &'static str,
    pub(super) label: String,
    pub(super) href: String,
    /// This browser signed in through it last.
    pub(super) is_last_used: bool,
}

/// Forwards by itself.
#[derive(Template)]
#[template(path = "refresh.html", config = "login-ui/askama.toml")]
pub(super) struct Refresh<'a> {
    pub(super) frame: Frame,
    pub(super) heading: &'a str,
    pub(super) place: &'a str,
}

/// Asks about a pending identity.
#[derive(Template)]
#[template(path = "pending.html", config = "login-ui/askama.toml")]
pub(super) struct Pending<'a> {
    pub(super) frame: Frame,
    pub(super) heading: &'a str,
    pub(super) error: &'a str,
    /// Of the provider.
    pub(super) label: &'a str,
    pub(super) action: &'a str,
    /// The identity.
    pub(super) sealed: &'a str,
    pub(super) callback_url: &'a str,
    pub(super) email: &'a str,
    /// E-mail of the account that is signed in; empty: none.
    pub(super) signed_in_as: &'a str,
    pub(super) has_passwords: bool,
    /// No password is required to add the identity.
    pub(super) is_fresh: bool,
    /// Other providers to sign in through.
    pub(super) others: &'a [Button],
}

#[derive(Template)]
#[template(path = "register.html", config = "login-ui/askama.toml")]
pub(super) struct Register<'a> {
    pub(super) frame: Frame,
    pub(super) heading: &'a str,
    pub(super) lead: &'a str,
    pub(super) error: &'a str,
    pub(super) field: &'a str,
    pub(super) action: &'a str,
    pub(super) callback_url: &'a str,
    pub(super) email: &'a str,
    pub(super) fixed_email: bool,
    pub(super) ask_name: bool,
    pub(super) offer_tokens: bool,
    pub(super) keep_tokens: bool,
    pub(super) name: &'a str,
    pub(super) has_passwords: bool,
    pub(super) min_length: usize,
    pub(super) button: &'a str,
    pub(super) providers: &'a [Button],
}

#[derive(Template)]
#[template(path = "message.html", config = "login-ui/askama.toml")]
pub(super) struct Message<'a> {
    pub(super) frame: Frame,
    pub(super) heading: &'a str,
    pub(super) what: &'a str,
    pub(super) remedy: &'a str,
    pub(super) link: &'a str,
    pub(super) link_text: &'a str,
    /// `target` of the link: "", `_blank`, or `_top` to leave a frame.
    pub(super) target: &'a str,
    /// The response to a `<turbo-frame>`, which this page does not contain: Turbo then loads the whole page.
    pub(super) turbo_frame: bool,
    pub(super) request_id: &'a str,
}

/// The request head was too large.
#[derive(Template)]
#[template(path = "cookies.html", config = "login-ui/askama.toml")]
pub(super) struct Cookies<'a> {
    pub(super) frame: Frame,
    pub(super) heading: &'a str,
    /// Names and sizes in bytes.
    pub(super) largest: &'a [(String, usize)],
    pub(super) action: &'a str,
    pub(super) request_id: &'a str,
}

#[derive(Template)]
#[template(path = "logout.html", config = "login-ui/askama.toml")]
pub(super) struct Logout<'a> {
    pub(super) frame: Frame,
    pub(super) heading: &'a str,
    pub(super) action: &'a str,
    pub(super) back: &'a str,
}

#[derive(Template)]
#[template(path = "account.html", config = "login-ui/askama.toml")]
pub(super) struct Account<'a> {
    pub(super) frame: Frame,
    pub(super) heading: &'a str,
    pub(super) notice: &'a str,
    /// The form that `error` belongs to.
    pub(super) form: &'a str,
    pub(super) error: &'a str,
    pub(super) field: &'a str,
    pub(super) email: &'a str,
    pub(super) groups: &'a str,
    pub(super) home: &'a str,
    pub(super) logout: &'a str,
    pub(super) base: &'a str,
    pub(super) name: &'a str,
    pub(super) picture: &'a str,
    /// A password signs in to the account; otherwise a recent sign-in proves who asks.
    pub(super) has_password: bool,
    pub(super) min_length: usize,
    /// Linked identities; shown if there are any, or providers are configured.
    pub(super) identities: Vec<IdentityLine>,
    pub(super) providers: &'a [(String, String)],
    /// No password is required to add or remove one.
    pub(super) is_fresh: bool,
    pub(super) sessions: Vec<SessionRow>,
    pub(super) tokens: Vec<TokenRow>,
    pub(super) new_token: &'a str,
    /// Unique to this form: sending it twice creates one token.
    pub(super) form_id: &'a str,
    pub(super) token_name: &'a str,
    pub(super) scopes: &'a str,
    pub(super) days: &'a str,
}

/// One linked identity.
pub(super) struct IdentityLine {
    pub(super) label: String,
    pub(super) provider: String,
    pub(super) subject: String,
    /// Display name: user name or address at the provider.
    pub(super) login: String,
    pub(super) created: String,
    pub(super) seen: String,
    /// Link that signs in at the provider again.
    pub(super) again: String,
}

impl IdentityLine {
    pub(super) fn new(label: String, row: IdentityRow, prefix: &str) -> Self {
        let known_as = if row.login.is_empty() { row.email.unwrap_or_default() } else { row.login };
        let account = utf8_percent_encode(&format!("{prefix}/account"), NON_ALPHANUMERIC).to_string();
        Self {
            label,
            again: format!("{prefix}/oauth/{}?fresh=1&callbackUrl={account}", row.provider),
            provider: row.provider,
            subject: row.subject,
            login: known_as,
            created: minute(row.created),
            seen: row.seen.map_or_else(|| "never used".to_owned(), |seen| format!("last used {}", minute(seen))),
        }
    }
}

/// One line of the list of API tokens.
pub(super) struct TokenRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) scopes: String,
    pub(super) expires: String,
    pub(super) seen: String,
}

impl TokenRow {
    pub(super) fn new(info: TokenInfo) -> Self {
        Self {
            id: info.id,
            name: info.name,
            scopes: info.scopes.join(", "),
            expires: minute(info.expires),
            seen: if info.seen == 0 { "never used".to_owned() } else { format!("last used {}", minute(info.seen)) },
        }
    }
}

/// A time as people read it.
fn minute(secs: u64) -> String {
    let time = Timestamp::new(secs.saturating_mul(1000));
    let time = time.as_str();
    format!("{} {} UTC", &time[..10], &time[11..16])
}

/// One line of the session list.
pub(super) struct SessionRow {
    pub(super) id: String,
    pub(super) device: String,
    pub(super) current: bool,
    pub(super) address: String,
    pub(super) created: String,
    pub(super) seen: String,
}

impl SessionRow {
    pub(super) fn new(info: SessionInfo, current: &str) -> Self {
        Self {
            current: info.id == current,
            device: device(&info.user_agent),
            address: if info.address.is_empty() { "unknown address".to_owned() } else { info.address },
            created: minute(info.created),
            seen: minute(info.seen),
            id: info.id,
        }
    }
}

/// Browser and system in words; the first that a User-Agent names is the most telling.
fn device(agent: &str) -> String {
    let first = |words: &[(&str, &str)]| {
        words.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| (*name).to_owned())
    };
    let browser = first(&[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("Chrom", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ]);
    let system = first(&[
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) if agent.is_empty() => "A program".to_owned(),
        (None, None) => agent.chars().take(60).collect(),
    }
}

pub(super) const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Fields that every page carries (OWASP HTTP Headers sheet; ASVS 5.0, 3.4). A referrer of the origin alone keeps
/// one-time links to ourselves; with none at all browsers send `Origin: null` with our forms (Fetch, 3.2), and over
/// plain http, where nothing else says where a form comes from, they would be refused.
const FIELDS: [(HeaderName, &str); 7] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
    (header::REFERRER_POLICY, "strict-origin"),
    (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// A whole page. `compressed` only where nothing on it is worth guessing by its length (BREACH).
pub(super) fn html(
    site: &Site,
    status: StatusCode,
    template: &impl Template,
    incoming: Option<&Incoming<'_>>,
    compressed: bool,
) -> Reply {
    // rendering into memory fails only if a value's own formatting does, and ours are texts
    let body = template.render().unwrap_or_default();
    let mut reply = Reply::empty(status);
    for (name, value) in FIELDS {
        reply = reply.with(name, HeaderValue::from_static(value));
    }
    reply = reply
        .with(header::CONTENT_SECURITY_POLICY, site.policy.clone())
        .with(header::VARY, HeaderValue::from_static(CALLER_FIELDS))
        .with(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if compressed && incoming.is_some_and(accepts_gzip) {
        return reply.with(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")).with_body(gzip(body.as_bytes()));
    }
    reply.with_body(Bytes::from(body))
}

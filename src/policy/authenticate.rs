//! Credentials -> the caller's identity. Memory only: no disk, no await. The cookie comes first, then `Authorization`,
//! then the headers for API tokens of programs that need `Authorization` for the app. The first valid credential
//! decides.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::account::{API_TOKEN_PREFIX, Accounts, Identity, Rejected, credentials};
use crate::secret::Secret;
use crate::web::cookie::{self, CookieStyle};
use crate::web::incoming::Incoming;

/// Where a program sends an API token when `Authorization` belongs to the app.
pub(crate) static TOKEN_FIELD: HeaderName = HeaderName::from_static("x-authgate-token");

/// Limit on session cookies that are checked; browsers keep at most 180 per domain.
const COOKIES_MAX: usize = 32;

/// The result of checking the credentials of a request.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) enum Authentication {
    /// No credential was presented.
    Anonymous,
    /// A credential was valid.
    Known {
        /// The identity it belongs to.
        identity: Identity,
        /// Browsers send it automatically, whichever page makes the request: the cookie, or a typed name and password.
        /// Cross-origin protection applies.
        ambient_credential: bool,
    },
    /// Only invalid credentials were presented.
    Rejected(Rejected),
    /// Credentials were presented, and whether they are valid cannot be known now: the shared database is away.
    Unavailable,
}

/// Whether what other nodes committed has been applied here since a request came. With a database of its own, a gateway
/// need not ask.
#[derive(Debug, Clone)]
pub(crate) enum CatchUp {
    /// It was not needed so far.
    NotAsked,
    /// It has been applied. If the handshake has a ticket that this used up: whom it is for.
    Done(Option<Identity>),
    /// The database does not answer.
    Failed,
}

impl Authentication {
    /// The identity, if there is one.
    pub(crate) fn into_identity(self) -> Option<Identity> {
        match self {
            Self::Known { identity, .. } => Some(identity),
            _ => None,
        }
    }

    /// The identity, if there is one.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Known { identity, .. } => Some(identity),
            _ => None,
        }
    }
}

/// Checks the session cookie, then `Authorization`, then the other headers, then the credentials of a WebSocket
/// handshake (`carried`). Before a catch-up, the result may be that another node may know more.
pub(crate) fn authenticate(
    accounts: &Accounts,
    cookies: &CookieStyle,
    incoming: &Incoming<'_>,
    carried: &[Secret],
    catch_up: &CatchUp,
) -> Authentication {
    match first_valid(accounts, cookies, incoming, carried, catch_up) {
        Authentication::Anonymous => Authentication::Anonymous,
        _ if accounts.is_blind() => Authentication::Unavailable,
        Authentication::Rejected(why) if why.may_be_known_elsewhere() => match catch_up {
            CatchUp::NotAsked => Authentication::Rejected(why),
            CatchUp::Done(_) => Authentication::Rejected(why.known_nowhere()),
            CatchUp::Failed => Authentication::Unavailable,
        },
        found => found,
    }
}

fn first_valid(
    accounts: &Accounts,
    cookies: &CookieStyle,
    incoming: &Incoming<'_>,
    carried: &[Secret],
    catch_up: &CatchUp,
) -> Authentication {
    let headers = incoming.headers;
    let mut rejected = match by_cookie(accounts, headers, cookies.session(), catch_up) {
        Ok(Some(identity)) => return Authentication::Known { identity, ambient_credential: true },
        Ok(None) => None,
        Err(why) => Some(why),
    };
    for field in headers.get_all(AUTHORIZATION) {
        let Some(token) = own_credential(field) else { continue };
        let found = if token.starts_with(API_TOKEN_PREFIX.as_bytes()) {
            credentials::api_token(accounts, &token)
        } else {
            credentials::session_token(accounts, &token)
        };
        match found {
            Ok(identity) => {
                let ambient_credential = after_scheme(field.as_bytes(), b"basic").is_some();
                return Authentication::Known { identity, ambient_credential };
            }
            Err(why) => rejected = first_unknown(rejected, why),
        }
    }
    let elsewhere = headers.get_all(&TOKEN_FIELD).iter().map(|field| field.as_bytes().trim_ascii());
    for token in elsewhere.chain(headers.get_all(PROXY_AUTHORIZATION).iter().filter_map(api_token)) {
        match credentials::api_token(accounts, token) {
            // no page can set it (Fetch, 2.2.2; a custom header needs a preflight), and no browser sends it
            // automatically
            Ok(identity) => return Authentication::Known { identity, ambient_credential: false },
            Err(why) => rejected = first_unknown(rejected, why),
        }
    }
    if let CatchUp::Done(Some(identity)) = catch_up {
        return Authentication::Known { identity: identity.clone(), ambient_credential: false };
    }
    for token in carried {
        match credentials::handshake_token(accounts, token, incoming.host) {
            Ok(identity) => return Authentication::Known { identity, ambient_credential: false },
            Err(why) => rejected = first_unknown(rejected, why),
        }
    }
    rejected.map_or(Authentication::Anonymous, Authentication::Rejected)
}

/// The identity of the session cookies. There may be several of one name, also from a parent domain or another gateway.
/// Each is tried, so that a stray cookie locks no user out. Two different valid sessions are rejected.
fn by_cookie(
    accounts: &Accounts,
    headers: &HeaderMap,
    name: &str,
    catch_up: &CatchUp,
) -> Result<Option<Identity>, Rejected> {
    let (mut found, mut rejected) = (None::<Identity>, None);
    for token in cookie::values(headers, name).take(COOKIES_MAX) {
        match (credentials::session_token(accounts, token), &found) {
            (Ok(identity), Some(first)) if identity.session.id != first.session.id => return Err(Rejected::Invalid),
            (Ok(identity), Some(first)) if identity.issued <= first.issued => {}
            (Ok(identity), _) => found = Some(identity),
            (Err(why), _) => rejected = first_unknown(rejected, why),
        }
    }
    match (found, rejected) {
        (None, Some(why)) => Err(why),
        // it may be the second of two valid ones
        (Some(_), Some(Rejected::UnknownSession)) if !matches!(catch_up, CatchUp::Done(_)) => {
            Err(Rejected::UnknownSession)
        }
        (found, _) => Ok(found),
    }
}

/// Of two reasons, the one that another node may answer differently: a session before a key or an API token.
fn first_unknown(before: Option<Rejected>, why: Rejected) -> Option<Rejected> {
    match (before, why) {
        (Some(Rejected::UnknownSession), _) => before,
        (Some(Rejected::Unknown), why) if why != Rejected::UnknownSession => before,
        _ => Some(why),
    }
}

/// The API token of a `Proxy-Authorization` field. Credentials for a proxy on the way use other schemes or other
/// tokens.
pub(crate) fn api_token(value: &HeaderValue) -> Option<&[u8]> {
    after_scheme(value.as_bytes(), b"bearer").filter(|token| token.starts_with(API_TOKEN_PREFIX.as_bytes()))
}

/// The gateway's own token in an `Authorization` field: a Bearer JWT of its issuer (the signature is not checked here),
/// or an API token, as Bearer or as the password of Basic. Any other credential belongs to the app.
pub(crate) fn own_credential(value: &HeaderValue) -> Option<Cow<'_, [u8]>> {
    let bytes = value.as_bytes();
    if let Some(token) = after_scheme(bytes, b"bearer") {
        let ours = token.starts_with(API_TOKEN_PREFIX.as_bytes()) || names_our_issuer(token);
        return ours.then_some(Cow::Borrowed(token));
    }
    let encoded = after_scheme(bytes, b"basic")?;
    let pair = data_encoding::BASE64.decode(encoded).or_else(|_| data_encoding::BASE64_NOPAD.decode(encoded)).ok()?;
    let at = pair.iter().position(|&b| b == b':')?;
    let password = &pair[at + 1..];
    password.starts_with(API_TOKEN_PREFIX.as_bytes()).then(|| Cow::Owned(password.to_vec()))
}

/// The value after the scheme and at least one blank.
fn after_scheme<'v>(value: &'v [u8], scheme: &[u8]) -> Option<&'v [u8]> {
    let (own, rest) = value.split_at_checked(scheme.len())?;
    (own.eq_ignore_ascii_case(scheme) && rest.first().is_some_and(|b| b" \t".contains(b))).then(|| rest.trim_ascii())
}

/// Whether an `Authorization` field contains a credential of the gateway anywhere. An app may read one where the
/// gateway does not: after another scheme or none, in a list, in base64 with blanks or in the other alphabet.
pub(crate) fn holds_own(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let encoded = bytes.split_at_checked(b"basic".len()).filter(|(own, _)| own.eq_ignore_ascii_case(b"basic"));
    names_own(bytes) || encoded.is_some_and(|(_, rest)| names_own(&decoded(rest)))
}

fn names_own(bytes: &[u8]) -> bool {
    let runs = |more: &'static [u8]| bytes.split(move |b| !(b.is_ascii_alphanumeric() || more.contains(b)));
    runs(b"-_").any(|run| run.starts_with(API_TOKEN_PREFIX.as_bytes())) || runs(b"-_.").any(names_our_issuer)
}

/// Base64 as the most lenient reader decodes it; up to two bytes at the end may be missing.
fn decoded(encoded: &[u8]) -> Vec<u8> {
    let letters = encoded.iter().filter_map(|&b| match b {
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        b'+' | b'/' => Some(b),
        _ => b.is_ascii_alphanumeric().then_some(b),
    });
    let mut letters: Vec<u8> = letters.collect();
    letters.truncate(letters.len() / 4 * 4);
    data_encoding::BASE64_NOPAD.decode(&letters).unwrap_or_default()
}

fn names_our_issuer(token: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Issuer<'a> {
        #[serde(borrow)]
        iss: std::borrow::Cow<'a, str>,
    }
    let mut parts = token.split(|&b| b == b'.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    data_encoding::BASE64URL_NOPAD.decode(claims).is_ok_and(|json| {
        serde_json::from_slice::<Issuer<'_>>(&json).is_ok_and(|claims| claims.iss == crate::account::ISSUER)
    })
}

//! One redirect URI for all hosts: the provider sends browsers to `public_url`, which sends them on to the host where they
//! sign in. Everything else happens there: `state` opens only with that host's cookie.
//! The code is sealed for that host and its `state`, so that nothing there but its callback can use it.
//!
//! Only hosts that a route names in full take part. Other names may point to servers of others, who could collect
//! authorization codes (RFC 9700, 4.11).

use super::call::{Call, Pages};
use super::site::Site;
use crate::account::provider::relayed_code;
use crate::web::origin::Origin;
use crate::web::reply::Reply;

/// Separates `state` from the host that it is for; not a character of base64url.
const SEPARATOR: char = '~';
const CODE: &str = "code";
/// Parameters that are passed on (RFC 6749, 4.1.2; RFC 9207; `user` is Apple's).
const PASSED_ON: [&str; 6] = [CODE, "state", "iss", "error", "error_description", "user"];

/// For a sign-in that begins at this origin: the origin of the redirect URI, and the suffix of `state`
/// that makes `public_url` pass the callback on.
pub(super) fn redirect(site: &Site, here: Origin) -> (Origin, String) {
    if site.is_relayed(&here) {
        let address = format!("{SEPARATOR}{}", here.host());
        return (site.public_url.clone(), address);
    }
    (here, String::new())
}

/// Which host a callback is for.
pub(super) enum Relay {
    /// This one. The redirect URI was at this origin.
    Here(Origin),
    /// Another one: the redirect to it.
    Elsewhere(Reply),
}

/// Splits the host off `state`, if it names one, and opens the code; the rest stays in `query`.
pub(super) fn read(pages: &Pages, call: &Call<'_>, query: &mut [(String, String)]) -> Relay {
    let here = call.incoming.origin();
    let mut states = query.iter_mut().filter(|(name, _)| name == "state");
    let Some((_, state)) = states.next() else { return Relay::Here(here) };
    let Some((own, host)) = state.split_once(SEPARATOR) else { return Relay::Here(here) };
    let Some(origin) = pages.relayed_origin(host) else { return Relay::Here(here) };
    let (key, host, whole) = (pages.accounts.sealing_key(), origin.host(), state.clone());
    if *origin == here {
        *state = own.to_owned();
        for (_, code) in query.iter_mut().filter(|(name, _)| name == CODE) {
            // one that does not open was not passed on to this host for this attempt: it is none
            *code = relayed_code::open(&key, host, &whole, code).unwrap_or_default();
        }
        return Relay::Here(pages.public_url.clone());
    }
    let mut passed_on = form_urlencoded::Serializer::new(String::new());
    for (name, value) in query.iter().filter(|(name, _)| PASSED_ON.contains(&name.as_str())) {
        if name == CODE {
            passed_on.append_pair(name, &relayed_code::seal(&key, host, &whole, value).unwrap_or_default());
        } else {
            passed_on.append_pair(name, value);
        }
    }
    Relay::Elsewhere(Site::see_other(&format!("{origin}{}?{}", call.incoming.path.as_str(), passed_on.finish())))
}

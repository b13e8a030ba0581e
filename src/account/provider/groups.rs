//! Groups and addresses that are no claims: GitHub's lists, and Microsoft Graph where a token leaves groups out. A list
//! that cannot be read whole ends the sign-in: a decision on half the groups is none.

use std::collections::BTreeSet;

use serde_json::Value;
use url::Url;

use super::claims::GROUPS_MAX;
use super::errors::{Failure, Reason};
use super::identity::ProviderEmail;
use super::metadata::Endpoint;
use super::provider_state::ProviderState;
use crate::client::{LIST_BYTES_MAX, Reach};
use crate::config::ProviderIssuer;
use crate::secret::Secret;

/// Entries of one page of GitHub.
const PAGE_ENTRIES: usize = 100;
/// Longest name of a group, bytes; longer ones are left out.
const NAME_BYTES_MAX: usize = 255;
/// Pages of one list.
const PAGES_MAX: usize = 20;

/// The address among GitHub's that counts: the primary one, proved if it is verified.
pub(super) async fn github_email(
    state: &ProviderState,
    user: &Endpoint,
    access: &Secret,
) -> Result<Option<ProviderEmail>, Failure> {
    let list = state.json("emails", &below(user, &["emails"], None)?, Some(access), LIST_BYTES_MAX).await?;
    Ok(primary_email(&list, state.config.danger_trust_email))
}

fn primary_email(list: &Value, trusts: bool) -> Option<ProviderEmail> {
    let is = |entry: &Value, name: &str| entry.get(name) == Some(&Value::Bool(true));
    let primary = list.as_array()?.iter().find(|entry| is(entry, "primary"))?;
    let address = primary.get("email")?.as_str().filter(|address| !address.is_empty())?.to_owned();
    Some(ProviderEmail { address, is_verified: trusts || is(primary, "verified") })
}

/// A person's organizations (`org`) and teams (`org:team`) at GitHub.
pub(super) async fn github_groups(
    state: &ProviderState,
    user: &Endpoint,
    access: &Secret,
) -> Result<Vec<String>, Failure> {
    let organization = |entry: &Value| entry.get("login").and_then(Value::as_str).map(str::to_owned);
    let team = |entry: &Value| {
        let organization = entry.pointer("/organization/login")?.as_str()?;
        Some(format!("{organization}:{}", entry.get("slug")?.as_str()?))
    };
    let mut groups = BTreeSet::new();
    add_github_list(&mut groups, state, (user, "orgs", access), organization).await?;
    add_github_list(&mut groups, state, (user, "teams", access), team).await?;
    Ok(groups.into_iter().collect())
}

/// Adds a name for each entry of a list. Nothing else of a page is kept.
async fn add_github_list(
    groups: &mut BTreeSet<String>,
    state: &ProviderState,
    (user, list, access): (&Endpoint, &'static str, &Secret),
    name: impl Fn(&Value) -> Option<String>,
) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Reason::GroupsUnavailable, format!("{list}: {why}"));
    for page in 1..=PAGES_MAX {
        let query = format!("per_page={PAGE_ENTRIES}&page={page}");
        let page = state.json(list, &below(user, &[list], Some(&query))?, Some(access), LIST_BYTES_MAX).await;
        let Value::Array(entries) = page.map_err(unavailable)? else { return Err(failed("no list".to_owned())) };
        groups.extend(entries.iter().filter_map(&name).filter(|name| name.len() <= NAME_BYTES_MAX));
        if entries.len() < PAGE_ENTRIES {
            return Ok(());
        }
        if groups.len() > GROUPS_MAX {
            return Err(failed("too many groups".to_owned()));
        }
    }
    Err(failed(format!("more than {PAGES_MAX} pages")))
}

/// Ids of all groups that a person is in, from Microsoft Graph. What the token names as their place is never asked.
pub(super) async fn microsoft_groups(state: &ProviderState, access: &Secret) -> Result<Vec<String>, Failure> {
    let first = graph_url(state)?;
    let mut groups = Vec::new();
    let mut next = Some(first.clone());
    for _ in 0..PAGES_MAX {
        let Some(url) = next.take() else { return Ok(groups) };
        let endpoint = Endpoint { url, reach: Reach::Operator };
        let page = state.json("groups", &endpoint, Some(access), LIST_BYTES_MAX).await.map_err(unavailable)?;
        let Some(entries) = page.get("value").and_then(Value::as_array) else {
            return Err(Failure::new(Reason::GroupsUnavailable, "Graph: no list"));
        };
        let is_group = |entry: &&Value| entry.get("@odata.type").is_none_or(|kind| kind == "#microsoft.graph.group");
        let ids = entries.iter().filter(is_group).filter_map(|entry| entry.get("id")?.as_str().map(str::to_owned));
        groups.extend(ids);
        next = match page.get("@odata.nextLink") {
            None => None,
            Some(link) => Some(same_list(link, &first)?),
        };
        if groups.len() > GROUPS_MAX {
            break;
        }
    }
    if next.is_none() && groups.len() <= GROUPS_MAX {
        return Ok(groups);
    }
    Err(Failure::new(Reason::GroupsUnavailable, "Graph: too many groups"))
}

/// A next page is one of the same list at the same server: the access token goes nowhere else.
fn same_list(link: &Value, first: &Url) -> Result<Url, Failure> {
    let url = link.as_str().and_then(|link| Url::parse(link).ok());
    let url = url.filter(|url| url.origin() == first.origin() && url.path() == first.path());
    url.ok_or_else(|| Failure::new(Reason::GroupsUnavailable, "Graph: the next page is elsewhere"))
}

/// Graph of the cloud that the authority is in, or at the server of a configured userinfo endpoint.
fn graph_url(state: &ProviderState) -> Result<Url, Failure> {
    let authority = match &state.config.issuer {
        ProviderIssuer::Exact(issuer) => issuer.as_str(),
        ProviderIssuer::MicrosoftTenant { authority, .. } => authority.as_str(),
        ProviderIssuer::Unknown => "",
    };
    let server = match &state.config.endpoints.userinfo {
        Some(url) => url.origin().ascii_serialization(),
        None if authority.starts_with("https://login.microsoftonline.us/") => "https://graph.microsoft.us".to_owned(),
        None if authority.starts_with("https://login.partner.microsoftonline.cn/") => {
            "https://microsoftgraph.chinacloudapi.cn".to_owned()
        }
        None => "https://graph.microsoft.com".to_owned(),
    };
    let url = Url::parse(&format!("{server}/v1.0/me/transitiveMemberOf?$select=id&$top=999"));
    url.map_err(|_| Failure::new(Reason::GroupsUnavailable, "Graph: no address"))
}

fn below(user: &Endpoint, segments: &[&str], query: Option<&str>) -> Result<Endpoint, Failure> {
    let mut url = user.url.clone();
    url.path_segments_mut()
        .map_err(|()| Failure::new(Reason::Unavailable, "the userinfo endpoint has no path"))?
        .pop_if_empty()
        .extend(segments);
    url.set_query(query);
    Ok(Endpoint { url, reach: user.reach.clone() })
}

fn unavailable(failure: Failure) -> Failure {
    match failure.reason {
        Reason::Busy => failure,
        _ => Failure::new(Reason::GroupsUnavailable, failure.detail),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_primary_address_is_taken_and_proved_only_if_it_is_verified() {
        let list = |primary: bool, verified: bool| {
            json!([
                { "email": "other@example.com", "primary": false, "verified": true },
                { "email": "ann@example.com", "primary": primary, "verified": verified },
            ])
        };
        let read = |list: &Value, trusts| primary_email(list, trusts).map(|email| (email.address, email.is_verified));
        let ann = |verified| Some(("ann@example.com".to_owned(), verified));
        assert_eq!(read(&list(true, true), false), ann(true));
        assert_eq!(read(&list(true, false), false), ann(false));
        assert_eq!(read(&list(true, false), true), ann(true), "danger_trust_email");
        assert_eq!(read(&list(false, true), false), None);
        assert_eq!(read(&json!([{ "email": "a@example.com", "primary": "true" }]), false), None);
    }

    #[test]
    fn a_next_page_elsewhere_is_not_asked() {
        let first = Url::parse("https://graph.microsoft.com/v1.0/me/transitiveMemberOf?$select=id").unwrap();
        let own = json!("https://graph.microsoft.com/v1.0/me/transitiveMemberOf?$skiptoken=x");
        assert!(same_list(&own, &first).is_ok());
        for link in [
            json!("https://evil.example.com/v1.0/me/transitiveMemberOf"),
            json!("http://graph.microsoft.com/v1.0/me/transitiveMemberOf"),
            json!("https://graph.microsoft.com/v1.0/users"),
            json!("/v1.0/me/transitiveMemberOf"),
            json!(7),
        ] {
            assert!(same_list(&link, &first).is_err(), "{link}");
        }
    }
}

//! What a kind of provider is by itself: its issuer, endpoints and scopes; and what `issuer`, `tenant` and `endpoints` say
//! instead.

use url::{Host, Url};

use super::provider_text::{is_domain, is_guid};
use crate::config::file::{Item, Table};
use crate::config::{ProviderEndpoints, ProviderIssuer, ProviderKind};

const GOOGLE: &str = "https://accounts.google.com";
const GITHUB: &str = "https://github.com";
const GITLAB: &str = "https://gitlab.com";
const APPLE: &str = "https://appleid.apple.com";
const MICROSOFT: &str = "https://login.microsoftonline.com";
/// The tenant of personal Microsoft accounts.
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// What a kind is.
pub(super) struct KindDefaults {
    pub(super) issuer: Option<ProviderIssuer>,
    pub(super) endpoints: ProviderEndpoints,
    pub(super) scopes: Vec<String>,
}

pub(super) fn defaults(table: &Table<'_>, kind: ProviderKind, needs_groups: bool) -> KindDefaults {
    let mut endpoints = endpoints(table);
    let typed = table.text("issuer", "https://id.example.com").filter(|text| !text.value.is_empty());
    let tenant = table.text("tenant", "organizations").filter(|text| !text.value.is_empty());
    if let Some(tenant) = tenant.as_ref().filter(|_| kind != ProviderKind::Microsoft) {
        tenant.fault("`tenant` is for kind = \"microsoft\" alone", "remove it");
    }
    let is_given = typed.is_some();
    let issuer = typed.filter(is_issuer);
    if endpoints.discovery.is_some() && (kind == ProviderKind::GitHub || kind == ProviderKind::OAuth2 && !is_given) {
        let what = "`discovery` has no effect here";
        let remedy = "remove it; with kind = \"oauth2\" metadata is read if `issuer` is set";
        table.reading.fault(table.span_of("endpoints"), what, remedy);
    }
    // one fault is enough
    let is_wrong = is_given && issuer.is_none();
    let base = |default: &str| issuer.as_ref().map_or(default, |text| text.value.trim_end_matches('/')).to_owned();
    let openid = ["openid", "email", "profile"];
    let (issuer, scopes): (Option<ProviderIssuer>, Vec<&str>) = match kind {
        ProviderKind::Google => (Some(only_issuer(issuer.as_ref(), "Google", GOOGLE)), openid.to_vec()),
        ProviderKind::Apple => (Some(only_issuer(issuer.as_ref(), "Apple", APPLE)), vec!["openid", "name", "email"]),
        ProviderKind::GitHub => {
            let base = base(GITHUB);
            github(&base, &mut endpoints);
            let organizations = needs_groups.then_some("read:org");
            let scopes = ["read:user", "user:email"].into_iter().chain(organizations).collect();
            (Some(ProviderIssuer::Exact(format!("{base}/login/oauth"))), scopes)
        }
        ProviderKind::GitLab => (Some(ProviderIssuer::Exact(base(GITLAB))), openid.to_vec()),
        ProviderKind::Microsoft => {
            let graph = needs_groups.then_some("User.Read");
            (microsoft(table, base(MICROSOFT), tenant), openid.into_iter().chain(graph).collect())
        }
        ProviderKind::Oidc => {
            if !is_given {
                let remedy = "add `issuer`, exactly as the provider's metadata has it";
                table.reading.fault(table.span.clone(), "this kind of provider requires an `issuer`", remedy);
            }
            (issuer.map(|text| ProviderIssuer::Exact(text.value)), openid.to_vec())
        }
        ProviderKind::OAuth2 => {
            if !is_given {
                needs_endpoints(table, &endpoints);
            }
            let issuer = issuer.map_or(ProviderIssuer::Unknown, |text| ProviderIssuer::Exact(text.value));
            (Some(issuer), Vec::new())
        }
    };
    let scopes = scopes.into_iter().map(str::to_owned).collect();
    KindDefaults { issuer: issuer.filter(|_| !is_wrong), endpoints, scopes }
}

/// The issuer of a provider that runs one server for all.
fn only_issuer(typed: Option<&Item<'_, String>>, name: &str, issuer: &str) -> ProviderIssuer {
    if let Some(text) = typed {
        let remedy = "remove `issuer`, or use kind = \"oidc\" for another provider";
        text.fault(format!("{name} has one issuer"), remedy);
    }
    ProviderIssuer::Exact(issuer.to_owned())
}

/// GitHub publishes no metadata.
fn github(base: &str, endpoints: &mut ProviderEndpoints) {
    let api = if base == GITHUB { "https://api.github.com".to_owned() } else { format!("{base}/api/v3") };
    let set = |place: &mut Option<Url>, url: String| {
        if place.is_none() {
            *place = Url::parse(&url).ok();
        }
    };
    set(&mut endpoints.authorize, format!("{base}/login/oauth/authorize"));
    set(&mut endpoints.token, format!("{base}/login/oauth/access_token"));
    set(&mut endpoints.userinfo, format!("{api}/user"));
}

/// `tenant` is a GUID, a domain, or one of Microsoft's words.
fn microsoft(table: &Table<'_>, authority: String, tenant: Option<Item<'_, String>>) -> Option<ProviderIssuer> {
    let Some(tenant) = tenant else {
        if !table.has("tenant") || table.text("tenant", "").is_some() {
            let remedy = "add the directory (tenant) ID: `tenant = \"00000000-0000-0000-0000-000000000000\"`";
            table.reading.fault(table.span.clone(), "Microsoft requires a `tenant`", remedy);
        }
        return None;
    };
    let word = tenant.value.to_ascii_lowercase();
    let is_guid = is_guid(&word);
    match word.as_str() {
        "consumers" => Some(ProviderIssuer::Exact(format!("{authority}/{CONSUMERS}/v2.0"))),
        "common" | "organizations" => {
            if !(table.holds_table("allow") && names_tenants(table)) {
                let remedy = "add allow = { tenants = [\"GUID\"] }, or set `tenant` to your own directory";
                tenant.fault("every tenant of Microsoft could sign in", remedy);
            }
            Some(ProviderIssuer::MicrosoftTenant { authority, tenant: word })
        }
        _ if is_guid => Some(ProviderIssuer::Exact(format!("{authority}/{word}/v2.0"))),
        _ if word.contains('.') && is_domain(&word) => {
            Some(ProviderIssuer::MicrosoftTenant { authority, tenant: word })
        }
        _ => {
            let remedy = "use the directory's GUID or domain, or \"common\", \"organizations\" or \"consumers\"";
            tenant.fault(format!("`{}` is not a tenant", tenant.value), remedy);
            None
        }
    }
}

/// Warns where the e-mail addresses of several directories would count as verified.
pub(super) fn trusted_directory(table: &Table<'_>, issuer: Option<&ProviderIssuer>) {
    let Some(ProviderIssuer::MicrosoftTenant { tenant, .. }) = issuer else { return };
    if matches!(tenant.as_str(), "common" | "organizations") {
        let what =
            "administrators of every allowed tenant can give people any e-mail address, and it counts as verified";
        let remedy = "set `tenant` to your own directory, or remove this";
        table.reading.warn(table.span_of("danger_trust_email"), what, remedy);
    }
}

fn names_tenants(table: &Table<'_>) -> bool {
    let allow = table.value("allow").and_then(|value| value.get_ref().as_table());
    let tenants = allow.and_then(|allow| allow.get("tenants"));
    tenants.and_then(|tenants| tenants.get_ref().as_array()).is_some_and(|list| !list.is_empty())
}

/// An issuer is a https URL without query and fragment (OpenID Connect Discovery 1.0, 3).
fn is_issuer(text: &Item<'_, String>) -> bool {
    let fault = |what: &str, remedy: &str| {
        text.fault(format!("`{}` {what}", text.value), remedy);
        false
    };
    let Some(url) = Url::parse(&text.value).ok().filter(|url| url.host().is_some()) else {
        return fault("is not an issuer", "use its https URL, for example \"https://id.example.com\"");
    };
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return fault("has more than host and path", "an issuer has no user, query or fragment");
    }
    match url.scheme() {
        "https" => true,
        "http" if is_here(&url) => true,
        _ => fault("is not https", "use the provider's https URL; http is only accepted on this machine"),
    }
}

fn endpoints(table: &Table<'_>) -> ProviderEndpoints {
    let own = table.table("endpoints", "endpoints");
    let discovery = own.text("discovery", "http://keycloak:8080/realms/x/.well-known/openid-configuration");
    let discovery = discovery.and_then(|text| endpoint(&text, None, true));
    let at = |key: &'static str| {
        own.text(key, "https://id.example.com/token").and_then(|text| endpoint(&text, discovery.as_ref(), false))
    };
    let [authorize, token, userinfo, jwks] = ["authorize", "token", "userinfo", "jwks"].map(at);
    ProviderEndpoints { discovery, authorize, token, userinfo, jwks }
}

/// https; http on this machine, for `discovery` (an address in a container network), and at its host.
fn endpoint(text: &Item<'_, String>, discovery: Option<&Url>, is_discovery: bool) -> Option<Url> {
    let url = Url::parse(&text.value).ok().filter(|url| url.host().is_some() && url.fragment().is_none());
    let is_allowed = |url: &Url| match url.scheme() {
        "https" => true,
        "http" => {
            let is_inner = discovery.is_some_and(|own| own.scheme() == "http" && own.host() == url.host());
            is_discovery || is_inner || is_here(url)
        }
        _ => false,
    };
    let url = url.filter(|url| url.username().is_empty() && url.password().is_none()).filter(is_allowed);
    if url.is_none() {
        text.fault(format!("`{}` is not an https URL", text.value), "use the address from the provider's metadata");
    }
    url
}

fn needs_endpoints(table: &Table<'_>, endpoints: &ProviderEndpoints) {
    let all = [("authorize", &endpoints.authorize), ("token", &endpoints.token), ("userinfo", &endpoints.userinfo)];
    let missing: Vec<&str> = all.iter().filter(|(_, url)| url.is_none()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let what = format!("kind = \"oauth2\" requires `endpoints` with {}", missing.join(", "));
        let remedy = "add endpoints = { authorize = \"https://...\", token = \"https://...\", userinfo = \"https://...\" }, \
             or `issuer` if the server publishes metadata (RFC 8414)";
        table.reading.fault(table.span_of("endpoints"), what, remedy);
    }
}

/// Whether a URL names this machine.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

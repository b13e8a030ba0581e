//! A provider's metadata (OpenID Connect Discovery 1.0, 4): judged as a whole when it is read, so that nothing of another
//! issuer is ever used. What it names may not lead further inside than where it came from (`Reach::Document`).

use jsonwebtoken::Algorithm;
use serde_json::Value;
use url::{Host, Url};

use super::algorithm;
use crate::client::{Place, Reach};
use crate::config::{Provider, ProviderIssuer, ProviderKind};

/// Place of the document below the issuer.
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// Its place between host and path of the issuer, for servers without OpenID Connect (RFC 8414, 3).
const WELL_KNOWN_OAUTH: &str = "/.well-known/oauth-authorization-server";
/// What a Microsoft issuer for several tenants has in place of one.
pub(crate) const TENANT_PLACEHOLDER: &str = "{tenantid}";

const NO_ISSUER: &str = "the metadata has no issuer";

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// https, or http where that is allowed.
    pub(crate) url: Url,
    /// Where it may lead.
    pub(crate) reach: Reach,
}

/// What is known of a provider's issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Issuer {
    /// It is this one.
    Exact(String),
    /// `AUTHORITY/TENANT/v2.0`, with the tenant of each person.
    PerTenant {
        /// `https://login.microsoftonline.com`
        authority: String,
    },
    /// There is none, and the provider's word about it is ignored.
    Unknown,
}

impl Issuer {
    /// Whether a person's issuer is this one.
    pub(crate) fn is(&self, issuer: &str) -> bool {
        match self {
            Self::Exact(own) => own == issuer,
            Self::PerTenant { authority } => {
                let rest = issuer.strip_prefix(authority.as_str()).and_then(|rest| rest.strip_prefix('/'));
                rest.and_then(|rest| rest.strip_suffix("/v2.0")).is_some_and(is_tenant)
            }
            Self::Unknown => false,
        }
    }
}

/// Everything that the protocol needs to know of a provider beyond its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) issuer: Issuer,
    /// Browsers are sent there; nothing is fetched.
    pub(crate) authorize: Url,
    pub(crate) token: Endpoint,
    pub(crate) userinfo: Option<Endpoint>,
    /// OpenID kinds alone have keys.
    pub(crate) jwks: Option<Endpoint>,
    /// Where requests are pushed first, if the provider demands it (RFC 9126).
    pub(crate) pushed_requests: Option<Endpoint>,
    /// `token_endpoint_auth_methods_supported`
    pub(crate) auth_methods: Option<Vec<String>>,
    /// What ID tokens may be signed with: the provider's list, as far as it is safe.
    pub(crate) algorithms: Vec<Algorithm>,
    /// The provider promises `iss` in every answer (RFC 9207, 3).
    pub(crate) promises_issuer: bool,
    /// Browsers are sent there to sign out (OpenID Connect RP-Initiated Logout 1.0); nothing is fetched.
    pub(crate) end_session: Option<Url>,
}

/// Where a provider's metadata is read; `None`: its kind has none, or the configuration says all that it would.
pub(crate) fn location(provider: &Provider) -> Option<Endpoint> {
    if provider.kind == ProviderKind::OAuth2 {
        return oauth_location(provider).map(|url| Endpoint { url, reach: Reach::Operator });
    }
    if !provider.kind.is_openid() {
        return None;
    }
    let url = match (&provider.endpoints.discovery, &provider.issuer) {
        (Some(url), _) => url.clone(),
        (None, ProviderIssuer::Exact(issuer)) => below(issuer)?,
        (None, ProviderIssuer::MicrosoftTenant { authority, tenant }) => below(&format!("{authority}/{tenant}/v2.0"))?,
        (None, ProviderIssuer::Unknown) => return None,
    };
    Some(Endpoint { url, reach: Reach::Operator })
}

fn oauth_location(provider: &Provider) -> Option<Url> {
    let ProviderIssuer::Exact(issuer) = &provider.issuer else { return None };
    let configured = &provider.endpoints;
    if let Some(url) = &configured.discovery {
        return Some(url.clone());
    }
    if configured.authorize.is_some() && configured.token.is_some() && configured.userinfo.is_some() {
        return None;
    }
    let mut url = Url::parse(issuer).ok()?;
    let path = format!("{WELL_KNOWN_OAUTH}{}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Some(url)
}

fn below(issuer: &str) -> Option<Url> {
    Url::parse(&format!("{}{WELL_KNOWN}", issuer.strip_suffix('/').unwrap_or(issuer))).ok()
}

/// The metadata of a provider without a document: all is in the configuration.
pub(crate) fn without_document(provider: &Provider) -> Result<Metadata, String> {
    let endpoint = |url: &Option<Url>| {
        url.clone().map(|url| Endpoint { url, reach: Reach::Operator }).ok_or("an endpoint is not configured")
    };
    let issuer = match &provider.issuer {
        ProviderIssuer::Exact(issuer) => Issuer::Exact(issuer.clone()),
        _ => Issuer::Unknown,
    };
    Ok(Metadata {
        issuer,
        authorize: endpoint(&provider.endpoints.authorize)?.url,
        token: endpoint(&provider.endpoints.token)?,
        userinfo: Some(endpoint(&provider.endpoints.userinfo)?),
        jwks: None,
        pushed_requests: None,
        auth_methods: None,
        algorithms: Vec::new(),
        promises_issuer: false,
        end_session: None,
    })
}

/// Checks a document that came from this kind of place. The error is one line for the operator.
pub(crate) fn read(provider: &Provider, document: &Value, from: Place) -> Result<Metadata, String> {
    let issuer = issuer(provider, text(document, "issuer").ok_or(NO_ISSUER)?)?;
    let is_openid = provider.kind.is_openid();
    let endpoint = |configured: &Option<Url>, name: &str| -> Result<Option<Endpoint>, String> {
        if let Some(url) = configured {
            return Ok(Some(Endpoint { url: url.clone(), reach: Reach::Operator }));
        }
        let Some(url) = text(document, name) else { return Ok(None) };
        let url = endpoint_url(url, provider).ok_or_else(|| format!("the metadata's {name} is not an https URL"))?;
        Ok(Some(Endpoint { url, reach: Reach::Document(from) }))
    };
    let needed = |configured: &Option<Url>, name: &str| {
        endpoint(configured, name)?.ok_or_else(|| format!("the metadata has no {name}"))
    };
    let algorithms = match document.get("id_token_signing_alg_values_supported") {
        _ if !is_openid => Vec::new(),
        None => vec![Algorithm::RS256],
        Some(list) => strings(list).into_iter().flatten().filter_map(|name| algorithm::parse(&name)).collect(),
    };
    if is_openid && algorithms.is_empty() {
        return Err("the provider signs ID tokens with no algorithm that is accepted here".to_owned());
    }
    let is_true = |name: &str| document.get(name) == Some(&Value::Bool(true));
    let userinfo = endpoint(&provider.endpoints.userinfo, "userinfo_endpoint")?;
    if !is_openid && userinfo.is_none() {
        return Err("the metadata has no userinfo_endpoint: set it in `endpoints`".to_owned());
    }
    let pushed = if is_true("require_pushed_authorization_requests") {
        Some(needed(&None, "pushed_authorization_request_endpoint")?)
    } else {
        None
    };
    Ok(Metadata {
        issuer,
        authorize: needed(&provider.endpoints.authorize, "authorization_endpoint")?.url,
        token: needed(&provider.endpoints.token, "token_endpoint")?,
        userinfo,
        jwks: if is_openid { Some(needed(&provider.endpoints.jwks, "jwks_uri")?) } else { None },
        pushed_requests: pushed,
        auth_methods: document.get("token_endpoint_auth_methods_supported").and_then(strings),
        algorithms,
        promises_issuer: is_true("authorization_response_iss_parameter_supported"),
        end_session: text(document, "end_session_endpoint").and_then(|url| endpoint_url(url, provider)),
    })
}

/// The issuer of a document, if it is the configured one. The error is one line for the operator.
pub(crate) fn issuer_of(provider: &Provider, document: &Value) -> Result<String, String> {
    let found = text(document, "issuer").ok_or(NO_ISSUER)?;
    issuer(provider, found).map(|_| found.to_owned())
}

/// The issuer must be the configured one byte for byte (OpenID Connect Discovery 4.3; ASVS 10.5.3).
fn issuer(provider: &Provider, found: &str) -> Result<Issuer, String> {
    match &provider.issuer {
        ProviderIssuer::Exact(expected) if found == expected => Ok(Issuer::Exact(found.to_owned())),
        ProviderIssuer::Exact(expected) => {
            let found = shown(found);
            Err(format!("the metadata is of another issuer: \"{found}\", configured is \"{expected}\""))
        }
        ProviderIssuer::MicrosoftTenant { authority, tenant } => {
            let of_found = found.strip_prefix(authority.as_str()).and_then(|rest| rest.strip_prefix('/'));
            match of_found.and_then(|rest| rest.strip_suffix("/v2.0")) {
                Some(TENANT_PLACEHOLDER) if matches!(tenant.as_str(), "common" | "organizations") => {
                    Ok(Issuer::PerTenant { authority: authority.clone() })
                }
                Some(guid) if is_tenant(guid) && tenant.contains('.') => Ok(Issuer::Exact(found.to_owned())),
                _ => Err(format!("the metadata is of another issuer: \"{}\"", shown(found))),
            }
        }
        ProviderIssuer::Unknown => Err("no issuer is configured".to_owned()),
    }
}

/// Whether a text is a tenant's GUID in lower case.
pub(crate) fn is_tenant(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// A URL that a document names: https, or http to this machine or to the host that the metadata is read from over http.
fn endpoint_url(text: &str, provider: &Provider) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let is_internal = provider
        .endpoints
        .discovery
        .as_ref()
        .is_some_and(|discovery| discovery.scheme() == "http" && discovery.host() == url.host());
    let is_allowed = match url.scheme() {
        "https" => true,
        "http" => is_internal || is_this_machine(&url),
        _ => false,
    };
    (is_plain && is_allowed).then_some(url)
}

/// Whether a URL names this machine: http needs no protection there.
pub(crate) fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn text<'d>(document: &'d Value, name: &str) -> Option<&'d str> {
    document.get(name)?.as_str().filter(|text| !text.is_empty())
}

fn strings(list: &Value) -> Option<Vec<String>> {
    Some(list.as_array()?.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
}

/// A text from outside as a log line may have it.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

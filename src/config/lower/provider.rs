//! `[[provider]]`: who may be asked to sign people in.

use std::collections::HashSet;

use super::provider_credential::{credential, token_auth};
use super::provider_kind::{self, KindDefaults};
use super::provider_session;
use super::provider_text::{is_domain, is_email, is_guid, is_scope};
use crate::config::file::{Item, Table};
use crate::config::{
    Authority, LinkRule, Provider, ProviderAllow, ProviderClaims, ProviderKind, Routes, Secrets, SignUp,
};
use crate::web::origin::{Origin, Scheme};
use crate::web::path::NormalPath;

/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 32;
/// Parameters of the protocol, which `params` may not replace.
const OWN_PARAMS: [&str; 8] =
    ["client_id", "client_secret", "redirect_uri", "state", "nonce", "scope", "response_type", "max_age"];

/// Claims that are no person's for good.
const NO_IDS: [&str; 9] =
    ["email", "login", "mail", "name", "nickname", "preferred_username", "unique_name", "upn", "username"];

/// What providers are judged by besides their own table.
pub(super) struct Around<'a> {
    pub(super) public_url: &'a Origin,
    pub(super) prefix: &'a str,
    /// `authjs.base_path`
    pub(super) authjs: Option<&'a str>,
    /// `pages.login` and `pages.signup`
    pub(super) pages: [Option<&'a str>; 2],
    /// `sign_up.mode`
    pub(super) sign_up: SignUp,
    pub(super) routes: &'a Routes,
}

pub(super) fn providers(tables: Vec<Table<'_>>, around: &Around<'_>) -> Vec<Provider> {
    let mut providers: Vec<Provider> = Vec::new();
    for table in tables {
        let Some(provider) = provider(&table, around) else { continue };
        if providers.iter().any(|other| other.name == provider.name) {
            let what = format!("duplicate provider name \"{}\"", provider.name);
            table.reading.fault(table.span_of("name"), what, "use a different name for each");
        } else if let Some(other) = providers.iter().find(|other| other.callback == provider.callback) {
            let what = format!("provider \"{}\" has the same callback path", other.name);
            let remedy = "use a different path for each";
            table.reading.fault(table.span_of("callback"), what, remedy);
        }
        providers.push(provider);
    }
    providers
}

fn provider(table: &Table<'_>, around: &Around<'_>) -> Option<Provider> {
    let kind = kind(table);
    let name = name(table);
    let client_id = client_id(table);
    let credential = credential(table, kind);
    let allow = allow(table, kind);
    let (groups, groups_prefix) = groups(table);
    let needs_groups = !groups.is_empty() || groups_prefix.is_some() || !allow.groups.is_empty();
    let KindDefaults { issuer, endpoints, mut scopes } =
        // which demands nothing of the rest
        provider_kind::defaults(table, kind.unwrap_or(ProviderKind::GitLab), needs_groups);
    for scope in texts(table, "scopes", "groups", is_scope, "a scope is a word without spaces and quotes") {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    let token_auth = token_auth(table, credential.as_ref());
    let sign_up = sign_up(table, around.sign_up);
    let params = params(table, kind);
    let claims = claims(table);
    let authorities = authorities(table);
    let link = [("ask", LinkRule::Ask), ("verified_email", LinkRule::VerifiedEmail)];
    let link = table.choice("link", &link).unwrap_or(LinkRule::Ask);
    let [trust, no_pkce] = ["danger_trust_email", "danger_no_pkce"].map(|key| table.boolean(key).unwrap_or(false));
    let label = label(table, kind, name.as_deref());
    let callback = name.as_deref().and_then(|name| callback(table, name, around));
    let recheck = provider_session::recheck(table, kind, &scopes, &params);
    let sign_out = provider_session::sign_out(table, kind);
    let kind = kind?;
    needs_https(table, kind, around.public_url);
    warn_of_strangers(table, kind, sign_up, &allow);
    if trust {
        provider_kind::trusted_directory(table, issuer.as_ref());
    }
    Some(Provider {
        name: name?,
        kind,
        label,
        client_id: client_id?,
        credential: credential?,
        issuer: issuer?,
        endpoints,
        scopes,
        params,
        callback: callback?,
        token_auth,
        claims,
        groups,
        groups_prefix,
        allow,
        sign_up,
        link,
        recheck,
        sign_out,
        kept: provider_session::kept(kind, recheck.is_some(), sign_out),
        authorities,
        danger_trust_email: trust,
        danger_no_pkce: no_pkce,
    })
}

/// Public providers know everyone.
fn warn_of_strangers(table: &Table<'_>, kind: ProviderKind, sign_up: SignUp, allow: &ProviderAllow) {
    let is_restricted = !allow.is_everyone() || kind == ProviderKind::Oidc || kind == ProviderKind::OAuth2;
    if sign_up == SignUp::Open && !is_restricted && !is_own_server(table, kind) {
        let remedy =
            "restrict it, for example with allow = { domains = [\"example.com\"] }, or set sign_up = \"invite\"";
        let what = format!("anyone with an account at this provider ({}) can sign up", kind.word());
        table.reading.warn(table.span_of("sign_up"), what, remedy);
    }
}

fn kind(table: &Table<'_>) -> Option<ProviderKind> {
    use ProviderKind::{Apple, GitHub, GitLab, Google, Microsoft, OAuth2, Oidc};
    let kinds = [Google, GitHub, GitLab, Microsoft, Apple, Oidc, OAuth2].map(|kind| (kind.word(), kind));
    let kind = table.choice("kind", &kinds);
    if !table.has("kind") {
        table.reading.fault(table.span.clone(), "the provider has no `kind`", "add `kind = \"oidc\"`");
    }
    kind
}

fn name(table: &Table<'_>) -> Option<String> {
    let Some(name) = table.text("name", "google") else {
        if !table.has("name") {
            table.reading.fault(table.span.clone(), "the provider has no `name`", "add `name = \"google\"`");
        }
        return None;
    };
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = (1..=NAME_BYTES_MAX).contains(&name.value.len()) && name.value.bytes().all(is_plain);
    // Auth.js clients look for this one to tell passwords from providers
    if !fits || name.value == "credentials" {
        let remedy = "use 1 to 32 lower-case letters, digits and `-`; it is part of URLs and cannot be \"credentials\"";
        name.fault(format!("invalid provider name `{}`", name.value), remedy);
        return None;
    }
    Some(name.value)
}

fn label(table: &Table<'_>, kind: Option<ProviderKind>, name: Option<&str>) -> String {
    let own = match kind {
        Some(ProviderKind::Google) => "Google",
        Some(ProviderKind::GitHub) => "GitHub",
        Some(ProviderKind::GitLab) => "GitLab",
        Some(ProviderKind::Microsoft) => "Microsoft",
        Some(ProviderKind::Apple) => "Apple",
        _ => name.unwrap_or_default(),
    };
    let Some(label) = table.text("label", "Google").filter(|label| !label.value.is_empty()) else {
        return own.to_owned();
    };
    if label.value.chars().count() > 40 || label.value.chars().any(char::is_control) {
        label.fault("`label` must be at most 40 characters on one line", "use the provider's name");
    }
    label.value
}

fn client_id(table: &Table<'_>) -> Option<String> {
    let Some(id) = table.text("client_id", "...") else {
        if !table.has("client_id") {
            let remedy = "add the id that the provider shows for the registered application";
            table.reading.fault(table.span.clone(), "the provider has no `client_id`", remedy);
        }
        return None;
    };
    if id.value.is_empty() || id.value.len() > 512 || !id.value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        id.fault("`client_id` is empty or not plain text", "copy it from the provider's application page");
        return None;
    }
    Some(id.value)
}

fn sign_up(table: &Table<'_>, inherited: SignUp) -> SignUp {
    let words =
        [("inherit", inherited), ("closed", SignUp::Closed), ("invite", SignUp::Invite), ("open", SignUp::Open)];
    table.choice("sign_up", &words).unwrap_or(inherited)
}

/// Apple answers by a posted form where it is asked for name and e-mail.
fn params(table: &Table<'_>, kind: Option<ProviderKind>) -> Vec<(String, String)> {
    let mut params = Vec::new();
    for (name, value) in table.table("params", "params").free_texts() {
        let is_own = OWN_PARAMS.contains(&name.value.as_str()) || name.value.starts_with("code_challenge");
        if is_own {
            let what = format!("`{}` is set by the gateway itself", name.value);
            name.fault(what, "remove it; scopes have a key of their own");
            continue;
        }
        if name.value == "response_mode" && !matches!(value.value.as_str(), "query" | "form_post") {
            let remedy = "remove it, or use \"form_post\" where the provider requires it";
            value.fault(format!("`{}` is not supported", value.value), remedy);
            continue;
        }
        params.push((name.value, value.value));
    }
    if kind == Some(ProviderKind::Apple) && !params.iter().any(|(name, _)| name == "response_mode") {
        params.push(("response_mode".to_owned(), "form_post".to_owned()));
    }
    params
}

fn claims(table: &Table<'_>) -> ProviderClaims {
    let own = table.table("claims", "claims");
    let path = |key: &'static str| {
        let path = own.text(key, "email").filter(|path| !path.value.is_empty())?;
        if path.value == "/" || path.value.len() > 256 {
            path.fault("not the name of a claim", "use its name, or a JSON pointer such as \"/realm_access/roles\"");
            return None;
        }
        Some(path.value)
    };
    let id = path("id");
    let last = id.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    if NO_IDS.contains(&last) {
        let what = format!("`{last}` can be changed or given to someone else, who is then the same person here");
        let remedy = "use an id that stays with its person, or remove this";
        table.reading.warn(own.span_of("id"), what, remedy);
    }
    ProviderClaims {
        id,
        email: path("email"),
        email_verified: path("email_verified"),
        name: path("name"),
        picture: path("picture"),
        groups: path("groups"),
    }
}

fn groups(table: &Table<'_>) -> (Vec<(String, String)>, Option<String>) {
    let fits = |group: &str| {
        (1..=64).contains(&group.chars().count())
            && group.trim() == group
            && !group.contains(|c: char| c == ',' || c.is_control())
    };
    let mut map = Vec::new();
    for (theirs, ours) in table.table("groups", "groups").free_texts() {
        if fits(&ours.value) {
            map.push((theirs.value, ours.value));
        } else {
            let remedy = "use 1 to 64 characters, without commas or control characters";
            ours.fault(format!("`{}` cannot be the name of a group", ours.value), remedy);
        }
    }
    let prefix = table.text("groups_prefix", "gh:").filter(|prefix| !prefix.value.is_empty());
    if let Some(prefix) = prefix.as_ref().filter(|prefix| !fits(&prefix.value) || prefix.value.chars().count() > 32) {
        prefix.fault("this cannot begin the name of a group", "use a short word, for example \"gh:\"");
    } else if let Some(prefix) = prefix.as_ref().filter(|prefix| !prefix.value.ends_with([':', '/', '-', '_', '.'])) {
        prefix.fault(
            "with this prefix a group of the provider could have the name of one of yours",
            "end it with one of : / - _ .",
        );
    }
    (map, prefix.map(|prefix| prefix.value))
}

fn allow(table: &Table<'_>, kind: Option<ProviderKind>) -> ProviderAllow {
    let own = table.table("allow", "allow");
    let domains = texts(&own, "domains", "example.com", is_domain, "use a domain such as \"example.com\", without @");
    let emails = texts(&own, "emails", "ann@example.com", is_email, "use an address such as \"ann@example.com\"");
    let groups = texts(&own, "groups", "staff", |group| !group.is_empty(), "use a group of the provider");
    let tenants = texts(&own, "tenants", "00000000-0000-0000-0000-000000000000", is_guid, "use the tenant's GUID");
    if own.has("tenants") && kind.is_some_and(|kind| kind != ProviderKind::Microsoft) {
        let what = "only Microsoft has tenants";
        table.reading.fault(own.span_of("tenants"), what, "remove it, or use `domains`");
    }
    let lower = |list: Vec<String>| list.into_iter().map(|text| text.to_ascii_lowercase()).collect::<Vec<_>>();
    ProviderAllow { domains: lower(domains), emails: lower(emails), groups, tenants: lower(tenants) }
}

fn authorities(table: &Table<'_>) -> Vec<Authority> {
    let Some(file) = table.text("ca", "authority.pem").filter(|file| !file.value.is_empty()) else { return Vec::new() };
    if table.reading.secrets == Secrets::Left {
        return Vec::new();
    }
    match Authority::read(&table.reading.base.join(&file.value)) {
        Ok(authorities) => authorities,
        Err((what, remedy)) => {
            file.fault(what, remedy);
            Vec::new()
        }
    }
}

/// The path of the redirect URI: below the Auth.js surface where that is on, so that registrations of a next-auth site
/// stay valid; else one of the gateway's own.
fn callback(table: &Table<'_>, name: &str, around: &Around<'_>) -> Option<String> {
    let own = format!("{}/oauth/{name}/callback", around.prefix);
    let authjs = around.authjs.map(|base| format!("{base}/callback/{name}"));
    let default = authjs.clone().unwrap_or_else(|| own.clone());
    let Some(text) = table.text("callback", &default).filter(|text| !text.value.is_empty()) else {
        return Some(default);
    };
    if text.value == own || Some(&text.value) == authjs.as_ref() {
        return Some(text.value);
    }
    let is_below =
        |base: &str| text.value.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_taken = is_below(around.prefix)
        || around.authjs.is_some_and(is_below)
        || around.pages.contains(&Some(text.value.as_str()));
    let is_path = NormalPath::parse(text.value.as_bytes()).is_ok() && text.value != "/" && !text.value.ends_with('/');
    if is_taken {
        text.fault(format!("`{}` is another page of the gateway", text.value), format!("use \"{default}\""));
    } else if !is_path {
        text.fault(format!("`{}` cannot be the path of a page", text.value), format!("use \"{default}\""));
    } else if around.routes.iter().any(|route| route.path.text == text.value) {
        let what = format!("a route has the path `{}`, which it would never get", text.value);
        text.fault(what, format!("use \"{default}\", or remove the route"));
    }
    (is_path && !is_taken).then_some(text.value)
}

/// These providers register no http address beyond this machine.
fn needs_https(table: &Table<'_>, kind: ProviderKind, public_url: &Origin) {
    let asks = matches!(kind, ProviderKind::Google | ProviderKind::Microsoft | ProviderKind::Apple);
    let host = public_url.host();
    let is_here = host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1" || host == "[::1]";
    if asks && public_url.scheme() == Scheme::Http && !is_here {
        let what = format!("{} does not accept the http address {public_url}", kind.word());
        table.reading.fault(table.span_of("kind"), what, "set server.public_url to an https URL");
    } else if kind == ProviderKind::Apple && is_here {
        let what = "Apple accepts neither localhost nor an IP address in a redirect URI";
        table.reading.warn(table.span_of("kind"), what, "set server.public_url to an https URL with a domain");
    }
}

/// A server of the operator's own knows no strangers.
fn is_own_server(table: &Table<'_>, kind: ProviderKind) -> bool {
    let has_tenant = kind == ProviderKind::Microsoft && table.has("tenant");
    has_tenant || (kind == ProviderKind::GitLab || kind == ProviderKind::GitHub) && table.has("issuer")
}

fn texts(
    table: &Table<'_>,
    key: &'static str,
    example: &str,
    fits: impl Fn(&str) -> bool,
    remedy: &str,
) -> Vec<String> {
    let Some(list) = table.texts(key, example) else { return Vec::new() };
    let mut seen = HashSet::new();
    let judge = |text: Item<'_, String>| {
        if fits(&text.value) {
            return seen.insert(text.value.clone()).then_some(text.value);
        }
        text.fault(format!("invalid value `{}` in `{key}`", text.value), remedy);
        None
    };
    list.value.into_iter().filter_map(judge).collect()
}

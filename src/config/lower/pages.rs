//! `[pages]`.

use crate::config::file::{Item, Table};
use crate::config::look::look;
use crate::config::{AuthJs, AuthJsClient, Pages};
use crate::web::origin::Origin;
use crate::web::path::NormalPath;

pub(super) fn pages(table: &Table<'_>, prefix: &str) -> Pages {
    let login = extra_path(table, "login", "/login", prefix);
    let signup = extra_path(table, "signup", "/signup", prefix);
    if let (Some(login), Some(signup)) = (&login, &signup)
        && login.value == signup.value
    {
        signup.fault("`login` and `signup` are the same path", "use a different path for each");
    }
    Pages {
        title: title(table),
        look: look(table),
        after_login: after_login(table, prefix, [&login, &signup]),
        callback_origins: callback_origins(table),
        provider_first: table.boolean("provider_first").unwrap_or(false),
        login: login.map(|text| text.value),
        signup: signup.map(|text| text.value),
    }
}

pub(super) fn authjs(table: &Table<'_>, prefix: &str) -> AuthJs {
    let words = [("auto", AuthJsClient::Auto), ("v4", AuthJsClient::V4), ("v5", AuthJsClient::V5)];
    let client = table.choice("client", &words).unwrap_or(AuthJsClient::Auto);
    let base_path = extra_path(table, "base_path", "/api/auth", prefix);
    if let Some(base) = &base_path
        && prefix.strip_prefix(base.value.as_str()).is_some_and(|rest| rest.starts_with('/'))
    {
        base.fault("server.prefix is under `base_path`: its pages would be unreachable", "use a path outside it");
    }
    AuthJs { base_path: base_path.map(|text| text.value), client }
}

fn title(table: &Table<'_>) -> String {
    let Some(text) = table.text("title", "Sign in") else { return "Sign in".to_owned() };
    let length = text.value.chars().count();
    if length == 0 || length > 80 || text.value.chars().any(char::is_control) {
        text.fault("`title` must be a line of 1 to 80 characters", "use the heading of the login page");
    }
    text.value
}

fn extra_path<'t>(table: &Table<'t>, key: &'static str, example: &str, prefix: &str) -> Option<Item<'t, String>> {
    let text = table.text(key, example).filter(|text| !text.value.is_empty())?;
    let plain = NormalPath::parse(text.value.as_bytes()).is_ok();
    if !plain || text.value == "/" || text.value.ends_with('/') {
        text.fault(
            format!("`{}` cannot be used as the path of a page", text.value),
            format!("use a path, for example \"{example}\""),
        );
        return None;
    }
    let below = text.value.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below {
        text.fault(
            format!("`{key}` is under server.prefix, where the page already is"),
            "leave it out, or use a path outside it",
        );
        return None;
    }
    Some(text)
}

fn after_login(table: &Table<'_>, prefix: &str, pages: [&Option<Item<'_, String>>; 2]) -> String {
    let Some(text) = table.text("after_login", "/") else { return "/".to_owned() };
    let path = text.value.split(['?', '#']).next().unwrap_or_default();
    if NormalPath::parse(path.as_bytes()).is_err() || !text.value.bytes().all(|b| b > 0x20 && b < 0x7f) {
        text.fault(format!("`{}` is not a path on this gateway", text.value), "use a path, for example \"/\"");
        return "/".to_owned();
    }
    let own = path.strip_prefix(prefix).is_some_and(|page| page.starts_with('/') && page != "/account");
    if own || pages.into_iter().flatten().any(|page| page.value == path) {
        text.fault(
            format!("`{}` is a page that itself redirects to `after_login`, or not a page for users", text.value),
            format!("use an app's path, or \"{prefix}/account\""),
        );
    }
    text.value
}

fn callback_origins(table: &Table<'_>) -> Vec<Origin> {
    origins(table, "callback_origins")
}

/// A list of exact origins.
pub(super) fn origins(table: &Table<'_>, key: &'static str) -> Vec<Origin> {
    let Some(list) = table.texts(key, "https://app.example.com") else { return Vec::new() };
    let mut origins = Vec::new();
    for text in list.value {
        match Origin::parse(&text.value) {
            Some(origin) => origins.push(origin),
            None => text.fault(
                format!("invalid origin `{}`", text.value),
                if text.value.is_ascii() {
                    "use scheme, host and optionally a port, for example \"https://app.example.com\""
                } else {
                    super::server::PUNYCODE
                },
            ),
        }
    }
    origins
}

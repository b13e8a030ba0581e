//! `[session]`, `[password]`, `[users]`, `[sign_up]`, `[throttle]`.

use std::ops::Range;
use std::time::Duration;

use crate::config::file::{Reading, Table};
use crate::config::{AppCookieRule, Argon2, Password, SameSite, Session, SignUp, Throttle, Upstream, UserIds};
use crate::web::cookie;
use crate::web::host::Host;
use crate::web::origin::{Origin, Scheme};

const SECOND: Duration = Duration::from_secs(1);
const DAY: u64 = 86_400;

pub(super) fn session(table: &Table<'_>, public_url: &Origin) -> Session {
    let max_age_typed = table.duration("max_age", SECOND);
    let idle_typed = table.duration("idle", SECOND);
    let renew_typed = table.duration("renew_after", SECOND);
    let max_age = max_age_typed.as_ref().map_or(Duration::from_secs(20 * DAY), |text| text.value);
    // unset shorter limits follow the longer ones
    let idle = idle_typed.as_ref().map_or(Duration::from_secs(7 * DAY).min(max_age), |text| text.value);
    let renew_after = renew_typed.as_ref().map_or(Duration::from_secs(3600).min(idle / 2), |text| text.value);
    if let Some(typed) = &idle_typed
        && idle > max_age
    {
        typed.fault("`idle` is longer than `max_age`, so it would have no effect", "use a time shorter than max_age");
    }
    if let Some(typed) = &renew_typed
        && renew_after >= idle
    {
        typed.fault("`renew_after` is not shorter than `idle`", "use a time shorter than idle");
    }
    let same_site =
        table.choice("same_site", &[("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)]);
    let same_site = same_site.unwrap_or(SameSite::Lax);
    if same_site == SameSite::None && public_url.scheme() == Scheme::Http {
        table.reading.fault(
            table.span_of("same_site"),
            "`same_site = \"none\"` requires https: browsers reject such a cookie over http",
            "set server.public_url to an https URL, or keep same_site = \"lax\"",
        );
    }
    let app_cookies = [("per_account", AppCookieRule::PerAccount), ("keep", AppCookieRule::Keep)];
    let app_cookies = table.choice("app_cookies", &app_cookies).unwrap_or(AppCookieRule::PerAccount);
    let cookie_name = cookie_name(table);
    Session { max_age, idle, renew_after, same_site, cookie_name, app_cookies, domain: domain(table, public_url) }
}

fn cookie_name(table: &Table<'_>) -> String {
    let default = cookie::DEFAULT_NAME.to_owned();
    let Some(text) = table.text("cookie_name", cookie::DEFAULT_NAME) else { return default };
    if !cookie::may_be_named(&text.value) {
        text.fault(
            format!("`{}` cannot be used as the cookie name", text.value),
            "use at most 64 letters, digits and . _ -; the prefix `__Host-` or `__Secure-` is added",
        );
        return default;
    }
    text.value
}

/// The gateway's cookies must not share a name with a cookie that carries an upstream token.
pub(super) fn cookie_clash(session: &Session, span: Range<usize>, upstreams: &[Upstream], reading: &Reading<'_>) {
    let mut cookies = upstreams.iter().filter_map(|upstream| upstream.token.as_ref()).flat_map(|token| &token.cookies);
    if let Some(name) = cookies.find(|name| cookie::is_own(&session.cookie_name, name.as_bytes())) {
        reading.fault(
            span,
            format!("`{name}` is also the cookie of an upstream's `token`"),
            "use a different name for this gateway's cookies",
        );
    }
}

fn domain(table: &Table<'_>, public_url: &Origin) -> Option<String> {
    let text = table.text("domain", "example.com").filter(|text| !text.value.is_empty())?;
    let bare = text.value.strip_prefix('.').unwrap_or(&text.value);
    let host = Host::parse(bare).filter(|host| host.port().is_none());
    let named = host.filter(|host| host.name().contains('.') && bare.parse::<std::net::IpAddr>().is_err());
    let Some(host) = named else {
        text.fault(
            format!("hosts cannot share the domain `{}`", text.value),
            "use a parent domain of your hosts, for example \"example.com\"",
        );
        return None;
    };
    let own = public_url.host();
    let covers = own == host.name() || own.strip_suffix(host.name()).is_some_and(|front| front.ends_with('.'));
    if !covers {
        text.fault(
            format!("`{}` does not cover {own}, the host of server.public_url", text.value),
            "use a parent domain of that host",
        );
        return None;
    }
    if public_url.scheme() == Scheme::Http {
        text.fault("a shared session requires https", "set server.public_url to an https URL, or leave `domain` out");
    }
    Some(host.name().to_owned())
}

pub(super) fn password(table: &Table<'_>) -> Password {
    let argon2 = table.table("argon2", "[password.argon2]");
    let number = |key, default: u32, min, max| {
        argon2.number(key, min, max).and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    };
    let parameters = Argon2 {
        // OWASP minimum: 7 MiB with 5 iterations; below that, hashes are cheap to guess
        memory_kib: number("memory_kib", 19_456, 7168, 1 << 20),
        iterations: number("iterations", 2, 1, 16),
        parallelism: number("parallelism", 1, 1, 16),
    };
    Password {
        enabled: table.boolean("enabled").unwrap_or(true),
        min_length: table.number("min_length", 8, 256).and_then(|n| usize::try_from(n).ok()).unwrap_or(15),
        blocklist: table.boolean("blocklist").unwrap_or(true),
        argon2: parameters,
    }
}

pub(super) fn user_ids(table: &Table<'_>) -> UserIds {
    table.choice("ids", &[("integer", UserIds::Integer), ("uuid", UserIds::Uuid)]).unwrap_or(UserIds::Integer)
}

pub(super) fn sign_up(table: &Table<'_>) -> SignUp {
    let words = [("invite", SignUp::Invite), ("closed", SignUp::Closed), ("open", SignUp::Open)];
    table.choice("mode", &words).unwrap_or(SignUp::Invite)
}

pub(super) fn throttle(table: &Table<'_>) -> Throttle {
    let time = |key, default| table.duration(key, SECOND).map_or(Duration::from_secs(default), |text| text.value);
    Throttle {
        max_retries: table.number("max_retries", 1, 1000).and_then(|n| u32::try_from(n).ok()).unwrap_or(5),
        find_time: time("find_time", 120),
        ban_time: time("ban_time", 300),
    }
}

//! Every table of the file and its keys, for suggested fixes and for the JSON Schema that editors use. Tests compare it
//! with what is actually read.

use Kind::{Boolean, Duration, Free, Number, OneOf, Secret, Size, Table, Tables, Text, Texts, Words};

/// The kind of a key's value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Texts,
    Boolean,
    /// Minimum and maximum.
    Number(u64, u64),
    Duration,
    Size,
    Words(&'static [&'static str]),
    Secret,
    /// A table of this name.
    Table(&'static str),
    /// An array of tables of this name.
    Tables(&'static str),
    /// A table of strings with user-defined keys.
    Free,
    OneOf(&'static [Kind]),
}

/// A table's name, keys and required keys.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub(super) table: &'static str,
    pub(super) list: &'static [(&'static str, Kind)],
    pub(super) needed: &'static [&'static str],
}

/// Upper bound for counts.
const MANY: u64 = 10_000_000;

const fn keys(table: &'static str, list: &'static [(&'static str, Kind)]) -> Keys {
    Keys { table, list, needed: &[] }
}

const fn needing(needed: &'static [&'static str], table: Keys) -> Keys {
    Keys { needed, ..table }
}

/// The root table comes first.
pub(super) const TABLES: &[Keys] = &[
    needing(
        &["route"],
        keys(
            "the file",
            &[
                ("server", Table("[server]")),
                ("limits", Table("[limits]")),
                ("session", Table("[session]")),
                ("password", Table("[password]")),
                ("users", Table("[users]")),
                ("sign_up", Table("[sign_up]")),
                ("secrets", Table("[secrets]")),
                ("store", Table("[store]")),
                ("throttle", Table("[throttle]")),
                ("pages", Table("[pages]")),
                ("authjs", Table("[authjs]")),
                ("cors", Table("[cors]")),
                ("provider", Tables("[[provider]]")),
                ("upstream", Tables("[[upstream]]")),
                ("route", Tables("[[route]]")),
                ("test", Tables("[[test]]")),
            ],
        ),
    ),
    keys(
        "[server]",
        &[
            ("listen", Texts),
            ("public_url", Text),
            ("state_dir", Text),
            ("prefix", Text),
            ("paths", Words(&["all_readings", "plain"])),
            ("trusted_proxies", Texts),
            ("trusted_headers", Texts),
            ("watch", Boolean),
            ("admin_listen", Text),
            ("admin_hosts", Texts),
            ("tls", Table("[server.tls]")),
        ],
    ),
    keys("[server.tls]", &[("certificates", Tables("[[server.tls.certificates]]"))]),
    needing(&["certificate", "key"], keys("[[server.tls.certificates]]", &[("certificate", Text), ("key", Secret)])),
    keys(
        "[limits]",
        &[
            ("head_bytes", Size),
            ("head_fields", Number(10, 250)),
            ("head_time", Duration),
            ("form_bytes", Size),
            ("connections", Number(1, MANY)),
            ("connections_per_address", Number(1, MANY)),
            ("sockets_per_user", Number(1, MANY)),
            ("keep_alive", Duration),
            ("idle", Duration),
        ],
    ),
    keys(
        "[session]",
        &[
            ("max_age", Duration),
            ("idle", Duration),
            ("renew_after", Duration),
            ("same_site", Words(&["lax", "strict", "none"])),
            ("cookie_name", Text),
            ("app_cookies", Words(&["per_account", "keep"])),
            ("domain", Text),
        ],
    ),
    keys(
        "[password]",
        &[
            ("enabled", Boolean),
            ("min_length", Number(8, 256)),
            ("blocklist", Boolean),
            ("argon2", Table("[password.argon2]")),
        ],
    ),
    keys(
        "[password.argon2]",
        &[("memory_kib", Number(7168, 1 << 20)), ("iterations", Number(1, 16)), ("parallelism", Number(1, 16))],
    ),
    keys("[users]", &[("ids", Words(&["integer", "uuid"]))]),
    keys("[sign_up]", &[("mode", Words(&["invite", "closed", "open"]))]),
    keys("[secrets]", &[("key", Secret)]),
    keys(
        "[store]",
        &[
            ("url", OneOf(&[Secret, Text])),
            ("ca", Table("ca")),
            ("blind_max", Duration),
            ("danger_blind_max", Duration),
            ("danger_store_tls", Words(&["verify-full", "require"])),
        ],
    ),
    keys("[throttle]", &[("max_retries", Number(1, 1000)), ("find_time", Duration), ("ban_time", Duration)]),
    keys(
        "[pages]",
        &[
            ("title", Text),
            ("logo", Text),
            ("templates", Text),
            ("login", Text),
            ("signup", Text),
            ("after_login", Text),
            ("callback_origins", Texts),
            ("provider_first", Boolean),
        ],
    ),
    keys("[authjs]", &[("base_path", Text), ("client", Words(&["auto", "v4", "v5"]))]),
    keys("[cors]", &[("origins", Texts)]),
    needing(
        &["name", "kind", "client_id"],
        keys(
            "[[provider]]",
            &[
                ("name", Text),
                ("kind", Words(&["google", "github", "gitlab", "microsoft", "apple", "oidc", "oauth2"])),
                ("label", Text),
                ("client_id", Text),
                ("client_secret", Secret),
                ("private_key", Secret),
                ("team_id", Text),
                ("key_id", Text),
                ("issuer", Text),
                ("tenant", Text),
                ("scopes", Texts),
                ("params", Free),
                ("callback", Text),
                ("token_auth", Words(&["auto", "basic", "post", "private_key", "none"])),
                ("endpoints", Table("endpoints")),
                ("claims", Table("claims")),
                ("groups", Free),
                ("groups_prefix", Text),
                ("allow", Table("allow")),
                ("sign_up", Words(&["inherit", "closed", "invite", "open"])),
                ("link", Words(&["ask", "verified_email"])),
                ("recheck", Text),
                ("sign_out", Words(&["local", "provider"])),
                ("ca", Text),
                ("danger_trust_email", Boolean),
                ("danger_no_pkce", Boolean),
            ],
        ),
    ),
    keys("endpoints", &[("discovery", Text), ("authorize", Text), ("token", Text), ("userinfo", Text), ("jwks", Text)]),
    keys(
        "claims",
        &[("id", Text), ("email", Text), ("email_verified", Text), ("name", Text), ("picture", Text), ("groups", Text)],
    ),
    keys("allow", &[("domains", Texts), ("emails", Texts), ("groups", Texts), ("tenants", Texts)]),
    needing(
        &["name", "servers"],
        keys(
            "[[upstream]]",
            &[
                ("name", Text),
                ("servers", Texts),
                ("balance", Words(&["round_robin"])),
                ("host", Words(&["client", "upstream"])),
                ("ca", Table("ca")),
                ("server_name", Text),
                ("client_certificate", Table("client_certificate")),
                ("allow_headers", Texts),
                ("identity", OneOf(&[Words(&["remote", "x-auth-request", "x-forwarded", "none"]), Free])),
                ("token", Table("token")),
                ("provider_token", Table("provider_token")),
                ("health", Table("health")),
            ],
        ),
    ),
    keys("ca", &[("file", Text)]),
    keys("client_certificate", &[("certificate", Text), ("key", Secret)]),
    keys(
        "token",
        &[
            ("algorithm", Words(&["HS256", "EdDSA", "ES256"])),
            ("secret", Secret),
            ("send", Texts),
            ("lifetime", Duration),
            ("format", Words(&["jwt", "next-auth-v4", "authjs-v5"])),
        ],
    ),
    needing(
        &["provider", "header"],
        keys("provider_token", &[("provider", Text), ("kind", Words(&["access", "id"])), ("header", Text)]),
    ),
    needing(&["path"], keys("health", &[("path", Text), ("interval", Duration)])),
    keys(
        "[[route]]",
        &[
            ("host", Text),
            ("path", Text),
            ("methods", Texts),
            ("upstream", Text),
            ("access", Words(&["signed_in", "public", "optional", "deny"])),
            ("groups", Texts),
            ("refuse", Words(&["auto", "redirect", "status", "basic"])),
            ("enforce", Boolean),
            ("strip_prefix", Text),
            ("paths", Words(&["all_readings", "plain"])),
            ("timeout", Duration),
            ("body_max", Size),
            ("danger_cross_origin", Boolean),
            ("websocket", Table("websocket")),
            ("upgrade", Texts),
            ("cors", OneOf(&[Words(&["app"]), Table("cors")])),
            ("cookies", Words(&["app", "drop"])),
            ("cache", Words(&["auto", "app"])),
        ],
    ),
    keys("websocket", &[("origins", Texts), ("token", Texts)]),
    keys("cors", &[("origins", Texts)]),
    needing(
        &["request", "expect"],
        keys("[[test]]", &[("request", Text), ("headers", Free), ("user", Table("user")), ("expect", Text)]),
    ),
    keys("secret", &[("file", Text), ("env", Text), ("credential", Text)]),
    keys("user", &[("email", Text), ("groups", Texts)]),
];

pub(super) fn of(table: &str) -> Option<&'static Keys> {
    TABLES.iter().find(|keys| keys.table == table)
}

/// Whether the table has this key.
pub(super) fn has(table: &str, key: &str) -> bool {
    of(table).is_some_and(|keys| keys.list.iter().any(|(known, _)| *known == key))
}

/// Syntax example for a table that was written as another type.
pub(super) fn how_to_write(key: &str, table: &str) -> String {
    if table.starts_with('[') {
        return format!("write {table} on a line of its own, with its keys below");
    }
    let known = of(table).map_or(&[][..], |keys| keys.list);
    let inside: Vec<String> = known.iter().map(|(key, _)| format!("{key} = ...")).collect();
    if inside.is_empty() {
        return format!("write `{key} = {{ \"Name\" = \"value\" }}`");
    }
    format!("use a table with any of the keys in `{key} = {{ {} }}`", inside.join(", "))
}

/// Another table that has this key.
pub(super) fn elsewhere(table: &str, key: &str) -> Option<&'static str> {
    TABLES.iter().map(|keys| keys.table).find(|other| *other != table && has(other, key))
}

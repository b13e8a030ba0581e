//! Lowers the file as typed to the configuration as used, one file per table. All faults are collected; an invalid
//! value is replaced by its default so that the rest can still be checked.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeTable;

use super::file::{Reading, Table};
use super::sealing_key::sealing_key;
use super::{
    AuthJs, Config, Faults, Pages, Provider, Routes, SealingKeyPlace, Server, SignUp, StoreConfig, StoreTrust,
};

mod caution;
mod pages;
mod people;
mod provider;
mod provider_credential;
mod provider_kind;
mod provider_only;
mod provider_session;
mod provider_text;
mod provider_token;
mod route;
mod server;
mod store;
mod test;
mod tls;
mod token;
mod upstream;

/// Lowers a whole file. The result is valid only if no fault was reported.
pub(super) fn lower<'t>(file: &'t Spanned<DeTable<'t>>, reading: &'t Reading<'t>) -> Config {
    let root = Table::root(file, reading);
    let server_table = root.table("server", "[server]");
    let server = server::server(&server_table);
    let session_table = root.table("session", "[session]");
    let session = people::session(&session_table, &server.public_url);
    let only = provider_only::Tables {
        password: root.table("password", "[password]"),
        pages: root.table("pages", "[pages]"),
        sign_up: root.table("sign_up", "[sign_up]"),
    };
    let pages = pages::pages(&only.pages, &server.prefix);
    let authjs = pages::authjs(&root.table("authjs", "[authjs]"), &server.prefix);
    let (sign_up, password) = (people::sign_up(&only.sign_up), people::password(&only.password));
    let cors_origins = pages::origins(&root.table("cors", "[cors]"), "origins");
    let (mut upstreams, tokens) = upstream::upstreams(root.tables("upstream", "[[upstream]]"), &server.listen);
    let (routes, places) = route::routes(
        root.tables("route", "[[route]]"),
        &mut upstreams,
        &route::Around {
            own: &server.listen,
            cors_origins: &cors_origins,
            domain: session.domain.as_deref(),
            paths: server.paths,
        },
        reading,
    );
    let provider_tables = root.tables("provider", "[[provider]]");
    let typed = provider_tables.len();
    let mut providers = providers(provider_tables, &server, &pages, &authjs, (sign_up, &routes));
    provider_token::keep(&tokens, &upstreams, &routes, (&mut providers, typed), reading);
    let sign_up = provider_only::check(&only, (&password, &pages, sign_up), typed, &providers);
    caution::wildcard_hosts(&providers, session.domain.as_deref(), &routes, &places.hosts, reading);
    people::cookie_clash(&session, session_table.span_of("cookie_name"), &upstreams, reading);
    caution::uncovered(&server, server_table.span_of("public_url"), &routes, &places.hosts, reading);
    require_routes(&root);
    let (sealing_key, (store, store_trust)) = at_rest(&root);
    let names: Vec<String> = upstreams.iter().map(|upstream| upstream.name.clone()).collect();
    Config {
        limits: server::limits(&root.table("limits", "[limits]")),
        session,
        password,
        user_ids: people::user_ids(&root.table("users", "[users]")),
        sign_up,
        sealing_key,
        store,
        store_trust,
        throttle: people::throttle(&root.table("throttle", "[throttle]")),
        pages,
        authjs,
        cors_origins,
        providers,
        tests: test::tests(&root.tables("test", "[[test]]"), &names),
        warnings: Faults::warnings("", "", Vec::new()),
        named_groups: BTreeMap::new(),
        server,
        upstreams,
        routes,
    }
}

/// `[secrets]`, and the store, which requires the key.
fn at_rest(root: &Table<'_>) -> (Option<SealingKeyPlace>, (Option<StoreConfig>, StoreTrust)) {
    let faults = root.reading.fault_count();
    let key = sealing_key(&root.table("secrets", "[secrets]"));
    let has_key = key.is_some() || root.reading.fault_count() > faults;
    (key, store::store(&root.table("store", "[store]"), has_key))
}

fn require_routes(root: &Table<'_>) {
    let nothing = root.value("route").map_or(Some(0..0), |typed| {
        let is_empty = typed.get_ref().as_array().is_some_and(|list| list.is_empty());
        is_empty.then(|| typed.span())
    });
    if let Some(span) = nothing {
        root.reading.fault(
            span,
            "no routes, so nothing would be served",
            "add a [[route]] with `upstream = \"http://127.0.0.1:3000\"`",
        );
    }
}

fn providers(
    tables: Vec<Table<'_>>,
    server: &Server,
    pages: &Pages,
    authjs: &AuthJs,
    (sign_up, routes): (SignUp, &Routes),
) -> Vec<Provider> {
    let around = provider::Around {
        public_url: &server.public_url,
        prefix: &server.prefix,
        authjs: authjs.base_path.as_deref(),
        pages: [pages.login.as_deref(), pages.signup.as_deref()],
        sign_up,
        routes,
    };
    provider::providers(tables, &around)
}

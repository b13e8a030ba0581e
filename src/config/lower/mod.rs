//! As typed -> as used, one file a table. Every fault is gathered; where a value is wrong the
//! default stands in for it, so that the rest can be judged too.

use toml::Spanned;
use toml::de::DeTable;

use super::file::{Reading, Table};
use super::{Config, Listen, UpstreamServer};

mod pages;
mod people;
mod route;
mod server;
mod test;
mod upstream;

/// Lowers a whole file; the value is good only if no fault was said.
pub(super) fn lower<'t>(file: &'t Spanned<DeTable<'t>>, reading: &'t Reading<'t>) -> Config {
    let root = Table::root(file, reading);
    let server = server::server(&root.table("server", "[server]"));
    let session = people::session(&root.table("session", "[session]"), &server.public_url);
    let pages = pages::pages(&root.table("pages", "[pages]"), &server.prefix);
    let mut upstreams = upstream::upstreams(root.tables("upstream", "[[upstream]]"));
    let routes = route::routes(root.tables("route", "[[route]]"), &mut upstreams);
    if routes.is_empty() && !root.has("route") {
        reading.fault(
            0..0,
            "there is no route, so nothing would be served",
            "add [[route]] with `upstream = \"http://127.0.0.1:3000\"`",
        );
    }
    let names: Vec<String> = upstreams.iter().map(|upstream| upstream.name.clone()).collect();
    let config = Config {
        limits: server::limits(&root.table("limits", "[limits]")),
        session,
        password: people::password(&root.table("password", "[password]")),
        user_ids: people::user_ids(&root.table("users", "[users]")),
        sign_up: people::sign_up(&root.table("sign_up", "[sign_up]")),
        throttle: people::throttle(&root.table("throttle", "[throttle]")),
        pages,
        tests: test::tests(&root.tables("test", "[[test]]"), &names),
        server,
        upstreams,
        routes,
    };
    refuse_loops(&config, &root);
    config
}

/// A gateway that forwards to itself would go round for ever.
fn refuse_loops(config: &Config, root: &Table<'_>) {
    let own = |server: &UpstreamServer| match server {
        UpstreamServer::Tcp { host, port, .. } => config.server.listen.iter().any(|listen| {
            let Listen::Tcp(address) = listen else { return false };
            let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
            let same = host.parse() == Ok(address.ip());
            let reaches = same || (loopback && (address.ip().is_loopback() || address.ip().is_unspecified()));
            address.port() != 0 && address.port() == *port && reaches
        }),
        UpstreamServer::Unix(path) => config.server.listen.contains(&Listen::Unix(path.clone())),
        UpstreamServer::Whoami => false,
    };
    for upstream in &config.upstreams {
        if upstream.servers.iter().any(own) {
            root.reading.fault(
                0..0,
                format!("upstream \"{}\" is this gateway's own address", upstream.name),
                "name the app's address; the gateway must not forward to itself",
            );
        }
    }
}

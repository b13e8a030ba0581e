//! The house rules of the source tree. Each rule is one function over one file; each is shown to
//! fail on a sample that breaks it, and then run over everything under `src/`. The order of the
//! rooms is read from the `mod` lines of `src/lib.rs`. What people read (pages, documentation, log messages, command texts) is
//! checked for phrases that must not come back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

#[path = "tidy/files_of_a_room.rs"]
mod files_of_a_room;

/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 60;
/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 400;

/// Packages that are used in one place alone: name in code, paths under `src/` where it may stand.
const HOMES: &[(&str, &[&str])] = &[
    ("annotate_snippets", &["config/"]),
    ("allocator_api2", &["account/password/hasher.rs"]),
    ("argon2", &["account/password/hasher.rs"]),
    ("askama", &["pages/", "whoami/"]),
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/"]),
    ("clap_mangen", &["cli/"]),
    ("cookie", &["web/cookie.rs"]),
    ("aes", &["account/backend_token/jwe.rs"]),
    ("bcrypt", &["account/password/imported_hash.rs"]),
    ("cbc", &["account/backend_token/jwe.rs"]),
    ("csv", &["command/"]),
    ("h2", &["proxy/", "upstream/", "wire/"]),
    // servers beside the proxy, and requests of the gateway's own: no request for an app passes them
    ("http_body_util", &["client/", "server/admin.rs", "whoami/"]),
    ("hyper", &["client/", "server/admin.rs", "whoami/"]),
    ("hyper_util", &["client/", "server/admin.rs", "whoami/"]),
    ("jsonwebtoken", &["account/backend_token/", "account/jws/", "account/provider/"]),
    ("listenfd", &["server/listen.rs"]),
    ("md5", &["account/password/imported_hash.rs"]),
    ("mimalloc", &["main.rs"]),
    ("notify", &["server/"]),
    ("pingora_core", &["proxy/", "server/", "upstream/", "wire/"]),
    ("pingora_http", &["policy/", "proxy/", "wire/"]),
    ("rpassword", &["command/"]),
    ("rusqlite", &["store/"]),
    (
        "rustls",
        &[
            "client/",
            "config/authority.rs",
            "config/certificate.rs",
            "server/tls.rs",
            "store/postgres/tls.rs",
            "upstream/tls.rs",
            "wire/server_verifier.rs",
        ],
    ),
    ("rustls_native_certs", &["wire/server_verifier.rs"]),
    ("scrypt", &["account/password/imported_hash.rs"]),
    ("sha_crypt", &["account/password/imported_hash.rs"]),
    ("sd_notify", &["server/supervisor.rs"]),
    ("socket2", &["server/listen.rs", "wire/stream.rs"]),
    ("strsim", &["config/"]),
    ("tokio_postgres", &["store/postgres/"]),
    ("tokio_postgres_rustls", &["store/postgres/"]),
    (
        "tokio_rustls",
        &["client/connect.rs", "proxy/tls_handshake.rs", "server/tls.rs", "upstream/tls.rs", "wire/stream.rs"],
    ),
    ("tokio_tungstenite", &["whoami/"]),
    ("toml", &["config/"]),
    ("tracing_subscriber", &["logging.rs", "server/", "command/"]),
    ("x509_parser", &["config/authority.rs", "config/certificate.rs"]),
    ("yaml_rust2", &["command/"]),
];

/// Phrases that must not come back in texts for people, in lower case. There is a standard term or a plain word for each:
/// shown, active, matches, forwarded, reloaded, checked, anyone, no one, at startup.
const OBSOLETE: &[&str] = &[
    "told",
    "tells",
    "nobody",
    "nobody's",
    "whoever",
    "somebody",
    "everybody",
    "anybody",
    "stands",
    "stood",
    "let in",
    "lets in",
    "goes on",
    "at stake",
    "farewell",
    "dear",
    "taken over",
    "takes over",
    "judge",
    "judges",
    "judged",
    "speaks for",
    "gone round",
    "as it came",
    "as they came",
    "brings up",
    "brought up",
    "becomes of",
    "passes for",
    "passed over",
    "is over",
    "are over",
    "sent on",
    "leads on",
    "who asks",
    "looked at",
    "looked through",
    "hears of",
    "chores",
    "no longer good",
    "way past",
    "for want of",
    "mended",
    "anew",
    "of one's own",
    "not well; others go first",
];

/// Where a person is spoken to directly.
const MAY_PRINT: &[&str] = &["main.rs", "cli/", "command/", "server/", "server.rs"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ident,
    Punct,
    Literal,
    Open,
    Close,
}

/// One token of a file, groups taken apart.
#[derive(Debug)]
struct Token {
    kind: Kind,
    text: String,
    line: usize,
}

/// One file under `src/`, its tests left out.
#[derive(Debug)]
struct Source {
    /// Relative to `src/`.
    path: String,
    text: String,
    tokens: Vec<Token>,
    test_lines: usize,
    /// Files that hold tests alone: `#[cfg(test)] mod tests;`.
    test_modules: Vec<String>,
}

impl Source {
    fn parse(path: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut source =
            Self { path: path.to_owned(), text: text.to_owned(), tokens: vec![], test_lines: 0, test_modules: vec![] };
        source.flatten(stream);
        source
    }

    fn flatten(&mut self, stream: TokenStream) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            if is_cfg_test(&trees[at..]) {
                at = self.skip_item(&trees, at);
                continue;
            }
            self.push(trees[at].clone());
            at += 1;
        }
    }

    /// Leaves out the item under a `#[cfg(test)]`: up to its braces or its semicolon.
    fn skip_item(&mut self, trees: &[TokenTree], start: usize) -> usize {
        let ends = |tree: &TokenTree| match tree {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';',
            _ => false,
        };
        let length = trees[start..].iter().position(ends).map_or(trees.len() - start, |at| at + 1);
        let item = &trees[start..start + length];
        let (first, last) = (item[0].span().start().line, item[length - 1].span().end().line);
        self.test_lines += last - first + 1;
        let words: Vec<String> = item.iter().map(ToString::to_string).collect();
        if let [.., before, name, end] = words.as_slice()
            && before == "mod"
            && end == ";"
        {
            self.test_modules.push(name.clone());
        }
        start + length
    }

    fn push(&mut self, tree: TokenTree) {
        let line = tree.span().start().line;
        let (kind, text) = match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::None => ("", ""),
                };
                self.tokens.push(Token { kind: Kind::Open, text: open.into(), line });
                self.flatten(group.stream());
                let line = group.span_close().end().line;
                self.tokens.push(Token { kind: Kind::Close, text: close.into(), line });
                return;
            }
            TokenTree::Ident(ident) => (Kind::Ident, ident.to_string()),
            TokenTree::Literal(literal) => (Kind::Literal, literal.to_string()),
            TokenTree::Punct(punct) => {
                // `::` becomes one token
                let second = punct.as_char() == ':'
                    && self.tokens.last().is_some_and(|last| last.kind == Kind::Punct && last.text == ":+");
                if second {
                    self.tokens.pop();
                    (Kind::Punct, "::".to_owned())
                } else if punct.as_char() == ':' && punct.spacing() == Spacing::Joint {
                    (Kind::Punct, ":+".to_owned())
                } else {
                    (Kind::Punct, punct.as_char().to_string())
                }
            }
        };
        self.tokens.push(Token { kind, text, line });
    }

    /// The room this file belongs to; `None` for lib.rs and main.rs.
    fn room(&self) -> Option<&str> {
        let first = self.path.split('/').next().unwrap_or_default();
        let room = first.strip_suffix(".rs").unwrap_or(first);
        (room != "lib" && room != "main").then_some(room)
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| if place.ends_with('/') { self.path.starts_with(place) } else { self.path == *place })
    }

    /// Places where these tokens stand one after the other.
    fn sequences<'s>(&'s self, words: &'s [&str]) -> impl Iterator<Item = usize> + 's {
        let fits = move |window: &[Token]| window.iter().zip(words).all(|(token, word)| token.text == *word);
        self.tokens.windows(words.len()).enumerate().filter(move |(_, window)| fits(window)).map(|(at, _)| at)
    }

    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    fn finding(&self, at: usize, what: &str) -> String {
        format!("{}:{}: {what}", self.path, self.tokens[at].line)
    }

    /// The token that closes what opens at `at`.
    fn closing(&self, at: usize) -> usize {
        let mut depth = 0_usize;
        for (place, token) in self.tokens.iter().enumerate().skip(at) {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close if depth == 1 => return place,
                Kind::Close => depth -= 1,
                _ => {}
            }
        }
        self.tokens.len() - 1
    }
}

fn is_cfg_test(trees: &[TokenTree]) -> bool {
    matches!(trees, [TokenTree::Punct(hash), TokenTree::Group(group), ..]
        if hash.as_char() == '#' && matches!(group.stream().to_string().replace(' ', "").as_str(), "cfg(test)" | "cfg(any(test,fuzzing))"))
}

/// The rooms from the top down, as the `mod` lines of lib.rs name them.
fn rooms(lib: &Source) -> Vec<String> {
    lib.sequences(&["mod"]).map(|at| lib.word(at + 1).to_owned()).collect()
}

/// The first names of all paths that start at `crate::`, with their place; `crate::{a, b}` too.
fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in source.sequences(&["crate", "::"]) {
        let next = at + 2;
        if source.kind(next) == Some(Kind::Ident) {
            found.push((next, source.word(next).to_owned()));
        }
        if source.kind(next) == Some(Kind::Open) {
            found.extend(first_names(source, next));
        }
    }
    found
}

/// The first names within the braces of a `use`.
fn first_names(source: &Source, open: usize) -> Vec<(usize, String)> {
    let mut depth = 0_usize;
    let mut found = Vec::new();
    for at in open..=source.closing(open) {
        match source.tokens[at].kind {
            Kind::Open => depth += 1,
            Kind::Close => depth -= 1,
            Kind::Ident if depth == 1 && matches!(source.word(at - 1), "{" | ",") => {
                found.push((at, source.word(at).to_owned()));
            }
            _ => {}
        }
    }
    found
}

/// A room uses only rooms below it, and names them from `crate`.
fn upward_imports(source: &Source, rooms: &[String]) -> Vec<String> {
    let Some(room) = source.room() else { return vec![] };
    let place = |name: &str| rooms.iter().position(|own| own == name);
    let Some(own) = place(room) else {
        return vec![format!("{}: no `mod {room};` in lib.rs", source.path)];
    };
    let mut findings = Vec::new();
    for (at, name) in crate_paths(source) {
        match place(&name) {
            Some(other) if other < own => {
                findings.push(source.finding(at, &format!("{room} uses {name}, which is above it")));
            }
            _ => {}
        }
    }
    for at in source.sequences(&["super", "::"]) {
        if at > 0 && source.word(at - 1) == "::" {
            continue;
        }
        let climbs = (0..source.tokens.len()).take_while(|step| source.word(at + 2 * step) == "super").count();
        if climbs >= depth_of(source, at) {
            findings.push(source.finding(at, "`super` leaves the room"));
        }
    }
    findings
}

/// How many `super` lead from this token to the crate's root.
fn depth_of(source: &Source, at: usize) -> usize {
    let names = source.path.trim_end_matches(".rs").split('/');
    let files = names.filter(|name| *name != "mod").count();
    let inline = source.sequences(&["mod"]).filter(|&start| {
        source.kind(start + 2) == Some(Kind::Open) && (start + 2..source.closing(start + 2)).contains(&at)
    });
    files + inline.count()
}

/// Some packages have one home.
fn strayed_packages(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (package, homes) in HOMES {
        if source.is_in(homes) || has_own(source, package) {
            continue;
        }
        for at in source.sequences(&[package]) {
            let before = if at == 0 { "" } else { source.word(at - 1) };
            let starts_path = source.kind(at) == Some(Kind::Ident)
                && (source.word(at + 1) == "::" || before == "use" || before == "crate")
                && before != "::";
            let absolute = before == "::" && (at < 2 || source.kind(at - 2) != Some(Kind::Ident));
            if starts_path || absolute {
                findings.push(source.finding(at, &format!("{package} is used outside {}", homes.join(", "))));
            }
        }
    }
    findings
}

/// Whether the file imports or declares a module of its own by this name.
fn has_own(source: &Source, name: &str) -> bool {
    source.sequences(&[name]).any(|at| at > 0 && (source.word(at - 1) == "mod" || within_path(source, at)))
}

fn within_path(source: &Source, at: usize) -> bool {
    at > 1 && source.word(at - 1) == "::" && source.kind(at - 2) == Some(Kind::Ident)
}

/// A function fits on a screen.
fn long_functions(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for at in source.sequences(&["fn"]).filter(|&at| source.kind(at + 1) == Some(Kind::Ident)) {
        let Some(body) = body_of(source, at) else { continue };
        let lines = source.tokens[source.closing(body)].line - source.tokens[at].line + 1;
        if lines > FUNCTION_LINES_MAX {
            findings.push(source.finding(at, &format!("fn {} has {lines} lines", source.word(at + 1))));
        }
    }
    findings
}

/// Where the body of the function at `at` opens; `None` for a declaration.
fn body_of(source: &Source, at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (place, token) in source.tokens.iter().enumerate().skip(at) {
        match (token.kind, token.text.as_str()) {
            (Kind::Open, "{") if depth == 0 => return Some(place),
            (Kind::Punct, ";") | (Kind::Close, _) if depth == 0 => return None,
            (Kind::Open, _) => depth += 1,
            (Kind::Close, _) => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A file can be read in one go.
fn long_file(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count() - source.test_lines;
    if lines > FILE_LINES_MAX { vec![format!("{}: {lines} lines without its tests", source.path)] } else { vec![] }
}

/// Every file says what it is for.
fn missing_doc(source: &Source) -> Vec<String> {
    let first = source.text.lines().next().unwrap_or_default();
    if first.starts_with("//! ") { vec![] } else { vec![format!("{}:1: no module doc", source.path)] }
}

/// The gate and what it stands on write to the log alone.
fn printing(source: &Source) -> Vec<String> {
    if source.is_in(MAY_PRINT) {
        return vec![];
    }
    macros(source, &["println", "eprintln", "print", "eprint"])
}

/// Nothing unfinished stays.
fn unfinished(source: &Source) -> Vec<String> {
    macros(source, &["todo", "dbg", "unimplemented"])
}

fn macros(source: &Source, names: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for name in names {
        findings.extend(source.sequences(&[name, "!"]).map(|at| source.finding(at, &format!("{name}!"))));
    }
    findings
}

/// SQL stands in the store alone.
fn strayed_sql(source: &Source) -> Vec<String> {
    if source.is_in(&["store/", "store.rs"]) {
        return vec![];
    }
    let is_sql = |text: &str| {
        let text = text.trim_start_matches(['r', '#', '"', 'b', ' ', '\n']);
        let both = |start: &str, then: &str| text.starts_with(start) && text.contains(then);
        both("SELECT ", " FROM ")
            || both("UPDATE ", " SET ")
            || ["INSERT INTO ", "INSERT OR ", "DELETE FROM ", "CREATE TABLE ", "CREATE INDEX ", "PRAGMA "]
                .iter()
                .any(|start| text.starts_with(start))
    };
    let is_doc = |at: usize| at > 1 && source.word(at - 1) == "=" && source.word(at - 2) == "doc";
    let literals = source
        .tokens
        .iter()
        .enumerate()
        .filter(|(at, token)| token.kind == Kind::Literal && !is_doc(*at) && is_sql(&token.text));
    literals.map(|(at, _)| source.finding(at, "SQL outside the store")).collect()
}

/// Time is read through the clock; timers of the network may read the monotonic one.
fn strayed_time(source: &Source) -> Vec<String> {
    if source.path == "clock.rs" {
        return vec![];
    }
    let mut readers: Vec<[&str; 3]> = vec![
        ["SystemTime", "::", "now"],
        ["OffsetDateTime", "::", "now_utc"],
        ["Uuid", "::", "now_v7"],
        ["rustix", "::", "time"],
    ];
    if !source.is_in(&["proxy/", "server/", "upstream/", "wire/"]) {
        readers.push(["Instant", "::", "now"]);
    }
    let mut findings = Vec::new();
    for reader in &readers {
        findings.extend(source.sequences(reader).map(|at| source.finding(at, "reads time past the clock")));
    }
    findings
}

/// A thread that everything hangs on does not end alone. The log's own is what such an end is told by, and the look
/// through a large database is waited for.
fn strayed_threads(source: &Source) -> Vec<String> {
    if source.is_in(&["critical.rs", "logging.rs", "store/migrate.rs"]) {
        return vec![];
    }
    let starts = ["Builder", "spawn"].iter().flat_map(|way| {
        let words = ["thread", "::", way];
        source.sequences(&words).map(|at| source.finding(at, "a thread whose end nobody sees")).collect::<Vec<_>>()
    });
    starts.collect()
}

/// A fault in one request never ends another.
fn unwraps(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for name in ["unwrap", "expect"] {
        let words = [".", name, "("];
        let calls = source.sequences(&words);
        findings.extend(calls.map(|at| source.finding(at, &format!(".{name}() outside tests"))));
    }
    findings
}

/// Obsolete phrases in a text, as whole words, also across line breaks; `{name}` of a format string is none. `first` is
/// the number of its first line.
fn obsolete_phrases(path: &str, first: usize, text: &str) -> Vec<String> {
    let flat = text.replace('\n', " ").to_ascii_lowercase();
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut findings = Vec::new();
    for phrase in OBSOLETE {
        for (at, _) in flat.match_indices(phrase) {
            let bytes = flat.as_bytes();
            let inside = (at > 0 && (bytes[at - 1] == b'{' || is_word(bytes.get(at - 1))))
                || is_word(bytes.get(at + phrase.len()));
            if !inside {
                let line = first + text[..at].matches('\n').count();
                findings.push(format!("{path}:{line}: \"{phrase}\" is no longer used"));
            }
        }
    }
    findings
}

/// Obsolete phrases in log messages, replies, errors and the help of commands.
fn obsolete_literals(source: &Source) -> Vec<String> {
    let is_help = source.path.starts_with("cli/") && source.text.contains("Subcommand");
    let is_doc = |at: usize| at > 1 && source.word(at - 1) == "=" && source.word(at - 2) == "doc";
    let literals = source.tokens.iter().enumerate();
    let read = literals.filter(|(at, token)| token.kind == Kind::Literal && (is_help || !is_doc(*at)));
    read.flat_map(|(_, token)| obsolete_phrases(&source.path, token.line, &token.text)).collect()
}

/// The files that people read: the documentation, the shipped configuration and the pages.
fn prose() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = ["README.md", "SECURITY.md", "CHANGELOG.md", "gateway.toml"].map(|name| root.join(name)).to_vec();
    for (folder, kinds) in [
        ("docs", &["md"][..]),
        ("benches", &["md"]),
        ("login-ui", &["html", "js"]),
        ("systemd", &["service", "socket"]),
    ] {
        let files = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|kind| kinds.iter().any(|own| kind == *own))));
    }
    let name = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// Names say what a thing is.
fn empty_names(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let foreign = foreign_traits(source);
    for at in source.sequences(&["fn"]).filter(|&at| source.word(at + 1).starts_with("get_")) {
        if foreign.iter().any(|body| body.contains(&at)) {
            continue;
        }
        findings.push(source.finding(at, &format!("fn {}: say what it is, without get_", source.word(at + 1))));
    }
    for part in source.path.trim_end_matches(".rs").split('/') {
        if ["util", "utils", "common", "manager", "helper", "helpers", "misc"].contains(&part) {
            findings.push(format!("{}: a module named {part} holds anything", source.path));
        }
    }
    findings
}

/// The bodies of `impl Trait for Type`: their names were given elsewhere.
fn foreign_traits(source: &Source) -> Vec<std::ops::Range<usize>> {
    let impls = source.sequences(&["impl"]).filter_map(|at| {
        let body = body_of(source, at)?;
        let names_trait = (at..body).any(|place| source.word(place) == "for" && source.word(place + 1) != "<");
        names_trait.then(|| body..source.closing(body))
    });
    impls.collect()
}

/// All files under `src/`, without those that hold tests alone.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    let tests: Vec<String> = found
        .iter()
        .flat_map(|source: &Source| {
            let folder = source.path.trim_end_matches(".rs").trim_end_matches("mod").trim_end_matches('/');
            source.test_modules.iter().map(move |name| format!("{folder}/{name}"))
        })
        .collect();
    // `tests.rs`, or the folder `tests/`
    let is_test = |path: &str| {
        tests
            .iter()
            .any(|test| path.strip_prefix(test.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    found.retain(|source| !is_test(&source.path));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 10, "no sources found");
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(Source::parse(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Runs a rule over the tree.
fn tree_keeps(rule: impl Fn(&Source) -> Vec<String>) {
    let findings: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

/// Runs a rule over one sample file.
fn sample(path: &str, text: &str, rule: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    rule(&Source::parse(path, text))
}

fn order() -> Vec<String> {
    ["cli", "proxy", "pages", "web", "clock"].map(str::to_owned).to_vec()
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let lib = Source::parse("lib.rs", "//! x\npub mod cli;\npub mod proxy;\nmod pages;\nmod web; mod clock;");
    assert_eq!(rooms(&lib), order());
    let up = |source: &Source| upward_imports(source, &order());
    assert_eq!(
        sample("web/a.rs", "use crate::{clock, pages::{x}};\nfn f() { m!(crate::proxy::g()) }", up),
        ["web/a.rs:2: web uses proxy, which is above it", "web/a.rs:1: web uses pages, which is above it"]
            .into_iter()
            .rev()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    );
    assert_eq!(sample("web/a.rs", "use super::super::clock;", up), ["web/a.rs:1: `super` leaves the room"]);
    assert_eq!(sample("clock.rs", "use super::web;", up), ["clock.rs:1: `super` leaves the room"]);
    assert_eq!(
        sample("web/mod.rs", "mod x { use super::super::clock; }", up),
        ["web/mod.rs:1: `super` leaves the room"]
    );
    assert_eq!(sample("new.rs", "", up), ["new.rs: no `mod new;` in lib.rs"]);
    for fine in [
        "use crate::clock;\n// crate::proxy\nconst X: &str = \"crate::proxy\";",
        "use crate::web::pages;\nuse super::b;\nmod inside { use super::super::b; }",
        "#[cfg(test)]\nmod tests { use crate::proxy; }",
    ] {
        assert_eq!(sample("web/a.rs", fine, up), Vec::<String>::new(), "{fine}");
    }
    let sources = sources();
    let lib = sources.iter().find(|source| source.path == "lib.rs").unwrap();
    let rooms = rooms(lib);
    tree_keeps(|source| upward_imports(source, &rooms));
}

#[test]
fn packages_stay_at_home() {
    let strays = |text| sample("pages/a.rs", text, strayed_packages);
    assert_eq!(strays("use rusqlite::Connection;"), ["pages/a.rs:1: rusqlite is used outside store/"]);
    assert_eq!(strays("fn f() { let x = ::toml::from_str(\"\"); }").len(), 1);
    assert_eq!(strays("fn f() { cookie::Cookie::build(1) }").len(), 1);
    assert_eq!(strays("use crate::web::cookie;\nfn f() { cookie::find(1) }"), Vec::<String>::new());
    assert_eq!(sample("store/a.rs", "use rusqlite::Connection;", strayed_packages), Vec::<String>::new());
    tree_keeps(strayed_packages);
}

#[test]
fn functions_have_60_lines_at_most() {
    let function =
        |lines: usize| format!("impl X {{\n  fn f<T>(x: [u8; 2]) -> u8\n  {{{}}}\n}}", "\n//".repeat(lines - 3) + "\n");
    assert_eq!(sample("a.rs", &function(61), long_functions), ["a.rs:2: fn f has 61 lines"]);
    assert_eq!(sample("a.rs", &function(60), long_functions), Vec::<String>::new());
    let declared = format!("trait X {{ fn f(); {} fn g() {{}} }}", "\n".repeat(99));
    assert_eq!(sample("a.rs", &declared, long_functions), Vec::<String>::new());
    tree_keeps(long_functions);
}

#[test]
fn files_have_400_lines_without_tests_at_most() {
    let file = |lines: usize, tests: usize| {
        format!("{}#[cfg(test)]\nmod tests {{{}}}\n", "//\n".repeat(lines), "\n".repeat(tests - 2))
    };
    assert_eq!(sample("a.rs", &file(401, 50), long_file), ["a.rs: 401 lines without its tests"]);
    assert_eq!(sample("a.rs", &file(400, 50), long_file), Vec::<String>::new());
    tree_keeps(long_file);
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_eq!(sample("a.rs", "// x\n", missing_doc), ["a.rs:1: no module doc"]);
    assert_eq!(sample("a.rs", "//! x\n", missing_doc), Vec::<String>::new());
    tree_keeps(missing_doc);
}

#[test]
fn the_rooms_print_nothing() {
    let text = "fn f() { println!(\"a\");\n eprint!(\"b\") }";
    assert_eq!(sample("pages/a.rs", text, printing), ["pages/a.rs:1: println!", "pages/a.rs:2: eprint!"]);
    assert_eq!(sample("command/a.rs", text, printing), Vec::<String>::new());
    tree_keeps(printing);
}

#[test]
fn nothing_is_left_unfinished() {
    assert_eq!(sample("a.rs", "fn f() { todo!() }", unfinished), ["a.rs:1: todo!"]);
    assert_eq!(sample("a.rs", "fn f() { dbg!(1) }", unfinished), ["a.rs:1: dbg!"]);
    assert_eq!(sample("a.rs", "fn todo() { let todo = !1; }", unfinished), Vec::<String>::new());
    tree_keeps(unfinished);
}

#[test]
fn sql_is_in_the_store() {
    let text = "const X: &str = \"SELECT id FROM user\";\nconst Y: &str = r#\"\n  DELETE FROM user\"#;";
    assert_eq!(sample("account/a.rs", text, strayed_sql).len(), 2);
    assert_eq!(sample("store/a.rs", text, strayed_sql), Vec::<String>::new());
    assert_eq!(
        sample("account/a.rs", "/// SELECT a FROM b\nconst X: &str = \"SELECT\";", strayed_sql),
        Vec::<String>::new()
    );
    tree_keeps(strayed_sql);
}

#[test]
fn time_is_read_through_the_clock() {
    let text = "fn f() { std::time::SystemTime::now(); Instant::now(); }";
    assert_eq!(sample("account/a.rs", text, strayed_time).len(), 2);
    assert_eq!(sample("server/a.rs", "use rustix::time::clock_gettime;", strayed_time).len(), 1);
    assert_eq!(sample("proxy/a.rs", text, strayed_time).len(), 1);
    assert_eq!(sample("clock.rs", text, strayed_time), Vec::<String>::new());
    tree_keeps(strayed_time);
}

#[test]
fn no_thread_ends_unseen() {
    let text = "fn f() { std::thread::spawn(g); thread::Builder::new(); std::thread::current(); tokio::spawn(h) }";
    assert_eq!(sample("store/a.rs", text, strayed_threads).len(), 2);
    assert_eq!(sample("critical.rs", text, strayed_threads), Vec::<String>::new());
    tree_keeps(strayed_threads);
}

#[test]
fn nothing_panics_on_purpose() {
    assert_eq!(sample("a.rs", "fn f() { a\n.unwrap() }", unwraps), ["a.rs:2: .unwrap() outside tests"]);
    assert_eq!(
        sample("a.rs", "fn f() { a.unwrap_or(1); }\n#[cfg(test)] mod t { fn f() { a.unwrap() } }", unwraps),
        Vec::<String>::new()
    );
    tree_keeps(unwraps);
}

#[test]
fn names_say_what_a_thing_is() {
    assert_eq!(sample("a.rs", "fn get_x() {}", empty_names), ["a.rs:1: fn get_x: say what it is, without get_"]);
    assert_eq!(sample("web/util.rs", "", empty_names), ["web/util.rs: a module named util holds anything"]);
    let fine = "fn x() { y.get_all() }\nimpl<T: for<'a> X<'a>> Theirs for Ours<T> { fn get_x() {} }";
    assert_eq!(sample("web/a.rs", fine, empty_names), Vec::<String>::new());
    assert_eq!(sample("web/a.rs", "impl<T: for<'a> X<'a>> Ours<T> { fn get_x() {} }", empty_names).len(), 1);
    tree_keeps(empty_names);
}

#[test]
fn obsolete_phrases_do_not_come_back_in_what_people_read() {
    let found = |text: &str| obsolete_phrases("a.md", 7, text);
    assert_eq!(found("x\nNobody is let"), ["a.md:8: \"nobody\" is no longer used"]);
    assert_eq!(found("it is taken\nover while"), ["a.md:7: \"taken over\" is no longer used"]);
    assert_eq!(found("`tests::told_to_nobody` retold, understands, nobody_else, {told}"), Vec::<String>::new());
    let log = "/// told\nfn f() { warn!(\"a server\n that nobody knows\"); }\n// told\n#[cfg(test)] mod t { const X: &str = \"told\"; }";
    assert_eq!(sample("a.rs", log, obsolete_literals), ["a.rs:3: \"nobody\" is no longer used"]);
    let help = "#[derive(Subcommand)]\nenum Verb {\n  /// Tells it\n  Tell,\n}";
    assert_eq!(sample("cli/a.rs", help, obsolete_literals), ["cli/a.rs:3: \"tells\" is no longer used"]);
    assert_eq!(sample("account/a.rs", help, obsolete_literals), Vec::<String>::new());
    tree_keeps(obsolete_literals);
    let files = prose();
    assert!(files.len() > 20, "{}", files.len());
    let findings: Vec<String> = files.iter().flat_map(|(path, text)| obsolete_phrases(path, 1, text)).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

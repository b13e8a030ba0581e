//! What the files of one room need of each other: imports that lead round in no circle, and a type's methods in the file
//! that defines the type. Names are followed through the re-exports of `mod.rs`, which are no need of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Kind, Source, body_of, depth_of, sources};

/// Where a module is, from the crate's root: `["account", "session", "registry"]`.
type Path = Vec<String>;

/// One path in a file, written out from the crate's root, with the name that a `use` gives it.
struct Named {
    at: usize,
    path: Path,
    name: String,
}

/// One file as a module of its room.
struct Module<'s> {
    source: &'s Source,
    path: Path,
    /// Each `use`: its path and the name that it brings into the file.
    imports: Vec<Named>,
}

/// The files of one room.
struct Room<'s>(BTreeMap<Path, Module<'s>>);

impl<'s> Room<'s> {
    fn new(name: &str, sources: &'s [Source]) -> Self {
        let own = sources.iter().filter(|source| source.room() == Some(name));
        Self(own.map(|source| (module_path(source), Module::new(source))).collect())
    }

    /// The path from the crate's root that begins like this in a file; `None`: it leads out of the room.
    fn absolute(&self, module: &Module<'_>, at: usize, path: &[String]) -> Option<Path> {
        let first = path.first()?.as_str();
        let inline = depth_of(module.source, at) - module.path.len();
        let (mut base, mut rest) = (module.path.clone(), path);
        match first {
            "crate" => (base, rest) = (vec![], &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                let climbs = path.iter().take_while(|word| *word == "super").count();
                base.truncate((base.len() + inline).saturating_sub(climbs));
                rest = &path[climbs..];
            }
            _ if self.0.contains_key(&[&base[..], &path[..1]].concat()) => {}
            _ => {
                let import = module.imports.iter().find(|import| import.name == first)?;
                // the name of a `use` is not read by itself
                let path = self.absolute_import(module, import)?;
                return Some([&path[..], &rest[1..]].concat());
            }
        }
        let whole = [&base[..], rest].concat();
        self.0.contains_key(whole.get(..1)?).then_some(whole)
    }

    fn absolute_import(&self, module: &Module<'_>, import: &Named) -> Option<Path> {
        let first = import.path.first()?;
        let by_itself = matches!(first.as_str(), "crate" | "self" | "super")
            || self.0.contains_key(&[&module.path[..], &import.path[..1]].concat());
        if by_itself { self.absolute(module, import.at, &import.path) } else { None }
    }

    /// The file that defines what a path from the root names; `None`: the path names a folder, or nothing here.
    fn defines(&self, path: &[String]) -> Option<&str> {
        let mut module = self.0.get(path.get(..1)?)?;
        for (place, name) in path.iter().enumerate().skip(1) {
            if let Some(child) = self.0.get(&path[..=place]) {
                module = child;
                continue;
            }
            let import = module.imports.iter().find(|import| import.name == *name);
            return match import.and_then(|import| self.absolute_import(module, import)) {
                Some(real) => self.defines(&[&real[..], &path[place + 1..]].concat()),
                // brought in from another room, or defined here
                None => import.is_none().then_some(&module.source.path),
            };
        }
        (!is_folder(module.source)).then_some(&module.source.path)
    }

    /// Which files each file needs.
    fn needs(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut needs = BTreeMap::new();
        for module in self.0.values() {
            let own = module.source.path.as_str();
            let imports = module.imports.iter().filter(|import| !is_facade(module, import));
            let imported = imports.filter_map(|import| self.absolute_import(module, import));
            let written = inline_paths(module.source);
            let written = written.iter().filter_map(|(at, path)| self.absolute(module, *at, path));
            let files = imported.chain(written).filter_map(|path| self.defines(&path)).filter(|file| *file != own);
            needs.insert(own, files.collect());
        }
        needs
    }
}

impl<'s> Module<'s> {
    fn new(source: &'s Source) -> Self {
        let mut imports = Vec::new();
        for at in uses(source) {
            use_tree(source, at + 1, &[], &mut imports);
        }
        Self { source, path: module_path(source), imports }
    }
}

fn module_path(source: &Source) -> Path {
    let names = source.path.trim_end_matches(".rs").split('/');
    names.filter(|name| *name != "mod").map(str::to_owned).collect()
}

fn is_folder(source: &Source) -> bool {
    source.path.ends_with("/mod.rs")
}

/// A re-export of what stands in the folder: the file shows it and does not need it.
fn is_facade(module: &Module<'_>, import: &Named) -> bool {
    is_folder(module.source) && {
        let start = (0..import.at).rev().find(|&at| module.source.word(at) == "use").unwrap_or(0);
        start > 0 && matches!(module.source.word(start - 1), "pub" | ")")
    }
}

/// Where `use` begins an import.
fn uses(source: &Source) -> Vec<usize> {
    source
        .sequences(&["use"])
        .filter(|&at| source.kind(at) == Some(Kind::Ident) && source.word(at + 1) != "<")
        .collect()
}

/// Reads one branch of a `use`; gives where it ends.
fn use_tree(source: &Source, mut at: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    let (start, mut path) = (at, before.to_vec());
    loop {
        match source.word(at) {
            "{" => {
                let close = source.closing(at);
                at += 1;
                while at < close {
                    at = use_tree(source, at, &path, found);
                    at += usize::from(source.word(at) == ",");
                }
                return close + 1;
            }
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
        match source.word(at) {
            "::" => at += 1,
            "as" => {
                found.push(Named { at: start, path, name: source.word(at + 1).to_owned() });
                return at + 2;
            }
            _ => {
                let name = path.last().cloned().unwrap_or_default();
                found.push(Named { at: start, path, name });
                return at;
            }
        }
    }
}

/// Paths in the code outside of `use`: at least two names.
fn inline_paths(source: &Source) -> Vec<(usize, Path)> {
    let end = |at: usize| (at..source.tokens.len()).find(|&end| source.word(end) == ";").unwrap_or(at);
    let imports: Vec<_> = uses(source).into_iter().map(|at| at..end(at)).collect();
    let starts = source.sequences(&["::"]).filter_map(|at| at.checked_sub(1)).filter(|&at| {
        source.kind(at) == Some(Kind::Ident)
            && (at == 0 || source.word(at - 1) != "::")
            && !imports.iter().any(|import| import.contains(&at))
    });
    let read = |start: usize| {
        let mut path = vec![source.word(start).to_owned()];
        let mut at = start + 1;
        while source.word(at) == "::" && source.kind(at + 1) == Some(Kind::Ident) {
            path.push(source.word(at + 1).to_owned());
            at += 2;
        }
        (start, path)
    };
    starts.map(read).filter(|(_, path)| path.len() > 1).collect()
}

/// Files of a room that import each other in a circle, each circle once, the shortest way round.
fn import_circles(name: &str, sources: &[Source]) -> Vec<String> {
    let room = Room::new(name, sources);
    let needs = room.needs();
    let mut findings = Vec::new();
    let mut reported = BTreeSet::new();
    for file in needs.keys().copied() {
        if let Some(circle) = shortest_circle(&needs, file).filter(|_| !reported.contains(file)) {
            reported.extend(circle.iter().copied());
            findings.push(format!("import circle: {}", circle.join(" -> ")));
        }
    }
    findings
}

/// The shortest way from a file back to itself.
fn shortest_circle<'n>(needs: &BTreeMap<&'n str, BTreeSet<&'n str>>, start: &'n str) -> Option<Vec<&'n str>> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in needs.get(way.last()?)? {
            let longer = [&way[..], &[*next]].concat();
            if *next == start {
                return Some(longer);
            }
            if seen.insert(*next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// A glob hides which file an import needs.
fn globs(source: &Source) -> Vec<String> {
    let imports = Module::new(source).imports;
    let globs = imports.iter().filter(|import| import.name == "*");
    globs.map(|import| source.finding(import.at, "a glob import hides what is imported")).collect()
}

/// `impl` blocks apart from their type: inherent ones stand in the type's file, those of a trait in that of the type or
/// of the trait.
fn impls_apart(source: &Source) -> Vec<String> {
    let defined: BTreeSet<&str> = ["struct", "enum", "union", "trait", "type"]
        .iter()
        .flat_map(|keyword| source.sequences(std::slice::from_ref(keyword)).collect::<Vec<_>>())
        .map(|at| source.word(at + 1))
        .collect();
    let mut findings = Vec::new();
    for at in source.sequences(&["impl"]).filter(|&at| is_item(source, at)) {
        let Some(body) = body_of(source, at) else { continue };
        let header: Vec<usize> = (at + 1..body).filter(|&at| source.kind(at) == Some(Kind::Ident)).collect();
        let is_of_trait = header.iter().any(|&at| source.word(at) == "for" && source.word(at + 1) != "<");
        let apart = if is_of_trait {
            !header.iter().any(|&at| defined.contains(source.word(at)))
        } else {
            !defined.contains(implemented(source, at))
        };
        if apart {
            let kind = if is_of_trait { "neither its trait nor its type" } else { "not its type" };
            findings.push(source.finding(at, &format!("an impl of {}, and {kind}", implemented(source, at))));
        }
    }
    findings
}

/// Whether `impl` begins a block here, and is no part of a type.
fn is_item(source: &Source, at: usize) -> bool {
    at == 0 || matches!(source.word(at - 1), "}" | "{" | ";" | "]" | "unsafe")
}

/// The name of the type after an `impl` without a trait, or of the trait.
fn implemented(source: &Source, at: usize) -> &str {
    let mut depth = 0_usize;
    let mut name = "";
    for at in at + 1.. {
        match source.word(at) {
            "<" => depth += 1,
            ">" if !matches!(source.word(at - 1), "-" | "=") => depth -= 1,
            "{" | "for" | "where" | "" => break,
            word if depth == 0 && source.kind(at) == Some(Kind::Ident) => name = word,
            _ => {}
        }
    }
    name
}

fn findings(room: &str, sources: &[Source]) -> Vec<String> {
    let own = sources.iter().filter(|source| source.room() == Some(room));
    let apart = own.flat_map(|source| [globs(source), impls_apart(source)].concat());
    import_circles(room, sources).into_iter().chain(apart).collect()
}

/// Sample files, with a folder's `mod.rs` where none is among them.
fn room(files: &[(&str, &str)]) -> Vec<Source> {
    let root = ("account/mod.rs", "//! x");
    let root = if files.iter().any(|(path, _)| *path == root.0) { None } else { Some(&root) };
    files.iter().chain(root).map(|(path, text)| Source::parse(path, text)).collect()
}

#[test]
fn no_imports_of_a_room_lead_round_in_a_circle() {
    let circles = |files: &[(&str, &str)]| import_circles("account", &room(files));
    // straight, and through a folder's re-export
    assert_eq!(
        circles(&[("account/a.rs", "use super::b::X;"), ("account/b.rs", "use super::a::{self, Y};")]),
        ["import circle: account/a.rs -> account/b.rs -> account/a.rs"]
    );
    let facade = "mod a; mod b; pub use b::X; pub use a::Y;";
    assert_eq!(
        circles(&[
            ("account/mod.rs", facade),
            ("account/a.rs", "use super::{X};"),
            ("account/b.rs", "fn f() -> crate::account::Y {}"),
        ]),
        ["import circle: account/a.rs -> account/b.rs -> account/a.rs"]
    );
    // by a module's name, three files, one in a folder
    assert_eq!(
        circles(&[
            ("account/a.rs", "use super::s;\nfn f() { s::c::g() }"),
            ("account/s/mod.rs", "pub mod c;"),
            ("account/s/c.rs", "use super::super::d::Z as Y;"),
            ("account/d.rs", "mod inside { fn f() { super::super::a::f() } }"),
        ]),
        ["import circle: account/a.rs -> account/s/c.rs -> account/d.rs -> account/a.rs"]
    );
    // a file that defines what its children use, and uses them
    assert_eq!(
        circles(&[("account/mod.rs", "mod a; use a::X; struct Y;"), ("account/a.rs", "use super::Y;")]),
        ["import circle: account/a.rs -> account/mod.rs -> account/a.rs"]
    );
    for fine in [
        &[
            ("account/mod.rs", "mod a; mod b; pub use a::X;"),
            ("account/a.rs", "use super::b::Y;"),
            ("account/b.rs", ""),
        ][..],
        &[
            ("account/a.rs", "use super::b::X;"),
            ("account/b.rs", "#[cfg(test)]\nmod tests { use super::super::a::Y; }"),
        ],
        &[
            ("account/a.rs", "use super::b::X; use crate::web::a;"),
            ("account/b.rs", "use crate::web::a::b; // super::a::f()"),
        ],
        &[("web/a.rs", "use super::b::X;"), ("web/b.rs", "use super::a::X;")],
    ] {
        assert_eq!(circles(fine), Vec::<String>::new(), "{fine:?}");
    }
}

#[test]
fn a_types_methods_stand_in_the_file_that_defines_it() {
    let apart = |text| impls_apart(&Source::parse("account/a.rs", text));
    assert_eq!(apart("use super::b::X;\nimpl X { }"), ["account/a.rs:2: an impl of X, and not its type"]);
    assert_eq!(apart("impl<T: Fn() -> Y> super::b::X<T> where T: Y {}").len(), 1);
    assert_eq!(
        apart("impl std::fmt::Display for X {}"),
        ["account/a.rs:1: an impl of Display, and neither its trait nor its type"]
    );
    for fine in [
        "struct X;\nimpl X {}\nimpl Iterator for X {}",
        "enum X<T> { A(T) }\nimpl<'a, T: Fn() -> Y> X<T> {}",
        "trait Y {}\nimpl Y for super::b::X {}",
        "struct Y;\nimpl From<super::b::X> for Y {}\nimpl From<Y> for super::b::X {}",
        "fn f(x: impl Fn(X)) -> impl Iterator<Item = X> { g(x) }",
        "#[cfg(test)]\nmod tests { impl X {} }",
    ] {
        assert_eq!(apart(fine), Vec::<String>::new(), "{fine}");
    }
    assert_eq!(
        globs(&Source::parse("account/a.rs", "use super::b::*;")),
        ["account/a.rs:1: a glob import hides what is imported"]
    );
}

#[test]
fn no_room_has_a_circle_of_imports_or_an_impl_apart_from_its_type() {
    let sources = sources();
    let rooms: BTreeSet<&str> = sources.iter().filter_map(Source::room).collect();
    let all: Vec<String> = rooms.iter().flat_map(|room| findings(room, &sources)).collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
}

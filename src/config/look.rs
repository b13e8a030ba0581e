//! Appearance of the pages: a logo, and files that override the built-in ones. Loaded with the configuration.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;

use super::fault::nearest;
use super::file::{Item, Table};
use super::{Look, Secrets};

/// Largest file, in bytes: pages must load fast.
const BYTES_MAX: u64 = 256 << 10;

/// Built-in files that a folder can override. Pages load them by URL; templates are compiled in.
const OWN: [&str; 3] = ["style.css", "script.js", "icon.svg"];
const TEMPLATES: [&str; 10] = [
    "base.html",
    "login.html",
    "register.html",
    "message.html",
    "logout.html",
    "account.html",
    "cookies.html",
    "pending.html",
    "providers.html",
    "refresh.html",
];

/// `pages.logo` and `pages.templates`.
pub(super) fn look(table: &Table<'_>) -> Look {
    let logo = table.text("logo", "logo.svg").filter(|text| !text.value.is_empty());
    let folder = table.text("templates", "templates").filter(|text| !text.value.is_empty());
    // account commands render no pages
    if table.reading.secrets == Secrets::Left {
        return Look::default();
    }
    Look { logo: logo.and_then(|text| picture(&text)), own: folder.map_or_else(Vec::new, |text| own(&text)) }
}

fn picture(text: &Item<'_, String>) -> Option<(&'static str, Bytes)> {
    const REMEDY: &str = "use the path of an SVG, PNG or WebP file of at most 256 KiB";
    let path = text.reading.base.join(&text.value);
    match read(&path) {
        Ok(content) => match ending(&content) {
            Some(ending) => return Some((ending, content)),
            None => text.fault(format!("{} is not an SVG, PNG or WebP file", path.display()), REMEDY),
        },
        Err(what) => text.fault(what, REMEDY),
    }
    None
}

/// File extension by content, since a file name can be wrong.
fn ending(content: &[u8]) -> Option<&'static str> {
    if content.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some("png");
    }
    if content.starts_with(b"RIFF") && content.get(8..12) == Some(b"WEBP") {
        return Some("webp");
    }
    let text = std::str::from_utf8(content).ok()?;
    (text.trim_start_matches('\u{feff}').trim_start().starts_with('<') && text.contains("<svg")).then_some("svg")
}

fn own(folder: &Item<'_, String>) -> Vec<(&'static str, Bytes)> {
    let path = folder.reading.base.join(&folder.value);
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) => {
            folder.fault(format!("cannot read {}: {error}", path.display()), "use the path of a directory");
            return Vec::new();
        }
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    let mut own = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        let Some(known) = OWN.into_iter().find(|known| known == name) else {
            let (what, remedy) = foreign(name);
            folder.fault(what, remedy);
            continue;
        };
        match read(&path.join(name)) {
            Ok(content) if std::str::from_utf8(&content).is_ok() => own.push((known, content)),
            Ok(_) => folder.fault(format!("{name} is not UTF-8"), "save the file as UTF-8"),
            Err(what) => folder.fault(what, "use a readable file of at most 256 KiB"),
        }
    }
    own
}

/// Warning for a file that overrides nothing.
fn foreign(name: &str) -> (String, String) {
    let all = OWN.join(", ");
    if TEMPLATES.contains(&name) {
        let what = format!("{name} is compiled into the binary and cannot be overridden");
        return (what, format!("remove it; files that can be overridden: {all}"));
    }
    let remedy = nearest(name, OWN).map_or_else(
        || format!("remove it; files that can be overridden: {all}"),
        |near| format!("did you mean {near}?"),
    );
    (format!("{name} is not one of the page files"), remedy)
}

fn read(path: &Path) -> Result<Bytes, String> {
    let shown = path.display();
    let cannot = |error| format!("cannot read {shown}: {error}");
    // opening a pipe would block
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut content)).map_err(cannot)?;
    if read as u64 > BYTES_MAX {
        return Err(format!("{shown} is larger than 256 KiB"));
    }
    Ok(Bytes::from(content))
}

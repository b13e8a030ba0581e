//! All interpretations ("readings") of a path by backends: verbatim, decoded once and twice, with `\` as `/`, without
//! parameters, with slashes merged and dots resolved, cut at a decoded `?` or `#`, or as a network-path reference to
//! another host, in any order. A path in normal form has one reading and costs nothing. The path is forwarded
//! unchanged: readings are only for rules (CVE-2025-47952, CVE-2026-33494, CVE-2021-29492).
//!
//! Readings are decoded, and [`INNER_SLASH`] marks a `/` that a backend treats as part of a segment.

use std::borrow::Cow;

use super::path::{NormalPath, escape, folds_to_delimiter, is_canonical, is_overlong};

/// Maximum readings per path; paths with more are rejected.
pub const READINGS_MAX: usize = 32;

/// Limit on the bytes of all forms generated while readings are computed: enough for any path of 4 KiB with three
/// ambiguities, and little work for one crafted to be expensive.
const FORM_BYTES_MAX: usize = 256 << 10;

/// A byte that occurs in no path and no pattern.
const INNER_SLASH: u8 = 0;

/// The path of a request with all its readings, owned.
#[derive(Debug, Clone)]
pub struct OwnedPath {
    raw: Box<str>,
    /// `None`: the path is in normal form.
    several: Option<Box<[Vec<u8>]>>,
}

impl OwnedPath {
    /// Parses the path of a request target (without its query).
    pub fn parse(raw: &[u8]) -> Result<Self, Unreadable> {
        let RequestPath { raw, reads } = RequestPath::parse(raw)?;
        let several = match reads {
            Reads::One(_) => None,
            Reads::Several(list) => Some(list.into_owned().into()),
        };
        Ok(Self { raw: raw.into(), several })
    }

    /// Borrowed view.
    pub fn as_path(&self) -> RequestPath<'_> {
        let reads = match &self.several {
            None => Reads::One(NormalPath::again(&self.raw)),
            Some(list) => Reads::Several(Cow::Borrowed(list)),
        };
        RequestPath { raw: &self.raw, reads }
    }
}

/// The path of a request with all its readings.
#[derive(Debug, Clone)]
pub struct RequestPath<'a> {
    raw: &'a str,
    reads: Reads<'a>,
}

#[derive(Debug, Clone)]
enum Reads<'a> {
    One(NormalPath<'a>),
    /// The verbatim path first.
    Several(Cow<'a, [Vec<u8>]>),
}

/// Why a path is rejected regardless of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It does not start with `/`, contains a raw control character, space or `#`, an incomplete escape, an escaped
    /// control character, bytes that are not UTF-8, or a character that folds to a delimiter.
    Malformed,
    /// It has more than [`READINGS_MAX`] readings, or is too long for the number it has.
    TooMany,
}

impl<'a> RequestPath<'a> {
    /// Parses the path of a request target (without its query).
    pub fn parse(raw: &'a [u8]) -> Result<Self, Unreadable> {
        if let Ok(path) = NormalPath::parse(raw) {
            return Ok(Self { raw: path.as_str(), reads: Reads::One(path) });
        }
        let raw = std::str::from_utf8(raw).map_err(|_| Unreadable::Malformed)?;
        check(raw)?;
        Ok(Self { raw, reads: Reads::Several(Cow::Owned(readings(raw.as_bytes())?)) })
    }

    /// The bytes, as received and as forwarded.
    pub fn as_str(&self) -> &'a str {
        self.raw
    }

    /// Whether the path is in normal form.
    pub fn is_plain(&self) -> bool {
        matches!(self.reads, Reads::One(_))
    }

    /// The reading of the verbatim path.
    pub fn first(&self) -> Cow<'_, [u8]> {
        match &self.reads {
            Reads::One(path) => path.decoded(),
            Reads::Several(list) => list.first().map_or(self.raw.as_bytes(), Vec::as_slice).into(),
        }
    }

    /// All other readings.
    pub fn others(&self) -> &[Vec<u8>] {
        match &self.reads {
            Reads::One(_) => &[],
            Reads::Several(list) => list.get(1..).unwrap_or_default(),
        }
    }

    /// Possible queries for a backend that decodes the path, once or twice, before it looks for `?`.
    pub fn queries(&self) -> impl Iterator<Item = Vec<u8>> + use<> {
        let decoded = (!self.is_plain()).then(|| {
            let once: Vec<u8> = percent_encoding::percent_decode_str(self.raw).collect();
            [percent_encoding::percent_decode(&once).collect(), once]
        });
        decoded.into_iter().flatten().filter_map(|path: Vec<u8>| {
            let at = memchr::memchr(b'?', &path)?;
            Some(cut(&path[at + 1..], b'#').to_vec())
        })
    }

    /// Readings of a backend that gets the path without this prefix, each with the prefix prepended. Empty if they
    /// equal the readings of the path itself, or if the path does not have the prefix.
    pub fn below(&self, prefix: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
        let rest = match self.raw.strip_prefix(prefix) {
            Some(rest) if !self.is_plain() && !prefix.is_empty() => rest,
            _ => return Ok(Vec::new()),
        };
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let front: Vec<u8> = percent_encoding::percent_decode_str(prefix).collect();
        let read = readings(format!("{slash}{rest}").as_bytes())?;
        let mut below: Vec<_> = read.into_iter().map(|path| [front.as_slice(), &path].concat()).collect();
        below.retain(|path| path[..] != *self.first() && !self.others().contains(path));
        if 1 + self.others().len() + below.len() > READINGS_MAX { Err(Unreadable::TooMany) } else { Ok(below) }
    }
}

/// Printable form: unprintable characters are escaped, and a slash inside a segment is `%2F`.
pub fn shown(reading: &[u8]) -> String {
    let mut text = String::new();
    for chunk in reading.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\0' => text.push_str("%2F"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    text
}

/// Checks what no path may contain in any reading. Of escaped control characters only NUL is dangerous to all; but no
/// app uses others in its URLs, and parsers that trim line ends, or match with `$`, would mistake such a path for
/// another.
fn check(raw: &str) -> Result<(), Unreadable> {
    let bytes = raw.as_bytes();
    let once: Vec<u8> = percent_encoding::percent_decode(bytes).collect();
    let twice: Vec<u8> = percent_encoding::percent_decode(&once).collect();
    let text = |c: char| !c.is_control() && !folds_to_delimiter(c);
    let ends = twice.iter().any(|b| b"\0\r\n".contains(b));
    let overlong = (0..twice.len()).any(|at| is_overlong(twice[at], twice.get(at + 1).copied()));
    let fine = raw.starts_with('/')
        && !bytes.iter().any(|b| *b <= b' ' || b"#?".contains(b))
        && memchr::memchr_iter(b'%', bytes).all(|at| is_escape(bytes, at))
        && std::str::from_utf8(&once).is_ok_and(|once| once.chars().all(text))
        && !ends
        && !overlong
        && !twice.utf8_chunks().any(|chunk| chunk.valid().chars().any(folds_to_delimiter));
    if fine { Ok(()) } else { Err(Unreadable::Malformed) }
}

/// An intermediate form of a path as a backend transforms it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Form {
    path: Vec<u8>,
    /// Number of decodings so far.
    decoded: u8,
}

/// A transformation that a backend may apply to a path; `None`: no change.
type Step = fn(&Form) -> Option<Vec<u8>>;

const STEPS: [Step; 12] = [
    join_segments,
    take_backslashes,
    cut_parameters,
    cut_last_parameters,
    merge_slashes,
    resolve_dots,
    resolve_dots_and_end,
    resolve_escaped_dots,
    resolve_escaped_dots_and_end,
    cut_query,
    cut_fragment,
    leave_host,
];

/// All distinct readings: the closure of the steps, in any order.
fn readings(raw: &[u8]) -> Result<Vec<Vec<u8>>, Unreadable> {
    let mut forms = vec![Form { path: raw.to_vec(), decoded: 0 }];
    let mut found: Vec<Vec<u8>> = Vec::new();
    let (mut at, mut bytes) = (0, 0);
    while let Some(form) = forms.get(at) {
        let reading = form.reading();
        let mut next: Vec<Form> = form.decode().into_iter().collect();
        let changed = STEPS.iter().filter_map(|step| step(form));
        next.extend(changed.map(|path| Form { path, decoded: form.decoded }));
        if !found.contains(&reading) {
            found.push(reading);
        }
        for form in next {
            bytes += form.path.len();
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        if found.len() > READINGS_MAX || bytes > FORM_BYTES_MAX {
            return Err(Unreadable::TooMany);
        }
        at += 1;
    }
    Ok(found)
}

impl Form {
    /// The form that rules match. Before any decoding, canonical escapes are decoded, as in a path in normal form;
    /// others stay literal.
    fn reading(&self) -> Vec<u8> {
        if self.decoded > 0 { self.path.clone() } else { decode(&self.path, is_canonical) }
    }

    fn decode(&self) -> Option<Self> {
        let mut signs = memchr::memchr_iter(b'%', &self.path);
        let escaped = self.decoded < 2 && signs.any(|at| is_escape(&self.path, at));
        escaped.then(|| Self { path: decode(&self.path, is_escape), decoded: self.decoded + 1 })
    }
}

fn is_escape(path: &[u8], at: usize) -> bool {
    path[at] == b'%' && escape(path, at).is_some()
}

/// Decodes the escapes that `reads` selects; an encoded slash stays inside its segment.
fn decode(path: &[u8], reads: fn(&[u8], usize) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(before) = memchr::memchr(b'%', &path[at..]) {
        out.extend_from_slice(&path[at..at + before]);
        at += before;
        let read = escape(path, at).filter(|_| reads(path, at));
        out.push(if read == Some(b'/') { INNER_SLASH } else { read.unwrap_or(b'%') });
        at += if read.is_some() { 3 } else { 1 };
    }
    out.extend_from_slice(&path[at..]);
    out
}

fn replace(form: &Form, old: u8, new: u8) -> Option<Vec<u8>> {
    let replaced = || form.path.iter().map(|&b| if b == old { new } else { b }).collect();
    form.path.contains(&old).then(replaced)
}

/// Decodes as a whole and then splits segments.
fn join_segments(form: &Form) -> Option<Vec<u8>> {
    replace(form, INNER_SLASH, b'/')
}

fn take_backslashes(form: &Form) -> Option<Vec<u8>> {
    replace(form, b'\\', b'/')
}

/// Java servers: `;` and everything after it is removed from each segment.
fn cut_parameters(form: &Form) -> Option<Vec<u8>> {
    let segments = form.path.split(|&b| b == b'/').map(|segment| cut(segment, b';'));
    form.path.contains(&b';').then(|| segments.collect::<Vec<_>>().join(&b'/'))
}

/// RFC 2396 as implemented by Python's `urlparse`: only the last segment has parameters.
fn cut_last_parameters(form: &Form) -> Option<Vec<u8>> {
    let last = form.path.iter().rposition(|&b| b == b'/')?;
    let semicolon = last + memchr::memchr(b';', &form.path[last..])?;
    Some(form.path[..semicolon].to_vec())
}

fn merge_slashes(form: &Form) -> Option<Vec<u8>> {
    let mut path = form.path.clone();
    path.dedup_by(|next, before| *next == b'/' && *before == b'/');
    (path.len() < form.path.len()).then_some(path)
}

/// RFC 3986, 5.2.4: a trailing dot segment leaves a slash.
fn resolve_dots(form: &Form) -> Option<Vec<u8>> {
    resolve(&form.path, dots, b"/")
}

/// Go's `path.Clean`: no trailing slash remains.
fn resolve_dots_and_end(form: &Form) -> Option<Vec<u8>> {
    resolve(&form.path, dots, b"")
}

/// WHATWG URL: escaped dots count as dots.
fn resolve_escaped_dots(form: &Form) -> Option<Vec<u8>> {
    resolve(&form.path, escaped_dots, b"/")
}

fn resolve_escaped_dots_and_end(form: &Form) -> Option<Vec<u8>> {
    resolve(&form.path, escaped_dots, b"")
}

/// `dots` returns the number of dots of a dot segment; `end` replaces a trailing one.
fn resolve(path: &[u8], dots: fn(&[u8]) -> Option<usize>, end: &[u8]) -> Option<Vec<u8>> {
    let segments: Vec<&[u8]> = path.split(|&b| b == b'/').skip(1).collect();
    if !segments.iter().any(|segment| dots(segment).is_some()) {
        return None;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in &segments {
        match dots(segment) {
            Some(1) => {}
            Some(_) => drop(kept.pop()),
            None => kept.push(segment),
        }
    }
    let mut out: Vec<u8> = kept.iter().flat_map(|segment| [b"/", *segment]).flatten().copied().collect();
    if segments.last().is_some_and(|last| dots(last).is_some()) {
        out.extend_from_slice(end);
    }
    Some(if out.is_empty() { b"/".to_vec() } else { out })
}

fn dots(segment: &[u8]) -> Option<usize> {
    matches!(segment, b"." | b"..").then_some(segment.len())
}

fn escaped_dots(segment: &[u8]) -> Option<usize> {
    let dot = |rest: &[u8]| match rest {
        [b'.', ..] => Some(1),
        [b'%', b'2', b'e' | b'E', ..] => Some(3),
        _ => None,
    };
    let first = dot(segment)?;
    match &segment[first..] {
        [] => Some(1),
        rest => dot(rest).filter(|second| *second == rest.len()).map(|_| 2),
    }
}

/// An escaped `?` is mistaken for the start of the query.
fn cut_query(form: &Form) -> Option<Vec<u8>> {
    form.path.contains(&b'?').then(|| cut(&form.path, b'?').to_vec())
}

fn cut_fragment(form: &Form) -> Option<Vec<u8>> {
    form.path.contains(&b'#').then(|| cut(&form.path, b'#').to_vec())
}

/// RFC 3986, 4.2: two leading slashes start a host, and the path follows it (`new URL(path, base)`).
fn leave_host(form: &Form) -> Option<Vec<u8>> {
    let rest = form.path.strip_prefix(b"//")?;
    let host = &rest[rest.iter().position(|&b| b != b'/')?..];
    Some(host.iter().position(|&b| b == b'/').map_or_else(|| b"/".to_vec(), |at| host[at..].to_vec()))
}

fn cut(bytes: &[u8], at: u8) -> &[u8] {
    &bytes[..memchr::memchr(at, bytes).unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The readings of a path in printable form, sorted.
    fn read(path: &str) -> Vec<String> {
        let path = RequestPath::parse(path.as_bytes()).unwrap();
        let first = path.first();
        let mut all: Vec<String> =
            std::iter::once(&*first).chain(path.others().iter().map(Vec::as_slice)).map(shown).collect();
        all.sort();
        all
    }

    #[test]
    fn a_path_in_normal_form_has_one_reading() {
        for (path, reading) in [
            ("/", "/"),
            ("/a/", "/a/"),
            ("/caf%C3%A9", "/café"),
            ("/%40x/a%20b", "/@x/a b"),
            ("/100%25", "/100%"),
            ("/%25zz", "/%zz"),
            ("/.~lock.x", "/.~lock.x"),
        ] {
            assert!(RequestPath::parse(path.as_bytes()).unwrap().is_plain(), "{path}");
            assert_eq!(read(path), [reading], "{path}");
        }
    }

    /// URLs that npm, RabbitMQ, LibreOffice, JupyterLab, CalDAV clients, S3 clients, Jenkins and TiddlyWiki send.
    #[test]
    fn odd_paths_of_apps_have_few_readings() {
        for (path, readings) in [
            ("/@scope%2Fthing", &["/@scope%2Fthing", "/@scope/thing"][..]),
            // the lower-case form too, for backends that compare verbatim
            ("/@scope%2fthing", &["/@scope%2Fthing", "/@scope%2fthing", "/@scope/thing"]),
            ("/api/queues/%2F/q1", &["/api/queues/%2F/q1", "/api/queues///q1", "/api/queues/q1"]),
            ("/.~lock.x.odt%23", &["/.~lock.x.odt", "/.~lock.x.odt#"]),
            ("/a;v=1/b;c", &["/a/b", "/a;v=1/b", "/a;v=1/b;c"]),
            ("/50%25%20%231%3Bv2%3F.txt", &["/50% ", "/50% #1", "/50% #1;v2", "/50% #1;v2?.txt"]),
            ("/ev%252F1.ics", &["/ev%2F1.ics", "/ev%2F1.ics", "/ev/1.ics"]),
            ("/job/feature%252Fx/", &["/job/feature%2Fx/", "/job/feature%2Fx/", "/job/feature/x/"]),
            ("/b/a//c/./d", &["/b/a//c/./d", "/b/a//c/d", "/b/a/c/./d", "/b/a/c/d"]),
            ("/%24%3A%2FStoryList", &["/$:%2FStoryList", "/$:/StoryList"]),
            ("/%7Euser/x", &["/%7Euser/x", "/~user/x"]),
            ("/caf\u{e9}", &["/café"]),
            ("/caf%c3%a9", &["/caf%c3%a9", "/café"]),
        ] {
            assert_eq!(read(path), readings, "{path}");
        }
    }

    /// Each of these is how a named server interprets it.
    #[test]
    fn what_leads_to_another_path_is_among_the_readings() {
        for (path, reading) in [
            ("/public/../app", "/app"),
            ("/public/..", "/"),
            ("/public/x/..", "/public"),
            ("/public/x/..", "/public/"),
            ("/public/%2e%2E/app", "/app"),
            ("/public/.%2e/app", "/app"),
            ("/public%2f..%2fapp", "/app"),
            ("/public%2F..%2Fapp", "/app"),
            ("/public/..%5Capp", "/app"),
            ("/public/..\\app", "/app"),
            ("/public/..;/app", "/app"),
            ("/public/..;x=1/app", "/app"),
            ("/public/..%3Bx/app", "/app"),
            ("/public/.;/app", "/public/app"),
            ("/public;x/app", "/public/app"),
            ("/public/%252e%252e/app", "/app"),
            ("/public/%252e%252e%252fapp", "/app"),
            ("/public/..%255Capp", "/app"),
            ("/%61pp", "/app"),
            ("/%2561pp", "/app"),
            ("//app", "/app"),
            ("//evil.test/app", "/app"),
            ("/\\evil.test/app", "/app"),
            ("/x/..//evil.test/app", "/app"),
            ("/app%3Fx", "/app"),
            ("/app%253Fx", "/app"),
            ("/app%23x", "/app"),
            ("/app/%3Bx", "/app/"),
            ("/app//", "/app/"),
            ("/app/.", "/app"),
            ("/../../app", "/app"),
            ("/a//../app", "/app"),
            ("/a//../app", "/a/app"),
        ] {
            assert!(read(path).iter().any(|own| own == reading), "{path}: {:?}", read(path));
        }
    }

    #[test]
    fn what_no_path_may_hold_is_refused() {
        for path in [
            "",
            "app",
            "*",
            "/%",
            "/%4",
            "/%zz",
            "/%u0041",
            "/a b",
            "/a#b",
            "/a?b",
            "/a\0",
            "/a\x7f",
            "/a\u{85}",
            "/a%00",
            "/a;%0A",
            "/a%0d%0ab",
            "/a%7F",
            "/a%7f",
            "/a%2500",
            "/a%250a",
            "/a%c0%ae",
            "/%C0%AF",
            "/%25c0%25ae",
            "/%e0%80%af",
            "/a%FC",
            "/a%c3",
            "/a;%ff",
            "/\u{ff0e}\u{ff0e}/x",
            "/%ef%bc%8fx",
            "/%EF%BC%8F",
            "/%25EF%25BC%258F",
            "/a\u{2025}/b",
            "/\u{ff3c}",
        ] {
            assert_eq!(RequestPath::parse(path.as_bytes()).err(), Some(Unreadable::Malformed), "{path:?}");
        }
        assert_eq!(RequestPath::parse(b"/caf\xe9").err(), Some(Unreadable::Malformed));
        // only resembles an ambiguity
        for path in ["/50%25ff", "/50%2510.txt", "/\u{ff1f}\u{2026}", "/%25u0041", "/%25c3"] {
            assert!(RequestPath::parse(path.as_bytes()).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_path_with_more_readings_than_are_looked_at_is_refused() {
        let path = "/a;b/c%2Fd/%3Fe/f%23g\\h/%253Bi/..//j;k";
        assert_eq!(RequestPath::parse(path.as_bytes()).err(), Some(Unreadable::TooMany));
        let long = |bytes: usize| format!("/{}", "a%2Fb%5Cc;d/".repeat(bytes / 12));
        assert!(RequestPath::parse(long(4 << 10).as_bytes()).is_ok_and(|path| path.others().len() > 5));
        assert_eq!(RequestPath::parse(long(64 << 10).as_bytes()).err(), Some(Unreadable::TooMany));
    }

    /// A backend that gets the rest interprets only the rest: no slash or dot of it affects the stripped prefix.
    #[test]
    fn below_a_prefix_the_rest_is_read_alone() {
        let below = |path: &str, prefix: &str| {
            let path = RequestPath::parse(path.as_bytes()).unwrap();
            path.below(prefix).unwrap().iter().map(|path| shown(path)).collect::<Vec<_>>()
        };
        assert_eq!(below("/api/x/../../api/secret", "/api"), ["/api/api/secret"]);
        assert_eq!(below("/api//evil.test/x", "/api"), ["/api/x"]);
        assert_eq!(below("/api/a%2Fb", "/api"), [""; 0]);
        assert_eq!(below("/%40x/a/../../b", "/%40x"), ["/@x/b"]);
        assert_eq!(below("/other/..", "/api"), [""; 0]);
        assert_eq!(below("/api/x", "/api"), [""; 0]);
    }
}

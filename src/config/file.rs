//! The file as typed: tables that are read key by key, with positions. Keys that are never read are unknown. Private to
//! this room.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, nearest};
use super::keys;
use super::units::{parse_duration, parse_size};

/// Whether secrets are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Load secrets: for serving, and for `check`.
    Read,
    /// Skip secrets and use placeholders: for account commands, which may run without access to the service's secrets.
    Left,
}

/// Parsing context shared by all tables.
pub(super) struct Reading<'e> {
    pub(super) env: &'e dyn Fn(&str) -> Option<String>,
    pub(super) base: PathBuf,
    pub(super) secrets: Secrets,
    /// Offsets of line ends in the text.
    pub(super) line_ends: Vec<usize>,
    /// Groups that routes name, each with its first position.
    pub(super) groups: RefCell<BTreeMap<String, Range<usize>>>,
    /// Expanded `${NAME}` values and their positions.
    expanded: RefCell<Vec<(Range<usize>, String, String)>>,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<Fault>>,
}

impl<'e> Reading<'e> {
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>, base: PathBuf, secrets: Secrets) -> Self {
        Self {
            env,
            base,
            secrets,
            line_ends: Vec::new(),
            groups: RefCell::default(),
            expanded: RefCell::default(),
            faults: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(super) fn fault(&self, span: Range<usize>, what: impl Into<String>, remedy: impl Into<String>) {
        let (mut what, mut remedy) = (what.into(), remedy.into());
        // an environment value may be secret: the fault shows what was typed
        for (place, name, value) in self.expanded.borrow().iter() {
            if span.start <= place.start && place.end <= span.end {
                for said in [&mut what, &mut remedy] {
                    *said = said.replace(value.as_str(), &format!("${{{name}}}"));
                }
            }
        }
        self.faults.borrow_mut().push(Fault { span, what, remedy });
    }

    /// Whether the text contains an environment value expanded at this position.
    pub(super) fn came_from_environment(&self, span: &Range<usize>, text: &str) -> bool {
        self.expanded.borrow().iter().any(|(place, _, value)| place == span && text.contains(value.as_str()))
    }

    /// Adds a warning.
    pub(super) fn warn(&self, span: Range<usize>, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.borrow_mut().push(Fault { span, what: what.into(), remedy: remedy.into() });
    }

    /// Number of faults so far, so that consequences of a fault are not reported too.
    pub(super) fn fault_count(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Faults and warnings.
    pub(super) fn into_findings(self) -> (Vec<Fault>, Vec<Fault>) {
        (self.faults.into_inner(), self.warnings.into_inner())
    }

    /// Expands `${NAME}` from the environment.
    pub(super) fn expand(&self, text: &str, span: &Range<usize>) -> Option<String> {
        let faults = self.fault_count();
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                self.fault(span.clone(), "`${` is not closed", "write `${NAME}`");
                return None;
            };
            let name = &rest[at + 2..at + end];
            match (self.env)(name) {
                Some(value) => {
                    out.push_str(&value);
                    if !value.is_empty() {
                        self.expanded.borrow_mut().push((span.clone(), name.to_owned(), value));
                    }
                }
                None => self.fault(
                    span.clone(),
                    format!("the environment variable {name} is not set"),
                    format!("set {name} for this process, or write the value directly"),
                ),
            }
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        (self.fault_count() == faults).then_some(out)
    }
}

/// A value and its position.
pub(super) struct Item<'t, T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
    pub(super) reading: &'t Reading<'t>,
}

impl<T> Item<'_, T> {
    /// Reports a fault for this value.
    pub(super) fn fault(&self, what: impl Into<String>, remedy: impl Into<String>) {
        self.reading.fault(self.span.clone(), what, remedy);
    }
}

/// A table, read key by key.
pub(super) struct Table<'t> {
    name: &'t str,
    keys: Option<&'t DeTable<'t>>,
    pub(super) span: Range<usize>,
    known: RefCell<Vec<&'static str>>,
    sealed: Cell<bool>,
    pub(super) reading: &'t Reading<'t>,
}

impl<'t> Table<'t> {
    pub(super) fn root(table: &'t Spanned<DeTable<'t>>, reading: &'t Reading<'t>) -> Self {
        Self::new("the file", Some(table.get_ref()), table.span(), reading)
    }

    fn new(name: &'t str, table: Option<&'t DeTable<'t>>, span: Range<usize>, reading: &'t Reading<'t>) -> Self {
        Self { name, keys: table, span, known: RefCell::default(), sealed: Cell::new(false), reading }
    }

    /// The line where the table begins, 1-based.
    pub(super) fn line(&self) -> usize {
        self.reading.line_ends.partition_point(|&end| end < self.span.start) + 1
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.borrow_mut().push(key);
        self.keys?.get(key)
    }

    pub(super) fn item<T>(&self, value: T, span: Range<usize>) -> Item<'t, T> {
        Item { value, span, reading: self.reading }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, example: &str) {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.reading.fault(
            value.span(),
            format!("`{key}` is {article} {found}, not {wanted}"),
            format!("example: `{key} = {example}`"),
        );
    }

    /// A string, with `${NAME}` expanded.
    pub(super) fn text(&self, key: &'static str, example: &str) -> Option<Item<'t, String>> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "a string", &format!("\"{example}\""));
            return None;
        };
        Some(self.item(self.reading.expand(text, &value.span())?, value.span()))
    }

    /// A list of strings.
    pub(super) fn texts(&self, key: &'static str, example: &str) -> Option<Item<'t, Vec<Item<'t, String>>>> {
        let value = self.value(key)?;
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings", &format!("[\"{example}\"]"));
            return None;
        };
        let mut texts = Vec::new();
        for one in list {
            match one.get_ref().as_str() {
                Some(text) => {
                    texts.extend(self.reading.expand(text, &one.span()).map(|text| self.item(text, one.span())));
                }
                None => self.wrong_type(key, one, "a string", &format!("[\"{example}\"]")),
            }
        }
        Some(self.item(texts, value.span()))
    }

    pub(super) fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(key, value, "true or false", "true");
        }
        boolean
    }

    /// An integer between `min` and `max`.
    pub(super) fn number(&self, key: &'static str, min: u64, max: u64) -> Option<u64> {
        let value = self.value(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "an integer", &min.to_string());
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.reading.fault(
                value.span(),
                format!("`{key}` is out of range"),
                format!("use a number from {min} to {max}"),
            );
        }
        number
    }

    /// A duration such as `"20d"`, at least `min`.
    pub(super) fn duration(&self, key: &'static str, min: Duration) -> Option<Item<'t, Duration>> {
        let text = self.text(key, "15m")?;
        let parsed = parse_duration(&text.value);
        match parsed {
            Some(duration) if duration >= min => Some(self.item(duration, text.span)),
            Some(_) => {
                let least =
                    if min.as_secs() == 0 { format!("{}ms", min.as_millis()) } else { format!("{}s", min.as_secs()) };
                text.fault(format!("`{key}` is too short"), format!("use at least \"{least}\""));
                None
            }
            None => {
                text.fault(
                    format!("invalid duration `{}`", text.value),
                    "use an integer and a unit (ms, s, m, h or d), for example \"15m\"",
                );
                None
            }
        }
    }

    /// A size such as `"64KiB"`, in bytes.
    pub(super) fn size(&self, key: &'static str, min: u64, max: u64) -> Option<u64> {
        let text = self.text(key, "64KiB")?;
        let Some(bytes) = parse_size(&text.value) else {
            text.fault(
                format!("invalid size `{}`", text.value),
                "use an integer and a unit (B, KiB, MiB or GiB), for example \"64KiB\"",
            );
            return None;
        };
        if !(min..=max).contains(&bytes) {
            text.fault(format!("`{key}` is out of range"), format!("use a size from {min} B to {max} B"));
            return None;
        }
        Some(bytes)
    }

    /// One of a fixed set of words.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(key, words[0].0)?;
        let found = words.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if found.is_none() {
            let all = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            let near = nearest(&text.value, words.iter().map(|(word, _)| *word));
            let remedy =
                near.map_or(format!("use one of {all}"), |word| format!("did you mean \"{word}\"? Allowed: {all}"));
            text.fault(format!("`{key}` cannot be \"{}\"", text.value), remedy);
        }
        found
    }

    /// A sub-table; empty if absent.
    pub(super) fn table(&self, key: &'static str, name: &'t str) -> Self {
        let Some(value) = self.value(key) else { return Self::new(name, None, self.span.clone(), self.reading) };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.reading.fault(value.span(), format!("`{key}` is not a table"), keys::how_to_write(key, name));
        }
        Self::new(name, table, value.span(), self.reading)
    }

    /// An array of tables.
    pub(super) fn tables(&self, key: &'static str, name: &'t str) -> Vec<Self> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let tables = value.get_ref().as_array().into_iter().flat_map(|list| list.iter());
        let read: Vec<Self> = tables
            .filter_map(|one| Some(Self::new(name, Some(one.get_ref().as_table()?), one.span(), self.reading)))
            .collect();
        let whole = value.get_ref().as_array().is_some_and(|list| list.len() == read.len());
        if !whole {
            self.reading.fault(
                value.span(),
                format!("`{key}` is not a list of tables"),
                format!("write {name} on a line of its own, with its keys below"),
            );
        }
        read
    }

    /// Position of a key's value; the table's own position if absent.
    pub(super) fn span_of(&self, key: &'static str) -> Range<usize> {
        self.value(key).map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// Whether the key is present, with any type.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Whether the key holds a table.
    pub(super) fn holds_table(&self, key: &'static str) -> bool {
        self.value(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// All keys and strings of a table with user-defined keys.
    pub(super) fn free_texts(&self) -> Vec<(Item<'t, String>, Item<'t, String>)> {
        self.sealed.set(true);
        let mut pairs = Vec::new();
        for (key, value) in self.keys.into_iter().flat_map(|table| table.iter()) {
            match value.get_ref().as_str() {
                Some(text) => {
                    let Some(text) = self.reading.expand(text, &value.span()) else { continue };
                    pairs.push((self.item(key.get_ref().to_string(), key.span()), self.item(text, value.span())));
                }
                None => self.wrong_type(key.get_ref(), value, "a string", "\"value\""),
            }
        }
        pairs
    }
}

/// Keys that were never read are unknown.
impl Drop for Table<'_> {
    fn drop(&mut self) {
        let known = self.known.borrow();
        debug_assert!(
            self.sealed.get() || known.iter().all(|key| keys::has(self.name, key)),
            "{} has keys that its list does not: {known:?}",
            self.name
        );
        let Some(table) = self.keys.filter(|_| !self.sealed.get()) else { return };
        for (key, _) in table {
            let typed = key.get_ref().as_ref();
            if known.contains(&typed) {
                continue;
            }
            let listed = keys::of(self.name).map_or(&[][..], |table| table.list);
            let here = || listed.iter().map(|(key, _)| *key);
            let near = nearest(typed, here());
            let remedy = match (near, keys::elsewhere(self.name, typed)) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(table)) => format!("`{typed}` belongs in {table}"),
                (None, None) => format!("remove it; known keys: {}", here().collect::<Vec<_>>().join(", ")),
            };
            self.reading.fault(key.span(), format!("unknown key `{typed}` in {}", self.name), remedy);
        }
    }
}

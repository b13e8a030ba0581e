//! Configuration errors: position, problem and suggested fix. Parsing collects all of them instead of stopping at the
//! first.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::json;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Byte range in the file.
    pub span: Range<usize>,
    /// The problem, in one line.
    pub what: String,
    /// The suggested fix.
    pub remedy: String,
}

/// All faults of one file, sorted by position; also used for warnings.
#[derive(Debug, Clone)]
pub struct Faults {
    file: String,
    text: String,
    list: Vec<Fault>,
    warns: bool,
}

impl Faults {
    pub(super) fn new(file: &str, text: &str, mut list: Vec<Fault>) -> Self {
        list.sort_by_key(|fault| (fault.span.start, fault.span.end));
        list.dedup();
        Self { file: file.to_owned(), text: text.to_owned(), list, warns: false }
    }

    /// Warnings: harmless by themselves, and the configuration is valid.
    pub(super) fn warnings(file: &str, text: &str, list: Vec<Fault>) -> Self {
        Self { warns: true, ..Self::new(file, text, list) }
    }

    /// Inserts a fault in order of position.
    pub(super) fn add(&mut self, fault: Fault) {
        self.list.push(fault);
        self.list.sort_by_key(|fault| (fault.span.start, fault.span.end));
    }

    /// A fault of the whole file: missing, unreadable or not UTF-8.
    pub(super) fn of_file(file: &str, what: String, remedy: &str) -> Self {
        Self::new(file, "", vec![Fault { span: 0..0, what, remedy: remedy.to_owned() }])
    }

    /// The faults.
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// Line and column of a fault, both 1-based; columns count characters.
    pub fn place(&self, fault: &Fault) -> (usize, usize) {
        place(&self.text, fault.span.start)
    }

    /// Text for terminals: each fault with its position, source line, caret and suggested fix. Empty if there are none.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        if self.list.is_empty() {
            return out;
        }
        let (level, noun) = if self.warns { (Level::WARNING, "warning") } else { (Level::ERROR, "error") };
        for fault in &self.list {
            if self.text.is_empty() {
                let _ = writeln!(out, "error: {}\n  = help: {}", fault.what, fault.remedy);
                continue;
            }
            let source = Snippet::source(self.text.as_str())
                .path(self.file.as_str())
                .annotation(AnnotationKind::Primary.span(visible(&self.text, &fault.span)));
            let group = Group::with_title(level.clone().primary_title(fault.what.as_str()))
                .element(source)
                .element(Level::HELP.message(fault.remedy.as_str()));
            let _ = writeln!(out, "{}\n", renderer.render(&[group]));
        }
        let count = self.list.len();
        let _ = writeln!(out, "{count} {noun}{} in {}", if count == 1 { "" } else { "s" }, self.file);
        out
    }

    /// JSON: `[{"file","line","column","what","remedy"}]`.
    pub fn to_json(&self) -> serde_json::Value {
        let one = |fault: &Fault| {
            let (line, column) = self.place(fault);
            json!({ "file": self.file, "line": line, "column": column, "what": fault.what, "remedy": fault.remedy })
        };
        self.list.iter().map(one).collect()
    }
}

/// Line and column of a byte offset, both 1-based.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

/// Widens an empty span so that it gets a caret, and clamps one that ends past the text.
fn visible(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = span.start.min(text.len());
    let end = span.end.clamp(start, text.len());
    if start < end {
        return start..end;
    }
    let next = text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
    start..next
}

/// The closest known word, if it is close enough to be a typo (at most 2 edits, or a third of the length).
pub(super) fn nearest<'w>(typed: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let typed = typed.to_ascii_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::osa_distance(&typed, word), word))
        .filter(|(edits, word)| (*edits <= 2 && edits * 2 <= word.len().max(typed.len())) || *edits <= word.len() / 3)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}

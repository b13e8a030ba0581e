//! Log output: standard error, human-readable on a terminal, JSON otherwise. Lines are buffered in memory and written
//! by a separate thread, so that requests never wait for the log's reader. What is logged is decided elsewhere; no
//! secret may be passed in. Panics are logged here too.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::Clock;

/// Crate without log output: its messages quote heads and bodies. The gateway logs such errors itself.
const SILENT: &str = "pingora";
/// Longest time that lines are buffered. The buffer is bounded in bytes; lines beyond the limit are dropped and
/// counted.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// Timeout of a flush.
const FLUSH_TIME: Duration = Duration::from_secs(1);
const BUFFER_BYTES_MAX: usize = 8 << 20;

thread_local! {
    /// Line under construction in this thread, before the shared buffer is locked.
    static LINE: RefCell<Vec<u8>> = RefCell::default();
    /// The second of this thread's last timestamp, and its text.
    static SECOND: Cell<(u64, [u8; 24])> = const { Cell::new((u64::MAX, [0; 24])) };
}

/// The first log that was started.
static LOG: OnceLock<Log> = OnceLock::new();
/// Panics so far, in any thread.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Handle to the log on standard error. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

struct Shared {
    buffer: Mutex<Vec<u8>>,
    filled: Condvar,
    dropped: AtomicU64,
    human: bool,
    /// Standard error is the systemd journal, which reads the level from a prefix of each line (sd-daemon(3)).
    journal: bool,
    clock: Clock,
}

impl Log {
    /// Starts the writer thread and receives all `tracing` and `log` events. `RUST_LOG` sets the filter; the default is
    /// `info`. Lines of the proxy library and lines of other crates below `warn` are never shown: they have not been
    /// reviewed for secrets.
    pub fn start(clock: Clock) -> io::Result<Self> {
        let human = io::stderr().is_terminal();
        let journal = is_journal();
        let log = Self(Arc::new(Shared {
            buffer: Mutex::new(Vec::with_capacity(64 << 10)),
            filled: Condvar::new(),
            dropped: AtomicU64::new(0),
            human,
            journal,
            clock,
        }));
        let shared = log.0.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || write_for_ever(&shared))?;
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        // a second start in one process (tests) keeps the first subscriber
        let _ = tracing_subscriber::registry().with(Lines(log.clone()).with_filter(filter)).try_init();
        if LOG.set(log.clone()).is_ok() {
            std::panic::set_hook(Box::new(tell_of_panic));
        }
        Ok(log)
    }

    /// Whether lines are human-readable.
    pub fn is_human(&self) -> bool {
        self.0.human
    }

    /// Lines dropped because the log was not read.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Panics so far; each is logged.
    pub fn panics(&self) -> u64 {
        PANICS.load(Ordering::Relaxed)
    }

    /// Adds one line (without a line end) that `write` produces, at level info.
    pub fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.line_on(Level::INFO, write);
    }

    fn line_on(&self, level: Level, write: impl FnOnce(&mut Vec<u8>)) {
        // taken, not borrowed: a panic during `write` logs a line too
        let mut line = LINE.take();
        line.clear();
        if self.0.journal {
            line.extend_from_slice(match level {
                Level::ERROR => b"<3>",
                Level::WARN => b"<4>",
                Level::INFO => b"<6>",
                Level::DEBUG | Level::TRACE => b"<7>",
            });
        }
        write(&mut line);
        line.push(b'\n');
        let mut buffer = self.0.buffer.lock();
        if buffer.len() > BUFFER_BYTES_MAX {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            buffer.extend_from_slice(&line);
        }
        drop(buffer);
        LINE.set(line);
    }

    /// Writes out buffered lines; gives up after a second if the log is not read.
    pub fn flush(&self) {
        let shared = self.0.clone();
        let (done, ended) = std::sync::mpsc::channel();
        let write = move || {
            write_out(&shared);
            let _ = done.send(());
        };
        if std::thread::Builder::new().name("log".into()).spawn(write).is_ok() {
            let _ = ended.recv_timeout(FLUSH_TIME);
        }
    }
}

/// Whether standard error is the journal, by its device and inode in `JOURNAL_STREAM`. The variable alone is not
/// enough: a child process inherits it even if its standard error goes elsewhere.
fn is_journal() -> bool {
    let Ok(about) = rustix::fs::fstat(io::stderr()) else { return false };
    std::env::var("JOURNAL_STREAM").is_ok_and(|named| named == format!("{}:{}", about.st_dev, about.st_ino))
}

/// Flushes the first log that was started.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

/// Logs a panic with its source location, and with its text if that is a literal: any other text may quote client
/// input.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(place, text, thread = thread.name().unwrap_or_default(), "panic");
    flush();
}

fn write_for_ever(shared: &Shared) {
    loop {
        let mut buffer = shared.buffer.lock();
        let _ = shared.filled.wait_for(&mut buffer, FLUSH_EVERY);
        drop(buffer);
        write_out(shared);
    }
}

fn write_out(shared: &Shared) {
    // the lock on standard error is taken first, so that two flushes keep lines in order
    let mut out = io::stderr().lock();
    let lines = {
        let mut buffer = shared.buffer.lock();
        if buffer.is_empty() {
            return;
        }
        let room = Vec::with_capacity(buffer.len().min(256 << 10));
        std::mem::replace(&mut *buffer, room)
    };
    // an unwritable log must not stop the gateway
    let _ = out.write_all(&lines);
}

/// A timestamp in RFC 3339 format, in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
pub struct Timestamp([u8; 24]);

impl Timestamp {
    /// `millis` since the Unix epoch.
    pub fn new(millis: u64) -> Self {
        let second = millis / 1000;
        let (last, mut text) = SECOND.get();
        if last != second {
            text = whole_second(second);
            SECOND.set((second, text));
        }
        for (at, place) in [(20, 100), (21, 10), (22, 1)] {
            text[at] = b'0' + u8::try_from(millis / place % 10).unwrap_or(0);
        }
        Self(text)
    }

    /// The formatted text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The same as bytes, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn whole_second(second: u64) -> [u8; 24] {
    let second = i64::try_from(second).unwrap_or(i64::MAX);
    let time = time::OffsetDateTime::from_unix_timestamp(second).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (time.date(), time.time());
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.000Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    );
    // the year always has four digits
    text.as_bytes().try_into().unwrap_or([b'0'; 24])
}

/// Characters that change how surrounding text is displayed, or are invisible (Unicode: `Bidi_Control`,
/// `Default_Ignorable_Code_Point`). Excludes joiners and variation selectors, which scripts and emoji need.
pub fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e00ff}')
}

/// Invisible characters that join or vary others.
pub fn is_joiner(c: char) -> bool {
    matches!(c, '\u{180b}'..='\u{180f}' | '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Text for a terminal: control and direction-changing characters are escaped, so that no request can draw on the
/// screen of a person who reads the log.
pub fn printable(text: &str) -> String {
    escaped(text, |c| c.is_control() || is_deceptive(c) || is_joiner(c))
}

/// Like [`printable`], for text that has several lines and contains names of people.
pub fn printable_lines(text: &str) -> String {
    escaped(text, |c| (c.is_control() && c != '\n') || is_deceptive(c))
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

struct Lines(Log);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let shared = &self.0.0;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let target = match meta.target().split("::").next() {
            Some("log") | None => fields.take("log.target").unwrap_or_default(),
            Some(target) => target.to_owned(),
        };
        if !may_speak(&target, *meta.level()) {
            return;
        }
        fields.0.retain(|(name, _)| !name.starts_with("log."));
        let message = fields.take("message").unwrap_or_default();
        let time = Timestamp::new(shared.clock.now_millis());
        let time = time.as_str();
        let level = meta.level().as_str();
        let on = *meta.level();
        if shared.human {
            self.0.line_on(on, |line| human_line(line, time, level, &message, &fields.0));
        } else {
            self.0.line_on(on, |line| json_line(line, time, level, &target, &message, &fields.0));
        }
        shared.filled.notify_one();
    }
}

fn may_speak(target: &str, level: Level) -> bool {
    let package = target.split("::").next().unwrap_or_default();
    matches!(package, "authgate" | "audit") || (level <= Level::WARN && !package.starts_with(SILENT))
}

fn human_line(line: &mut Vec<u8>, time: &str, level: &str, message: &str, fields: &[(&'static str, String)]) {
    let _ = write!(line, "{time} {level:<5} {}", printable(message));
    for (name, value) in fields {
        let _ = write!(line, " {name}={}", printable(value));
    }
}

fn json_line(
    line: &mut Vec<u8>,
    time: &str,
    level: &str,
    target: &str,
    message: &str,
    fields: &[(&'static str, String)],
) {
    let mut object = serde_json::Map::new();
    object.insert("time".into(), time.into());
    object.insert("level".into(), level.to_ascii_lowercase().into());
    object.insert("target".into(), target.into());
    object.insert("message".into(), message.into());
    for (name, value) in fields {
        object.insert((*name).into(), value.as_str().into());
    }
    let _ = serde_json::to_writer(line, &object);
}

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(own, _)| *own == name)?;
        Some(self.0.remove(at).1)
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_564_805_042, "2026-11-25T00:00:05.042Z"),
            (1_795_564_805_999, "2026-11-25T00:00:05.999Z"),
            (1_795_564_806_000, "2026-11-25T00:00:06.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::new(millis).as_str(), text);
        }
        assert_eq!(Timestamp::new(u64::MAX).as_str().len(), 24);
    }

    #[test]
    fn what_other_packages_say_is_shown_from_warnings_up_and_pingora_is_never_quoted() {
        for (target, level, shown) in [
            ("authgate::server", Level::TRACE, true),
            ("audit", Level::INFO, true),
            ("rustls::check", Level::WARN, true),
            ("rustls::check", Level::INFO, false),
            ("pingora_core::apps::http_app", Level::ERROR, false),
            ("pingora_core::connectors", Level::WARN, false),
            ("authgates", Level::INFO, false),
        ] {
            assert_eq!(may_speak(target, level), shown, "{target} {level}");
        }
    }

    #[test]
    fn no_one_draws_on_the_terminal_through_the_log() {
        assert_eq!(printable("/a\u{1b}[31m\r\n\u{202e}x é"), "/a\\u{1b}[31m\\u{d}\\u{a}\\u{202e}x é");
    }
}

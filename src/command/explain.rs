//! `authgate explain`: how a request would be handled, and why. Nothing is sent or created.

use http::{HeaderName, HeaderValue, Method};

use super::people::{configured, say, say_json};
use super::{CommandError, ExplainArgs, Globals};
use crate::account::{Admin, User};
use crate::clock::Clock;
use crate::config::Config;
use crate::policy::explain::report::{Answer, Explanation, Forwarded, ReadingReport, RouteTried, SimulatedRequest};
use crate::policy::explain::simulate::Simulator;

/// Number of routes listed; earlier ones are only counted.
const ROUTES_SHOWN: usize = 20;

/// Prints how the request would be handled.
pub fn run(globals: &Globals, args: &ExplainArgs) -> Result<(), CommandError> {
    let method = Method::from_bytes(args.method.as_bytes())
        .map_err(|_| CommandError::Usage(format!("invalid method `{}` (example: GET)", args.method)))?;
    let headers = args.headers.iter().map(|line| field(line)).collect::<Result<_, _>>()?;
    let config = configured(globals)?;
    let mut notes = Vec::new();
    let mut user = args.user.as_deref().map(|email| account(&config, email)).transpose()?;
    if user.as_ref().is_some_and(|user| user.disabled) {
        notes.push("the account is disabled, so the request is anonymous");
        user = None;
    }
    let asked = SimulatedRequest { method, target: args.url.clone(), headers, user };
    let mut told = Simulator::new(&config).explain(&asked).map_err(CommandError::Usage)?;
    told.notes.extend(notes);
    if args.json { say_json(&serde_json::to_value(&told).unwrap_or_default()) } else { say(&text(&told)) }
}

fn field(line: &str) -> Result<(HeaderName, HeaderValue), CommandError> {
    let read = line.split_once(':').and_then(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.trim_matches([' ', '\t'])).ok()?))
    });
    read.ok_or_else(|| CommandError::Usage(format!("invalid header `{line}` (example: 'Accept: text/html')")))
}

/// The account in its current state.
fn account(config: &Config, email: &str) -> Result<User, CommandError> {
    let row = Admin::open_read_only(config, Clock::system())?.user(email)?;
    Ok(User::new(row.id, row.email, row.name, row.picture, row.groups, row.disabled))
}

fn text(told: &Explanation) -> String {
    let mut lines = vec![format!("{} ({})", told.request, told.kind)];
    lines.push(match &told.user {
        Some(who) if who.groups.is_empty() => format!("signed in: {}", who.email),
        Some(who) => format!("signed in: {}, groups {}", who.email, who.groups.join(", ")),
        None => "signed in: no (anonymous)".to_owned(),
    });
    if !told.routes.is_empty() {
        lines.push(String::new());
    }
    let hidden = told.routes.len().saturating_sub(ROUTES_SHOWN);
    if hidden > 0 {
        lines.push(format!("({hidden} earlier routes do not match)"));
    }
    lines.extend(told.routes[hidden..].iter().map(route));
    if !told.readings.is_empty() {
        lines.extend([String::new(), "possible readings of the path by a backend".to_owned()]);
    }
    lines.extend(told.readings.iter().map(reading));
    lines.extend([String::new(), format!("{}: {}", told.verdict, told.why)]);
    told.reply.iter().for_each(|answer| reply(answer, &mut lines));
    told.upstream.iter().for_each(|to| forwarded(to, &mut lines));
    for note in &told.notes {
        lines.extend([String::new(), format!("note: {note}")]);
    }
    lines.join("\n")
}

fn route(tried: &RouteTried) -> String {
    let how = tried.misses.map_or("matches".to_owned(), |what| format!("{what} does not match"));
    format!("route {} (line {}) {}: {how}", tried.route, tried.line, tried.takes)
}

fn reading(told: &ReadingReport) -> String {
    let route = told.route.map_or("no route".to_owned(), |route| format!("route {route}"));
    format!("  {} ({route}): {}", told.path, told.verdict)
}

fn reply(answer: &Answer, lines: &mut Vec<String>) {
    lines.extend([String::new(), "response to the client".to_owned(), format!("  {}", answer.status)]);
    lines.extend(answer.headers.iter().map(field_line));
    match &answer.body {
        None => lines.push("  (a page)".to_owned()),
        Some(body) => lines.extend(body.lines().map(|line| format!("  {line}"))),
    }
}

fn forwarded(to: &Forwarded, lines: &mut Vec<String>) {
    let servers = to.servers.join(", ");
    lines.extend([String::new(), format!("request to {} ({servers})", to.name), format!("  {}", to.request)]);
    lines.extend(to.headers.iter().map(field_line));
    if !to.removed.is_empty() {
        lines.extend([String::new(), format!("removed: {}", to.removed.join(", "))]);
    }
}

fn field_line((name, value): &(String, String)) -> String {
    format!("  {name}: {value}")
}

//! JSON Schema (draft 7) of the file, for editors: keys and kinds from [`keys`](super::keys), descriptions and defaults
//! from the comments of the shipped gateway.toml.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use super::keys::{self, Keys, Kind};

/// Any string may contain `${NAME}`; only the gateway can validate such a value.
const VARIABLE: &str = r"\$\{[^}]+\}";

/// Builds the schema; `shipped` is the text of the gateway.toml that contains every key.
pub fn schema(shipped: &str) -> Value {
    let said = comments(shipped);
    let mut root = table(&keys::TABLES[0], &said);
    root.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    root.insert("title".to_owned(), json!("authgate's gateway.toml"));
    Value::Object(root)
}

fn table(keys: &Keys, said: &HashMap<(String, String), Said>) -> Map<String, Value> {
    let mut properties = Map::new();
    for (key, kind) in keys.list {
        let mut property = of_kind(*kind, said);
        let top = keys.table.trim_matches(['[', ']']).to_owned();
        if let (Some(object), Some(said)) = (property.as_object_mut(), said.get(&(top, (*key).to_owned()))) {
            if !said.words.is_empty() {
                object.insert("description".to_owned(), json!(said.words));
            }
            object.extend(said.default.clone().map(|default| ("default".to_owned(), default)));
        }
        properties.insert((*key).to_owned(), property);
    }
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("additionalProperties".to_owned(), json!(false));
    object.insert("properties".to_owned(), Value::Object(properties));
    if !keys.needed.is_empty() {
        object.insert("required".to_owned(), json!(keys.needed));
    }
    object
}

fn of_kind(kind: Kind, said: &HashMap<(String, String), Said>) -> Value {
    let named = |name: &str| keys::of(name).map_or(json!(false), |keys| Value::Object(table(keys, said)));
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Number(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Duration => json!({ "type": "string", "pattern": format!("^[0-9]+(ms|s|m|h|d)$|{VARIABLE}") }),
        Kind::Size => json!({ "type": "string", "pattern": format!("^(0|[0-9]+(B|KiB|MiB|GiB))$|{VARIABLE}") }),
        Kind::Words(words) => json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": VARIABLE }] }),
        Kind::Secret => json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "file": { "type": "string", "description": "A file that contains it, optionally with one line end." },
                "env": { "type": "string", "description": "An environment variable." },
                "credential": { "type": "string", "description": "A credential from the service manager (systemd)." }
            },
            "minProperties": 1,
            "maxProperties": 1
        }),
        Kind::Table(name) => named(name),
        Kind::Tables("[[route]]") => json!({ "type": "array", "items": named("[[route]]"), "minItems": 1 }),
        Kind::Tables(name) => json!({ "type": "array", "items": named(name) }),
        Kind::Free => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::OneOf(kinds) => json!({ "anyOf": kinds.iter().map(|kind| of_kind(*kind, said)).collect::<Vec<_>>() }),
    }
}

/// Documentation of a key in the shipped file.
struct Said {
    words: String,
    default: Option<Value>,
}

/// Comments by table and key; consecutive keys share one.
fn comments(shipped: &str) -> HashMap<(String, String), Said> {
    let mut said = HashMap::new();
    let (mut table, mut words, mut was_key) = (String::new(), Vec::<&str>::new(), false);
    for line in shipped.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let header = bare.starts_with('[') && bare.ends_with(']') && !bare.contains(' ');
        let typed = bare
            .split_once(" = ")
            .filter(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b"_0123456789".contains(&b)));
        if header {
            bare.trim_matches(['[', ']']).clone_into(&mut table);
        }
        if header || line.is_empty() {
            words.clear();
        } else if let Some((key, _)) = typed {
            let (before, bullets) =
                words.split_at(words.iter().position(|line| line.starts_with("- ")).unwrap_or(words.len()));
            for (inner, what) in bullets_of(bullets) {
                said.insert((key.to_owned(), inner), Said { words: what, default: None });
            }
            // the shipped file's own upstream and the token examples are not defaults
            let default = line.starts_with('#').then(|| default(bare)).flatten().filter(|_| !EXAMPLES.contains(&key));
            said.insert((table.clone(), key.to_owned()), Said { words: before.join(" "), default });
        } else if let Some(comment) = line.strip_prefix("# ") {
            if was_key {
                words.clear();
            }
            words.push(comment);
        }
        was_key = typed.is_some();
    }
    said
}

/// Keys without a default: the shipped file shows an example.
const EXAMPLES: [&str; 13] = [
    "cors",
    "name",
    "kind",
    "label",
    "client_id",
    "client_secret",
    "servers",
    "token",
    "provider_token",
    "health",
    "request",
    "user",
    "expect",
];

/// `- key: description` items, which may span lines.
fn bullets_of(lines: &[&str]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in lines {
        match (line.strip_prefix("- ").and_then(|line| line.split_once(": ")), found.last_mut()) {
            (Some((key, what)), _) => found.push((key.to_owned(), what.to_owned())),
            (None, Some((_, what))) => *what = format!("{what} {}", line.trim_start()),
            (None, None) => {}
        }
    }
    found
}

fn default(line: &str) -> Option<Value> {
    let read = DeTable::parse(line).ok()?;
    let (_, value) = read.get_ref().iter().next()?;
    to_json(value.get_ref())
}

fn to_json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(number) => json!(number.as_str().parse::<u64>().ok()?),
        DeValue::Boolean(boolean) => json!(boolean),
        DeValue::Array(list) => list.iter().map(|one| to_json(one.get_ref())).collect::<Option<Value>>()?,
        DeValue::Table(table) => {
            let pair = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((key.to_string(), to_json(value.get_ref())?))
            };
            Value::Object(table.iter().map(pair).collect::<Option<Map<_, _>>>()?)
        }
        _ => return None,
    })
}

//! docs/gateway.schema.json: what editors hold a gateway.toml to is what the gateway reads.

use std::path::{Path, PathBuf};

use authgate::config;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&read("docs/gateway.schema.json")).unwrap()
}

/// What a value breaks of a schema, of the words that ours is made of; a word not known here is a failure.
fn broken(schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    for (word, rule) in schema.as_object().unwrap() {
        let number = |value: &Value| value.as_i64().unwrap();
        let object = value.as_object();
        let count = || usize::try_from(rule.as_u64().unwrap()).unwrap();
        let good = match word.as_str() {
            "$schema" | "title" | "description" | "default" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                other => panic!("{other}"),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "pattern" => {
                value.as_str().is_none_or(|text| regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text))
            }
            "minimum" => value.as_i64().is_none_or(|n| n >= number(rule)),
            "maximum" => value.as_i64().is_none_or(|n| n <= number(rule)),
            "minItems" => value.as_array().is_none_or(|list| list.len() >= count()),
            "minProperties" => object.is_none_or(|o| o.len() >= count()),
            "maxProperties" => object.is_none_or(|o| o.len() <= count()),
            "required" => {
                object.is_none_or(|o| rule.as_array().unwrap().iter().all(|key| o.contains_key(key.as_str().unwrap())))
            }
            "anyOf" => rule.as_array().unwrap().iter().any(|one| {
                let mut faults = Vec::new();
                broken(one, value, at, &mut faults);
                faults.is_empty()
            }),
            "items" => {
                for one in value.as_array().into_iter().flatten() {
                    broken(rule, one, &format!("{at}[]"), out);
                }
                true
            }
            "properties" | "additionalProperties" => {
                for (key, inner) in object.into_iter().flatten() {
                    let at = format!("{at}.{key}");
                    match (word.as_str(), schema["properties"].get(key)) {
                        ("properties", Some(rule)) => broken(rule, inner, &at, out),
                        ("additionalProperties", None) if *rule == false => out.push(format!("{at}: unknown")),
                        ("additionalProperties", None) => broken(rule, inner, &at, out),
                        _ => {}
                    }
                }
                true
            }
            other => panic!("{other}"),
        };
        if !good {
            out.push(format!("{at}: {word}"));
        }
    }
}

fn judge(text: &str) -> Vec<String> {
    let value: Value = toml::from_str(text).unwrap();
    let mut faults = Vec::new();
    broken(&schema(), &value, "", &mut faults);
    faults
}

/// `UPDATE_DOCS=1` writes it anew.
#[test]
fn the_schema_in_docs_is_the_one_that_the_code_makes() {
    let made = format!("{:#}\n", config::schema(&read("gateway.toml")));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join("docs/gateway.schema.json"), &made).unwrap();
    }
    assert!(made == read("docs/gateway.schema.json"), "write it anew with UPDATE_DOCS=1");
}

/// All ```toml blocks of the documents, and files that the tutorial writes.
fn documented() -> Vec<(PathBuf, String)> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for path in docs.chain([root().join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (start, end) in [("```toml\n", "```"), ("<<'TOML'\n", "\nTOML")] {
            let blocks = text.split(start).skip(1).map(|rest| rest.split(end).next().unwrap().to_owned());
            found.extend(blocks.map(|block| (path.clone(), block)));
        }
    }
    found
}

#[test]
fn the_shipped_file_and_every_configuration_in_the_documents_are_valid_under_it() {
    assert_eq!(judge(&read("gateway.toml")), [""; 0]);
    let mut whole = 0;
    for (path, text) in documented() {
        whole += usize::from(text.contains("[[route]]"));
        let text = if text.contains("[[route]]") { text } else { format!("{text}\n[[route]]\n") };
        assert_eq!(judge(&text), [""; 0], "{}: {text}", path.display());
    }
    assert!(whole >= 15, "{whole}");
}

#[test]
fn unknown_keys_wrong_kinds_words_and_units_are_not_valid_under_it() {
    for (name, at) in [
        ("unknown-keys", "unknown"),
        ("keys-of-other-tables", "unknown"),
        ("later-keys", "unknown"),
        ("spelling-capitals", "unknown"),
        ("spelling-dashes", "unknown"),
        ("spelling-of-sections", "unknown"),
        ("secrets-typed", "secret: type"),
        ("wrong-types", "type"),
        ("words", "anyOf"),
        ("durations-in-other-units", "pattern"),
        ("sizes-in-other-units", "pattern"),
        ("numbers-out-of-bounds", "minimum"),
        ("route-as-one-table", "type"),
        ("no-route", "required"),
        ("route-empty-list", "minItems"),
        ("upstream-incomplete", "required"),
    ] {
        let faults = judge(&read(&format!("tests/config/broken/{name}.toml")));
        assert!(faults.iter().any(|fault| fault.ends_with(at)), "{name}: {faults:?}");
    }
}

/// The line of a table's head, and what must stand with a key there.
const PLACES: [(&str, &str, &[&str]); 24] = [
    ("server", "[server]", &[]),
    ("server.tls", "[server.tls]", &[]),
    ("server.tls.certificates", "[[server.tls.certificates]]", &[]),
    ("limits", "[limits]", &[]),
    ("session", "[session]", &[]),
    ("password", "[password]", &[]),
    ("password.argon2", "[password.argon2]", &[]),
    ("users", "[users]", &[]),
    ("sign_up", "[sign_up]", &[]),
    ("store", "[store]", &[]),
    ("throttle", "[throttle]", &[]),
    ("pages", "[pages]", &[]),
    ("authjs", "[authjs]", &[]),
    ("cors", "[cors]", &[]),
    ("provider", "[[provider]]", &["name = \"a\"", "kind = \"google\"", "client_id = \"x\""]),
    (
        "provider.endpoints",
        "[[provider]]\nname = \"a\"\nkind = \"google\"\nclient_id = \"x\"\n[provider.endpoints]",
        &[],
    ),
    ("provider.claims", "[[provider]]\nname = \"a\"\nkind = \"google\"\nclient_id = \"x\"\n[provider.claims]", &[]),
    ("provider.allow", "[[provider]]\nname = \"a\"\nkind = \"google\"\nclient_id = \"x\"\n[provider.allow]", &[]),
    ("upstream", "[[upstream]]", &["name = \"a\"", "servers = [\"127.0.0.1:1\"]"]),
    ("upstream.token", "[[upstream]]\nname = \"a\"\nservers = [\"127.0.0.1:1\"]\n[upstream.token]", &[]),
    (
        "upstream.health",
        "[[upstream]]\nname = \"a\"\nservers = [\"127.0.0.1:1\"]\n[upstream.health]",
        &["path = \"/h\""],
    ),
    ("route.websocket", "[[route]]\nupstream = \"builtin:whoami\"\n[route.websocket]", &[]),
    ("test", "[[test]]", &["request = \"GET /\"", "expect = \"401\""]),
    ("test.user", "[[test]]\nrequest = \"GET /\"\nexpect = \"401\"\n[test.user]", &[]),
];

/// What is said of one key with a value, in its table.
fn said(head: &str, beside: &[&str], key: &str, value: &str) -> Vec<String> {
    let beside: Vec<&&str> = beside.iter().filter(|line| !line.starts_with(&format!("{key} "))).collect();
    let mut text = format!("{head}\n{key} = {value}\n");
    let line = text.lines().count();
    for more in beside {
        text = format!("{text}{more}\n");
    }
    if !head.starts_with("[[route]]") {
        text.push_str("[[route]]\nupstream = \"builtin:whoami\"\n");
    }
    let Err(faults) = config::parse(&text, "gateway.toml", PathBuf::new(), &|_| None) else { return Vec::new() };
    let here = faults.list().iter().filter(|fault| faults.place(fault).0 == line);
    here.map(|fault| fault.what.clone()).collect()
}

/// Values that a property's schema takes, and some that it does not.
fn samples(rule: &Value) -> (Vec<String>, Vec<String>) {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    if let Some(ways) = rule["anyOf"].as_array() {
        let words = ways.iter().filter_map(|way| way["enum"].as_array()).flatten();
        let inner = ways.iter().filter_map(|way| way["anyOf"].as_array()).flatten();
        let inner = inner.filter_map(|way| way["enum"].as_array()).flatten();
        return (words.chain(inner).map(Value::to_string).collect(), texts(&["\"nonsense\"", "5"]));
    }
    match rule["type"].as_str().unwrap() {
        "boolean" => (texts(&["true", "false"]), texts(&["\"true\"", "1"])),
        "integer" => {
            let (min, max) = (rule["minimum"].as_i64().unwrap(), rule["maximum"].as_i64().unwrap());
            (
                vec![min.to_string(), max.to_string()],
                vec![(min - 1).to_string(), (max + 1).to_string(), "\"9\"".to_owned()],
            )
        }
        "array" if rule["items"]["type"] == "string" => (Vec::new(), texts(&["\"one\"", "[5]", "5"])),
        "array" | "object" => (Vec::new(), texts(&["\"one\"", "5"])),
        _ => match rule["pattern"].as_str() {
            Some(pattern) if pattern.contains("KiB") => (texts(&["\"64KiB\""]), texts(&["\"64KB\"", "64", "\"64\""])),
            Some(_) => (texts(&["\"45s\"", "\"2m\""]), texts(&["\"45\"", "45", "\"1w\""])),
            None => (Vec::new(), texts(&["5", "true", "[]"])),
        },
    }
}

/// "Every key", and of the kind that the code reads: what the schema takes the code takes, and the other way round.
#[test]
fn the_schema_and_the_code_agree_on_every_key() {
    let schema = schema();
    let mut keys = 0;
    for (path, head, beside) in PLACES.iter().chain([&("route", "[[route]]", &["upstream = \"builtin:whoami\""][..])]) {
        let mut table = &schema;
        for part in path.split('.') {
            let inner = &table["properties"][part];
            table = if inner["items"].is_object() { &inner["items"] } else { inner };
        }
        for (key, rule) in table["properties"].as_object().unwrap() {
            keys += 1;
            let (good, bad) = samples(rule);
            for value in good {
                let said = said(head, beside, key, &value);
                let kinds =
                    ["unknown key", "is a", "is not a table", "is not a list", "cannot be", "out of range", "invalid "];
                assert!(
                    !said.iter().any(|what| kinds.iter().any(|kind| what.contains(kind))),
                    "{path}.{key} = {value}: {said:?}"
                );
            }
            for value in bad {
                let said = said(head, beside, key, &value);
                assert!(said.iter().any(|what| !what.contains("unknown key")), "{path}.{key} = {value}: {said:?}");
            }
        }
    }
    assert!(keys >= 70, "{keys}");
}

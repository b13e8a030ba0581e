//! `[[test]]`.

use http::{HeaderName, HeaderValue, Method};

use crate::config::fault::nearest;
use crate::config::file::{Item, Table};
use crate::config::{Test, TestUser};

/// Statuses that the gateway itself returns, as far as they depend only on the request head.
const STATUSES: [&str; 11] = ["204", "308", "400", "401", "403", "404", "405", "413", "414", "421", "431"];

pub(super) fn tests(tables: &[Table<'_>], upstreams: &[String]) -> Vec<Test> {
    tables.iter().filter_map(|table| test(table, upstreams)).collect()
}

fn test(table: &Table<'_>, upstreams: &[String]) -> Option<Test> {
    let request = table.text("request", "GET /api/data");
    let expect = table.text("expect", "login");
    let headers = table.table("headers", "headers").free_texts();
    let user = user(table);
    let (Some(request), Some(expect)) = (request, expect) else {
        table.reading.fault(
            table.span.clone(),
            "a test requires `request` and `expect`",
            "example: `request = \"GET /\"` and `expect = \"login\"`",
        );
        return None;
    };
    check_expect(&expect, upstreams);
    let read = request.value.split_once(' ').and_then(|(method, target)| {
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let absolute = target.starts_with("http://") || target.starts_with("https://");
        (target.starts_with('/') || absolute).then(|| (method, target.to_owned()))
    });
    if read.is_none() {
        request.fault(
            format!("invalid request `{}`", request.value),
            "use a method and a path or URL, for example \"GET /api/data\"",
        );
    }
    let (method, target) = read?;
    let headers = headers.iter().filter_map(header).collect();
    Some(Test { line: table.line(), method, target, headers, user, expect: expect.value })
}

fn check_expect(expect: &Item<'_, String>, upstreams: &[String]) {
    let typed = expect.value.as_str();
    if let Some(name) = typed.strip_prefix("forward ") {
        if !upstreams.iter().any(|known| known == name) {
            let near = nearest(name, upstreams.iter().map(String::as_str));
            let remedy = near.map_or("use the name of an upstream, or the URL from the route".to_owned(), |near| {
                format!("did you mean \"forward {near}\"?")
            });
            expect.fault(format!("unknown upstream \"{name}\""), remedy);
        }
        return;
    }
    if !STATUSES.contains(&typed) && typed != "login" && typed != "page" {
        expect.fault(
            format!("invalid expectation `{typed}`"),
            format!("use \"forward NAME\", \"login\", \"page\" or one of {}", STATUSES.join(", ")),
        );
    }
}

fn header((name, value): &(Item<'_, String>, Item<'_, String>)) -> Option<(HeaderName, HeaderValue)> {
    let read = HeaderName::try_from(name.value.as_str()).ok().zip(HeaderValue::try_from(value.value.as_str()).ok());
    if read.is_none() {
        name.fault(
            format!("invalid header `{}`", name.value),
            "use a header name and value, for example `Accept = \"*/*\"`",
        );
    }
    read
}

fn user(table: &Table<'_>) -> Option<TestUser> {
    if !table.has("user") {
        return None;
    }
    let user = table.table("user", "user");
    let groups = user.texts("groups", "staff").map(|list| list.value).unwrap_or_default();
    Some(TestUser {
        email: user.text("email", "ada@example.com").map(|text| text.value),
        groups: groups.into_iter().map(|text| text.value).collect(),
    })
}

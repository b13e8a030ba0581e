//! What was retired, revoked or replaced trusts nothing that came after it: keys, passwords, tokens, invites.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::forge::{Token, now_secs, session_key};
use crate::gateway::{Gateway, PASSWORD};

const OTHER: &str = "another long password of hers";

fn open_to_all() -> Gateway {
    Gateway::start("[sign_up]\nmode = \"open\"\n[[route]]\nupstream = \"builtin:whoami\"\n")
}

fn status(gateway: &Gateway, cookie: &str) -> u16 {
    gateway.client().get("/x", &[("Cookie", cookie)]).status
}

fn bearer(gateway: &Gateway, token: &str) -> u16 {
    gateway.client().get("/x", &[("Authorization", &format!("Bearer {token}"))]).status
}

fn token(gateway: &Gateway, email: &str) -> String {
    gateway.cli(&["token", "create", email, "--name", "job"]).trim().to_owned()
}

fn listed(gateway: &Gateway, arguments: &[&str]) -> Vec<Value> {
    serde_json::from_str(&gateway.cli(&[arguments, &["--json"]].concat())).unwrap()
}

fn link(gateway: &Gateway, arguments: &[&str]) -> String {
    let url = gateway.cli(arguments).trim().to_owned();
    url[url.find("/.auth/").unwrap()..].to_owned()
}

fn accept(gateway: &Gateway, path: &str, email: &str) -> Answer {
    gateway.client().post_json(path, &[], &json!({ "email": email, "password": PASSWORD }))
}

/// RFC 8725, 3.10: whoever copied the database signs with the key that was retired for it.
#[test]
fn a_retired_key_makes_no_token_for_a_session_that_began_after_it() {
    let gateway = Gateway::whoami();
    let before = gateway.first_account();
    let stolen = session_key(&gateway);
    let kid = Token::of(&before).header["kid"].clone();
    gateway.cli(&["key", "rotate"]);
    assert_eq!(status(&gateway, &before), 200, "rotation signs nobody out");
    let after = gateway.sign_in("ada@example.com");
    let own = Token::of(&after);
    assert_ne!(own.header["kid"], kid);
    let forged = own.header("kid", kid.clone()).claim("iat", now_secs()).claim("nbf", now_secs());
    assert_eq!(status(&gateway, &forged.signed(&stolen)), 401, "of a session that began after the key was retired");
    let old = own.header("kid", kid.clone()).claim("iat", now_secs() - 3600).claim("nbf", now_secs() - 3600);
    assert_eq!(status(&gateway, &old.signed(&stolen)), 401, "dated back");
    let renewed = Token::of(&before).claim("iat", now_secs() + 4).claim("nbf", now_secs());
    assert_eq!(status(&gateway, &renewed.signed(&stolen)), 200, "in the seconds in which the rotation gets about");
    assert_eq!([&before, &after].map(|cookie| status(&gateway, cookie)), [200, 200]);
    let gateway = gateway.kill_and_restart();
    assert_eq!(status(&gateway, &forged.signed(&stolen)), 401, "after a restart");
    assert_eq!([&before, &after].map(|cookie| status(&gateway, cookie)), [200, 200]);
}

#[test]
fn dropping_the_old_keys_signs_everyone_out_and_leaves_one_key_for_each_algorithm() {
    let gateway = Gateway::start(
        "[[upstream]]\nname = \"app\"\nservers = [\"builtin:whoami\"]\ntoken = { algorithm = \"EdDSA\" }\n[[route]]\nupstream = \"app\"\n",
    );
    let before = gateway.first_account();
    gateway.cli(&["key", "rotate"]);
    assert_eq!(listed(&gateway, &["key", "list"]).len(), 4);
    gateway.cli(&["key", "rotate", "--drop-old"]);
    assert_eq!(status(&gateway, &before), 401);
    assert!(listed(&gateway, &["session", "list"]).is_empty(), "no cookie of theirs is good any more");
    let keys = listed(&gateway, &["key", "list"]);
    assert!(keys.len() == 2 && keys.iter().all(|key| key["signs"] == true), "{keys:?}");
    let published = gateway.client().get("/.auth/jwks.json", &[]).json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 1, "{published}");
    let after = gateway.sign_in("ada@example.com");
    assert_eq!(status(&gateway, &after), 200);
}

/// OWASP Forgot Password sheet: a thief who knew the password may have made himself a token of ten years.
#[test]
fn a_new_password_ends_the_tokens_made_since_the_last_one_and_leaves_those_of_others() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bobs = token(&gateway, "bob@example.com");
    let change = |cookie: &str, from: &str, to: &str, keep: Value| {
        let body = json!({ "current_password": from, "password": to, "keep_tokens": keep });
        gateway.client().post_json("/.auth/account/password", &[("Cookie", cookie)], &body).status
    };
    let one = token(&gateway, "ada@example.com");
    assert_eq!(change(&cookie, "wrong", OTHER, json!(false)), 400);
    assert_eq!(bearer(&gateway, &one), 200, "nothing was changed");
    assert_eq!(change(&cookie, PASSWORD, OTHER, json!(true)), 200);
    assert_eq!(bearer(&gateway, &one), 200, "kept");
    assert_eq!(change(&cookie, OTHER, PASSWORD, json!(null)), 200);
    let two = token(&gateway, "ada@example.com");
    assert_eq!(change(&cookie, PASSWORD, OTHER, json!(false)), 200);
    assert_eq!(bearer(&gateway, &two), 401, "the account page");
    let three = token(&gateway, "ada@example.com");
    let reset = link(&gateway, &["user", "reset", "ada@example.com"]);
    assert_eq!(gateway.client().post_json(&reset, &[], &json!({ "password": PASSWORD })).status, 200);
    assert_eq!(bearer(&gateway, &three), 401, "a reset link");
    let [four, five] = [(); 2].map(|()| token(&gateway, "ada@example.com"));
    let set = |more: &[&str]| {
        let arguments = [&["user", "set", "ada@example.com", "--password-stdin"], more].concat();
        assert!(gateway.cli_with(&arguments, OTHER).status.success());
    };
    set(&["--keep-tokens"]);
    assert_eq!([&four, &five].map(|token| bearer(&gateway, token)), [200, 200]);
    let six = token(&gateway, "ada@example.com");
    gateway.cli(&["user", "set", "ada@example.com", "--name", "Ada"]);
    assert_eq!(bearer(&gateway, &six), 200, "no new password");
    set(&[]);
    assert_eq!(bearer(&gateway, &six), 401, "the command");
    assert_eq!(bearer(&gateway, &bobs), 200);
    // who had no password: the tokens are the operator's
    let invite = link(&gateway, &["user", "add", "zoe@example.com"]);
    let zoes = token(&gateway, "zoe@example.com");
    assert_eq!((accept(&gateway, &invite, "").status, bearer(&gateway, &zoes)), (200, 200));
    assert_eq!(
        gateway.cli_with(&["user", "set", "ada@example.com", "--name", "x", "--keep-tokens"], "").status.code(),
        Some(2)
    );
}

#[test]
fn the_forms_for_a_new_password_offer_to_keep_tokens_where_there_are_some() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let box_on = |path: &str, cookie: &str| {
        let fields = [("Cookie", cookie), ("Accept", "text/html")];
        gateway.client().get(path, &fields).text().contains("name=\"keep_tokens\"")
    };
    let reset = link(&gateway, &["user", "reset", "ada@example.com"]);
    assert_eq!((box_on("/.auth/account", &cookie), box_on(&reset, "")), (false, false));
    let job = token(&gateway, "ada@example.com");
    assert_eq!((box_on("/.auth/account", &cookie), box_on(&reset, "")), (true, true));
    let form = format!("password={}&keep_tokens=on", OTHER.replace(' ', "+"));
    assert_eq!(gateway.client().post_form(&reset, &[], &form).status, 303);
    assert_eq!(bearer(&gateway, &job), 200);
}

#[test]
fn tokens_of_one_account_or_of_all_are_revoked_at_once_and_a_disabled_accounts_rest() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let [one, two] = [(); 2].map(|()| token(&gateway, "ada@example.com"));
    let bobs = token(&gateway, "bob@example.com");
    gateway.cli(&["user", "disable", "ada@example.com"]);
    assert_eq!([&one, &bobs].map(|token| bearer(&gateway, token)), [401, 200]);
    gateway.cli(&["user", "enable", "ada@example.com"]);
    assert_eq!(bearer(&gateway, &one), 200);
    gateway.cli(&["token", "revoke", "--user", "ada@example.com"]);
    assert_eq!([&one, &two, &bobs].map(|token| bearer(&gateway, token)), [401, 401, 200]);
    let three = token(&gateway, "ada@example.com");
    gateway.cli(&["token", "revoke", "--all"]);
    assert_eq!([&three, &bobs].map(|token| bearer(&gateway, token)), [401, 401]);
    assert_eq!(gateway.cli_with(&["token", "revoke"], "").status.code(), Some(2));
    let events = listed(&gateway, &["audit", "list"]);
    let revoked: Vec<_> = events.iter().filter(|event| event["event"] == "tokens_revoked").collect();
    assert_eq!(
        (revoked.len(), &revoked[1]["email"], &revoked[1]["detail"]),
        (2, &json!("ada@example.com"), &json!("2"))
    );
}

#[test]
fn an_account_made_or_removed_voids_all_invites_to_its_address() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let invite = |email: &str| link(&gateway, &["invite", "--email", email, "--group", "admin"]);
    let [one, two] = [(); 2].map(|()| invite("eve@example.com"));
    let bobs = invite("bob@example.com");
    assert_eq!(accept(&gateway, &one, "").status, 200);
    gateway.cli(&["user", "remove", "eve@example.com"]);
    assert_eq!(accept(&gateway, &two, "").status, 404, "the second invite makes another administrator");
    assert_eq!(accept(&gateway, &bobs, "").status, 200, "somebody else's");
    // an account that came about in another way
    let zoe = invite("zoe@example.com");
    gateway.add_user("zoe@example.com", &[]);
    gateway.cli(&["user", "remove", "zoe@example.com"]);
    assert_eq!(accept(&gateway, &zoe, "").status, 404);
    let joe = invite("joe@example.com");
    gateway.cli(&["user", "set", "bob@example.com", "--email", "joe@example.com"]);
    gateway.cli(&["user", "remove", "joe@example.com"]);
    assert_eq!(accept(&gateway, &joe, "").status, 404);
}

#[test]
fn invites_are_listed_and_revoked_and_none_of_it_shows_the_link() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let open = link(&gateway, &["invite", "--group", "staff", "--expires", "2d"]);
    let bobs = link(&gateway, &["invite", "--email", "bob@example.com"]);
    let zoes = link(&gateway, &["user", "add", "zoe@example.com"]);
    let rows = listed(&gateway, &["invite", "list"]);
    let emails: Vec<_> = rows.iter().map(|row| row["email"].as_str().unwrap_or_default()).collect();
    assert_eq!(emails.len(), 3, "{rows:?}");
    for email in ["", "bob@example.com", "zoe@example.com"] {
        assert!(emails.contains(&email), "{rows:?}");
    }
    let row = |email: &str| rows.iter().find(|row| row["email"].as_str().unwrap_or_default() == email).unwrap();
    assert_eq!(row("")["groups"], json!(["staff"]));
    let shown = gateway.cli(&["invite", "list"]);
    for secret in [&open, &bobs, &zoes] {
        assert!(!shown.contains(secret.rsplit('/').next().unwrap()), "{shown}");
    }
    let id = row("bob@example.com")["id"].as_str().unwrap();
    assert!(shown.contains(id), "{shown}");
    gateway.cli(&["invite", "revoke", id]);
    assert_eq!(gateway.cli_with(&["invite", "revoke", id], "").status.code(), Some(1));
    assert_eq!(accept(&gateway, &bobs, "").status, 404);
    assert_eq!(accept(&gateway, &zoes, "").status, 200);
    assert_eq!(accept(&gateway, &open, "new@example.com").status, 200);
    assert!(listed(&gateway, &["invite", "list"]).is_empty());
}

#[test]
fn an_invite_that_anybody_may_use_is_made_with_a_warning() {
    let gateway = Gateway::whoami();
    gateway.first_account();
    let said = |arguments: &[&str]| {
        let output = gateway.cli_with(arguments, "");
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&["invite"]).contains("warning: "));
    assert!(!said(&["invite", "--email", "bob@example.com"]).contains("warning"));
}

#[test]
fn a_strangers_sign_up_leaves_the_administrators_first_link() {
    let gateway = open_to_all();
    let stranger = json!({ "email": "eve@example.com", "password": PASSWORD });
    assert_eq!(gateway.client().post_json("/.auth/signup", &[], &stranger).status, 201);
    let cookie = gateway.first_account();
    let me = gateway.client().get("/.auth/me", &[("Cookie", &cookie)]).json();
    assert_eq!(me["groups"], json!(["admin"]));
    let path = gateway.invite.clone().unwrap();
    assert_eq!(accept(&gateway, &path, "zoe@example.com").status, 404, "there is an administrator");
}

#[test]
fn names_that_are_no_addresses_or_look_like_anothers_sign_up_as_no_one_and_real_ones_do() {
    let gateway = open_to_all();
    gateway.add_user("sam@example.com", &[]);
    let sign_up = |email: &str| {
        let body = json!({ "email": email, "password": PASSWORD });
        gateway.client().post_json("/.auth/signup", &[], &body)
    };
    for wrong in [
        "\u{17f}am@example.com",
        "\u{ff53}\u{ff41}\u{ff4d}@example.com",
        "\u{24e2}am@example.com",
        "ad\u{aa}@example.com",
        "../../../tmp/x@example.com",
        "..@example.com",
        "-rf@example.com",
        "|id@example.com",
        ".a@example.com",
        "a.@example.com",
        "a..b@example.com",
        "wei\u{df}@example.com",
        "\u{131}an@example.com",
        "\u{1f600}@example.com",
    ] {
        let answer = sign_up(wrong);
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!("email")), "{wrong}");
    }
    for right in ["o'neil@example.com", "Jos\u{e9}+news@example.com", "j\u{f6}rg.m\u{fc}ller@example.com"] {
        assert_eq!(sign_up(right).status, 201, "{right}");
        assert_eq!(gateway.login(right, PASSWORD).status, 200, "{right}");
    }
}

/// CWE-799: ten accounts that change their profiles on and on, and the audit trail is theirs alone.
#[test]
fn changes_of_a_profile_are_throttled_by_account() {
    let gateway = Gateway::whoami();
    let ada = gateway.first_account();
    gateway.add_user("bob@example.com", &[]);
    let bob = gateway.sign_in("bob@example.com");
    let mut client = gateway.client();
    let mut change = |cookie: &str, name: &str| {
        client.post_json("/.auth/account/profile", &[("Cookie", cookie)], &json!({ "name": name })).status
    };
    let answers: Vec<_> = (0..40).map(|n| change(&ada, &n.to_string())).collect();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 30, "{answers:?}");
    assert_eq!(answers[39], 429);
    assert_eq!(change(&bob, "Bob"), 200);
    assert_eq!(status(&gateway, &ada), 200);
}

#[test]
fn wrong_current_passwords_in_one_session_shut_no_form_of_another() {
    let gateway = Gateway::whoami();
    let thief = gateway.first_account();
    let owner = gateway.sign_in("ada@example.com");
    let change = |cookie: &str, current: &str| {
        let body = json!({ "current_password": current, "password": OTHER });
        gateway.client().post_json("/.auth/account/password", &[("Cookie", cookie)], &body).status
    };
    for _ in 0..5 {
        assert_eq!(change(&thief, "wrong"), 400);
    }
    assert_eq!(change(&thief, PASSWORD), 429);
    let bans = listed(&gateway, &["ban", "list"]);
    assert_eq!((bans.len(), &bans[0]["kind"], &bans[0]["what"]), (1, &json!("user"), &json!("ada@example.com")));
    assert_eq!(change(&owner, PASSWORD), 200);
}

#[test]
fn a_ban_on_a_sessions_forms_is_lifted_by_the_accounts_name() {
    let gateway = Gateway::start("[throttle]\nmax_retries = 1\n[[route]]\nupstream = \"builtin:whoami\"\n");
    let ada = gateway.first_account();
    let change = |current: &str| {
        let body = json!({ "current_password": current, "password": OTHER });
        gateway.client().post_json("/.auth/account/password", &[("Cookie", &ada)], &body).status
    };
    assert_eq!((change("wrong"), change(PASSWORD)), (400, 429));
    gateway.cli(&["ban", "lift", "ada@example.com"]);
    assert_eq!(change(PASSWORD), 200);
}

#[test]
fn a_new_scope_names_its_methods_and_one_from_before_continues() {
    let gateway = Gateway::whoami();
    let cookie = gateway.first_account();
    let create =
        |scope: &str| gateway.cli_with(&["token", "create", "ada@example.com", "--name", "x", "--scope", scope], "");
    for wrong in [", /api/**", "/api/**", "GET, /api/**", ",GET /api/**", "*,GET /api/**", " /api/**", "* ", "*"] {
        assert_eq!(create(wrong).status.code(), Some(1), "{wrong}");
        let body = json!({ "token_name": "x", "scopes": wrong, "current_password": PASSWORD });
        let answer = gateway.client().post_json("/.auth/account/tokens", &[("Cookie", &cookie)], &body);
        assert_eq!((answer.status, &answer.json()["field"]), (400, &json!("scopes")), "{wrong}");
    }
    let made = |scope: &str| String::from_utf8(create(scope).stdout).unwrap().trim().to_owned();
    let ask = |line: &str, token: &str| {
        gateway.client().request(line, &[("Authorization", &format!("Bearer {token}"))], b"").status
    };
    let (all, two) = (made("* /log/**"), made("PUT, POST /log/**"));
    assert_eq!(["GET /log/x", "DELETE /log/x", "GET /x"].map(|line| ask(line, &all)), [200, 200, 403]);
    assert_eq!(["PUT /log/x", "POST /log", "GET /log/x"].map(|line| ask(line, &two)), [200, 200, 403]);
    let database = rusqlite::Connection::open(gateway.state().join("authgate.db")).unwrap();
    let old = "UPDATE api_token SET scopes = '/api/**' WHERE scopes = '* /log/**'";
    assert_eq!(database.execute(old, []).unwrap(), 1);
    drop(database);
    let gateway = gateway.kill_and_restart();
    let ask = |line: &str| gateway.client().request(line, &[("Authorization", &format!("Bearer {all}"))], b"").status;
    assert_eq!(["GET /api/x", "DELETE /api/x", "GET /log/x"].map(ask), [200, 200, 403]);
}

/// Nobody knows who comes over a Unix socket without a forwarded address: the account's own count holds all the same.
#[test]
fn over_a_unix_socket_an_accounts_wrong_passwords_are_counted_and_others_sign_in() {
    let folder = tempfile::TempDir::new().unwrap();
    let socket = folder.path().join("front");
    let listen = format!(
        "[server]\nwatch = false\nlisten = [\"127.0.0.1:0\", \"unix:{}\"]\nadmin_listen = \"127.0.0.1:0\"\n[[route]]\nupstream = \"builtin:whoami\"\n",
        socket.display()
    );
    std::fs::write(folder.path().join("gateway.toml"), listen).unwrap();
    let gateway = Gateway::serve(folder);
    for email in ["ada@example.com", "bob@example.com"] {
        gateway.add_user(email, &[]);
    }
    let login = |email: &str, password: &str| {
        let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let body = json!({ "email": email, "password": password });
        Client::over(stream, "localhost".to_owned()).post_json("/.auth/login", &[], &body).status
    };
    let tries: Vec<_> = (0..6).map(|_| login("ada@example.com", "wrong")).collect();
    assert_eq!(tries, [401, 401, 401, 401, 401, 429]);
    assert_eq!((login("ada@example.com", PASSWORD), login("bob@example.com", PASSWORD)), (429, 200));
}

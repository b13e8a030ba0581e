//! What the store does is the same on both databases: random calls, played to both, give the same results.

use std::fmt::Debug;

use super::fixtures::Cluster;
use super::postgres::Feed;
use super::sealed_tokens::SealedToken;
use super::*;
use crate::config::parse_store_url;
use crate::sealing::Sealed;
use crate::secret::Secret;

/// Steps of one game.
const STEPS: usize = 1200;

struct Both {
    sqlite: Db,
    postgres: Db,
    random: u64,
    now: u64,
    /// Attempts that are not decided, as each database numbered them.
    counted: Vec<(CountedAttempt, CountedAttempt)>,
    next: u64,
    _folder: tempfile::TempDir,
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// A result without change numbers, which the databases count each in its own way.
fn shown(result: &impl Debug) -> String {
    format!("{result:?}")
}

impl Both {
    fn new(seed: u64) -> Option<Self> {
        let cluster = Cluster::shared()?;
        let url = cluster.url(&cluster.create_database("contract"));
        let url = if url.contains('?') { url } else { format!("{url}?sslmode=disable") };
        let url = parse_store_url(&url, &[], false).unwrap();
        let mut postgres = Db::open_shared(&url, "test").unwrap();
        postgres.postgres().unwrap().fixed_clock = true;
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Db::open(folder.path(), Check::Whole).unwrap();
        Some(Self { sqlite, postgres, random: seed, now: 1_000_000, counted: vec![], next: 0, _folder: folder })
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    /// Plays a call to both.
    fn play<T: Debug>(&mut self, what: &str, call: impl Fn(&mut Db) -> Result<T, StoreError>) -> T {
        let (one, other) = (call(&mut self.sqlite), call(&mut self.postgres));
        let [one_shown, other_shown] = [shown(&one), shown(&other)];
        assert!(
            one_shown == other_shown,
            "{what} at {}:\nSQLite:     {one_shown}\nPostgreSQL: {other_shown}",
            self.now
        );
        one.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn email(&mut self) -> String {
        format!("user{}@example.com", self.below(8))
    }

    fn user_id(&mut self) -> String {
        (1 + self.below(10)).to_string()
    }

    fn session_id(&mut self) -> String {
        let last = self.next.max(1);
        format!("s{}", last - self.below(last.min(12)))
    }

    fn event(&mut self, event: &'static str) -> AuditRow {
        let (user_id, email) = (self.user_id(), self.email());
        let address = format!("192.0.2.{}", self.below(3));
        let request_id = if self.below(4) == 0 { String::new() } else { "r".to_owned() };
        AuditRow { at: self.now, event, user_id, email, address, request_id, detail: "ö'?1 user".to_owned() }
    }

    fn new_user(&mut self) -> NewUser {
        self.next += 1;
        let id = if self.below(6) == 0 { NewId::Given(format!("u{}", self.next)) } else { NewId::Next };
        let groups = if self.below(5) == 0 { vec![ADMIN_GROUP.to_owned(), "staff".to_owned()] } else { vec![] };
        let password = (self.below(3) > 0).then(|| secret("hash"));
        let email_proved = self.below(2) == 0;
        NewUser {
            id,
            email: self.email(),
            name: "Ünï".to_owned(),
            picture: String::new(),
            groups,
            password,
            email_proved,
        }
    }

    fn new_session(&mut self) -> NewSession {
        self.next += 1;
        let id = format!("s{}", self.next);
        let replaces = (self.below(4) == 0).then(|| self.session_id());
        let device = [u8::try_from(self.below(5)).unwrap(); 32];
        let expires = self.now + 100 + self.below(5000);
        let identity = (self.below(2) == 0).then(|| SessionIdentity {
            provider: "p".to_owned(),
            subject: format!("sub{}", self.next % 4),
            idp_sid: (self.next.is_multiple_of(3)).then(|| "sid".to_owned()),
        });
        NewSession {
            id,
            expires,
            remember: true,
            address: "192.0.2.9".to_owned(),
            replaces,
            device,
            identity,
            ..NewSession::default()
        }
    }

    fn identity(&mut self) -> NewIdentity {
        let subject = format!("sub{}", self.below(4));
        let email = Some(self.email());
        let issuer = (self.below(3) > 0).then(|| format!("https://issuer{}.example.com", self.below(2)));
        let [groups, their_groups] = [vec!["staff".to_owned()], vec!["Staff".to_owned(), "Ops".to_owned()]];
        let email_verified = self.below(2) == 0;
        NewIdentity {
            provider: "p".to_owned(),
            subject,
            issuer,
            email,
            email_verified,
            login: "l".to_owned(),
            name: "Name".to_owned(),
            groups,
            their_groups,
            proves_email: true,
            ..NewIdentity::default()
        }
    }

    fn limits(&mut self) -> Vec<Limit> {
        let email = self.email();
        vec![
            Limit { name: format!("account:{email}"), rule: Rule::Ban { max: 3, find_secs: 50, ban_secs: 70 } },
            Limit { name: "address:192.0.2.1".to_owned(), rule: Rule::Pace { max: 5, window_secs: 60 } },
            Limit { name: format!("device:ab:{email}"), rule: Rule::Ban { max: 4, find_secs: 50, ban_secs: 70 } },
        ]
    }

    fn attempt(&mut self) {
        let (limits, account, now) = (self.limits(), self.email(), self.now);
        let one = throttle::count_attempt(&mut self.sqlite, &limits, &account, now).unwrap();
        let other = throttle::count_attempt(&mut self.postgres, &limits, &account, now).unwrap();
        match (one, other) {
            (Ok(one), Ok(other)) => self.counted.push((one, other)),
            (Err(one), Err(other)) => assert_eq!(one, other),
            (one, other) => panic!("SQLite: {one:?}, PostgreSQL: {other:?}"),
        }
    }

    fn decide(&mut self) {
        let Some((one, other)) = self.counted.pop() else { return };
        let (now, event) = (self.now, self.event("sign_in_failed"));
        if self.below(2) == 0 {
            let banned = throttle::attempt_failed(&mut self.sqlite, &one, now, &event).unwrap();
            assert_eq!(banned, throttle::attempt_failed(&mut self.postgres, &other, now, &event).unwrap());
        } else {
            throttle::attempt_right(&mut self.sqlite, &one, now).unwrap();
            throttle::attempt_right(&mut self.postgres, &other, now).unwrap();
        }
    }

    fn people(&mut self) {
        let (now, id, event) = (self.now, self.user_id(), self.event("profile_changed"));
        match self.below(6) {
            0 | 1 => {
                let new = self.new_user();
                drop(self.play("add_user", |db| users::add_user(db, &new, now, &event)));
            }
            2 => {
                let password = (self.below(2) == 0).then(|| Password {
                    new: secret("hash"),
                    only_over: None,
                    keeps: Keeps::default(),
                });
                let email = (self.below(3) == 0).then(|| self.email());
                let disabled = match self.below(4) {
                    0 => Some(true),
                    1 => Some(false),
                    _ => None,
                };
                let name = (self.below(2) == 0).then(|| "New".to_owned());
                let what = UserChange { email, name, password, disabled, ..UserChange::default() };
                let kept = self.session_id();
                let ends = [SessionEnd::None, SessionEnd::All, SessionEnd::AllBut(&kept)]
                    [usize::try_from(self.below(3)).unwrap()];
                drop(self.play("change_user", |db| users::change_user(db, &id, &what, ends, now, &event)));
            }
            3 if self.below(3) == 0 => drop(self.play("remove_user", |db| users::remove_user(db, &id, now, &event))),
            4 => {
                let new = self.new_user();
                drop(self.play("sign_up", |db| users::sign_up(db, &new, &CountedAttempt::default(), now, &event)));
            }
            _ => {
                let email = self.email();
                drop(self.play("user_by_email", |db| users::user_by_email(db, &email)));
                self.play("users", |db| Ok((users::list(db)?, users::any_user(db)?)));
            }
        }
    }

    fn sessions(&mut self) {
        let (now, id, user_id, event) = (self.now, self.session_id(), self.user_id(), self.event("session_ended"));
        match self.below(7) {
            0..=2 => {
                let session = self.new_session();
                let (checked, counted) = (secret("hash"), CountedAttempt::default());
                let begins = SignIn { user_id, checked, rehashed: None, session, counted };
                self.play("begin_session", |db| {
                    Ok(match sign_ins::begin_session(db, &begins, now, &event)? {
                        Begun::Yes(ended) => format!("{ended:?}"),
                        Begun::No => "no".to_owned(),
                        Begun::Changed(_) => "changed".to_owned(),
                    })
                });
            }
            3 => {
                let selector = match self.below(7) {
                    0 => SessionSelector::User(&user_id),
                    1 => SessionSelector::UserBut(&user_id, &id),
                    2 => SessionSelector::Identity("p", "sub1"),
                    3 if self.below(20) == 0 => SessionSelector::Everybody,
                    4 => SessionSelector::SessionOf(&id, &user_id),
                    _ => SessionSelector::Session(&id),
                };
                self.play("end_sessions", |db| sessions::end_sessions(db, selector, now, &event));
            }
            4 => {
                let seen = [(id.clone(), now), (self.session_id(), now - 1)];
                self.play("write_seen", |db| sessions::write_seen(db, &seen));
                let session = (self.below(2) == 0).then(|| "sid".to_owned());
                let subject = (self.below(2) == 0).then(|| "sub2".to_owned());
                let what = provider_logouts::ProviderLogout { provider: "p".to_owned(), session, subject };
                self.play("provider_logout", |db| {
                    let mut events = provider_logouts::end_sessions(db, &what, &event)?;
                    events.sort_by(|a, b| a.user_id.cmp(&b.user_id));
                    Ok(events)
                });
            }
            5 => {
                let hash = [u8::try_from(self.below(5)).unwrap(); 32];
                let email = self.email();
                self.play("devices", |db| {
                    let last = devices::last_at_device(db, &hash)?;
                    Ok((devices::knows_device(db, &hash, &email)?, last, devices::last_provider(db, &hash)?))
                });
                self.play("sign_out", |db| sealed_tokens::sign_out(db, &id, now, &event));
            }
            _ => {
                drop(self.play("sessions", |db| sessions::list(db, Some(&user_id), now)));
                drop(self.play("all sessions", |db| sessions::list(db, None, now)));
                self.play("session_email", |db| sessions::session_email(db, &id));
            }
        }
    }

    fn tokens(&mut self) {
        let (now, session, user_id, event) = (self.now, self.session_id(), self.user_id(), self.event("token_created"));
        let id = format!("t{}", self.below(10));
        match self.below(6) {
            0 | 1 => {
                let hash = [u8::try_from(self.below(250)).unwrap(); 32];
                let scopes = vec!["GET /a".to_owned(), "* /b".to_owned()];
                let new = NewApiToken {
                    id: id.clone(),
                    hash,
                    user_id,
                    name: "x".to_owned(),
                    scopes,
                    created: now,
                    expires: now + 500,
                };
                // another token's hash is an error on both
                if self.play("tokens", |db| api_tokens::list(db, None, 0)).iter().all(|token| token.hash != hash) {
                    let _ = self.play("add_api_token", |db| {
                        let kept = api_tokens::add_api_token(db, &new, None, &event);
                        kept.map_err(|_| StoreError::Down("taken".to_owned())).or(Ok::<_, StoreError>(Kept::Already))
                    });
                }
            }
            2 => drop(self.play("end_api_token", |db| api_tokens::end_api_token(db, &id, None, now, &event))),
            3 => drop(self.play("end_api_tokens", |db| api_tokens::end_api_tokens(db, Some(&user_id), now, &event))),
            4 => {
                self.play("tokens_seen", |db| api_tokens::write_tokens_seen(db, &[(id.clone(), now)]));
                drop(self.play("tokens of one", |db| api_tokens::list(db, Some(&user_id), now)));
            }
            _ => {
                let tokens = [SealedToken { kind: "refresh", value: vec![1, 0, 255], expires: None }];
                let _ = self.play("claim", |db| sealed_tokens::claim(db, &session, &[1, 0, 255], now));
                self.play("replace", |db| sealed_tokens::replace(db, &session, &[1, 0, 255], &tokens));
                self.play("release", |db| sealed_tokens::release(db, &session, &[1, 0, 255]));
                self.play("of_session", |db| {
                    let mut tokens = sealed_tokens::of_session(db, &session)?;
                    tokens.sort_by_key(|token| token.kind);
                    Ok((tokens, sealed_tokens::issuer_of_session(db, &session)?))
                });
            }
        }
    }

    fn links(&mut self) {
        let (now, user_id, event) = (self.now, self.user_id(), self.event("invite_used"));
        let hash = [u8::try_from(self.below(250)).unwrap(); 32];
        match self.below(5) {
            0 | 1 => {
                let users = self.play("users", users::list);
                let of = (self.below(2) == 0 && users.iter().any(|user| user.id == user_id)).then_some(user_id);
                let email = (of.is_none() && self.below(2) == 0).then(|| self.email());
                let kind = ["first", "invite", "reset"][usize::try_from(self.below(3)).unwrap()];
                let new = NewLink {
                    hash,
                    kind,
                    user_id: of,
                    email,
                    groups: vec!["staff".to_owned()],
                    created: now,
                    expires: now + 300,
                };
                if self.play("find_link", |db| links::find_link(db, &hash, 0)).is_none() {
                    self.play("remove_link", |db| links::remove_link(db, &hash, &event));
                    self.play("add_link", |db| links::add_link(db, &new, &event));
                }
            }
            2 => {
                let what = if self.below(2) == 0 {
                    LinkUse::Add(self.new_user())
                } else {
                    LinkUse::SetPassword { hash: secret("hash"), name: "N".to_owned(), keep_tokens: false }
                };
                let session = self.new_session();
                let _ = self.play("use_link", |db| {
                    links::use_link(db, &hash, &what, &session, &CountedAttempt::default(), now, &event)
                });
            }
            3 => {
                let id = self.play("invites", |db| links::invites(db, now)).first().map(|row| row.id.clone());
                self.play("end_invite", |db| links::end_invite(db, id.as_deref().unwrap_or("x"), &event));
            }
            _ => drop(self.play("find_link", |db| links::find_link(db, &hash, now))),
        }
    }

    fn providers(&mut self) {
        let (now, user_id, event) = (self.now, self.user_id(), self.event("provider_sign_in"));
        let identity = self.identity();
        let (provider, subject) = (identity.provider.clone(), identity.subject.clone());
        let ways = WaysIn { passwords: self.below(2) == 0, providers: vec!["p".to_owned()] };
        match self.below(7) {
            0..=2 => {
                let new = (self.below(2) == 0).then(|| self.new_user());
                let is_decided = self.below(2) == 0;
                let intent = ProviderIntent::SignIn { new, is_decided };
                let session = self.new_session();
                let tokens = vec![SealedToken { kind: "refresh", value: vec![1, 0, 255], expires: None }];
                let links_by_email = self.below(2) == 0;
                let what = ProviderSignIn { identity, intent, session, tokens, links_by_email };
                let _ = self.play("provider sign_in", |db| provider_sign_ins::sign_in(db, &what, now, &event));
            }
            3 => {
                let _ = self.play("link", |db| identities::link(db, &identity, &user_id, now, &event));
            }
            4 => {
                let (force, at) = (self.below(2) == 0, (provider.as_str(), subject.as_str()));
                let _ = self.play("unlink", |db| identities::unlink(db, &user_id, at, &ways, force, &event));
            }
            5 => {
                let issuer = identity.issuer.clone();
                let at = (provider.as_str(), subject.as_str());
                self.play("refuse", |db| identities::refuse(db, at, issuer.as_deref(), &event));
                self.play("adopt", |db| identities::adopt(db, "p", issuer.as_deref(), &event));
                let session = self.session_id();
                let _ = self.play("confirm", |db| rechecks::confirm(db, &session, Some(&identity), now));
            }
            _ => {
                let gives = if self.below(2) == 0 { "a" } else { "b" };
                self.play("map_groups", |db| identities::map_groups(db, &|_, _| vec![gives.to_owned()]));
                self.play("identities", |db| {
                    let mut holders: Vec<String> = identities::holders(db)?.into_iter().collect();
                    holders.sort();
                    Ok((
                        identities::list(db, &user_id)?,
                        identities::summary(db)?,
                        holders,
                        identities::stranded(db, &ways)?,
                    ))
                });
            }
        }
    }

    fn keys_and_purge(&mut self) {
        let (now, event) = (self.now, self.event("key_rotated"));
        self.next += 1;
        let sealed = || Sealed { bytes: vec![7; 9], by: "k".to_owned() };
        let key = NewKey { algorithm: "HS256", kid: format!("k{}", self.next), secret: sealed() };
        match self.below(8) {
            0 => self.play("first_key", |db| keys::first_key(db, &key, now)),
            1 => {
                let rotation =
                    if self.below(3) == 0 { Rotation::Drop } else { Rotation::Retire { drop_before: now - 100 } };
                self.play("rotate", |db| keys::rotate_keys(db, std::slice::from_ref(&key), now, rotation, &event));
            }
            2 => {
                self.play("keys", |db| {
                    let rows = keys::list(db)?;
                    // on a shared database a key is retired a moment later
                    let rows = rows.into_iter().filter(|row| row.retired.is_none());
                    Ok(rows.map(|row| (row.kid, row.algorithm, row.created)).collect::<Vec<_>>())
                });
                self.play("sealing_key_id", keys::sealing_key_id);
            }
            3 => {
                self.play("expired_rows", |db| purge::expired_rows(db, now, 200));
                self.play("bound", |db| throttle::bound(db, now));
            }
            4 => {
                self.play("purge_sessions", |db| sessions::purge_sessions(db, "", now, 4000, 9000));
            }
            5 => {
                let names = ["account:user1@example.com".to_owned()];
                self.play("lift", |db| throttle::lift(db, &names, Some("user2@example.com"), Some("user:1"), &event));
                self.play("bans", |db| throttle::bans(db, now));
            }
            6 => self.play("write_events", |db| audit::write_events(db, std::slice::from_ref(&event))),
            _ => {
                let email = self.email();
                self.play("events", |db| audit::events(db, Some(&email), now - 50));
                self.play("trail", |db| audit::trail(db, 20));
            }
        }
    }

    fn step(&mut self) {
        self.now += self.below(9);
        match self.below(8) {
            0 => self.people(),
            1 | 2 => self.sessions(),
            3 => self.tokens(),
            4 => self.links(),
            5 => self.providers(),
            6 => self.keys_and_purge(),
            _ => {
                self.attempt();
                if self.below(2) == 0 {
                    self.decide();
                }
            }
        }
    }

    /// What a node that starts now is told, in lines.
    fn everything(&mut self) -> [Vec<String>; 2] {
        let mut told = [Vec::new(), Vec::new()];
        let [one, other] = &mut told;
        sync::changes_after(&mut self.sqlite, 0, &mut |change| one.extend(line(&change))).unwrap();
        let postgres = self.postgres.postgres().unwrap();
        Feed::default().poll(postgres, self.now, &mut |change| other.extend(line(&change))).unwrap();
        for lines in &mut told {
            lines.sort();
        }
        told
    }
}

/// A change without its number; `None`: it is passed on differently.
fn line(change: &Change<'_>) -> Option<String> {
    Some(match change {
        Change::Keys(rows) => {
            let current = rows.iter().filter(|row| row.retired.is_none());
            let mut kids: Vec<&str> = current.map(|row| row.kid.as_str()).collect();
            kids.sort_unstable();
            format!("keys {kids:?}")
        }
        Change::Session(row) => format!(
            "session {} {} {} {} {} {} {:?} {:?}",
            row.id, row.user_id, row.created, row.expires, row.seen, row.remember, row.checked, row.identity
        ),
        Change::SessionEnded(id) => format!("ended {id}"),
        Change::ApiToken(row) => format!("token {row:?}"),
        Change::Identity(row) => format!("identity {row:?}"),
        Change::Account(row) => {
            format!("account {} {} {} {} {}", row.id, row.email, row.name, row.groups, row.disabled)
        }
        Change::Reloaded(..) => return None,
    })
}

#[test]
fn random_calls_have_the_same_results_on_both_databases() {
    for seed in [1] {
        let Some(mut both) = Both::new(seed) else { return };
        for _ in 0..STEPS {
            both.step();
        }
        let [one, other] = both.everything();
        assert!(one.len() > 10, "{one:?}");
        assert_eq!(one, other);
    }
}

/// A node that follows knows the same as one that has just started.
#[test]
fn a_node_that_follows_step_by_step_is_told_what_one_that_starts_is_told() {
    use std::collections::BTreeMap;
    let Some(mut both) = Both::new(3) else { return };
    let (mut feed, mut sessions) = (Feed::default(), BTreeMap::new());
    let mut apply = |change: Change<'_>| match &change {
        Change::Session(row) => drop(sessions.insert(row.id.to_owned(), row.user_id.to_owned())),
        Change::SessionEnded(id) => drop(sessions.remove(*id)),
        _ => {}
    };
    for _ in 0..300 {
        both.step();
        let now = both.now;
        feed.poll(both.postgres.postgres().unwrap(), now, &mut apply).unwrap();
    }
    let mut fresh = BTreeMap::new();
    let mut take = |change: Change<'_>| {
        if let Change::Session(row) = change {
            fresh.insert(row.id.to_owned(), row.user_id.to_owned());
        }
    };
    let now = both.now;
    Feed::default().poll(both.postgres.postgres().unwrap(), now, &mut take).unwrap();
    // rows that were purged are not told: they ended long before
    assert!(fresh.iter().all(|entry| sessions.get(entry.0) == Some(entry.1)), "{fresh:?} {sessions:?}");
}

#[test]
fn both_databases_have_the_same_tables_and_columns() {
    let Some(mut both) = Both::new(4) else { return };
    let mut own: Vec<String> = {
        let sql = "SELECT m.name || '.' || c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
                   WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'";
        let mut query = both.sqlite.connection().prepare(sql).unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    for column in &mut own {
        *column = column.strip_prefix("user.").map_or_else(|| column.clone(), |name| format!("account.{name}"));
    }
    let sql =
        "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema()
               AND table_name NOT IN ('schema_version', 'node', 'chore', 'spent')";
    let mut theirs: Vec<String> = both.postgres.read(|tx| Ok(tx.query_map(sql, &[], |row| row.get(0))?)).unwrap();
    own.sort();
    theirs.sort();
    assert!(own.len() > 80, "{own:?}");
    assert_eq!(own, theirs);
}

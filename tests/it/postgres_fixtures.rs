//! What tests with PostgreSQL rely on: that each fault of `fixtures` is the fault that it is called, and is undone.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::fixtures::{CLOSED, Cluster, Mode, PASSWORD, Pgbouncer, Proxy, ROLE, Replication, Session, psql, url};
use crate::gateway::{eventually, send};

#[test]
fn a_database_of_the_shared_server_takes_its_role_by_password_alone() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.create_database("passwords");
    let url = cluster.url(&database);
    assert_eq!(psql(&url, "SELECT current_user, current_database()"), Ok(format!("{ROLE}|{database}")));
    assert_eq!(psql(&url, "CREATE TABLE a (b int)"), Ok(String::new()));
    let why = psql(&url.replace(PASSWORD, "wrong"), "SELECT 1").unwrap_err();
    assert!(why.contains("password authentication failed"), "{why}");
    let why = psql(&url, "CREATE ROLE other").unwrap_err();
    assert!(why.contains("permission denied"), "{why}");
    assert_ne!(cluster.create_database("passwords"), database);
}

/// A query that is to be sorted by bytes and does not say so is found out.
#[test]
fn databases_sort_by_language() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.create_database("sorting");
    let sorted = |by: &str| {
        let rows = "SELECT string_agg(a, '' ORDER BY a";
        cluster.sql_in(&database, &format!("{rows} {by}) FROM (VALUES ('a'), ('B'), ('c')) AS t (a)"))
    };
    assert_eq!(sorted("COLLATE \"C\""), "Bac");
    let version: u32 = cluster.sql("SHOW server_version_num").parse().unwrap();
    assert_eq!(sorted(""), if version >= 150_000 { "aBc" } else { "Bac" });
}

#[test]
fn backends_are_terminated_in_one_database_alone() {
    let Some(cluster) = Cluster::shared() else { return };
    let [here, there] = ["ended", "kept"].map(|purpose| cluster.create_database(purpose));
    let [mut ended, mut kept] = [&here, &there].map(|database| Session::new(&cluster.url(database)));
    for session in [&mut ended, &mut kept] {
        assert_eq!(session.ask("SELECT 1").as_deref(), Ok("1"));
    }
    cluster.terminate_backends(&here);
    assert_eq!(ended.ask("SELECT 2").unwrap_err(), CLOSED);
    assert_eq!(kept.ask("SELECT 2").as_deref(), Ok("2"));
    assert_eq!(psql(&cluster.url(&here), "SELECT 3").as_deref(), Ok("3"));
}

#[test]
fn what_was_committed_survives_a_crash_a_kill_and_a_stop() {
    let Some(mut cluster) = Cluster::start() else { return };
    let database = cluster.create_database("durable");
    let url = cluster.url(&database);
    assert_eq!(psql(&url, "CREATE TABLE done (how text)"), Ok(String::new()));
    let timeline = cluster.timeline();
    for (how, end) in
        [("crash", Cluster::crash as fn(&mut Cluster)), ("kill", Cluster::kill), ("stop", Cluster::stop_fast)]
    {
        let mut session = Session::new(&url);
        assert_eq!(session.ask(&format!("INSERT INTO done VALUES ('{how}')")).as_deref(), Ok(""));
        end(&mut cluster);
        assert!(!cluster.is_running());
        assert_eq!(session.ask("SELECT 1").unwrap_err(), CLOSED);
        assert_eq!(TcpStream::connect(cluster.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        cluster.start_again();
    }
    assert_eq!(psql(&url, "SELECT string_agg(how, ' ') FROM done").as_deref(), Ok("crash kill stop"));
    assert_eq!(cluster.timeline(), timeline);
    // the one that was stopped had nothing to recover
    assert_eq!(cluster.log().matches("not properly shut down").count(), 2, "{}", cluster.log());
}

/// §4.4 of the plan for several nodes: by its timeline a node knows that another server writes now.
#[test]
fn a_synchronous_pair_loses_nothing_in_a_failover_and_changes_its_timeline() {
    let Some(mut primary) = Cluster::start() else { return };
    let mut standby = primary.standby(Replication::Synchronous);
    let database = primary.create_database("pair");
    let pair = format!("{}?target_session_attrs=read-write", url(&[primary.address(), standby.address()], &database));
    assert_eq!(psql(&pair, "CREATE TABLE done (how text); INSERT INTO done VALUES ('before')"), Ok(String::new()));
    let why = standby.try_sql("postgres", "SELECT pg_current_wal_lsn()").unwrap_err();
    assert!(why.contains("recovery is in progress"), "{why}");
    // a commit waits for the standby
    standby.suspend();
    let mut waiting = Session::new(&pair);
    waiting.send("INSERT INTO done VALUES ('waiting')");
    eventually("the commit waits", || {
        primary.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1"
    });
    standby.resume();
    assert_eq!(waiting.rows().as_deref(), Ok(""));

    primary.crash();
    standby.promote();
    assert_eq!(psql(&pair, "SELECT string_agg(how, ' ') FROM done").as_deref(), Ok("before waiting"));
    assert_eq!(psql(&pair, "INSERT INTO done VALUES ('after')"), Ok(String::new()));
    assert_eq!(standby.timeline(), "00000002");
    primary.start_again();
    assert_eq!(primary.timeline(), "00000001");
}

#[test]
fn an_asynchronous_standby_that_follows_no_more_loses_what_comes_after() {
    let Some(mut primary) = Cluster::start() else { return };
    let mut standby = primary.standby(Replication::Asynchronous);
    let database = primary.create_database("lossy");
    let pair = format!("{}?target_session_attrs=read-write", url(&[primary.address(), standby.address()], &database));
    assert_eq!(psql(&pair, "CREATE TABLE done (how text); INSERT INTO done VALUES ('before')"), Ok(String::new()));
    eventually("the standby has it", || {
        standby.try_sql(&database, "SELECT string_agg(how, ' ') FROM done").as_deref() == Ok("before")
    });
    standby.stop_following();
    assert_eq!(psql(&pair, "INSERT INTO done VALUES ('lost')"), Ok(String::new()));
    primary.crash();
    standby.promote();
    assert_eq!(psql(&pair, "SELECT string_agg(how, ' ') FROM done").as_deref(), Ok("before"));
    assert_eq!(standby.timeline(), "00000002");
}

#[test]
fn a_suspended_server_accepts_connections_and_answers_when_it_is_resumed() {
    let Some(mut cluster) = Cluster::start() else { return };
    let database = cluster.create_database("hangs");
    let mut session = Session::new(&cluster.url(&database));
    assert_eq!(session.ask("SELECT 1").as_deref(), Ok("1"));
    cluster.suspend();
    session.send("SELECT 2");
    let mut newcomer = Session::new(&cluster.url(&database));
    newcomer.send("SELECT 3");
    drop(TcpStream::connect(cluster.address()).unwrap());
    let processes = cluster.processes();
    assert!(processes.len() > 2, "{processes:?}");
    for pid in processes {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("State:\tT (stopped)"), "{status}");
    }
    cluster.resume();
    assert_eq!(session.rows().as_deref(), Ok("2"));
    assert_eq!(newcomer.rows().as_deref(), Ok("3"));
}

/// An authority of this name, and a certificate of it for `localhost` with its key, all in PEM.
fn certified(name: &str) -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (authority.pem(), own.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_server_with_a_certificate_serves_tls_and_its_certificate_can_be_replaced() {
    let Some(mut cluster) = Cluster::start() else { return };
    let database = cluster.create_database("tls");
    let [(authority, chain, key), (_, others_chain, others_key)] = ["one", "another"].map(certified);
    let file = cluster.folder().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    let verified = format!("{}?sslmode=verify-full&sslrootcert={}", cluster.url(&database), file.display())
        .replace("127.0.0.1", "localhost");
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let why = psql(&verified, encrypted).unwrap_err();
    assert!(why.contains("server does not support SSL"), "{why}");
    cluster.serve_tls(&chain, &key);
    assert_eq!(psql(&verified, encrypted).as_deref(), Ok("t"));
    cluster.serve_tls(&others_chain, &others_key);
    let why = psql(&verified, encrypted).unwrap_err();
    assert!(why.contains("certificate verify failed"), "{why}");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let Some(mut cluster) = Cluster::on_disk_of(128) else { return };
    let database = cluster.create_database("full");
    let url = cluster.url(&database);
    assert_eq!(psql(&url, "CREATE TABLE done (how text); INSERT INTO done VALUES ('before')"), Ok(String::new()));
    let filler = cluster.fill_disk();
    let much = "INSERT INTO done SELECT repeat(md5(a::text), 50) FROM generate_series(1, 20000) AS a";
    let why = psql(&url, much).unwrap_err();
    assert!(cluster.log().contains("No space left on device"), "{why}\n{}", cluster.log());
    std::fs::remove_file(filler).unwrap();
    // it ends when it is the log of transactions that has no room
    if !cluster.is_running() {
        cluster.start_again();
    }
    eventually("it takes writes again", || psql(&url, "INSERT INTO done VALUES ('after')").is_ok());
    assert_eq!(psql(&url, "SELECT string_agg(how, ' ') FROM done").as_deref(), Ok("before after"));
}

/// In session mode each of the clients would have a connection to the server.
#[test]
fn pgbouncer_gives_one_connection_to_many_clients_in_turn() {
    let Some(cluster) = Cluster::shared() else { return };
    let Some(pooler) = Pgbouncer::start(cluster.address()) else { return };
    let database = cluster.create_database("pooled");
    let own = "SELECT pg_backend_pid()";
    let [mut first, mut second] = [(); 2].map(|()| Session::new(&url(&[pooler.address], &database)));
    let process = first.ask(own).unwrap();
    assert_eq!(second.ask(own).unwrap(), process);
    assert_eq!(second.ask("SELECT 1 / 0").unwrap_err(), "22012");
    // for as long as a transaction is open it has a connection of its own
    assert_eq!(first.ask("BEGIN").as_deref(), Ok(""));
    assert_eq!(first.ask(own).unwrap(), process);
    assert_ne!(second.ask(own).unwrap(), process);
    let why = psql(&url(&[pooler.address], &database).replace(PASSWORD, "wrong"), own).unwrap_err();
    assert!(why.contains("authentication failed"), "{why}");
}

#[test]
fn a_database_is_reached_through_a_proxy_and_not_while_that_swallows() {
    let Some(cluster) = Cluster::shared() else { return };
    let proxy = Proxy::start(cluster.address());
    let database = cluster.create_database("proxied");
    let mut session = Session::new(&url(&[proxy.address], &database));
    assert_eq!(session.ask("CREATE TABLE done (how text)").as_deref(), Ok(""));
    proxy.set(Mode::Swallow);
    session.send("INSERT INTO done VALUES ('held')");
    eventually("it is held", || proxy.held() > 0);
    assert_eq!(cluster.sql_in(&database, "SELECT count(*) FROM done"), "0");
    proxy.set(Mode::Pass);
    assert_eq!(session.rows().as_deref(), Ok(""));
    assert_eq!(cluster.sql_in(&database, "SELECT count(*) FROM done"), "1");
    proxy.cut();
    assert_eq!(session.ask("SELECT 1").unwrap_err(), CLOSED);
}

/// Sends back what it gets; counts connections by their acceptance.
fn echo() -> (SocketAddr, std::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, count) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            if accepted.send(()).is_err() {
                return;
            }
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    (address, count)
}

fn ask(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    answer(stream, text.len())
}

fn answer(stream: &mut TcpStream, length: usize) -> String {
    let mut read = vec![0; length];
    stream.read_exact(&mut read).unwrap();
    String::from_utf8(read).unwrap()
}

#[test]
fn a_proxy_delays_both_ways() {
    const DELAY: Duration = Duration::from_millis(100);
    let (server, _accepted) = echo();
    let proxy = Proxy::start(server);
    let mut client = TcpStream::connect(proxy.address).unwrap();
    assert_eq!(ask(&mut client, "soon"), "soon");
    proxy.set(Mode::Delay(DELAY));
    let asked = Instant::now();
    assert_eq!(ask(&mut client, "later"), "later");
    assert!(asked.elapsed() >= 2 * DELAY, "{:?}", asked.elapsed());
    // what waits for an hour is passed when the mode changes
    proxy.set(Mode::Delay(Duration::from_secs(3600)));
    client.write_all(b"now").unwrap();
    eventually("it is held", || proxy.held() == 3);
    proxy.set(Mode::Pass);
    assert_eq!(answer(&mut client, 3), "now");
    assert_eq!(proxy.held(), 0);
}

#[test]
fn a_proxy_that_swallows_holds_what_it_gets_and_new_connections() {
    let (server, accepted) = echo();
    let proxy = Proxy::start(server);
    let mut client = TcpStream::connect(proxy.address).unwrap();
    assert_eq!(ask(&mut client, "a"), "a");
    accepted.recv().unwrap();
    proxy.set(Mode::Swallow);
    client.write_all(b"held").unwrap();
    let mut newcomer = TcpStream::connect(proxy.address).unwrap();
    newcomer.write_all(b"too").unwrap();
    eventually("both are held", || proxy.held() == 4 && proxy.open() == 2);
    assert!(accepted.try_recv().is_err());
    proxy.set(Mode::Pass);
    assert_eq!(answer(&mut client, 4), "held");
    assert_eq!(answer(&mut newcomer, 3), "too");
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn a_proxy_closes_open_connections_when_it_is_cut_and_takes_new_ones() {
    let (server, _accepted) = echo();
    let proxy = Proxy::start(server);
    for mode in [Mode::Pass, Mode::Swallow, Mode::Delay(Duration::from_secs(3600))] {
        proxy.set(Mode::Pass);
        let mut client = TcpStream::connect(proxy.address).unwrap();
        assert_eq!(ask(&mut client, "a"), "a");
        proxy.set(mode);
        client.write_all(b"b").unwrap();
        eventually("it is open", || proxy.open() == 1);
        proxy.cut();
        assert_eq!(proxy.open(), 0);
        // whatever was on its way, then the end
        let rest = client.read_to_end(&mut Vec::new());
        assert!(
            rest.as_ref().is_ok_and(|&length| length <= 1)
                || rest.is_err_and(|why| why.kind() == ErrorKind::ConnectionReset)
        );
    }
    assert_eq!(proxy.accepted(), 3);
}

#[test]
fn a_proxy_that_refuses_keeps_what_is_open() {
    let (server, _accepted) = echo();
    let proxy = Proxy::start(server);
    let mut client = TcpStream::connect(proxy.address).unwrap();
    assert_eq!(ask(&mut client, "a"), "a");
    proxy.set(Mode::Refuse);
    assert_eq!(TcpStream::connect(proxy.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(&mut client, "b"), "b");
    proxy.set(Mode::Pass);
    assert_eq!(ask(&mut TcpStream::connect(proxy.address).unwrap(), "c"), "c");
    drop(client);
    eventually("the first is closed", || proxy.open() == 0);
}

/// What the shared server needs too: it is never dropped.
#[test]
fn a_test_process_that_is_killed_leaves_no_server_and_no_folder() {
    const OWN: &str = "AUTHGATE_TEST_HOLDS_A_SERVER";
    let Some(cluster) = Cluster::shared() else { return };
    if std::env::var_os(OWN).is_some() {
        println!("\nholds {} {}", cluster.processes()[0], cluster.folder().display());
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture"])
        .env(OWN, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    let held = lines.into_iter().find_map(|line| line.strip_prefix("holds ").map(str::to_owned)).unwrap();
    let (pid, folder) = held.split_once(' ').unwrap();
    let server = format!("/proc/{pid}/cwd");
    assert!(Path::new(folder).is_dir() && Path::new(&server).exists());
    send(holder.id(), "KILL");
    holder.wait().unwrap();
    eventually("the server is gone", || !Path::new(&server).exists() && !Path::new(folder).exists());
}

//! Peers that vanish without a word: no FIN, no RST, packets that arrive nowhere (RFC 9293, 3.5.1; reliability goal
//! G-8). The gateway and its peers stand in network namespaces of their own, joined by a cable; nothing of the
//! machine's own network is touched. That takes root.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, gettid, move_into_link_name_space};

use crate::client::Client;
use crate::gateway::{Gateway, command, configured, eventually, is_here, not_here};

/// The gateway's address; that of peers who vanish; that of peers who stay.
const GATEWAY: &str = "10.77.0.1";
const GONE: &str = "10.77.0.2";
const THERE: &str = "10.77.0.3";
/// How long a peer may leave unacknowledged what it was sent, and what two looks at it and a busy machine add.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
const LATE: Duration = Duration::from_secs(30);
const EARLY: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own, where it does what it is told. What it opens, and what it starts, is
/// there too.
struct Space {
    jobs: Sender<Job>,
    thread_id: i32,
}

/// Moves this thread into the namespace of a process that was made for it; it lasts as long as somebody is in it.
fn enter_a_new_one() -> bool {
    let mut maker = Command::new("unshare");
    maker.args(["--net", "--", "sh", "-c", "echo made; read end"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut maker = maker.spawn().unwrap();
    let made = maker.stdout.as_mut().unwrap().read(&mut [0; 8]).is_ok_and(|read| read > 0);
    let entered = made && {
        let space = File::open(format!("/proc/{}/ns/net", maker.id())).unwrap();
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).is_ok()
    };
    drop(maker.stdin.take());
    maker.wait().unwrap();
    entered
}

impl Space {
    fn new() -> Option<Self> {
        let (jobs, inbox) = channel::<Job>();
        let (sender, made) = channel();
        std::thread::spawn(move || {
            let entered = enter_a_new_one();
            sender.send(entered.then(|| gettid().as_raw_nonzero().get())).unwrap();
            for job in inbox {
                job();
            }
        });
        Some(Self { jobs, thread_id: made.recv().unwrap()? })
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, done) = channel();
        self.jobs.send(Box::new(move || sender.send(work()).unwrap())).unwrap();
        done.recv().unwrap()
    }

    fn ip(&self, line: &'static str) {
        assert!(self.run(move || Command::new("ip").args(line.split(' ')).status().unwrap().success()), "ip {line}");
    }

    fn listen(&self, address: &'static str) -> (TcpListener, SocketAddr) {
        let listener = self.run(move || TcpListener::bind((address, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// A connection from one of the space's addresses.
    fn connect(&self, from: &'static str, to: SocketAddr) -> TcpStream {
        self.run(move || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
            socket.connect(&to.into()).unwrap();
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(Duration::from_secs(150))).unwrap();
            stream
        })
    }
}

/// A gateway, and peers on the other end of a cable: an app that vanishes and one that stays.
struct Cable {
    gateway: Gateway,
    here: Space,
    there: Space,
    gone: TcpListener,
    stays: TcpListener,
}

impl Cable {
    fn new() -> Option<Self> {
        if !is_here("ip") {
            return None;
        }
        let (Some(here), Some(there)) = (Space::new(), Space::new()) else {
            not_here("network namespaces take root");
            return None;
        };
        let cable = format!("link add cable type veth peer name cable netns {}", there.thread_id);
        here.ip(cable.leak());
        here.ip("addr add 10.77.0.1/24 dev cable");
        there.ip("addr add 10.77.0.2/24 dev cable");
        there.ip("addr add 10.77.0.3/24 dev cable");
        for space in [&here, &there] {
            space.ip("link set cable up");
            space.ip("link set lo up");
        }
        let ((gone, gone_at), (stays, stays_at)) = (there.listen(GONE), there.listen(THERE));
        let text = format!(
            "[server]\nwatch = false\nlisten = [\"{GATEWAY}:0\"]\nadmin_listen = \"127.0.0.1:0\"\n\
             [[route]]\npath = \"/gone/**\"\naccess = \"public\"\nupstream = \"http://{gone_at}\"\n\
             [[route]]\naccess = \"public\"\nupstream = \"http://{stays_at}\"\n"
        );
        let gateway = here.run(move || {
            let folder = configured("");
            std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
            Gateway::spawn(command(folder.path(), &["run"]), folder)
        });
        Some(Self { gateway, here, there, gone, stays })
    }

    /// A client's connection and the app's, behind a request that the app has received.
    fn request(&self, client: &'static str, path: &str, fields: &str) -> (TcpStream, TcpStream) {
        let mut client = self.there.connect(client, self.gateway.address);
        write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").unwrap();
        let app = if path.starts_with("/gone") { &self.gone } else { &self.stays };
        let mut app = app.accept().unwrap().0;
        app.set_read_timeout(Some(Duration::from_secs(150))).unwrap();
        until_blank_line(&mut app);
        (client, app)
    }

    /// A WebSocket through the gateway.
    fn socket(&self, client: &'static str, path: &str) -> (TcpStream, TcpStream) {
        let asks = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let grants = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let (mut client, mut app) = self.request(client, path, asks);
        app.write_all(grants.as_bytes()).unwrap();
        until_blank_line(&mut client);
        (client, app)
    }

    /// From now on nothing that the peers at this address send arrives, not even an acknowledgement.
    fn vanish(&self) {
        self.there.ip("rule add from 10.77.0.2 blackhole");
    }

    fn connections(&self) -> usize {
        let admin = self.gateway.admin;
        let text = self.here.run(move || Client::connect(admin).get("/metrics", &[]).text());
        let line = text.lines().find_map(|line| line.strip_prefix("authgate_connections "));
        line.unwrap().parse().unwrap()
    }
}

fn until_blank_line(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}

/// A small binary frame of a server, and of a client (with a mask of nothing).
const DOWN: &[u8] = b"\x82\x02hi";
const UP: &[u8] = b"\x82\x82\0\0\0\0hi";

fn passes(from: &mut TcpStream, to: &mut TcpStream, frame: &[u8]) {
    from.write_all(frame).unwrap();
    let mut seen = vec![0; frame.len()];
    to.read_exact(&mut seen).unwrap();
    assert_eq!(seen[frame.len() - 2..], *b"hi");
}

/// How long the other end is still held after the moment from which nothing was acknowledged.
fn held(mut other_end: TcpStream, since: Instant) -> Duration {
    let mut rest = Vec::new();
    let _ = other_end.read_to_end(&mut rest);
    since.elapsed()
}

#[test]
fn what_a_vanished_peer_does_not_acknowledge_frees_both_ends_within_a_minute() {
    let Some(cable) = Cable::new() else { return };
    // a socket whose client vanishes, one whose app does, and one of which nobody does
    let (mut lost_client, mut its_app) = cable.socket(GONE, "/");
    let (mut its_client, mut lost_app) = cable.socket(THERE, "/gone/x");
    let (mut client, mut app) = cable.socket(THERE, "/");
    for (client, app) in [(&mut lost_client, &mut its_app), (&mut its_client, &mut lost_app), (&mut client, &mut app)] {
        passes(client, app, UP);
        passes(app, client, DOWN);
    }
    // an answer that is being read, and a request that waits for its answer
    let (_reading, mut writing) = cable.request(GONE, "/large", "");
    writing.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n").unwrap();
    let (_asking, answers_late) = cable.request(GONE, "/late", "");
    eventually("all are open", || cable.connections() == 5);

    cable.vanish();
    let since = Instant::now();
    its_app.write_all(DOWN).unwrap();
    its_client.write_all(UP).unwrap();
    writing.set_write_timeout(Some(Duration::from_secs(150))).unwrap();
    let stuffing = std::thread::spawn(move || {
        while writing.write_all(&[b'x'; 16384]).is_ok() {}
        since.elapsed()
    });
    for held in [held(its_app, since), held(its_client, since), stuffing.join().unwrap()] {
        assert!(held + EARLY >= UNACKNOWLEDGED && held < UNACKNOWLEDGED + LATE, "{held:?}");
    }
    // to a client that only waits nothing is sent that it could leave unacknowledged: its probes come after a minute
    eventually("the others are closed", || cable.connections() == 2);
    drop(answers_late);
    passes(&mut client, &mut app, UP);
    passes(&mut app, &mut client, DOWN);
}

/// Every socket of the gateway's has the kernel's probes, those to clients and those to apps.
fn all_are_probed(cable: &Cable) -> usize {
    let output = cable.here.run(|| Command::new("ss").args(["-tnoH", "state", "established"]).output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    let on_the_cable: Vec<&str> = text.lines().filter(|line| line.contains("10.77.0.")).collect();
    assert!(on_the_cable.iter().all(|line| line.contains("timer:(keepalive,")), "{text}");
    on_the_cable.len()
}

#[test]
fn silent_connections_are_probed_on_both_sides() {
    if !is_here("ss") {
        return;
    }
    let Some(cable) = Cable::new() else { return };
    let _quiet = cable.socket(THERE, "/");
    let _waiting = cable.request(THERE, "/late", "");
    assert_eq!(all_are_probed(&cable), 4);
}

/// `cargo test --test it -- --ignored half_open`
#[test]
#[ignore = "takes a minute and a half: the kernel's timers have no other clock"]
fn a_vanished_peer_of_a_silent_connection_is_noticed_within_two_minutes() {
    let Some(cable) = Cable::new() else { return };
    let (_lost_client, its_app) = cable.socket(GONE, "/");
    let (its_client, _lost_app) = cable.socket(THERE, "/gone/x");
    let (mut client, mut app) = cable.socket(THERE, "/");
    let kept = cable.there.connect(GONE, cable.gateway.address);
    cable.vanish();
    let since = Instant::now();
    let (app_side, client_side) = (held(its_app, since), held(its_client, since));
    eprintln!("vanished client: {app_side:?}, vanished app: {client_side:?}");
    assert!(app_side.max(client_side) < Duration::from_secs(120));
    eventually("the kept one is closed", || cable.connections() == 1);
    drop(kept);
    passes(&mut client, &mut app, UP);
    passes(&mut app, &mut client, DOWN);
}

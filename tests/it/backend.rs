//! A backend that keeps what it received, byte for byte, and answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which of the connections to the backend it came over, from 0.
    pub connection: usize,
}

impl Received {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What it does with one request: gets it and the connection, says whether to go on reading.
pub type Play = fn(&Received, &mut dyn Write) -> bool;

pub struct Backend {
    pub address: SocketAddr,
    received: Receiver<Received>,
}

pub fn ok(_: &Received, stream: &mut dyn Write) -> bool {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
}

impl Backend {
    pub fn start(play: Play) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, received) = channel();
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let write = stream.try_clone().unwrap();
                    serve(stream, write, play, &sender, connection);
                });
            }
        });
        Self { address, received }
    }

    /// The same on a Unix socket.
    pub fn unix(path: &Path, play: Play) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (sender, received) = channel();
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let write = stream.try_clone().unwrap();
                let sender = sender.clone();
                std::thread::spawn(move || serve(stream, write, play, &sender, connection));
            }
        });
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9)), received }
    }

    /// The next request that came in.
    pub fn next(&self) -> Received {
        self.received.recv_timeout(Duration::from_secs(20)).expect("the backend received nothing")
    }

    /// Everything that came in so far.
    pub fn all(&self) -> Vec<Received> {
        self.received.try_iter().collect()
    }
}

/// An address where nobody listens, another one each time, and below those that the kernel gives to whoever asks for any.
pub fn nobody() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 100).unwrap() * 200;
    loop {
        let port = 10_000 + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

/// A listener that takes connections and never answers.
pub fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn serve(read: impl Read, mut write: impl Write, play: Play, sender: &Sender<Received>, connection: usize) {
    let mut read = BufReader::new(read);
    while let Some(mut request) = receive(&mut read, &mut write) {
        request.connection = connection;
        let _ = sender.send(request.clone());
        if !play(&request, &mut write) {
            return;
        }
    }
}

fn receive(read: &mut impl BufRead, write: &mut impl Write) -> Option<Received> {
    let line = line(read)?;
    let mut fields = Vec::new();
    loop {
        let field = self::line(read)?;
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':')?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Received { line, fields, body: Vec::new(), connection: 0 };
    if request.field("expect").is_some() {
        write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    if let Some(length) = request.field("content-length") {
        let mut body = vec![0; length.parse().ok()?];
        read.read_exact(&mut body).ok()?;
        request.body = body;
    } else if request.field("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&self::line(read)?, 16).ok()?;
            let mut chunk = vec![0; size];
            read.read_exact(&mut chunk).ok()?;
            self::line(read)?;
            if size == 0 {
                break;
            }
            request.body.extend(chunk);
        }
    }
    Some(request)
}

fn line(read: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    read.read_line(&mut line).ok().filter(|&count| count > 0)?;
    Some(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Keeps a connection for a test that needs its own bytes.
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().unwrap().0
}

//! The store's line protocol as a client speaks it, and the question for every write that it acknowledged.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// For one request, with everything that it takes: to connect, and to ask again after a `CLOSE`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const VERIFY_BATCH: usize = 64;

/// Asks for every acknowledged SET, on one connection, many at a time. Returns what is missing or wrong, in words.
pub fn verify(address: SocketAddr, acknowledged: &[(String, String)]) -> io::Result<Vec<String>> {
    let mut lost = Vec::new();
    let mut rest = acknowledged;
    let mut attempts = 0;
    while !rest.is_empty() {
        let answered = verify_connection(address, rest, &mut lost)?;
        rest = &rest[answered..];
        attempts = if answered > 0 { 0 } else { attempts + 1 };
        if attempts > 100 {
            return Err(io::Error::other("the store closes every connection before it answers"));
        }
    }
    Ok(lost)
}

/// As far as one connection goes; returns how many were answered.
fn verify_connection(
    address: SocketAddr,
    acknowledged: &[(String, String)],
    lost: &mut Vec<String>,
) -> io::Result<usize> {
    let until = Instant::now() + REQUEST_TIMEOUT;
    let mut connection = Connection::open(address, until)?;
    let mut answered = 0;
    for batch in acknowledged.chunks(VERIFY_BATCH) {
        let until = Instant::now() + REQUEST_TIMEOUT;
        let requests: String = batch.iter().map(|(key, _)| format!("GET {key}\n")).collect();
        connection.send(&requests)?;
        for (key, value) in batch {
            let (text, last) = match connection.reply(until)? {
                Reply::Closed => return Ok(answered),
                Reply::Line { text, last } => (text, last),
            };
            if text.strip_prefix("VALUE ") != Some(value) {
                lost.push(format!("{key} was set to {value}, and is now: {text}"));
            }
            answered += 1;
            if last {
                return Ok(answered);
            }
        }
    }
    Ok(answered)
}

/// What came back.
pub enum Reply {
    /// `last`: the server waits for us to hang up.
    Line { text: String, last: bool },
    /// `CLOSE` instead of a reply: what was asked, was not executed.
    Closed,
}

/// A connection to the store.
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Sent so far.
    pub requests: u64,
}

impl Connection {
    /// Connects, without Nagle's delay.
    pub fn open(address: SocketAddr, until: Instant) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, time_left(until)?)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
        Ok(Connection { stream, input: Vec::new(), requests: 0 })
    }

    /// Sends one line or several.
    pub fn send(&mut self, request: &str) -> io::Result<()> {
        self.requests += 1;
        match self.stream.write_all(request.as_bytes()) {
            // The server may have told us to hang up, and have gone: its line is still there to be read.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(()),
            result => result,
        }
    }

    /// The next line, if it comes in time.
    pub fn reply(&mut self, until: Instant) -> io::Result<Reply> {
        let end = loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                break end;
            }
            self.stream.set_read_timeout(Some(time_left(until)?))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed without a reply"));
                }
                Ok(size) => self.input.extend_from_slice(&chunk[..size]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line[..end]);
        Ok(match (line.as_ref(), line.strip_suffix(" CLOSE")) {
            ("CLOSE", _) => Reply::Closed,
            // A value may be the word itself: one word after VALUE is the value.
            ("VALUE CLOSE", _) | (_, None) => Reply::Line { text: line.into_owned(), last: false },
            (_, Some(text)) => Reply::Line { text: text.to_owned(), last: true },
        })
    }

    /// Waits, and is false if the server spoke or hung up meanwhile: nobody asked, so it can only mean the end.
    pub fn stays_open_for(&self, time: Duration) -> bool {
        let waited = self.stream.set_read_timeout(Some(time)).and_then(|()| self.stream.peek(&mut [0]));
        matches!(waited, Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock))
    }
}

fn time_left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

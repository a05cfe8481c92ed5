//! Clients of the store that keep their connections and number what they send: a byte that is lost, that comes twice or out
//! of order, in either direction, shows in a reply.

use super::{PATIENCE, wait_until};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Numbers that are under way at once: the server has always read more than it has executed.
const BURST: u64 = 6;
/// Between two pieces of what is sent, which are cut anywhere.
const BETWEEN_PIECES: Duration = Duration::from_micros(700);
/// Between two bursts: a log that grows too fast makes the next start too slow.
const THINK: Duration = Duration::from_millis(20);

/// What all of them have seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Numbers that were written and read back, by each.
    pub numbers: Vec<u64>,
    /// Connections that somebody else than the client closed.
    pub closed: u64,
    /// What must never be, in words.
    pub faults: Vec<String>,
}

/// Dropped, they end.
pub struct Streams {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    /// `name` begins their keys.
    pub fn start(address: SocketAddr, count: usize, name: &str) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        seen.lock().unwrap().numbers = vec![0; count];
        let start = |index| {
            let (key, stop, seen) = (format!("{name}{index}"), Arc::clone(&stop), Arc::clone(&seen));
            let mut stream = Stream { address, index, key, stop, seen, acknowledged: 0, sent: 0 };
            thread::spawn(move || stream.run())
        };
        let threads = (0..count).map(start).collect();
        Self { stop, seen, threads }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// What must never be, since this was asked last.
    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap().faults)
    }

    /// Waits until each has gone on, and so has seen if its connection was closed before.
    pub fn go_on(&self) {
        let before = self.seen().numbers;
        wait_until("every stream goes on", || {
            let now = self.seen();
            let all = before.iter().zip(&now.numbers).all(|(before, now)| *now > before + BURST);
            (all || !now.faults.is_empty()).then_some(())
        });
    }

    /// Ends them after the replies to what they have sent.
    pub fn stop(mut self) -> Seen {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.end();
    }
}

struct Stream {
    address: SocketAddr,
    index: usize,
    key: String,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    /// The last number whose reply has come.
    acknowledged: u64,
    /// The last number that may have been read by the server.
    sent: u64,
}

impl Stream {
    fn run(&mut self) {
        while !self.ends() {
            match self.connection() {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::AddrNotAvailable) => {
                    self.fault(format!("cannot connect: {error}"));
                    thread::sleep(THINK);
                }
                Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::WouldBlock) => {
                    self.fault(error.to_string());
                }
                Err(_) => self.seen.lock().unwrap().closed += 1,
            }
        }
    }

    fn ends(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fault(&self, text: String) {
        self.seen.lock().unwrap().faults.push(format!("{}: {text}", self.key));
    }

    fn connection(&mut self) -> io::Result<()> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut replies = BufReader::new(stream.try_clone()?);
        self.begin(&stream, &mut replies)?;
        while !self.ends() {
            let burst = self.acknowledged + 1..=self.acknowledged + BURST;
            self.say(&stream, burst.clone())?;
            self.hear(&mut replies, burst)?;
            thread::sleep(THINK);
        }
        Ok(())
    }

    /// What the server knows is what it has acknowledged, or was sent after it.
    fn begin(&mut self, mut stream: &TcpStream, replies: &mut impl BufRead) -> io::Result<()> {
        writeln!(stream, "GET {}", self.key)?;
        let reply = line(replies)?;
        let known = reply.strip_prefix("VALUE ").and_then(|number| number.parse().ok());
        let known = if reply == "NONE" { 0 } else { known.ok_or_else(|| wrong("a number", &reply))? };
        if !(self.acknowledged..=self.sent).contains(&known) {
            return Err(wrong(&format!("{} to {}", self.acknowledged, self.sent), &reply));
        }
        (self.acknowledged, self.sent) = (known, known);
        Ok(())
    }

    fn say(&mut self, mut stream: &TcpStream, burst: RangeInclusive<u64>) -> io::Result<()> {
        self.sent = *burst.end();
        let place = self.sent.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize;
        let text: String = burst.map(|number| format!("SET {0} {number}\nGET {0}\n", self.key)).collect();
        let (first, rest) = text.split_at(place % text.len());
        let (second, third) = rest.split_at((place >> 20) % (rest.len() + 1));
        for piece in [first, second, third] {
            stream.write_all(piece.as_bytes())?;
            thread::sleep(BETWEEN_PIECES);
        }
        Ok(())
    }

    fn hear(&mut self, replies: &mut impl BufRead, burst: RangeInclusive<u64>) -> io::Result<()> {
        for number in burst {
            let (set, get) = (line(replies)?, line(replies)?);
            if !set.starts_with("OK ") {
                return Err(wrong("OK", &set));
            }
            if get != format!("VALUE {number}") {
                return Err(wrong(&format!("VALUE {number}"), &get));
            }
            self.acknowledged = number;
            self.seen.lock().unwrap().numbers[self.index] += 1;
        }
        Ok(())
    }
}

fn line(replies: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match replies.read_line(&mut line)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ if !line.ends_with('\n') => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

fn wrong(expected: &str, reply: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{expected} was expected, and '{reply}' came"))
}

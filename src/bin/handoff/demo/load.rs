//! Load on the key-value store of the examples, and a check that it keeps every write it acknowledged.
//!
//! Each client is a thread with a closed loop: it sets its own keys, one after the other, and now and then reads an
//! earlier one back. What it was told is kept, so that [`verify`] can ask for all of it in the end. A client follows
//! the store's rule for the end of a connection: after a reply that ends in ` CLOSE`, or a line `CLOSE` instead of
//! one, it hangs up, connects again, and repeats what has no reply. Nothing else is forgiven.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[path = "load_wire.rs"]
mod wire;

pub use wire::verify;
use wire::{Connection, REQUEST_TIMEOUT, Reply};

/// After a failure, so that a dead server is not asked a million times.
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
/// Below this, waiting on the socket for the server's `CLOSE` is less exact than to sleep.
const LISTENING_THINK_MIN: Duration = Duration::from_millis(20);
pub(super) const FAILURE_TEXTS_MAX: usize = 20;
const SAMPLES_PER_CLIENT: usize = 1 << 16;

/// What to do to whom.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The store.
    pub address: SocketAddr,
    /// Threads, each with one connection at a time.
    pub clients: usize,
    /// Many requests per connection; otherwise one, and the client closes first.
    pub keep_alive: bool,
    /// With `keep_alive`: hang up after so many; 0 means never.
    pub requests_per_connection: u64,
    /// Between two requests of one client.
    pub think: Duration,
    /// Every so many requests one is a GET; 0 means never.
    pub read_every: u64,
    /// Keys are `<name><client>-<n>`. Two loads on one store need two names, or the second cannot see a lost write.
    pub name: String,
}

impl LoadOptions {
    /// Eight clients that never pause, keep their connections, and read one request in four.
    pub fn new(address: SocketAddr) -> Self {
        LoadOptions {
            address,
            clients: 8,
            keep_alive: true,
            requests_per_connection: 0,
            think: Duration::ZERO,
            read_every: 4,
            name: "c".to_owned(),
        }
    }
}

/// Counters of a load that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub requests: u64,
    pub failed_requests: u64,
    pub closed_connections: u64,
    pub acknowledged: u64,
    /// The slowest request that ended since the last snapshot.
    pub slowest_ns: u64,
}

/// What a load has seen.
#[derive(Debug, Default)]
pub struct Report {
    pub requests: u64,
    pub failed_requests: u64,
    /// How many of each kind.
    pub failures_by_kind: BTreeMap<&'static str, u64>,
    /// The first few, in words.
    pub failures: Vec<String>,
    /// Connections that the server ended, in the agreed way or while nothing was asked on them.
    pub closed_connections: u64,
    /// Key and value of each SET that was answered with OK.
    pub acknowledged: Vec<(String, String)>,
    /// Start since the origin and latency of each request, failed or not, in nanoseconds, ordered by start.
    pub samples: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Counters {
    stop: AtomicBool,
    requests: AtomicU64,
    failed_requests: AtomicU64,
    closed_connections: AtomicU64,
    acknowledged: AtomicU64,
    slowest_ns: AtomicU64,
    window: Window,
}

/// What overlaps a time that is not over yet.
#[derive(Default)]
pub(super) struct Window {
    pub(super) begin_ns: AtomicU64,
    /// `u64::MAX` while it is open.
    pub(super) end_ns: AtomicU64,
    pub(super) slowest_ns: AtomicU64,
}

impl Window {
    pub(super) fn note(&self, start_ns: u64, latency_ns: u64) {
        // In this order: with a new end there is a new begin.
        let end_ns = self.end_ns.load(Acquire);
        if start_ns <= end_ns && start_ns + latency_ns >= self.begin_ns.load(Acquire) {
            self.slowest_ns.fetch_max(latency_ns, Relaxed);
        }
    }
}

/// A load that runs. Dropped without [`Load::stop`], it ends soon after.
pub struct Load {
    origin: Instant,
    counters: Arc<Counters>,
    clients: Vec<JoinHandle<Report>>,
}

impl Load {
    /// Starts the clients.
    pub fn start(options: LoadOptions) -> Load {
        let origin = Instant::now();
        let counters = Arc::new(Counters::default());
        let clients = (0..options.clients)
            .map(|number| {
                let client = Client::new(number, options.clone(), origin, Arc::clone(&counters));
                thread::spawn(move || client.run())
            })
            .collect();
        Load { origin, counters, clients }
    }

    /// Nanoseconds since the origin of the samples: to note when something began and ended.
    pub fn now_ns(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let counters = &self.counters;
        Snapshot {
            requests: counters.requests.load(Relaxed),
            failed_requests: counters.failed_requests.load(Relaxed),
            closed_connections: counters.closed_connections.load(Relaxed),
            acknowledged: counters.acknowledged.load(Relaxed),
            slowest_ns: counters.slowest_ns.swap(0, Relaxed),
        }
    }

    /// Begins a window; when, in nanoseconds since the origin.
    pub fn open_window(&self) -> u64 {
        let window = &self.counters.window;
        window.slowest_ns.store(0, Release);
        let begin_ns = self.now_ns();
        window.begin_ns.store(begin_ns, Release);
        window.end_ns.store(u64::MAX, Release);
        begin_ns
    }

    /// Ends the window; when.
    pub fn close_window(&self) -> u64 {
        let end_ns = self.now_ns();
        self.counters.window.end_ns.store(end_ns, Release);
        end_ns
    }

    /// The slowest request that overlaps the window, of those that have ended.
    pub fn slowest_in_window_ns(&self) -> u64 {
        self.counters.window.slowest_ns.load(Relaxed)
    }

    /// Lets each client end the request it is in, and adds up.
    pub fn stop(mut self) -> Report {
        self.counters.stop.store(true, Relaxed);
        let mut total = Report::default();
        for client in self.clients.drain(..) {
            match client.join() {
                Ok(report) => total.add(report),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        total.samples.sort_unstable();
        total
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counters.stop.store(true, Relaxed);
    }
}

impl Report {
    fn add(&mut self, other: Report) {
        self.requests += other.requests;
        self.failed_requests += other.failed_requests;
        for (kind, count) in other.failures_by_kind {
            *self.failures_by_kind.entry(kind).or_default() += count;
        }
        let room = FAILURE_TEXTS_MAX.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
        self.closed_connections += other.closed_connections;
        self.acknowledged.extend(other.acknowledged);
        self.samples.extend(other.samples);
    }
}

/// For each window, the latency in milliseconds of the slowest request that overlaps it; 0 if none does.
/// The samples must be ordered by start, as those of a [`Report`] are; windows are `(start, end)` in nanoseconds.
pub fn stall_ms(samples: &[(u64, u64)], windows: &[(u64, u64)]) -> Vec<f64> {
    let longest = samples.iter().map(|sample| sample.1).max().unwrap_or(0);
    let slowest = |&(start, end): &(u64, u64)| {
        // What started earlier than this had ended before the window.
        let first = samples.partition_point(|sample| sample.0 < start.saturating_sub(longest));
        let worst = samples[first..]
            .iter()
            .take_while(|sample| sample.0 <= end)
            .filter(|sample| sample.0 + sample.1 >= start)
            .map(|sample| sample.1)
            .max();
        worst.unwrap_or(0) as f64 / 1e6
    };
    windows.iter().map(slowest).collect()
}

/// A request that did not get the reply it should have.
#[derive(Debug)]
struct Failure {
    kind: &'static str,
    text: String,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => "refused",
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => "reset",
            ErrorKind::UnexpectedEof => "no reply",
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout",
            _ => "other",
        };
        Failure { kind, text: error.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.text)
    }
}

struct Client {
    number: usize,
    options: LoadOptions,
    origin: Instant,
    counters: Arc<Counters>,
    connection: Option<Connection>,
    report: Report,
    /// The n of each SET that was acknowledged.
    acknowledged: Vec<u64>,
    last_revision: u64,
    random: u64,
}

impl Client {
    fn new(number: usize, options: LoadOptions, origin: Instant, counters: Arc<Counters>) -> Client {
        let report = Report { samples: Vec::with_capacity(SAMPLES_PER_CLIENT), ..Report::default() };
        let acknowledged = Vec::with_capacity(SAMPLES_PER_CLIENT);
        let random = 0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1);
        Client { number, options, origin, counters, connection: None, report, acknowledged, last_revision: 0, random }
    }

    fn run(mut self) -> Report {
        for n in 0.. {
            if self.counters.stop.load(Relaxed) {
                break;
            }
            self.one_request(n);
            self.think();
        }
        let keys = std::mem::take(&mut self.acknowledged);
        self.report.acknowledged = keys.into_iter().map(|n| (self.key(n), n.to_string())).collect();
        self.report
    }

    fn key(&self, n: u64) -> String {
        format!("{}{}-{n}", self.options.name, self.number)
    }

    fn one_request(&mut self, n: u64) {
        let reads = self.options.read_every;
        let read = reads > 0 && n % reads == reads - 1 && !self.acknowledged.is_empty();
        let start = Instant::now();
        let result = if read { self.read_back() } else { self.set(n) };
        let latency = nanoseconds(start.elapsed());
        let start_ns = nanoseconds(start - self.origin);
        self.report.samples.push((start_ns, latency));
        self.counters.window.note(start_ns, latency);
        self.report.requests += 1;
        self.counters.requests.fetch_add(1, Relaxed);
        self.counters.slowest_ns.fetch_max(latency, Relaxed);
        if let Err(failure) = result {
            self.failed(failure);
        }
    }

    fn failed(&mut self, failure: Failure) {
        self.connection = None;
        self.report.failed_requests += 1;
        self.counters.failed_requests.fetch_add(1, Relaxed);
        *self.report.failures_by_kind.entry(failure.kind).or_default() += 1;
        if self.report.failures.len() < FAILURE_TEXTS_MAX {
            let at = self.origin.elapsed().as_secs_f64();
            self.report.failures.push(format!("client {} at {at:.3} s: {failure}", self.number));
        }
        thread::sleep(FAILURE_PAUSE);
    }

    fn set(&mut self, n: u64) -> Result<(), Failure> {
        let request = format!("SET {} {n}\n", self.key(n));
        let reply = self.ask(&request)?;
        let revision: Option<u64> = reply.strip_prefix("OK ").and_then(|text| text.parse().ok());
        let Some(revision) = revision else {
            return Err(Failure { kind: "error reply", text: format!("{}: {reply}", request.trim_end()) });
        };
        self.acknowledged.push(n);
        self.counters.acknowledged.fetch_add(1, Relaxed);
        let before = std::mem::replace(&mut self.last_revision, revision);
        if revision <= before {
            // A number that was given before: the store has forgotten what came under it.
            let text = format!("{} got revision {revision} after {before}", request.trim_end());
            return Err(Failure { kind: "lost write", text });
        }
        Ok(())
    }

    fn read_back(&mut self) -> Result<(), Failure> {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let n = self.acknowledged[(self.random >> 33) as usize % self.acknowledged.len()];
        let request = format!("GET {}\n", self.key(n));
        let reply = self.ask(&request)?;
        if reply.strip_prefix("VALUE ").and_then(|value| value.parse().ok()) == Some(n) {
            return Ok(());
        }
        let kind = if reply.starts_with("ERR") { "error reply" } else { "lost write" };
        Err(Failure { kind, text: format!("{} should be {n}: {reply}", request.trim_end()) })
    }

    /// One reply to one request, on as many connections as it takes.
    fn ask(&mut self, request: &str) -> Result<String, Failure> {
        let until = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => Connection::open(self.options.address, until)?,
            };
            connection.send(request)?;
            let Reply::Line { text, last } = connection.reply(until)? else {
                self.count_closed();
                continue;
            };
            if last {
                self.count_closed();
            } else if self.keeps(&connection) {
                self.connection = Some(connection);
            }
            return Ok(text);
        }
    }

    fn keeps(&self, connection: &Connection) -> bool {
        let most = self.options.requests_per_connection;
        self.options.keep_alive && (most == 0 || connection.requests < most)
    }

    fn count_closed(&mut self) {
        self.report.closed_connections += 1;
        self.counters.closed_connections.fetch_add(1, Relaxed);
    }

    /// Hangs up at once if the server asks for it meanwhile, so that a drain need not wait for our next request.
    fn think(&mut self) {
        let until = Instant::now() + self.options.think;
        if self.options.think >= LISTENING_THINK_MIN
            && let Some(mut connection) = self.connection.take()
        {
            if connection.stays_open_for(self.options.think) {
                self.connection = Some(connection);
            } else {
                // Read before the close: what is left unread would make it a reset.
                let _end = connection.reply(Instant::now() + FAILURE_PAUSE);
                self.count_closed();
            }
        }
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

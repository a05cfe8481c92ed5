//! The daemon's clients: a thread for each, and how they are told to go when the daemon drains.
//!
//! A request is a line: `SET key value`, `GET key`, `COUNT`, `PING`. A reply that ends in ` CLOSE` is the last one, and a
//! line `CLOSE` comes instead of one; no request without a reply was executed. The client hangs up, connects again, and
//! asks again. The daemon waits for the hang-up, because a close with a request on the wire would be a reset.

use super::store::Store;
use handoff::Writers;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A busy client's next request is so near.
const LINGER: Duration = Duration::from_millis(50);
/// Whoever has just connected is about to ask.
const FIRST_REQUEST: Duration = Duration::from_millis(20);
/// For a client that was told to hang up.
const HANG_UP: Duration = Duration::from_secs(1);
/// For a client to read its reply.
const SEND: Duration = Duration::from_secs(5);
/// Before the end of the grace: a late answer is none.
const MARGIN: Duration = Duration::from_millis(50);
const LINE_BYTES_MAX: usize = 4096;
const STACK_BYTES: usize = 256 * 1024;

/// What all threads share.
#[derive(Debug)]
pub struct Server {
    pub store: Store,
    /// As PING says it.
    build: String,
    writers: Writers,
    listener: TcpListener,
    draining: AtomicBool,
    /// Readable: idle clients are told now.
    tell: EventFd,
    /// Readable: nobody is accepted any more.
    stop: EventFd,
    clients: Mutex<Clients>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Clients {
    next: u64,
    open: u32,
    /// Those whose next request would be executed.
    untold: BTreeSet<u64>,
}

/// The thread that accepts; it ends with the time at which it stopped.
pub type Acceptor = JoinHandle<Instant>;

impl Server {
    pub fn new(store: Store, build: &str, writers: Writers, listener: TcpListener) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            store,
            build: build.into(),
            writers,
            listener,
            draining: AtomicBool::new(false),
            tell: EventFd::from_flags(flags)?,
            stop: EventFd::from_flags(flags)?,
            clients: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub fn start_accepting(self: &Arc<Self>) -> io::Result<Acceptor> {
        self.draining.store(false, Ordering::SeqCst);
        let _ = (self.tell.read(), self.stop.read()); // not readable is what they should be
        let server = Arc::clone(self);
        thread::Builder::new().name("accept".into()).spawn(move || server.accept())
    }

    /// Tells every client to go, and accepts new ones until those of before are told: who hangs up is served at once when it
    /// comes again. Accepting stops last. Returns when, and how many connections have not hung up yet.
    pub fn drain(&self, acceptor: Acceptor, left: impl Fn() -> Duration) -> (Instant, u32) {
        let left = || left().saturating_sub(MARGIN);
        let first_new = self.clients().next;
        self.draining.store(true, Ordering::SeqCst);
        self.wait_until_told(first_new, || left().min(LINGER));
        let _ = self.tell.write(1); // it can only be readable already
        self.wait_until_told(first_new, left);
        let _ = self.stop.write(1);
        let stopped = acceptor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.wait_until_told(u64::MAX, left);
        (stopped, self.clients().open)
    }

    /// Until all have hung up: a close with a request on the wire would be a reset.
    pub fn wait_for_hang_ups(&self) {
        let until = Instant::now() + HANG_UP;
        let mut clients = self.clients();
        while clients.open > 0 && Instant::now() < until {
            clients = self.wait(clients, until.saturating_duration_since(Instant::now()));
        }
    }

    /// Waits for those that were accepted before the client of this number.
    fn wait_until_told(&self, below: u64, left: impl Fn() -> Duration) {
        // The patience may end early, if the answer is not wanted any more.
        const LOOK_AGAIN: Duration = Duration::from_millis(5);
        let until = Instant::now() + left();
        let mut clients = self.clients();
        while clients.untold.first().is_some_and(|&first| first < below) {
            let patience = until.saturating_duration_since(Instant::now()).min(left());
            if patience.is_zero() {
                return;
            }
            clients = self.wait(clients, patience.min(LOOK_AGAIN));
        }
    }

    fn wait<'a>(&'a self, clients: MutexGuard<'a, Clients>, patience: Duration) -> MutexGuard<'a, Clients> {
        self.changed.wait_timeout(clients, patience).unwrap_or_else(PoisonError::into_inner).0
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>) -> Instant {
        loop {
            let [_, stop] = wait_for([self.listener.as_fd(), self.stop.as_fd()], None);
            if stop {
                return Instant::now();
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.serve(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => thread::sleep(Duration::from_millis(10)), // no descriptor left, until a client hangs up
            }
        }
    }

    fn serve(self: &Arc<Self>, stream: TcpStream) {
        let client = Client { ticket: self.enter(), stream, input: Vec::new(), asked: false };
        // No thread left: the client is hung up on before it has asked.
        let _ = thread::Builder::new().name("client".into()).stack_size(STACK_BYTES).spawn(|| client.serve());
    }

    fn enter(self: &Arc<Self>) -> Ticket {
        let mut clients = self.clients();
        let number = clients.next;
        clients.next += 1;
        clients.open += 1;
        clients.untold.insert(number);
        Ticket { server: Arc::clone(self), number }
    }

    /// The reply; None if it was not executed, since the data is not ours any more.
    fn execute(&self, line: &str) -> Option<String> {
        let _inside = self.writers.begin().ok()?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(match words[..] {
            ["SET", key, value] => match self.store.set(key, value) {
                Ok(revision) => format!("OK {revision}"),
                Err(error) => format!("ERR {error}"),
            },
            ["GET", key] => self.store.get(key).map_or("NONE".into(), |value| format!("VALUE {value}")),
            ["COUNT"] => {
                let (keys, revision) = self.store.count();
                format!("COUNT {keys} {revision}")
            }
            ["PING"] => format!("PONG {} {}", std::process::id(), self.build),
            _ => "ERR not a request".into(),
        })
    }
}

/// An open connection; when it is told, nothing of it is executed any more.
#[derive(Debug)]
struct Ticket {
    server: Arc<Server>,
    number: u64,
}

impl Ticket {
    fn told(&self) {
        self.server.clients().untold.remove(&self.number);
        self.server.changed.notify_all();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.server.clients().open -= 1;
        self.told();
    }
}

struct Client {
    ticket: Ticket,
    stream: TcpStream,
    input: Vec<u8>,
    /// It has had a reply.
    asked: bool,
}

impl Client {
    fn serve(mut self) {
        let told = self.talk();
        if told.is_ok_and(|told| told) {
            self.ticket.told();
            let mut rest = [0; LINE_BYTES_MAX];
            while wait_for([self.stream.as_fd()], Some(HANG_UP))[0] && self.stream.read(&mut rest).is_ok_and(|n| n > 0)
            {
            }
        }
    }

    /// Until the client hangs up, or is told to: then true.
    fn talk(&mut self) -> io::Result<bool> {
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(SEND))?;
        loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                if self.answer(&String::from_utf8_lossy(&line))? {
                    return Ok(true);
                }
            } else if self.input.len() >= LINE_BYTES_MAX {
                self.stream.write_all(b"ERR the line is too long\n")?;
                return Ok(false);
            } else if self.request_comes() {
                let mut part = [0; LINE_BYTES_MAX];
                match self.stream.read(&mut part)? {
                    0 => return Ok(false),
                    size => self.input.extend_from_slice(&part[..size]),
                }
            } else {
                self.stream.write_all(b"CLOSE\n")?;
                return Ok(true);
            }
        }
    }

    /// True: that was the last one.
    fn answer(&mut self, line: &str) -> io::Result<bool> {
        let server = &self.ticket.server;
        let reply = server.execute(line);
        let told = reply.is_none() || server.draining.load(Ordering::SeqCst);
        let reply = match (reply, told) {
            (None, _) => "CLOSE\n".into(),
            (Some(reply), true) => reply + " CLOSE\n",
            (Some(reply), false) => reply + "\n",
        };
        self.asked = true;
        self.stream.write_all(reply.as_bytes())?;
        Ok(told)
    }

    /// False: idle clients are told now, and this one has nothing to ask.
    fn request_comes(&self) -> bool {
        let stream = self.stream.as_fd();
        let [request, _] = wait_for([stream, self.ticket.server.tell.as_fd()], None);
        request || (!self.asked && wait_for([stream], Some(FIRST_REQUEST))[0])
    }
}

/// Waits until one of them is readable, and says which are.
fn wait_for<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Option<Duration>) -> [bool; N] {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let timeout = timeout.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
    let _ = poll(&mut polled, timeout); // EINTR can not be: no signal has a handler here
    polled.map(|fd| fd.any() == Some(true))
}

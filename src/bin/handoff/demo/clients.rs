//! The daemon's clients: a thread for each, and how they move to the successor.
//!
//! A request is a line: `SET key value`, `GET key`, `COUNT`, `PING`, `LINEAGE`. When the daemon drains, each client is parked as soon
//! as it has the reply to its last request: nobody reads of its connection until it is known who serves, and what was
//! read already moves with it.
//!
//! When the daemon stops, a reply that ends in ` CLOSE` is the last one, and a line `CLOSE` comes instead of one; no
//! request without a reply was executed. The client hangs up, connects again, and asks again. The daemon waits for the
//! hang-up, because a close with a request on the wire would be a reset.

use super::store::Store;
use handoff::Writers;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

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
    /// As LINEAGE says it.
    lineage: String,
    writers: Writers,
    listener: TcpListener,
    draining: AtomicBool,
    /// Nobody comes after us.
    stopping: AtomicBool,
    /// Readable while the daemon drains: wakes who accepts, and idle clients.
    drain: EventFd,
    clients: Mutex<Clients>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Clients {
    threads: u32,
    parked: Vec<Connection>,
}

/// A client's connection, with what was read of it and is not executed.
#[derive(Debug)]
pub struct Connection {
    pub stream: TcpStream,
    pub input: Vec<u8>,
}

/// The thread that accepts; it ends with the time at which it stopped.
pub type Acceptor = JoinHandle<Instant>;

impl Server {
    pub fn new(store: Store, build: &str, lineage: &str, writers: Writers, listener: TcpListener) -> io::Result<Self> {
        Ok(Self {
            store,
            build: build.into(),
            lineage: lineage.into(),
            writers,
            listener,
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            drain: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            clients: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub fn start_accepting(self: &Arc<Self>) -> io::Result<Acceptor> {
        let server = Arc::clone(self);
        thread::Builder::new().name("accept".into()).spawn(move || server.accept())
    }

    /// Stops accepting, and waits until no client has a thread. Returns when nobody accepted any more; and whether all
    /// have come to their end in time.
    pub fn drain(&self, acceptor: Acceptor, left: impl Fn() -> Duration) -> (Instant, bool) {
        // The patience may end early, if the answer is not wanted any more.
        const LOOK_AGAIN: Duration = Duration::from_millis(5);
        self.draining.store(true, Ordering::SeqCst);
        let _ = self.drain.write(1); // it can only be readable already
        let stopped = acceptor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let mut clients = self.clients();
        while clients.threads > 0 {
            let patience = left().saturating_sub(MARGIN);
            if patience.is_zero() {
                return (stopped, false);
            }
            let waited = self.changed.wait_timeout(clients, patience.min(LOOK_AGAIN));
            clients = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        (stopped, true)
    }

    /// Drains, and tells every client to hang up: nobody comes after us.
    pub fn stop(&self, acceptor: Acceptor, patience: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        let until = Instant::now() + patience;
        self.drain(acceptor, || until.saturating_duration_since(Instant::now()));
    }

    /// Shows every connection that is parked, until one fails.
    pub fn each_parked<E>(&self, each: impl FnMut(&Connection) -> Result<(), E>) -> Result<(), E> {
        self.clients().parked.iter().try_for_each(each)
    }

    /// Those that were given are the successor's: they are closed, without a shutdown, which it would feel, too.
    pub fn drop_parked(&self) {
        self.clients().parked.clear();
    }

    /// As if nothing had been: parked clients get threads again.
    pub fn resume(self: &Arc<Self>) {
        let parked = {
            let mut clients = self.clients();
            self.draining.store(false, Ordering::SeqCst);
            let _ = self.drain.read(); // not readable is what it should be
            std::mem::take(&mut clients.parked)
        };
        parked.into_iter().for_each(|connection| self.serve(connection));
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>) -> Instant {
        loop {
            let [_, drain] = wait_for([self.listener.as_fd(), self.drain.as_fd()], None);
            if drain {
                return Instant::now();
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.serve(Connection { stream, input: Vec::new() }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => thread::sleep(Duration::from_millis(10)), // no descriptor left, until a client hangs up
            }
        }
    }

    /// A connection that was accepted, or that came from the incumbent.
    pub fn serve(self: &Arc<Self>, connection: Connection) {
        let client = Client { ticket: Ticket::new(self), connection, asked: false };
        // No thread left: the client is hung up on before it has asked.
        let _ = thread::Builder::new().name("client".into()).stack_size(STACK_BYTES).spawn(|| client.serve());
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
            ["LINEAGE"] => format!("LINEAGE {}", self.lineage),
            ["PING"] => format!("PONG {} {}", std::process::id(), self.build),
            _ => "ERR not a request".into(),
        })
    }
}

/// A client's thread.
#[derive(Debug)]
struct Ticket(Arc<Server>);

impl Ticket {
    fn new(server: &Arc<Server>) -> Self {
        server.clients().threads += 1;
        Self(Arc::clone(server))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.clients().threads -= 1;
        self.0.changed.notify_all();
    }
}

/// How a client's thread ends.
enum End {
    HungUp,
    /// It was told to hang up.
    Told,
    /// The daemon drains, and somebody comes after it.
    Parked,
}

struct Client {
    ticket: Ticket,
    connection: Connection,
    /// It has had a reply.
    asked: bool,
}

impl Client {
    fn serve(mut self) {
        loop {
            match self.talk() {
                Ok(End::Parked) => match self.park() {
                    Some(back) => self = back,
                    None => return,
                },
                Ok(End::Told) => return self.wait_for_hang_up(),
                Ok(End::HungUp) | Err(_) => return,
            }
        }
    }

    /// What the client sends from here on is for whoever serves next; unless the drain was given up in between.
    fn park(self) -> Option<Self> {
        let Self { ticket, connection, asked } = self;
        let mut clients = ticket.0.clients();
        if !ticket.0.draining.load(Ordering::SeqCst) {
            drop(clients);
            return Some(Self { ticket, connection, asked });
        }
        clients.parked.push(connection);
        drop(clients);
        None
    }

    fn wait_for_hang_up(mut self) {
        let mut rest = [0; LINE_BYTES_MAX];
        let stream = &mut self.connection.stream;
        while wait_for([stream.as_fd()], Some(HANG_UP))[0] && stream.read(&mut rest).is_ok_and(|n| n > 0) {}
    }

    fn talk(&mut self) -> io::Result<End> {
        let stream = &self.connection.stream;
        stream.set_nonblocking(false)?; // whoever had it before may poll
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SEND))?;
        loop {
            let server = &self.ticket.0;
            let stopping = server.stopping.load(Ordering::SeqCst);
            let Connection { stream, input } = &mut self.connection;
            let end = input.iter().position(|&byte| byte == b'\n');
            if server.draining.load(Ordering::SeqCst) && !stopping {
                return Ok(End::Parked);
            } else if end.unwrap_or(input.len()) >= LINE_BYTES_MAX {
                stream.write_all(b"ERR the line is too long\n")?;
                return Ok(End::HungUp);
            } else if let Some(end) = end {
                let line: Vec<u8> = input.drain(..=end).collect();
                if self.answer(&String::from_utf8_lossy(&line))? {
                    return Ok(End::Told);
                }
            } else if request_comes(server, stream, self.asked) {
                let mut part = [0; LINE_BYTES_MAX];
                match stream.read(&mut part)? {
                    0 => return Ok(End::HungUp),
                    size => input.extend_from_slice(&part[..size]),
                }
            } else if stopping {
                stream.write_all(b"CLOSE\n")?;
                return Ok(End::Told);
            }
        }
    }

    /// True: that was the last one.
    fn answer(&mut self, line: &str) -> io::Result<bool> {
        let server = &self.ticket.0;
        let reply = server.execute(line);
        let told = reply.is_none() || server.stopping.load(Ordering::SeqCst);
        let reply = match (reply, told) {
            (None, _) => "CLOSE\n".into(),
            (Some(reply), true) => reply + " CLOSE\n",
            (Some(reply), false) => reply + "\n",
        };
        self.asked = true;
        self.connection.stream.write_all(reply.as_bytes())?;
        Ok(told)
    }
}

/// False: the daemon drains. If nobody comes after it, a client that has just connected is still heard: it is about to
/// ask.
fn request_comes(server: &Server, stream: &TcpStream, asked: bool) -> bool {
    let stream = stream.as_fd();
    let [request, _] = wait_for([stream, server.drain.as_fd()], None);
    if !server.stopping.load(Ordering::SeqCst) {
        return !server.draining.load(Ordering::SeqCst);
    }
    request || (!asked && wait_for([stream], Some(FIRST_REQUEST))[0])
}

/// Waits until one of them is readable, and says which are.
fn wait_for<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Option<Duration>) -> [bool; N] {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let timeout = timeout.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
    let _ = poll(&mut polled, timeout); // EINTR can not be: no signal has a handler here
    polled.map(|fd| fd.any() == Some(true))
}

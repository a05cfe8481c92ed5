//! Asking a daemon over the network whether it is ready, or well.
//!
//! N shares its listeners with O, which would answer, too. So an answer counts only if the connection was accepted by N or a process of
//! its: the kernel tells which socket is at the other end (`/proc/net/tcp`, sock_diag(7)), and `/proc/PID/fd` who has it.

use crate::limits::PROBE_TIMEOUT;
use crate::sys::fd::poll_now;
use crate::sys::listener::{connect_now, connect_unix_now, socket_at};
use crate::sys::proc::descriptors;
use crate::sys::session::members;
use crate::sys::unix_diag::peer_inode;
use nix::poll::PollFlags;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

/// Bytes of an answer that are looked at: its first line.
const ANSWER_BYTES: usize = 64;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where.
    pub address: HealthAddress,
    /// By HTTP, for this path, whose status must be 200 to 399; none: that it accepts is enough.
    pub path: Option<String>,
}

/// Where a daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthAddress {
    /// Over TCP.
    Tcp(SocketAddr),
    /// At this path. The kernel must have `CONFIG_UNIX_DIAG`, which also `ss -x` needs.
    Unix(PathBuf),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.path) {
            (HealthAddress::Tcp(address), Some(path)) => write!(f, "http://{address}{path}"),
            (HealthAddress::Tcp(address), None) => write!(f, "tcp://{address}"),
            (HealthAddress::Unix(socket), Some(path)) => {
                f.write_str("http+unix://")?;
                // In the place of a host there is no room for a slash.
                for c in socket.display().to_string().chars() {
                    match c {
                        '/' => f.write_str("%2F")?,
                        '%' => f.write_str("%25")?,
                        c => fmt::Write::write_char(f, c)?,
                    }
                }
                f.write_str(path)
            }
            (HealthAddress::Unix(socket), None) => write!(f, "unix:{}", socket.display()),
        }
    }
}

/// The probes of one process, one after the other.
#[derive(Debug)]
pub(super) struct Probe {
    health: Health,
    /// The leader of the session that must answer.
    leader: i32,
    attempt: Option<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    stream: Stream,
    since: Instant,
    /// N has it.
    accepted: bool,
    asked: bool,
    answer: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What has become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ready,
    Pending,
    Failed,
}

impl Probe {
    pub(super) fn new(health: Health, leader: i32) -> Self {
        Self { health, leader, attempt: None }
    }

    /// Another process is the one that must answer.
    pub(super) fn ask(&mut self, leader: i32) {
        self.leader = leader;
    }

    /// What is asked.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Goes on as far as is possible without waiting; after [`Step::Ready`] and [`Step::Failed`] from the beginning.
    pub(super) fn advance(&mut self) -> Step {
        if self.attempt.is_none() {
            self.attempt = Stream::connect(&self.health.address).ok().map(Attempt::new);
        }
        let Some(attempt) = &mut self.attempt else { return Step::Failed };
        let step = attempt.advance(&self.health, self.leader);
        if step != Step::Pending {
            self.attempt = None;
        }
        step
    }
}

impl Attempt {
    fn new(stream: Stream) -> Self {
        Self { stream, since: Instant::now(), accepted: false, asked: false, answer: Vec::new() }
    }

    fn advance(&mut self, health: &Health, leader: i32) -> Step {
        let late = if self.since.elapsed() >= PROBE_TIMEOUT { Step::Failed } else { Step::Pending };
        let flags = PollFlags::POLLERR | PollFlags::POLLHUP;
        match poll_now(self.stream.as_fd(), PollFlags::POLLOUT) {
            Ok(found) if found.intersects(flags) && !self.asked => return Step::Failed,
            Ok(found) if found.contains(PollFlags::POLLOUT) => {}
            Ok(_) => return late,
            Err(_) => return Step::Failed,
        }
        if !self.accepted {
            match self.owner_is(leader) {
                Some(true) => self.accepted = true,
                Some(false) => return Step::Failed, // O has it: it sees a client that says nothing
                None => return late,
            }
        }
        let Some(path) = &health.path else { return Step::Ready };
        if !self.asked {
            let host = match &health.address {
                HealthAddress::Tcp(address) => address.to_string(),
                HealthAddress::Unix(_) => "localhost".to_owned(), // as curl --unix-socket has it
            };
            let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            // It fits into the socket's buffer as a whole.
            if !matches!(self.stream.write(request.as_bytes()), Ok(len) if len == request.len()) {
                return Step::Failed;
            }
            self.asked = true;
        }
        self.read_answer().unwrap_or(late)
    }

    /// None while the first line is not there.
    fn read_answer(&mut self) -> Option<Step> {
        let mut bytes = [0; ANSWER_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Some(Step::Failed),
            Ok(len) => self.answer.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Err(_) => return Some(Step::Failed),
        }
        is_good(&self.answer).map(|good| if good { Step::Ready } else { Step::Failed })
    }

    /// Whether the other end is with this session; None while nobody has accepted it.
    fn owner_is(&self, leader: i32) -> Option<bool> {
        let inode = match self.stream.peer_inode() {
            Ok(inode) => inode?,
            Err(error) => {
                tracing::debug!(target: "handoff", "who has accepted a probe can not be told: {error}");
                return Some(false);
            }
        };
        let link = format!("socket:[{inode}]");
        let has = |pid: i32| {
            descriptors(pid).any(|fd| {
                fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|target| target.as_os_str() == link.as_str())
            })
        };
        Some(members(leader).into_iter().any(has))
    }
}

impl Stream {
    fn connect(address: &HealthAddress) -> io::Result<Self> {
        match address {
            HealthAddress::Tcp(address) => connect_now(*address).map(Self::Tcp),
            HealthAddress::Unix(path) => connect_unix_now(path).map(Self::Unix),
        }
    }

    /// Of the socket at the other end; None while nobody has accepted it.
    fn peer_inode(&self) -> io::Result<Option<String>> {
        match self {
            Self::Tcp(stream) => Ok(socket_at(stream.peer_addr()?, stream.local_addr()?)),
            Self::Unix(stream) => Ok(peer_inode(stream.as_fd())?.map(|inode| inode.to_string())),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Whether the status of an HTTP answer is 200 to 399; None if it is not there yet.
fn is_good(answer: &[u8]) -> Option<bool> {
    let line = answer.first_chunk::<12>()?;
    let digits = b'0'..=b'9';
    let is_well = line.starts_with(b"HTTP/1.")
        && matches!(line[8..], [b' ', b'2' | b'3', second, third] if digits.contains(&second) && digits.contains(&third));
    if !is_well {
        return Some(false);
    }
    // It has three digits (RFC 9112, 4); then comes a space, or, from some servers, the end of the line.
    answer.get(line.len()).map(|next| matches!(next, b' ' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_status_is_good_or_bad_or_not_there() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK\r\n", Some(true)),
            ("HTTP/1.0 399 x", Some(true)),
            ("HTTP/1.1 400 x", Some(false)),
            ("HTTP/1.1 199 x", Some(false)),
            ("HTTP/1.1 20", None),
            ("HTTP/1.1 200", None),
            ("HTTP/1.1 200\r", Some(true)),
            ("HTTP/1.1 2000 OK", Some(false)),
            ("HTTP/1.1 +200 OK", Some(false)),
            ("HTTP/1.10200 OK", Some(false)),
            ("SSH-2.0-OpenSSH", Some(false)),
            ("HTTP/1.1 xyz", Some(false)),
        ] {
            assert_eq!(is_good(answer.as_bytes()), good, "{answer}");
        }
    }

    /// As the driver does: attempt after attempt, each of which may be late on a machine that is busy, until it says yes.
    fn expect_ready(mut probe: Probe) {
        let until = Instant::now() + std::time::Duration::from_secs(60);
        while probe.advance() != Step::Ready {
            assert!(Instant::now() < until, "it never says that it is ready");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn only_the_answer_of_the_right_session_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = HealthAddress::Tcp(listener.local_addr().unwrap());
        let accepting = listener.try_clone().unwrap();
        let server = std::thread::spawn(move || {
            while let Ok((mut connection, _)) = accepting.accept() {
                let mut request = [0; 256];
                if connection.read(&mut request).is_ok_and(|len| len > 0) {
                    let _ = connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n"); // it may have given up
                }
            }
        });
        let own = nix::unistd::getpid().as_raw();
        let health = Health { address: address.clone(), path: Some("/ready".into()) };
        let mut stranger = Probe::new(health.clone(), i32::MAX);
        assert_ne!(stranger.advance(), Step::Ready);
        // Nobody else may have it: this connection is closed, and the next one taken by us.
        while stranger.attempt.is_some() {
            assert_ne!(stranger.advance(), Step::Ready);
        }
        expect_ready(Probe::new(health, own));
        expect_ready(Probe::new(Health { address, path: None }, own));
        nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        server.join().unwrap();
    }
}

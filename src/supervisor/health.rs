//! Asking a daemon over the network whether it is ready, or well.
//!
//! N shares its listeners with O, which would answer, too. So an answer counts only if the connection was accepted by N or a process of
//! its: the kernel tells which socket is at the other end (`/proc/net/tcp`, sock_diag(7)), and `/proc/PID/fd` who has it.

use crate::sys::clock::{monotonic_ns, nanoseconds};
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
use std::time::Duration;

/// The statuses that are good if nobody says otherwise: success, and redirections.
pub const GOOD_STATUSES: (u16, u16) = (200, 399);
/// Bytes of an answer that are looked at: its first line.
const ANSWER_BYTES: usize = 64;

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Health {
    /// Where.
    pub address: HealthAddress,
    /// By HTTP, for this path; none: that it accepts is enough.
    pub path: Option<String>,
    /// By HTTP: the statuses that are good, from the first to the last.
    pub status: (u16, u16),
}

/// Where a daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Probe {
    health: Health,
    /// The leader of the session that must answer; none: whoever does.
    leader: Option<i32>,
    /// How long an attempt may take.
    timeout: Duration,
    /// Each program asks anew.
    #[serde(skip)]
    attempt: Option<Attempt>,
    /// Why the last one has failed.
    why: String,
    /// One of them was [`CLOSED_AT_ONCE`].
    #[serde(default)]
    doubtful: bool,
}

#[derive(Debug)]
struct Attempt {
    stream: Stream,
    since_ns: u64,
    /// Whoever must answer has it.
    accepted: bool,
    asked: bool,
    answer: Vec<u8>,
}

/// Of a process beside another one that has the same listeners.
const CLOSED_AT_ONCE: &str = "a connection was accepted and closed at once, so nobody can tell by which of the two processes; let it keep the \
                              connection until the client closes it, or let it be asked by http";

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What has become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Ready,
    Pending,
    Failed,
}

impl Probe {
    /// Whoever answers in this time, or only the session of this leader.
    pub(crate) fn new(health: Health, leader: Option<i32>, timeout: Duration) -> Self {
        Self { health, leader, timeout, attempt: None, why: String::new(), doubtful: false }
    }

    /// Another process is the one that must answer, if one must.
    pub(super) fn ask(&mut self, leader: i32) {
        self.leader = self.leader.map(|_| leader);
    }

    /// What is asked.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Why the last attempt has failed.
    #[cfg(feature = "program")]
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// What is to be said of a process that may have answered, and was not found to have; or nothing.
    pub(super) fn doubt(&self) -> String {
        if self.doubtful { format!(": {}: {CLOSED_AT_ONCE}", self.health) } else { String::new() }
    }

    /// Goes on as far as is possible without waiting; after [`Step::Ready`] and [`Step::Failed`] from the beginning.
    pub(crate) fn advance(&mut self) -> Step {
        let step = self.step();
        let done = match step {
            Ok(None) => return Step::Pending,
            Ok(Some(())) => Step::Ready,
            Err(why) => {
                self.doubtful |= why == CLOSED_AT_ONCE;
                self.why = why;
                Step::Failed
            }
        };
        self.attempt = None;
        done
    }

    /// None while it is not known.
    fn step(&mut self) -> Result<Option<()>, String> {
        let attempt = match &mut self.attempt {
            Some(attempt) => attempt,
            None => {
                let stream = Stream::connect(&self.health.address).map_err(|error| error.to_string())?;
                self.attempt.insert(Attempt::new(stream))
            }
        };
        let done = attempt.advance(&self.health, self.leader)?;
        if done.is_none() && monotonic_ns().saturating_sub(attempt.since_ns) >= nanoseconds(self.timeout) {
            let what = if attempt.asked { "there was no answer" } else { "nobody accepted" };
            return Err(format!("{what} in {} s", self.timeout.as_secs_f64()));
        }
        Ok(done)
    }
}

impl Attempt {
    fn new(stream: Stream) -> Self {
        Self { stream, since_ns: monotonic_ns(), accepted: false, asked: false, answer: Vec::new() }
    }

    fn advance(&mut self, health: &Health, leader: Option<i32>) -> Result<Option<()>, String> {
        let flags = PollFlags::POLLERR | PollFlags::POLLHUP;
        let found =
            poll_now(self.stream.as_fd(), PollFlags::POLLOUT | PollFlags::POLLIN).map_err(|error| error.to_string())?;
        if found.intersects(flags) && !self.asked {
            return match self.stream.error() {
                Some(error) => Err(error.to_string()),
                None => closed_at_once(health, leader),
            };
        }
        if !found.contains(PollFlags::POLLOUT) {
            return Ok(None);
        }
        // An answer proves that somebody has, and anybody's is good if nobody is named.
        if !self.accepted && (leader.is_some() || health.path.is_none()) {
            match self.is_accepted(leader) {
                Some(true) => self.accepted = true,
                // O has it: it sees a client that says nothing
                Some(false) => return Err("another process has accepted".to_owned()),
                // A word, or an end that is no error, comes from whoever has accepted it, who is gone by now.
                None if found.contains(PollFlags::POLLIN) => return closed_at_once(health, leader),
                None => return Ok(None),
            }
        }
        let Some(path) = &health.path else { return Ok(Some(())) };
        if !self.asked {
            let host = match &health.address {
                HealthAddress::Tcp(address) => address.to_string(),
                HealthAddress::Unix(_) => "localhost".to_owned(), // as curl --unix-socket has it
            };
            let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            // It fits into the socket's buffer as a whole.
            if !matches!(self.stream.write(request.as_bytes()), Ok(len) if len == request.len()) {
                return Err("it takes no request".to_owned());
            }
            self.asked = true;
        }
        self.read_answer(health.status)
    }

    /// None while the first line is not there. Of what comes after it nothing is read.
    fn read_answer(&mut self, good: (u16, u16)) -> Result<Option<()>, String> {
        let mut bytes = [0; ANSWER_BYTES];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err("it has closed the connection without an answer".to_owned()),
            Ok(len) => self.answer.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        match status_of(&self.answer) {
            None => Ok(None),
            Some(Some(status)) if (good.0..=good.1).contains(&status) => Ok(Some(())),
            Some(Some(status)) => Err(format!("status {status}")),
            Some(None) => Err("its answer is no HTTP".to_owned()),
        }
    }

    /// Whether somebody has accepted it, who must be with this session; None while nobody has. With a listener that the supervisor holds,
    /// the kernel connects also when nobody is there.
    fn is_accepted(&self, leader: Option<i32>) -> Option<bool> {
        let inode = match self.stream.peer_inode() {
            Ok(inode) => inode?,
            Err(error) => {
                tracing::debug!(target: "handoff", "who has accepted a probe can not be told: {error}");
                return Some(leader.is_none());
            }
        };
        let Some(leader) = leader else { return Some(true) };
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

    /// Why it can not be used (`SO_ERROR`, socket(7)). The end of a listener is one for those that wait there.
    fn error(&self) -> Option<io::Error> {
        let error = match self {
            Self::Tcp(stream) => stream.take_error(),
            Self::Unix(stream) => stream.take_error(),
        };
        error.ok().flatten()
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

/// Somebody has accepted, and has closed it before anybody could see who.
fn closed_at_once(health: &Health, leader: Option<i32>) -> Result<Option<()>, String> {
    match (&health.path, leader) {
        (Some(_), _) => Err("it has hung up".to_owned()),
        (None, Some(_)) => Err(CLOSED_AT_ONCE.to_owned()),
        (None, None) => Ok(Some(())),
    }
}

/// The status of an HTTP answer; None if it is not there yet, Some(None) if this is no such answer.
fn status_of(answer: &[u8]) -> Option<Option<u16>> {
    let line = answer.first_chunk::<12>()?;
    let status =
        line[9..].iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')));
    let Some(status) = status.filter(|_| line.starts_with(b"HTTP/1.") && line[8] == b' ') else { return Some(None) };
    // It has three digits (RFC 9112, 4); then comes a space, or, from some servers, the end of the line.
    answer.get(line.len()).map(|next| matches!(next, b' ' | b'\r' | b'\n').then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PROBE_TIMEOUT;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_status_is_there_or_not_or_none_at_all() {
        for (answer, status) in [
            ("HTTP/1.1 200 OK\r\n", Some(Some(200))),
            ("HTTP/1.0 399 x", Some(Some(399))),
            ("HTTP/1.1 400 x", Some(Some(400))),
            ("HTTP/1.1 099 x", Some(Some(99))),
            ("HTTP/1.1 20", None),
            ("HTTP/1.1 200", None),
            ("HTTP/1.1 200\r", Some(Some(200))),
            ("HTTP/1.1 2000 OK", Some(None)),
            ("HTTP/1.1 +200 OK", Some(None)),
            ("HTTP/1.10200 OK", Some(None)),
            ("SSH-2.0-OpenSSH", Some(None)),
            ("HTTP/1.1 xyz", Some(None)),
        ] {
            assert_eq!(status_of(answer.as_bytes()), status, "{answer}");
        }
    }

    /// As the driver does: attempt after attempt, each of which may be late on a machine that is busy, until it says yes.
    fn expect_ready(mut probe: Probe) {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while probe.advance() != Step::Ready {
            assert!(std::time::Instant::now() < until, "it never says that it is ready");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The kernel connects also when nobody is there to accept.
    #[test]
    fn a_connection_that_nobody_accepts_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = HealthAddress::Tcp(listener.local_addr().unwrap());
        let health = Health { address, path: None, status: GOOD_STATUSES };
        let mut probe = Probe::new(health.clone(), None, Duration::from_millis(50));
        let mut last = probe.advance();
        while last == Step::Pending {
            last = probe.advance();
        }
        assert_eq!((last, probe.why()), (Step::Failed, "nobody accepted in 0.05 s"));
        let mut probe = Probe::new(health, None, Duration::from_secs(60));
        assert_eq!(probe.advance(), Step::Pending);
        // The first one has hung up meanwhile.
        let _accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
        expect_ready(probe);
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
        let health = Health { address: address.clone(), path: Some("/ready".into()), status: GOOD_STATUSES };
        let mut stranger = Probe::new(health.clone(), Some(i32::MAX), PROBE_TIMEOUT);
        assert_ne!(stranger.advance(), Step::Ready);
        // Nobody else may have it: this connection is closed, and the next one taken by us.
        while stranger.attempt.is_some() {
            assert_ne!(stranger.advance(), Step::Ready);
        }
        expect_ready(Probe::new(health, Some(own), PROBE_TIMEOUT));
        expect_ready(Probe::new(Health { address, path: None, status: GOOD_STATUSES }, Some(own), PROBE_TIMEOUT));
        nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        server.join().unwrap();
    }
}

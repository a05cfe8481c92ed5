//! The supervisor's end of the control socket. Nothing here waits for a client.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use handoff::limits::{CLIENT_IDLE, CLIENTS_MAX};
use handoff::service::address::{Address, ListenSpec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::Value;

use super::connection::Connection;
use super::{ErrorCode, Request, RpcError, answer_line, notification_line, parse_request};

/// After an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A connection. Numbers are never used again.
pub type Client = u64;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Server {
    #[serde(with = "handoff::sys::inherit::fd")]
    listener: UnixListener,
    path: PathBuf,
    clients: BTreeMap<Client, Connection>,
    next: Client,
    #[serde(skip)]
    accept_after: Option<Instant>,
}

/// A request, and where its answer goes.
#[derive(Debug)]
pub struct Call {
    pub client: Client,
    pub id: Value,
    pub request: Request,
}

/// What a descriptor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Listener,
    Client(Client),
}

fn listen(path: &Path) -> handoff::Result<UnixListener> {
    let (name, address) = ("control socket".to_owned(), Address::Unix(path.to_owned()));
    let spec = ListenSpec { name, address, blocking: false, backlog: None, mode: Some(0o600), sockets: 1 };
    Ok(UnixListener::from(spec.bind()?.fd))
}

impl Server {
    /// Listens at `path`, mode 0600. The socket of a dead supervisor is replaced.
    pub fn bind(path: &Path) -> handoff::Result<Self> {
        let listener = listen(path)?;
        Ok(Self { listener, path: path.to_owned(), clients: BTreeMap::new(), next: 0, accept_after: None })
    }

    /// In the place of a socket that somebody has removed; who has connected before is still heard.
    pub fn bind_again(&mut self) -> handoff::Result<()> {
        self.listener = listen(&self.path)?;
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to poll, and for what.
    pub fn interests(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let listener = (Source::Listener, self.listener.as_fd(), PollFlags::POLLIN);
        let listener = self.accept_after.is_none().then_some(listener);
        let clients = self.clients.iter();
        let clients =
            clients.map(|(client, connection)| (Source::Client(*client), connection.as_fd(), connection.interest()));
        listener.into_iter().chain(clients)
    }

    /// When [`Self::tidy`] has work.
    pub fn next_due(&self) -> Option<Instant> {
        let idle = self.clients.values().filter(|connection| connection.is_idle());
        let clients = idle.map(|connection| connection.seen + CLIENT_IDLE);
        clients.chain(self.accept_after).min()
    }

    /// Forgets clients that are done or silent.
    pub fn tidy(&mut self) {
        let now = Instant::now();
        self.accept_after = self.accept_after.filter(|after| *after > now);
        let silent = |connection: &Connection| connection.is_idle() && connection.seen + CLIENT_IDLE <= now;
        self.clients.retain(|_, connection| !connection.is_done() && !silent(connection));
    }

    /// Deals with a descriptor that is ready; the requests that came.
    pub fn on_ready(&mut self, source: Source, events: PollFlags) -> Vec<Call> {
        let client = match source {
            Source::Listener => {
                // One at a time: the next poll tells of others. What it asks is mostly there already.
                let new = self.next;
                self.accept();
                new
            }
            Source::Client(client) => client,
        };
        let Some(connection) = self.clients.get_mut(&client) else { return Vec::new() };
        connection.flush();
        if !events.intersects(PollFlags::POLLIN | PollFlags::POLLERR | PollFlags::POLLHUP) {
            return Vec::new();
        }
        let lines = connection.read_lines();
        if events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP)
            && !matches!(&lines, Ok(lines) if !lines.is_empty())
        {
            connection.hung_up();
        }
        match lines {
            Ok(lines) => lines.iter().filter_map(|line| self.understand(client, line)).collect(),
            Err(what) => {
                self.answer(client, &Value::Null, Err(RpcError::new(ErrorCode::InvalidRequest, what)));
                self.clients.get_mut(&client).into_iter().for_each(Connection::close_after_answer);
                Vec::new()
            }
        }
    }

    fn understand(&mut self, client: Client, line: &[u8]) -> Option<Call> {
        self.clients.get_mut(&client)?.pending += 1;
        let (id, request) = parse_request(line);
        match request {
            Ok(request) => Some(Call { client, id, request }),
            Err(error) => {
                self.answer(client, &id, Err(error));
                None
            }
        }
    }

    /// Says whether there was one.
    fn accept(&mut self) -> bool {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                let passes = [ErrorKind::WouldBlock, ErrorKind::Interrupted, ErrorKind::ConnectionAborted];
                if !passes.contains(&error.kind()) {
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                }
                return false;
            }
        };
        self.admit(stream);
        true
    }

    fn admit(&mut self, stream: UnixStream) {
        if self.clients.len() >= CLIENTS_MAX {
            self.evict();
        }
        let peer = getsockopt(&stream, PeerCredentials);
        let allowed = peer.as_ref().is_ok_and(|peer| peer.uid() == geteuid().as_raw() || peer.uid() == 0);
        let Ok(mut connection) = Connection::new(stream) else { return };
        let refusal = if !allowed {
            let (pid, uid) = peer.map_or((0, u32::MAX), |peer| (peer.pid(), peer.uid()));
            tracing::warn!(target: "handoff", pid, uid, "refused: another user connected to the control socket");
            RpcError::new(ErrorCode::NotAllowed, "only the same user and root may command this supervisor")
        } else if self.clients.len() >= CLIENTS_MAX {
            let text = format!("{CLIENTS_MAX} clients wait for something already; end one of them, or try again later");
            RpcError::new(ErrorCode::TooMany, text)
        } else {
            self.clients.insert(self.next, connection);
            self.next += 1;
            return;
        };
        connection.send(&answer_line(&Value::Null, Err(refusal)));
    }

    /// Makes room: of those to whom no answer is owed, whoever has asked, or read, nothing for the longest time goes.
    fn evict(&mut self) {
        let free = self.clients.iter().filter(|(_, connection)| connection.pending == 0);
        if let Some(client) = free.min_by_key(|(_, connection)| connection.seen).map(|(client, _)| *client) {
            self.clients.remove(&client);
        }
    }

    /// Whether it is still there.
    pub fn has(&self, client: Client) -> bool {
        self.clients.contains_key(&client)
    }

    /// Answers a request.
    pub fn answer(&mut self, client: Client, id: &Value, answer: Result<Value, RpcError>) {
        if let Some(connection) = self.clients.get_mut(&client) {
            connection.pending = connection.pending.saturating_sub(1);
            connection.send(&answer_line(id, answer));
        }
    }

    /// Bytes that wait for a client to read; none if it is gone.
    pub fn unread(&self, client: Client) -> Option<usize> {
        self.clients.get(&client).map(Connection::unread)
    }

    /// Sends whole lines to a client that has little unread.
    pub fn send(&mut self, client: Client, lines: &str) {
        if let Some(connection) = self.clients.get_mut(&client) {
            connection.send(lines);
        }
    }

    /// Tells a client of something on the way.
    pub fn notify(&mut self, client: Client, method: &str, params: Value) {
        if let Some(connection) = self.clients.get_mut(&client) {
            connection.send_if_read(&notification_line(method, params));
        }
    }

    /// The same, if no more than `unread` bytes wait for it already: says whether it will hear of it.
    pub fn notify_within(&mut self, client: Client, method: &str, params: Value, unread: usize) -> bool {
        let connection = self.clients.get_mut(&client).filter(|connection| connection.unread() <= unread);
        connection.map(|connection| connection.send(&notification_line(method, params))).is_some()
    }

    /// Something is always owed to it: it may be silent for as long as it likes.
    pub fn keep(&mut self, client: Client) {
        self.clients.get_mut(&client).into_iter().for_each(|connection| connection.pending += 1);
    }

    /// At the end: nobody connects any more, and what those ask who have connected is heard; if they are new, also if they take a moment.
    pub fn last_calls(&mut self, patience: Duration) -> Vec<Call> {
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both); // whoever waits in its queue can still be accepted
        let (end, new) = (Instant::now() + patience, self.next);
        while self.accept() {}
        let mut calls = Vec::new();
        loop {
            for client in self.clients.keys().copied().collect::<Vec<_>>() {
                calls.extend(self.on_ready(Source::Client(client), PollFlags::POLLIN));
            }
            self.tidy();
            let silent = self.clients.range(new..).filter(|(_, connection)| connection.is_idle());
            let mut silent: Vec<PollFd<'_>> =
                silent.map(|(_, connection)| PollFd::new(connection.as_fd(), PollFlags::POLLIN)).collect();
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            if silent.is_empty() || left == 0 {
                return calls;
            }
            let _ = poll(&mut silent, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
        }
    }

    /// Sends the last answers, as far as that is possible without waiting, and removes the socket's name.
    pub fn close(mut self) {
        self.clients.values_mut().for_each(Connection::flush);
        let _ = std::fs::remove_file(&self.path);
    }
}

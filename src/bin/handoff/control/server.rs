//! The supervisor's end of the control socket. Nothing here waits for a client.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use handoff::limits::{CLIENT_IDLE, CLIENTS_MAX};
use handoff::service::address::{Address, ListenSpec};
use nix::poll::PollFlags;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::Value;

use super::connection::Connection;
use super::{ErrorCode, Request, RpcError, answer_line, notification_line, parse_request};

/// After an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A connection. Numbers are never used again.
pub type Client = u64;

#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: BTreeMap<Client, Connection>,
    next: Client,
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

impl Server {
    /// Listens at `path`, mode 0600. The socket of a dead supervisor is replaced.
    pub fn bind(path: &Path) -> handoff::Result<Self> {
        let address = Address::Unix(path.to_owned());
        let name = "control socket".to_owned();
        let spec = ListenSpec { name, address, blocking: false, backlog: None, mode: Some(0o600), sockets: 1 };
        let listener = UnixListener::from(spec.bind()?.fd);
        Ok(Self { listener, path: path.to_owned(), clients: BTreeMap::new(), next: 0, accept_after: None })
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
                self.accept();
                return Vec::new();
            }
            Source::Client(client) => client,
        };
        let Some(connection) = self.clients.get_mut(&client) else { return Vec::new() };
        connection.flush();
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

    /// One at a time: the next poll tells of others.
    fn accept(&mut self) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock
                | std::io::ErrorKind::Interrupted
                | std::io::ErrorKind::ConnectionAborted => return,
                _ => return self.accept_after = Some(Instant::now() + ACCEPT_PAUSE),
            },
        };
        if self.clients.len() >= CLIENTS_MAX {
            self.evict();
        }
        let peer = getsockopt(&stream, PeerCredentials);
        let allowed = peer.as_ref().is_ok_and(|peer| peer.uid() == geteuid().as_raw() || peer.uid() == 0);
        let Ok(mut connection) = Connection::new(stream) else { return };
        if !allowed {
            let (pid, uid) = peer.map_or((0, u32::MAX), |peer| (peer.pid(), peer.uid()));
            tracing::warn!(target: "handoff", pid, uid, "refused: another user connected to the control socket");
            let error = RpcError::new(ErrorCode::NotAllowed, "only the same user and root may command this supervisor");
            connection.send(&answer_line(&Value::Null, Err(error)));
            return;
        }
        if self.clients.len() < CLIENTS_MAX {
            self.clients.insert(self.next, connection);
            self.next += 1;
        }
    }

    /// Makes room: whoever has asked nothing for the longest time goes.
    fn evict(&mut self) {
        let idle = self.clients.iter().filter(|(_, connection)| connection.is_idle());
        if let Some(client) = idle.min_by_key(|(_, connection)| connection.seen).map(|(client, _)| *client) {
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

    /// Tells a client of something on the way.
    pub fn notify(&mut self, client: Client, method: &str, params: Value) {
        if let Some(connection) = self.clients.get_mut(&client) {
            connection.send_if_read(&notification_line(method, params));
        }
    }

    /// Sends the last answers, as far as that is possible without waiting, and removes the socket's name.
    pub fn close(mut self) {
        self.clients.values_mut().for_each(Connection::flush);
        let _ = std::fs::remove_file(&self.path);
    }
}

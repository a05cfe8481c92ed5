//! N's side.

use crate::error::{Error, Result};
use crate::limits::UNTAKEN_GRACE;
use crate::participant::core::{Core, End, Machine, Timer};
use crate::participant::handle::Participant;
use crate::participant::trace;
use crate::protocol::message::{Message, Sealed};
use crate::protocol::successor::{Input, Phase};
use crate::protocol::transfer::{Connection, State, Taker, Totals};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::crash;
use crate::sys::fd::{Kind, identify};
use crate::sys::memfd::{Mapping, is_sealed};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A connection that the incumbent gave.
#[derive(Debug)]
pub struct TransferredConnection {
    /// Yours: the same description that the incumbent had. Modes of the description (`O_NONBLOCK`) are as it left them.
    pub fd: OwnedFd,
    /// The name that it was given.
    pub name: Vec<u8>,
    /// What the incumbent's application said of it.
    pub state: Vec<u8>,
}

/// A blob of state, mapped read-only.
#[derive(Clone, Debug)]
pub struct StateBytes(Arc<Mapping>);

impl std::ops::Deref for StateBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// What N has from O, and its application has not taken.
#[derive(Debug, Default)]
pub(in crate::participant) struct Received {
    taker: Taker,
    /// O's last word: what it sent.
    sent: Option<Totals>,
    /// Overlap mode: more has come than the application has heard of, or it has not taken all.
    news: bool,
    connections: VecDeque<(OwnedFd, Connection)>,
    blobs: BTreeMap<Vec<u8>, Blob>,
}

impl Received {
    pub(super) fn tell(&mut self) {
        self.news = true;
    }

    pub(super) fn has_news(&self) -> bool {
        self.news && !self.connections.is_empty()
    }

    pub(super) fn waiting(&self) -> usize {
        self.connections.len()
    }

    /// The application hears of it.
    pub(in crate::participant) fn told(&mut self) {
        self.news = false;
    }
}

#[derive(Debug)]
struct Blob {
    /// None once it was taken.
    fd: Option<OwnedFd>,
    mapped: Option<StateBytes>,
}

impl Participant {
    /// The next connection that the incumbent gave, in its order; none if there is no more. Call it when the process serves:
    /// until then the connections are the incumbent's. A connection that is not taken within ten seconds after the commit, or
    /// after the one before was taken, is closed, with a warning in the log. In overlap mode more may come: see
    /// [`crate::participant::EventKind::Connections`]. (any thread)
    ///
    /// # Errors
    /// [`Error::State`]: this process does not serve yet. [`Error::Aborted`]: exit.
    pub fn next_connection(&self) -> Result<Option<TransferredConnection>> {
        self.shared.check_fork()?;
        self.shared.with(Core::take_connection)?
    }

    /// A blob that the incumbent gave as a copy, mapped read-only for as long as the result lives. (owner, after begin)
    ///
    /// # Errors
    /// [`Error::NoName`]: it gave none under this key, and so for a process that follows nobody. [`Error::State`]: not before
    /// the data may be opened. [`Error::Invalid`]: it gave a descriptor of its own: [`Participant::take_state_fd`].
    pub fn state(&self, key: &[u8]) -> Result<StateBytes> {
        let _inside = self.enter()?;
        self.shared.with(|core| core.map_state(key))?
    }

    /// The memfd or the file that the incumbent gave, or the sealed memory of a copy; once. It may be written when this
    /// process serves, not before: until then the incumbent may have to go on with it. (owner, after begin)
    ///
    /// # Errors
    /// [`Error::NoName`]: it gave none under this key, or it was taken. [`Error::State`]: as [`Participant::state`].
    pub fn take_state_fd(&self, key: &[u8]) -> Result<OwnedFd> {
        let _inside = self.enter()?;
        self.shared.with(|core| core.blob(key)?.fd.take().ok_or_else(|| no_blob(key)))?
    }
}

fn no_blob(key: &[u8]) -> Error {
    Error::NoName(format!("there is no state '{}'", String::from_utf8_lossy(key)))
}

impl Core {
    /// A batch has come.
    pub(in crate::participant) fn receive(&mut self, message: Message, fds: Vec<OwnedFd>) {
        match self.try_receive(message, fds) {
            Ok(answer) => self.tell(&answer),
            Err(why) => {
                trace::failed(None, &why, "the transfer has failed");
                self.received = Received::default();
                self.feed_successor(Input::TransferFailed(why));
            }
        }
    }

    pub(super) fn try_receive(&mut self, message: Message, fds: Vec<OwnedFd>) -> std::result::Result<Message, String> {
        if fds.is_empty() {
            return Err(Error::no_room("descriptors from the incumbent", "the successor").to_string());
        }
        let received = &mut self.received;
        match message {
            Message::Connections(m) => {
                let answer = received.taker.connections(&m)?;
                check_files(&m.connections, &fds)?;
                received.connections.extend(fds.into_iter().zip(m.connections));
                Ok(answer)
            }
            Message::State(m) => {
                let answer = received.taker.state(&m)?;
                let fd = fds.into_iter().next().filter(|fd| is_what_it_says(fd, &m));
                let fd =
                    fd.ok_or_else(|| format!("state '{}' is not what it says", String::from_utf8_lossy(&m.key)))?;
                received.blobs.insert(m.key, Blob { fd: Some(fd), mapped: None });
                Ok(answer)
            }
            other => Err(format!("{} is no part of a transfer", other.name())),
        }
    }

    /// O's last word on the transfer socket.
    pub(in crate::participant) fn note_sent(&mut self, sent: Totals) {
        self.received.sent = Some(sent);
    }

    /// Whether everything has come. From an O that died before it said so, nothing is used: what it had left to give is not
    /// known.
    pub(in crate::participant) fn settle_received(&mut self, sealed: &Sealed) -> Result<()> {
        crash::point('N', format_args!("settle what was given"));
        let complete = match self.received.sent {
            Some(sent) => self.received.taker.check(sent),
            None => Err("the incumbent died before it had given everything".into()),
        };
        if let Err(why) = complete {
            if matches!(sealed, Sealed::Complete { .. }) {
                return Err(Error::Protocol(why));
            }
            let Totals { connections, blobs, .. } = self.received.taker.totals();
            if connections + blobs > 0 {
                trace::lost(connections, Some(blobs), Some(&why), "what the incumbent gave is dropped");
            }
            self.received = Received::default();
        }
        let totals = self.received.taker.totals();
        self.feed_successor(Input::Received(totals));
        Ok(())
    }

    /// This process will not serve, or not with them: its copies are closed, without shutdown.
    pub(in crate::participant) fn drop_received(&mut self) {
        self.received = Received::default();
        self.timers.disarm(Timer::Untaken);
    }

    /// Clients whose connections nobody takes would wait for ever.
    pub(in crate::participant) fn close_untaken(&mut self) {
        let connections = self.received.connections.len();
        if connections > 0 {
            trace::lost(connections as u64, None, None, "connections of the incumbent were not taken, and are closed");
        }
        crash::around('N', format_args!("close untaken connections"), || self.received.connections.clear());
    }

    pub(in crate::participant) fn watch_untaken(&mut self) {
        if self.received.connections.is_empty() {
            self.timers.disarm(Timer::Untaken);
        } else {
            self.timers.arm(Timer::Untaken, monotonic_ns() + nanoseconds(UNTAKEN_GRACE));
        }
    }

    fn take_connection(&mut self) -> Result<Option<TransferredConnection>> {
        if let Some(End::Aborted(reason)) = &self.end {
            return Err(Error::Aborted(reason.clone()));
        }
        self.check_ready()?;
        let next = self.received.connections.pop_front();
        self.received.news |= next.is_some(); // of those that are left
        if next.is_some() {
            crash::point('N', format_args!("show a connection"));
        }
        if self.served && next.is_some() {
            self.watch_untaken();
        }
        Ok(next.map(|(fd, Connection { name, state, .. })| TransferredConnection { fd, name, state }))
    }

    fn blob(&mut self, key: &[u8]) -> Result<&mut Blob> {
        use Phase::{AwaitCommitted, Committing, Opening, Won};
        let begun = match &self.machine {
            Machine::Successor(machine) => matches!(machine.phase(), Opening | AwaitCommitted | Committing | Won),
            Machine::Incumbent(_) => self.cold_begun || self.served,
        };
        if !begun && self.end.is_none() {
            return Err(Error::State("state is there when the data may be opened: after wait_for_begin".into()));
        }
        self.received.blobs.get_mut(key).ok_or_else(|| no_blob(key))
    }

    fn map_state(&mut self, key: &[u8]) -> Result<StateBytes> {
        let blob = self.blob(key)?;
        if let Some(mapped) = &blob.mapped {
            return Ok(mapped.clone());
        }
        let Some(fd) = &blob.fd else { return Err(no_blob(key)) };
        if !is_sealed(fd.as_fd()) {
            let key = String::from_utf8_lossy(key);
            return Err(Error::Invalid(format!("state '{key}' is a descriptor of the incumbent's own: take it")));
        }
        let mapped = Mapping::new(fd.as_fd()).map_err(Error::system("map state"))?;
        Ok(blob.mapped.insert(StateBytes(Arc::new(mapped))).clone())
    }
}

/// O sends the numbers that its application keeps open; one that was closed may be another file by then.
fn check_files(connections: &[Connection], fds: &[OwnedFd]) -> std::result::Result<(), String> {
    let is_it = |(connection, fd): &(&Connection, &OwnedFd)| {
        identify(fd.as_fd()).is_ok_and(|(_, file, _)| file == connection.file)
    };
    match connections.iter().zip(fds).find(|pair| !is_it(pair)) {
        Some((connection, _)) => {
            let name = String::from_utf8_lossy(&connection.name);
            Err(format!("connection '{name}' was closed by the incumbent before the end of the handoff"))
        }
        None => Ok(()),
    }
}

/// A file, and if it is said to be a copy, one that nobody can change.
fn is_what_it_says(fd: &OwnedFd, message: &State) -> bool {
    match identify(fd.as_fd()) {
        Ok((Kind::File, _, size)) => !message.sealed || (is_sealed(fd.as_fd()) && size == message.size),
        _ => false,
    }
}

//! O's side.

use crate::channel::{Channel, ChannelError};
use crate::error::{Error, Result};
use crate::limits::{CONNECTION_STATE_BYTES_MAX, NAME_BYTES_MAX, SEND_RETRY};
use crate::participant::core::Core;
use crate::participant::event::Event;
use crate::participant::handle::Participant;
use crate::participant::trace;
use crate::protocol::message::{Message, Mode, PrepareHandoff};
use crate::protocol::transfer::{Connection, Giver, Identity, Totals};
use crate::sys::clock::monotonic_ns;
use crate::sys::crash;
use crate::sys::fd::{Kind, identify, is_open};
use crate::sys::limits::open_descriptors;
use crate::sys::memfd::sealed_copy;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// What O gives in this handoff.
#[derive(Debug)]
pub(in crate::participant) struct Giving {
    giver: Giver,
    /// The application's own numbers, one for each connection of the batch that is being filled: it keeps them open.
    fds: Vec<RawFd>,
    /// Sockets and files that are the library's own, which must not be given.
    own: Vec<(u64, u64)>,
    /// Overlap mode: what was put is sent. One that waits here would be lost with an N that takes nothing any more.
    prompt: bool,
    /// Readable if N has taken a batch since somebody had to wait.
    taken: Arc<EventFd>,
}

impl Giving {
    pub(in crate::participant) fn totals(&self) -> Totals {
        self.giver.totals()
    }

    /// Connections that N does not have, as far as is known.
    pub(super) fn untaken(&self) -> u64 {
        self.giver.untaken()
    }
}

/// What a transfer needs could not be opened.
fn no_room(error: std::io::Error) -> Error {
    match error.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32) {
        true => Error::no_room("the descriptors of a transfer", "this process"),
        false => Error::system("prepare a transfer")(error),
    }
}

/// Whether an attempt is through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Done,
    /// N must take something first.
    Wait,
}

/// How long, and for what, somebody who has to give waits.
struct Wait {
    taken: Arc<EventFd>,
    left: Duration,
}

impl Participant {
    /// Gives the successor a duplicate of a connection, or of any other descriptor but a directory, with a `name` of 1 to 255
    /// bytes and up to 60 KiB of `state`. Waits while the successor has not taken what was given before, at most until the
    /// event's deadline. (any thread, in a drain or a seal)
    ///
    /// The connection stays the application's: it must leave it open and untouched until the end of the handoff. After
    /// [`super::super::EventKind::Replaced`] it belongs to the successor, and must not be shut down (shutdown(2) is felt by
    /// both); after a resume everything is as it was.
    ///
    /// # Errors
    /// [`Error::Stale`]: the event is over, or the successor is gone. [`Error::State`]: none is open. [`Error::Refused`]: the
    /// successor takes nothing. [`Error::Duplicate`]: this socket, or this number, was given already. [`Error::TooBig`]. [`Error::Invalid`]:
    /// the name is empty, or the descriptor is a directory, or the library's own.
    pub fn put_connection(&self, fd: impl AsFd, name: &[u8], state: &[u8]) -> Result<()> {
        let fd = fd.as_fd();
        check_name("name", name)?;
        if state.len() > CONNECTION_STATE_BYTES_MAX {
            return Err(Error::TooBig(format!(
                "{} bytes of state, a connection has at most {CONNECTION_STATE_BYTES_MAX}: give more as a blob of state",
                state.len()
            )));
        }
        let (kind, file, _) = identify(fd).map_err(Error::system("fstat"))?;
        let number = fd.as_raw_fd();
        if kind == Kind::Directory {
            return Err(Error::Invalid(format!("descriptor {number} is a directory")));
        }
        self.check_foreign(fd)?;
        let identity = if kind == Kind::Socket { Identity::Socket(file.0, file.1) } else { Identity::Number(number) };
        let mut connection = Some(Connection { file, name: name.to_vec(), state: state.to_vec() });
        self.give(None, |core| {
            let (giving, transfer) = core.giving()?;
            if giving.own.contains(&file) && matches!(kind, Kind::Socket | Kind::File) {
                return Err(Error::Invalid(format!("descriptor {number} is the library's own")));
            }
            if giving.giver.has_connection(identity) {
                return Err(Error::Duplicate(format!(
                    "descriptor {number}, or one of the same socket, was given already"
                )));
            }
            giving.add(transfer, fd, identity, &mut connection)
        })
    }

    /// Gives the successor a copy of a blob, in sealed memory (memfd_create(2)), under a key of 1 to 255 bytes. Waits as
    /// [`Participant::put_connection`]. (any thread, in a drain or a seal)
    ///
    /// # Errors
    /// As [`Participant::put_connection`]; [`Error::Duplicate`]: the key was used already in this handoff. [`Error::System`]: no
    /// memory.
    pub fn put_state(&self, key: &[u8], data: &[u8]) -> Result<()> {
        check_name("key", key)?;
        // Before the copy, which may be large.
        self.shared.check_fork()?;
        self.shared.with(|core| core.events.giving().and_then(|_| core.check_key(key)))??;
        let copied = crash::around('O', format_args!("copy state"), || sealed_copy(data));
        let copy = copied.map_err(Error::system(format!("copy {} bytes of state", data.len())))?;
        self.give(None, |core| core.try_state(key, copy.as_fd(), data.len() as u64, true))
    }

    /// Gives the successor a memfd or a file of the application's own: of any size, without a copy, and not sealed, so that it
    /// can be written again after a rollback. It must not be changed until the end of the handoff. Otherwise as
    /// [`Participant::put_state`]. (any thread, in a drain or a seal)
    ///
    /// # Errors
    /// As [`Participant::put_state`]; [`Error::Invalid`]: neither a memfd nor a file, or the library's own.
    pub fn put_state_fd(&self, key: &[u8], fd: impl AsFd) -> Result<()> {
        let fd = fd.as_fd();
        check_name("key", key)?;
        let (kind, file, size) = identify(fd).map_err(Error::system("fstat"))?;
        if kind != Kind::File {
            return Err(Error::Invalid(format!("descriptor {} is neither a memfd nor a file", fd.as_raw_fd())));
        }
        self.give(None, |core| {
            if core.giving()?.0.own.contains(&file) {
                return Err(Error::Invalid(format!("descriptor {} is the library's own", fd.as_raw_fd())));
            }
            core.try_state(key, fd, size, false)
        })
    }

    /// Waits until the successor has everything that was given.
    pub(in crate::participant) fn finish_giving(&self, event: u64) -> Result<()> {
        self.give(Some(event), Core::try_finish)
    }

    /// Descriptors that have no file by which they could be known.
    fn check_foreign(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let number = fd.as_raw_fd();
        let own = [self.poll_fd(), self.cancel_fd(), self.shared.sources()];
        match own.iter().any(|own| own.as_raw_fd() == number) {
            true => Err(Error::Invalid(format!("descriptor {number} is the library's own"))),
            false => Ok(()),
        }
    }

    /// Attempts, and waits in between, until it is done, or the event is over.
    fn give(&self, event: Option<u64>, mut attempt: impl FnMut(&mut Core) -> Result<Attempt>) -> Result<()> {
        self.shared.check_fork()?;
        let (mut event, mut waited) = (event, false);
        loop {
            let wait = self.shared.with(|core| {
                if waited {
                    core.pump(); // without a helper nobody else does
                }
                let open = match event {
                    Some(id) => core.events.look(id)?,
                    None => core.events.giving()?,
                };
                event = Some(open.id);
                let attempted = match attempt(core) {
                    Ok(Attempt::Done) => Ok(None),
                    Ok(Attempt::Wait) => core.wait_for_taken(open).map(Some),
                    Err(error) => Err(error),
                };
                attempted.map_err(|error| core.explain(open, error))
            })??;
            let Some(Wait { taken, left }) = wait else { return Ok(()) };
            waited = true;
            // A cancelled event, an end of the session or a heartbeat wakes it, too.
            let sources = self.shared.sources();
            let mut polled = [taken.as_fd(), self.cancel_fd(), sources].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let timeout = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut polled, timeout); // interrupted: it is looked at again
        }
    }
}

fn check_name(what: &str, name: &[u8]) -> Result<()> {
    match name.len() {
        0 => Err(Error::Invalid(format!("the {what} is empty"))),
        1..=NAME_BYTES_MAX if !name.contains(&0) => Ok(()),
        1..=NAME_BYTES_MAX => Err(Error::Invalid(format!("the {what} has a NUL inside"))),
        length => Err(Error::TooBig(format!("a {what} of {length} bytes, at most {NAME_BYTES_MAX} are allowed"))),
    }
}

impl Giving {
    /// Puts a connection into the batch, which is sent when it is full. What was added is taken out of `connection`.
    fn add(
        &mut self,
        transfer: &mut Channel,
        fd: BorrowedFd<'_>,
        identity: Identity,
        connection: &mut Option<Connection>,
    ) -> Result<Attempt> {
        let Some(new) = connection.as_ref() else { return Ok(Attempt::Done) };
        if !self.giver.fits(new) && self.send_batch(transfer)? == Attempt::Wait {
            return Ok(Attempt::Wait);
        }
        self.fds.push(fd.as_raw_fd());
        self.giver.add(identity, connection.take().unwrap_or_default());
        if self.prompt {
            let sent = self.send_batch(transfer);
            if !matches!(sent, Ok(Attempt::Done)) {
                self.fds.pop();
                *connection = self.giver.withdraw(identity);
            }
            return sent;
        }
        if self.giver.is_full() {
            self.send_batch(transfer)?; // or else when the next one comes
        }
        Ok(Attempt::Done)
    }

    /// Sends what waits, if the window is open and the socket has room.
    fn send_batch(&mut self, transfer: &mut Channel) -> Result<Attempt> {
        if self.fds.is_empty() {
            return Ok(Attempt::Done);
        }
        if !self.giver.may_send() {
            return Ok(Attempt::Wait);
        }
        let message = self.giver.batch();
        let sent =
            send(transfer, &message, &self.fds).map_err(|error| match self.fds.iter().find(|fd| !is_open(**fd)) {
                Some(fd) => {
                    Error::Invalid(format!("descriptor {fd} was given, and closed before the end of the handoff"))
                }
                None => error,
            });
        if matches!(sent, Ok(Attempt::Done)) {
            self.giver.sent(message);
            self.fds.clear();
        } else {
            self.giver.unsent(message);
        }
        sent
    }
}

fn send(transfer: &mut Channel, message: &Message, fds: &[RawFd]) -> Result<Attempt> {
    let step = format_args!("send {} to the other daemon", message.name());
    match crash::around('O', step, || transfer.send_numbers(message, fds)) {
        Ok(()) => Ok(Attempt::Done),
        Err(error) if error.is_full() => Ok(Attempt::Wait),
        Err(error) => Err(lost(&error)),
    }
}

/// The handoff will be undone, and the event cancelled: nobody has to wait for that.
fn lost(error: &ChannelError) -> Error {
    trace::trouble(error, "the successor can not be reached");
    Error::Stale
}

impl Core {
    /// Whether a transfer to this successor can be, and everything for it.
    pub(in crate::participant) fn prepare_giving(&self, prepare: &PrepareHandoff) -> Result<Option<Giving>> {
        let Some(room) = prepare.transfer else {
            let text =
                "the successor takes neither connections nor state, and this daemon requires it (HANDOFF_OPT_TRANSFER)";
            return if self.transfer_required { Err(Error::Refused(text.into())) } else { Ok(None) };
        };
        let open = open_descriptors().map_err(no_room)?;
        room.check(open as u64).map_err(Error::Limit)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let taken = EventFd::from_flags(flags).map_err(|error| no_room(error.into()))?;
        let (giver, prompt) = (Giver::new(prepare.id), self.mode == Mode::Overlap);
        Ok(Some(Giving { giver, fds: Vec::new(), own: Vec::new(), prompt, taken: Arc::new(taken) }))
    }

    /// The transfer may begin: on the link of this handoff.
    pub(in crate::participant) fn begin_giving(&mut self, giving: Option<Giving>) {
        let session = self.session.as_ref().map(AsFd::as_fd);
        let (lock, gate) = self.lock.as_ref().map_or((None, None), |lock| (lock.lock_file(), lock.gate()));
        let link = self.link.as_ref();
        let transfer = link.and_then(|link| link.transfer.as_ref()).map(AsFd::as_fd);
        let (page, peer) = (link.map(|link| link.page.as_fd()), link.map(|link| link.peer.as_fd()));
        let own = [session, lock, gate, transfer, page, peer, self.control.listener()];
        let own = own.into_iter().flatten().filter_map(|fd| identify(fd).ok()).map(|(_, file, _)| file).collect();
        if let Some(link) = &mut self.link {
            link.giving = giving.map(|giving| Giving { own, ..giving });
        }
    }

    fn giving(&mut self) -> Result<(&mut Giving, &mut Channel)> {
        let link = self.link.as_mut().ok_or(Error::Stale)?;
        let none = "the successor takes neither connections nor state: its library is too old for that";
        let giving = link.giving.as_mut().ok_or_else(|| Error::Refused(none.into()))?;
        let transfer = link.transfer.as_mut().ok_or(Error::Stale)?; // it is gone
        Ok((giving, transfer))
    }

    fn check_key(&mut self, key: &[u8]) -> Result<()> {
        if self.mode == Mode::Overlap {
            let text = "in overlap mode connections move, and no state: the successor has begun long ago";
            return Err(Error::Refused(text.into()));
        }
        match self.giving()?.0.giver.has_key(key) {
            true => Err(Error::Duplicate(format!("state '{}' was given already", String::from_utf8_lossy(key)))),
            false => Ok(()),
        }
    }

    fn try_state(&mut self, key: &[u8], fd: BorrowedFd<'_>, size: u64, sealed: bool) -> Result<Attempt> {
        self.check_key(key)?;
        let (giving, transfer) = self.giving()?;
        if !giving.giver.may_send() {
            return Ok(Attempt::Wait);
        }
        let message = giving.giver.state(key, size, sealed);
        let sent = send(transfer, &message, &[fd.as_raw_fd()])?;
        if sent == Attempt::Done {
            giving.giver.sent(message);
        }
        Ok(sent)
    }

    /// Sends what is left, and asks whether N has everything.
    fn try_finish(&mut self) -> Result<Attempt> {
        if self.link.as_ref().is_none_or(|link| link.giving.as_ref().is_none_or(|giving| giving.giver.is_done())) {
            return Ok(Attempt::Done);
        }
        let (giving, transfer) = self.giving()?;
        giving.send_batch(transfer)?;
        Ok(if giving.giver.is_done() { Attempt::Done } else { Attempt::Wait })
    }

    /// Whether nothing was given that N does not have.
    pub(in crate::participant) fn has_given_all(&mut self) -> bool {
        matches!(self.try_finish(), Ok(Attempt::Done))
    }

    /// N has said that it has a batch.
    pub(in crate::participant) fn on_taken(&mut self, batch: u32) {
        let Some(link) = &mut self.link else { return };
        let Some(giving) = &mut link.giving else { return };
        let taken = giving.giver.taken(batch);
        let _ = giving.taken.write(1); // fails only when it is readable already
        if let Err(error) = taken {
            trace::failed(None, &error, "the successor broke the protocol");
            self.close_transfer();
        }
    }

    /// Nobody has to wait longer than until N takes something, or the event is late.
    fn wait_for_taken(&mut self, event: Event) -> Result<Wait> {
        let (giving, _) = self.giving()?;
        let _ = giving.taken.read(); // nothing to read is fine
        let left = Duration::from_nanos(event.deadline_ns.saturating_sub(monotonic_ns()));
        // With nothing of ours on the way no answer will come: others have too much there.
        let left = if giving.giver.on_the_way() == 0 { left.min(SEND_RETRY) } else { left };
        Ok(Wait { taken: Arc::clone(&giving.taken), left })
    }
}

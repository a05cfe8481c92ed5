//! The one driver of a daemon's machine: everything in here happens under one mutex.

use super::control::Control;
use super::data_lock::DataDirLock;
use super::event::{Event, EventSlot};
use super::fence::WriteFence;
use super::listeners::InheritedListeners;
use super::predecessor::Predecessor;
use super::trace;
use super::transfer::{Donor, Giving, Received};
use crate::channel::{Channel, Incoming};
use crate::error::{Error, Result};
use crate::limits::{DEATH_AFTER_END, FRAMES_READ_MAX, PROGRESS_INTERVAL};
use crate::protocol::incumbent::{self, Incumbent};
use crate::protocol::message::{Hello, Message, Mode, Sealed, Side, VERSION_MAX, VERSION_MIN, capability};
use crate::protocol::successor::{self, Successor};
use crate::protocol::{Decide, HandoffId};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::crash;
use crate::sys::fork;
use crate::sys::page::DecisionPage;
use crate::sys::pidfd::Pidfd;
use crate::sys::seqpacket::Seqpacket;
use crate::sys::timers::Timers;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The machine of this process: N until it serves, O from then on.
#[derive(Debug)]
pub(super) enum Machine {
    Successor(Successor),
    Incumbent(Incumbent),
}

/// The timers of either machine, and the driver's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Successor(successor::Timer),
    Incumbent(incumbent::Timer),
    /// N: the session has ended, but O may be dying, too.
    SupervisorGone,
    Control,
    Accept,
    /// Connections from O that the application has not taken.
    Untaken,
}

/// What only the owner's thread may do.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// N: gate and lock; insists until then.
    TakeLock { sealed: Sealed, until_ns: u64, tried: bool },
    /// O: the lock that it released.
    RetakeLock,
    /// N: the commit.
    Commit(Decide),
    /// N: the control path into its place.
    Publish,
}

/// Why there is nothing more to do for this handle.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// N is not wanted.
    Aborted(String),
    /// N serves instead.
    Replaced,
    /// O can not take over again.
    Lost(String),
}

/// What belongs to one handoff.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: HandoffId,
    pub(super) page: DecisionPage,
    pub(super) peer: Pidfd,
    /// Its number, which is also that of its session if S started it; known while it lives.
    pub(super) peer_pid: Option<i32>,
    pub(super) transfer: Option<Channel>,
    pub(super) deadline_ns: u64,
    pub(super) drain_grace_ns: u64,
    /// How long O parks behind the commit.
    pub(super) park_ns: u64,
    /// O: what moves to N; none if N takes nothing.
    pub(super) giving: Option<Giving>,
    /// The peer's death was told to the machine.
    pub(super) peer_dead: bool,
}

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Source {
    Session,
    Transfer,
    Peer,
    Timers,
    Control,
    Asking,
    Stop,
    Predecessor,
    Donor,
}

/// Everything under the mutex.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) machine: Machine,
    pub(super) session: Option<Channel>,
    pub(super) link: Option<Link>,
    /// While the O of this process's own handoff may take over from it.
    pub(super) predecessor: Option<Predecessor>,
    /// What the application must hear, and does not answer.
    pub(super) notices: VecDeque<Event>,
    pub(super) lock: Option<DataDirLock>,
    pub(super) mode: Mode,
    pub(super) listeners: Arc<InheritedListeners>,
    pub(super) control: Control,
    pub(super) timers: Timers<Timer>,
    pub(super) events: EventSlot,
    pub(super) tasks: VecDeque<Task>,
    pub(super) end: Option<End>,
    /// The gate, which O sent and N has not used yet; or why it got lost.
    pub(super) gate: Option<Result<OwnedFd>>,
    /// What O gave, and the application has not taken.
    pub(super) received: Received,
    /// Overlap mode: O gives on while it drains, and this process serves.
    pub(super) donor: Option<Donor>,
    /// No handoff without a transfer.
    pub(super) transfer_required: bool,
    /// Until when a cold start insists on the lock, however often it asks.
    pub(super) patience: Option<Instant>,
    /// Why O could not take its lock again, as it was last told.
    pub(super) refusal: Option<String>,
    /// A cold start holds the lock.
    pub(super) cold_begun: bool,
    /// A cold start has announced that it is ready, and may serve.
    pub(super) cold_ready: bool,
    /// When the word was won, and whether the control path is in its place.
    pub(super) committed_ns: u64,
    pub(super) published: std::result::Result<(), String>,
    /// The application has called `serve` or `dispatch` since it may serve.
    pub(super) served: bool,
    pub(super) stop_told: bool,
    /// Progress that comes before is not sent.
    progress_due_ns: u64,
    build_id: Vec<u8>,
    /// Everything that the driver waits for, but the owner's own wake-up.
    pub(super) sources: Epoll,
    pub(super) fence: Arc<WriteFence>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Core {
    pub(super) fn new(
        session: Option<OwnedFd>,
        successor: bool,
        lock: Option<DataDirLock>,
        mode: Mode,
        listeners: Arc<InheritedListeners>,
        control: Control,
        build_id: Vec<u8>,
    ) -> Result<Self> {
        let system = |error: nix::Error| Error::system("epoll")(error.into());
        let machine = match successor {
            true => Machine::Successor(Successor::new()),
            false => Machine::Incumbent(Incumbent::cold()),
        };
        let mut core = Self {
            machine,
            session: None,
            link: None,
            predecessor: None,
            notices: VecDeque::new(),
            lock,
            mode,
            listeners,
            control,
            timers: Timers::new().map_err(Error::system("timerfd_create"))?,
            events: EventSlot::new().map_err(Error::system("eventfd"))?,
            tasks: VecDeque::new(),
            end: None,
            gate: None,
            received: Received::default(),
            donor: None,
            transfer_required: false,
            patience: None,
            refusal: None,
            cold_begun: false,
            cold_ready: false,
            committed_ns: 0,
            published: Ok(()),
            served: false,
            stop_told: false,
            progress_due_ns: 0,
            build_id,
            sources: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system)?,
            fence: Arc::new(WriteFence::closed()),
            stop: Arc::default(),
        };
        add(&core.sources, core.timers.as_fd(), Source::Timers)?;
        if let Some(fd) = session {
            let socket = Seqpacket::from_fd(fd).map_err(Error::system("HANDOFF_SOCK_FD"))?;
            core.open_session(Channel::new(socket))?;
        }
        Ok(core)
    }

    fn open_session(&mut self, channel: Channel) -> Result<()> {
        self.install(channel)?;
        let side = if matches!(self.machine, Machine::Successor(_)) { Side::Successor } else { Side::Incumbent };
        let hello = self.hello(side);
        match side {
            Side::Successor => self.feed_successor(successor::Input::Start(hello)),
            Side::Incumbent => self.feed_incumbent(incumbent::Input::Start(hello)),
        }
        Ok(())
    }

    pub(super) fn install(&mut self, channel: Channel) -> Result<()> {
        add(&self.sources, channel.as_fd(), Source::Session)?;
        fork::withhold(channel.as_fd());
        self.session = Some(channel);
        Ok(())
    }

    /// Readable when [`Core::pump`] has something to do.
    pub(super) fn sources(&self) -> BorrowedFd<'_> {
        self.sources.0.as_fd()
    }

    pub(super) fn watch_stop(&self, stop: BorrowedFd<'_>) -> Result<()> {
        add(&self.sources, stop, Source::Stop)
    }

    /// Who this process is in the names of its steps.
    pub(super) fn role(&self) -> char {
        if matches!(self.machine, Machine::Successor(_)) { 'N' } else { 'O' }
    }

    pub(super) fn hello(&self, side: Side) -> Hello {
        let generation = match &self.machine {
            Machine::Successor(machine) => machine.generation(),
            Machine::Incumbent(machine) => machine.generation(),
        };
        Hello {
            side,
            pid: std::process::id(),
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            capabilities: capability::TRANSFER | self.lock.as_ref().map_or(0, |_| self.mode.capability()),
            generation,
            open_descriptors: crate::sys::limits::open_descriptors().unwrap_or(0) as u32,
            descriptors_max: crate::sys::limits::hard_nofile().unwrap_or(0),
            time_namespace: crate::sys::clock::time_namespace(),
            build_id: self.build_id.clone(),
        }
    }

    // ---- what happens

    /// Reads and handles everything that is there. Queues are read to their end before an end of a session, a death or
    /// a timer counts.
    pub(super) fn pump(&mut self) {
        let mut ready = [EpollEvent::empty(); 8];
        let Ok(count) = self.sources.wait(&mut ready, EpollTimeout::ZERO) else { return };
        let is_ready = |source| ready[..count].iter().any(|event| event.data() == source as u64);
        let late = is_ready(Source::Peer) || is_ready(Source::Timers) || is_ready(Source::Stop);
        if late || is_ready(Source::Transfer) {
            self.read_transfer();
        }
        if late || is_ready(Source::Session) {
            self.read_session();
        }
        if is_ready(Source::Peer) {
            self.note_peer();
        }
        if is_ready(Source::Predecessor) {
            self.note_predecessor();
        }
        if is_ready(Source::Donor) {
            self.read_donor();
        }
        if is_ready(Source::Control) {
            self.greet();
        }
        if is_ready(Source::Asking) {
            self.admit();
        }
        if !late && self.timers.is_due() {
            // It became due just now; what came before it must be read before it.
            self.read_transfer();
            self.read_session();
        }
        while let Some(timer) = self.timers.next_due() {
            self.on_timer(timer);
        }
        if self.stop.load(Ordering::Acquire) && !self.stop_told {
            self.stop_told = true;
            match &self.machine {
                Machine::Successor(_) => self.feed_successor(successor::Input::Stop),
                Machine::Incumbent(_) => self.feed_incumbent(incumbent::Input::Stop),
            }
        }
    }

    fn read_session(&mut self) {
        for _ in 0..FRAMES_READ_MAX {
            let Some(session) = &mut self.session else { return };
            match session.receive() {
                Ok(Incoming::Message(message, fds, _)) => self.on_message(message, fds),
                Ok(Incoming::Nothing) => return,
                Ok(Incoming::End) => return self.lose_session("the supervisor closed the session"),
                Err(error) => return self.lose_session(&error.to_string()),
            }
        }
    }

    fn on_message(&mut self, message: Message, fds: Vec<OwnedFd>) {
        trace::message(&message, "received");
        crash::point(self.role(), format_args!("receive {}", message.name()));
        match &self.machine {
            Machine::Successor(_) => self.on_successor_message(message, fds),
            Machine::Incumbent(_) => self.on_incumbent_message(message, fds),
        }
    }

    /// The session is over: for the machine that is the supervisor's end.
    pub(super) fn lose_session(&mut self, why: &str) {
        trace::trouble(&why, "no supervisor any more");
        self.close_session();
        self.tend_control();
        match &self.machine {
            // O may have died before S, and its death not be seen yet: its memory is taken back first. Nobody waits for this;
            // an O that lives revokes by itself.
            Machine::Successor(_) if self.link.as_ref().is_some_and(|link| !link.peer_dead) => {
                self.timers.arm(Timer::SupervisorGone, monotonic_ns() + nanoseconds(DEATH_AFTER_END));
            }
            Machine::Successor(_) => self.feed_successor(successor::Input::SupervisorGone),
            Machine::Incumbent(_) => self.feed_incumbent(incumbent::Input::SupervisorGone),
        }
    }

    pub(super) fn close_session(&mut self) {
        if let Some(session) = self.session.take() {
            fork::release(session.as_fd());
            remove(&self.sources, session.as_fd());
        }
    }

    fn note_peer(&mut self) {
        let Some(link) = self.link.as_mut().filter(|link| !link.peer_dead && link.peer.is_dead()) else { return };
        link.peer_dead = true;
        remove(&self.sources, link.peer.as_fd()); // it stays readable for ever
        match &self.machine {
            Machine::Successor(_) => self.feed_successor(successor::Input::IncumbentDied),
            Machine::Incumbent(_) => {
                self.stop_giving();
                self.feed_incumbent(incumbent::Input::SuccessorDied);
            }
        }
        if self.timers.is_armed(Timer::SupervisorGone) {
            self.timers.disarm(Timer::SupervisorGone);
            self.feed_successor(successor::Input::SupervisorGone);
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match (timer, &self.machine) {
            (Timer::Successor(timer), Machine::Successor(_)) => self.feed_successor(successor::Input::Timer(timer)),
            (Timer::Incumbent(timer), Machine::Incumbent(_)) => self.feed_incumbent(incumbent::Input::Timer(timer)),
            (Timer::SupervisorGone, _) => self.feed_successor(successor::Input::SupervisorGone),
            (Timer::Control, _) => self.tend_control(),
            (Timer::Accept, _) => self.watch_control(),
            (Timer::Untaken, _) => self.close_untaken(),
            _ => {} // of the machine that this process had before
        }
    }

    // ---- what both machines ask for

    /// Takes over what came with HelloAck or PrepareHandoff: page, the peer's pidfd, transfer socket.
    pub(super) fn open_link(&mut self, id: HandoffId, deadline_ns: u64, fds: Vec<OwnedFd>) -> Result<()> {
        if fds.is_empty() {
            return Err(Error::no_room("the descriptors of the handoff", "this process"));
        }
        let [page, peer, transfer] = <[OwnedFd; 3]>::try_from(fds)
            .map_err(|fds| Error::Protocol(format!("{} descriptors came, not 3", fds.len())))?;
        let page = crash::around(self.role(), format_args!("map page"), || DecisionPage::map(page));
        let page = page.map_err(Error::system("map the decision page"))?;
        if page.id() != id.0 {
            return Err(Error::Protocol(format!("the decision page is of handoff {}, not {id}", page.id())));
        }
        let peer = Pidfd::from_fd(peer).map_err(Error::system("take over the peer's pidfd"))?;
        let transfer = Seqpacket::from_fd(transfer).map_err(Error::system("take over the transfer socket"))?;
        self.close_link();
        add(&self.sources, peer.as_fd(), Source::Peer)?;
        add(&self.sources, transfer.as_fd(), Source::Transfer)?;
        fork::withhold(transfer.as_fd());
        let (transfer, peer_pid) = (Some(Channel::new(transfer)), peer.pid());
        let (drain_grace_ns, park_ns, giving, peer_dead) = (0, 0, None, false);
        let link = Link { id, page, peer, peer_pid, transfer, deadline_ns, drain_grace_ns, park_ns, giving, peer_dead };
        self.link = Some(link);
        Ok(())
    }

    pub(super) fn close_link(&mut self) {
        self.close_transfer();
        if let Some(link) = self.link.take() {
            remove(&self.sources, link.peer.as_fd());
        }
        self.gate = None;
    }

    pub(super) fn send(&mut self, message: &Message) {
        let role = self.role();
        let Some(session) = &mut self.session else { return };
        let sent = match message {
            Message::SealProgress(_) if monotonic_ns() < self.progress_due_ns => return,
            Message::SealProgress(_) => {
                self.progress_due_ns = monotonic_ns() + nanoseconds(PROGRESS_INTERVAL);
                session.send_if_read(message)
            }
            Message::Heartbeat(_) => session.send_if_read(message),
            _ => crash::around(role, format_args!("send {}", message.name()), || session.send(message, &[])),
        };
        // A peer that is gone shows as the end of the session, when its last messages are read.
        match sent {
            Ok(()) => trace::message(message, "sent"),
            Err(error) => trace::trifle(Some(message), &error, "not sent"),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close_session();
        self.close_link();
        self.close_donor();
        if let Some(listener) = self.control.listener() {
            fork::release(listener);
        }
    }
}

pub(super) fn add(epoll: &Epoll, fd: BorrowedFd<'_>, source: Source) -> Result<()> {
    let event = EpollEvent::new(EpollFlags::EPOLLIN, source as u64);
    epoll.add(fd, event).map_err(|error| Error::system("epoll_ctl")(error.into()))
}

pub(super) fn remove(epoll: &Epoll, fd: BorrowedFd<'_>) {
    let _ = epoll.delete(fd); // not there is as good as removed
}

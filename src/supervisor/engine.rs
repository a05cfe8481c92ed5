//! The loop around the machine: what comes in.
//!
//! Every queue is read to its real end before the engine acts on the end of a session, a death or a timer: what a process
//! said before it died, or in time, must be known first.

use super::Event;
use super::attempt::Attempt;
use super::cancel::Canceller;
use super::journal::Journal;
use super::listeners::Listeners;
use super::outcome::HandoffOutcome;
use super::output::OutputWatch;
use super::probation::Probation;
use super::process::{Process, Token, Was};
use super::processes::Processes;
use super::rendezvous::Rendezvous;
use super::resume::Adoption;
use super::spec::SpawnSpec;
use super::unlinked::Unlinked;
use crate::channel::Incoming;
use crate::error::{Error, Result};
use crate::limits::{EVENTS_MAX, FRAMES_READ_MAX, PAGE_POLL};
use crate::protocol::Message;
use crate::protocol::supervisor::{Input, Peer, Phase, Sender, Supervisor as Machine, Timer};
use crate::sys::clock::{monotonic_ns, time_namespace};
use crate::sys::crash;
use crate::sys::fork::{self, watch_forks};
use crate::sys::listing::Listing;
use crate::sys::seqpacket::Credentials;
use crate::sys::session::end_members;
use crate::sys::timers::Timers;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Descriptors that one turn looks at; the rest is ready in the next.
const READY_MAX: usize = 16;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Engine {
    pub(super) machine: Machine,
    #[serde(with = "crate::sys::inherit::epoll")]
    pub(super) epoll: Epoll,
    pub(super) timers: Timers<Due>,
    #[serde(with = "super::cancel::anew")]
    pub(super) canceller: Canceller,
    /// It was used since the call that waits began.
    pub(super) cancelled: bool,
    /// In a forked child nothing of this is its own.
    #[serde(skip, default = "fork::epoch")]
    pub(super) epoch: u32,
    /// Of the processes whose output is captured.
    #[serde(skip)]
    pub(super) output_watch: Option<OutputWatch>,
    /// Of the directory of the journal, if the caller has read it for many.
    #[serde(skip)]
    pub(super) listing: Option<Arc<Listing>>,
    pub(super) listeners: Listeners,
    /// The service's name, if the caller gave one.
    pub(super) name: Option<String>,
    pub(super) service: String,
    pub(super) build_id: Vec<u8>,
    pub(super) journal: Option<Journal>,
    pub(super) time_namespace: u64,
    pub(super) next_key: u64,
    pub(super) last_id: u64,
    pub(super) processes: Processes,
    pub(super) attempt: Option<Attempt>,
    #[serde(skip)]
    pub(super) rendezvous: Option<Rendezvous>,
    pub(super) adoption: Adoption,
    /// Another supervisor's processes are being taken over, and their listeners are not here yet: nothing can be started.
    pub(super) resuming: bool,
    /// The caller ends the service: no process takes the place of one that dies.
    pub(super) closing: bool,
    pub(super) unlinked: Unlinked,
    #[cfg(feature = "program")]
    pub(super) trees: super::tree::Trees,
    /// The retired incumbent got its SIGTERM.
    pub(super) evicted: bool,
    #[serde(skip)]
    pub(super) probation: Probation,
    /// What the process that serves, or served last, was started from.
    #[serde(with = "crate::sys::inherit::optional_shared")]
    pub(super) serving_spec: Option<Arc<SpawnSpec>>,
    /// What the incumbent of the newest handoff was started from.
    #[serde(with = "crate::sys::inherit::optional_shared")]
    pub(super) replaced: Option<Arc<SpawnSpec>>,
    /// The same, of the newest one that has committed, and stands.
    #[serde(with = "crate::sys::inherit::optional_shared")]
    pub(super) previous: Option<Arc<SpawnSpec>>,
    pub(super) phase_told: Phase,
    #[serde(skip)]
    pub(super) events: VecDeque<Event>,
}

/// What comes with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Due {
    Machine(Timer),
    /// A process that should have exited: its key.
    Leaving(u64),
    /// Another look at the page.
    Page,
    /// Another attempt to reach an incumbent.
    Adopt,
    /// A process that does not link the library should be ready.
    Late,
    /// Another look whether it is.
    Probe,
    /// Another look whether the process on probation is well.
    Health,
    /// A count of messages that were refused.
    Refusals,
    /// Events that nobody has fetched, or more output than one turn reads.
    More,
}

impl Engine {
    pub(super) fn new() -> Result<Self> {
        let failed = |what| Error::system(format!("cannot make {what} for the supervisor"));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Into::into).map_err(failed("an epoll"))?;
        let timers = Timers::new().map_err(failed("a timer"))?;
        epoll.add(&timers, Token::Timer.event()).map_err(Into::into).map_err(failed("a timer"))?;
        watch_forks().map_err(Error::system("pthread_atfork"))?;
        Ok(Self {
            machine: Machine::new(),
            canceller: Canceller::new(&epoll)?,
            cancelled: false,
            epoch: fork::epoch(),
            epoll,
            timers,
            output_watch: None,
            listing: None,
            listeners: Listeners::default(),
            name: None,
            service: String::new(),
            build_id: Vec::new(),
            journal: None,
            time_namespace: time_namespace(),
            next_key: 1,
            last_id: 0,
            processes: Processes::default(),
            attempt: None,
            rendezvous: None,
            adoption: Adoption::default(),
            resuming: false,
            closing: false,
            unlinked: Unlinked::default(),
            #[cfg(feature = "program")]
            trees: super::tree::Trees::default(),
            evicted: false,
            probation: Probation::default(),
            serving_spec: None,
            replaced: None,
            previous: None,
            phase_told: Phase::Idle,
            events: VecDeque::new(),
        })
    }

    /// Waits, and deals with what has come.
    pub(super) fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        let mut ready = [EpollEvent::empty(); READY_MAX];
        let count = match self.epoll.wait(&mut ready, milliseconds(timeout)) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::system("epoll_wait")(errno.into())),
        };
        let (mut dead, mut timer, mut cancel) = ([None; READY_MAX], false, false);
        for (event, dead) in ready[..count].iter().zip(&mut dead) {
            match Token::from_raw(event.data()) {
                Token::Session(key) => self.drain(key),
                Token::Death(key) => *dead = Some(key),
                Token::Timer => timer = true,
                Token::Output => self.output_watch.iter().for_each(OutputWatch::drain),
                Token::Cancel => cancel = true,
                Token::Notify => self.read_notifications(),
                Token::Ready => self.read_ready_pipe(),
                Token::Former => self.processes.iter_mut().for_each(Process::reap_former),
                Token::Also => {}
            }
        }
        if dead.iter().any(Option::is_some) {
            self.drain_all();
            self.look_at_page(); // what O has said there, too
            self.read_notifications(); // another one may have taken its place
            dead.into_iter().flatten().for_each(|key| self.bury(key));
        }
        if timer {
            self.fire();
        }
        self.look_at_page();
        self.tell_ends();
        if cancel {
            self.tell_cancel();
        }
        if self.output_waits() {
            self.read_output();
        }
        self.come_again();
        Ok(())
    }

    /// The caller does not want to wait any more.
    fn tell_cancel(&mut self) {
        if self.canceller.take() {
            self.cancelled = true;
            // A handoff that another supervisor began is ended by its word.
            if !self.resuming {
                self.feed(Input::Cancel("cancelled by the caller".to_owned()));
            }
        }
    }

    /// What no descriptor will tell of.
    pub(super) fn come_again(&mut self) {
        if self.listens_to_page() {
            self.timers.arm(Due::Page, monotonic_ns() + PAGE_POLL.as_nanos() as u64);
        }
        if self.output_waits() {
            self.timers.arm(Due::More, monotonic_ns());
        }
    }

    /// Reads what a process has said until now.
    fn drain(&mut self, key: u64) {
        for _ in 0..FRAMES_READ_MAX {
            // A message may promote the process or bury it: look anew each time.
            let Some(peer) = self.processes.peer_of(key) else { return };
            let Some(process) = self.processes.peer(peer) else { return };
            let Some(session) = &mut process.session else { return };
            match session.receive() {
                Ok(Incoming::Message(message, fds, sender)) => self.on_message(peer, message, fds, sender),
                Ok(Incoming::Nothing) => return,
                Ok(Incoming::End) => {
                    process.close_session(&self.epoll);
                    process.end_is_news = true;
                }
                Err(error) => self.distrust(peer, &error.to_string()),
            }
        }
    }

    /// Nothing more is heard of a peer that can not be believed.
    fn distrust(&mut self, peer: Peer, why: &str) {
        let Some(process) = self.processes.peer(peer) else { return };
        process.close_session(&self.epoll);
        super::trace::trouble(&self.service, Some(process.pid), &format!("its session makes no sense: {why}"));
        self.feed(Input::Garbage(peer, why.into()));
    }

    /// Whether the word of the handoff that is under way is won.
    pub(super) fn is_committed(&self) -> bool {
        self.rendezvous.as_ref().is_some_and(|rendezvous| rendezvous.page.word().is_committed())
    }

    pub(super) fn drain_all(&mut self) {
        let Processes { incumbent, successor, parked, .. } = &self.processes;
        let keys = [successor, incumbent, parked].map(|process| process.as_ref().map(|process| process.key));
        keys.into_iter().flatten().for_each(|key| self.drain(key));
    }

    fn on_message(&mut self, peer: Peer, message: Message, fds: Vec<OwnedFd>, sender: Option<Credentials>) {
        let taken = match &message {
            Message::AdoptAck(ack) if peer == Peer::Incumbent && self.machine.seeks() => self.take_over(ack, sender),
            Message::AdoptListeners(m) if peer == Peer::Incumbent => self.gather(&m.names, fds),
            _ => Ok(()),
        };
        if let Err(why) = taken {
            return self.distrust(peer, &why);
        }
        if matches!(message, Message::Serving(_)) && peer == Peer::Successor && !self.is_committed() {
            return self.distrust(peer, "it says that it serves, but never won the word");
        }
        let Some(process) = self.processes.peer(peer) else { return };
        if let Some(attempt) = &mut self.attempt {
            attempt.note(&message);
        }
        super::trace::message(&message, &self.service, process.pid);
        self.probation.note_heard(peer);
        if !matches!(message, Message::Heartbeat(_) | Message::SealProgress(_)) {
            crash::point('S', format_args!("receive {}", message.name()));
        }
        let progress = match &message {
            Message::SealProgress(m) => Some((m.done, m.total)),
            Message::Heartbeat(m) => m.progress,
            _ => None,
        };
        if let Some((done, total)) = progress {
            let event = Event::Progress { done, total };
            self.push(event);
        }
        let input = match message {
            Message::Hello(hello) => Input::Hello(peer, hello, self.who(peer, sender)),
            other => Input::Message(peer, other),
        };
        self.feed(input);
    }

    /// Who said Hello, as the kernel has it: not even a pid if the kernel can not say.
    fn who(&mut self, peer: Peer, sender: Option<Credentials>) -> Sender {
        let spawned_pid = self.processes.peer(peer).as_ref().map_or(0, |process| process.pid);
        Sender {
            pid: sender.map_or(0, |sender| sender.pid.cast_unsigned()),
            uid: sender.map_or(u32::MAX, |sender| sender.uid),
            spawned_pid: spawned_pid.cast_unsigned(),
            time_namespace: self.time_namespace,
        }
    }

    /// Sessions that have ended while their process lives, or while its death is not seen yet.
    fn tell_ends(&mut self) {
        if !self.processes.iter().any(|process| process.end_is_news) {
            return;
        }
        self.drain_all();
        for peer in [Peer::Incumbent, Peer::Successor, Peer::Parked] {
            if let Some(process) = self.processes.peer(peer).as_mut().filter(|process| process.end_is_news) {
                process.end_is_news = false;
                self.feed(Input::Gone(peer));
            }
        }
    }

    /// Reaps a process that is dead. Its queue is read.
    fn bury(&mut self, key: u64) {
        if !self.processes.iter().any(|process| process.key == key && process.pidfd.is_dead()) {
            return;
        }
        let Some((was, mut process)) = self.processes.take(key) else { return };
        process.unwatch(&self.epoll);
        self.timers.disarm(Due::Leaving(key));
        self.read_last_output(&mut process);
        // While it is a zombie, the number is its own. A caller that ignores SIGCHLD, or waits for any child, has none.
        let is_zombie = process.pidfd.is_zombie();
        process.end_former();
        if self.leaves_behind(&was, &process) {
            match is_zombie && process.leads() {
                true => end_members(process.pid),
                false => self.end_known_members(&process),
            }
        }
        #[cfg(feature = "program")]
        self.end_tree(&was, &mut process, is_zombie);
        process.clean_up(is_zombie);
        let (status, text) = crash::around('S', format_args!("reap {}", was.name()), || process.reap());
        self.remove_output(&mut process);
        self.listeners.repair(); // as it stopped, it may have shut them down
        let Was::Peer(peer) = was else { return self.note_crash(&process, status, &text) };
        let beside = self.waits_for_readiness();
        if peer == Peer::Incumbent && self.machine.is_on_trial() {
            let program = process.executable.take();
            let text = self.machine.condemnation().unwrap_or(&text).to_owned();
            self.push(Event::ProbationFailed { program, text });
        }
        self.attempt.iter_mut().for_each(Attempt::note_death);
        self.feed(Input::Died(peer, text.clone()));
        if peer == Peer::Incumbent && self.machine.phase() == Phase::Idle && self.processes.incumbent.is_none() {
            self.search_again();
        }
        // A start that failed is an outcome; how the process ended is told beside it.
        if !beside
            && peer == Peer::Incumbent
            && self.machine.phase() == Phase::Idle
            && self.processes.incumbent.is_none()
        {
            let (pid, generation) = (process.pid, process.generation);
            self.push(Event::Exited { pid, generation, status, text });
        }
    }

    /// Fires what is due.
    fn fire(&mut self) {
        loop {
            self.drain_all(); // an answer in time is in time
            match self.timers.next_due() {
                Some(Due::Machine(Timer::Probation)) if self.asks_once_more() => {}
                Some(Due::Machine(timer)) => self.feed(Input::Timer(timer)),
                Some(Due::Leaving(key)) => self.hasten(key),
                Some(Due::Adopt) => self.adopt(),
                Some(Due::Late) => self.on_late(),
                Some(Due::Probe) => self.probe(),
                Some(Due::Health) => self.check_health(),
                Some(Due::Refusals) => self.count_refusals(),
                Some(Due::Page | Due::More) => {} // the turn looks in any case
                None => return,
            }
        }
    }

    /// Only the page can say that O has retired, if it takes its time to exit; or that N serves, if its session is lost.
    fn listens_to_page(&self) -> bool {
        match self.machine.phase() {
            Phase::Retiring | Phase::Confirming | Phase::Reverting => true,
            Phase::AwaitServing => self.has_lost_successor(),
            _ => false,
        }
    }

    /// Its session is over, but it is not: a process that dies ends its session a moment before its death shows, and if N
    /// dies in its commit, O must go on, and not retire.
    fn has_lost_successor(&self) -> bool {
        let cut = |process: &Process| process.session.is_none() && !process.end_is_news;
        let dying = self.timers.is_armed(Due::Machine(Timer::Lost(Peer::Successor)));
        self.processes.successor.as_ref().is_some_and(cut) && !dying
    }

    pub(super) fn look_at_page(&mut self) {
        let Some(page) = self.rendezvous.as_ref().map(|rendezvous| &rendezvous.page) else { return };
        match self.machine.phase() {
            Phase::Retiring | Phase::Confirming if page.is_retired() => self.feed(Input::Retired),
            Phase::Reverting if page.is_draining() => self.feed(Input::Retired),
            Phase::AwaitServing if self.listens_to_page() && page.is_serving() && self.is_committed() => {
                self.feed(Input::PageServing)
            }
            _ => {}
        }
    }

    /// Makes a loop around this one fetch the events that came outside of a turn.
    pub(super) fn wake(&mut self) {
        if !self.events.is_empty() {
            self.timers.arm(Due::More, monotonic_ns());
        }
    }

    /// Keeps an event until it is fetched.
    pub(super) fn push(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The first outcome that nobody has fetched.
    pub(super) fn take_outcome(&mut self) -> Option<HandoffOutcome> {
        let index = self.events.iter().position(|event| matches!(event, Event::Outcome(_)))?;
        match self.events.remove(index) {
            Some(Event::Outcome(outcome)) => Some(outcome),
            _ => None,
        }
    }
}

/// Rounded up: never too early, and never a spin.
fn milliseconds(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(i32::try_from(milliseconds).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}

//! Replacing a daemon that does not link the library: the driver of [`crate::protocol::unlinked`].

mod main_pid;
mod readiness;
mod resume;

pub(super) use main_pid::Former;
pub use readiness::ReadySign;

use super::Event;
use super::attempt::Attempt;
use super::engine::{Due, Engine};
use super::health::{Probe, Step};
use super::leaving::Term;
use super::notify::Notify;
use super::outcome::verdict_name;
use super::process::{Process, Token};
use super::spec::SpawnSpec;
use super::trace;
use crate::error::{Error, Result};
use crate::limits::{PROBE_INTERVAL, PROBE_TIMEOUT};
use crate::protocol::message::Side;
use crate::protocol::supervisor::{Input as LinkedInput, Peer, Phase, Verdict};
use crate::protocol::unlinked::{Action, Input, Unlinked as Machine};
use crate::sys::clock::{monotonic_ns, nanoseconds};
#[cfg(feature = "program")]
use nix::sys::stat::fstat;
use readiness::{Sign, Watch};
#[cfg(feature = "program")]
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Nobody but the program replaces such daemons, asks whether a daemon is well, or has a `NOTIFY_SOCKET` for it: a library without
/// it has no code for that.
pub(super) const UNLINKED: bool = cfg!(feature = "program");

/// The phase of such a handoff in `handoff status`.
pub(super) const WAITING: &str = "waiting for readiness";

/// What S knows of daemons that do not link the library.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Unlinked {
    /// The handoff that is under way.
    #[serde(skip)]
    machine: Option<Machine>,
    watch: Option<Watch>,
    /// Our end of the pipe of a process that is about to be watched.
    #[serde(skip)]
    pipe: Option<OwnedFd>,
    /// Until when its process must be ready.
    late_ns: u64,
    pub(super) notify: Notify,
    /// The incumbent is up, and never said Hello.
    pub(super) serves: bool,
}

impl Unlinked {
    /// The inode of the pipe in which a process will say that it is ready.
    #[cfg(feature = "program")]
    pub(super) fn ready_pipe(&self) -> Option<u64> {
        let watched = match self.watch.as_ref().map(|watch| &watch.sign) {
            Some(Sign::Pipe(pipe)) => Some(pipe.as_fd()),
            _ => None,
        };
        let pipe = self.pipe.as_ref().map(AsFd::as_fd).or(watched)?;
        fstat(pipe).ok().map(|found| found.st_ino)
    }

    fn watch_mut(&mut self) -> Option<&mut Watch> {
        self.watch.as_mut().filter(|_| UNLINKED)
    }
}

impl Engine {
    /// Whether such a handoff is under way.
    pub(super) fn waits_for_readiness(&self) -> bool {
        UNLINKED && self.unlinked.machine.is_some()
    }

    /// The handoff that is under way, of whichever kind.
    pub(super) fn handoff_id(&self) -> Option<u64> {
        let own = self.attempt.as_ref().filter(|_| self.waits_for_readiness()).map(|attempt| attempt.id);
        own.or_else(|| self.machine.handoff().map(|id| id.0))
    }

    /// Starts N beside O.
    pub(super) fn begin_unlinked(&mut self, spec: Arc<SpawnSpec>) -> Result<()> {
        if self.waits_for_readiness() {
            return Err(Error::Busy("a handoff of this service is under way; try again"));
        }
        let id = self.new_id();
        let mut attempt = Attempt::new(id, spec.clone(), monotonic_ns());
        attempt.spawn_ns = monotonic_ns();
        self.attempt = Some(attempt);
        self.service = self.name_for(&spec);
        let started = match self.machine.incumbent_said_hello() {
            true => Err(Error::State("the daemon has said Hello: it is not replaced in this way".into())),
            false if !spec.probation.is_zero() => Err(Error::State(
                "a daemon that does not link the library has no probation: start the supervisor without --probation, or \
                 upgrade with --probation 0s".into(),
            )),
            false => self.spawn_beside(&spec, id),
        };
        match started {
            Ok(()) => {
                self.unlinked.machine = Some(Machine::new());
                self.push(Event::Phase(WAITING));
            }
            Err(error) => {
                self.discard_successor();
                self.report_unlinked(Verdict::Refused, error.to_string());
            }
        }
        self.wake();
        Ok(())
    }

    fn spawn_beside(&mut self, spec: &Arc<SpawnSpec>, id: u64) -> Result<()> {
        self.replaced = self.processes.incumbent.as_ref().and_then(|incumbent| incumbent.way_back(spec));
        let successor = self.launch_successor(spec, id)?;
        let generation = self.machine.generation() + 1;
        let key = successor.key;
        let successor = self.processes.successor.insert(Process { generation, ..successor });
        successor.watch(&self.epoll).map_err(|errno| Error::system("cannot watch the successor")(errno.into()))?;
        self.identify(Peer::Successor);
        self.write_journal(None)?;
        self.watch_readiness(key)
    }

    // ---- readiness

    /// Waits for a process that was just launched, if it has a sign.
    pub(super) fn watch_readiness(&mut self, key: u64) -> Result<()> {
        self.forget_readiness();
        let pipe = self.unlinked.pipe.take();
        let Some(process) = self.processes.iter().find(|process| process.key == key) else { return Ok(()) };
        let Some(readiness) = process.spec.ready_sign() else { return Ok(()) };
        let late_ns = self.within_handoff(key, process.spec.ready_timeout);
        let (sign, first) = match readiness {
            ReadySign::Notify => (Sign::Notify, None),
            ReadySign::Descriptor(_) => (pipe.map_or(Sign::Notify, |pipe| Sign::Pipe(pipe.into())), None),
            ReadySign::Health(health) => {
                // Without others that have its listeners it does not matter who answers.
                let leader = (self.processes.iter().count() > 1).then_some(process.leader);
                (Sign::Probe(Probe::new(health.clone(), leader, PROBE_TIMEOUT)), Some(PROBE_INTERVAL))
            }
            #[cfg(feature = "program")]
            ReadySign::Told => (Sign::Told, None),
            ReadySign::Delay(time) => (Sign::Delay, Some(*time)),
        };
        if let Sign::Pipe(pipe) = &sign {
            let watched = self.epoll.add(pipe, Token::Ready.event());
            watched.map_err(|errno| Error::system("cannot watch the descriptor for readiness")(errno.into()))?;
        }
        self.unlinked.watch = Some(Watch { key, sign });
        self.unlinked.late_ns = late_ns;
        self.timers.arm(Due::Late, late_ns);
        if let Some(first) = first {
            self.timers.arm(Due::Probe, monotonic_ns().saturating_add(nanoseconds(first)));
        }
        Ok(())
    }

    /// The process of this key has another main process.
    pub(super) fn redirect_probe(&mut self, key: u64, leader: i32) {
        if let Some(Watch { key: watched, sign: Sign::Probe(probe) }) = &mut self.unlinked.watch
            && *watched == key
        {
            probe.ask(leader);
        }
    }

    /// The pipe of the program before.
    #[cfg(feature = "program")]
    pub(super) fn watch_pipe(&self) -> nix::Result<()> {
        match &self.unlinked.watch {
            Some(Watch { sign: Sign::Pipe(pipe), .. }) => self.epoll.add(pipe, Token::Ready.event()),
            _ => Ok(()),
        }
    }

    fn forget_readiness(&mut self) {
        self.timers.disarm(Due::Late);
        self.timers.disarm(Due::Probe);
        if let Some(Watch { sign: Sign::Pipe(pipe), .. }) = self.unlinked.watch.take().filter(|_| UNLINKED) {
            let _ = self.epoll.delete(&pipe);
        }
    }

    /// Its delay is over, or it is time for another look.
    pub(super) fn probe(&mut self) {
        let ready = match self.unlinked.watch_mut().map(|watch| &mut watch.sign) {
            Some(Sign::Delay) => true,
            Some(Sign::Probe(probe)) => probe.advance() == Step::Ready,
            _ => return,
        };
        if ready {
            return self.on_ready();
        }
        self.timers.arm(Due::Probe, monotonic_ns() + nanoseconds(PROBE_INTERVAL));
    }

    /// Something is in the pipe.
    pub(super) fn read_ready_pipe(&mut self) {
        let Some(watch) = self.unlinked.watch_mut() else { return };
        match watch.sign.read_pipe() {
            Ok(true) => self.on_ready(),
            Ok(false) => {}
            // As under s6: it closed the descriptor, and will never be ready. Its time, or its end, tells.
            Err(_) => {
                if let Sign::Pipe(pipe) = &watch.sign {
                    let _ = self.epoll.delete(pipe);
                }
            }
        }
    }

    /// `READY=1` of this process.
    pub(super) fn on_ready_word(&mut self, key: u64) {
        if self.unlinked.watch.as_ref().is_some_and(|watch| watch.key == key && matches!(watch.sign, Sign::Notify)) {
            self.on_ready();
        }
    }

    /// The caller says that it is ready.
    #[cfg(feature = "program")]
    pub(super) fn on_told(&mut self) {
        if self.unlinked.watch.as_ref().is_some_and(|watch| matches!(watch.sign, Sign::Told)) {
            self.on_ready();
        }
    }

    pub(super) fn on_ready(&mut self) {
        self.forget_readiness();
        if self.resuming {
            return self.adoption.ready = true; // it need not be waited for any longer
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.note_ready();
        }
        if self.waits_for_readiness() {
            return self.step_unlinked(Input::Ready);
        }
        self.feed(LinkedInput::Up);
        self.unlinked.serves = true;
        self.record();
    }

    /// The process that is waited for has taken too long.
    pub(super) fn on_late(&mut self) {
        if self.was_adopted_unready() {
            return self.on_ready(); // of a unit its own time tells, which is shorter
        }
        let more = match self.unlinked.watch.as_ref().map(|watch| &watch.sign) {
            Some(Sign::Probe(probe)) => probe.doubt(),
            _ => String::new(),
        };
        self.forget_readiness();
        if self.waits_for_readiness() {
            return self.step_unlinked(Input::Late(more));
        }
        if UNLINKED && self.machine.phase() == Phase::ColdStarting {
            self.stop_and_leave(Peer::Incumbent);
            self.feed(LinkedInput::Died(Peer::Incumbent, "it was not ready in time".to_owned()));
        }
    }

    /// So much later, but for a successor not later than its handoff may take.
    fn within_handoff(&self, key: u64, time: Duration) -> u64 {
        let until_ns = monotonic_ns().saturating_add(nanoseconds(time));
        let is_successor = self.processes.successor.as_ref().is_some_and(|successor| successor.key == key);
        let deadline_ns = self.attempt.as_ref().filter(|_| is_successor).map(Attempt::deadline_ns);
        deadline_ns.map_or(until_ns, |deadline_ns| until_ns.min(deadline_ns))
    }

    /// A process asks for more time: to become ready, or to finish what it has accepted.
    pub(super) fn extend(&mut self, key: u64, time: Duration) {
        let until_ns = self.within_handoff(key, time);
        if self.unlinked.watch.as_ref().is_some_and(|watch| watch.key == key) && until_ns > self.unlinked.late_ns {
            self.unlinked.late_ns = until_ns;
            self.timers.arm(Due::Late, until_ns);
        }
        let leaving = self.processes.leaving.iter_mut().find(|leaving| leaving.process.key == key);
        if let Some(leaving) = leaving.filter(|leaving| leaving.may_drain() && until_ns > leaving.term.until_ns) {
            leaving.term.until_ns = until_ns;
            self.timers.arm(Due::Leaving(key), until_ns);
        }
    }

    // ---- the handoff

    /// Whether the process that starts cold tells by a sign that it is up.
    pub(super) fn starts_with_sign(&self) -> bool {
        let sign = |attempt: &Attempt| attempt.spec.ready_sign().is_some();
        self.machine.phase() == Phase::ColdStarting && self.attempt.as_ref().is_some_and(sign)
    }

    /// What is said about a process that is replaced in this way is not for the machine of those that link the library.
    pub(super) fn divert(&mut self, input: LinkedInput) -> Option<LinkedInput> {
        if let LinkedInput::Hello(Peer::Incumbent, ..) = &input {
            self.unlinked.serves = false;
            if !self.waits_for_readiness() {
                self.forget_readiness();
            }
            self.step_unlinked(Input::Linked(Side::Incumbent));
        }
        // Some close every descriptor that they do not know.
        let incumbent_is_silent = self.serving_spec.as_ref().is_some_and(|spec| spec.ready_sign().is_some())
            && !self.machine.incumbent_said_hello();
        let ours = self.waits_for_readiness();
        match input {
            LinkedInput::Gone(Peer::Incumbent) | LinkedInput::Garbage(Peer::Incumbent, _) if incumbent_is_silent => {}
            LinkedInput::Died(Peer::Incumbent, why) => {
                self.unlinked.serves = false;
                match ours {
                    true => self.step_unlinked(Input::Died(Side::Incumbent, why.clone())),
                    false => self.forget_readiness(),
                }
                return Some(LinkedInput::Died(Peer::Incumbent, why));
            }
            LinkedInput::Died(Peer::Successor, why) if ours => self.step_unlinked(Input::Died(Side::Successor, why)),
            LinkedInput::Hello(Peer::Successor, ..) if ours => self.step_unlinked(Input::Linked(Side::Successor)),
            LinkedInput::Gone(Peer::Successor)
            | LinkedInput::Garbage(Peer::Successor, _)
            | LinkedInput::Message(Peer::Successor, _)
                if ours => {}
            LinkedInput::Cancel(why) if ours => {
                let input = if self.closing { Input::End(why) } else { Input::Cancel(why) };
                self.step_unlinked(input);
            }
            input => return Some(input),
        }
        None
    }

    fn step_unlinked(&mut self, input: Input) {
        let Some(machine) = self.unlinked.machine.as_mut().filter(|_| UNLINKED) else { return };
        for action in machine.step(input) {
            self.do_unlinked(action);
        }
    }

    pub(super) fn do_unlinked(&mut self, action: Action) {
        match action {
            Action::Disarm => self.forget_readiness(),
            Action::Promote => self.promote_unlinked(),
            Action::Stop(Side::Successor) => self.stop_and_leave(Peer::Successor),
            Action::Stop(Side::Incumbent) => self.stop_old(),
            Action::Report(verdict, reason) => {
                self.unlinked.machine = None;
                self.push(Event::Phase(Phase::Idle.name()));
                self.listeners.repair();
                self.record();
                self.report_unlinked(verdict, reason);
            }
        }
    }

    /// What runs, into the journal; nothing depends on it while this supervisor lives.
    pub(super) fn record(&mut self) {
        if let Err(error) = self.write_journal(None) {
            trace::trouble(&self.service, None, &error.to_string());
        }
    }

    /// In the journal before O is told.
    fn promote_unlinked(&mut self) {
        let Some(successor) = self.processes.successor.take() else { return };
        if let Some(old) = self.processes.incumbent.take() {
            self.leave_unlinked(old, Term::of_drain(self.attempt.as_ref()));
        }
        self.serving_spec = Some(successor.spec.clone());
        self.processes.incumbent = Some(successor);
        self.unlinked.serves = true;
        self.feed(LinkedInput::Unlinked(self.machine.generation() + 1));
        self.record();
    }

    /// Of those that leave, the one that was not told yet.
    fn stop_old(&mut self) {
        if let Some(leaving) = self.processes.leaving.iter_mut().rev().find(|leaving| leaving.untold) {
            leaving.tell(&mut self.timers);
        }
    }

    /// Its stop signal, and SIGKILL only after the grace.
    fn stop_and_leave(&mut self, peer: Peer) {
        if let Some(mut process) = self.processes.peer(peer).take() {
            process.generation = 0; // the next one has its number
            let signal = process.spec.stop_signal;
            if let Err(error) = process.signal(signal) {
                trace::trouble(&self.service, Some(process.pid), &error.to_string());
            }
            self.leave_unlinked(process, Term::of_drain(self.attempt.as_ref())).note_told();
        }
    }

    fn report_unlinked(&mut self, verdict: Verdict, reason: String) {
        self.note_way_back(verdict);
        let Some(attempt) = &self.attempt else { return };
        let server = self.processes.incumbent.as_ref().filter(|_| verdict != Verdict::Failed);
        let outcome = attempt.outcome(verdict, reason, server);
        trace::outcome(outcome.id, &self.service, outcome.pid, verdict_name(verdict), &outcome.reason);
        self.push(Event::Outcome(outcome));
    }

    /// The pipe whose other end the process gets that is about to be launched.
    pub(super) fn pipe_for(&mut self, spec: &SpawnSpec) -> Result<Option<OwnedFd>> {
        self.unlinked.pipe = None;
        let Some(ReadySign::Descriptor(_)) = spec.ready_sign() else { return Ok(None) };
        let (ours, theirs) =
            readiness::pipe().map_err(Error::system("cannot make a pipe for the daemon's readiness"))?;
        self.unlinked.pipe = Some(ours);
        Ok(Some(theirs))
    }
}

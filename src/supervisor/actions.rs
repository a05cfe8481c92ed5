//! The loop around the machine: what goes out.

use super::Event;
use super::engine::{Due, Engine};
use super::leaving::Term;
use super::outcome::verdict_name;
use super::processes::Processes;
use super::trace;
use crate::channel::{ChannelError, decide};
use crate::limits::{
    ABORT_GRACE, ADOPTION_TIMEOUT, DEATH_AFTER_END, LIVENESS, REPAIRED_IN_PAUSE_MAX, RESERVE_GRACE, RETIRE_GRACE,
    SERVING_TIMEOUT, SLACK,
};
use crate::protocol::message::Message;
use crate::protocol::supervisor::{Action, Input, Peer, Phase, Timer, Verdict};
use crate::protocol::{Decide, Decision};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::crash;
#[cfg(feature = "program")]
use crate::sys::descendants::release;
use crate::sys::fork;
use crate::sys::inherit::is_restoring;
use crate::sys::page::Word;
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

impl Engine {
    /// Gives the machine an input, and does what it wants, in its order.
    pub(super) fn feed(&mut self, input: Input) {
        let Some(input) = self.divert(input) else { return };
        let mut actions = VecDeque::from(self.step(input));
        while let Some(action) = actions.pop_front() {
            if let Some(answer) = self.carry_out(action) {
                // The machine asks as the last thing of a list, so an answer overtakes nothing.
                debug_assert!(actions.is_empty(), "{actions:?}");
                actions.extend(self.step(answer));
            }
        }
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let actions = self.machine.step(input);
        let phase = self.machine.phase();
        if phase != self.phase_told {
            self.phase_told = phase;
            self.push(Event::Phase(phase.name()));
        }
        actions
    }

    fn carry_out(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::SpawnCold => return self.spawn_cold(),
            Action::SpawnSuccessor => return Some(self.spawn_successor()),
            Action::Send(peer, message) => self.send(peer, &message),
            // Written while the successor started; closed by `Release`, with what holds then.
            Action::OpenJournal | Action::CloseJournal => {}
            Action::Adopt => self.adopt(),
            // It has a sign of its own that tells when it is up.
            Action::Arm(Timer::Hello) if self.starts_with_sign() => {}
            Action::Arm(timer) => self.timers.arm(Due::Machine(timer), self.due(timer)),
            Action::Disarm(timer) => self.timers.disarm(Due::Machine(timer)),
            Action::Decide(what) => return self.decide(what).map(Input::Decided),
            Action::KillSuccessor => self.signal(Peer::Successor, Signal::SIGKILL),
            Action::KillIncumbent => self.signal(Peer::Incumbent, Signal::SIGKILL),
            Action::EvictIncumbent => self.evict(Peer::Incumbent),
            Action::Promote => self.promote(),
            Action::Park => self.park(),
            Action::Unpark => self.unpark(),
            Action::EvictParked => self.evict(Peer::Parked),
            Action::Dismiss => self.dismiss(),
            Action::Report(verdict, reason) => self.report(verdict, reason),
            Action::Release => self.release(),
            Action::EndSession(peer, violation) => self.end_session(peer, &violation.to_string()),
        }
        None
    }

    /// A message that can not be sent is no event of its own: the end of the session, or the death, follows.
    fn send(&mut self, peer: Peer, message: &Message) {
        let Some(sent) = self.transmit(peer, message) else { return };
        let pid = self.processes.peer(peer).as_ref().map_or(0, |process| process.pid);
        if let Err(error) = sent {
            if error.is_gone() {
                return;
            }
            return trace::trouble(&self.service, Some(pid), &format!("cannot send {}: {error}", message.name()));
        }
        trace::message(message, &self.service, pid);
        if let Some(attempt) = &mut self.attempt {
            attempt.note(message);
        }
        if matches!(message, Message::SealRequest(_)) && self.listeners.len() <= REPAIRED_IN_PAUSE_MAX {
            // While O seals: what its drain may have done to the listeners would refuse clients during the pause.
            self.listeners.repair();
        }
    }

    /// None if the session is gone, or what must travel with the message.
    fn transmit(&mut self, peer: Peer, message: &Message) -> Option<Result<(), ChannelError>> {
        let Processes { incumbent, successor, parked, .. } = &mut self.processes;
        let (process, other) = match peer {
            Peer::Incumbent => (incumbent, successor),
            Peer::Successor => (successor, incumbent),
            Peer::Parked => (parked, incumbent),
        };
        let session = process.as_mut()?.session.as_mut()?;
        if message.attachments().is_empty() {
            return Some(crash::around('S', format_args!("send {}", message.name()), || session.send(message, &[])));
        }
        let rendezvous = self.rendezvous.as_mut()?;
        let transfer = rendezvous.take_transfer(peer)?;
        let other = match peer {
            Peer::Incumbent | Peer::Parked => other.as_ref()?.pidfd.as_fd(),
            Peer::Successor => rendezvous.incumbent.as_ref()?.as_fd(), // O itself may be dead, and gone from here
        };
        let fds = [rendezvous.page.as_fd(), other, transfer.as_fd()];
        Some(crash::around('S', format_args!("send {}", message.name()), || session.send(message, &fds)))
    }

    fn due(&self, timer: Timer) -> u64 {
        let now_ns = monotonic_ns();
        let after = |duration: Duration| now_ns.saturating_add(nanoseconds(duration));
        let Some(attempt) = &self.attempt else { return now_ns };
        let spec = &attempt.spec;
        match timer {
            Timer::Hello => after(spec.hello_timeout),
            Timer::Drain => after(spec.drain_grace.saturating_add(SLACK)),
            Timer::Ready => after(spec.ready_timeout.saturating_add(SLACK)),
            Timer::Serving => after(SERVING_TIMEOUT),
            Timer::Deadline if self.machine.phase() == Phase::ColdStarting => after(spec.deadline),
            Timer::Deadline => attempt.deadline_ns().saturating_add(nanoseconds(SLACK)),
            Timer::Liveness(_) => after(LIVENESS),
            Timer::Lost(_) => after(DEATH_AFTER_END),
            Timer::AbortGrace => after(ABORT_GRACE),
            Timer::Retire if self.machine.overlaps() => after(RETIRE_GRACE.max(spec.drain_grace.saturating_add(SLACK))),
            Timer::Retire if self.machine.phase() == Phase::Confirming => after(RESERVE_GRACE),
            Timer::Retire => after(RETIRE_GRACE),
            Timer::Adoption => after(ADOPTION_TIMEOUT),
            Timer::Probation => self.probation_end_ns(),
        }
    }

    /// The compare-and-swap. A machine that asks has a page; without one nobody could have committed.
    fn decide(&mut self, what: Decide) -> Option<Decision> {
        let swap = || self.rendezvous.as_ref().map_or(Decision::Revoked, |rendezvous| decide(&rendezvous.page, what));
        let decision = crash::around('S', format_args!("revoke"), swap);
        if !decision.is_committed() {
            let pid = self.processes.successor.as_ref().map(|successor| successor.pid);
            trace::abort(self.machine.handoff().map_or(0, |id| id.0), &self.service, pid);
        }
        Some(decision)
    }

    fn signal(&mut self, peer: Peer, signal: Signal) {
        let Some(process) = self.processes.peer(peer) else { return };
        let signalled = crash::around('S', format_args!("send {signal} to {peer:?}"), || process.signal(signal));
        if let Err(error) = signalled {
            trace::trouble(&self.service, Some(process.pid), &error.to_string());
        }
    }

    /// SIGTERM the first time, SIGKILL when it is asked for again.
    fn evict(&mut self, peer: Peer) {
        let signal = if self.evicted { Signal::SIGKILL } else { Signal::SIGTERM };
        self.evicted = true;
        self.signal(peer, signal);
    }

    /// N is the incumbent. An O that is still there has said that it will never serve again.
    fn promote(&mut self) {
        crash::point('S', format_args!("before promote"));
        let Some(mut successor) = self.processes.successor.take() else {
            // Nobody is left to serve. A supervisor that was here before O retired has the listeners.
            if let (true, Some(process)) = (self.resuming, &self.processes.incumbent) {
                self.take_from_retired(process.pid);
            }
            return self.retire_incumbent();
        };
        self.retire_incumbent();
        // The machine takes it for linked.
        successor.end_is_news = successor.session.is_none();
        self.serving_spec = Some(successor.spec.clone());
        self.processes.incumbent = Some(successor);
    }

    fn retire_incumbent(&mut self) {
        let Some(process) = self.processes.incumbent.take() else { return };
        let drains = self.rendezvous.as_ref().is_some_and(|rendezvous| rendezvous.page.is_draining());
        self.leave(process, if drains { Term::of_drain(self.attempt.as_ref()) } else { Term::short() });
    }

    fn report(&mut self, verdict: Verdict, reason: String) {
        self.note_way_back(verdict);
        let Some(attempt) = &self.attempt else { return };
        let committed = self.is_committed();
        let processes = &self.processes;
        let server = match verdict {
            Verdict::Committed => processes.successor.as_ref(),
            Verdict::Undecided if committed => processes.successor.as_ref(),
            Verdict::Failed => None,
            _ => processes.incumbent.as_ref(),
        };
        let outcome = attempt.outcome(verdict, reason, server);
        trace::outcome(outcome.id, &self.service, outcome.pid, verdict_name(verdict), &outcome.reason);
        crash::around('S', format_args!("report {}", verdict_name(verdict)), || self.push(Event::Outcome(outcome)));
    }

    fn release(&mut self) {
        self.evicted = false;
        let Some(rendezvous) = self.rendezvous.take() else { return };
        self.listeners.repair();
        if rendezvous.in_journal
            && let Err(error) = self.write_journal(None)
        {
            trace::trouble(&self.service, None, &error.to_string());
        }
        crash::around('S', format_args!("unlink page"), || rendezvous.remove());
    }

    fn end_session(&mut self, peer: Peer, why: &str) {
        let Some(process) = self.processes.peer(peer) else { return };
        trace::trouble(&self.service, Some(process.pid), why);
        process.close_session(&self.epoll);
    }

    /// What becomes of the processes when there is no supervisor any more.
    fn abandon(&mut self) {
        let (Some(mut successor), Some(rendezvous)) = (self.processes.successor.take(), &self.rendezvous) else {
            return;
        };
        if rendezvous.page.decide(Word::Revoked).is_committed() {
            return; // it serves; the journal and the page tell a later supervisor
        }
        self.discard(&mut successor);
        self.release();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if fork::epoch() != self.epoch || is_restoring() {
            return; // the handoff and the processes are the parent's, or those of the program before
        }
        self.abandon();
        for process in self.processes.iter_mut() {
            let _ = process.pidfd.wait();
            process.reap_former();
            #[cfg(feature = "program")]
            release(process.pid); // whoever reaps orphans may have it
        }
    }
}

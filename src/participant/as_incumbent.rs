//! What the driver does for O's machine.

use super::core::{Core, End, Link, Machine, Task, Timer};
use super::event::{Event, EventKind};
use super::trace;
use super::transfer::Giving;
use crate::channel::decide;
use crate::error::{Error, Result};
use crate::limits::{HEARTBEAT, LOCK_RETRY, SLACK};
use crate::protocol::incumbent::{Action, Hook, Incumbent, Input, Phase, Timer as IncumbentTimer};
use crate::protocol::message::{Fingerprint, Gate, Message, Mode, PrepareHandoff};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::crash;
use crate::sys::session::end_some_members;
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

impl Core {
    pub(super) fn feed_incumbent(&mut self, input: Input) {
        let Machine::Incumbent(machine) = &mut self.machine else { return };
        let mut actions: VecDeque<Action> = machine.step(input).into();
        while let Some(action) = actions.pop_front() {
            if let (Some(answer), Machine::Incumbent(machine)) = (self.act_incumbent(action), &mut self.machine) {
                actions.extend(machine.step(answer));
            }
        }
    }

    fn act_incumbent(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Send(message) => self.send(&message),
            Action::Arm(timer) => self.timers.arm(Timer::Incumbent(timer), self.due(timer)),
            Action::Disarm(timer) => self.timers.disarm(Timer::Incumbent(timer)),
            Action::Run(hook) => return self.run(hook),
            Action::Cancel => self.events.cancel(),
            Action::Park => {
                let id = self.handoff_id();
                trace::step(id, "parked");
                self.notices.push_back(Event::notice(EventKind::Parked, id));
            }
            Action::SendGate => {
                return Some(match self.send_gate() {
                    Ok(()) => Input::GateSent,
                    Err(error) => Input::GateFailed(error.to_string()),
                });
            }
            Action::ReleaseLock => {
                return Some(match self.release_lock() {
                    Ok(fingerprint) => Input::Unlocked(fingerprint),
                    Err(error) => Input::UnlockFailed(error.to_string()),
                });
            }
            Action::Look => {
                let alive = self.link.as_ref().is_some_and(|link| !link.peer.is_dead());
                return Some(Input::SuccessorSeen { alive });
            }
            Action::TakeLock => self.tasks.push_back(Task::RetakeLock),
            Action::Decide(request) => {
                let link = self.link.as_ref()?;
                let value = crash::around('O', format_args!("revoke"), || decide(&link.page, request));
                return Some(Input::Decided(value));
            }
            Action::KillSuccessor => self.kill_successor(),
            Action::Retire => {
                let drains = self.mode == Mode::Overlap;
                if let Some(lock) = self.lock.as_mut().filter(|_| drains) {
                    crash::around('O', format_args!("let go of the gate"), || lock.let_go());
                }
                if let Some(link) = &self.link {
                    crash::around('O', format_args!("set retired"), || link.page.set_retired(drains));
                }
            }
            Action::Release => {
                crash::around('O', format_args!("close link"), || self.close_link());
                self.rebind_control();
            }
            Action::Exit(reason) => {
                crash::point('O', format_args!("before exit"));
                self.note_untaken();
                self.fence.close();
                self.end = Some(reason.map_or(End::Replaced, End::Lost));
            }
            Action::EndSession(violation) => {
                trace::failed(None, &violation, "the supervisor broke the protocol");
                self.close_session();
            }
        }
        None
    }

    fn due(&self, timer: IncumbentTimer) -> u64 {
        let now = monotonic_ns();
        let link = self.link.as_ref();
        match timer {
            IncumbentTimer::Deadline => {
                link.map_or(u64::MAX, |link| link.deadline_ns.saturating_add(nanoseconds(SLACK)))
            }
            IncumbentTimer::Drain => self.drain_deadline(),
            IncumbentTimer::Heartbeat => now + nanoseconds(HEARTBEAT),
            IncumbentTimer::Lock => now + nanoseconds(LOCK_RETRY),
            IncumbentTimer::Park => {
                let park_ns = link.map_or(0, |link| link.park_ns);
                now.saturating_add(park_ns).saturating_add(nanoseconds(SLACK))
            }
        }
    }

    /// The last drain has all of its grace: the handoff is over, and its deadline does not count any more.
    fn drain_deadline(&self) -> u64 {
        let now = monotonic_ns();
        let leaving = self.incumbent_phase() == Some(Phase::Leaving);
        let end = |link: &Link| if leaving { u64::MAX } else { link.deadline_ns };
        self.link.as_ref().map_or(now, |link| now.saturating_add(link.drain_grace_ns).min(end(link)))
    }

    /// Asks the application; the answer comes by the event's id.
    fn run(&mut self, hook: Hook) -> Option<Input> {
        let id = self.handoff_id();
        let (kind, deadline_ns, step) = match hook {
            Hook::Drain => (EventKind::Drain, self.drain_deadline(), "prepare"),
            Hook::Leave => (EventKind::Drain, self.drain_deadline(), "leave"),
            Hook::Seal => (EventKind::Seal, self.link.as_ref().map_or(u64::MAX, |link| link.deadline_ns), "seal"),
            Hook::Resume { .. } => (EventKind::Resume, u64::MAX, "resume"),
        };
        trace::step(id, step);
        if kind == EventKind::Resume {
            self.fence.open();
        }
        let after_commit = matches!(hook, Hook::Leave | Hook::Resume { after_commit: true });
        crash::around('O', format_args!("ask {kind:?}"), || self.events.ask(kind, deadline_ns, id, after_commit));
        self.events.skip_resume().then_some(Input::Resumed)
    }

    /// The gate goes to N first, then the lock is released, explicitly.
    fn release_lock(&mut self) -> Result<Fingerprint> {
        let no_lock = || Error::State("there is no lock to release".into());
        let lock = self.lock.as_mut().ok_or_else(no_lock)?;
        let fingerprint = lock.fingerprint()?;
        self.send_gate()?;
        let lock = self.lock.as_mut().ok_or_else(no_lock)?;
        crash::around('O', format_args!("release lock"), || lock.release())?;
        trace::step(self.handoff_id(), "seal_complete");
        Ok(fingerprint)
    }

    fn send_gate(&mut self) -> Result<()> {
        let gate = self.lock.as_ref().and_then(|lock| lock.gate());
        let gate = gate.ok_or_else(|| Error::State("there is no gate to hand over".into()))?;
        let link = self.link.as_mut().ok_or_else(|| Error::State("there is no handoff".into()))?;
        let transfer = link.transfer.as_mut().ok_or_else(|| Error::Aborted("the successor is gone".into()))?;
        let sent = link.giving.as_ref().map(Giving::totals).unwrap_or_default();
        let message = Message::Gate(Gate { id: link.id, sent });
        let sent =
            crash::around('O', format_args!("send Gate to the other daemon"), || transfer.send(&message, &[gate]));
        sent.map_err(|error| Error::Protocol(format!("the gate could not be handed over: {error}")))
    }

    /// One attempt at the lock that was released; the machine asks again.
    pub(super) fn retake_lock(&mut self) {
        let taken = self.try_lock();
        let refusal = match taken {
            Ok(true) => {
                self.refusal = None;
                return self.feed_incumbent(Input::Locked);
            }
            Ok(false) => {
                self.refusal.clone().or_else(|| self.lock.as_ref().map(|lock| lock.blame())).unwrap_or_default()
            }
            Err(error) => error.to_string(),
        };
        // Once: it is tried many times a second.
        if self.refusal.as_ref() != Some(&refusal) {
            self.end_children_of_successor();
            trace::failed(Some(self.handoff_id()), &refusal, "nobody serves until the lock is free; trying again");
            self.refusal = Some(refusal.clone());
        }
        self.feed_incumbent(Input::LockRefused(refusal));
    }

    /// N is dead, but a child that it has forked may have the lock; S ends those, if there is one.
    fn end_children_of_successor(&self) {
        let (Some(lock), Some(pid)) = (&self.lock, self.link.as_ref().and_then(|link| link.peer_pid)) else { return };
        end_some_members(pid, lock.holders().map(|holder| holder.pid));
    }

    fn kill_successor(&self) {
        let Some(link) = &self.link else { return };
        let killed = crash::around('O', format_args!("kill successor"), || link.peer.kill(Signal::SIGKILL));
        if let Err(error) = killed {
            trace::failed(Some(link.id), &error, "the successor can not be killed");
        }
    }

    pub(super) fn on_incumbent_message(&mut self, message: Message, fds: Vec<OwnedFd>) {
        match &message {
            Message::PrepareHandoff(prepare) if self.incumbent_phase() == Some(Phase::Serving) => {
                if let Err(error) = self.accept_prepare(prepare, fds) {
                    trace::undone(prepare.id, &error, "a handoff is refused");
                    return self.feed_incumbent(Input::Unable(prepare.id, error.to_string()));
                }
                self.feed_incumbent(Input::Message(message));
                if self.incumbent().is_some_and(|machine| machine.handoff().is_none()) {
                    self.close_link(); // of an older handoff, or of none
                }
                return;
            }
            Message::Reject(reject) => {
                trace::failed(None, &reject.text, "the supervisor refuses this daemon");
            }
            _ => {}
        }
        self.feed_incumbent(Input::Message(message));
    }

    fn accept_prepare(&mut self, prepare: &PrepareHandoff, fds: Vec<OwnedFd>) -> Result<()> {
        if !self.lock.as_ref().is_some_and(|lock| lock.is_held()) {
            let text = "this daemon has neither a data directory nor a control path, so there is no lock to hand over";
            return Err(Error::Refused(text.into()));
        }
        self.check_predecessor()?;
        if prepare.mode != self.mode {
            return Err(Error::Refused(format!("this daemon offers {:?} mode only", self.mode)));
        }
        let giving = self.prepare_giving(prepare)?;
        self.open_link(prepare.id, prepare.deadline_ns, fds)?;
        self.begin_giving(giving);
        if self.mode == Mode::Exclusive {
            self.drop_received(); // of the handoff in which this process was the successor
        }
        if let Some(link) = &mut self.link {
            (link.drain_grace_ns, link.park_ns) = (prepare.drain_grace_ns, prepare.park_ns);
        }
        Ok(())
    }

    /// The drain of which the application has not heard yet can not be: nobody would attend to it.
    pub(super) fn refuse_drain(&mut self, error: &Error) {
        if self.events.is_pending() && self.incumbent_phase() == Some(Phase::Draining) {
            self.events.cancel();
            self.feed_incumbent(Input::HookFailed(error.to_string()));
        }
    }

    pub(super) fn incumbent(&self) -> Option<&Incumbent> {
        match &self.machine {
            Machine::Incumbent(machine) => Some(machine),
            Machine::Successor(_) => None,
        }
    }

    pub(super) fn incumbent_phase(&self) -> Option<Phase> {
        self.incumbent().map(Incumbent::phase)
    }
}

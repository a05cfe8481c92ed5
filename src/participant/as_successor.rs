//! What the driver does for N's machine.

use super::core::{Core, End, Machine, Task, Timer};
use super::trace;
use crate::channel::decide;
use crate::error::Result;
use crate::limits::{HEARTBEAT, HELLO_TIMEOUT, LOCK_PATIENCE};
use crate::protocol::incumbent::Incumbent;
use crate::protocol::message::{HelloAck, Message, Sealed};
use crate::protocol::successor::{Action, Input, Phase, Successor, Timer as SuccessorTimer};
use crate::protocol::{Decide, HandoffId};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::crash;
use crate::sys::limits::make_room;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

impl Core {
    pub(super) fn feed_successor(&mut self, input: Input) {
        let Machine::Successor(machine) = &mut self.machine else { return };
        let mut actions: VecDeque<Action> = machine.step(input).into();
        while let Some(action) = actions.pop_front() {
            if let (Some(answer), Machine::Successor(machine)) = (self.act_successor(action), &mut self.machine) {
                actions.extend(machine.step(answer));
            }
        }
    }

    fn act_successor(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Send(message) => self.send(&message),
            Action::Tell(message) => self.tell(&message),
            Action::Arm(timer) => {
                let now = monotonic_ns();
                let due = match timer {
                    SuccessorTimer::Ack => now + nanoseconds(HELLO_TIMEOUT),
                    SuccessorTimer::Heartbeat => now + nanoseconds(HEARTBEAT),
                    SuccessorTimer::Deadline => self.link.as_ref().map_or(u64::MAX, |link| link.deadline_ns),
                };
                self.timers.arm(Timer::Successor(timer), due);
            }
            Action::Disarm(timer) => self.timers.disarm(Timer::Successor(timer)),
            Action::TakeLock(sealed) => {
                let until_ns = monotonic_ns() + nanoseconds(LOCK_PATIENCE);
                self.tasks.push_back(Task::TakeLock { sealed, until_ns, tried: false });
            }
            Action::Look => {
                let alive = self.link.as_ref().is_some_and(|link| !link.peer.is_dead());
                return Some(Input::IncumbentSeen { alive });
            }
            Action::Decide(decide @ Decide::Commit { .. }) => self.tasks.push_back(Task::Commit(decide)),
            Action::Decide(Decide::Revoke) => {
                let link = self.link.as_ref()?;
                let value = crash::around('N', format_args!("revoke"), || decide(&link.page, Decide::Revoke));
                return Some(Input::Decided(value));
            }
            Action::Publish => self.tasks.push_back(Task::Publish),
            Action::Abandon(reason) => {
                trace::undone(self.handoff_id(), &reason, "abort");
                self.fence.close();
                self.drop_received();
                self.tasks.clear();
                crash::around('N', format_args!("unlink temporary control path"), || self.control.discard());
                self.end = Some(End::Aborted(reason));
            }
            Action::EndSession(violation) => {
                trace::failed(None, &violation, "the supervisor broke the protocol");
                self.close_session();
            }
        }
        None
    }

    /// The control path must be O's, or nobody's.
    fn check_control(&self) -> Result<()> {
        match self.link.as_ref().and_then(|link| link.peer.pid()) {
            Some(incumbent) => self.control.check_free(Some(incumbent)),
            None => Ok(()), // dead, or in another pid namespace
        }
    }

    /// Says something to O directly.
    pub(super) fn tell(&mut self, message: &Message) {
        if let Some(transfer) = self.link.as_mut().and_then(|link| link.transfer.as_mut()) {
            let step = format_args!("send {} to the other daemon", message.name());
            let _ = crash::around('N', step, || transfer.send(message, &[])); // O may be dead; the page says the same
        }
    }

    pub(super) fn on_successor_message(&mut self, message: Message, fds: Vec<OwnedFd>) {
        if let Message::HelloAck(ack) = &message
            && let Some(terms) = ack.terms
            && self.successor().is_some_and(|machine| *machine.phase() == Phase::AwaitAck)
            && let Err(error) = self.open_link(terms.id, terms.deadline_ns, fds).and_then(|()| self.check_control())
        {
            trace::failed(None, &error, "this process can not take part");
            self.end = Some(End::Aborted(error.to_string()));
            return self.close_session(); // nothing was disturbed; S sees the end
        }
        if let Message::HelloAck(HelloAck { terms: Some(terms), .. }) = &message
            && let Err(error) =
                crash::around('N', format_args!("make room"), || make_room(terms.open_descriptors.into()))
        {
            trace::trifle(None, &error, "no room could be made for the incumbent's descriptors");
        }
        self.feed_successor(Input::Message(message));
    }

    /// One attempt at gate and lock. The task comes back if somebody holds them and patience is left.
    pub(super) fn take_lock(&mut self, sealed: Sealed, until_ns: u64) {
        let taken = match self.check_sealed(&sealed) {
            Ok(()) => self.try_lock(),
            Err(error) => Err(error),
        };
        let refusal = match taken {
            Ok(true) => {
                self.fence.open();
                return self.feed_successor(Input::Locked);
            }
            Ok(false) if monotonic_ns() < until_ns => {
                return self.tasks.push_front(Task::TakeLock { sealed, until_ns, tried: true });
            }
            Ok(false) => self.lock.as_ref().map_or(String::new(), |lock| lock.blame()),
            Err(error) => error.to_string(),
        };
        self.feed_successor(Input::LockRefused(refusal));
    }

    /// Whether what O sealed is what this process would open; and the gate, which must have come before Begin.
    fn check_sealed(&mut self, sealed: &Sealed) -> Result<()> {
        use crate::error::Error;
        self.read_transfer();
        self.settle_received(sealed)?;
        let Some(lock) = &mut self.lock else { return Ok(()) };
        lock.check_mode(sealed)?;
        if let Some(gate) = self.gate.take() {
            lock.receive_gate(gate?)?;
        }
        if *sealed == Sealed::Beside && lock.gate().is_none() {
            return Err(Error::Protocol("the incumbent announced itself, but did not hand over the gate".into()));
        }
        let Sealed::Complete { fingerprint, .. } = sealed else { return Ok(()) };
        if lock.gate().is_none() {
            return Err(Error::Protocol("the incumbent sealed, but did not hand over the gate".into()));
        }
        if lock.fingerprint()? != *fingerprint {
            let shown = lock.path().display();
            return Err(Error::Invalid(format!(
                "{shown} is not the lock of what the incumbent sealed: both must use the same data directory"
            )));
        }
        Ok(())
    }

    /// The commit itself. Runs on the owner's thread.
    pub(super) fn commit(&mut self, request: Decide) {
        let Some(link) = &self.link else { return };
        let value = crash::around('N', format_args!("commit"), || decide(&link.page, request));
        self.committed_ns = monotonic_ns();
        self.feed_successor(Input::Decided(value));
    }

    /// The word is won: everybody may see it.
    pub(super) fn publish(&mut self) {
        self.publish_control();
        trace::step(self.handoff_id(), "commit");
    }

    /// The application serves: N tells everybody, and is O from here on.
    pub(super) fn become_incumbent(&mut self) {
        // Not at the commit: O exits when it sees this, and the application may still die on its way here.
        if let Some(link) = &self.link {
            crash::around('N', format_args!("set serving"), || link.page.set_serving());
        }
        let (committed_ns, control) = (self.committed_ns, self.published.clone());
        self.feed_successor(Input::Served { committed_ns, control });
        let Machine::Successor(machine) = &self.machine else { return };
        let parks = machine.terms().is_some_and(|terms| terms.park_ns > 0);
        let (generation, id) = (machine.generation(), self.handoff_id());
        self.machine = Machine::Incumbent(Incumbent::committed(generation, id));
        crash::around('N', format_args!("close link"), || {
            self.keep_donor();
            match parks {
                true => self.keep_predecessor(),
                false => self.close_link(),
            }
        });
        self.watch_untaken();
        if let Some(lock) = &self.lock {
            crash::around('N', format_args!("write lock record"), || lock.record(generation));
        }
    }

    pub(super) fn successor(&self) -> Option<&Successor> {
        match &self.machine {
            Machine::Successor(machine) => Some(machine),
            Machine::Incumbent(_) => None,
        }
    }

    /// Whether N has won the word, and may serve.
    pub(super) fn has_won(&self) -> bool {
        self.successor().is_some_and(|machine| matches!(machine.phase(), Phase::Won | Phase::Serving))
    }

    pub(super) fn handoff_id(&self) -> HandoffId {
        self.link.as_ref().map_or(HandoffId::COLD, |link| link.id)
    }
}

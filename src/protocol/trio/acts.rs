//! What the drivers of O and N do when their machine wants it.

use super::daemons::{Kind, Take, Timer};
use super::service::nanoseconds;
use super::world::{Outcome, World};
use crate::limits;
use crate::protocol::message::{Fingerprint, Message};
use crate::protocol::{Decide, Decision, incumbent, successor};

impl World {
    /// The gate first, then the lock.
    pub(super) fn take_lock(&mut self, i: usize) -> bool {
        let gate = self.gate.is_empty() || self.gate.contains(&i);
        if !gate || self.lock.is_some() {
            return false;
        }
        if self.gate.is_empty() {
            self.gate.push(i);
        }
        self.lock = Some(i);
        true
    }

    /// Compare-and-swap.
    pub(super) fn decide(&mut self, page: usize, to: Decision, by: Option<usize>) -> Decision {
        let page = &mut self.pages[page];
        if page.word == Decision::Open {
            (page.word, page.decided_by) = (to, by);
        }
        page.word
    }

    fn send(&mut self, i: usize, message: Message) {
        let daemon = &mut self.daemons[i];
        if daemon.connected {
            let from = if daemon.is_incumbent() { "O" } else { "N" };
            self.sent.push(format!("{from}>S {}", message.name()));
            daemon.outbox.push_back(message);
        }
    }

    fn arm(&mut self, i: usize, timer: Timer) {
        let (now, daemon) = (self.now, &mut self.daemons[i]);
        let deadline = daemon.deadline_ns;
        let due = match timer {
            Timer::Incumbent(incumbent::Timer::Drain) => deadline.min(now + daemon.drain_grace_ns),
            Timer::Incumbent(incumbent::Timer::Deadline) => deadline + nanoseconds(limits::SLACK),
            Timer::Incumbent(incumbent::Timer::Lock) => now + nanoseconds(limits::LOCK_RETRY),
            Timer::Incumbent(incumbent::Timer::Park) => u64::MAX, // nobody asks for it
            Timer::Successor(successor::Timer::Ack) => now + nanoseconds(limits::HELLO_TIMEOUT),
            Timer::Successor(successor::Timer::Deadline) => deadline,
            Timer::Incumbent(incumbent::Timer::Heartbeat) | Timer::Successor(successor::Timer::Heartbeat) => {
                now + nanoseconds(limits::HEARTBEAT)
            }
        };
        daemon.timers.retain(|(armed, _)| *armed != timer);
        daemon.timers.push((timer, due));
    }

    fn disarm(&mut self, i: usize, timer: Timer) {
        self.daemons[i].timers.retain(|(armed, _)| *armed != timer);
    }

    pub(super) fn end_session(&mut self, i: usize, violation: String) {
        let daemon = &mut self.daemons[i];
        daemon.violations.push(violation);
        daemon.connected = false;
        daemon.told_end = true;
        daemon.inbox.clear();
    }

    /// Returns whether it was a look at the other daemon.
    pub(super) fn incumbent_acts(&mut self, i: usize, action: incumbent::Action) -> bool {
        use incumbent::{Action, Input};
        let now = self.now;
        match action {
            Action::Send(message) => self.send(i, message),
            Action::Arm(timer) => self.arm(i, Timer::Incumbent(timer)),
            Action::Disarm(timer) => self.disarm(i, Timer::Incumbent(timer)),
            Action::Run(hook) => self.daemons[i].run_hook(hook, now),
            Action::Cancel => self.daemons[i].cancel(now),
            Action::Park => self.fail("no probation is asked for"),
            Action::SendGate => self.fail("overlap mode is not asked for"),
            Action::ReleaseLock => self.release_lock(i),
            Action::TakeLock => {
                let taken = self.take_lock(i);
                let input = if taken { Input::Locked } else { Input::LockRefused("a stranger".into()) };
                self.daemons[i].answers.push_back(Take::Incumbent(input));
            }
            Action::Decide(Decide::Revoke) => {
                let page = self.daemons[i].page.expect("a page");
                let value = self.decide(page, Decision::Revoked, Some(i));
                self.daemons[i].answers.push_back(Take::Incumbent(Input::Decided(value)));
            }
            Action::Decide(decide) => self.fail(format!("O may not {decide:?}")),
            Action::Look => {
                let peer = self.daemons[i].peer.expect("N");
                let alive = self.daemons[peer].alive;
                self.daemons[i].answers.push_back(Take::Incumbent(Input::SuccessorSeen { alive }));
                return true;
            }
            Action::KillSuccessor => {
                let page = self.daemons[i].page.expect("a page");
                let revoked = self.pages[page].word == Decision::Revoked;
                self.require(revoked, "O kills N, but has not won the word");
                let peer = self.daemons[i].peer.expect("N");
                self.die(peer, "killed by O");
            }
            Action::Retire => {
                let page = self.daemons[i].page.expect("a page");
                self.pages[page].retired = true;
            }
            Action::Release => {
                self.control = Some(i); // bound again, if it was not its own
                let daemon = &mut self.daemons[i];
                (daemon.page, daemon.peer) = (None, None);
                (daemon.told_peer_death, daemon.told_serving) = (false, false);
            }
            Action::Exit(reason) => self.leaves(i, reason.as_deref()),
            Action::EndSession(violation) => self.end_session(i, violation.to_string()),
        }
        false
    }

    fn release_lock(&mut self, i: usize) {
        let held = self.lock == Some(i);
        self.require(held, "O releases a lock that it does not hold");
        if self.daemons[i].outcome(Kind::Unlock) != Outcome::Good(0) {
            let failed = incumbent::Input::UnlockFailed("the transfer socket is gone".into());
            return self.daemons[i].answers.push_back(Take::Incumbent(failed));
        }
        if let Some(peer) = self.daemons[i].peer.filter(|peer| self.daemons[*peer].alive) {
            self.gate.push(peer);
        }
        self.lock = None;
        let fingerprint = Fingerprint { directory: (1, 2), lock: (1, 3) };
        self.daemons[i].answers.push_back(Take::Incumbent(incumbent::Input::Unlocked(fingerprint)));
    }

    pub(super) fn successor_acts(&mut self, i: usize, action: successor::Action) -> bool {
        use successor::{Action, Input};
        let now = self.now;
        match action {
            Action::Send(message) => self.send(i, message),
            Action::Tell(_) => {} // O sees the page
            Action::Arm(timer) => self.arm(i, Timer::Successor(timer)),
            Action::Disarm(timer) => self.disarm(i, Timer::Successor(timer)),
            Action::TakeLock(_) => {
                let taken = self.take_lock(i);
                let input = if taken { Input::Locked } else { Input::LockRefused("a stranger".into()) };
                self.daemons[i].answers.push_back(Take::Successor(input));
                if taken {
                    self.daemons[i].start(Kind::Open, now);
                }
            }
            Action::Look => {
                let peer = self.daemons[i].peer.expect("O");
                let alive = self.daemons[peer].alive;
                self.daemons[i].answers.push_back(Take::Successor(Input::IncumbentSeen { alive }));
                return true;
            }
            Action::Decide(decide) => {
                let page = self.daemons[i].page.expect("a page");
                let to = match decide {
                    Decide::Commit { deadline_ns: Some(deadline), .. } if deadline < now => self.pages[page].word,
                    Decide::Commit { incompatible: true, .. } => Decision::CommittedIncompatible,
                    Decide::Commit { incompatible: false, .. } => Decision::Committed,
                    Decide::Revoke => Decision::Revoked,
                };
                let value = self.decide(page, to, Some(i));
                self.daemons[i].answers.push_back(Take::Successor(Input::Decided(value)));
            }
            Action::Publish => {
                let daemon = &mut self.daemons[i];
                daemon.serves = true;
                daemon.start(Kind::Serve, now);
                self.control = Some(i);
            }
            Action::Abandon(reason) => self.leaves(i, Some(&reason)),
            Action::EndSession(violation) => self.end_session(i, violation.to_string()),
        }
        false
    }
}

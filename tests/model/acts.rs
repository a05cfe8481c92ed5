//! What the drivers of O and N do when their machine wants it.

use crate::config::Mutant;
use crate::daemon::{Do, Machine, Take, Task, Timer, Work};
use crate::world::{Holder, Pid, World};
use handoff::protocol::incumbent::Hook;
use handoff::protocol::message::{Fingerprint, Sealed};
use handoff::protocol::{Decide, Decision, incumbent, successor};

const SEALED: Fingerprint = Fingerprint { directory: (0, 0), lock: (0, 0) };

impl World {
    /// Compare-and-swap.
    pub fn swap(&mut self, page: u8, to: Decision, by: Option<Pid>) -> Decision {
        let page = &mut self.pages[usize::from(page)];
        if page.word == Decision::Open {
            (page.word, page.decided_by) = (to, by);
        }
        page.word
    }

    /// What a process wants the word to be; what it is if that is not to be changed.
    fn wanted(&self, page: u8, decide: Decide) -> Decision {
        match decide {
            Decide::Commit { deadline_ns: Some(_), .. } if self.page(page).late && !self.config.no_deadline_check => {
                self.page(page).word
            }
            Decide::Commit { incompatible: true, .. } => Decision::CommittedIncompatible,
            Decide::Commit { incompatible: false, .. } => Decision::Committed,
            Decide::Revoke => Decision::Revoked,
        }
    }

    /// Asks for the swap; the answer goes to the machine.
    fn decide(&mut self, i: Pid, decide: Decide) {
        let page = self.see(i).page.expect("a page");
        if self.config.is(Mutant::SplitSwap) {
            let read = self.page(page).word;
            return self.daemon(i).todo.push_front(Do::Write(decide, read));
        }
        let wanted = self.wanted(page, decide);
        let free = self.lock.is_none() && self.config.is(Mutant::LockMeansResume) && self.see(i).is_incumbent();
        let value = if free { Decision::Revoked } else { self.swap(page, wanted, Some(i)) };
        self.answer_decided(i, value);
    }

    fn answer_decided(&mut self, i: Pid, value: Decision) {
        let daemon = self.daemon(i);
        daemon.answers.push_back(match daemon.machine {
            Machine::Incumbent(_) => Take::Incumbent(incumbent::Input::Decided(value)),
            Machine::Successor(_) => Take::Successor(successor::Input::Decided(value)),
        });
    }

    /// The second half of a swap that is broken in two.
    pub fn write_word(&mut self, i: Pid, decide: Decide, read: Decision) -> bool {
        let page = self.see(i).page.expect("a page");
        let mut value = read;
        if read == Decision::Open {
            value = self.wanted(page, decide);
            let page = &mut self.pages[usize::from(page)];
            (page.word, page.decided_by) = (value, Some(i));
        }
        self.answer_decided(i, value);
        false
    }

    /// Returns whether it was a look at the other daemon.
    pub fn incumbent_acts(&mut self, i: Pid, action: incumbent::Action) -> bool {
        use incumbent::{Action, Input};
        match action {
            Action::Send(message) => self.daemon(i).send(message),
            Action::Arm(timer) => self.daemon(i).arm(Timer::Incumbent(timer)),
            Action::Disarm(timer) => self.daemon(i).disarm(Timer::Incumbent(timer)),
            Action::Run(hook) => {
                match hook {
                    Hook::Drain => self.leave_connection(i),
                    Hook::Resume { after_commit } => {
                        let page = self.see(i).page.expect("a page");
                        let right = after_commit == self.page(page).word.is_committed();
                        self.require(right, "O resumes, and its application does not know whether N had committed");
                    }
                    Hook::Seal | Hook::Leave => {}
                }
                self.daemon(i).run_hook(hook);
            }
            Action::Cancel => {
                if let Some(work) = &mut self.daemon(i).work {
                    *work = Work::Cancelled(None);
                }
            }
            Action::Park => self.check_parking(i),
            Action::SendGate => self.send_gate(i),
            Action::ReleaseLock => self.release_lock(i),
            Action::TakeLock => self.daemon(i).task = Some(Task::TakeLock),
            Action::Decide(decide) => {
                self.require(decide == Decide::Revoke, "O commits");
                self.decide(i, decide);
            }
            Action::Look => {
                let alive = self.see(self.see(i).peer.expect("N")).alive;
                let seen = Take::Incumbent(Input::SuccessorSeen { alive });
                self.daemon(i).answers.push_back(seen);
                return true;
            }
            Action::KillSuccessor => self.incumbent_kills(i),
            Action::Retire => {
                self.let_go(i);
                self.check_left_connection(i);
                let page = self.see(i).page.expect("a page");
                self.pages[usize::from(page)].retired = true;
            }
            Action::Release => {
                self.control = Some(i); // bound again, if it was not its own
                let daemon = self.daemon(i);
                (daemon.page, daemon.peer, daemon.peer_death_told, daemon.transfer) = (None, None, false, false);
            }
            Action::Exit(reason) => {
                if reason.is_some() || !self.config.overlap {
                    self.check_leaving(i, reason.as_deref()); // in overlap mode it left when it retired
                }
                self.die(i);
            }
            Action::EndSession(violation) => self.fail(format!("O ends the session: {violation}")),
        }
        false
    }

    fn incumbent_kills(&mut self, i: Pid) {
        let (page, peer) = (self.see(i).page.expect("a page"), self.see(i).peer.expect("N"));
        if self.config.is(Mutant::RawPid) && !self.see(peer).alive {
            self.fail("a stranger is killed");
        }
        self.check_kill(page, peer);
        self.die(peer);
    }

    fn release_lock(&mut self, i: Pid) {
        let held = self.lock == Some(Holder::Daemon(i));
        self.require(held, "O releases a lock that it does not hold");
        if let Some(peer) = self.see(i).peer.filter(|peer| self.see(*peer).alive) {
            self.gate |= 1 << peer;
            self.give_connection(i, peer);
        }
        self.lock = None;
        if self.config.is(Mutant::UnlockBeforeSeal) {
            self.daemon(i).has_data = true;
        }
        let unlocked = Take::Incumbent(incumbent::Input::Unlocked(SEALED));
        self.daemon(i).answers.push_back(unlocked);
    }

    pub fn successor_acts(&mut self, i: Pid, action: successor::Action) -> bool {
        use successor::{Action, Input};
        match action {
            Action::Send(message) => self.daemon(i).send(message),
            Action::Tell(_) => {
                let daemon = self.see(i);
                // Only the O of this handoff reads this socket.
                if let Some(peer) = daemon.peer.filter(|peer| self.see(*peer).alive)
                    && self.see(peer).page == daemon.page
                {
                    self.daemon(peer).transfer = true;
                }
            }
            Action::Arm(timer) => self.daemon(i).arm(Timer::Successor(timer)),
            Action::Disarm(timer) => self.daemon(i).disarm(Timer::Successor(timer)),
            Action::TakeLock(sealed) => {
                let daemon = self.daemon(i);
                daemon.task = Some(Task::TakeLock);
                daemon.knows_revisions = matches!(sealed, Sealed::Complete { .. });
            }
            Action::Look => {
                let alive = self.see(self.see(i).peer.expect("O")).alive;
                let seen = Take::Successor(Input::IncumbentSeen { alive });
                self.daemon(i).answers.push_back(seen);
                return true;
            }
            Action::Decide(decide @ Decide::Commit { .. }) => self.daemon(i).task = Some(Task::Commit(decide)),
            Action::Decide(Decide::Revoke) => self.decide(i, Decide::Revoke),
            Action::Publish => self.daemon(i).task = Some(Task::Publish),
            Action::Abandon(reason) => {
                self.check_leaving(i, Some(&reason));
                self.die(i);
            }
            Action::EndSession(violation) => self.fail(format!("N ends the session: {violation}")),
        }
        false
    }

    /// What only the owner's thread may do.
    pub fn task(&mut self, i: Pid) {
        match self.daemon(i).task.take() {
            None => {}
            Some(Task::TakeLock) => {
                let taken = self.take_lock(i);
                if self.see(i).is_incumbent() {
                    let refused = || incumbent::Input::LockRefused("a stranger".into());
                    return self.incumbent_takes(i, if taken { incumbent::Input::Locked } else { refused() });
                }
                if taken {
                    self.daemon(i).work = Some(Work::Open);
                }
                let refused = || successor::Input::LockRefused("a stranger".into());
                self.successor_takes(i, if taken { successor::Input::Locked } else { refused() });
            }
            Some(Task::Commit(decide)) => {
                self.decide(i, decide);
                self.settle(i);
            }
            Some(Task::Publish) => {
                self.control = Some(i);
                self.show_connection(i);
                let daemon = self.daemon(i);
                (daemon.serves, daemon.work) = (true, Some(Work::Serve));
            }
        }
    }
}

/// Whether nobody but the process itself can tell when it does this.
pub fn is_local_o(action: &incumbent::Action, connected: bool) -> bool {
    use incumbent::Action as A;
    matches!(action, A::Arm(_) | A::Disarm(_) | A::Run(_) | A::Cancel | A::TakeLock | A::Release)
        || !connected && matches!(action, A::Send(_))
}

pub fn is_local_n(action: &successor::Action, connected: bool) -> bool {
    use successor::Action as A;
    matches!(action, A::Arm(_) | A::Disarm(_) | A::TakeLock(_) | A::Publish | A::Decide(Decide::Commit { .. }))
        || !connected && matches!(action, A::Send(_))
}

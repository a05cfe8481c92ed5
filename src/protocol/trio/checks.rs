//! What must be true after each event, and at the end.

use super::daemons::Role;
use super::world::World;
use crate::protocol::{Decision, incumbent, successor, supervisor};
use supervisor::{Phase, Verdict};

impl World {
    pub(super) fn fail(&mut self, what: impl Into<String>) {
        if self.broken.is_none() {
            self.broken = Some(what.into());
        }
    }

    pub(super) fn require(&mut self, holds: bool, what: &str) {
        if !holds {
            self.fail(what);
        }
    }

    /// In every state.
    pub(super) fn check(&mut self) {
        let mut servers = 0;
        for i in 0..self.daemons.len() {
            let daemon = &self.daemons[i];
            if !daemon.alive {
                continue;
            }
            servers += usize::from(daemon.serves);
            if (daemon.has_data || daemon.serves) && self.lock != Some(i) {
                self.fail(format!("{i} uses the data without the lock"));
            }
            self.check_word(i);
        }
        if servers > 1 {
            self.fail("two serve at once");
        }
    }

    /// A superseded O does not serve beside its successor, and a revoked N does not serve at all.
    fn check_word(&mut self, i: usize) {
        let daemon = &self.daemons[i];
        let Some(word) = daemon.page.map(|page| self.pages[page].word) else { return };
        let peer_lives = daemon.peer.is_some_and(|peer| self.daemons[peer].alive);
        match &daemon.role {
            Role::Incumbent(_) if daemon.serves && word.is_committed() && peer_lives => {
                self.fail("O serves beside an N that has committed");
            }
            Role::Successor(_) if daemon.serves && !word.is_committed() => {
                self.fail("N serves without having won the word");
            }
            _ => {}
        }
    }

    /// A process exits by itself. The last one that could serve does not, when S is gone.
    pub(super) fn leaves(&mut self, i: usize, reason: Option<&str>) {
        let daemon = &self.daemons[i];
        let may = match &daemon.role {
            Role::Incumbent(_) => reason.is_some(), // it can not serve, and says why
            Role::Successor(_) => {
                // It chose to go, though it could have won; and not because a living S will start another one.
                let revoked_itself = daemon.page.is_some_and(|page| self.pages[page].decided_by == Some(i));
                let reason = reason.unwrap_or_default();
                let unable =
                    ["stranger", "could not serve", "asked to stop", "sealed"].iter().any(|why| reason.contains(why));
                !revoked_itself || unable || reason.contains("deadline") && !daemon.told_end
            }
        };
        let left = (0..self.daemons.len()).any(|other| other != i && self.could_serve(other));
        self.require(may || left || self.service.alive, "the last process that could serve exits by itself");
        let status = reason.map_or("replaced".into(), |reason| format!("exit: {reason}"));
        self.die(i, &status);
    }

    fn could_serve(&self, i: usize) -> bool {
        let daemon = &self.daemons[i];
        daemon.alive
            && match &daemon.role {
                Role::Incumbent(machine) => {
                    !matches!(machine.phase(), incumbent::Phase::Replaced | incumbent::Phase::Lost)
                }
                Role::Successor(machine) => {
                    let revoked = daemon.page.is_none_or(|page| self.pages[page].word == Decision::Revoked);
                    !revoked && *machine.phase() != successor::Phase::Aborted
                }
            }
    }

    pub(super) fn on_report(&mut self, verdict: Verdict, text: String) {
        let service = &self.service;
        let successor_serves = service.successor.is_some_and(|i| self.daemons[i].serves);
        let (word, prepared) = (self.word(), service.said_prepare);
        let resumed = service.heard_resumed || !prepared;
        let lie = match verdict {
            Verdict::Committed => !(service.heard_serving || service.told_serving) || !word_is_committed(word),
            Verdict::RolledBack => !resumed || successor_serves || word_is_committed(word),
            Verdict::Reverted => !service.heard_resumed || !word_is_committed(word),
            Verdict::Refused => prepared && !service.heard_reject,
            Verdict::StartedCold | Verdict::Undecided | Verdict::Failed => false,
        };
        if lie {
            self.fail(format!("{verdict:?} is reported too early: {text}"));
        }
        self.service.reports.push((verdict, text));
    }

    /// A second handoff is refused at once, and changes nothing.
    pub(super) fn check_busy(&mut self) {
        if self.service.machine.phase() == Phase::Idle {
            return;
        }
        let before = self.service.machine.clone();
        let plan = super::service::plan(self.now + 5, self.policy);
        let actions = self.service.machine.step(supervisor::Input::StartHandoff(plan));
        let refused = matches!(
            &actions[..],
            [supervisor::Action::Report(Verdict::Refused, text)] if text.starts_with("busy")
        );
        let unchanged = self.service.machine == before;
        self.require(refused && unchanged, "a second handoff is not refused at once");
    }

    /// At the end, when nobody is stopped: exactly one serves, and S has an outcome.
    pub(super) fn check_end(&mut self) {
        let live: Vec<usize> = (0..self.daemons.len()).filter(|i| self.daemons[*i].alive).collect();
        let is_stuck = |i: &usize| self.daemons[*i].stopped || self.daemons[*i].is_stuck();
        let stuck = live.iter().any(is_stuck);
        let servers = live.iter().filter(|i| self.daemons[**i].serves && !is_stuck(i)).count();
        let service = self.service.runs();
        let could = live.iter().any(|i| self.could_serve(*i));
        if servers != 1 && !stuck && (service || could) {
            let phases: Vec<_> = self.daemons.iter().map(super::daemons::Daemon::phase).collect();
            self.fail(format!("in the end {servers} serve: {phases:?}"));
        }
        let service_waits = service && self.service.machine.phase() != Phase::Idle;
        if service_waits && !stuck {
            self.fail(format!("S waits for ever: {}", self.service.machine.phase().name()));
        }
        if service && !service_waits && self.service.reports.is_empty() && !self.service.owes_nothing {
            self.fail("S has no outcome");
        }
        let machine = &self.service.machine;
        if service && !stuck && !service_waits && machine.seeks() {
            self.fail("S has no session with the incumbent");
        }
    }
}

fn word_is_committed(word: Option<Decision>) -> bool {
    word.is_some_and(Decision::is_committed)
}

//! O parks behind the commit: the bounds of it, and what the drivers do in it.

use crate::config::{BASE, Config, Mutant};
use crate::daemon::Machine;
use crate::service::Step;
use crate::world::{Holder, Pid, World};
use handoff::protocol::Decision;
use handoff::protocol::incumbent;
use handoff::protocol::message::Message;
use handoff::protocol::supervisor::{Action, Input, Peer, Phase};

const PARKED: Config = Config { park: true, ..BASE };

/// Part of the whole check.
pub const BOUNDS: &[Config] = &[
    Config { name: "H1n probation, one crash", crashes: 1, ..PARKED },
    Config { name: "H1 probation, one crash, restarts", crashes: 1, restarts: 1, ..PARKED },
    Config { name: "H2n probation, two crashes", crashes: 2, ..PARKED },
    Config { name: "H2 probation, two crashes, restarts", crashes: 2, restarts: 2, ..PARKED },
    Config { name: "H2v probation, a verdict, one crash, a restart", verdicts: 1, crashes: 1, restarts: 1, ..PARKED },
    Config { name: "H2c probation, one crash, one cut, a restart", crashes: 1, cuts: 1, restarts: 1, ..PARKED },
    Config { name: "H2j probation, one crash, the journal lost", crashes: 1, restarts: 1, wipes: true, ..PARKED },
    Config { name: "H2s probation, a stranger, one crash", stranger: true, crashes: 1, ..PARKED },
    Config { name: "H2f probation, one stops for ever, one crash", freezes: 1, crashes: 1, ..PARKED },
    Config { name: "H3 probation, two handoffs, one crash, a restart", handoffs: 2, crashes: 1, restarts: 1, ..PARKED },
    Config { name: "H3n probation, two handoffs, two crashes", handoffs: 2, crashes: 2, ..PARKED },
    Config {
        name: "H5 probation, two handoffs, one crash, S stops",
        handoffs: 2,
        crashes: 1,
        freezes: 1,
        freeze_service_only: true,
        ..PARKED
    },
    Config { name: "H6 probation, one crash, one cut, one write", crashes: 1, cuts: 1, writes: 1, ..PARKED },
    Config {
        name: "H6v probation, a verdict, requests, bad applications",
        verdicts: 1,
        requests: 1,
        bad_applications: true,
        ..PARKED
    },
    Config {
        name: "H7 probation, two handoffs, the journal lost",
        handoffs: 2,
        crashes: 1,
        restarts: 1,
        wipes: true,
        ..PARKED
    },
];

pub const MUTANTS: &[(Config, &str)] = &[(
    Config { name: "P2 a parked O exits with S", mutant: Some(Mutant::ParkedExitsOnEnd), crashes: 2, ..PARKED },
    "the last process that could serve exits by itself",
)];

/// The same, in bounds that take longer.
pub const SLOW_MUTANTS: &[(Config, &str)] = &[
    (
        Config {
            name: "P1 a parked O takes a free lock",
            mutant: Some(Mutant::ParkedTakesFreeLock),
            handoffs: 2,
            ..PARKED
        },
        "O serves again although N has taken its place",
    ),
    (
        Config {
            name: "P3 the next handoff does not wait for a parked O",
            mutant: Some(Mutant::IgnoresParked),
            handoffs: 2,
            ..PARKED
        },
        "O serves again although N has taken its place",
    ),
];

#[test]
fn one_handoff() {
    crate::holds(&PARKED);
}

#[test]
fn one_crash() {
    crate::holds(&BOUNDS[0]);
}

#[test]
fn a_verdict() {
    crate::holds(&Config { name: "H0v probation, a verdict", verdicts: 1, ..PARKED });
}

impl World {
    fn parks(&self, i: Pid) -> bool {
        let Machine::Incumbent(machine) = &self.see(i).machine else { return false };
        machine.phase() == incumbent::Phase::Parked
    }

    /// Its application gives up what it gave.
    pub fn check_parking(&mut self, i: Pid) {
        let page = self.see(i).page.expect("a page");
        let word = self.pages[usize::from(page)].word;
        self.require(word == Decision::Committed, "O parks, but N has not committed");
        self.require(self.lock != Some(Holder::Daemon(i)), "O parks with the lock");
    }

    fn forgets_parked(&self) -> bool {
        self.config.is(Mutant::IgnoresParked) || self.config.is(Mutant::ParkedTakesFreeLock)
    }

    /// S goes on as if O had retired.
    pub fn mutate_probation(&mut self) {
        if self.forgets_parked() && self.service.machine.phase() == Phase::Confirming {
            self.serve().todo.retain(|step| !matches!(step, Step::Act(Action::Send(Peer::Parked, _))));
            let actions = self.serve().machine.step(Input::Retired);
            self.serve().todo.extend(actions.into_iter().map(Step::Act));
        }
    }

    pub fn finds_lock_free(&self, i: Pid) -> bool {
        self.config.is(Mutant::ParkedTakesFreeLock) && self.parks(i) && self.lock.is_none()
    }

    pub fn mutate_parked(&self, i: Pid, input: incumbent::Input) -> incumbent::Input {
        use incumbent::{Input, Timer};
        match input {
            Input::SupervisorGone if self.config.is(Mutant::ParkedExitsOnEnd) && self.parks(i) => {
                Input::Timer(Timer::Park)
            }
            Input::SuccessorSeen { .. } if self.config.is(Mutant::ParkedExitsOnEnd) => {
                Input::SuccessorSeen { alive: true }
            }
            other => other,
        }
    }

    /// Whether this N is asked to take part in a handoff while its own O may take over from it: it refuses.
    pub fn refuses(&mut self, i: Pid) -> bool {
        let daemon = self.see(i);
        let Some(Message::PrepareHandoff(prepare)) = daemon.inbox.front() else { return false };
        let reserve = daemon.before.is_some_and(|(page, before)| self.see(before).alive && !self.page(page).retired);
        if !reserve || self.forgets_parked() || !daemon.is_incumbent() {
            return false;
        }
        let id = prepare.id;
        let daemon = self.daemon(i);
        daemon.inbox.pop_front();
        daemon.coming = None;
        self.incumbent_takes(i, incumbent::Input::Unable(id, "its incumbent is parked".into()));
        true
    }

    /// N sees by itself that the O before it is dead.
    pub fn forget_predecessors(&mut self) {
        for i in self.pids() {
            if self.see(i).before.is_some_and(|(_, before)| !self.see(before).alive) {
                self.daemon(i).before = None;
            }
        }
    }

    // ---- the driver of S

    pub fn peer(&self, peer: Peer) -> Option<Pid> {
        match peer {
            Peer::Incumbent => self.service.incumbent,
            Peer::Successor => self.service.successor,
            Peer::Parked => self.service.parked,
        }
    }

    pub fn peer_of(&self, i: Pid) -> Peer {
        match Some(i) {
            i if self.service.incumbent == i => Peer::Incumbent,
            i if self.service.parked == i => Peer::Parked,
            _ => Peer::Successor,
        }
    }

    pub fn condemn(&mut self) {
        self.verdicts -= 1;
        self.supervise(Input::Condemn("no good".into()));
    }

    /// Whether it kills by a verdict.
    pub fn condemns(&self) -> bool {
        self.service.machine.phase() == Phase::Probation && self.verdicts < self.config.verdicts
    }

    pub fn probation_acts(&mut self, action: &Action) {
        let service = self.serve();
        match action {
            Action::Park => {
                service.parked = service.incumbent.take();
                service.incumbent = service.successor.take();
                self.tell_ends_again();
            }
            Action::Unpark => {
                service.incumbent = service.parked.take();
                self.tell_ends_again();
            }
            Action::EvictParked => self.evict_parked(),
            Action::Dismiss => {
                if let Some(old) = service.parked.take() {
                    let old = self.daemon(old);
                    (old.is_leaving, old.connected) = (old.alive && !old.death_told, false);
                    old.outbox.clear();
                }
            }
            _ => {}
        }
    }

    fn tell_ends_again(&mut self) {
        for i in [self.service.incumbent, self.service.parked].into_iter().flatten() {
            let daemon = self.daemon(i);
            daemon.gone_told &= daemon.connected;
        }
    }

    fn evict_parked(&mut self) {
        let serving = self.service.page.is_some_and(|page| self.page(page).serving);
        self.require(serving, "S evicts a parked O although nobody serves in its place");
        let Some(i) = self.service.parked else { return };
        self.serve().evictions += 1;
        if !self.see(i).frozen || self.service.evictions > 1 {
            self.die(i);
        }
    }
}

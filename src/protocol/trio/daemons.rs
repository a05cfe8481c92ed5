//! The drivers and applications of O and N.

use super::world::{Outcome, SECOND, World};
use crate::protocol::incumbent::{self, Hook, Incumbent};
use crate::protocol::message::{
    Hello, Message, Mode, PrepareHandoff, Readiness, Side, Terms, VERSION_MAX, VERSION_MIN, capability,
};
use crate::protocol::successor::{self, Successor};
use std::collections::VecDeque;

/// What an application does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hello,
    Cold,
    Prepare,
    Drain,
    Seal,
    Unlock,
    Resume,
    Warm,
    Open,
    Migrate,
    Serve,
}

#[derive(Clone, Debug)]
pub(super) enum Role {
    Incumbent(Incumbent),
    Successor(Successor),
}

#[derive(Clone, Debug)]
pub(super) enum Do {
    Incumbent(incumbent::Action),
    Successor(successor::Action),
}

#[derive(Clone, Debug)]
pub(super) enum Take {
    Incumbent(incumbent::Input),
    Successor(successor::Input),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Incumbent(incumbent::Timer),
    Successor(successor::Timer),
}

impl Timer {
    pub(super) fn is_heartbeat(self) -> bool {
        matches!(self, Self::Incumbent(incumbent::Timer::Heartbeat) | Self::Successor(successor::Timer::Heartbeat))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
    pub(super) done_at: Option<u64>,
    cancelled: bool,
    next: Option<Hook>,
}

#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub(super) pid: u32,
    pub(super) role: Role,
    pub(super) alive: bool,
    pub(super) stopped: bool,
    /// It was stopped at least once: for others it was silent.
    pub(super) was_silent: bool,
    pub(super) status: String,
    /// The session is open.
    pub(super) connected: bool,
    pub(super) told_end: bool,
    pub(super) inbox: VecDeque<Message>,
    pub(super) outbox: VecDeque<Message>,
    pub(super) timers: Vec<(Timer, u64)>,
    pub(super) todo: VecDeque<Do>,
    pub(super) answers: VecDeque<Take>,
    pub(super) work: Option<Work>,
    pub(super) script: Vec<(Kind, Outcome)>,
    /// The page and the other daemon, on their way with a message.
    pub(super) coming: Option<(Option<usize>, Option<usize>)>,
    pub(super) page: Option<usize>,
    pub(super) peer: Option<usize>,
    pub(super) told_peer_death: bool,
    pub(super) told_serving: bool,
    /// S has connected to the control path.
    pub(super) asked: bool,
    /// S has said Adopt there.
    pub(super) adopt: bool,
    terms: Option<Terms>,
    pub(super) drain_grace_ns: u64,
    pub(super) deadline_ns: u64,
    /// Accepts connections.
    pub(super) serves: bool,
    /// Has the data open and may write.
    pub(super) has_data: bool,
    pub(super) violations: Vec<String>,
}

const REVISIONS: [u64; 2] = [7, 9];

impl Daemon {
    pub(super) fn cold(pid: u32) -> Self {
        Self::new(pid, Role::Incumbent(Incumbent::cold()))
    }

    pub(super) fn successor(pid: u32) -> Self {
        Self::new(pid, Role::Successor(Successor::new()))
    }

    fn new(pid: u32, role: Role) -> Self {
        Self {
            pid,
            role,
            alive: true,
            stopped: false,
            was_silent: false,
            status: String::new(),
            connected: true,
            told_end: false,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            timers: Vec::new(),
            todo: VecDeque::new(),
            answers: VecDeque::new(),
            work: None,
            script: Vec::new(),
            coming: None,
            page: None,
            peer: None,
            told_peer_death: false,
            told_serving: false,
            asked: false,
            adopt: false,
            terms: None,
            drain_grace_ns: 0,
            deadline_ns: 0,
            serves: false,
            has_data: false,
            violations: Vec::new(),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.alive && !self.stopped
    }

    pub(super) fn is_incumbent(&self) -> bool {
        matches!(self.role, Role::Incumbent(_))
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.todo.is_empty() && self.answers.is_empty()
    }

    /// Its application does nothing that will end by itself.
    pub(super) fn is_waiting(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.done_at.is_none())
    }

    pub(super) fn is_armed_o(&self, timer: incumbent::Timer) -> bool {
        self.timers.iter().any(|(armed, _)| *armed == Timer::Incumbent(timer))
    }

    pub(super) fn is_armed_n(&self, timer: successor::Timer) -> bool {
        self.timers.iter().any(|(armed, _)| *armed == Timer::Successor(timer))
    }

    pub(super) fn phase(&self) -> String {
        match &self.role {
            _ if !self.alive => "dead".into(),
            Role::Incumbent(machine) => format!("{:?}", machine.phase()),
            Role::Successor(machine) => format!("N {:?}", machine.phase()),
        }
    }

    pub(super) fn incumbent_phase(&self) -> Option<incumbent::Phase> {
        let Role::Incumbent(machine) = &self.role else { return None };
        Some(machine.phase())
    }

    pub(super) fn successor_phase(&self) -> Option<successor::Phase> {
        let Role::Successor(machine) = &self.role else { return None };
        Some(*machine.phase())
    }

    pub(super) fn outcome(&self, kind: Kind) -> Outcome {
        self.script.iter().find(|(scripted, _)| *scripted == kind).map_or(Outcome::Good(0), |(_, outcome)| *outcome)
    }

    pub(super) fn start(&mut self, kind: Kind, now: u64) {
        let outcome = self.outcome(kind);
        let done_at = match outcome {
            Outcome::Good(after) => Some(now + after),
            Outcome::Hang | Outcome::Stuck => None,
            Outcome::Bad | Outcome::Old | Outcome::Few => Some(now),
        };
        self.work = Some(Work { kind, outcome, done_at, cancelled: false, next: None });
    }

    pub(super) fn run_hook(&mut self, hook: Hook, now: u64) {
        if let Some(work) = &mut self.work {
            work.next = Some(hook); // once the one before it has returned
            return;
        }
        let kind = match hook {
            Hook::Drain => Kind::Drain,
            Hook::Seal => Kind::Seal,
            Hook::Resume { .. } => Kind::Resume,
            Hook::Leave => unreachable!("of overlap mode"),
        };
        self.serves &= hook != Hook::Drain;
        self.start(kind, now);
    }

    pub(super) fn hello(&self) -> Hello {
        let side = if self.is_incumbent() { Side::Incumbent } else { Side::Successor };
        Hello {
            side,
            pid: self.pid,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            capabilities: capability::EXCLUSIVE,
            generation: 0,
            open_descriptors: 10,
            descriptors_max: 0,
            time_namespace: 4,
            build_id: Vec::new(),
        }
    }
}

impl World {
    pub(super) fn begin_life(&mut self, i: usize) {
        let daemon = &mut self.daemons[i];
        if daemon.outcome(Kind::Hello) != Outcome::Good(0) {
            if daemon.is_incumbent() {
                daemon.start(Kind::Cold, self.now); // it does not link the library
            }
            return;
        }
        let hello = daemon.hello();
        let (start, kind) = match daemon.role {
            Role::Incumbent(_) => (Take::Incumbent(incumbent::Input::Start(hello)), Kind::Cold),
            Role::Successor(_) => (Take::Successor(successor::Input::Start(hello)), Kind::Warm),
        };
        daemon.answers.push_back(start);
        daemon.start(kind, self.now);
    }

    pub(super) fn incumbent_takes(&mut self, i: usize, input: incumbent::Input) {
        let Role::Incumbent(machine) = &mut self.daemons[i].role else { return };
        let actions = machine.step(input);
        self.daemons[i].todo.extend(actions.into_iter().map(Do::Incumbent));
    }

    pub(super) fn successor_takes(&mut self, i: usize, input: successor::Input) {
        let Role::Successor(machine) = &mut self.daemons[i].role else { return };
        let actions = machine.step(input);
        self.daemons[i].todo.extend(actions.into_iter().map(Do::Successor));
    }

    pub(super) fn daemon_acts(&mut self, i: usize) {
        let looked = match self.daemons[i].todo.pop_front() {
            Some(Do::Incumbent(action)) => self.incumbent_acts(i, action),
            Some(Do::Successor(action)) => self.successor_acts(i, action),
            None => {
                match self.daemons[i].answers.pop_front() {
                    Some(Take::Incumbent(input)) => self.incumbent_takes(i, input),
                    Some(Take::Successor(input)) => self.successor_takes(i, input),
                    None => {}
                }
                false
            }
        };
        self.becomes_incumbent(i);
        // What follows a look follows it with nothing between.
        while looked && self.daemons[i].alive && !self.daemons[i].is_quiet() {
            self.daemon_acts(i);
        }
    }

    /// N, once it has told everybody that it serves, is the O of the next handoff.
    fn becomes_incumbent(&mut self, i: usize) {
        let daemon = &mut self.daemons[i];
        if !daemon.todo.is_empty() || daemon.successor_phase() != Some(successor::Phase::Serving) {
            return;
        }
        if let (Role::Successor(machine), Some(terms)) = (&daemon.role, daemon.terms) {
            daemon.role = Role::Incumbent(Incumbent::committed(machine.generation(), terms.id));
            daemon.timers.clear();
            (daemon.page, daemon.peer) = (None, None);
            (daemon.told_peer_death, daemon.told_serving) = (false, false);
        }
    }

    pub(super) fn read(&mut self, i: usize) {
        let daemon = &mut self.daemons[i];
        let Some(message) = daemon.inbox.pop_front() else { return };
        match (&message, daemon.coming) {
            (Message::HelloAck(ack), Some((page, peer))) if ack.terms.is_some() => {
                daemon.coming = None;
                (daemon.page, daemon.peer, daemon.terms) = (page, peer, ack.terms);
                daemon.deadline_ns = ack.terms.map_or(0, |terms| terms.deadline_ns);
            }
            (Message::PrepareHandoff(m), Some(coming)) => {
                daemon.coming = None;
                if m.mode == Mode::Overlap || daemon.outcome(Kind::Prepare) != Outcome::Good(0) {
                    let id = m.id;
                    return self.incumbent_takes(i, incumbent::Input::Unable(id, "cannot map the page".into()));
                }
                daemon.prepared(m, coming);
            }
            // What should have come with it is missing.
            (Message::PrepareHandoff(m), None) => {
                let id = m.id;
                return self.incumbent_takes(i, incumbent::Input::Unable(id, "no page".into()));
            }
            (Message::HelloAck(ack), None) if ack.terms.is_some() => {
                self.end_session(i, "HelloAck without a page".into());
                return self.end(i);
            }
            _ => {}
        }
        match self.daemons[i].role {
            Role::Incumbent(_) => self.incumbent_takes(i, incumbent::Input::Message(message)),
            Role::Successor(_) => self.successor_takes(i, successor::Input::Message(message)),
        }
    }

    pub(super) fn end(&mut self, i: usize) {
        self.daemons[i].told_end = true;
        match self.daemons[i].role {
            Role::Incumbent(_) => self.incumbent_takes(i, incumbent::Input::SupervisorGone),
            Role::Successor(_) => self.successor_takes(i, successor::Input::SupervisorGone),
        }
    }

    pub(super) fn peer_died(&mut self, i: usize) {
        self.daemons[i].told_peer_death = true;
        match self.daemons[i].role {
            Role::Incumbent(_) => self.incumbent_takes(i, incumbent::Input::SuccessorDied),
            Role::Successor(_) => self.successor_takes(i, successor::Input::IncumbentDied),
        }
    }

    pub(super) fn ring(&mut self, i: usize, at: usize) {
        match self.daemons[i].timers.remove(at).0 {
            Timer::Incumbent(timer) => self.incumbent_takes(i, incumbent::Input::Timer(timer)),
            Timer::Successor(timer) => self.successor_takes(i, successor::Input::Timer(timer)),
        }
    }

    pub(super) fn work_done(&mut self, i: usize) {
        let now = self.now;
        let Some(work) = self.daemons[i].work.take() else { return };
        if work.cancelled {
            if let Some(hook) = work.next {
                self.daemons[i].run_hook(hook, now);
            }
            return;
        }
        if work.outcome == Outcome::Bad && !matches!(work.kind, Kind::Open | Kind::Cold | Kind::Warm | Kind::Serve) {
            return self.incumbent_takes(i, incumbent::Input::HookFailed("no space left".into()));
        }
        match work.kind {
            Kind::Drain => {
                let input = incumbent::Input::Drained { connections_open: 3, accept_stopped_ns: now };
                self.incumbent_takes(i, input);
            }
            Kind::Seal => {
                self.daemons[i].has_data = false;
                self.incumbent_takes(i, incumbent::Input::Sealed(REVISIONS.into()));
            }
            Kind::Resume => {
                (self.daemons[i].has_data, self.daemons[i].serves) = (true, true);
                self.incumbent_takes(i, incumbent::Input::Resumed);
            }
            Kind::Cold => self.cold_is_up(i, work.outcome),
            Kind::Warm if work.outcome == Outcome::Bad => self.die(i, "exit code 1"),
            Kind::Warm => self.successor_takes(i, successor::Input::Warmed),
            Kind::Open => self.opened(i, work.outcome),
            Kind::Serve if work.outcome == Outcome::Bad => self.die(i, "exit code 1"),
            Kind::Serve => {
                self.pages[self.daemons[i].page.expect("a page")].serving = true;
                let input = successor::Input::Served { committed_ns: now, control: Ok(()) };
                self.successor_takes(i, input);
            }
            Kind::Hello | Kind::Prepare | Kind::Unlock | Kind::Migrate => {}
        }
    }

    fn cold_is_up(&mut self, i: usize, outcome: Outcome) {
        if outcome == Outcome::Bad {
            return self.die(i, "exit code 1");
        }
        if !self.take_lock(i) {
            if self.control.is_some_and(|other| self.daemons[other].serves) {
                return self.die(i, "the lock is held");
            }
            return self.daemons[i].start(Kind::Cold, self.now + SECOND); // it asks again
        }
        self.control = Some(i);
        let daemon = &mut self.daemons[i];
        (daemon.serves, daemon.has_data) = (true, true);
        if daemon.outcome(Kind::Hello) != Outcome::Good(0) {
            return;
        }
        let served = incumbent::Input::Served { now_ns: self.now, control: Ok(()) };
        daemon.answers.push_back(Take::Incumbent(incumbent::Input::Ready(Readiness::default())));
        daemon.answers.push_back(Take::Incumbent(served));
    }

    fn opened(&mut self, i: usize, outcome: Outcome) {
        let daemon = &mut self.daemons[i];
        daemon.has_data = true;
        let format_changes = daemon.outcome(Kind::Migrate) == Outcome::Bad;
        let mut readiness = Readiness { format_changes, revisions: REVISIONS.into(), ..Readiness::default() };
        match outcome {
            Outcome::Bad => {
                readiness.unhealthy = true;
                readiness.detail = "the index is broken".into();
            }
            Outcome::Old => readiness.revisions[1] -= 1,
            Outcome::Few => readiness.revisions.truncate(1),
            _ => {}
        }
        self.successor_takes(i, successor::Input::Opened(readiness));
    }
}

impl Daemon {
    /// Its application does not return.
    pub(super) fn is_stuck(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.done_at.is_none())
    }

    pub(super) fn cancel(&mut self, now: u64) {
        if let Some(work) = &mut self.work {
            work.cancelled = true;
            if work.outcome != Outcome::Stuck {
                work.done_at = Some(now);
            }
        }
    }

    fn prepared(&mut self, m: &PrepareHandoff, coming: (Option<usize>, Option<usize>)) {
        (self.page, self.peer) = coming;
        (self.told_peer_death, self.told_serving) = (false, false);
        self.drain_grace_ns = m.drain_grace_ns;
        self.deadline_ns = m.deadline_ns;
    }
}

//! Processes, channels, time, and what can happen next.

use super::adoption::Journal;
use super::daemons::{Daemon, Kind, Role};
use super::service::{Service, nanoseconds, plan};
use crate::limits;
use crate::protocol::{Decision, incumbent, supervisor};
use supervisor::{OnIncumbentDeath, Peer, Verdict};

/// The memory that the processes of a handoff share.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) word: Decision,
    /// The daemon that won it; none for S.
    pub(super) decided_by: Option<usize>,
    pub(super) serving: bool,
    pub(super) retired: bool,
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// S carries out an action, or takes the answer to one.
    Supervise,
    /// S reads a message of this daemon.
    Hear(usize),
    /// S sees the end of this daemon's session.
    Gone(usize),
    /// S sees that this daemon is dead.
    Died(usize),
    /// S looks at the page.
    Retired,
    /// S looks at the page.
    PageServing,
    /// A timer of S fires.
    Fire(supervisor::Timer),
    /// A daemon carries out an action, or takes the answer to one.
    Act(usize),
    /// A daemon reads a message of S.
    Read(usize),
    /// A daemon sees the end of its session.
    End(usize),
    /// A daemon sees that the other one is dead.
    PeerDied(usize),
    /// O sees that N serves.
    PeerServing(usize),
    /// A timer of a daemon fires: the one at this place.
    Ring(usize, usize),
    /// A daemon's application is done with what it does.
    Work(usize),
    /// S connects to the control path, where this daemon listens.
    Connect(usize),
    /// A daemon reads Adopt.
    Admit(usize),
    /// S is asked for a handoff, or, when nobody is left, for a cold start.
    Start,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) service: Service,
    pub(super) daemons: Vec<Daemon>,
    pub(super) pages: Vec<Page>,
    pub(super) lock: Option<usize>,
    /// Who has the gate's locked description.
    pub(super) gate: Vec<usize>,
    /// Messages sent: from, to, name.
    pub(super) sent: Vec<String>,
    /// How the daemons behave that are still to be started.
    pub(super) scripts: Vec<Vec<(Kind, Outcome)>>,
    pub(super) policy: OnIncumbentDeath,
    /// Handoffs that are still to be asked for.
    pub(super) handoffs: usize,
    /// Heartbeats are sent; if not, S takes it that whoever could send one has.
    pub(super) heartbeats: bool,
    /// The first thing that must not be.
    pub(super) broken: Option<String>,
    /// What happened, when it is wanted.
    pub(super) trace: Option<Vec<String>>,
    pub(super) crashes: usize,
    /// What S has left on file.
    pub(super) journal: Journal,
    /// Who listens at the control path.
    pub(super) control: Option<usize>,
}

/// What the application makes of a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It succeeds after these nanoseconds.
    Good(u64),
    /// It fails.
    Bad,
    /// It succeeds, with too little: old revisions.
    Old,
    /// It succeeds, with another number of shards.
    Few,
    /// It never ends, unless it is cancelled.
    Hang,
    /// It never ends.
    Stuck,
}

pub(super) const SECOND: u64 = 1_000_000_000;

impl World {
    /// A daemon serves, S knows it, and a handoff is asked for.
    pub(super) fn new() -> Self {
        let mut world = Self {
            now: 1000 * SECOND,
            service: Service::new(),
            daemons: Vec::new(),
            pages: Vec::new(),
            lock: None,
            gate: Vec::new(),
            sent: Vec::new(),
            scripts: Vec::new(),
            policy: OnIncumbentDeath::Promote,
            handoffs: 0,
            heartbeats: true,
            broken: None,
            trace: None,
            crashes: 0,
            journal: Journal::default(),
            control: None,
        };
        world.supervise(supervisor::Input::StartCold);
        world.run();
        assert_eq!(world.verdicts(), [Verdict::StartedCold]);
        world.service.reports.clear();
        world.sent.clear();
        world.handoffs = 1;
        world
    }

    /// The same, where O or N behave in another way.
    pub(super) fn with(kind: Kind, outcome: Outcome) -> Self {
        let mut world = Self::new();
        if matches!(kind, Kind::Drain | Kind::Seal | Kind::Resume | Kind::Unlock) {
            world.daemons[0].script.push((kind, outcome));
        } else {
            world.scripts.push(vec![(kind, outcome)]);
        }
        world
    }

    pub(super) fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        self.service_events(&mut all);
        for i in 0..self.daemons.len() {
            self.daemon_events(i, &mut all);
        }
        if self.wants_start() {
            all.push(Event::Start);
        }
        all
    }

    fn wants_start(&self) -> bool {
        let service = &self.service;
        let idle = service.runs()
            && service.is_quiet()
            && !service.resuming
            && service.machine.phase() == supervisor::Phase::Idle;
        let nobody = service.incumbent.is_none_or(|i| service.told_death.contains(&i));
        idle && (nobody || self.handoffs > 0 && !service.machine.seeks())
    }

    fn service_events(&self, all: &mut Vec<Event>) {
        let service = &self.service;
        if !service.runs() {
            return;
        }
        if !service.is_quiet() {
            return all.push(Event::Supervise);
        }
        let reached = |i: &usize| self.can_connect(*i);
        all.extend(service.incumbent.filter(reached).map(Event::Connect));
        let peers = [service.incumbent, service.successor];
        let mut heard = true;
        for i in peers.into_iter().flatten() {
            let daemon = &self.daemons[i];
            if !daemon.outbox.is_empty() {
                heard = false;
                all.push(Event::Hear(i));
                continue;
            }
            if !daemon.connected && !service.told_gone.contains(&i) && !service.told_death.contains(&i) {
                all.push(Event::Gone(i));
            }
            if !daemon.alive && !service.told_death.contains(&i) {
                heard = false;
                all.push(Event::Died(i));
            }
        }
        if let Some(page) = service.page.map(|page| &self.pages[page]) {
            if page.retired && !service.told_retired {
                all.push(Event::Retired);
            }
            let lost = service.successor.is_some_and(|i| service.told_gone.contains(&i));
            if page.serving && !service.told_serving && lost {
                all.push(Event::PageServing);
            }
        }
        if heard {
            let due = service.timers.iter().filter(|(timer, due)| *due <= self.now && !self.beats(*timer));
            all.extend(due.map(|(timer, _)| Event::Fire(*timer)));
        }
    }

    /// Whether heartbeats, which are not sent, keep this timer from firing.
    fn beats(&self, timer: supervisor::Timer) -> bool {
        let supervisor::Timer::Liveness(peer) = timer else { return false };
        let Some(daemon) = self.peer(peer).map(|i| &self.daemons[i]) else { return false };
        let beating = match &daemon.role {
            Role::Incumbent(_) => daemon.is_armed_o(incumbent::Timer::Heartbeat),
            Role::Successor(_) => daemon.is_armed_n(crate::protocol::successor::Timer::Heartbeat),
        };
        !self.heartbeats && beating && daemon.runs() && daemon.connected
    }

    fn daemon_events(&self, i: usize, all: &mut Vec<Event>) {
        let daemon = &self.daemons[i];
        if !daemon.runs() {
            return;
        }
        if !daemon.is_quiet() {
            return all.push(Event::Act(i));
        }
        if let Some(peer) = daemon.peer.filter(|_| !daemon.told_peer_death) {
            if !self.daemons[peer].alive {
                all.push(Event::PeerDied(i));
            }
            let serving = daemon.page.is_some_and(|page| self.pages[page].serving);
            if serving && !daemon.told_serving && matches!(daemon.role, Role::Incumbent(_)) {
                all.push(Event::PeerServing(i));
            }
        }
        if daemon.work.as_ref().is_some_and(|work| work.done_at.is_some_and(|at| at <= self.now)) {
            all.push(Event::Work(i));
        }
        if daemon.adopt {
            all.push(Event::Admit(i));
        }
        if !daemon.inbox.is_empty() {
            return all.push(Event::Read(i)); // before the end of the session and any timer
        }
        if !daemon.connected && !daemon.told_end {
            return all.push(Event::End(i));
        }
        let due = daemon
            .timers
            .iter()
            .enumerate()
            .filter(|(_, (timer, due))| *due <= self.now && (self.heartbeats || !timer.is_heartbeat()));
        all.extend(due.map(|(at, _)| Event::Ring(i, at)));
    }

    pub(super) fn happen(&mut self, event: Event) {
        if self.trace.is_some() {
            let line = self.describe(event);
            self.note(format_args!("{line}"));
        }
        match event {
            Event::Supervise => self.service_acts(),
            Event::Hear(i) => self.hear(i),
            Event::Gone(i) => {
                self.service.told_gone.push(i);
                let peer = self.peer_of(i);
                self.supervise(supervisor::Input::Gone(peer));
            }
            Event::Died(i) => {
                self.service.told_death.push(i);
                let (peer, status) = (self.peer_of(i), self.daemons[i].status.clone());
                self.supervise(supervisor::Input::Died(peer, status));
                self.search_again(i);
            }
            Event::Retired => {
                self.service.told_retired = true;
                self.supervise(supervisor::Input::Retired);
            }
            Event::PageServing => {
                self.service.told_serving = true;
                self.supervise(supervisor::Input::PageServing);
            }
            Event::Fire(timer) => {
                self.service.timers.retain(|(armed, _)| *armed != timer);
                self.supervise(supervisor::Input::Timer(timer));
            }
            Event::Start => self.start(),
            Event::Connect(i) => self.connect(i),
            Event::Admit(i) => self.admit(i),
            Event::Act(i) => self.daemon_acts(i),
            Event::Read(i) => self.read(i),
            Event::End(i) => self.end(i),
            Event::PeerDied(i) => self.peer_died(i),
            Event::PeerServing(i) => {
                self.daemons[i].told_serving = true;
                self.incumbent_takes(i, incumbent::Input::SuccessorServing);
            }
            Event::Ring(i, at) => self.ring(i, at),
            Event::Work(i) => self.work_done(i),
        }
        self.end_resume();
        self.check();
    }

    fn describe(&self, event: Event) -> String {
        let what = match event {
            Event::Supervise => format!("S {:?} {:?}", self.service.todo.front(), self.service.answers.front()),
            Event::Hear(i) => format!("S reads of {i}: {:?}", self.daemons[i].outbox.front()),
            Event::Act(i) => {
                let daemon = &self.daemons[i];
                format!("{i} {:?} {:?}", daemon.todo.front(), daemon.answers.front())
            }
            Event::Read(i) => format!("{i} reads {:?}", self.daemons[i].inbox.front()),
            Event::Work(i) => format!("{i} done: {:?}", self.daemons[i].work),
            Event::Ring(i, at) => format!("{i} timer {:?}", self.daemons[i].timers[at].0),
            other => format!("{other:?}"),
        };
        let phases: Vec<_> = self.daemons.iter().map(|daemon| daemon.phase()).collect();
        let (phase, at) = (self.service.machine.phase(), self.now / 1_000_000);
        format!("{at} ms [S {phase:?}, {}] {what}", phases.join(", "))
    }

    fn start(&mut self) {
        let service = &self.service;
        if service.incumbent.is_none_or(|i| service.told_death.contains(&i)) {
            // Somebody of whom no journal has told may have come to serve meanwhile.
            if self.control.is_some_and(|i| self.daemons[i].alive) {
                return self.go_on_after(Journal::default());
            }
            return self.supervise(supervisor::Input::StartCold);
        }
        self.forget();
        self.handoffs -= 1;
        self.now += 1;
        let plan = plan(self.now, self.policy);
        self.supervise(supervisor::Input::StartHandoff(plan));
    }

    /// Moves the clock to the next timer; false if there is none but heartbeats.
    pub(super) fn advance(&mut self) -> bool {
        let service = self.service.runs().then_some(&self.service.timers).into_iter().flatten();
        let service = service.filter(|(timer, _)| !self.beats(*timer)).map(|(_, due)| *due);
        let daemons = self.daemons.iter().filter(|daemon| daemon.runs()).flat_map(|daemon| {
            let timers = daemon.timers.iter().filter(|(timer, _)| self.heartbeats || !timer.is_heartbeat());
            timers.map(|(_, due)| *due).chain(daemon.work.as_ref().and_then(|work| work.done_at))
        });
        let Some(next) = service.chain(daemons).filter(|due| *due > self.now).min() else { return false };
        self.now = next;
        for at in 0..self.service.timers.len() {
            if self.beats(self.service.timers[at].0) {
                self.service.timers[at].1 = next + nanoseconds(limits::LIVENESS);
            }
        }
        true
    }

    /// One event of the fixed schedule; false when nothing is left to happen.
    pub(super) fn step(&mut self) -> bool {
        if let Some(event) = self.events().first() {
            self.happen(*event);
            return true;
        }
        self.wait()
    }

    fn wait(&mut self) -> bool {
        let heartbeats_only = |daemon: &Daemon| daemon.timers.iter().all(|(timer, _)| timer.is_heartbeat());
        let no_timers = !self.service.runs() || self.service.timers.is_empty();
        let idle = |daemon: &Daemon| !daemon.runs() || heartbeats_only(daemon) && daemon.is_waiting();
        if no_timers && self.daemons.iter().all(idle) {
            return false;
        }
        self.advance()
    }

    /// Runs on to the end, but not for longer than any wait may take.
    pub(super) fn run(&mut self) {
        let end = self.now + 1000 * SECOND;
        let mut steps = 0;
        while self.broken.is_none() && self.now < end && self.step() {
            steps += 1;
            self.require(steps < 100_000, "it goes round for ever");
        }
    }

    /// Runs until `there`; panics if it is never reached.
    pub(super) fn run_until(&mut self, there: impl Fn(&Self) -> bool) {
        while !there(self) {
            assert!(self.step(), "never reached; sent {:?}", self.sent);
        }
        assert_eq!(self.broken, None);
    }

    pub(super) fn peer(&self, peer: Peer) -> Option<usize> {
        match peer {
            Peer::Incumbent => self.service.incumbent,
            Peer::Successor => self.service.successor,
            Peer::Parked => None,
        }
    }

    pub(super) fn peer_of(&self, i: usize) -> Peer {
        if self.service.incumbent == Some(i) { Peer::Incumbent } else { Peer::Successor }
    }

    /// A process dies: of SIGKILL, or because it exits.
    pub(super) fn die(&mut self, i: usize, status: &str) {
        let daemon = &mut self.daemons[i];
        if !daemon.alive {
            return;
        }
        daemon.alive = false;
        daemon.stopped = false;
        daemon.connected = false;
        daemon.serves = false;
        daemon.has_data = false;
        daemon.work = None;
        daemon.status = status.into();
        daemon.inbox.clear();
        daemon.todo.clear();
        daemon.answers.clear();
        daemon.timers.clear();
        (daemon.asked, daemon.adopt) = (false, false);
        self.gate.retain(|holder| *holder != i);
        if self.lock == Some(i) {
            self.lock = None;
        }
    }

    /// kill -9 from outside.
    pub(super) fn crash(&mut self, i: usize) {
        self.crashes += usize::from(self.daemons[i].alive);
        self.note(format_args!("CRASH {i}"));
        self.die(i, "killed by signal 9");
        self.check();
    }

    /// kill -9 of S, which does not come back by itself.
    pub(super) fn crash_service(&mut self) {
        self.note(format_args!("CRASH S"));
        self.service.alive = false;
        for daemon in &mut self.daemons {
            daemon.connected = false;
            daemon.asked = false;
            daemon.outbox.clear();
        }
    }

    /// The session breaks with both sides alive; what was sent arrives.
    pub(super) fn cut(&mut self, i: usize) {
        self.note(format_args!("CUT {i}"));
        self.daemons[i].connected = false;
    }

    /// SIGSTOP.
    pub(super) fn stop(&mut self, i: usize) {
        self.note(format_args!("STOP {i}"));
        self.daemons[i].stopped = self.daemons[i].alive;
        self.daemons[i].was_silent = true;
    }

    /// SIGSTOP of S.
    pub(super) fn stop_service(&mut self) {
        self.note(format_args!("STOP S"));
        self.service.stopped = true;
    }

    /// SIGCONT of everybody.
    pub(super) fn go_on(&mut self) {
        self.note(format_args!("CONTINUE all"));
        self.service.stopped = false;
        for daemon in &mut self.daemons {
            daemon.stopped = false;
        }
    }

    pub(super) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.trace {
            trace.push(what.to_string());
        }
    }

    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        self.service.reports.iter().map(|(verdict, _)| *verdict).collect()
    }
}

//! Everything that a state is made of, and what can happen next.
//!
//! A process takes an input and carries out the machine's actions one by one, each in a step of its own, so that whatever lies
//! between two of them - a crash, a stop of any length, the steps of others - is explored. Actions that nobody else can see (its
//! own timers, its own bookkeeping) happen together with what comes before them.

use crate::config::{Config, Mutant};
use crate::daemon::{Daemon, Machine, Timer, Work};
use crate::fingerprint::Fingerprint;
use crate::service::Service;
use handoff::protocol::{Decision, incumbent, successor, supervisor};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A daemon's place in [`World::daemons`].
pub type Pid = u8;

/// The memory that the processes of a handoff share.
#[derive(Clone, Debug, Hash)]
pub struct Page {
    pub word: Decision,
    /// The daemon that won it; none for S.
    pub decided_by: Option<Pid>,
    pub serving: bool,
    pub retired: bool,
    /// The handoff's deadline is past.
    pub late: bool,
    /// Nobody has it.
    pub unused: bool,
}

impl Page {
    pub fn new() -> Self {
        Self { word: Decision::Open, decided_by: None, serving: false, retired: false, late: false, unused: false }
    }

    fn unused() -> Self {
        Self { unused: true, ..Self::new() }
    }
}

/// Who has the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    Daemon(Pid),
    Stranger,
}

#[derive(Clone, Debug)]
pub struct World {
    pub config: Config,
    pub service: Arc<Service>,
    pub daemons: Vec<Arc<Daemon>>,
    pub pages: Vec<Page>,
    pub lock: Option<Holder>,
    /// Who has the gate's locked description: a bit for each daemon.
    pub gate: u16,
    /// The last write that was acknowledged.
    pub disk: u8,
    /// Handoffs that were asked for.
    pub asked: u8,
    pub requests: u8,
    crashes: u8,
    freezes: u8,
    cuts: u8,
    broken: Option<String>,
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// S carries out an action.
    Supervise,
    /// S reads a message of this daemon.
    Hear(Pid),
    /// S sees the end of this daemon's session.
    Gone(Pid),
    /// S sees that this daemon is dead.
    Died(Pid),
    /// S looks at the page: O will never serve again.
    Retired,
    /// S looks at the page: N serves.
    PageServing,
    /// A timer of S fires.
    Fire(supervisor::Timer),
    /// S is asked for a handoff.
    Start,
    /// Nobody is left: S is asked for a cold start.
    StartCold,
    /// S does not want the handoff any more.
    Cancel,
    /// S kills a retired O that does not exit.
    Evict(Pid),
    /// A daemon carries out an action.
    Act(Pid),
    /// A daemon reads a message of S.
    Read(Pid),
    /// O reads N's Serving on the transfer socket.
    ReadTransfer(Pid),
    /// A daemon sees the end of its session.
    End(Pid),
    /// A daemon sees that the other one is dead.
    PeerDied(Pid),
    /// A timer of a daemon fires.
    Ring(Pid, Timer),
    /// A daemon's application has done what it does.
    Done(Pid),
    /// It could not do it.
    DoneBadly(Pid),
    /// N's application opens less than was sealed.
    DoneOld(Pid),
    /// The owner's thread does what only it may do.
    Task(Pid),
    /// O is asked to stop.
    Stop(Pid),
    /// The deadline of a handoff passes.
    Late(u8),
    /// A client sees a write acknowledged.
    Write(Pid),
    CrashService,
    Crash(Pid),
    FreezeService,
    Freeze(Pid),
    Cut(Pid),
    /// Another program takes the data.
    Grab,
}

impl Event {
    /// Whether the end of everything may come without it.
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::CrashService
                | Self::Crash(_)
                | Self::FreezeService
                | Self::Freeze(_)
                | Self::Cut(_)
                | Self::Grab
                | Self::Write(_)
                | Self::Cancel
                | Self::Stop(_)
        )
    }
}

impl World {
    /// A daemon serves, and S knows it.
    pub fn new(config: &Config) -> Self {
        let quiet = Config { handoffs: 0, crashes: 0, freezes: 0, cuts: 0, writes: 0, stranger: false, ..*config };
        let mut world = Self {
            config: Config { bad_applications: false, mutant: None, ..quiet },
            service: Arc::new(Service::new()),
            daemons: Vec::new(),
            pages: Vec::new(),
            lock: None,
            gate: 0,
            disk: 0,
            asked: 0,
            requests: 0,
            crashes: 0,
            freezes: 0,
            cuts: 0,
            broken: None,
        };
        world.happen(Event::StartCold);
        let is_timer = |event: &Event| matches!(event, Event::Fire(_) | Event::Ring(..) | Event::Late(_));
        while let Some(event) = world.events().into_iter().find(|event| !is_timer(event)) {
            world.happen(event);
        }
        assert_eq!(world.broken, None);
        assert!(world.service.machine.incumbent_serves());
        world.config = *config;
        world.requests = config.requests;
        (world.crashes, world.freezes, world.cuts) = (config.crashes, config.freezes, config.cuts);
        world
    }

    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub fn fail(&mut self, what: impl Into<String>) {
        if self.broken.is_none() {
            self.broken = Some(what.into());
        }
    }

    pub fn require(&mut self, holds: bool, what: &str) {
        if !holds {
            self.fail(what);
        }
    }

    pub fn fingerprint(&self) -> u64 {
        let mut to = Fingerprint::default();
        self.service.identify(&mut to);
        for daemon in &self.daemons {
            daemon.identify(&mut to);
        }
        to.write_usize(self.daemons.len());
        (&self.pages, self.lock, self.gate, self.disk, self.asked, self.requests).hash(&mut to);
        (self.crashes, self.freezes, self.cuts, self.broken.is_some()).hash(&mut to);
        to.finish()
    }

    pub fn daemon(&mut self, i: Pid) -> &mut Daemon {
        Arc::make_mut(&mut self.daemons[usize::from(i)])
    }

    pub fn see(&self, i: Pid) -> &Daemon {
        &self.daemons[usize::from(i)]
    }

    pub fn pids(&self) -> impl Iterator<Item = Pid> + use<> {
        0..self.daemons.len() as Pid
    }

    pub fn page(&self, page: u8) -> &Page {
        &self.pages[usize::from(page)]
    }

    pub fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        if self.broken.is_some() {
            return all;
        }
        self.service_events(&mut all);
        for i in self.pids() {
            self.daemon_events(i, &mut all);
        }
        let late = |page: &u8| !self.page(*page).late && self.waits_for_deadline(*page);
        all.extend((0..self.pages.len() as u8).filter(late).map(Event::Late));
        self.fault_events(&mut all);
        all
    }

    fn waits_for_deadline(&self, page: u8) -> bool {
        let deadline = supervisor::Timer::Deadline;
        let service = &self.service;
        let cold = service.machine.phase() == supervisor::Phase::ColdStarting;
        service.runs() && !cold && service.page == Some(page) && service.timers.contains(&deadline)
            || self.pids().map(|i| self.see(i)).any(|daemon| {
                let armed = |timer| daemon.timers.contains(&timer);
                let any = armed(Timer::Incumbent(incumbent::Timer::Deadline))
                    || armed(Timer::Successor(successor::Timer::Deadline));
                daemon.runs() && daemon.page == Some(page) && any
            })
    }

    fn service_events(&self, all: &mut Vec<Event>) {
        let service = &self.service;
        if !service.runs() {
            return;
        }
        if !service.todo.is_empty() {
            return all.push(Event::Supervise);
        }
        all.extend(self.pids().filter(|i| self.see(*i).is_leaving && self.see(*i).alive).map(Event::Evict));
        let mut heard = true;
        for i in [service.incumbent, service.successor].into_iter().flatten() {
            let daemon = self.see(i);
            if !daemon.outbox.is_empty() {
                heard = false;
                all.push(Event::Hear(i));
                continue;
            }
            if !daemon.connected && !daemon.gone_told && !daemon.death_told {
                all.push(Event::Gone(i));
            }
            if !daemon.alive && !daemon.death_told {
                heard = false;
                all.push(Event::Died(i));
            }
        }
        if let Some(page) = service.page.map(|page| self.page(page)) {
            let phase = service.machine.phase();
            if page.retired && phase == supervisor::Phase::Retiring {
                all.push(Event::Retired);
            }
            let lost = service.successor.is_some_and(|i| !self.see(i).connected);
            if page.serving && phase == supervisor::Phase::AwaitServing && lost {
                all.push(Event::PageServing);
            }
        }
        if heard {
            all.extend(service.timers.iter().filter(|timer| self.may_fire(**timer)).map(|timer| Event::Fire(*timer)));
        }
        self.request_events(heard, all);
    }

    fn request_events(&self, heard: bool, all: &mut Vec<Event>) {
        let service = &self.service;
        let idle = service.machine.phase() == supervisor::Phase::Idle;
        if idle && heard {
            if service.incumbent.is_none_or(|i| self.see(i).death_told) {
                all.push(Event::StartCold);
            } else if self.asked < self.config.handoffs
                && service.machine.incumbent_is_linked()
                && service.machine.incumbent_serves()
            {
                all.push(Event::Start);
            }
        }
        if !idle && self.requests > 0 {
            all.push(Event::Cancel);
        }
    }

    /// Whether a timer of S may fire: at any time, if that can change anything.
    fn may_fire(&self, timer: supervisor::Timer) -> bool {
        use supervisor::{Peer, Phase, Timer};
        let service = &self.service;
        let page = service.page.map(|page| self.page(page));
        match timer {
            Timer::Deadline if service.machine.phase() == Phase::ColdStarting => true,
            Timer::Deadline => page.is_some_and(|page| page.late),
            // What `Serving` does, and then every ten seconds again, with a word that is decided.
            Timer::Liveness(Peer::Successor) if service.machine.phase() == Phase::AwaitServing => false,
            // The timer of the peer that is waited for does the same.
            Timer::Drain | Timer::Ready => false,
            _ => true,
        }
    }

    fn daemon_events(&self, i: Pid, all: &mut Vec<Event>) {
        let daemon = self.see(i);
        if !daemon.runs() {
            return;
        }
        if !daemon.todo.is_empty() {
            return all.push(Event::Act(i));
        }
        if daemon.task.is_some() {
            all.push(Event::Task(i));
        }
        self.work_events(i, all);
        if daemon.transfer {
            all.push(Event::ReadTransfer(i));
        }
        if !daemon.inbox.is_empty() {
            return all.push(Event::Read(i)); // before the end of the session, a death and any timer
        }
        if !daemon.connected && !daemon.end_told {
            return all.push(Event::End(i));
        }
        if daemon.transfer {
            return;
        }
        if daemon.peer.is_some_and(|peer| !daemon.peer_death_told && !self.see(peer).alive) {
            return all.push(Event::PeerDied(i));
        }
        let late = daemon.page.is_some_and(|page| self.page(page).late);
        let may_ring = |timer: &&Timer| match timer {
            Timer::Incumbent(incumbent::Timer::Deadline) | Timer::Successor(successor::Timer::Deadline) => late,
            // One that fails changes nothing.
            Timer::Incumbent(incumbent::Timer::Lock) => self.can_lock(i),
            _ => true,
        };
        all.extend(daemon.timers.iter().filter(may_ring).map(|timer| Event::Ring(i, *timer)));
    }

    fn work_events(&self, i: Pid, all: &mut Vec<Event>) {
        let daemon = self.see(i);
        let bad = self.config.bad_applications;
        match &daemon.work {
            None => {}
            Some(Work::Cold) => {
                if self.can_lock(i) {
                    all.push(Event::Done(i));
                }
            }
            Some(Work::Open) => {
                all.push(Event::Done(i));
                if bad {
                    all.push(Event::DoneBadly(i));
                }
                // After a crash of O nobody knows what it should have been.
                if bad && self.disk > 0 && daemon.knows_revisions {
                    all.push(Event::DoneOld(i));
                }
            }
            Some(Work::Hook(incumbent::Hook::Drain | incumbent::Hook::Seal)) if bad => {
                all.extend([Event::Done(i), Event::DoneBadly(i)]);
            }
            Some(_) => all.push(Event::Done(i)),
        }
    }

    fn fault_events(&self, all: &mut Vec<Event>) {
        let service = &self.service;
        if service.alive && self.crashes > 0 {
            all.push(Event::CrashService);
        }
        if service.runs() && self.freezes > 0 {
            all.push(Event::FreezeService);
        }
        for i in self.pids() {
            let daemon = self.see(i);
            if !daemon.alive {
                continue;
            }
            if self.crashes > 0 {
                all.push(Event::Crash(i));
            }
            if self.freezes > 0 && !self.config.freeze_service_only && !daemon.frozen {
                all.push(Event::Freeze(i));
            }
            if self.cuts > 0 && daemon.connected && service.alive {
                all.push(Event::Cut(i));
            }
            if self.disk < self.config.writes && daemon.serves && daemon.has_data && daemon.runs() {
                all.push(Event::Write(i));
            }
            let in_handoff = matches!(&daemon.machine, Machine::Incumbent(machine) if machine.handoff().is_some());
            if self.requests > 0 && in_handoff && daemon.runs() && daemon.todo.is_empty() {
                all.push(Event::Stop(i));
            }
        }
        if self.config.stranger && self.lock.is_none() && (self.gate == 0 || self.config.is(Mutant::NoGate)) {
            all.push(Event::Grab);
        }
    }

    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Act(i) => self.daemon_acts(i),
            Event::Read(i) => self.read(i),
            Event::ReadTransfer(i) => {
                self.daemon(i).transfer = false;
                self.incumbent_takes(i, incumbent::Input::SuccessorServing);
            }
            Event::End(i) => self.end(i),
            Event::PeerDied(i) => self.peer_died(i),
            Event::Ring(i, timer) => self.ring(i, timer),
            Event::Done(i) | Event::DoneBadly(i) | Event::DoneOld(i) => self.work_done(i, event),
            Event::Task(i) => self.task(i),
            Event::Stop(i) => {
                self.requests -= 1;
                self.incumbent_takes(i, incumbent::Input::Stop);
            }
            Event::Late(page) => self.pages[usize::from(page)].late = true,
            Event::Write(i) => {
                self.disk += 1;
                let disk = self.disk;
                self.daemon(i).view = disk;
            }
            Event::CrashService => {
                self.crashes -= 1;
                self.service_dies();
            }
            Event::Crash(i) => {
                self.crashes -= 1;
                self.die(i);
            }
            Event::FreezeService => {
                self.freezes -= 1;
                Arc::make_mut(&mut self.service).frozen = true;
            }
            Event::Freeze(i) => {
                self.freezes -= 1;
                self.daemon(i).frozen = true;
            }
            Event::Cut(i) => {
                self.cuts -= 1;
                self.daemon(i).connected = false;
            }
            Event::Grab => {
                self.lock = Some(Holder::Stranger);
                self.check_grab();
            }
            Event::Evict(i) => self.die(i),
            other => self.service_event(other),
        }
        self.check();
        self.tidy();
    }

    /// Makes states equal that differ only in what nobody will ever ask for.
    fn tidy(&mut self) {
        let service = &self.service;
        let idle = service.alive && service.todo.is_empty() && service.machine.phase() == supervisor::Phase::Idle;
        if idle {
            let told = |i: Option<Pid>| i.filter(|i| !self.see(*i).death_told);
            let (incumbent, successor) = (told(service.incumbent), told(service.successor));
            self.serve().forget(incumbent, successor);
        }
        for i in self.pids() {
            let service = [self.service.incumbent, self.service.successor].contains(&Some(i));
            let peer = || self.daemons.iter().any(|other| other.peer == Some(i) || other.coming_peer() == Some(i));
            if !self.see(i).alive && !self.see(i).is_gone() && !service && !peer() {
                self.daemons[usize::from(i)] = Arc::new(Daemon::gone());
            }
        }
        for page in 0..self.pages.len() {
            let at = Some(page as u8);
            let service = self.service.page == at || self.service.last_page == at;
            let used = || self.daemons.iter().any(|daemon| daemon.page == at || daemon.coming_page() == at);
            if !self.pages[page].unused && !service && !used() {
                self.pages[page] = Page::unused();
            }
        }
    }

    /// S is killed, and does not come back. (A restart of S, which adopts what it finds, would be an event of its own here:
    /// a new [`Service`] with a new machine, told what the journal says.)
    fn service_dies(&mut self) {
        let mut dead = Service::new();
        dead.alive = false;
        self.service = Arc::new(dead);
        for i in self.pids() {
            let daemon = self.daemon(i);
            daemon.connected = false;
            daemon.outbox.clear();
            daemon.forget_service();
        }
    }

    /// A process dies: of SIGKILL, or because it exits. What it has sent can still be read.
    pub fn die(&mut self, i: Pid) {
        self.daemon(i).die();
        self.gate &= !(1 << i);
        if self.lock == Some(Holder::Daemon(i)) {
            self.lock = None;
        }
        if !self.service.alive {
            self.daemon(i).outbox.clear();
        }
    }

    /// Whether gate and lock can be had.
    pub fn can_lock(&self, i: Pid) -> bool {
        let gate = self.gate == 0 || self.gate & 1 << i != 0;
        gate && self.lock.is_none()
    }

    pub fn take_lock(&mut self, i: Pid) -> bool {
        let can = self.can_lock(i);
        if can {
            self.gate |= 1 << i;
            self.lock = Some(Holder::Daemon(i));
        }
        can
    }
}

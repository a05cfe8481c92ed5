//! Everything that a state is made of, and what can happen next.
//!
//! A process takes an input and carries out the machine's actions one by one, each in a step of its own, so that whatever lies
//! between two of them - a crash, a stop of any length, the steps of others - is explored. Actions that nobody else can see (its
//! own timers, its own bookkeeping) happen together with what comes before them.

use crate::adopt::Journal;
use crate::config::{Config, Mutant};
use crate::daemon::{Daemon, Work};
use crate::events::Event;
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
    pub verdicts: u8,
    pub crashes: u8,
    pub freezes: u8,
    pub cuts: u8,
    pub restarts: u8,
    /// What S has left on file.
    pub journal: Journal,
    /// Who listens at the control path.
    pub control: Option<Pid>,
    /// Who has used the client's connection last.
    pub used_by: Pid,
    /// A process that served was killed or stopped.
    pub interrupted: bool,
    broken: Option<String>,
}

impl World {
    /// A daemon serves, and S knows it.
    pub fn new(config: &Config) -> Self {
        let quiet =
            Config { handoffs: 0, crashes: 0, freezes: 0, cuts: 0, writes: 0, restarts: 0, stranger: false, ..*config };
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
            verdicts: 0,
            crashes: 0,
            freezes: 0,
            cuts: 0,
            restarts: 0,
            journal: Journal::default(),
            control: None,
            used_by: 0,
            interrupted: true,
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
        world.connect_client();
        world.interrupted = !config.overlap;
        (world.requests, world.verdicts) = (config.requests, config.verdicts);
        (world.crashes, world.freezes, world.cuts) = (config.crashes, config.freezes, config.cuts);
        world.restarts = config.restarts;
        world.write_journal();
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
        (&self.pages, self.lock, self.gate, self.disk, self.asked, self.requests, self.verdicts).hash(&mut to);
        (self.crashes, self.freezes, self.cuts, self.restarts, self.broken.is_some()).hash(&mut to);
        (&self.journal, self.control, self.used_by, self.interrupted).hash(&mut to);
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

    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Act(i) => self.daemon_acts(i),
            Event::Read(i) => self.read(i),
            Event::ReadTransfer(i) => {
                self.daemon(i).transfer = false;
                self.incumbent_takes(i, incumbent::Input::SuccessorServing);
            }
            Event::End(i) => self.end(i),
            Event::Admit(i) => self.admit(i),
            Event::PeerDied(i) => self.peer_died(i),
            Event::Ring(i, timer) => self.ring(i, timer),
            Event::Done(i) | Event::DoneBadly(i) | Event::DoneOld(i) => self.work_done(i, event),
            Event::Task(i) => self.task(i),
            Event::LoseTransfer(i) => {
                self.daemon(i).unable = true;
                self.successor_takes(i, successor::Input::TransferFailed("lost".into()));
            }
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
                self.interrupted |= self.see(i).serves;
                self.die(i);
            }
            Event::FreezeService => {
                self.freezes -= 1;
                Arc::make_mut(&mut self.service).frozen = true;
            }
            Event::Freeze(i) => {
                self.freezes -= 1;
                self.interrupted |= self.see(i).serves;
                self.daemon(i).frozen = true;
            }
            Event::Cut(i) => {
                self.cuts -= 1;
                self.cut(i);
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
        self.forget_the_dead();
        self.forget_predecessors();
        for i in self.pids() {
            let Service { incumbent, successor, parked, .. } = &*self.service;
            let service = [incumbent, successor, parked].contains(&&Some(i));
            let peer = || self.daemons.iter().any(|other| other.knows(i));
            if !self.see(i).alive && !self.see(i).is_gone() && !service && !peer() {
                self.daemons[usize::from(i)] = Arc::new(Daemon::gone());
            }
        }
        for page in 0..self.pages.len() {
            let at = Some(page as u8);
            let service = self.service.page == at || self.service.last_page == at || self.journal.page() == at;
            let used = || self.daemons.iter().any(|daemon| daemon.has_page(page as u8));
            if !self.pages[page].unused && !service && !used() {
                self.pages[page] = Page::unused();
            }
        }
    }

    /// S is killed. See [`Self::restart`] for how it comes back.
    fn service_dies(&mut self) {
        let mut dead = Service::new();
        dead.alive = false;
        self.service = Arc::new(dead);
        for i in self.pids() {
            let daemon = self.daemon(i);
            daemon.connected = false;
            daemon.outbox.clear();
            daemon.lose_asking();
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
            let daemon = self.daemon(i);
            daemon.outbox.clear();
        }
    }

    /// Whether gate and lock can be had.
    pub fn can_lock(&self, i: Pid) -> bool {
        let careless = self.config.is(Mutant::ColdWithoutGate) && self.see(i).work == Some(Work::Cold);
        let gate = self.gate == 0 || self.gate & 1 << i != 0 || careless;
        gate && self.lock.is_none()
    }

    pub fn take_lock(&mut self, i: Pid) -> bool {
        let can = self.can_lock(i);
        if can {
            self.gate |= 1 << i;
            if !self.config.overlap {
                self.lock = Some(Holder::Daemon(i));
            }
        }
        can
    }
}

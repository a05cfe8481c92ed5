//! The drivers and applications of O and N.

use crate::acts::{is_local_n, is_local_o};
use crate::adopt::Asking;
use crate::config::Mutant;
use crate::connections::Connection;
use crate::fingerprint::Fingerprint;
use crate::service::Service;
use crate::world::{Pid, World};
use handoff::protocol::incumbent::{self, Hook, Incumbent};
use handoff::protocol::message::{Hello, Message, Side, VERSION_MAX, VERSION_MIN, capability};
use handoff::protocol::successor::{self, Successor};
use handoff::protocol::{Decide, Decision, HandoffId};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Machine {
    Incumbent(Incumbent),
    Successor(Successor),
}

/// An action that is still to be carried out.
#[derive(Clone, Debug, Hash)]
pub enum Do {
    Incumbent(incumbent::Action),
    Successor(successor::Action),
    /// What it read of the word, if the swap is broken in two.
    Write(Decide, Decision),
}

/// An answer to the machine.
#[derive(Clone, Debug, Hash)]
pub enum Take {
    Incumbent(incumbent::Input),
    Successor(successor::Input),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    Incumbent(incumbent::Timer),
    Successor(successor::Timer),
}

/// What the application does; it ends at some time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Takes gate and lock and opens the data, without a predecessor.
    Cold,
    Warm,
    Open,
    /// Has learnt that it serves, and will say so.
    Serve,
    Hook(Hook),
    /// Its answer is not wanted any more; what comes after it.
    Cancelled(Option<Hook>),
}

/// What only the owner's thread may do; others go on meanwhile.
#[derive(Clone, Debug, Hash)]
pub enum Task {
    TakeLock,
    Commit(Decide),
    Publish,
}

#[derive(Clone, Debug)]
pub struct Daemon {
    pub machine: Machine,
    pub alive: bool,
    pub frozen: bool,
    /// The session with S is open.
    pub connected: bool,
    pub end_told: bool,
    pub peer_death_told: bool,
    pub inbox: VecDeque<Message>,
    pub outbox: VecDeque<Message>,
    /// N's Serving waits on the transfer socket.
    pub transfer: bool,
    pub timers: Vec<Timer>,
    pub todo: VecDeque<Do>,
    pub answers: VecDeque<Take>,
    pub task: Option<Task>,
    pub work: Option<Work>,
    /// The page and the other daemon, on their way with a message.
    pub coming: Option<(u8, Pid)>,
    /// Who has connected to the control path: the oldest first.
    pub asking: VecDeque<Asking>,
    pub page: Option<u8>,
    pub peer: Option<Pid>,
    /// Page and process of the O that may take over from this N.
    pub before: Option<(u8, Pid)>,
    /// Accepts connections.
    pub serves: bool,
    /// Has the data open and may write.
    pub has_data: bool,
    /// The last write that it knows of.
    pub view: u8,
    id: HandoffId,
    /// S knows that its session has ended.
    pub gone_told: bool,
    /// S knows that it is dead.
    pub death_told: bool,
    /// It has retired, and S goes on with another.
    pub is_leaving: bool,
    /// It has found that it could not serve, or not with everything.
    pub unable: bool,
    /// It was told what O sealed.
    pub knows_revisions: bool,
    pub connection: Connection,
}

impl Daemon {
    pub fn new(successor: bool) -> Self {
        let machine = match successor {
            true => Machine::Successor(Successor::new()),
            false => Machine::Incumbent(Incumbent::cold()),
        };
        Self {
            machine,
            alive: true,
            frozen: false,
            connected: true,
            end_told: false,
            peer_death_told: false,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            transfer: false,
            timers: Vec::new(),
            todo: VecDeque::new(),
            answers: VecDeque::new(),
            task: None,
            work: Some(if successor { Work::Warm } else { Work::Cold }),
            coming: None,
            asking: VecDeque::new(),
            page: None,
            peer: None,
            before: None,
            serves: false,
            has_data: false,
            view: 0,
            id: HandoffId::COLD,
            gone_told: false,
            death_told: false,
            is_leaving: false,
            unable: false,
            knows_revisions: false,
            connection: Connection::None,
        }
    }

    /// A process of which nobody knows any more.
    pub fn gone() -> Self {
        let mut gone = Self::new(false);
        gone.die();
        (gone.gone_told, gone.death_told) = (true, true);
        gone
    }

    pub fn is_gone(&self) -> bool {
        !self.alive && self.gone_told && self.death_told && self.outbox.is_empty()
    }

    /// Whether it has this daemon's pidfd, or will get or give it.
    pub fn knows(&self, i: Pid) -> bool {
        self.peer == Some(i) || [self.coming, self.before].iter().flatten().any(|(_, peer)| *peer == i)
    }

    pub fn has_page(&self, page: u8) -> bool {
        self.page == Some(page) || [self.coming, self.before].iter().flatten().any(|(of, _)| *of == page)
    }

    pub fn runs(&self) -> bool {
        self.alive && !self.frozen
    }

    pub fn is_incumbent(&self) -> bool {
        matches!(self.machine, Machine::Incumbent(_))
    }

    /// Whether O may be sending to it.
    pub fn awaits_begin(&self) -> bool {
        self.successor_phase() == Some(successor::Phase::AwaitBegin)
    }

    fn successor_phase(&self) -> Option<successor::Phase> {
        let Machine::Successor(machine) = &self.machine else { return None };
        Some(*machine.phase())
    }

    pub fn phase(&self) -> String {
        match &self.machine {
            _ if !self.alive => "dead".into(),
            Machine::Incumbent(machine) => machine.phase().name().into(),
            Machine::Successor(machine) => format!("N {}", machine.phase().name()),
        }
    }

    pub fn identify(&self, to: &mut Fingerprint) {
        match &self.machine {
            Machine::Incumbent(machine) => to.machine(machine, machine.dropped()),
            Machine::Successor(machine) => machine.hash(to),
        }
        let timers: u16 = self.timers.iter().map(|timer| 1 << timer.bit()).sum();
        let flags = [
            self.alive,
            self.frozen,
            self.connected,
            self.end_told,
            self.peer_death_told,
            self.transfer,
            self.serves,
            self.has_data,
            self.gone_told,
            self.death_told,
            self.is_leaving,
            self.unable,
            self.knows_revisions,
        ];
        let flags: u16 = flags.iter().enumerate().map(|(at, flag)| u16::from(*flag) << at).sum();
        to.write_u32(u32::from(timers) << 16 | u32::from(flags));
        (&self.inbox, &self.outbox, &self.todo, &self.answers, &self.task, &self.work).hash(to);
        (self.coming, self.page, self.peer, self.before, self.view).hash(to);
        (&self.asking, self.connection).hash(to);
    }

    /// Nothing is left but what it has sent.
    pub fn die(&mut self) {
        let mut dead = Self::new(false);
        (dead.alive, dead.connected, dead.work) = (false, false, None);
        dead.outbox = std::mem::take(&mut self.outbox);
        // A session that was not adopted yet ends, too.
        (dead.gone_told, dead.death_told) = (self.gone_told && !self.is_asked(), self.death_told);
        *self = dead;
    }

    /// There is no S any more that could know anything.
    pub fn forget_service(&mut self) {
        (self.gone_told, self.death_told, self.is_leaving) = (false, false, false);
    }

    pub fn hello(&self, pid: Pid, overlap: bool) -> Hello {
        let capabilities = if overlap { capability::OVERLAP } else { capability::EXCLUSIVE };
        Hello {
            side: if self.is_incumbent() { Side::Incumbent } else { Side::Successor },
            pid: u32::from(pid),
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            capabilities,
            generation: 0,
            open_descriptors: 0,
            descriptors_max: 0,
            time_namespace: 0,
            build_id: Vec::new(),
        }
    }

    pub fn send(&mut self, message: Message) {
        if self.connected {
            self.outbox.push_back(message);
        }
    }

    pub fn run_hook(&mut self, hook: Hook) {
        self.serves &= !matches!(hook, Hook::Drain | Hook::Leave);
        match &mut self.work {
            Some(Work::Cancelled(next)) => *next = Some(hook), // once the one before it has returned
            work => *work = Some(Work::Hook(hook)),
        }
    }

    pub fn arm(&mut self, timer: Timer) {
        // Heartbeats only tell others that a timer of theirs has no reason to fire.
        if !self.timers.contains(&timer) && !timer.is_heartbeat() {
            self.timers.push(timer);
            self.timers.sort_unstable_by_key(|timer| timer.bit());
        }
    }

    pub fn disarm(&mut self, timer: Timer) {
        self.timers.retain(|armed| *armed != timer);
    }
}

impl Timer {
    fn bit(self) -> u16 {
        match self {
            Self::Incumbent(incumbent::Timer::Drain) => 0,
            Self::Incumbent(incumbent::Timer::Deadline) => 1,
            Self::Incumbent(incumbent::Timer::Heartbeat) => 2,
            Self::Incumbent(incumbent::Timer::Lock) => 3,
            Self::Incumbent(incumbent::Timer::Park) => 4,
            Self::Successor(successor::Timer::Ack) => 5,
            Self::Successor(successor::Timer::Deadline) => 6,
            Self::Successor(successor::Timer::Heartbeat) => 7,
        }
    }

    fn is_heartbeat(self) -> bool {
        matches!(self, Self::Incumbent(incumbent::Timer::Heartbeat) | Self::Successor(successor::Timer::Heartbeat))
    }
}

impl World {
    /// A process is started.
    pub fn spawn(&mut self, successor: bool) -> Pid {
        let used = |i: &Pid| {
            let Service { incumbent, successor, parked, .. } = &*self.service;
            let service = [incumbent, successor, parked].contains(&&Some(*i));
            let peer = |other: &Arc<Daemon>| other.knows(*i);
            service || !self.see(*i).is_gone() || self.daemons.iter().any(peer)
        };
        let i = self.pids().find(|i| !used(i)).unwrap_or(self.daemons.len() as Pid);
        let daemon = Daemon::new(successor);
        let hello = daemon.hello(i, self.config.overlap);
        if usize::from(i) == self.daemons.len() {
            self.daemons.push(Arc::new(daemon));
        } else {
            self.daemons[usize::from(i)] = Arc::new(daemon);
        }
        if successor {
            self.successor_takes(i, successor::Input::Start(hello));
        } else {
            self.incumbent_takes(i, incumbent::Input::Start(hello));
        }
        i
    }

    pub fn incumbent_takes(&mut self, i: Pid, input: incumbent::Input) {
        self.note_word(i, &input);
        let seen = matches!(input, incumbent::Input::Message(_));
        let late_ends = self.config.is(Mutant::LateEndsSession);
        let input = self.mutate_incumbent(i, input);
        let Machine::Incumbent(machine) = &mut self.daemon(i).machine else { return };
        let dropped = machine.dropped();
        let actions = machine.step(input);
        let drops = machine.dropped() > dropped;
        self.daemon(i).todo.extend(actions.into_iter().map(Do::Incumbent));
        if late_ends && seen && drops {
            self.fail("a session between honest processes is ended");
        }
        self.settle(i);
    }

    fn mutate_incumbent(&self, i: Pid, input: incumbent::Input) -> incumbent::Input {
        let daemon = self.see(i);
        let peer_dead = daemon.peer.is_some_and(|peer| !self.see(peer).alive);
        let input = self.mutate_parked(i, input);
        match input {
            incumbent::Input::Decided(Decision::Committed)
                if peer_dead && self.config.is(Mutant::CommittedMeansExit) =>
            {
                incumbent::Input::Decided(Decision::CommittedIncompatible)
            }
            incumbent::Input::SuccessorSeen { .. } if self.config.is(Mutant::NoLook) => {
                incumbent::Input::SuccessorSeen { alive: true }
            }
            other => other,
        }
    }

    pub fn successor_takes(&mut self, i: Pid, input: successor::Input) {
        let lonely = self.config.is(Mutant::NoSelfPromotion);
        let input = match input {
            successor::Input::IncumbentSeen { .. } if lonely => successor::Input::IncumbentSeen { alive: true },
            successor::Input::IncumbentDied if lonely => return,
            other => other,
        };
        let Machine::Successor(machine) = &mut self.daemon(i).machine else { return };
        let actions = machine.step(input);
        self.daemon(i).todo.extend(actions.into_iter().map(Do::Successor));
        self.settle(i);
    }

    /// Carries out what nobody else can see, up to the first action that somebody can.
    pub fn settle(&mut self, i: Pid) {
        loop {
            if !self.see(i).alive {
                return;
            }
            let daemon = self.daemon(i);
            match daemon.todo.front() {
                Some(Do::Incumbent(action)) if is_local_o(action, daemon.connected) => {
                    let Some(Do::Incumbent(action)) = daemon.todo.pop_front() else { return };
                    self.incumbent_acts(i, action);
                }
                Some(Do::Successor(action)) if is_local_n(action, daemon.connected) => {
                    let Some(Do::Successor(action)) = daemon.todo.pop_front() else { return };
                    self.successor_acts(i, action);
                }
                Some(_) => return,
                None => match daemon.answers.pop_front() {
                    Some(Take::Incumbent(input)) => return self.incumbent_takes(i, input),
                    Some(Take::Successor(input)) => return self.successor_takes(i, input),
                    None => return self.becomes_incumbent(i),
                },
            }
        }
    }

    pub fn daemon_acts(&mut self, i: Pid) {
        let looked = match self.daemon(i).todo.pop_front() {
            Some(Do::Incumbent(action)) => self.incumbent_acts(i, action),
            Some(Do::Successor(action)) => self.successor_acts(i, action),
            Some(Do::Write(decide, read)) => self.write_word(i, decide, read),
            None => false,
        };
        self.settle(i);
        // What follows a look follows it with nothing between.
        while looked && self.see(i).alive && !self.see(i).todo.is_empty() {
            self.daemon_acts(i);
        }
    }

    /// N, once it has told everybody that it serves, is the O of the next handoff.
    fn becomes_incumbent(&mut self, i: Pid) {
        let parks = self.config.park;
        let daemon = self.daemon(i);
        if daemon.successor_phase() != Some(successor::Phase::Serving) {
            return;
        }
        daemon.before = daemon.page.zip(daemon.peer).filter(|_| parks);
        if let Machine::Successor(machine) = &daemon.machine {
            daemon.machine = Machine::Incumbent(Incumbent::committed(machine.generation(), daemon.id));
            daemon.timers.clear();
            (daemon.page, daemon.peer, daemon.peer_death_told) = (None, None, false);
        }
    }

    pub fn read(&mut self, i: Pid) {
        if self.refuses(i) {
            return;
        }
        let daemon = self.daemon(i);
        let Some(message) = daemon.inbox.pop_front() else { return };
        let rendezvous = match &message {
            Message::HelloAck(ack) => ack.terms.is_some(),
            Message::PrepareHandoff(_) => daemon.is_incumbent(),
            _ => false,
        };
        if rendezvous {
            let (page, peer) = daemon.coming.take().expect("page and peer come with it");
            (daemon.page, daemon.peer, daemon.peer_death_told) = (Some(page), Some(peer), false);
            (daemon.transfer, daemon.id) = (false, message.id());
        }
        match self.see(i).machine {
            Machine::Incumbent(_) => self.incumbent_takes(i, incumbent::Input::Message(message)),
            Machine::Successor(_) => self.successor_takes(i, successor::Input::Message(message)),
        }
    }

    pub fn end(&mut self, i: Pid) {
        self.daemon(i).end_told = true;
        match self.see(i).machine {
            Machine::Incumbent(_) => self.incumbent_takes(i, incumbent::Input::SupervisorGone),
            Machine::Successor(_) => self.successor_takes(i, successor::Input::SupervisorGone),
        }
    }

    pub fn peer_died(&mut self, i: Pid) {
        self.daemon(i).peer_death_told = true;
        match self.see(i).machine {
            Machine::Incumbent(_) => self.incumbent_takes(i, incumbent::Input::SuccessorDied),
            Machine::Successor(_) => self.successor_takes(i, successor::Input::IncumbentDied),
        }
    }

    pub fn ring(&mut self, i: Pid, timer: Timer) {
        self.daemon(i).disarm(timer);
        match timer {
            Timer::Incumbent(timer) => self.incumbent_takes(i, incumbent::Input::Timer(timer)),
            Timer::Successor(timer) => self.successor_takes(i, successor::Input::Timer(timer)),
        }
    }
}

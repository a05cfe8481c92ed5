//! What outlives S: the journal and the control path; and how another S finds the daemons that run on.

use crate::config::Mutant;
use crate::daemon::{Daemon, Machine, Work};
use crate::events::Event;
use crate::service::{Service, Step};
use crate::world::{Pid, World};
use handoff::protocol::message::{AdoptAck, Hello, Message, Side, VERSION_MAX};
use handoff::protocol::supervisor::{Input, Past, PastHandoff, Phase, Verdict};
use handoff::protocol::{HandoffId, incumbent, successor};
use std::sync::Arc;

/// What S writes down. A process is forgotten when it is dead: whoever reads it finds that out first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journal {
    generation: u64,
    incumbent: Option<Pid>,
    handoff: Option<Open>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Open {
    id: u64,
    page: u8,
    successor: Option<Pid>,
}

impl Journal {
    pub fn page(&self) -> Option<u8> {
        self.handoff.map(|open| open.page)
    }
}

/// A connection to the control path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asking {
    /// Adopt is on its way.
    pub adopt: bool,
    /// S is at the other end.
    open: bool,
}

impl Daemon {
    /// S has a connection that the daemon has not made its session yet.
    pub fn is_asked(&self) -> bool {
        self.asking.back().is_some_and(|asking| asking.open)
    }

    /// What S has sent can still be read.
    pub fn lose_asking(&mut self) {
        self.asking.retain(|asking| asking.adopt);
        self.asking.iter_mut().for_each(|asking| asking.open = false);
    }
}

impl World {
    /// Writes down what runs.
    pub fn write_journal(&mut self) {
        let service = &self.service;
        let handoff = service.page.zip(service.successor).map(|(page, successor)| Open {
            id: service.machine.handoff().map_or(0, |id| id.0),
            page,
            successor: Some(successor),
        });
        let (generation, incumbent) = (service.machine.generation(), service.incumbent);
        self.serve().journal = handoff.is_some();
        if self.restarts > 0 {
            self.journal = Journal { generation, incumbent, handoff };
            self.forget_the_dead();
        }
    }

    /// Nobody is found by what leads to a dead process, and its number is free for another.
    pub fn forget_the_dead(&mut self) {
        let lives = |i: &Pid| self.daemons[usize::from(*i)].alive;
        let (control, incumbent) = (self.control.filter(lives), self.journal.incumbent.filter(lives));
        let handoff = self.journal.handoff.map(|open| Open { successor: open.successor.filter(lives), ..open });
        self.control = control;
        if self.restarts == 0 {
            self.journal = Journal::default();
        } else {
            (self.journal.incumbent, self.journal.handoff) = (incumbent, handoff);
        }
    }

    /// A new S reads what the last one has left, watches those that live, and gives it to its machine.
    pub fn restart(&mut self, journal: Journal) {
        self.restarts -= 1;
        self.serve_anew(journal);
    }

    fn serve_anew(&mut self, journal: Journal) {
        let mut service = Service::new();
        service.resuming = true;
        service.successor = journal.handoff.and_then(|open| open.successor);
        // Without a journal, whoever listens at the control path tells what there is.
        let listens = self.control.filter(|_| service.successor.is_none());
        service.incumbent = journal.incumbent.or(listens);
        service.page = journal.page();
        service.last_page = service.page;
        service.said_prepare = service.page.is_some();
        service.journal = service.page.is_some();
        // What it was not told of has had its outcome.
        service.report = if service.page.is_some() { None } else { Some(Verdict::Committed) };
        let park_ns = u64::from(self.config.park);
        let past = Past {
            generation: journal.generation,
            incumbent_lives: service.incumbent.is_some(),
            handoff: journal.handoff.map(|open| PastHandoff {
                id: HandoffId(open.id),
                successor_lives: open.successor.is_some(),
                park_ns,
            }),
        };
        let found = [service.incumbent, service.successor];
        self.service = Arc::new(service);
        for i in found.into_iter().flatten() {
            self.has_no_session(i);
        }
        self.supervise(Input::Resume(past));
    }

    /// S knows this process, and has no session with it.
    fn has_no_session(&mut self, i: Pid) {
        let daemon = self.daemon(i);
        (daemon.gone_told, daemon.death_told) = (true, false);
    }

    /// When S has found out what there is, it is as any other.
    pub fn end_resume(&mut self) {
        let service = &self.service;
        let nobody = service.machine.phase() == Phase::Idle && service.incumbent.is_none_or(|i| self.see(i).death_told);
        if !service.resuming || !nobody && !service.machine.incumbent_is_linked() {
            return;
        }
        let service = self.serve();
        service.resuming = false;
        if service.page.is_none() {
            service.todo.push_back(Step::Journal);
        }
    }

    pub fn adoption_events(&self, all: &mut Vec<Event>) {
        let service = &self.service;
        if service.adopting && service.machine.seeks() {
            let reached = |i: &Pid| self.control == Some(*i) && self.see(*i).runs() && !self.see(*i).is_asked();
            all.extend(service.incumbent.filter(reached).map(Event::Connect));
        }
        // It waits for a while; what counts is that it ends when somebody else serves.
        let waits = |i: &Pid| {
            let daemon = self.see(*i);
            daemon.runs() && daemon.work == Some(Work::Cold) && !self.can_lock(*i)
        };
        let served = self.control.is_some_and(|i| self.see(i).serves && self.see(i).runs());
        if served {
            all.extend(service.incumbent.filter(waits).map(Event::GiveUp));
        }
    }

    /// S connects, and the daemon says Hello.
    pub fn connect(&mut self, i: Pid) {
        self.serve().adopting = false;
        let overlap = self.config.overlap;
        let daemon = self.daemon(i);
        daemon.gone_told = true; // of the session before
        daemon.asking.push_back(Asking { adopt: false, open: true });
        let hello = Hello { side: Side::Incumbent, ..daemon.hello(i, overlap) };
        daemon.outbox.push_back(Message::Hello(hello));
    }

    /// S says something on a session that the daemon has not accepted yet.
    pub fn ask(&mut self, i: Pid, message: &Message) {
        if !matches!(message, Message::Adopt(_)) {
            return self.fail(format!("S says {} before the daemon is adopted", message.name()));
        }
        if let Some(asking) = self.daemon(i).asking.back_mut() {
            asking.adopt = true;
        }
    }

    /// The session before is closed with everything unread in it.
    pub fn admit(&mut self, i: Pid) {
        let keep = self.config.is(Mutant::KeepUnread);
        let daemon = self.daemon(i);
        let Some(asking) = daemon.asking.pop_front() else { return };
        if !keep {
            daemon.inbox.clear();
            daemon.coming = None;
        }
        (daemon.connected, daemon.end_told) = (asking.open, false);
        if asking.open {
            daemon.gone_told = false;
        }
        let ack = AdoptAck {
            version: VERSION_MAX,
            pid: u32::from(i),
            generation: 0,
            phase: 0,
            id: HandoffId::COLD,
            listeners: 0,
        };
        match &self.see(i).machine {
            Machine::Incumbent(machine) if machine.handoff().is_some() && self.config.is(Mutant::SilentAdoption) => {
                self.daemon(i).send(Message::AdoptAck(ack));
            }
            Machine::Incumbent(_) => self.incumbent_takes(i, incumbent::Input::Adopted(ack)),
            Machine::Successor(_) => self.successor_takes(i, successor::Input::Adopted(ack)),
        }
    }

    /// Whether the incumbent is in the midst of a handoff that no journal has told of: it ends that alone.
    pub fn note_adoption(&mut self, ack: &AdoptAck) {
        let unknown = self.service.page.is_none();
        self.serve().may_leave = ack.phase != AdoptAck::SERVING && unknown;
    }

    /// It has died in it: its successor serves, if it committed.
    pub fn search_again(&mut self, dead: Pid) {
        let service = &self.service;
        let idle = service.machine.phase() == Phase::Idle && service.incumbent == Some(dead) && service.may_leave;
        let Some(next) = self.control.filter(|i| idle && self.see(*i).alive) else { return };
        let service = self.serve();
        (service.may_leave, service.incumbent) = (false, Some(next));
        self.has_no_session(next);
        self.supervise(Input::Resume(Past { generation: 0, incumbent_lives: true, handoff: None }));
    }

    /// A session breaks with both sides alive.
    pub fn cut(&mut self, i: Pid) {
        let daemon = self.daemon(i);
        if daemon.is_asked() {
            daemon.lose_asking();
            daemon.gone_told = false;
        }
        daemon.connected = false;
    }

    /// A cold start finds the gate held, and exits; S looks anew who is there.
    pub fn give_up(&mut self, i: Pid) {
        self.die(i);
        self.serve_anew(Journal::default());
    }
}

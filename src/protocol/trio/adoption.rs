//! Another S, and how it finds what the one before has left.

use super::daemons::Role;
use super::service::Service;
use super::world::World;
use crate::protocol::message::{AdoptAck, Hello, Message, Side, VERSION_MAX};
use crate::protocol::supervisor::{Input, Past, PastHandoff, Phase};
use crate::protocol::{HandoffId, incumbent, successor};

/// What S writes down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Journal {
    generation: u64,
    incumbent: Option<usize>,
    /// Id, page and successor of the handoff that is open.
    handoff: Option<(HandoffId, usize, usize)>,
}

impl World {
    /// Writes down what runs.
    pub(super) fn write_journal(&mut self) {
        let service = &self.service;
        let open = service.machine.handoff().zip(service.page).zip(service.successor);
        self.journal = Journal {
            generation: service.machine.generation(),
            incumbent: service.incumbent,
            handoff: open.map(|((id, page), successor)| (id, page, successor)),
        };
    }

    /// S is started again, if it is dead, with its journal or without.
    pub(super) fn restart_service(&mut self, journal_lost: bool) {
        if self.service.alive {
            return;
        }
        self.note(format_args!("RESTART S"));
        self.go_on_after(if journal_lost { Journal::default() } else { self.journal });
    }

    /// S takes over what this journal, or else the control path, tells of.
    pub(super) fn go_on_after(&mut self, journal: Journal) {
        let lives = |i: &usize| self.daemons[*i].alive;
        let successor = journal.handoff.map(|(_, _, successor)| successor).filter(lives);
        // Without a journal, whoever listens at the control path tells what there is.
        let listens = self.control.filter(|_| successor.is_none()).filter(lives);
        let incumbent = journal.incumbent.filter(lives).or(listens);
        let page = journal.handoff.map(|(_, page, _)| page);
        let handoff =
            journal.handoff.map(|(id, ..)| PastHandoff { id, successor_lives: successor.is_some(), park_ns: 0 });
        self.service = Service {
            resuming: true,
            incumbent,
            successor,
            page,
            last_page: page,
            said_prepare: page.is_some(),
            journal: page.is_some(),
            owes_nothing: page.is_none(),
            told_gone: [incumbent, successor].into_iter().flatten().collect(),
            reports: std::mem::take(&mut self.service.reports),
            ..Service::new()
        };
        let past = Past { generation: journal.generation, incumbent_lives: incumbent.is_some(), handoff };
        self.supervise(Input::Resume(past));
        self.end_resume();
    }

    /// When S has found out what there is, it is as any other.
    pub(super) fn end_resume(&mut self) {
        let service = &self.service;
        let idle = service.is_quiet() && service.machine.phase() == Phase::Idle;
        let nobody = service.incumbent.is_none_or(|i| service.told_death.contains(&i));
        if service.resuming && (idle && nobody || service.machine.incumbent_is_linked()) {
            self.service.resuming = false;
            if self.service.page.is_none() {
                self.write_journal();
            }
        }
    }

    pub(super) fn can_connect(&self, i: usize) -> bool {
        let there = self.control == Some(i) && self.daemons[i].runs() && !self.daemons[i].asked;
        self.service.adopting && self.service.machine.seeks() && there
    }

    /// S connects, and the daemon says Hello.
    pub(super) fn connect(&mut self, i: usize) {
        self.service.adopting = false;
        let daemon = &mut self.daemons[i];
        daemon.asked = true;
        let hello = Hello { side: Side::Incumbent, ..daemon.hello() };
        daemon.outbox.push_back(Message::Hello(hello));
    }

    /// S says something on a session that the daemon has not accepted yet.
    pub(super) fn ask(&mut self, i: usize, message: &Message) {
        let adopt = matches!(message, Message::Adopt(_));
        self.require(adopt, "S talks to a daemon that is not adopted");
        self.sent.push(format!("S>O {}", message.name()));
        self.daemons[i].adopt |= adopt;
    }

    /// The session before is closed with everything unread in it.
    pub(super) fn admit(&mut self, i: usize) {
        self.service.told_gone.retain(|gone| *gone != i);
        let daemon = &mut self.daemons[i];
        daemon.adopt = false;
        daemon.inbox.clear();
        daemon.coming = None;
        (daemon.connected, daemon.told_end) = (std::mem::take(&mut daemon.asked), false);
        let ack = AdoptAck {
            version: VERSION_MAX,
            pid: daemon.pid,
            generation: 0,
            phase: 0,
            id: HandoffId::COLD,
            listeners: 0,
        };
        match &daemon.role {
            Role::Incumbent(_) => self.incumbent_takes(i, incumbent::Input::Adopted(ack)),
            Role::Successor(_) => self.successor_takes(i, successor::Input::Adopted(ack)),
        }
    }

    /// Whether the incumbent is in the midst of a handoff that no journal has told of: it ends that alone.
    pub(super) fn note_adoption(&mut self, ack: &AdoptAck) {
        self.service.may_leave = ack.phase != AdoptAck::SERVING && self.service.page.is_none();
    }

    /// It has died in it: its successor serves, if it committed.
    pub(super) fn search_again(&mut self, dead: usize) {
        let idle = self.service.machine.phase() == Phase::Idle && self.service.incumbent == Some(dead);
        let Some(next) = self.control.filter(|i| idle && self.daemons[*i].alive) else { return };
        if std::mem::take(&mut self.service.may_leave) {
            self.service.incumbent = Some(next);
            self.service.told_gone.push(next);
            self.supervise(Input::Resume(Past { generation: 0, incumbent_lives: true, handoff: None }));
        }
    }
}

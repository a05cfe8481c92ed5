//! N's machine under a supervisor, an incumbent and an application that do anything.

use crate::bytes::{ACTIONS_MAX, Bytes, STEPS_MAX, Word};
use crate::protocol::message::{Begin, Committed, HelloAck, Message, Mode, Readiness, Sealed, Side, Terms};
use crate::protocol::successor::{Action, Input, Phase, Successor, Timer};
use crate::protocol::transfer::Totals;
use crate::protocol::{Decide, Decision, HandoffId};
use std::collections::VecDeque;

/// What the owner's thread does at its next call.
enum Task {
    TakeLock,
    Commit { incompatible: bool },
    Publish,
}

struct World<'a> {
    bytes: Bytes<'a>,
    machine: Successor,
    word: Word,
    tasks: VecDeque<Task>,
    armed: Vec<Timer>,
    session: bool,
    supervisor_gone: bool,
    incumbent_alive: bool,
    incumbent_dead_told: bool,
    begun: bool,
    told_to_commit: bool,
    locked: bool,
    won: bool,
    published: bool,
    abandoned: bool,
}

impl World<'_> {
    fn feed(&mut self, input: Input) {
        let mut actions: VecDeque<Action> = self.step(input).into();
        while let Some(action) = actions.pop_front() {
            if let Some(answer) = self.act(action) {
                actions.extend(self.step(answer));
            }
        }
        let ended = matches!(self.machine.phase(), Phase::Serving | Phase::Aborted);
        assert!(!ended || self.armed.is_empty(), "{:?} with {:?}", self.machine.phase(), self.armed);
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let actions = self.machine.step(input);
        assert!(actions.len() <= ACTIONS_MAX, "{actions:?}");
        if self.abandoned {
            assert!(actions.iter().all(|action| matches!(action, Action::EndSession(_))), "{actions:?}");
        }
        actions
    }

    fn alone(&self) -> bool {
        self.supervisor_gone && !self.incumbent_alive
    }

    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Send(Message::Serving(_)) | Action::Tell(_) => assert!(self.won && self.published),
            Action::Send(Message::Ready(ready)) => assert!(self.locked || ready.readiness.unhealthy),
            Action::Send(_) => {}
            Action::Arm(timer) => {
                self.armed.retain(|armed| *armed != timer);
                self.armed.push(timer);
            }
            Action::Disarm(timer) => self.armed.retain(|armed| *armed != timer),
            Action::TakeLock(_) => {
                assert!(self.begun || self.alone(), "the lock before Begin");
                self.tasks.push_back(Task::TakeLock);
            }
            Action::Look => return Some(Input::IncumbentSeen { alive: self.incumbent_alive }),
            Action::Decide(Decide::Commit { incompatible, deadline_ns }) => {
                assert!(self.locked, "a commit without the lock");
                assert!(if deadline_ns.is_some() { self.told_to_commit } else { self.alone() });
                self.tasks.push_back(Task::Commit { incompatible });
            }
            Action::Decide(Decide::Revoke) => {
                assert!(!self.won);
                return Some(Input::Decided(self.word.swap(Decision::Revoked)));
            }
            Action::Publish => {
                assert!(self.won && self.word.is_committed() && !self.published, "it serves without having won");
                self.tasks.push_back(Task::Publish);
            }
            Action::Abandon(_) => {
                assert!(!self.won && !self.abandoned, "it goes although it has won");
                self.abandoned = true;
                self.tasks.clear();
            }
            Action::EndSession(_) => (self.session, self.supervisor_gone) = (false, true),
        }
        None
    }

    fn run_task(&mut self) {
        match self.tasks.pop_front() {
            Some(Task::TakeLock) if self.bytes.byte() % 4 == 3 => self.feed(Input::LockRefused("held".into())),
            Some(Task::TakeLock) => {
                self.locked = true;
                self.feed(Input::Locked);
            }
            Some(Task::Commit { incompatible }) => {
                let to = if incompatible { Decision::CommittedIncompatible } else { Decision::Committed };
                let late = self.bytes.byte() % 4 == 3;
                let before = self.word.value();
                let value = if late { before } else { self.word.swap(to) };
                self.won = value.is_committed();
                assert!(!self.won || before == Decision::Open, "the swap is asked for twice");
                self.feed(Input::Decided(value));
            }
            Some(Task::Publish) => self.published = true,
            None => {}
        }
    }

    fn id(&self) -> HandoffId {
        self.machine.terms().map_or(HandoffId(100), |terms| terms.id)
    }

    fn hear(&mut self) {
        if !self.session {
            return;
        }
        let message = self.bytes.message(self.id());
        let (phase, id) = (*self.machine.phase(), message.id());
        if matches!(message, Message::HelloAck(_)) && phase == Phase::AwaitAck {
            self.word = Word::default();
        }
        self.begun |= matches!(message, Message::Begin(_)) && phase == Phase::AwaitBegin && id == self.id();
        self.told_to_commit |=
            matches!(message, Message::Committed(_)) && phase == Phase::AwaitCommitted && id == self.id();
        self.feed(Input::Message(message));
    }

    /// Honest steps, as many as are wanted, so that lies come at each of them.
    fn begin_well(&mut self, steps: u8, mode: Mode) {
        let id = HandoffId(100);
        let terms = Terms { id, mode, deadline_ns: 1, park_ns: 0, open_descriptors: 0 };
        let sealed = if mode == Mode::Overlap { Sealed::Beside } else { Sealed::Recover };
        for step in 0..steps {
            match step {
                0 => {
                    let ack = HelloAck { version: 1, generation: 2, terms: Some(terms) };
                    self.feed(Input::Message(Message::HelloAck(ack)));
                }
                1 => self.feed(Input::Warmed),
                2 => {
                    self.begun = true;
                    self.feed(Input::Message(Message::Begin(Begin { id, sealed: sealed.clone() })));
                }
                3 => self.run_task(),
                4 if self.locked => self.feed(Input::Opened(Readiness::default())),
                5 if self.locked => {
                    self.told_to_commit = true;
                    self.feed(Input::Message(Message::Committed(Committed { id })));
                }
                _ => self.run_task(),
            }
        }
    }

    fn happen(&mut self) {
        match self.bytes.byte() % 16 {
            0..=5 => self.hear(),
            6 => self.feed(Input::Warmed),
            7 | 8 => self.run_task(),
            9 if self.locked => {
                let readiness = self.bytes.readiness();
                self.feed(Input::Opened(readiness));
            }
            10 if self.published => self.feed(Input::Served { committed_ns: 1, control: Ok(()) }),
            11 if self.session => {
                (self.session, self.supervisor_gone) = (false, true);
                self.feed(Input::SupervisorGone);
            }
            12 => {
                self.incumbent_alive = false;
                // Seen by a look before its death is told, perhaps.
                if !self.incumbent_dead_told && self.machine.terms().is_some() && self.bytes.yes() {
                    self.incumbent_dead_told = true;
                    self.feed(Input::IncumbentDied);
                }
            }
            13 if !self.armed.is_empty() => {
                let at = usize::from(self.bytes.byte()) % self.armed.len();
                let timer = self.armed.swap_remove(at);
                self.feed(Input::Timer(timer));
            }
            14 => drop(self.word.swap(Decision::Revoked)), // by O or S
            15 => match self.bytes.byte() % 8 {
                7 => self.feed(Input::Stop),
                6 => {
                    let why = self.bytes.text();
                    self.feed(Input::TransferFailed(why));
                }
                5 => self.feed(Input::Received(Totals { connections: 1, blobs: 2, state_bytes: 3 })),
                _ => self.progress(),
            },
            _ => self.progress(),
        }
    }

    fn progress(&mut self) {
        let (done, total) = (self.bytes.number(), self.bytes.number());
        self.feed(Input::Progress(done, total));
    }
}

/// One run.
pub fn run(bytes: &[u8]) {
    let mut world = World {
        bytes: Bytes::new(bytes),
        machine: Successor::new(),
        word: Word::default(),
        tasks: VecDeque::new(),
        armed: Vec::new(),
        session: true,
        supervisor_gone: false,
        incumbent_alive: true,
        incumbent_dead_told: false,
        begun: false,
        told_to_commit: false,
        locked: false,
        won: false,
        published: false,
        abandoned: false,
    };
    let hello = world.bytes.hello(Side::Successor, 1);
    world.feed(Input::Start(hello));
    let choice = world.bytes.byte();
    world.begin_well(choice % 8, if choice & 64 == 0 { Mode::Exclusive } else { Mode::Overlap });
    for _ in 0..STEPS_MAX {
        if world.bytes.is_empty() {
            return;
        }
        world.happen();
    }
}

//! O's machine under a supervisor, a successor and an application that do anything.

use crate::bytes::{ACTIONS_MAX, Bytes, STEPS_MAX, Word};
use crate::protocol::incumbent::{Action, Hook, Incumbent, Input, Phase, Timer};
use crate::protocol::message::{Message, Mode, PrepareHandoff, Readiness, SealRequest, Side};
use crate::protocol::{Decide, Decision, HandoffId};
use std::collections::VecDeque;

struct World<'a> {
    bytes: Bytes<'a>,
    machine: Incumbent,
    word: Word,
    armed: Vec<Timer>,
    session: bool,
    /// The hook that runs, if its answer is still wanted.
    hook: Option<Hook>,
    /// The lock is asked for.
    wants_lock: bool,
    locked: bool,
    sealed: bool,
    successor_alive: bool,
    successor_dead_told: bool,
    /// O has seen it dead by a look.
    successor_seen_dead: bool,
    /// What O was told of the word in this handoff.
    told: Option<Decision>,
    ended: bool,
}

impl World<'_> {
    fn feed(&mut self, input: Input) {
        let mut actions: VecDeque<Action> = self.step(input).into();
        while let Some(action) = actions.pop_front() {
            if let Some(answer) = self.act(action) {
                actions.extend(self.step(answer));
            }
        }
        let phase = self.machine.phase();
        let quiet = matches!(phase, Phase::Starting | Phase::Serving | Phase::Replaced | Phase::Lost);
        assert!(!quiet || self.armed.is_empty(), "{phase:?} with {:?}", self.armed);
        assert_eq!(self.machine.handoff().is_none(), matches!(phase, Phase::Starting | Phase::Serving));
        assert!(phase != Phase::Serving || self.locked, "it serves without the lock");
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let actions = self.machine.step(input);
        assert!(actions.len() <= ACTIONS_MAX, "{actions:?}");
        if self.ended {
            let harmless = |action: &Action| matches!(action, Action::Send(_) | Action::EndSession(_));
            assert!(actions.iter().all(harmless), "{actions:?}");
        }
        actions
    }

    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Send(message) => self.check_sent(&message),
            Action::Arm(timer) => {
                self.armed.retain(|armed| *armed != timer);
                self.armed.push(timer);
            }
            Action::Disarm(timer) => self.armed.retain(|armed| *armed != timer),
            Action::Run(hook) => {
                let may = match hook {
                    Hook::Drain | Hook::Seal => self.locked && !self.sealed,
                    Hook::Resume { after_commit } => {
                        let committed = self.told.is_some_and(Decision::is_committed);
                        self.locked && self.may_resume() && after_commit == committed
                    }
                    Hook::Leave => self.told.is_some_and(Decision::is_committed),
                };
                assert!(may, "{hook:?} may not run now: {:?} {:?}", self.told, self.word);
                self.hook = Some(hook);
            }
            Action::Cancel => self.hook = None,
            Action::Park => {
                assert!(self.told.is_some_and(Decision::is_committed), "a reserve of nobody");
            }
            Action::SendGate if self.bytes.byte() % 8 == 7 => return Some(Input::GateFailed("it is gone".into())),
            Action::SendGate => return Some(Input::GateSent),
            Action::ReleaseLock => {
                assert!(self.sealed && self.locked);
                if self.bytes.byte() % 8 == 7 {
                    return Some(Input::UnlockFailed("the transfer socket is closed".into()));
                }
                self.locked = false;
                // While it was released, S may have been lost: told only when the answer is known.
                return Some(Input::Unlocked(self.bytes.fingerprint()));
            }
            Action::TakeLock => {
                assert!(!self.locked && self.may_resume(), "the lock before the word and the death");
                self.wants_lock = true;
            }
            Action::Look => {
                self.successor_seen_dead |= !self.successor_alive;
                return Some(Input::SuccessorSeen { alive: self.successor_alive });
            }
            Action::Decide(Decide::Revoke) => {
                let value = self.word.swap(Decision::Revoked);
                self.told = Some(value);
                return Some(Input::Decided(value));
            }
            Action::Decide(Decide::Commit { .. }) => panic!("O commits"),
            Action::KillSuccessor => {
                assert_eq!(self.told, Some(Decision::Revoked), "it kills a successor that may have won");
                self.successor_alive = false; // it is told later
            }
            Action::Retire => {
                let parked = self.machine.phase() == Phase::Parked;
                assert!(!parked, "it retires, and stays as a reserve");
                let superseded = self.told.is_some_and(Decision::is_committed) && self.successor_alive;
                assert!(superseded, "it retires, but nobody serves in its place");
            }
            Action::Release => {}
            Action::Exit(reason) => {
                assert!(!self.ended && (reason.is_some() || self.told.is_some_and(Decision::is_committed)));
                self.ended = true;
            }
            Action::EndSession(_) => self.session = false,
        }
        None
    }

    /// The word was revoked, or N committed in the old format; and N is dead.
    fn may_resume(&self) -> bool {
        let known_dead = self.successor_dead_told || self.successor_seen_dead;
        matches!(self.told, Some(Decision::Revoked | Decision::Committed)) && known_dead
    }

    fn check_sent(&self, message: &Message) {
        match message {
            Message::SealComplete(_) => assert!(!self.locked),
            Message::SealFailed(_) => assert!(self.locked),
            Message::Resumed(resumed) if resumed.error.is_none() => assert!(self.locked),
            _ => {}
        }
    }

    fn hear(&mut self) {
        if !self.session {
            return;
        }
        let current = self.machine.handoff().unwrap_or(HandoffId(100 + u64::from(self.bytes.byte())));
        let message = self.bytes.message(current);
        if matches!(message, Message::PrepareHandoff(_)) && self.machine.phase() == Phase::Serving {
            if self.bytes.byte() % 8 == 7 {
                return self.feed(Input::Unable(message.id(), "no page".into()));
            }
            self.offered();
        }
        self.feed(Input::Message(message));
    }

    fn answer_hook(&mut self) {
        let Some(hook) = self.hook.take() else { return };
        match (self.bytes.byte() % 8, hook) {
            (7, _) => self.feed(Input::HookFailed("no space left".into())),
            (6, _) => {
                self.hook = Some(hook);
                let (done, total) = (self.bytes.number(), self.bytes.number());
                self.feed(Input::Progress(done, total));
            }
            (_, Hook::Drain | Hook::Leave) => self.feed(Input::Drained { connections_open: 1, accept_stopped_ns: 1 }),
            (_, Hook::Seal) => {
                self.sealed = true;
                let revisions = self.bytes.revisions();
                self.feed(Input::Sealed(revisions));
            }
            (_, Hook::Resume { .. }) => self.feed(Input::Resumed),
        }
    }

    fn answer_lock(&mut self) {
        if !std::mem::take(&mut self.wants_lock) {
            return;
        }
        if self.bytes.byte() % 4 == 3 {
            return self.feed(Input::LockRefused("a child has it".into()));
        }
        self.locked = true;
        self.feed(Input::Locked);
    }

    /// Honest steps, as many as are wanted, so that lies come at each of them.
    fn begin_well(&mut self, steps: u8, park_ns: u64) {
        let id = HandoffId(200);
        for step in 0..steps {
            match step {
                0 => self.prepare(Mode::Exclusive, park_ns),
                1 => {
                    self.hook = None;
                    self.feed(Input::Drained { connections_open: 0, accept_stopped_ns: 1 });
                }
                2 => self.feed(Input::Message(Message::SealRequest(SealRequest { id }))),
                3 => {
                    (self.hook, self.sealed) = (None, true);
                    self.feed(Input::Sealed(vec![1]));
                }
                _ => drop(self.word.swap(Decision::Committed)),
            }
        }
    }

    /// The same in overlap mode, to the end of the drain in which it gives its connections.
    fn begin_beside(&mut self, steps: u8) {
        for step in 0..steps {
            match step {
                0 => self.prepare(Mode::Overlap, 0),
                1 => drop(self.word.swap(Decision::Committed)),
                2 => self.feed(Input::SuccessorServing),
                3 => {
                    self.hook = None;
                    self.feed(Input::Drained { connections_open: 0, accept_stopped_ns: 1 });
                }
                _ => {}
            }
        }
    }

    fn prepare(&mut self, mode: Mode, park_ns: u64) {
        let (id, deadline_ns, drain_grace_ns) = (HandoffId(200), 1, 1);
        let prepare = PrepareHandoff { id, mode, deadline_ns, drain_grace_ns, park_ns, transfer: None };
        self.offered();
        self.feed(Input::Message(Message::PrepareHandoff(prepare)));
    }

    /// A page and a successor have come.
    fn offered(&mut self) {
        (self.word, self.told, self.sealed) = (Word::default(), None, false);
        (self.successor_alive, self.successor_dead_told, self.successor_seen_dead) = (true, false, false);
    }

    fn happen(&mut self) {
        let in_handoff = self.machine.handoff().is_some();
        match self.bytes.byte() % 16 {
            0..=4 => self.hear(),
            5 | 6 => self.answer_hook(),
            7 => self.answer_lock(),
            8 if self.session => {
                self.session = false;
                self.feed(Input::SupervisorGone);
            }
            8 if self.bytes.yes() => {
                self.session = true;
                let Message::AdoptAck(ack) = self.bytes.adopt_ack(HandoffId(0)) else { return };
                self.feed(Input::Adopted(ack));
            }
            9 if in_handoff => self.feed(Input::SuccessorServing),
            10 => drop(self.word.swap(Decision::Committed)),
            11 => drop(self.word.swap(Decision::CommittedIncompatible)),
            12 => drop(self.word.swap(Decision::Revoked)), // by S or N
            13 => {
                self.successor_alive = false;
                if in_handoff && !self.successor_dead_told && self.bytes.yes() {
                    self.successor_dead_told = true;
                    self.feed(Input::SuccessorDied);
                }
            }
            14 if !self.armed.is_empty() => {
                let at = usize::from(self.bytes.byte()) % self.armed.len();
                let timer = self.armed.swap_remove(at);
                self.feed(Input::Timer(timer));
            }
            15 if self.bytes.byte() % 8 == 7 => self.feed(Input::Stop),
            _ => {}
        }
    }
}

/// One run.
pub fn run(bytes: &[u8]) {
    let mut world = World {
        bytes: Bytes::new(bytes),
        machine: Incumbent::cold(),
        word: Word::default(),
        armed: Vec::new(),
        session: true,
        hook: None,
        wants_lock: false,
        locked: true,
        sealed: false,
        successor_alive: false,
        successor_dead_told: true,
        successor_seen_dead: false,
        told: None,
        ended: false,
    };
    if world.bytes.yes() {
        world.machine = Incumbent::committed(2, HandoffId(90));
    } else {
        let hello = world.bytes.hello(Side::Incumbent, 1);
        world.feed(Input::Start(hello));
        world.feed(Input::Ready(Readiness::default()));
        world.feed(Input::Served { now_ns: 1, control: Ok(()) });
    }
    let choice = world.bytes.byte();
    match choice & 64 == 0 {
        true => world.begin_well(choice % 6, u64::from(choice & 128 != 0)),
        false => world.begin_beside(choice % 6),
    }
    for _ in 0..STEPS_MAX {
        if world.bytes.is_empty() {
            return;
        }
        world.happen();
    }
}

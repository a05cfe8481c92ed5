//! S's machine under two daemons and a caller that do anything.

use crate::bytes::{ACTIONS_MAX, Bytes, STEPS_MAX, Word};
use crate::protocol::message::{
    Announced, Drained, Fingerprint, Hello, Message, Mode, Readiness, Ready, SealComplete, Serving, Side, Terms,
    Warmed, capability,
};
use crate::protocol::supervisor::{
    Action, Input, OnIncumbentDeath, Past, PastHandoff, Peer, Phase, Plan, Sender, Supervisor, Timer, Verdict,
};
use crate::protocol::transfer::Totals;
use crate::protocol::{Decide, Decision, HandoffId};
use std::collections::VecDeque;

/// A process, until its death is told.
struct Process {
    session: bool,
}

struct World<'a> {
    bytes: Bytes<'a>,
    machine: Supervisor,
    armed: Vec<Timer>,
    incumbent: Option<Process>,
    successor: Option<Process>,
    parked: Option<Process>,
    /// The caller has condemned N in its probation.
    condemned: bool,
    /// How long O parks.
    park_ns: u64,
    /// The page, while there is one.
    page: Option<Word>,
    /// What S was told in the handoff that is under way, or was the last.
    told: Option<Decision>,
    last_word: Word,
    prepared: bool,
    serving: bool,
    resumed: bool,
    unable_to_resume: bool,
    reports: usize,
    asked: bool,
    /// S is to connect to the incumbent's control path.
    seeking: bool,
}

impl World<'_> {
    fn feed(&mut self, input: Input) {
        let mut actions: VecDeque<Action> = self.step(input).into();
        let mut rounds = 0;
        while let Some(action) = actions.pop_front() {
            if let Some(answer) = self.act(action) {
                assert!(actions.is_empty(), "an answer overtakes {actions:?}");
                actions.extend(self.step(answer));
                rounds += 1;
                assert!(rounds < 8, "it asks without end");
            }
        }
        if self.machine.phase() == Phase::Idle {
            let foreign = |timer: &Timer| *timer != Timer::Lost(Peer::Incumbent);
            assert!(!self.armed.iter().any(foreign), "idle with {:?}", self.armed);
            assert!(self.machine.handoff().is_none() && self.page.is_none() && self.successor.is_none());
            assert!(self.parked.is_none(), "idle with a parked process");
            assert!(!self.asked || self.reports > 0, "idle without an outcome");
        }
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let actions = self.machine.step(input);
        assert!(actions.len() <= ACTIONS_MAX, "{actions:?}");
        actions
    }

    fn word(&self) -> Word {
        self.page.unwrap_or(self.last_word)
    }

    fn peer(&mut self, peer: Peer) -> &mut Option<Process> {
        match peer {
            Peer::Incumbent => &mut self.incumbent,
            Peer::Successor => &mut self.successor,
            Peer::Parked => &mut self.parked,
        }
    }

    fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::SpawnCold => {
                assert!(self.incumbent.is_none() && self.successor.is_none(), "a third process");
                if self.bytes.byte() % 8 == 7 {
                    return Some(Input::ColdSpawnFailed("no such file".into()));
                }
                self.incumbent = Some(Process { session: true });
            }
            Action::SpawnSuccessor => {
                assert!(self.successor.is_none() && self.page.is_none());
                if self.bytes.byte() % 8 == 7 {
                    return Some(Input::SpawnFailed("no such file".into()));
                }
                self.page = Some(Word::default());
                self.successor = Some(Process { session: true });
                return Some(Input::Spawned);
            }
            Action::Send(peer, message) => self.check_sent(peer, &message),
            Action::Adopt => {
                assert!(self.incumbent.as_ref().is_some_and(|incumbent| !incumbent.session));
                self.seeking = true;
            }
            Action::OpenJournal | Action::CloseJournal => {}
            Action::Arm(timer) => {
                self.armed.retain(|armed| *armed != timer);
                self.armed.push(timer);
            }
            Action::Disarm(timer) => self.armed.retain(|armed| *armed != timer),
            Action::Decide(Decide::Revoke) => {
                let value = self.page.as_mut().expect("a page").swap(Decision::Revoked);
                self.told = Some(value);
                return Some(Input::Decided(value));
            }
            Action::Decide(Decide::Commit { .. }) => panic!("S commits"),
            Action::KillSuccessor => {
                assert_eq!(self.told, Some(Decision::Revoked), "it kills a successor that may have won");
            }
            Action::KillIncumbent => {
                let silent = self.told == Some(Decision::Revoked) || self.successor.is_none();
                assert!(self.unable_to_resume || silent || self.condemned, "it kills an incumbent that may serve");
            }
            Action::EvictIncumbent | Action::EvictParked => assert!(self.serving && self.word().is_committed()),
            Action::Park => {
                assert!(self.serving && self.word().is_committed() && self.successor.is_some());
                self.parked = self.incumbent.take();
                self.incumbent = self.successor.take();
            }
            Action::Unpark => {
                assert!(self.incumbent.is_none(), "O goes on beside N");
                self.incumbent = self.parked.take();
            }
            Action::Dismiss => self.parked = None,
            Action::Promote => self.incumbent = self.successor.take(),
            Action::Report(verdict, _) => self.check_report(verdict),
            Action::Release => {
                self.last_word = self.word();
                self.page = None;
            }
            Action::EndSession(peer, _) => {
                if let Some(process) = self.peer(peer) {
                    process.session = false;
                }
            }
        }
        None
    }

    fn check_sent(&mut self, peer: Peer, message: &Message) {
        match message {
            Message::PrepareHandoff(_) => {
                assert!(peer == Peer::Incumbent && self.page.is_some() && !self.prepared);
                self.prepared = true;
            }
            Message::ResumeAfterAbort(_) => {
                let reverted = self.word().is_committed() && self.successor.is_none();
                assert!(self.told == Some(Decision::Revoked) || reverted, "it resumes O beside N");
            }
            Message::EndProbation(_) => assert!(peer == Peer::Parked && self.serving && !self.condemned),
            Message::Commit(_) => assert!(self.serving && self.word().is_committed()),
            Message::Abort(_) => assert_eq!(self.told, Some(Decision::Revoked)),
            _ => {}
        }
    }

    fn check_report(&mut self, verdict: Verdict) {
        self.reports += 1;
        let committed = self.word().is_committed();
        let honest = match verdict {
            Verdict::Committed => self.serving && committed,
            Verdict::RolledBack => (self.resumed || !self.prepared) && !committed && self.successor.is_none(),
            Verdict::Reverted => self.resumed && committed && self.successor.is_none(),
            Verdict::StartedCold | Verdict::Refused | Verdict::Undecided | Verdict::Failed => true,
        };
        assert!(honest, "{verdict:?} is not true");
    }

    fn start(&mut self) {
        let id = match self.bytes.byte() {
            255 => self.machine.handoff().unwrap_or_default(),
            _ => HandoffId(self.machine.handoff().map_or(self.newest(), |id| id.0).saturating_add(1)),
        };
        let terms = Terms { id, ..self.bytes.terms(id) };
        let choice = self.bytes.yes();
        let on_incumbent_death = if choice { OnIncumbentDeath::Promote } else { OnIncumbentDeath::StartCold };
        let plan = Plan { terms, drain_grace_ns: self.bytes.number(), on_incumbent_death };
        if self.machine.phase() != Phase::Idle {
            let before = self.machine.clone();
            let actions = self.machine.step(Input::StartHandoff(plan));
            assert!(matches!(&actions[..], [Action::Report(Verdict::Refused, _)]) && self.machine == before);
            return;
        }
        self.forget();
        // Without a process the driver starts one.
        self.feed(if self.incumbent.is_some() { Input::StartHandoff(plan) } else { Input::StartCold });
    }

    fn newest(&self) -> u64 {
        self.reports as u64 * 8 + 100
    }

    fn forget(&mut self) {
        self.asked = true;
        (self.told, self.last_word, self.condemned) = (None, Word::default(), false);
        (self.prepared, self.serving, self.resumed, self.unable_to_resume) = (false, false, false, false);
    }

    fn hear(&mut self, peer: Peer) {
        if self.peer(peer).as_ref().is_none_or(|process| !process.session) {
            return;
        }
        if self.bytes.byte().is_multiple_of(8) {
            let (side, pid) = if peer == Peer::Successor { (Side::Successor, 7) } else { (Side::Incumbent, 6) };
            let hello = self.bytes.hello(side, pid);
            let mut sender = Sender { pid, uid: 1000, spawned_pid: pid, time_namespace: 0 };
            match self.bytes.byte() {
                255 => sender.pid = 0,
                254 => sender.uid = 65534,
                253 => sender.time_namespace = 4,
                _ => {}
            }
            return self.feed(Input::Hello(peer, hello, sender));
        }
        let current = self.machine.handoff();
        let message = self.bytes.message(current.unwrap_or_default());
        let named = Some(message.id()) == current;
        match (&message, peer) {
            (Message::Serving(_), Peer::Successor) if !self.word().is_committed() => {
                return self.garbage(peer); // as the driver does
            }
            (Message::Serving(_), Peer::Successor) => self.serving |= named,
            (Message::Resumed(m), Peer::Incumbent | Peer::Parked) if named => {
                self.resumed |= m.error.is_none();
                self.unable_to_resume |= m.error.is_some();
            }
            _ => {}
        }
        self.feed(Input::Message(peer, message));
    }

    fn garbage(&mut self, peer: Peer) {
        if let Some(process) = self.peer(peer).as_mut().filter(|process| process.session) {
            process.session = false;
            let what = self.bytes.text();
            self.feed(Input::Garbage(peer, what));
        }
    }

    fn gone(&mut self, peer: Peer) {
        if let Some(process) = self.peer(peer).as_mut().filter(|process| process.session) {
            process.session = false;
            self.feed(Input::Gone(peer));
        }
    }

    fn die(&mut self, peer: Peer) {
        if self.peer(peer).take().is_some() {
            let status = self.bytes.text();
            self.feed(Input::Died(peer, status));
        }
    }

    /// Honest steps, as many as are wanted, so that lies come at each of them.
    fn begin_well(&mut self, steps: u8, capabilities: u32) {
        let id = HandoffId(100);
        let hello = |side, pid| Hello { capabilities, ..Bytes::new(&[]).hello(side, pid) };
        let sender = |pid| Sender { pid, uid: 1000, spawned_pid: pid, time_namespace: 0 };
        let fingerprint = Fingerprint { directory: (1, 2), lock: (1, 3) };
        let sealed = SealComplete { id, revisions: vec![1], fingerprint };
        let readiness = Readiness { revisions: vec![1], ..Readiness::default() };
        let serving = |id| Message::Serving(Serving { id, committed_ns: 1, control: Ok(()) });
        let terms = Terms { id, mode: Mode::Exclusive, deadline_ns: 1, park_ns: self.park_ns, open_descriptors: 0 };
        for step in 0..steps {
            match step {
                0 => {
                    self.forget();
                    self.feed(Input::StartCold);
                    if self.incumbent.is_none() {
                        return;
                    }
                    self.feed(Input::Hello(Peer::Incumbent, hello(Side::Incumbent, 6), sender(6)));
                    self.feed(Input::Message(Peer::Incumbent, serving(HandoffId::COLD)));
                }
                1 => {
                    self.forget();
                    let on_incumbent_death =
                        if self.bytes.yes() { OnIncumbentDeath::Promote } else { OnIncumbentDeath::StartCold };
                    self.feed(Input::StartHandoff(Plan { terms, drain_grace_ns: 1, on_incumbent_death }));
                    if self.successor.is_none() {
                        return;
                    }
                    self.feed(Input::Hello(Peer::Successor, hello(Side::Successor, 7), sender(7)));
                }
                2 => self.feed(Input::Message(Peer::Successor, Message::Warmed(Warmed { id }))),
                3 if capabilities == capability::OVERLAP => {
                    self.feed(Input::Message(Peer::Incumbent, Message::Announced(Announced { id })));
                }
                3 => {
                    let drained = Drained { id, connections_open: 0, accept_stopped_ns: 1 };
                    self.feed(Input::Message(Peer::Incumbent, Message::Drained(drained)));
                }
                4 if capabilities == capability::OVERLAP => {}
                4 => self.feed(Input::Message(Peer::Incumbent, Message::SealComplete(sealed.clone()))),
                5 => {
                    let ready = Ready { id, readiness: readiness.clone(), taken: Totals::default() };
                    self.feed(Input::Message(Peer::Successor, Message::Ready(ready)));
                }
                6 => drop(self.page.as_mut().map(|page| page.swap(Decision::Committed))),
                _ => {
                    self.serving = true;
                    self.feed(Input::Message(Peer::Successor, serving(id)));
                }
            }
        }
    }

    /// Goes on where another supervisor stopped.
    fn resume(&mut self) {
        let incumbent_lives = self.bytes.yes();
        self.incumbent = incumbent_lives.then_some(Process { session: false });
        let successor_lives = self.bytes.yes();
        let open = self.bytes.yes();
        if open {
            self.find_handoff(successor_lives);
        }
        let park_ns = self.park_ns;
        let handoff = open.then_some(PastHandoff { id: HandoffId(100), successor_lives, park_ns });
        self.asked = open;
        self.feed(Input::Resume(Past { generation: u64::from(incumbent_lives), incumbent_lives, handoff }));
    }

    /// A handoff that another supervisor has begun, however far it came.
    fn find_handoff(&mut self, successor_lives: bool) {
        self.forget();
        let words = [Decision::Open, Decision::Committed, Decision::Revoked, Decision::CommittedIncompatible];
        let mut page = Word::default();
        page.swap(words[usize::from(self.bytes.byte() % 4)]);
        self.page = Some(page);
        self.successor = successor_lives.then_some(Process { session: false });
        self.prepared = true;
    }

    fn happen(&mut self) {
        let choice = self.bytes.byte();
        let peer = match (choice & 128 == 0, self.parked.is_some()) {
            (true, false) => Peer::Successor,
            (true, true) => Peer::Parked,
            (false, _) => Peer::Incumbent,
        };
        match choice % 16 {
            0..=6 => self.hear(peer),
            7 => self.start(),
            8 => self.die(peer),
            9 => self.gone(peer),
            10 if self.bytes.yes() => self.garbage(peer),
            11 if matches!(self.machine.phase(), Phase::Retiring | Phase::Confirming) => self.feed(Input::Retired),
            // The page says that O drains.
            11 if self.machine.phase() == Phase::Reverting && self.machine.overlaps() => self.feed(Input::Retired),
            11 if self.machine.phase() == Phase::Probation => match self.bytes.yes() {
                true => self.feed(Input::EndProbation),
                false => {
                    self.condemned = true;
                    self.feed(Input::Condemn("no good".into()));
                }
            },
            // The driver looks at the page when N's session has ended.
            11 if self.machine.phase() == Phase::AwaitServing
                && self.word().is_committed()
                && self.successor.as_ref().is_none_or(|successor| !successor.session) =>
            {
                self.serving = true;
                self.feed(Input::PageServing);
            }
            12 => {
                let to = [Decision::Committed, Decision::Revoked, Decision::CommittedIncompatible];
                let to = to[usize::from(self.bytes.byte() % 3)];
                if let Some(page) = &mut self.page {
                    page.swap(to);
                }
            }
            13 | 14 if !self.armed.is_empty() => {
                let at = usize::from(self.bytes.byte()) % self.armed.len();
                let timer = self.armed.swap_remove(at);
                self.feed(Input::Timer(timer));
            }
            15 if self.seeking && self.bytes.yes() => {
                // The control path leads to it.
                self.seeking = false;
                let seeks = self.machine.seeks();
                self.incumbent.iter_mut().for_each(|incumbent| incumbent.session |= seeks);
            }
            15 if self.bytes.byte() % 4 == 3 => {
                let reason = self.bytes.text();
                self.feed(Input::Cancel(reason));
            }
            _ => {}
        }
    }
}

/// One run.
pub fn run(bytes: &[u8]) {
    let mut world = World {
        bytes: Bytes::new(bytes),
        machine: Supervisor::new(),
        armed: Vec::new(),
        incumbent: None,
        successor: None,
        parked: None,
        condemned: false,
        park_ns: 0,
        page: None,
        told: None,
        last_word: Word::default(),
        prepared: false,
        serving: false,
        resumed: false,
        unable_to_resume: false,
        reports: 0,
        asked: false,
        seeking: false,
    };
    let choice = world.bytes.byte();
    world.park_ns = u64::from(choice & 128 != 0);
    match choice % 16 {
        stage @ 0..=8 if choice & 64 == 0 => world.begin_well(stage, capability::EXCLUSIVE),
        stage @ 0..=8 => world.begin_well(stage, capability::OVERLAP),
        _ => world.resume(),
    }
    for _ in 0..STEPS_MAX {
        if world.bytes.is_empty() {
            return;
        }
        world.happen();
    }
}

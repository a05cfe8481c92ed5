//! The transfer of connections: the shipped `Giver` and `Taker`, and every order of the steps of O, N and their sockets, with a
//! death of either, a deadline, and an N that leaves, at each of them.
//!
//! A process that is stopped is one whose steps come late: every order is explored, so that is in it. Which descriptor is whose is
//! all that is abstract here: a number stands for the description, and a message carries numbers.

use handoff::protocol::message::Message;
use handoff::protocol::transfer::{Connection, Giver, Identity, Taker, Totals};
use handoff::protocol::{HandoffId, message::Gate};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

mod search;

const ID: HandoffId = HandoffId(7);
/// Messages that a socket has room for: fewer than the window, so that it may be full.
const ROOM: usize = 3;

/// A rule that is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mutant {
    /// T1: O uses its own again although the word says committed.
    UsesAfterCommit,
    /// N's application sees a connection before N has won the word.
    ShowsBeforeCommit,
    /// N's application sees a connection before O is told that N has it.
    ShowsUnacknowledged,
    /// O judges by N's death with N's last words unread.
    DeathBeforeQueue,
    /// O uses what N has not acknowledged, once N is dead, and N shows before it acknowledges.
    UsesUnacknowledged,
    /// O's done does not wait.
    DoneAtOnce,
    /// What was put waits for its batch also in overlap mode.
    BatchesWait,
    /// N leaves with what has come and was not taken.
    LeavesAtOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    Open,
    Committed,
    Revoked,
}

/// Where O's application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Giving,
    /// Inside of done or sealed.
    Finishing,
    /// Exclusive mode: Gate is sent.
    Sealed,
    /// The word is revoked or found committed with N dead: it goes on.
    Resumed,
    /// Overlap mode: done has returned, with so many lost.
    Done(u64),
    /// Exclusive mode: N serves, and O has closed its own.
    Replaced,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Incumbent {
    alive: bool,
    phase: Phase,
    giver: Giver,
    put: usize,
    /// Duplicates of the batch that is being filled.
    pending: Vec<usize>,
    /// A put was refused: nobody receives any more.
    refused: bool,
    /// N's end of the socket is gone, and what it said is read.
    closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Successor {
    alive: bool,
    taker: Taker,
    /// Batches that came and are not acknowledged, then what the application may see.
    owed: VecDeque<(Message, Vec<usize>)>,
    waiting: VecDeque<usize>,
    sent: Option<Totals>,
    /// It takes nothing new, since it will exit.
    leaving: bool,
}

/// What happened to a connection, whoever has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Fate {
    given: bool,
    sent: bool,
    acknowledged: bool,
    /// Read by N's application; by O's after it had been given.
    used_by_n: bool,
    used_by_o: bool,
    lost_by_o: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    overlap: bool,
    mutant: Option<Mutant>,
    word: Word,
    o: Incumbent,
    n: Successor,
    to_n: VecDeque<(Message, Vec<usize>)>,
    to_o: VecDeque<Message>,
    fates: Vec<Fate>,
    /// Faults that may still happen: O dies, N dies, a deadline, N leaves.
    faults: [bool; 4],
    broken: Option<&'static str>,
}

macro_rules! events {
    ($($event:ident),*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Event {
            $($event),*
        }

        const EVENTS: &[Event] = &[$(Event::$event),*];
    };
}

events!(
    Put,
    Send,
    HearTaken,
    SeeDeath,
    CallDone,
    Finish,
    Fence,
    LearnServing,
    Receive,
    Acknowledge,
    Commit,
    Show,
    Exit,
    KillO,
    KillN,
    Deadline,
    Leave
);

impl Event {
    fn fault(self) -> Option<usize> {
        [Self::KillO, Self::KillN, Self::Deadline, Self::Leave].iter().position(|fault| *fault == self)
    }
}

impl World {
    fn new(overlap: bool, mutant: Option<Mutant>, connections: usize) -> Self {
        let word = if overlap { Word::Committed } else { Word::Open };
        let giver = Giver::new(ID);
        let o = Incumbent {
            alive: true,
            phase: Phase::Giving,
            giver,
            put: 0,
            pending: Vec::new(),
            refused: false,
            closed: false,
        };
        let (owed, waiting) = (VecDeque::new(), VecDeque::new());
        let n = Successor { alive: true, taker: Taker::default(), owed, waiting, sent: None, leaving: false };
        let (to_n, to_o) = (VecDeque::new(), VecDeque::new());
        let fates = vec![Fate::default(); connections];
        Self { overlap, mutant, word, o, n, to_n, to_o, fates, faults: [true; 4], broken: None }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// N's end of the socket is gone, or takes nothing.
    fn is_deaf(&self) -> bool {
        !self.n.alive || self.n.leaving
    }

    fn is_enabled(&self, event: Event) -> bool {
        let (o, n) = (&self.o, &self.n);
        let gives = matches!(o.phase, Phase::Giving | Phase::Finishing);
        let shows_early = self.is(Mutant::ShowsBeforeCommit);
        if let Some(fault) = event.fault() {
            let possible = match event {
                Event::KillO => o.alive,
                Event::KillN => n.alive,
                Event::Deadline => o.alive && (gives || o.phase == Phase::Sealed),
                _ => n.alive && self.overlap,
            };
            return self.faults[fault] && possible;
        }
        match event {
            Event::Put => {
                let waits = self.overlap && !self.is(Mutant::BatchesWait) && !self.may_send();
                o.alive && o.phase == Phase::Giving && o.put < self.fates.len() && !o.closed && !o.refused && !waits
            }
            Event::Send => o.alive && gives && !o.closed && !o.pending.is_empty() && self.may_send(),
            Event::HearTaken => o.alive && !o.closed && !self.to_o.is_empty(),
            Event::SeeDeath => {
                o.alive && !o.closed && !n.alive && (self.to_o.is_empty() || self.is(Mutant::DeathBeforeQueue))
            }
            Event::CallDone => o.alive && o.phase == Phase::Giving,
            Event::Finish => o.alive && o.phase == Phase::Finishing && self.may_finish(),
            Event::Fence => o.alive && !self.overlap && o.closed && (gives || o.phase == Phase::Sealed),
            Event::LearnServing => {
                o.alive && !self.overlap && self.word == Word::Committed && n.alive && o.phase == Phase::Sealed
            }
            Event::Receive => n.alive && !self.to_n.is_empty(),
            Event::Acknowledge => n.alive && !n.owed.is_empty(),
            // What O gave before it died counts only if it had said that this was all.
            Event::Commit => {
                n.alive
                    && self.word == Word::Open
                    && n.owed.is_empty()
                    && (n.sent.is_some() || !o.alive && self.to_n.is_empty())
            }
            Event::Show => n.alive && !n.waiting.is_empty() && (self.word == Word::Committed || shows_early),
            Event::Exit => {
                n.alive
                    && n.leaving
                    && (self.is(Mutant::LeavesAtOnce)
                        || self.to_n.is_empty() && n.owed.is_empty() && n.waiting.is_empty())
            }
            _ => false,
        }
    }

    fn may_send(&self) -> bool {
        self.o.giver.may_send() && (self.to_n.len() < ROOM || self.is_deaf())
    }

    fn may_finish(&self) -> bool {
        self.o.giver.is_done() || self.overlap && (self.o.closed || self.is(Mutant::DoneAtOnce))
    }

    fn happen(&mut self, event: Event) {
        if let Some(fault) = event.fault() {
            self.faults[fault] = false;
        }
        match event {
            Event::Put => self.put(),
            Event::Send => drop(self.send()),
            Event::HearTaken => self.hear_taken(),
            Event::SeeDeath => self.close(),
            Event::CallDone => self.o.phase = Phase::Finishing,
            Event::Finish => self.finish(),
            Event::Fence => self.fence(),
            Event::LearnServing => self.o.phase = Phase::Replaced,
            Event::Receive => self.receive(),
            Event::Acknowledge => self.acknowledge(),
            Event::Commit => self.commit(),
            Event::Show => {
                let shown = self.n.waiting.pop_front().expect("it is enabled");
                self.use_by_n(shown);
            }
            Event::Exit | Event::KillN => self.end_n(),
            Event::KillO => self.end_o(),
            Event::Deadline if self.overlap => self.end_o(), // it exits
            Event::Deadline => self.fence(),
            Event::Leave => self.n.leaving = true,
        }
    }

    // ---- O

    fn put(&mut self) {
        let number = self.o.put;
        let connection = Connection { file: (0, number as u64), name: b"n".to_vec(), state: Vec::new() };
        self.o.giver.add(Identity::Number(number as i32), connection);
        self.o.pending.push(number);
        let prompt = self.overlap && (!self.is(Mutant::BatchesWait) || self.o.giver.on_the_way() == 0);
        if prompt && self.may_send() && !self.send() {
            self.o.pending.retain(|pending| *pending != number);
            self.o.giver.withdraw(Identity::Number(number as i32));
            self.o.refused = true; // but N, if it lives, still says what it has
            return;
        }
        self.o.put += 1;
        self.fates[number].given = true;
    }

    /// False if nobody receives any more.
    fn send(&mut self) -> bool {
        if self.o.pending.is_empty() {
            return true;
        }
        let message = self.o.giver.batch();
        if self.is_deaf() {
            self.o.giver.unsent(message);
            return false;
        }
        self.o.giver.sent(message.clone());
        let numbers = std::mem::take(&mut self.o.pending);
        numbers.iter().for_each(|number| self.fates[*number].sent = true);
        self.to_n.push_back((message, numbers));
        true
    }

    fn hear_taken(&mut self) {
        if let Some(Message::Taken(taken)) = self.to_o.pop_front()
            && self.o.giver.taken(taken.batch).is_err()
        {
            self.broken = Some("an honest answer is refused");
        }
        if self.is(Mutant::BatchesWait) && self.may_send() {
            self.send();
        }
    }

    /// The transfer is over for O: it reads what is there, and closes what waits.
    fn close(&mut self) {
        while !self.is(Mutant::DeathBeforeQueue) && !self.to_o.is_empty() {
            self.hear_taken();
        }
        self.o.closed = true;
        self.o.pending.clear();
    }

    fn finish(&mut self) {
        if !self.overlap {
            let sent = self.o.giver.totals();
            if !self.is_deaf() {
                self.to_n.push_back((Message::Gate(Gate { id: ID, sent }), Vec::new()));
            }
            self.o.phase = Phase::Sealed;
            return;
        }
        let lost = self.o.giver.untaken();
        self.o.phase = Phase::Done(lost);
        if lost == 0 && self.fates.iter().any(|fate| fate.given && !fate.acknowledged) {
            self.broken = Some("done says that N has everything, and it has not");
        }
        if lost == 0 && !self.o.closed && !self.o.giver.is_done() {
            self.broken = Some("done says that N has everything, and it has not");
        }
        // The last ones that were given are those that O takes for lost.
        let given = self.fates.iter().filter(|fate| fate.given).count();
        for fate in &mut self.fates[given - lost.min(given as u64) as usize..given] {
            fate.lost_by_o = true;
            if self.mutant == Some(Mutant::UsesUnacknowledged) {
                fate.used_by_o = true;
            }
        }
    }

    /// Exclusive mode: O wants back, or must know that it can not.
    fn fence(&mut self) {
        if self.word == Word::Open {
            self.word = Word::Revoked;
            self.end_n(); // it is killed
        }
        if self.word == Word::Committed && self.n.alive {
            self.o.phase = Phase::Replaced;
            return;
        }
        self.o.phase = Phase::Resumed;
        if self.word == Word::Revoked || self.is(Mutant::UsesAfterCommit) {
            self.fates.iter_mut().filter(|fate| fate.given).for_each(|fate| fate.used_by_o = true);
        }
    }

    fn end_o(&mut self) {
        self.o.alive = false;
        self.o.pending.clear();
        self.to_o.clear();
    }

    // ---- N

    fn receive(&mut self) {
        let (message, numbers) = self.to_n.pop_front().expect("it is enabled");
        match &message {
            Message::Gate(gate) => {
                self.n.sent = Some(gate.sent);
                if self.n.taker.check(gate.sent).is_err() {
                    self.broken = Some("N has not got what an honest O sent");
                }
            }
            Message::Connections(connections) => match self.n.taker.connections(connections) {
                Ok(answer) => {
                    if [Some(Mutant::ShowsUnacknowledged), Some(Mutant::UsesUnacknowledged)].contains(&self.mutant) {
                        numbers.iter().for_each(|number| self.use_by_n(*number));
                    }
                    self.n.owed.push_back((answer, numbers));
                }
                Err(_) => self.broken = Some("an honest batch is refused"),
            },
            _ => self.broken = Some("a message that is no part of it"),
        }
    }

    fn acknowledge(&mut self) {
        let (answer, numbers) = self.n.owed.pop_front().expect("it is enabled");
        if self.o.alive {
            self.to_o.push_back(answer);
        }
        for number in numbers {
            self.fates[number].acknowledged = true;
            if !self.fates[number].used_by_n {
                self.n.waiting.push_back(number);
            }
        }
    }

    fn commit(&mut self) {
        self.word = Word::Committed;
        if self.n.sent.is_none() {
            self.n.waiting.clear();
        }
    }

    fn use_by_n(&mut self, number: usize) {
        self.fates[number].used_by_n = true;
    }

    fn end_n(&mut self) {
        self.n.alive = false;
        self.to_n.clear();
        self.n.owed.clear();
        self.n.waiting.clear();
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    // ---- what must be

    fn judge(&self) -> Option<&'static str> {
        if self.fates.iter().any(|fate| fate.used_by_n && fate.used_by_o) {
            return Some("a connection is used by both");
        }
        if self.fates.iter().any(|fate| fate.used_by_n && fate.lost_by_o) {
            return Some("a connection is said to be lost, and was used");
        }
        self.broken
    }

    /// Nothing happens any more by itself.
    fn judge_end(&self) -> Option<&'static str> {
        let (o, n) = (&self.o, &self.n);
        if o.alive && matches!(o.phase, Phase::Giving | Phase::Finishing | Phase::Sealed) {
            return Some("O waits for ever");
        }
        if o.alive && !o.pending.is_empty() {
            return Some("a connection is open, and nobody serves it");
        }
        let killed = !n.alive && !n.leaving || n.leaving && !self.faults[1];
        for fate in self.fates.iter().filter(|fate| fate.given) {
            let with_o = !(o.alive || fate.sent && self.overlap);
            let back = o.phase == Phase::Resumed && (self.word == Word::Committed || fate.used_by_o);
            if !(fate.used_by_n || killed && self.word == Word::Committed || with_o || back) {
                return Some("a connection is lost, and its owner lives");
            }
        }
        None
    }
}

//! Every order of: ready, late, a cancel, the deaths of O and N, and the death of S between any two of its actions.

use super::*;
use std::collections::{HashSet, VecDeque};

/// A daemon as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Daemon {
    alive: bool,
    /// It crashed, could not become ready in time, or was given up while the other one served.
    failed: bool,
    told: bool,
    ready: bool,
}

/// The current process in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Books {
    Incumbent,
    Successor,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// None: S is dead, or the handoff is over.
    machine: Option<Unlinked>,
    supervised: bool,
    restarted: bool,
    /// Actions that S has not carried out yet.
    todo: VecDeque<Action>,
    o: Daemon,
    n: Daemon,
    books: Books,
    timer: bool,
    told: Vec<Verdict>,
    ending: bool,
    crashes: u8,
}

impl World {
    fn new(crashes: u8) -> Self {
        let o = Daemon { alive: true, failed: false, told: false, ready: true };
        Self {
            machine: Some(Unlinked::new()),
            supervised: true,
            restarted: false,
            todo: VecDeque::new(),
            o,
            n: Daemon { ready: false, ..o },
            books: Books::Incumbent,
            timer: true,
            told: Vec::new(),
            ending: false,
            crashes,
        }
    }

    fn daemon(&mut self, side: Side) -> &mut Daemon {
        match side {
            Side::Incumbent => &mut self.o,
            Side::Successor => &mut self.n,
        }
    }

    fn feed(mut self, input: Input) -> Self {
        if let Some(machine) = &mut self.machine {
            let actions = machine.step(input);
            self.plan(actions);
        }
        self
    }

    fn plan(&mut self, actions: Vec<Action>) {
        self.n.failed |= self.o.alive && actions.contains(&Action::Stop(Side::Successor));
        self.todo.extend(actions);
    }

    /// Carries out one action.
    fn act(mut self) -> Self {
        match self.todo.pop_front() {
            Some(Action::Disarm) => self.timer = false,
            Some(Action::Promote) => {
                assert!(self.n.alive || self.n.ready, "who never was ready is promoted dead: {self:?}");
                self.books = Books::Successor;
            }
            Some(Action::Stop(side)) => {
                // A restarted S can not know whether the one before has told an N that it gives up.
                let again = self.daemon(side).told && !(self.restarted && side == Side::Successor);
                assert!(!again, "{side:?} is told twice");
                self.daemon(side).told = true;
            }
            Some(Action::Report(verdict, _)) => {
                self.told.push(verdict);
                self.machine = None;
            }
            None => {}
        }
        self
    }

    /// The next S finds the journal and the living.
    fn restart(mut self) -> Self {
        (self.supervised, self.restarted) = (true, true);
        if self.books == Books::Incumbent && self.told.is_empty() {
            self.plan(Unlinked::resume(self.o.alive, self.n.alive));
        } else if self.books == Books::Successor && self.o.alive && !self.o.told {
            // It is in the journal as one that leaves: the driver gives it the grace, and tells it then.
            self.plan(vec![Action::Stop(Side::Incumbent)]);
        }
        self
    }

    /// What may happen next.
    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        let mut add = |world: Self| next.push(world);
        if self.crashes > 0 {
            let fewer = Self { crashes: self.crashes - 1, ..self.clone() };
            for side in [Side::Incumbent, Side::Successor] {
                let mut world = fewer.clone();
                if !world.daemon(side).alive {
                    continue;
                }
                let told = world.daemon(side).told;
                *world.daemon(side) = Daemon { alive: false, failed: true, told, ready: false };
                // S hears of it between two lists of actions.
                if world.todo.is_empty() {
                    add(world.clone().feed(Input::Died(side, "killed".into())));
                }
            }
            if self.supervised {
                let todo = VecDeque::new();
                add(Self { machine: None, supervised: false, todo, timer: false, ..fewer });
            }
        }
        if !self.supervised {
            add(self.clone().restart());
        }
        if !self.todo.is_empty() {
            add(self.clone().act());
            return next;
        }
        for side in [Side::Incumbent, Side::Successor] {
            let mut world = self.clone();
            let daemon = world.daemon(side);
            if daemon.alive && daemon.told {
                daemon.alive = false;
                add(world.feed(Input::Died(side, "exit status 0".into())));
            }
        }
        if self.machine.is_some() {
            if self.n.alive && !self.n.ready {
                let n = Daemon { ready: true, ..self.n };
                add(Self { n, ..self.clone() }.feed(Input::Ready));
            }
            if self.timer {
                let n = Daemon { failed: true, ..self.n };
                add(Self { n, ..self.clone() }.feed(Input::Late));
            }
            add(self.clone().feed(Input::Cancel("cancelled".into())));
            add(Self { ending: true, ..self.clone() }.feed(Input::End("the service ends".into())));
            for side in [Side::Incumbent, Side::Successor] {
                if self.clone().daemon(side).alive {
                    add(self.clone().feed(Input::Linked(side)));
                }
            }
        }
        next
    }

    fn check(&self) {
        let serves = |daemon: Daemon| daemon.alive && !daemon.told && !daemon.failed;
        let both_failed = self.o.failed && self.n.failed;
        // Who has replaced the other and then crashes is started again, as any daemon.
        let crashed_later = self.books == Books::Successor && self.n.failed;
        assert!(
            serves(self.o) || serves(self.n) || both_failed || crashed_later || self.ending,
            "nobody could accept: {self:?}"
        );
        let current = match self.books {
            Books::Incumbent => self.o,
            Books::Successor => self.n,
        };
        assert!(!current.told || crashed_later || self.ending, "the books name one who was told to stop: {self:?}");
        assert!(self.told.len() <= 1, "two outcomes: {self:?}");
        match self.told.first() {
            Some(Verdict::Committed) => assert!(self.books == Books::Successor, "{self:?}"),
            Some(Verdict::RolledBack | Verdict::Refused) => {
                assert!(self.books == Books::Incumbent && !self.o.told, "{self:?}");
            }
            Some(Verdict::Failed) => assert!(both_failed || self.ending, "{self:?}"),
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }

    /// Nothing can happen any more but deaths.
    fn check_end(&self) {
        let one_left = !(self.o.alive && self.n.alive);
        assert!(one_left || self.ending, "two are left, or nobody: {self:?}");
        let told_or_lost = !self.told.is_empty() || self.crashes < 3;
        assert!(told_or_lost, "nobody was told how it ended: {self:?}");
    }
}

#[test]
fn in_every_order_somebody_can_accept() {
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([World::new(3)]);
    while let Some(world) = queue.pop_front() {
        if !seen.insert(world.clone()) {
            continue;
        }
        world.check();
        let next = world.next();
        if world.crashes == 0 && next.is_empty() || next.iter().all(|next| next.crashes < world.crashes) {
            world.check_end();
        }
        queue.extend(next);
    }
    assert!(seen.len() > 300, "{} states only", seen.len());
}

#[test]
fn an_incumbent_is_told_after_its_successor_is_in_the_books() {
    let mut machine = Unlinked::new();
    let expected = [
        Action::Disarm,
        Action::Promote,
        Action::Stop(Side::Incumbent),
        Action::Report(Verdict::Committed, String::new()),
    ];
    assert_eq!(machine.step(Input::Ready), expected);
    assert_eq!(machine.step(Input::Late), []);
}

#[test]
fn who_is_alone_is_not_given_up_for_a_cancel() {
    let mut machine = Unlinked::new();
    assert_eq!(machine.step(Input::Died(Side::Incumbent, "killed".into())), []);
    assert_eq!(machine.step(Input::Cancel("no".into())), []);
    let ready = machine.step(Input::Ready);
    assert!(!ready.contains(&Action::Stop(Side::Incumbent)), "{ready:?}");
    assert!(matches!(ready.last(), Some(Action::Report(Verdict::Committed, why)) if why.contains("killed")));
}

//! Every order of: ready, late, a cancel, the deaths of O and N, and the death of S between any two of its actions.

use super::*;
use mutants::Mutant;
use std::collections::{HashMap, HashSet, VecDeque};

mod mutants;

const NOBODY: &str = "nobody could accept";
const MISNAMED: &str = "the books name one who was told to stop";
const NOT_READY: &str = "one who never was ready is promoted, though O lives";
const TOLD_TWICE: &str = "one is told to stop twice";
const TWO_OUTCOMES: &str = "two outcomes";
const NOT_IN_BOOKS: &str = "committed, and N is not in the books";
const ROLLED_BACK_TO_NOBODY: &str = "rolled back, and O does not serve";
const FAILED_FOR_NO_REASON: &str = "failed, though one serves";
const TWO_LEFT: &str = "two are left";
const UNTOLD: &str = "nobody was told how it ended";

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
    mutant: Option<Mutant>,
    /// What must not be, and is.
    broken: Option<&'static str>,
}

impl World {
    fn new(crashes: u8, mutant: Option<Mutant>) -> Self {
        let o = Daemon { alive: true, failed: false, told: false, ready: true };
        let mut world = Self {
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
            mutant,
            broken: None,
        };
        if let Some(mutant) = mutant {
            mutant.begin(&mut world);
        }
        world
    }

    fn daemon(&mut self, side: Side) -> &mut Daemon {
        match side {
            Side::Incumbent => &mut self.o,
            Side::Successor => &mut self.n,
        }
    }

    fn feed(mut self, input: Input) -> Self {
        if let Some(machine) = &mut self.machine {
            let actions = match self.mutant {
                Some(mutant) => mutant.actions(machine.step(mutant.input(input))),
                None => machine.step(input),
            };
            self.plan(actions);
        }
        self
    }

    fn must(&mut self, holds: bool, what: &'static str) {
        if !holds {
            self.broken.get_or_insert(what);
        }
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
                self.must(self.n.ready || self.n.alive && !self.o.alive, NOT_READY);
                self.books = Books::Successor;
            }
            Some(Action::Stop(side)) => {
                // A restarted S can not know whether the one before has told an N that it gives up.
                let again = self.daemon(side).told && !(self.restarted && side == Side::Successor);
                self.must(!again, TOLD_TWICE);
                self.daemon(side).told = true;
            }
            Some(Action::Report(verdict, _)) => {
                let rolled_back = matches!(verdict, Verdict::RolledBack | Verdict::Refused);
                self.must(!rolled_back || self.o.alive, ROLLED_BACK_TO_NOBODY);
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
            let resume = |mutant: Mutant| mutant.resume(self.o.alive, self.n.alive);
            let actions = self.mutant.map_or_else(|| Unlinked::resume(self.o.alive, self.n.alive), resume);
            self.plan(actions);
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
                add(Self { n, ..self.clone() }.feed(Input::Late(String::new())));
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

    /// What holds at any time.
    fn check(&mut self) {
        let serves = |daemon: Daemon| daemon.alive && !daemon.told && !daemon.failed;
        let (o, n) = (serves(self.o), serves(self.n));
        let both_failed = self.o.failed && self.n.failed;
        // Who has replaced the other and then crashes is started again, as any daemon.
        let crashed_later = self.books == Books::Successor && self.n.failed;
        self.must(o || n || both_failed || crashed_later || self.ending, NOBODY);
        let current = match self.books {
            Books::Incumbent => self.o,
            Books::Successor => self.n,
        };
        self.must(!current.told || crashed_later || self.ending, MISNAMED);
        self.must(self.told.len() <= 1, TWO_OUTCOMES);
        let named = self.books == Books::Incumbent && !self.o.told;
        match self.told.first() {
            Some(Verdict::Committed) => self.must(self.books == Books::Successor, NOT_IN_BOOKS),
            Some(Verdict::RolledBack | Verdict::Refused) => self.must(named, ROLLED_BACK_TO_NOBODY),
            Some(Verdict::Failed) => self.must(both_failed || self.ending, FAILED_FOR_NO_REASON),
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }

    /// Nothing can happen any more but deaths.
    fn check_end(&mut self) {
        self.must(!(self.o.alive && self.n.alive) || self.ending, TWO_LEFT);
        self.must(!self.told.is_empty() || self.crashes < CRASHES, UNTOLD);
    }
}

const CRASHES: u8 = 3;

/// How many states there are, and of what must not be, all that is, each with a state in which it is found.
fn explore(mutant: Option<Mutant>) -> (usize, HashMap<&'static str, World>) {
    let (mut seen, mut broken) = (HashSet::new(), HashMap::new());
    let mut queue = VecDeque::from([World::new(CRASHES, mutant)]);
    while let Some(mut world) = queue.pop_front() {
        if let Some(what) = world.broken.take() {
            broken.entry(what).or_insert_with(|| world.clone());
        }
        if !seen.insert(world.clone()) {
            continue;
        }
        let next = world.next();
        world.check();
        if world.crashes == 0 && next.is_empty() || next.iter().all(|next| next.crashes < world.crashes) {
            world.check_end();
        }
        if let Some(what) = world.broken {
            broken.entry(what).or_insert(world);
        }
        queue.extend(next);
    }
    (seen.len(), broken)
}

#[test]
fn in_every_order_somebody_can_accept() {
    let (states, broken) = explore(None);
    assert!(broken.is_empty(), "{broken:?}");
    assert!(states > 300, "{states} states only");
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
    assert_eq!(machine.step(Input::Late(String::new())), []);
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

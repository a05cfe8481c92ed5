//! What is done to a service, round after round: a function of the seed alone.

use std::fmt;
use std::time::Duration;

/// The processes of a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Supervisor,
    Incumbent,
    Successor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after this many milliseconds.
    Stall(u64),
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// This many microseconds after `handoff upgrade` has said that this phase has begun. The phase may be over by then.
    Phase(&'static str, u64),
    /// This many milliseconds after the start of `handoff upgrade`, whatever it has come to.
    After(u64),
}

#[derive(Clone, Copy, Debug)]
pub struct Blow {
    pub kind: Kind,
    pub role: Role,
    pub moment: Moment,
}

/// The program of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    A,
    B,
    /// The store with a fault of `faulty_kv.c`.
    Faulty(&'static str),
    Missing,
}

/// How an undisturbed upgrade to it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Exit code of `handoff upgrade`.
    pub code: i32,
    /// Nobody serves for a while, although nothing is killed or stopped.
    pub hangs: bool,
}

#[derive(Clone, Debug)]
pub struct Round {
    pub number: u64,
    pub binary: Binary,
    pub arguments: &'static [&'static str],
    pub expected: Expected,
    pub blows: Vec<Blow>,
    /// Before the supervisor is started again, if it was killed.
    pub absence: Duration,
    /// Before the next round.
    pub rest: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}: {:?}", self.number, self.binary)?;
        for Blow { kind, role, moment } in &self.blows {
            write!(f, ", {kind:?} {role:?} {moment:?}")?;
        }
        Ok(())
    }
}

const COMMITTED: i32 = 0;
const ROLLED_BACK: i32 = 10;
const REVERTED: i32 = 11;
const REFUSED: i32 = 13;

/// Good ones: the fault is only to be slow somewhere, so that a blow can hit that step.
const GOOD: &[Binary] = &[
    Binary::A,
    Binary::B,
    Binary::Faulty("slow-warm=30"),
    Binary::Faulty("slow-warm=300"),
    Binary::Faulty("slow-open=30"),
    Binary::Faulty("slow-open=300"),
    Binary::Faulty("slow-drain=30"),
    Binary::Faulty("slow-drain=300"),
    Binary::Faulty("seal-progress=20000"),
];

/// Good as a successor; as an incumbent it fails once, so that the next upgrade is rolled back.
const GOOD_AT_FIRST: &[Binary] = &[Binary::Faulty("drain-fails"), Binary::Faulty("seal-fails")];

/// A bad binary, the arguments that shorten the wait for it, the outcome, whether it makes clients wait, and how many of
/// [`PHASES`] an upgrade to it comes to.
const BAD: &[(Binary, &[&str], i32, bool, usize)] = &[
    (Binary::Missing, &[], REFUSED, false, 1),
    (Binary::Faulty("exit-before-hello"), &[], ROLLED_BACK, false, 1),
    (Binary::Faulty("segv"), &[], ROLLED_BACK, false, 1),
    (Binary::Faulty("hang-before-hello"), &["--hello-timeout", "500ms"], ROLLED_BACK, false, 1),
    (Binary::Faulty("crash-warm"), &[], ROLLED_BACK, false, 2),
    (Binary::Faulty("unhealthy"), &[], ROLLED_BACK, false, 5),
    (Binary::Faulty("old-revision"), &[], ROLLED_BACK, false, 5),
    (Binary::Faulty("hang-open"), &["--ready-timeout", "500ms"], ROLLED_BACK, true, 5),
    (Binary::Faulty("fork-open"), &["--ready-timeout", "500ms"], ROLLED_BACK, true, 5),
    (Binary::Faulty("crash-committed"), &[], REVERTED, false, 6),
];

/// As `handoff status` names them, in their order; those of a handoff that commits, and the way back.
pub const PHASES: &[&str] =
    &["waiting for Hello", "warming", "draining", "sealing", "opening", "committing", "retiring", "rolling back"];
const PHASES_TO_COMMIT: usize = 7;

/// The rounds of a seed, without end.
pub struct Schedule {
    random: u64,
    number: u64,
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        Self { random: seed, number: 0 }
    }

    /// splitmix64.
    fn next_u64(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// For an upgrade that comes through the first of [`PHASES`].
    fn blow(&mut self, phases: usize) -> Blow {
        let role = self.pick(&[Role::Supervisor, Role::Incumbent, Role::Successor]);
        let kind = if self.below(2) == 0 { Kind::Kill } else { self.stall() };
        let later_us = self.below(3) * self.below(1000);
        let moment = match self.below(8) {
            0 => Moment::After(self.below(800)),
            1 => Moment::Phase("rolling back", later_us),
            _ => Moment::Phase(self.pick(&PHASES[..phases]), later_us),
        };
        Blow { kind, role, moment }
    }

    /// Mostly short; now and then beyond the time after which a silent process is given up.
    fn stall(&mut self) -> Kind {
        let most = if self.below(20) == 0 { 14_000 } else { 1_000 };
        Kind::Stall(20 + self.below(most))
    }

    fn blows(&mut self, phases: usize) -> Vec<Blow> {
        let count = self.pick(&[0, 0, 1, 1, 1, 1, 1, 2]);
        let mut blows: Vec<Blow> = (0..count).map(|_| self.blow(phases)).collect();
        // In the order in which they come.
        blows.sort_by_key(|blow| match blow.moment {
            Moment::After(_) => None,
            Moment::Phase(name, _) => PHASES.iter().position(|phase| *phase == name),
        });
        blows
    }
}

impl Iterator for Schedule {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        self.number += 1;
        let good = |binary| (binary, &[][..], COMMITTED, false, PHASES_TO_COMMIT);
        let (binary, arguments, code, hangs, phases) = match self.below(20) {
            0 => good(self.pick(GOOD_AT_FIRST)),
            1..14 => good(self.pick(GOOD)),
            _ => self.pick(BAD),
        };
        let absence = self.pick(&[0, 0, 1]) * self.below(2_000);
        Some(Round {
            number: self.number,
            binary,
            arguments,
            expected: Expected { code, hangs },
            blows: self.blows(phases),
            absence: Duration::from_millis(absence),
            rest: Duration::from_millis(self.below(30)),
        })
    }
}

#[test]
fn a_seed_gives_one_schedule() {
    let rounds = |seed| Schedule::new(seed).take(100).map(|round| format!("{round:?}")).collect::<Vec<_>>();
    assert_eq!(rounds(7), rounds(7));
    assert_ne!(rounds(7), rounds(8));
}

//! What a run has seen.

use crate::schedule::{Kind, Role};
use crate::upgrading::Dealt;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
struct Longest {
    gap: Duration,
    round: String,
}

impl Longest {
    fn note(&mut self, gap: Duration, round: &str) {
        if gap > self.gap {
            *self = Self { gap, round: round.to_owned() };
        }
    }

    fn print(&self, what: &str) {
        println!("  {what:<44} {:>9.1} ms  {}", self.gap.as_secs_f64() * 1e3, self.round);
    }
}

/// Which kind of round it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Undisturbed,
    /// Nothing was killed or stopped, but a daemon is slow or hangs while nobody accepts.
    Slow,
    Disturbed,
}

#[derive(Default)]
pub struct Summary {
    pub rounds: u64,
    pub outcomes: BTreeMap<&'static str, u64>,
    /// By phase and by role: kills and stalls.
    blows: BTreeMap<(&'static str, Role), (u64, u64)>,
    missed: u64,
    gaps: [Longest; 3],
    /// While a process that serves was killed or stopped for long.
    pub failed_then: u64,
    /// The same, of the connections that are kept.
    pub closed_then: u64,
    pub supervisor_restarts: u64,
}

impl Summary {
    pub fn note_blow(&mut self, dealt: &Dealt) {
        if dealt.pid.is_none() {
            self.missed += 1;
            return;
        }
        let (kills, stalls) = self.blows.entry((dealt.phase, dealt.blow.role)).or_default();
        *if dealt.blow.kind == Kind::Kill { kills } else { stalls } += 1;
    }

    pub fn note_gap(&mut self, sort: Sort, gap: Duration, round: &str) {
        self.gaps[sort as usize].note(gap, round);
    }

    pub fn print(&self) {
        println!("{} handoffs: {:?}", self.rounds, self.outcomes);
        println!("the supervisor was started again {} times", self.supervisor_restarts);
        println!("killed / stalled, by role and by the phase that was told last ({} blows found nobody):", self.missed);
        const ROLES: [Role; 3] = [Role::Supervisor, Role::Incumbent, Role::Successor];
        println!("  {:<20} {:>12} {:>12} {:>12}", "", "supervisor", "incumbent", "successor");
        let phases: std::collections::BTreeSet<_> = self.blows.keys().map(|(phase, _)| *phase).collect();
        for phase in phases {
            let cell = |role| {
                let (kills, stalls) = self.blows.get(&(phase, role)).copied().unwrap_or_default();
                format!("{kills} / {stalls}")
            };
            let [supervisor, incumbent, successor] = ROLES.map(cell);
            println!("  {phase:<20} {supervisor:>12} {incumbent:>12} {successor:>12}");
        }
        println!("longest time without an answer:");
        self.gaps[Sort::Undisturbed as usize].print("nothing killed or stopped, no slow daemon");
        self.gaps[Sort::Slow as usize].print("nothing killed or stopped, a slow daemon");
        self.gaps[Sort::Disturbed as usize].print("something killed or stopped");
        println!("failed requests: {} while who serves was killed or stalled, 0 otherwise", self.failed_then);
        println!("kept connections closed: {} while who serves was killed or stalled, 0 otherwise", self.closed_then);
    }
}

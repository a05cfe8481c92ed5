//! All states that can be reached, breadth first; shortest traces; and whether the graph without faults has a cycle.

use crate::config::Config;
use crate::world::World;
use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// States that are expanded in one turn of the threads.
const BATCH: usize = 16_384;

/// A fingerprint is a hash already.
#[derive(Clone, Copy, Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64");
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

type Seen = HashMap<u64, u32, BuildHasherDefault<Same>>;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub states: usize,
    pub transitions: usize,
    pub terminals: usize,
    /// Terminals in which nobody could be helped, and which are promised to nobody.
    pub excused: usize,
    /// States on or behind an endless loop without faults.
    pub cyclic: usize,
    /// What must not be, how often, and the first state with it.
    pub broken: Vec<(String, usize, u32)>,
    parents: Vec<(u32, u16)>,
    on_cycle: Option<u32>,
}

struct Next {
    fingerprint: u64,
    event: u16,
    fault: bool,
    /// None if it was seen in an earlier turn.
    world: Option<World>,
}

struct Expanded {
    id: u32,
    next: Vec<Next>,
    end: Option<Result<bool, String>>,
}

fn expand(world: &World, id: u32, seen: &Seen) -> Expanded {
    let events = world.events();
    let end = events.iter().all(|event| event.is_fault()).then(|| world.judge_end());
    let mut next = Vec::with_capacity(events.len());
    for (at, event) in events.into_iter().enumerate() {
        let mut after = world.clone();
        if catch_unwind(AssertUnwindSafe(|| after.happen(event))).is_err() {
            after = world.clone();
            after.fail("panic");
        }
        let fingerprint = after.fingerprint();
        let world = (!seen.contains_key(&fingerprint)).then_some(after);
        next.push(Next { fingerprint, event: at as u16, fault: event.is_fault(), world });
    }
    Expanded { id, next, end }
}

/// Explores everything; stops at the first thing that must not be if `first`.
pub fn explore(config: &Config, first: bool) -> Report {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let start = World::new(config);
    let mut seen = Seen::default();
    let mut report = Report { parents: vec![(u32::MAX, 0)], ..Report::default() };
    let mut edges: Vec<(u32, u32)> = Vec::new();
    seen.insert(start.fingerprint(), 0);
    let mut level = vec![(start, 0)];
    while !level.is_empty() && (!first || report.broken.is_empty()) {
        let mut below = Vec::new();
        let mut rest = level;
        while !rest.is_empty() {
            let batch = rest.split_off(rest.len().saturating_sub(BATCH));
            let share = batch.len().div_ceil(threads).max(1);
            let seen_before = &seen;
            let expanded: Vec<Expanded> = std::thread::scope(|scope| {
                let work = |part| {
                    move || -> Vec<Expanded> {
                        let part: &[(World, u32)] = part;
                        part.iter().map(|(world, id)| expand(world, *id, seen_before)).collect()
                    }
                };
                let running: Vec<_> = batch.chunks(share).map(|part| scope.spawn(work(part))).collect();
                running.into_iter().flat_map(|thread| thread.join().expect("a thread of the model")).collect()
            });
            for of in expanded {
                report.take_end(of.id, of.end);
                for next in of.next {
                    report.transitions += 1;
                    let new = u32::try_from(report.parents.len()).expect("fewer states");
                    let to = *seen.entry(next.fingerprint).or_insert(new);
                    if to == new {
                        let world = next.world.expect("it is new");
                        report.parents.push((of.id, next.event));
                        match world.broken() {
                            Some(what) => report.note(what, new),
                            None => below.push((world, new)),
                        }
                    }
                    if !next.fault {
                        edges.push((of.id, to));
                    }
                }
            }
        }
        level = below;
    }
    report.states = report.parents.len();
    report.find_cycles(&edges);
    report
}

impl Report {
    fn note(&mut self, what: &str, id: u32) {
        match self.broken.iter_mut().find(|(known, ..)| known == what) {
            Some((_, count, _)) => *count += 1,
            None => self.broken.push((what.to_owned(), 1, id)),
        }
    }

    fn take_end(&mut self, id: u32, end: Option<Result<bool, String>>) {
        let Some(end) = end else { return };
        self.terminals += 1;
        match end {
            Ok(excused) => self.excused += usize::from(excused),
            Err(what) => self.note(&what, id),
        }
    }

    /// Takes away whatever nothing leads to, until only loops and what is behind them are left.
    fn find_cycles(&mut self, edges: &[(u32, u32)]) {
        let count = self.states;
        let (mut incoming, mut from) = (vec![0_u32; count], vec![0_usize; count + 1]);
        for (a, b) in edges {
            incoming[*b as usize] += 1;
            from[*a as usize + 1] += 1;
        }
        for at in 0..count {
            from[at + 1] += from[at];
        }
        let mut fill = from.clone();
        let mut to = vec![0_u32; edges.len()];
        for (a, b) in edges {
            to[fill[*a as usize]] = *b;
            fill[*a as usize] += 1;
        }
        let mut free: Vec<usize> = (0..count).filter(|at| incoming[*at] == 0).collect();
        let mut done = 0;
        while let Some(at) = free.pop() {
            done += 1;
            for next in &to[from[at]..from[at + 1]] {
                let next = *next as usize;
                incoming[next] -= 1;
                if incoming[next] == 0 {
                    free.push(next);
                }
            }
        }
        self.cyclic = count - done;
        self.on_cycle = incoming.iter().position(|left| *left > 0).map(|at| at as u32);
    }

    /// The events that lead to a state.
    pub fn trace(&self, config: &Config, id: u32) -> String {
        let mut path = Vec::new();
        let mut at = id;
        while let Some((parent, event)) = self.parents.get(at as usize).filter(|(parent, _)| *parent != u32::MAX) {
            path.push(*event);
            at = *parent;
        }
        let (mut world, mut text) = (World::new(config), String::new());
        for event in path.iter().rev() {
            let event = world.events()[*event as usize];
            let _ = writeln!(text, "    {}", world.describe(event));
            let _ = catch_unwind(AssertUnwindSafe(|| world.happen(event)));
        }
        let _ = writeln!(text, "    => {}", world.show());
        text
    }

    /// Everything that is wrong, each with its shortest trace.
    pub fn complaints(&self, config: &Config) -> String {
        let mut text = String::new();
        for (what, count, id) in &self.broken {
            let _ = writeln!(text, "  {what} ({count} states)\n{}", self.trace(config, *id));
        }
        if let Some(id) = self.on_cycle {
            let _ = writeln!(text, "  an endless loop ({} states)\n{}", self.cyclic, self.trace(config, id));
        }
        text
    }
}

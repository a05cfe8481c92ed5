//! Looks at the processes all the time, also while something is under way.

use crate::support::fleet::{Actor, actors};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What must be at every moment.
#[derive(Clone, Debug, Default)]
pub struct Always {
    /// Units that may have two main processes for a while: a handoff is under way.
    pub pairs: BTreeSet<String>,
    /// Who must not be alive without whom.
    pub needs: Vec<(String, String)>,
    /// Who must not be alive beside whom.
    pub rivals: Vec<(String, String)>,
    /// The operation of which this is true.
    pub operation: usize,
}

const WITHOUT: &str = " runs without ";

/// A thread that looks.
pub struct Watch {
    stop: Arc<AtomicBool>,
    always: Arc<Mutex<Always>>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watch {
    pub fn start(dir: &Path) -> Self {
        let (stop, always) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Always::default())));
        let (stopped, rules, dir) = (Arc::clone(&stop), Arc::clone(&always), dir.to_owned());
        let thread = thread::spawn(move || look(&dir, &stopped, &rules));
        Self { stop, always, thread: Some(thread) }
    }

    pub fn set(&self, always: Always) {
        *self.always.lock().unwrap() = always;
    }

    /// All that was seen and must not be.
    pub fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(dir: &Path, stopped: &AtomicBool, rules: &Mutex<Always>) -> Vec<String> {
    let mut wrong = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        let always = rules.lock().unwrap().clone();
        let first = mains(actors(dir));
        let suspects = suspects(&first, &always);
        if !suspects.is_empty() {
            // One look takes time: only what two of them show was so at one moment, between them.
            let second = mains(actors(dir));
            let lasting = first.iter().filter(|(pid, unit)| second.get(*pid) == Some(*unit));
            let mut lasting: BTreeMap<i32, String> = lasting.map(|(pid, unit)| (*pid, unit.clone())).collect();
            let found = self::suspects(&lasting, &always);
            // Who is needed may have been seen in one of the two.
            lasting.extend(first.into_iter().chain(second));
            let in_any = self::suspects(&lasting, &always);
            let is_too_many = |text: &String| !text.contains(WITHOUT);
            if rules.lock().unwrap().operation != always.operation {
                continue; // it may have been true of the next one only
            }
            wrong.extend(found.into_iter().filter(|text| is_too_many(text) || in_any.contains(text)));
        }
        thread::sleep(Duration::from_millis(10));
    }
    wrong
}

/// The unit of each main process.
fn mains(actors: Vec<Actor>) -> BTreeMap<i32, String> {
    actors.into_iter().filter(|actor| !actor.helper).map(|actor| (actor.pid, actor.unit)).collect()
}

fn suspects(mains: &BTreeMap<i32, String>, always: &Always) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for unit in mains.values() {
        *counts.entry(unit).or_default() += 1;
    }
    let twice = counts.iter().filter(|(unit, count)| **count > 1 + usize::from(always.pairs.contains(**unit)));
    let mut found: Vec<String> = twice.map(|(unit, _)| format!("{unit} runs twice")).collect();
    let alone = |(unit, needed): &&(String, String)| {
        counts.contains_key(unit.as_str()) && !counts.contains_key(needed.as_str())
    };
    found.extend(always.needs.iter().filter(alone).map(|(unit, needed)| format!("{unit}{WITHOUT}{needed}")));
    let beside =
        |(one, two): &&(String, String)| counts.contains_key(one.as_str()) && counts.contains_key(two.as_str());
    found.extend(always.rivals.iter().filter(beside).map(|(one, two)| format!("{one} runs beside {two}")));
    found
}

//! What an operator has said must outlive the supervisor, and which units run: a small file, written anew at each change.
//!
//! One line for each fact: a word and a name, or, of units that were added, `added` and the [`Added`] as JSON. The first line has the boot that it is true of (`/proc/sys/kernel/random/boot_id`, random(4)): after
//! another one nothing of it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::limits::STATE_RETRY;
use crate::sys::clock::{boot_id, nanoseconds};
use crate::sys::fd::{file_context, replace_private};

use crate::service::config::Added;

/// What an operator has said of a unit last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Wish {
    /// It shall run.
    Run,
    /// It shall not.
    Stop,
}

/// Of one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Facts {
    pub(super) wish: Option<Wish>,
    /// A process of it may live.
    pub(super) alive: bool,
    /// It is stopped, or was, only to be started again: who conflicts with it has to wait.
    #[serde(default)]
    pub(super) returning: bool,
}

/// Of all units.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Memory {
    /// None: nothing is written down.
    path: Option<PathBuf>,
    facts: BTreeMap<String, Facts>,
    /// Units that are in no file.
    #[serde(default)]
    added: Vec<Added>,
    changed: bool,
    /// When to try again what failed, in `CLOCK_MONOTONIC` nanoseconds; zero: nothing was wrong.
    retry_ns: u64,
}

const ADDED: &str = "added";
const NONE: Facts = Facts { wish: None, alive: false, returning: false };
const WORDS: [(&str, Facts); 4] = [
    ("started", Facts { wish: Some(Wish::Run), ..NONE }),
    ("stopped", Facts { wish: Some(Wish::Stop), ..NONE }),
    ("alive", Facts { alive: true, ..NONE }),
    ("returning", Facts { returning: true, ..NONE }),
];

impl Memory {
    /// What the supervisor before has left there. A file that makes no sense tells nothing.
    pub(super) fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let mut memory = Self { path: Some(path), ..Self::default() };
        if lines.next() != Some(&first_line()) {
            return memory;
        }
        for (word, name) in lines.filter_map(|line| line.split_once(' ')) {
            if word == ADDED {
                memory.added.extend(serde_json::from_str::<Added>(name));
            }
            if let Some((_, fact)) = WORDS.iter().find(|(known, _)| *known == word) {
                let facts = memory.facts.entry(name.to_owned()).or_default();
                facts.wish = facts.wish.or(fact.wish);
                facts.alive |= fact.alive;
                facts.returning |= fact.returning;
            }
        }
        memory
    }

    pub(super) fn of(&self, name: &str) -> Facts {
        self.facts.get(name).copied().unwrap_or_default()
    }

    pub(super) fn set_wish(&mut self, name: &str, wish: Option<Wish>) {
        self.change(name, |facts| facts.wish = wish);
    }

    pub(super) fn set_alive(&mut self, name: &str, alive: bool) {
        self.change(name, |facts| facts.alive = alive);
    }

    pub(super) fn set_returning(&mut self, name: &str, returning: bool) {
        self.change(name, |facts| facts.returning = returning);
    }

    pub(super) fn added(&self) -> &[Added] {
        &self.added
    }

    pub(super) fn set_added(&mut self, added: Vec<Added>) {
        self.changed |= self.added != added;
        self.added = added;
    }

    /// Units of which a process may live.
    pub(super) fn alive(&self) -> Vec<String> {
        self.facts.iter().filter(|(_, facts)| facts.alive).map(|(name, _)| name.clone()).collect()
    }

    /// Units that are to be started again.
    pub(super) fn returning(&self) -> BTreeSet<String> {
        self.facts.iter().filter(|(_, facts)| facts.returning).map(|(name, _)| name.clone()).collect()
    }

    /// What was written is there no more.
    pub(super) fn is_lost(&self) -> bool {
        let has_some = !self.facts.is_empty() || !self.added.is_empty();
        has_some && !self.changed && self.path.as_ref().is_some_and(|path| !path.exists())
    }

    /// It is written down again.
    pub(super) fn note_loss(&mut self) {
        self.changed = true;
    }

    /// The unit is gone.
    pub(super) fn forget(&mut self, name: &str) {
        self.changed |= self.facts.remove(name).is_some();
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Facts)) {
        let facts = self.facts.entry(name.to_owned()).or_default();
        let before = *facts;
        change(facts);
        self.changed |= *facts != before;
    }

    /// Writes it down, if there is news. What is to be told of that: once that it can not be done, and once that it is done again.
    pub(super) fn save(&mut self, now_ns: u64) -> Option<String> {
        let path = self.path.as_ref().filter(|_| self.changed && now_ns >= self.retry_ns)?;
        let before = self.retry_ns;
        match self.write(path) {
            Ok(()) => {
                (self.changed, self.retry_ns) = (false, 0);
                (before > 0).then(|| "the state is written down again".to_owned())
            }
            Err(error) => {
                let error = file_context(error, path.display());
                let text = format!(
                    "the state can not be written down: {error}; a supervisor that comes after a crash will not know what operators \
                     have said since, and which tasks are done"
                );
                self.retry_ns = now_ns.saturating_add(nanoseconds(STATE_RETRY));
                (before == 0).then_some(text)
            }
        }
    }

    /// When to try again.
    pub(super) fn due_ns(&self) -> Option<u64> {
        (self.changed && self.retry_ns > 0).then_some(self.retry_ns)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = first_line();
        for (name, facts) in &self.facts {
            let Facts { wish, alive, returning } = *facts;
            let parts = [Facts { wish, ..NONE }, Facts { alive, ..NONE }, Facts { returning, ..NONE }];
            for (word, _) in WORDS.iter().filter(|(_, fact)| parts.contains(fact)) {
                let _ = write!(text, "\n{word} {name}");
            }
        }
        for json in self.added.iter().map(serde_json::to_string) {
            let _ = write!(text, "\n{ADDED} {}", json?);
        }
        text.push('\n');
        // What was added may have secrets in its variables, and others may go through this directory.
        replace_private(path, &path.with_extension("state.new"), text.as_bytes())
    }

    /// Whether anything is written down.
    pub(super) fn is_written(&self) -> bool {
        self.path.is_some()
    }

    /// All has ended as it should: the next supervisor begins anew.
    pub(super) fn remove(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = fs::remove_file(path); // there may be none
        }
    }
}

fn first_line() -> String {
    format!("handoff-state 1 {}", boot_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.state");
        let mut memory = Memory::read(path.clone());
        memory.set_wish("web", Some(Wish::Stop));
        memory.set_alive("web", true);
        memory.set_returning("web", true);
        memory.set_wish("db", Some(Wish::Run));
        memory.set_wish("gone", Some(Wish::Run));
        let text = "[unit.x]\nexec = ['a\\nb']\n".to_owned();
        let added = Added { from: std::path::Path::new("-").into(), text, units: ["x".to_owned()].into() };
        memory.set_added(vec![added.clone()]);
        memory.forget("gone");
        assert_eq!(memory.save(0), None);
        let mut memory = Memory::read(path.clone());
        assert_eq!(memory.of("web"), Facts { wish: Some(Wish::Stop), alive: true, returning: true });
        assert_eq!(memory.alive(), ["web"]);
        assert_eq!(memory.added(), [added]);
        assert_eq!(memory.of("db").wish, Some(Wish::Run));
        assert_eq!(memory.of("gone"), Facts::default());
        memory.remove();
        assert!(!path.exists());
    }

    #[test]
    fn what_can_not_be_written_is_told_once_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/main.state");
        let mut memory = Memory::read(path.clone());
        assert_eq!((memory.save(1), memory.due_ns()), (None, None), "no news");
        memory.set_wish("web", Some(Wish::Stop));
        let told = memory.save(1).unwrap();
        assert!(told.contains("main.state: No such file") && told.contains("will not know"), "{told}");
        let due_ns = memory.due_ns().unwrap();
        assert_eq!((memory.save(due_ns - 1), memory.save(due_ns)), (None, None), "it was told");
        let due_ns = memory.due_ns().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        assert!(memory.save(due_ns).unwrap().contains("again"));
        assert_eq!((memory.save(due_ns), memory.due_ns()), (None, None));
        assert_eq!(Memory::read(path).of("web").wish, Some(Wish::Stop));
    }

    #[test]
    fn nonsense_and_another_boot_tell_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main.state");
        for text in
            ["", "alive a", "handoff-state 1 another\nalive a\n", "handoff-state 2\nalive a", "\u{0}\n\nalive a"]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(Memory::read(path.clone()).of("a"), Facts::default(), "{text:?}");
        }
        fs::write(&path, format!("{}\nalive\nfly a\nalive a\n\n", first_line())).unwrap();
        assert_eq!(Memory::read(path).alive(), ["a"]);
    }
}

//! Files that somebody has removed while their unit runs.

use std::fmt;

use super::Fleet;
use crate::error::Error;

/// How many units are named.
const NAMED: usize = 5;

/// What is gone.
#[derive(Debug, Default)]
pub struct Lost {
    /// Units, by whose files a supervisor after this one would know what runs, or which keep others away.
    units: Vec<String>,
    /// What operators have said.
    state: bool,
}

impl Lost {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty() && !self.state
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (few, more) = self.units.split_at(self.units.len().min(NAMED));
        match (few, more) {
            ([], _) => f.write_str("its state file"),
            (few, []) => write!(f, "what it keeps of {}", few.join(", ")),
            (few, more) => write!(f, "what it keeps of {} and {} more", few.join(", "), more.len()),
        }
    }
}

impl Fleet {
    /// Which of these units have lost a file that they should have now.
    pub fn find_lost(&self, is_asked: impl Fn(&str) -> bool) -> Lost {
        let is_lost = |name: &str| {
            let member = self.members.get(name);
            let is_kept = self.memory.is_written()
                && !self.unkept.has(name)
                && member.is_some_and(|member| member.kept.is_some());
            member.is_some_and(|member| member.has_lost_files()) || is_kept && !self.runtime.unit(name).exists()
        };
        let units = self.members.keys().filter(|name| is_asked(name) && is_lost(name)).cloned().collect();
        Lost { units, state: is_asked(&self.name) && self.memory.is_lost() }
    }

    /// Makes them anew. What can not be, is told, and keeps nothing else from it.
    pub fn renew_files(&mut self, lost: &Lost) -> Vec<Error> {
        let mut errors = Vec::new();
        for name in &lost.units {
            if let Some(member) = self.members.get_mut(name) {
                errors.extend(member.renew_files(name, &self.name).err());
            }
            self.keep_anew(name);
        }
        if lost.state {
            self.memory.note_loss();
        }
        self.save();
        errors
    }
}

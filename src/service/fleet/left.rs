//! Processes of another supervisor that could not be taken over: they must not be left alive in silence.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Fleet;
use crate::service::instance::{daemon_of, left_alone};

/// A process that lives, and that nobody supervises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Whose it is.
    pub unit: String,
    /// Its number.
    pub pid: i32,
    /// What it executes.
    pub command: String,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, pid, command } = self;
        write!(f, "process {pid} ({command}) of {unit} lives on, and could not be taken over; end it (kill {pid})")
    }
}

impl Fleet {
    /// All of them.
    pub fn left(&self) -> Vec<Left> {
        let known: BTreeSet<String> = self.members.keys().cloned().chain(self.memory.alive()).collect();
        known.iter().filter_map(|name| self.left_of(name)).collect()
    }

    /// The one of this unit: another supervisor's own is none.
    pub(super) fn left_of(&self, unit: &str) -> Option<Left> {
        let member = self.members.get(unit);
        if member.is_some_and(|member| member.service.is_some()) {
            return None;
        }
        let is_ours = unit == self.name || member.is_some_and(|member| member.owns_files());
        let found = if is_ours { daemon_of(&self.runtime, unit) } else { left_alone(&self.runtime, unit) };
        found.map(|(pid, command)| Left { unit: unit.to_owned(), pid, command })
    }
}

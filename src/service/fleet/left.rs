//! Processes of another supervisor that could not be taken over: they must not be left alive in silence.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Fleet;
use crate::service::instance::{daemon_of, left_alone};

/// What lives, or may live, and nobody supervises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Left {
    /// A process.
    Process {
        /// Whose it is.
        unit: String,
        /// Its number.
        pid: i32,
        /// What it executes.
        command: String,
    },
    /// What a process has left behind.
    Behind {
        /// Whose it was.
        unit: String,
        /// What is known of it, for people.
        text: String,
    },
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { unit, pid, command } => {
                write!(
                    f,
                    "process {pid} ({command}) of {unit} lives on, and could not be taken over; end it (kill {pid})"
                )
            }
            Self::Behind { unit, text } => write!(f, "{unit} has ended, but {text}"),
        }
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
        if let Some(service) = member.and_then(|member| member.service.as_ref()) {
            return service.left_behind().map(|text| Left::Behind { unit: unit.to_owned(), text });
        }
        let is_ours = unit == self.name || member.is_some_and(|member| member.owns_files());
        let found = if is_ours { daemon_of(&self.runtime, unit) } else { left_alone(&self.runtime, unit) };
        found.map(|(pid, command)| Left::Process { unit: unit.to_owned(), pid, command })
    }
}

//! What a supervisor that comes after a crash must know of one unit: a file of its own, written anew at each change.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Fleet;
use super::member::Member;
use crate::limits::STATE_RETRY;
use crate::service::config::Unit;
use crate::service::unit::event::Event;
use crate::service::unit::past::Past;
use crate::sys::clock::{boot_id, monotonic_ns, nanoseconds};
use crate::sys::fd::replace_private;

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Kept {
    /// Of this boot it is true.
    boot: String,
    /// As its process was started.
    pub(super) running: Arc<Unit>,
    /// As the next one is, which may run by then; none: the same.
    pub(super) next: Option<Arc<Unit>>,
    /// As its file said when it was read last, which is not true of the next one yet; none: the same.
    #[serde(default)]
    said: Option<Arc<Unit>>,
    pub(super) service: Past,
}

/// Units of which that could not be written down.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    names: BTreeSet<String>,
    /// When to try again, in `CLOCK_MONOTONIC` nanoseconds.
    retry_ns: u64,
}

impl Unkept {
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn due_ns(&self) -> Option<u64> {
        (!self.names.is_empty()).then_some(self.retry_ns)
    }
}

impl Kept {
    /// None if there is nothing that means anything now.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let kept: Self = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (kept.boot == boot_id()).then_some(kept)
    }

    /// As it was configured last.
    pub(super) fn configured(&self) -> &Arc<Unit> {
        self.said.as_ref().or(self.next.as_ref()).unwrap_or(&self.running)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        // Variables may be secrets, and others may go through this directory.
        replace_private(path, &path.with_extension("unit.new"), &serde_json::to_vec(self)?)
    }
}

impl Member {
    /// What is to be written down of it now, unless it is.
    fn news(&self) -> Option<Kept> {
        let past = self.service.as_ref().filter(|service| !service.is_adopting())?.past();
        let next = (self.applied != self.running).then_some(&self.applied);
        let said = (self.unit != self.applied).then_some(&self.unit);
        let is_known = |kept: &Kept| {
            let units = (&kept.running, kept.next.as_ref(), kept.said.as_ref());
            kept.service == past && units == (&self.running, next, said)
        };
        if self.kept.as_ref().is_some_and(is_known) {
            return None;
        }
        let (running, next, said) = (self.running.clone(), next.cloned(), said.cloned());
        Some(Kept { boot: boot_id().to_owned(), running, next, said, service: past })
    }
}

impl Fleet {
    /// Writes down what has changed of a unit. What can not be written is told once, and tried again.
    pub(super) fn keep(&mut self, name: &str) {
        if let Some(kept) = self.members.get(name).and_then(Member::news) {
            self.write_kept(name, kept);
        }
    }

    fn write_kept(&mut self, name: &str, kept: Kept) {
        let Some(member) = self.members.get_mut(name).filter(|_| self.memory.is_written()) else { return };
        let written = kept.write(&self.runtime.unit(name));
        member.kept = Some(kept);
        let text = match written {
            Ok(()) if self.unkept.names.remove(name) => "its state is written down again".to_owned(),
            Err(error) => {
                self.unkept.retry_ns = monotonic_ns().saturating_add(nanoseconds(STATE_RETRY));
                if !self.unkept.names.insert(name.to_owned()) {
                    return;
                }
                format!(
                    "its state can not be written down: {error}; a supervisor that comes after a crash will not know it"
                )
            }
            Ok(()) => return,
        };
        self.events.push((name.to_owned(), Event::Warning(text)));
    }

    /// Tries again what could not be written.
    pub(super) fn keep_again(&mut self, now_ns: u64) {
        if self.unkept.due_ns().is_none_or(|due_ns| now_ns < due_ns) {
            return;
        }
        self.unkept.names.retain(|name| self.members.contains_key(name));
        for name in self.unkept.names.clone() {
            self.keep_anew(&name);
        }
    }

    /// Writes it down whether it has changed or not.
    pub(super) fn keep_anew(&mut self, name: &str) {
        let Some(member) = self.members.get_mut(name) else { return };
        let before = member.kept.take();
        // While it is being adopted, what it was under the supervisor before.
        if let Some(kept) = member.news().or(before) {
            self.write_kept(name, kept);
        }
    }

    /// It has no meaning any more.
    pub(super) fn remove_kept(&self, name: &str) {
        if self.memory.is_written() {
            let _ = fs::remove_file(self.runtime.unit(name)); // there may be none
        }
    }
}

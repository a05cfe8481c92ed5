//! A supervisor that was started again, and waits: for whom, and why; and for whom no longer.

use super::engine::Engine;
use super::journal::Entry;
use super::leaving::Leaving;
use super::process::Process;
use super::processes::Processes;
use super::resume::Found;
use super::spec::SpawnSpec;
use super::trace;
use crate::limits::LIVENESS;
use crate::protocol::supervisor::Phase;
use crate::sys::lock::{holders, read_record};
use crate::sys::page::DecisionPage;
use crate::sys::proc::{command, is_stopped};
use nix::sys::signal::Signal;
use std::time::Duration;

/// The phase of a supervisor that waits for another one's daemon.
pub(crate) const ADOPTING: &str = "adopting";

/// What a supervisor waits for before it can go on where another one stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// Of the handoff that is being ended, or [`ADOPTING`].
    pub(crate) phase: &'static str,
    /// For whom, and why: for people.
    pub(crate) text: String,
}

impl Engine {
    /// For whom it waits now, and why.
    pub(super) fn awaited(&self) -> Awaited {
        let phase = match self.machine.phase() {
            Phase::Idle => ADOPTING,
            phase => phase.name(),
        };
        let text = match (&self.processes.incumbent, &self.processes.successor) {
            (Some(process), _) => self.silence_of(process),
            (None, Some(process)) => format!("{} has won the service, and must say that it serves", named(process)),
            (None, None) => {
                let left: Vec<_> = self.processes.leaving.iter().map(|leaving| named(&leaving.process)).collect();
                format!("{} will not serve again, and must end first", left.join(", "))
            }
        };
        Awaited { phase, text }
    }

    fn silence_of(&self, process: &Process) -> String {
        let pid = process.pid;
        let why = match (is_stopped(pid), &process.session) {
            (true, _) => format!("it is stopped: kill -CONT {pid} lets it go on"),
            (false, Some(_)) => "it was reached, and may be busy".to_owned(),
            (false, None) => self.adoption.trouble.clone(),
        };
        let last = match self.adoption.reserve {
            true if is_stopped(pid) => "; it is a reserve that should take over, and is killed otherwise",
            _ => "",
        };
        let what = match self.adoption.found {
            Found::ControlPath => "listens at the control path",
            Found::Journal | Found::Gate => "serves, or did",
        };
        format!("{} {what}, and does not answer ({why}){last}", named(process))
    }

    /// Nobody is left but those that leave, and one of them keeps a cold start out: it holds the gate until it exits, or a
    /// listener.
    pub(super) fn is_kept_out(&self) -> bool {
        let Processes { incumbent, successor, leaving, .. } = &self.processes;
        let in_the_way = |leaving: &Leaving| self.adoption.occupied || !leaving.term.drains;
        self.machine.phase() == Phase::Idle
            && incumbent.is_none()
            && successor.is_none()
            && leaving.iter().any(in_the_way)
    }

    /// Whether the incumbent of this journal is a reserve that has not taken over, although its successor is dead.
    pub(super) fn note_reserve(&mut self, entry: &Entry, page: Option<&DecisionPage>) {
        let (Some(open), Some(process)) = (&entry.handoff, &self.processes.incumbent) else { return };
        let successor = open.successor;
        let alone = process.pid != successor.pid && successor.open().is_none();
        let committed = page.is_some_and(|page| page.word().is_committed());
        if open.park_ns > 0 && alone && committed && had_lock(successor.pid, &process.spec) && !process.holds_lock() {
            self.adoption.reserve = true;
        }
    }

    /// A reserve that should take over, as its successor is dead, but is stopped: it is killed, after the time that one has with a
    /// supervisor that lives. It is sealed, and so writes nothing, until it has the lock. One that has it may have taken over long ago.
    pub(super) fn end_stopped_reserve(&mut self, waited: Duration) {
        if waited < LIVENESS || !self.adoption.reserve {
            return;
        }
        let Some(process) = &self.processes.incumbent else { return };
        if process.session.is_some() || !is_stopped(process.pid) || process.holds_lock() {
            return;
        }
        let pid = process.pid;
        self.adoption.reserve = false;
        trace::trouble(&self.service, Some(pid), "the reserve is stopped, and did not take over in time: it is killed");
        self.adoption.ended = true;
        self.take_from_retired(pid);
        if let Some(process) = &self.processes.incumbent
            && let Err(error) = process.signal(Signal::SIGKILL)
        {
            trace::trouble(&self.service, Some(pid), &error.to_string());
        }
    }
}

fn named(process: &Process) -> String {
    format!("process {} ({})", process.pid, command(process.pid))
}

/// Whether this process was the last one that took the lock of the data: so the one before it was sealed.
fn had_lock(pid: i32, spec: &SpawnSpec) -> bool {
    let record = spec.lock_paths().and_then(|paths| read_record(&paths.lock).ok().flatten());
    record.is_some_and(|record| record.pid == pid)
}

impl Process {
    /// Also if nobody can tell.
    pub(super) fn holds_lock(&self) -> bool {
        self.spec.lock_paths().is_none_or(|paths| holders(&paths.lock).iter().any(|holder| holder.pid == self.pid))
    }
}

//! What a service went through: its last starts, ends and handoffs, in memory and in a file that outlives a supervisor.
//!
//! One JSON object a line. What can not be written is kept in memory all the same: a directory that is full stops nothing.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::unit::IDLE;
use super::unit::event::Event;
use crate::limits::HISTORY_MAX;
use crate::supervisor::{ExitStatus, HandoffOutcome, Verdict};
use crate::sys::fd::advice;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When: milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A process of the service runs.
    Start {
        /// Its pid.
        pid: i32,
        /// Which process of the service it is.
        generation: u64,
        /// Another supervisor, which is gone, has started it.
        adopted: bool,
    },
    /// A process ended, or could not be started, and nobody served.
    End {
        /// Which; none if there was none.
        pid: Option<i32>,
        /// Why it was stopped; none: it ended by itself.
        stopped: Option<String>,
        /// How, for people.
        text: String,
        /// Its exit status.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
        /// It is started again after this time; none: never.
        next_start_ms: Option<u64>,
    },
    /// A handoff has an outcome.
    Handoff(Handoff),
}

/// A handoff.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handoff {
    /// `upgrade` or `rollback`.
    pub what: String,
    /// The process that served before.
    pub from_pid: Option<i32>,
    /// Which process of the service it was.
    pub from_generation: Option<u64>,
    /// It corrects what was said of the same handoff before.
    pub corrected: bool,
    /// The phases that were over by then, in order.
    pub phases: Vec<PhaseTime>,
    /// As [`HandoffOutcome`] is in JSON.
    pub outcome: Value,
}

/// How long a phase of a start or a handoff took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Its name, as in [`super::ServiceStatus::phase`].
    pub phase: String,
    /// Nanoseconds.
    pub ns: u64,
}

/// Times the phases of a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Phases {
    /// The phase that is under way, and since when (`CLOCK_MONOTONIC`, nanoseconds).
    now: Option<(String, u64)>,
    /// Those before it of the same handoff, or of the last one.
    done: Vec<PhaseTime>,
    /// Who served when it began: pid and generation.
    from: Option<(i32, u64)>,
    /// The handoff whose outcome they were told with; 0: they are those of a start.
    #[serde(default)]
    of: Option<u64>,
}

impl Phases {
    /// The phase that is over by that.
    fn enter(&mut self, phase: &str, serving: Option<(i32, u64)>, now_ns: u64) -> Option<PhaseTime> {
        if self.now.as_ref().is_some_and(|(now, _)| now == phase) {
            return None; // it was told again
        }
        let over = self.now.take().map(|(phase, since)| PhaseTime { phase, ns: now_ns.saturating_sub(since) });
        match &over {
            Some(over) => self.done.push(over.clone()),
            None => (self.done, self.from, self.of) = (Vec::new(), serving, None),
        }
        self.now = (phase != IDLE).then(|| (phase.to_owned(), now_ns));
        over
    }
}

/// The last [`HISTORY_MAX`] of what happened to a service.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct History {
    entries: VecDeque<Entry>,
    path: PathBuf,
    /// Lines of the file; the most there can be: it is to be written anew.
    lines: usize,
    /// How often in a row it could not be written. That is told at the second time: the first may be of a start that fails for the same reason.
    failures: u32,
    /// The process that serves, or starts: pid and generation.
    serving: Option<(i32, u64)>,
    phases: Phases,
    /// Why it is being stopped.
    stopping: Option<String>,
}

impl History {
    /// With what the file has; a line that makes no sense is passed over.
    pub fn open(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut entries: VecDeque<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        keep_last(&mut entries);
        // After half a line the next one would be half a line, too: then all of it is written anew.
        let lines = if text.is_empty() || text.ends_with('\n') { text.lines().count() } else { usize::MAX };
        Self { entries, path, lines, failures: 0, serving: None, phases: Phases::default(), stopping: None }
    }

    /// What happened, the oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The newest that is remembered.
    pub fn last_handoff(&self) -> Option<&Handoff> {
        self.entries.iter().rev().find_map(|entry| match &entry.what {
            What::Handoff(handoff) => Some(handoff),
            _ => None,
        })
    }

    /// Takes note of an event. `now_ns`: `CLOCK_MONOTONIC`; `time_ms`: since 1970. The phase that it ends, if it does.
    pub fn on_event(&mut self, event: &Event, now_ns: u64, time_ms: u64) -> Option<PhaseTime> {
        if let Event::Phase(phase, _) = event {
            return self.phases.enter(phase, self.serving, now_ns);
        }
        if matches!(event, Event::Ready { .. } | Event::Restarting { .. } | Event::Ended(_)) {
            self.phases.of.get_or_insert(0);
        }
        if let Some(what) = self.understand(event) {
            self.add(Entry { time_ms, what });
        }
        None
    }

    fn understand(&mut self, event: &Event) -> Option<What> {
        match event {
            Event::Started { pid, generation } => {
                self.serving = Some((*pid, *generation));
                Some(What::Start { pid: *pid, generation: *generation, adopted: false })
            }
            Event::Adopted { pid, generation } => {
                self.serving = Some((*pid, *generation));
                Some(What::Start { pid: *pid, generation: *generation, adopted: true })
            }
            Event::Outcome(what, outcome) => Some(self.handoff(what, outcome, false)),
            Event::Corrected(what, outcome) => Some(self.handoff(what, outcome, true)),
            Event::Stopping(why) => {
                self.stopping = Some(why.clone());
                None
            }
            Event::Restarting { text, after, status, .. } => Some(self.end(text, *status, Some(*after))),
            Event::Ended(ended) => Some(self.end(&ended.text, ended.status, None)),
            Event::Broken(text) => Some(self.end(text, None, None)),
            _ => None,
        }
    }

    fn end(&mut self, text: &str, status: Option<ExitStatus>, next_start: Option<Duration>) -> What {
        What::End {
            pid: self.serving.take().map(|(pid, _)| pid),
            stopped: self.stopping.take(),
            text: text.to_owned(),
            code: status.and_then(|status| status.code),
            signal: status.and_then(|status| status.signal),
            next_start_ms: next_start.map(|after| after.as_millis() as u64),
        }
    }

    fn handoff(&mut self, what: &str, outcome: &HandoffOutcome, corrected: bool) -> What {
        // One that was refused at once has no phases: those that are known are of another.
        let is_own = outcome.id != 0 && self.phases.of.is_none_or(|of| of == outcome.id);
        let began = is_own || outcome.verdict != Verdict::Refused;
        if began {
            self.phases.of = Some(outcome.id);
        }
        let phases = if began { self.phases.done.clone() } else { Vec::new() };
        let from = if began { self.phases.from } else { self.serving };
        What::Handoff(Handoff {
            what: what.to_owned(),
            from_pid: from.map(|(pid, _)| pid),
            from_generation: from.map(|(_, generation)| generation),
            corrected,
            phases,
            outcome: serde_json::to_value(outcome).unwrap_or_default(),
        })
    }

    fn add(&mut self, entry: Entry) {
        self.entries.push_back(entry);
        keep_last(&mut self.entries);
        // Bounded, and not written anew for each entry.
        let written = if self.lines >= 2 * HISTORY_MAX { self.rewrite() } else { self.append() };
        let path = self.path.display();
        match &written {
            Err(error) if self.failures == 1 => {
                let what = "the history can not be written: it is kept in memory alone";
                tracing::warn!(target: "handoff", %path, "{what}: {error}{}", advice(error.kind()));
            }
            Ok(()) if self.failures > 1 => tracing::warn!(target: "handoff", %path, "the history is written again"),
            _ => {}
        }
        self.failures = if written.is_ok() { 0 } else { self.failures.saturating_add(1) };
        if self.failures > 0 {
            self.lines = usize::MAX; // half a line may be there
        }
    }

    /// Writes it anew if somebody has removed the file; what goes wrong is told with the next entry.
    pub fn renew_file(&mut self) {
        if !self.entries.is_empty() && !self.path.exists() && self.rewrite().is_err() {
            self.lines = usize::MAX;
        }
    }

    fn append(&mut self) -> io::Result<()> {
        let Some(entry) = self.entries.back() else { return Ok(()) };
        let line = line_of(entry)?;
        File::options().append(true).create(true).mode(0o600).open(&self.path)?.write_all(line.as_bytes())?;
        self.lines += 1;
        Ok(())
    }

    /// By a rename, so that a crash leaves the old one or the new one.
    fn rewrite(&mut self) -> io::Result<()> {
        let text: String = self.entries.iter().map(line_of).collect::<io::Result<_>>()?;
        let temporary = with_suffix(&self.path, ".new");
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?
            .write_all(text.as_bytes())?;
        fs::rename(&temporary, &self.path)?;
        self.lines = self.entries.len();
        Ok(())
    }
}

fn keep_last(entries: &mut VecDeque<Entry>) {
    let excess = entries.len().saturating_sub(HISTORY_MAX);
    entries.drain(..excess);
}

fn line_of(entry: &Entry) -> io::Result<String> {
    Ok(serde_json::to_string(entry)? + "\n")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::RestartCause;
    use std::rc::Rc;

    fn outcome(id: u64, verdict: Verdict) -> Rc<HandoffOutcome> {
        Rc::new(HandoffOutcome {
            id,
            verdict,
            reason: String::new(),
            generation: 2,
            pid: 11,
            pidfd: None,
            warm_ns: 0,
            drain_ns: 0,
            seal_ns: 0,
            ready_ns: 0,
            pause_ns: 5,
            total_ns: 9,
            transferred_connections: 0,
            transferred_state_bytes: 0,
            errno: None,
        })
    }

    #[test]
    fn a_handoff_has_its_phases_and_who_served_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path().join("kv.history"));
        let mut at = |event: &Event, ns| history.on_event(event, ns, 7);
        assert_eq!(at(&Event::Started { pid: 10, generation: 1 }, 0), None);
        assert_eq!(at(&Event::Phase("warming", None), 100), None);
        assert_eq!(at(&Event::Phase("warming", None), 110), None, "told again");
        assert_eq!(at(&Event::Phase("draining", None), 130).map(|over| over.ns), Some(30));
        assert_eq!(at(&Event::Phase("retiring", None), 190).map(|over| over.ns), Some(60));
        at(&Event::Outcome("upgrade", outcome(5, Verdict::Committed)), 195);
        at(&Event::Started { pid: 11, generation: 2 }, 196);
        assert_eq!(at(&Event::Phase(IDLE, None), 200).map(|over| over.phase), Some("retiring".into()));
        at(&Event::Outcome("upgrade", outcome(0, Verdict::Refused)), 210);
        // Also if it had a number, but no phase.
        at(&Event::Outcome("upgrade", outcome(6, Verdict::Refused)), 220);
        let handoffs: Vec<_> = history
            .entries()
            .filter_map(|entry| match &entry.what {
                What::Handoff(handoff) => Some(handoff),
                _ => None,
            })
            .collect();
        let [done, refused, numbered] = handoffs.as_slice() else { panic!("{handoffs:?}") };
        let phases: Vec<_> = done.phases.iter().map(|phase| (phase.phase.as_str(), phase.ns)).collect();
        assert_eq!(phases, [("warming", 30), ("draining", 60)]);
        assert_eq!((done.from_pid, done.from_generation), (Some(10), Some(1)));
        assert_eq!(done.outcome["result"], "committed");
        assert!(refused.phases.is_empty() && numbered.phases.is_empty());
        assert_eq!((refused.from_pid, numbered.from_pid), (Some(11), Some(11)));
    }

    #[test]
    fn the_phases_of_a_start_are_not_those_of_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path().join("kv.history"));
        for event in [
            Event::Phase("waiting for readiness", None),
            Event::Started { pid: 10, generation: 1 },
            Event::Ready { pid: 10 },
            Event::Phase(IDLE, None),
            Event::Outcome("upgrade", outcome(5, Verdict::Refused)),
        ] {
            history.on_event(&event, 0, 7);
        }
        let refused = history.last_handoff().unwrap();
        assert_eq!((refused.phases.as_slice(), refused.from_pid), (&[][..], Some(10)));
    }

    #[test]
    fn the_file_outlives_it_and_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.history");
        let mut history = History::open(path.clone());
        for pid in 0..5 * HISTORY_MAX as i32 {
            history.on_event(&Event::Started { pid, generation: 1 }, 0, 1);
            let text = "killed by signal 9".to_owned();
            history.on_event(
                &Event::Restarting { text, after: Duration::from_secs(1), status: None, cause: RestartCause::Start },
                0,
                2,
            );
        }
        let known: Vec<Entry> = history.entries().cloned().collect();
        assert_eq!(known.len(), HISTORY_MAX);
        let lines = || fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines() <= 2 * HISTORY_MAX, "{}", lines());
        File::options().append(true).open(&path).unwrap().write_all(b"{\"time_ms\":1,\"ki").unwrap();
        let again = History::open(path);
        assert_eq!(again.entries().cloned().collect::<Vec<_>>(), known);
        let mut again = again;
        again.on_event(&Event::Adopted { pid: 1, generation: 1 }, 0, 3);
        let last = History::open(again.path.clone()).entries().last().cloned();
        assert_eq!(last.map(|last| last.time_ms), Some(3), "after half a line");
    }

    #[test]
    fn without_its_file_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/kv.history");
        let mut history = History::open(path.clone());
        for pid in 1..3 {
            history.on_event(&Event::Started { pid, generation: 1 }, 0, 1);
        }
        assert_eq!((history.entries().count(), path.exists()), (2, false));
        // Then all of it is there.
        fs::create_dir(dir.path().join("run")).unwrap();
        history.on_event(&Event::Started { pid: 3, generation: 1 }, 0, 1);
        assert_eq!(History::open(path).entries().count(), 3);
    }
}

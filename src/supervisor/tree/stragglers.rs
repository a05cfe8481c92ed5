//! What processes of a service have left that ended while it had no supervisor: nobody saw it, so the next supervisor looks for it.
//!
//! Only what is ours for sure is ended: every process of a service is started with a mark, of which one half is the service's and in
//! its journal, and random. A process may have taken the mark out of its environment; it is found all the same if it is in the control
//! group or in the session of one that has it.

use super::{Dying, INVOCATION, Tree, note_blind};
use crate::supervisor::Supervisor;
use crate::supervisor::engine::Engine;
use crate::sys::cgroup::Cgroup;
use crate::sys::descendants::variable_of;
use crate::sys::look::Look;
use crate::sys::pidfd::Pidfd;
use crate::sys::proc;
use crate::sys::session::end_some_seen;
use nix::sys::signal::Signal;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::io;

/// Digits of the half of a mark that is the service's.
const DIGITS: usize = 16;
/// The next digit of the mark of a process of the service, and of a command beside it.
const PROCESS: u64 = 0;
const TASK: u64 = 1;
/// Looks against helpers that fork while we look.
const ROUNDS_MAX: usize = 16;

/// What the marks of all processes of a service begin with. The journal has it for the next supervisor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Lineage(String);

impl Default for Lineage {
    /// One that nobody has.
    fn default() -> Self {
        Self(format!("{:016x}", random()))
    }
}

impl Lineage {
    /// As it is written in a journal.
    pub(in crate::supervisor) fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| Self(text.to_owned()))
    }

    pub(in crate::supervisor) fn text(&self) -> &str {
        &self.0
    }

    /// For one start of a process: 32 hexadecimal digits, as sd_id128_get_invocation(3) wants it.
    pub(super) fn of_process(&self) -> String {
        self.mark(PROCESS)
    }

    /// For a command that is of no use without its supervisor.
    pub(super) fn of_task(&self) -> String {
        self.mark(TASK)
    }

    fn mark(&self, kind: u64) -> String {
        format!("{}{:016x}", self.0, random() >> 4 | kind << 60)
    }

    pub(super) fn has(&self, mark: &str) -> bool {
        Self::of_mark(mark).is_some_and(|(lineage, _)| lineage == *self)
    }

    /// Whose mark it is, and whether it is a command's.
    fn of_mark(mark: &str) -> Option<(Self, bool)> {
        let (own, rest) = mark.split_at_checked(DIGITS).filter(|(_, rest)| rest.len() == DIGITS)?;
        Some((Self::parse(own)?, rest.starts_with('1')))
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Ends what these services have left, of which a supervisor before was killed. One look serves all, since it is at all processes
/// of the machine.
///
/// # Errors
/// Not all could be looked at: it is to be called again. Nothing of these services starts until then.
pub(crate) fn end_stragglers<'a>(supervisors: impl Iterator<Item = &'a mut Supervisor>) -> io::Result<()> {
    let engines = supervisors.map(|supervisor| &mut supervisor.engine);
    let engines = engines.filter_map(|engine| Some((engine.trees.inherited()?, engine)));
    let (engines, own, look) = (engines.collect(), std::env::var(INVOCATION).ok(), Look::patient());
    let mut search = Search { engines, own, look, ..Search::default() };
    if search.engines.is_empty() {
        return Ok(());
    }
    let more = |_: &usize| search.round() > 0;
    let _ = (0..ROUNDS_MAX).take_while(more).count();
    search.end()
}

#[derive(Default)]
struct Search<'a> {
    engines: BTreeMap<Lineage, &'a mut Engine>,
    /// The mark of whoever has started us: they are not ours to end.
    own: Option<String>,
    /// What was killed, and whose it was.
    ended: BTreeMap<i32, (Lineage, Pidfd)>,
    /// Sessions in which some of these were.
    sessions: BTreeMap<i32, Lineage>,
    groups: Vec<(Lineage, Cgroup)>,
    told: BTreeMap<Lineage, Vec<String>>,
    /// How many in this round.
    news: usize,
    /// All rounds together.
    look: Look,
}

impl Search<'_> {
    /// Looks at all processes, and says how many it has killed.
    fn round(&mut self) -> usize {
        self.news = 0;
        for pid in self.look.pids() {
            let Some(mark) = mark_of(pid, &mut self.look).filter(|mark| Some(mark) != self.own.as_ref()) else {
                continue;
            };
            let Some((lineage, is_task)) = Lineage::of_mark(&mark) else { continue };
            let Some(engine) = self.engines.get_mut(&lineage).filter(|engine| !engine.has_tree(&mark)) else {
                continue;
            };
            match is_task || engine.is_deserted() {
                true => self.end_marked(pid, &mark, lineage),
                // It may serve the last clients of one that was replaced.
                false => engine.trees.leave(Tree::found(mark, pid), self.look.session(pid).unwrap_or(pid)),
            }
        }
        self.end_mates();
        self.news
    }

    fn is_dying(&self, pid: i32) -> bool {
        self.ended.get(&pid).is_some_and(|(_, process)| !process.is_dead())
    }

    fn end_marked(&mut self, pid: i32, mark: &str, lineage: Lineage) {
        let Some(process) = self.look.open(pid).filter(|_| !self.is_dying(pid)) else { return };
        let (session, group, what) = (self.look.session(pid), Cgroup::of(pid), proc::command(pid));
        // Looked at again behind the descriptor: the number may have been another's before it.
        if mark_of(pid, &mut Look::default()).is_none_or(|again| again != mark)
            || process.kill(Signal::SIGKILL).is_err()
        {
            return;
        }
        self.sessions.extend(session.map(|session| (session, lineage.clone())));
        self.groups.extend(group.map(|group| (lineage.clone(), group)));
        self.note(lineage, pid, &what, process);
    }

    fn note(&mut self, lineage: Lineage, pid: i32, what: &str, process: Pidfd) {
        self.told.entry(lineage.clone()).or_default().push(format!("{pid} ({what})"));
        self.ended.insert(pid, (lineage, process));
        self.news += 1;
    }

    /// Those beside them that have no mark. A session is theirs as long as one of them is in it; a leader that lives has the mark, too, or is
    /// one who got the number later.
    fn end_mates(&mut self) {
        let mates: Vec<(i32, i32)> = match self.sessions.is_empty() {
            true => Vec::new(),
            false => {
                let all = self.look.pids();
                all.into_iter().filter_map(|pid| Some((pid, self.look.session(pid)?))).collect()
            }
        };
        let living: BTreeSet<i32> = mates.iter().map(|(pid, _)| *pid).collect();
        for (pid, session) in mates {
            let Some(lineage) = self.sessions.get(&session).filter(|_| !living.contains(&session)).cloned() else {
                continue;
            };
            let what = proc::command(pid);
            let pid_if_news = (!self.is_dying(pid)).then_some(pid);
            for process in end_some_seen(session, pid_if_news.into_iter(), &mut self.look) {
                self.note(lineage.clone(), pid, &what, process);
            }
        }
    }

    /// What was killed is waited for by its service, before it starts anything.
    fn end(self) -> io::Result<()> {
        let Self { mut engines, ended, mut groups, told, mut look, .. } = self;
        for (lineage, engine) in engines.iter().filter(|(_, engine)| engine.is_deserted()) {
            let left = Cgroup::left_by(lineage.text(), &mut look).into_iter().filter(|group| !engine.has_group(group));
            groups.extend(left.map(|group| (lineage.clone(), group)));
        }
        let dying = ended.into_values().map(|(lineage, process)| (lineage, Dying::of_process(process)));
        for (lineage, dying) in
            dying.chain(groups.into_iter().map(|(lineage, group)| (lineage, Dying::of_group(group))))
        {
            if let Some(engine) = engines.get_mut(&lineage) {
                engine.trees.wait_for(dying);
            }
        }
        for (lineage, told) in told {
            if let Some(engine) = engines.get_mut(&lineage) {
                engine.trees.note_ended(told);
            }
        }
        let looked = look.end();
        for engine in engines.into_values() {
            match &looked {
                Ok(()) => (engine.trees.inherited, engine.trees.inherited_blind) = (false, None),
                Err(error) => note_blind(&mut engine.trees.inherited_blind, error),
            }
        }
        looked
    }
}

fn mark_of(pid: i32, look: &mut Look) -> Option<String> {
    String::from_utf8(variable_of(pid, INVOCATION, look)?).ok()
}

impl Engine {
    /// No process of the service lives, or only those that leave.
    fn is_deserted(&self) -> bool {
        self.processes.incumbent.is_none() && self.processes.successor.is_none()
    }

    fn has_tree(&self, mark: &str) -> bool {
        self.processes.iter().filter_map(|process| process.tree.as_ref()).any(|tree| tree.is(mark))
    }

    fn has_group(&self, group: &Cgroup) -> bool {
        self.processes.iter().filter_map(|process| process.tree.as_ref()).any(|tree| tree.is_in(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_whose_it_is() {
        let (one, other) = (Lineage::default(), Lineage::default());
        let (process, task) = (one.of_process(), one.of_task());
        assert!([&process, &task].iter().all(|mark| mark.len() == 32 && one.has(mark) && !other.has(mark)));
        assert_eq!(Lineage::of_mark(&process), Some((one.clone(), false)));
        assert_eq!(Lineage::of_mark(&task), Some((one.clone(), true)));
        assert_eq!(Lineage::parse(one.text()), Some(one));
        for text in ["", "0123", "0123456789abcdefg", "0123456789abcde ", "0123456789abcdeé"] {
            assert_eq!((Lineage::parse(text), Lineage::of_mark(text)), (None, None), "{text:?}");
        }
    }
}

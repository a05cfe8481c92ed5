//! All that descends from a process of a service, and its end. For the program, whose child becomes whatever has lost its parent
//! ([`adopt_orphans`](crate::sys::descendants::adopt_orphans)); inside of another one that would be none of our business.

mod stragglers;

pub(crate) use stragglers::{Lineage, end_stragglers};

use super::Supervisor;
use super::engine::Engine;
use super::journal::Entry;
use super::process::{Process, Token, Was};
use super::spec::SpawnSpec;
use crate::error::{Error, Result};
use crate::protocol::supervisor::Peer;
use crate::sys::cgroup::{Cgroup, TASK};
use crate::sys::descendants::{Patience, claim, end_with_descendants, orphans, variable_of};
use crate::sys::pidfd::Pidfd;
use crate::sys::proc;
use crate::sys::session::{end_members, living, session_of};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Different for each start, and inherited by whatever is started then (systemd.exec(5) has it, too).
pub(crate) const INVOCATION: &str = "INVOCATION_ID";

/// What tells the descendants of a process from others, also when their parents have gone: its control group, if there is one; the
/// session that it leads; a variable.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tree {
    invocation: String,
    cgroup: Option<Cgroup>,
}

impl Tree {
    /// For a process that is about to be started. `name` is that of no other of its service.
    pub(super) fn new(name: &str, lineage: &Lineage) -> Self {
        let cgroup = Cgroup::create(&format!("{name}.{}", lineage.text()));
        Self { invocation: lineage.of_process(), cgroup }
    }

    /// For a command that ends with its supervisor: the next one would start it again.
    pub(crate) fn of_task(id: u64, lineage: &Lineage) -> Self {
        Self { invocation: lineage.of_task(), cgroup: Cgroup::create(&format!("{TASK}{id}")) }
    }

    /// That of a process that was found by its mark.
    pub(super) fn found(invocation: String, pid: i32) -> Self {
        Self { invocation, cgroup: Cgroup::of(pid) }
    }

    pub(super) fn is(&self, invocation: &str) -> bool {
        self.invocation == invocation
    }

    pub(super) fn is_in(&self, group: &Cgroup) -> bool {
        self.cgroup.as_ref() == Some(group)
    }

    /// That of a process which another supervisor has started, or an earlier program of this process: then it is our child.
    pub(super) fn of_adopted(pid: i32, process: &Pidfd, spec: &SpawnSpec) -> Option<Self> {
        if !spec.ends_tree {
            return None;
        }
        if process.is_child() {
            claim(pid);
        }
        let invocation = String::from_utf8(variable_of(pid, INVOCATION, &mut Patience::new())?).ok()?;
        // Our own mark may be on a process that somebody has started by hand.
        let own = std::env::var(INVOCATION).ok();
        (Some(&invocation) != own.as_ref()).then(|| Self { invocation, cgroup: Cgroup::of(pid) })
    }

    /// Puts the mark into an environment.
    pub(crate) fn mark(&self, env: &mut Vec<(OsString, OsString)>) {
        env.retain(|(name, _)| name != INVOCATION);
        env.push((INVOCATION.into(), self.invocation.clone().into()));
    }

    /// The control group in which the process begins.
    pub(crate) fn cgroup(&self) -> Option<File> {
        self.cgroup.as_ref().and_then(|group| group.open().ok())
    }

    /// Whether a child of ours that has lost its parent is one of them.
    fn has(&self, pid: i32, leader: i32, patience: &mut Patience) -> bool {
        session_of(pid).is_some_and(|session| session == leader) || self.is_marked(pid, patience)
    }

    fn is_marked(&self, pid: i32, patience: &mut Patience) -> bool {
        variable_of(pid, INVOCATION, patience).is_some_and(|value| value == self.invocation.as_bytes())
    }

    /// Nothing was started.
    pub(crate) fn discard(self) {
        self.cgroup.iter().for_each(Cgroup::remove);
    }

    fn is_empty(&self, leader: i32, was_child: bool) -> bool {
        // One that can not tell yet is found at the end.
        let mut patience = Patience::none();
        !self.cgroup.as_ref().is_some_and(Cgroup::is_populated)
            && !orphans().into_iter().any(|pid| self.has(pid, leader, &mut patience))
            && (was_child || !proc::pids().any(|pid| self.is_marked(pid, &mut patience)))
    }

    /// Ends all that a dead process has left, which was the leader of its session. What it left has become ours, if it was our child;
    /// else that of init, or of a manager of the user.
    pub(crate) fn end(self, leader: i32, was_child: bool) -> Dying {
        if let Some(group) = &self.cgroup {
            group.kill();
        }
        let mut processes = self.end_orphans(leader);
        if !was_child {
            end_members(leader);
            processes.extend(self.end_strangers());
        }
        Dying { processes, cgroup: self.cgroup }
    }

    fn end_orphans(&self, leader: i32) -> Vec<Pidfd> {
        let (mut seen, mut dead, mut ended) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        let mut patience = Patience::new();
        for _ in 0..ROUNDS_MAX {
            let found = orphans();
            let mut is_news = |pid: &i32| self.has(*pid, leader, &mut patience) && seen.insert(*pid);
            let news: Vec<i32> = found.iter().copied().filter(&mut is_news).collect();
            ended.extend(end_with_descendants(&news));
            // One that dies after the list was read may have had children, which are in a later list.
            let mut is_open = |pid: &i32| match living(*pid) {
                Some(_) => seen.contains(pid),
                None => dead.insert(*pid),
            };
            if found.iter().filter(|pid| is_open(pid)).count() == 0 {
                break;
            }
            std::thread::sleep(ROUND);
        }
        ended
    }

    fn end_strangers(&self) -> Vec<Pidfd> {
        let (mut seen, mut ended) = (BTreeSet::new(), Vec::new());
        let mut patience = Patience::new();
        for _ in 0..ROUNDS_MAX {
            let mut is_news = |pid: &i32| self.is_marked(*pid, &mut patience) && seen.insert(*pid);
            let news: Vec<i32> = proc::pids().filter(&mut is_news).collect();
            if news.is_empty() {
                break;
            }
            let opened = news.into_iter().filter_map(|pid| Some((pid, Pidfd::open(pid).ok()?)));
            // Looked at again behind the descriptor: the number may have been another's before it.
            let mut none = Patience::none();
            let mut killed = |(pid, process): &(i32, Pidfd)| {
                self.is_marked(*pid, &mut none) && process.kill(Signal::SIGKILL).is_ok()
            };
            ended.extend(opened.filter(&mut killed).map(|(_, process)| process));
        }
        ended
    }
}

/// Looks, against processes that are made faster than they are ended, and the time between two.
const ROUNDS_MAX: usize = 100;
const ROUND: Duration = Duration::from_millis(1);

/// Processes that were killed, until they are gone.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Dying {
    processes: Vec<Pidfd>,
    cgroup: Option<Cgroup>,
}

impl Dying {
    /// It was killed.
    pub(super) fn of_process(process: Pidfd) -> Self {
        Self { processes: vec![process], cgroup: None }
    }

    /// Kills all that are in it.
    pub(super) fn of_group(group: Cgroup) -> Self {
        group.kill();
        Self { processes: Vec::new(), cgroup: Some(group) }
    }

    /// Whether they are gone; then their control group is.
    pub(crate) fn is_over(&mut self) -> bool {
        self.processes.retain(|process| !process.is_dead());
        let is_over = self.processes.is_empty() && !self.cgroup.as_ref().is_some_and(Cgroup::is_populated);
        if let (true, Some(group)) = (is_over, &self.cgroup) {
            group.remove();
        }
        is_over
    }
}

/// What the processes of a service have left.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Trees {
    pub(super) lineage: Lineage,
    /// It is that of a supervisor before, which may have left something that was not looked for yet.
    #[serde(skip)] // it is looked for at once
    inherited: bool,
    /// The process that served under that supervisor is dead.
    #[serde(skip)] // as before
    has_lost: bool,
    /// Of whom that is over: pids and commands, which nobody was told of.
    #[serde(skip)] // as before
    ended: Vec<String>,
    /// What those have left that were replaced: it may serve their last clients.
    left: Vec<Left>,
    dying: Vec<Dying>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Left {
    tree: Tree,
    leader: i32,
    was_child: bool,
}

impl Trees {
    /// Goes on with what the journal says.
    pub(super) fn inherit(&mut self, entry: &Entry) {
        if let Some(lineage) = &entry.lineage {
            (self.lineage, self.inherited) = (lineage.clone(), true);
        }
        self.has_lost = entry.incumbent.is_some_and(|incumbent| incumbent.open().is_none());
    }

    /// Once.
    pub(super) fn take_inherited(&mut self) -> Option<Lineage> {
        std::mem::take(&mut self.inherited).then(|| self.lineage.clone())
    }

    /// It ends with the service.
    pub(super) fn leave(&mut self, tree: Tree, leader: i32) {
        if !self.left.iter().any(|left| left.leader == leader && left.tree.is(&tree.invocation)) {
            self.left.push(Left { tree, leader, was_child: false });
        }
    }

    pub(super) fn wait_for(&mut self, dying: Dying) {
        self.dying.push(dying);
    }

    pub(super) fn note_ended(&mut self, processes: Vec<String>) {
        self.ended.extend(processes);
    }
}

impl Engine {
    /// A process is dead, and not reaped: what it has left is ended with it, or waits for the end of the service.
    pub(super) fn end_tree(&mut self, was: &Was, process: &mut Process, was_child: bool) {
        let Some(tree) = process.tree.take() else { return };
        let alone = matches!(was, Was::Peer(Peer::Incumbent)) && self.machine.handoff().is_none();
        let leader = process.leader;
        if alone || self.leaves_behind(was, process) {
            self.trees.dying.push(tree.end(leader, was_child));
        } else {
            self.trees.left.push(Left { tree, leader, was_child });
        }
        self.tidy_trees();
    }

    /// The same of a process that was killed, as nobody will need it.
    pub(super) fn end_tree_of_killed(&mut self, process: &mut Process) {
        if let Some(tree) = process.tree.take() {
            self.trees.dying.push(tree.end(process.leader, true));
        }
    }

    fn tidy_trees(&mut self) {
        self.trees.dying.retain_mut(|dying| !dying.is_over());
        let (empty, left) = std::mem::take(&mut self.trees.left)
            .into_iter()
            .partition(|left: &Left| left.tree.is_empty(left.leader, left.was_child));
        self.trees.left = left;
        for Left { tree, leader, was_child } in Vec::<Left>::from_iter(empty) {
            self.trees.dying.push(tree.end(leader, was_child));
        }
    }
}

impl Supervisor {
    /// Its descriptor is readable, too, when this one is. Until that is closed.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let watched = self.engine.epoll.add(fd, Token::Also.event());
        watched.map_err(|errno| Error::system("cannot watch a command")(errno.into()))
    }

    /// Ends what processes that were replaced have left behind.
    pub(crate) fn end_left(&mut self) {
        let engine = &mut self.engine;
        for Left { tree, leader, was_child } in std::mem::take(&mut engine.trees.left) {
            tracing::debug!(target: "handoff", service = engine.service, pid = leader, "ends what a process has left");
            engine.trees.dying.push(tree.end(leader, was_child));
        }
    }

    /// Nobody serves, but something that a process has left is not gone yet, and may have its sockets.
    pub(super) fn is_followed(&mut self) -> bool {
        self.end_left();
        self.is_dying()
    }

    /// Which process of the service the last one was: 1, 2, 3, …
    pub(crate) fn generation(&self) -> u64 {
        self.engine.machine.generation()
    }

    /// Whether the journal of the supervisor before names a process that is dead.
    pub(crate) fn has_lost(&self) -> bool {
        self.engine.trees.has_lost
    }

    /// What the marks of all processes of the service begin with.
    pub(crate) fn lineage(&self) -> &Lineage {
        &self.engine.trees.lineage
    }

    /// The pids and commands of processes that were left behind under a supervisor before, and were killed now. Once.
    pub(crate) fn take_ended(&mut self) -> Vec<String> {
        std::mem::take(&mut self.engine.trees.ended)
    }

    /// The process that was taken for the daemon is none, but may be what one has left.
    pub(super) fn leave_incumbent(&mut self) {
        let engine = &mut self.engine;
        let Some(process) = &mut engine.processes.incumbent else { return };
        if let Some(tree) = process.tree.take().filter(|tree| engine.trees.lineage.has(&tree.invocation)) {
            engine.trees.leave(tree, process.leader);
        }
    }

    /// Whether a process that was left behind, and killed, is not gone yet.
    pub(crate) fn is_dying(&mut self) -> bool {
        self.engine.tidy_trees();
        !self.engine.trees.dying.is_empty()
    }
}

//! All that descends from a process of a service, and its end. For the program, whose child becomes whatever has lost its parent
//! ([`adopt_orphans`](crate::sys::descendants::adopt_orphans)); inside of another one that would be none of our business.

mod stragglers;

pub(crate) use stragglers::{Lineage, end_stragglers};

use super::Supervisor;
use super::engine::Engine;
use super::journal::Entry;
use super::process::{Process, Token, Was};
use super::resume::Resumption;
use super::spec::SpawnSpec;
use crate::error::{Error, Result};
use crate::protocol::supervisor::Peer;
use crate::sys::cgroup::{Cgroup, TASK};
use crate::sys::clock::monotonic_ns;
use crate::sys::descendants::{claim, end_with_descendants, orphans, variable_of};
use crate::sys::limits::raise_nofile;
use crate::sys::look::Look;
use crate::sys::pidfd::Pidfd;
use crate::sys::session::end_seen;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
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
        let invocation = String::from_utf8(variable_of(pid, INVOCATION, &mut Look::patient())?).ok()?;
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
    fn has(&self, pid: i32, leader: i32, look: &mut Look) -> bool {
        look.session(pid) == Some(leader) || self.is_marked(pid, look)
    }

    fn is_marked(&self, pid: i32, look: &mut Look) -> bool {
        variable_of(pid, INVOCATION, look).is_some_and(|value| value == self.invocation.as_bytes())
    }

    /// Nothing was started.
    pub(crate) fn discard(self) {
        self.cgroup.iter().for_each(Cgroup::remove);
    }

    /// One that can not tell yet is found at the end.
    fn is_empty(&self, leader: i32, was_child: bool) -> bool {
        let mut look = Look::default();
        let populated = self.cgroup.as_ref().is_some_and(|group| look.see(group.is_populated()).unwrap_or(true));
        let is_left = populated
            || orphans(&mut look).into_iter().any(|pid| self.has(pid, leader, &mut look))
            || !was_child && look.pids().into_iter().any(|pid| self.is_marked(pid, &mut look));
        !is_left && !look.is_blind()
    }

    /// Ends all that a dead process has left, which was the leader of its session. What it left has become ours, if it was our child;
    /// else that of init, or of a manager of the user.
    pub(crate) fn end(self, leader: i32, was_child: bool) -> Dying {
        Left { tree: self, leader, was_child }.end()
    }

    /// Kills what can be found, and puts it to those that die.
    fn kill(&self, leader: i32, was_child: bool, dying: &mut Vec<Pidfd>) -> io::Result<()> {
        let mut look = Look::patient();
        if let Some(group) = &self.cgroup {
            look.see(group.kill());
        }
        dying.extend(self.end_orphans(leader, &mut look));
        if !was_child {
            end_seen(leader, &mut look);
            dying.extend(self.end_strangers(&mut look));
        }
        look.end()
    }

    fn end_orphans(&self, leader: i32, look: &mut Look) -> Vec<Pidfd> {
        let (mut seen, mut dead, mut ended) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for _ in 0..ROUNDS_MAX {
            let found = orphans(look);
            let news: Vec<i32> =
                found.iter().copied().filter(|pid| self.has(*pid, leader, look) && seen.insert(*pid)).collect();
            ended.extend(end_with_descendants(&news, look));
            // One that dies after the list was read may have had children, which are in a later list.
            let mut is_open = |pid: &i32| match look.living(*pid) {
                Some(_) => seen.contains(pid),
                None => dead.insert(*pid),
            };
            if found.iter().filter(|pid| is_open(pid)).count() == 0 || look.is_blind() {
                break;
            }
            std::thread::sleep(ROUND);
        }
        ended
    }

    fn end_strangers(&self, look: &mut Look) -> Vec<Pidfd> {
        let (mut seen, mut ended) = (BTreeSet::new(), Vec::new());
        for _ in 0..ROUNDS_MAX {
            let all = look.pids();
            let news: Vec<i32> =
                all.into_iter().filter(|pid| self.is_marked(*pid, look) && seen.insert(*pid)).collect();
            if news.is_empty() {
                break;
            }
            for pid in news {
                let Some(process) = look.open(pid) else { continue };
                // Looked at again behind the descriptor: the number may have been another's before it.
                if self.is_marked(pid, look) && process.kill(Signal::SIGKILL).is_ok() {
                    ended.push(process);
                }
            }
        }
        ended
    }
}

/// Looks, against processes that are made faster than they are ended, and the time between two.
const ROUNDS_MAX: usize = 100;
const ROUND: Duration = Duration::from_millis(1);

/// What was left can not be looked for: since when, in `CLOCK_MONOTONIC` nanoseconds, and why.
type Blind = Option<(u64, String)>;

/// Only the soft limit may have been lowered: then the next look sees.
fn note_blind(blind: &mut Blind, error: &io::Error) {
    let _ = raise_nofile();
    blind.get_or_insert_with(|| (monotonic_ns(), String::new())).1 = error.to_string();
}

/// Processes that were killed, until they are gone.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Dying {
    processes: Vec<Pidfd>,
    cgroup: Option<Cgroup>,
    /// Of whom it is not known whether there are more.
    #[serde(default)]
    unseen: Option<Box<Left>>,
    #[serde(default)]
    blind: Blind,
}

impl Dying {
    /// It was killed.
    pub(super) fn of_process(process: Pidfd) -> Self {
        Self { processes: vec![process], ..Self::default() }
    }

    /// Kills all that are in it.
    pub(super) fn of_group(group: Cgroup) -> Self {
        let mut dying = Self { cgroup: Some(group), ..Self::default() };
        dying.is_over();
        dying
    }

    /// Whether they are gone; then their control group is. What could not be looked at is looked at again.
    pub(crate) fn is_over(&mut self) -> bool {
        self.processes.retain(|process| !process.is_dead());
        match self.look_again() {
            Ok(is_over) => {
                self.blind = None;
                is_over
            }
            Err(error) => {
                note_blind(&mut self.blind, &error);
                false
            }
        }
    }

    fn look_again(&mut self) -> io::Result<bool> {
        if let Some(left) = &self.unseen {
            left.tree.kill(left.leader, left.was_child, &mut self.processes)?;
            self.cgroup = self.unseen.take().and_then(|left| left.tree.cgroup);
        }
        let Some(group) = &self.cgroup else { return Ok(self.processes.is_empty()) };
        if group.is_populated()? {
            return group.kill().map(|()| false);
        }
        if self.processes.is_empty() {
            group.remove();
        }
        Ok(self.processes.is_empty())
    }

    /// It is not known whether that is all.
    pub(crate) fn blind(&self) -> Option<&(u64, String)> {
        self.blind.as_ref()
    }
}

/// What the processes of a service have left.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Trees {
    pub(super) lineage: Lineage,
    /// It is that of a supervisor before, which may have left something that was not looked for yet.
    #[serde(default)]
    inherited: bool,
    /// Not all could be looked at.
    #[serde(default)]
    inherited_blind: Blind,
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

impl Left {
    fn end(self) -> Dying {
        let mut dying = Dying { unseen: Some(Box::new(self)), ..Dying::default() };
        dying.is_over();
        dying
    }
}

impl Trees {
    /// Goes on with what the journal says.
    pub(super) fn inherit(&mut self, entry: &Entry) {
        if let Some(lineage) = &entry.lineage {
            (self.lineage, self.inherited) = (lineage.clone(), true);
        }
        self.has_lost = entry.incumbent.is_some_and(|incumbent| incumbent.open().is_none());
    }

    /// What is to be looked for.
    fn inherited(&self) -> Option<Lineage> {
        self.inherited.then(|| self.lineage.clone())
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
        self.trees.dying.extend(Vec::<Left>::from_iter(empty).into_iter().map(Left::end));
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
        for left in std::mem::take(&mut engine.trees.left) {
            tracing::debug!(target: "handoff", service = engine.service, pid = left.leader, "ends what a process has left");
            engine.trees.dying.push(left.end());
        }
    }

    /// Of another supervisor's service nobody serves, but something that a process has left is not gone yet, and may have its sockets.
    pub(crate) fn is_followed(&mut self) -> bool {
        if self.engine.resumption() != Resumption::Nobody {
            return false;
        }
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

    /// Whether a process that was left behind, and killed, is not gone yet, or one may be there that could not be looked for.
    pub(crate) fn is_dying(&mut self) -> bool {
        self.engine.tidy_trees();
        self.has_dying()
    }

    /// The same at the last look.
    pub(crate) fn has_dying(&self) -> bool {
        self.engine.trees.inherited || !self.engine.trees.dying.is_empty()
    }

    /// What a process has left can not be looked for: since when, in `CLOCK_MONOTONIC` nanoseconds, and why.
    pub(crate) fn blind(&self) -> Option<&(u64, String)> {
        let trees = &self.engine.trees;
        trees.dying.iter().find_map(Dying::blind).or(trees.inherited_blind.as_ref())
    }
}

//! Processes that descend from this one, also when those between have gone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;

use super::cgroup::Cgroup;
use super::look::{Look, is_blind};
use super::pidfd::Pidfd;
use super::proc;

/// Children that [`super::spawn`] made, and whose ends were not asked for yet. An end can be asked for only once, so nobody may
/// take it from whoever waits for it.
static STARTED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn started() -> MutexGuard<'static, BTreeSet<i32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This child was started here, or found by its pidfd: somebody will wait for it.
pub(crate) fn claim(pid: i32) {
    started().insert(pid);
}

/// Whether somebody here waits for the end of this child: nobody else may reap it.
pub fn is_claimed(pid: i32) -> bool {
    started().contains(&pid)
}

/// Nobody waits for it any more: its number may be another's from now on.
pub(crate) fn release(pid: i32) {
    started().remove(&pid);
}

/// Makes orphans among the descendants of this process its children, instead of init's (prctl(2), `PR_SET_CHILD_SUBREAPER`).
/// Whoever calls this reaps those that nobody here has started, too: see [`is_claimed`].
pub fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(true)?)
}

/// Removes the control groups of supervisors that are gone, and of whose processes nobody is left.
pub fn remove_stale_groups() {
    Cgroup::remove_stale();
}

/// The children of this process that nobody here has started.
pub(crate) fn orphans(look: &mut Look) -> Vec<i32> {
    let own = children(std::process::id().cast_signed(), look);
    let started = started();
    own.into_iter().filter(|pid| !started.contains(pid)).collect()
}

/// The children of a process, as its threads have them (proc_pid_task(5)); zombies, too.
fn children(pid: i32, look: &mut Look) -> Vec<i32> {
    let mut found = Vec::new();
    for task in look.see(proc::tasks(pid)).unwrap_or_default() {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{task}/children"));
        match list {
            Err(ref error) if is_blind(error) => drop(look.see(list)),
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // A kernel without these files (CONFIG_PROC_CHILDREN); or the process has gone.
            Err(_) => return look.pids().into_iter().filter(|child| is_parent(pid, *child, look)).collect(),
        }
    }
    found
}

fn is_parent(pid: i32, child: i32, look: &mut Look) -> bool {
    look.place(child).is_some_and(|place| place.parent == pid)
}

/// Ends these children of ours that nobody has started, with all that descends from them. They may still be dying then.
///
/// Each is stopped before its children are looked for, so that no child appears behind our back. If one of them could not be looked at, they stay
/// stopped: once its parent has gone, nothing might tell whose it is.
pub(crate) fn end_with_descendants(roots: &[i32], look: &mut Look) -> Vec<Pidfd> {
    let own = std::process::id().cast_signed();
    let mut stopped: Vec<(i32, Pidfd)> = Vec::new();
    let mut seen: BTreeSet<i32> = roots.iter().copied().collect();
    let mut found: Vec<(i32, i32)> = roots.iter().map(|pid| (*pid, own)).collect();
    while !found.is_empty() {
        for (pid, parent) in std::mem::take(&mut found) {
            let Some(process) = look.open(pid) else { continue };
            // Looked at again behind the descriptor: the number may have been another's before it.
            if !is_parent(parent, pid, look) {
                continue;
            }
            match process.kill(Signal::SIGSTOP) {
                Ok(()) => stopped.push((pid, process)),
                // One that has got the rights of another user.
                Err(error) => {
                    tracing::warn!(target: "handoff", pid, "a process that was left behind lives on: {error}")
                }
            }
        }
        // Of a process with threads one may have gone on for a moment.
        for (parent, _) in &stopped {
            let children = children(*parent, look);
            let new = |pid: &i32| look.living(*pid).is_some() && seen.insert(*pid);
            found.extend(children.into_iter().filter(new).map(|pid| (pid, *parent)));
        }
    }
    if look.is_blind() {
        return Vec::new();
    }
    let ended = stopped.into_iter().map(|(_, process)| process);
    ended.filter(|process| process.kill(Signal::SIGKILL).is_ok()).collect()
}

/// The value of a variable that a process was started with (proc_pid_environ(5)); none if it may not be looked at.
///
/// There is none to be seen while the process is in execve(2), or in _exit(2) and no zombie yet: it is waited for. One that has another program since
/// the first part was read is read again; a process may also have changed its environment, and has less of it for ever.
pub(crate) fn variable_of(pid: i32, name: &str, look: &mut Look) -> Option<Vec<u8>> {
    const READS: usize = 3;
    let is = |entry: &&[u8]| entry.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
    let mut reads = 0;
    loop {
        let environ = look.see(fs::read(format!("/proc/{pid}/environ")))?;
        let size = environment_size(pid, look);
        reads += usize::from(size.is_some_and(|size| size.is_some()));
        if reads >= READS || size.is_none_or(|size| size == Some(environ.len() as u64)) {
            return environ.split(|byte| *byte == 0).find(is).map(|entry| entry[name.len() + 1..].to_vec());
        }
        if size == Some(None) && !look.pause() {
            return None;
        }
    }
}

/// How long the environment of a process is, if its program is there as a whole. None if it has no program, and will have none: a zombie, a thread
/// of the kernel.
fn environment_size(pid: i32, look: &mut Look) -> Option<Option<u64>> {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let stat =
        look.stat(pid).filter(|stat| !stat.is_dead() && stat.flags().is_some_and(|all| all & PF_KTHREAD == 0))?;
    // execve(2) sets the end of the code after those of the environment.
    let [end_code, start, end] = [27, 50, 51].map(|number| stat.field::<u64>(number));
    Some(end.zip(start).and_then(|(end, start)| end.checked_sub(start)).filter(|_| end_code != Some(0)))
}

#[cfg(test)]
mod tests;

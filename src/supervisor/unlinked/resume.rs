//! Taking over a daemon that does not link the library, and so can not be asked: what the journal says of it, and the kernel.

use super::main_pid::is_socket;
use crate::error::{Error, Result};
use crate::protocol::supervisor::Input;
use crate::protocol::unlinked::Unlinked;
use crate::supervisor::attempt::Attempt;
use crate::supervisor::engine::Engine;
use crate::supervisor::journal::{Entry, Identity, Retired};
use crate::supervisor::resume::Gathered;
use crate::supervisor::spec::SpawnSpec;
use crate::supervisor::trace;
use crate::sys::clock::monotonic_ns;
use crate::sys::pidfd::Pidfd;
use crate::sys::proc::{self, descriptors};
use crate::sys::session::{members, session_of};
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Engine {
    /// Goes on where another supervisor of such a daemon stopped; false if nobody is left.
    pub(in crate::supervisor) fn resume_unlinked(&mut self, entry: &Entry, spec: &SpawnSpec) -> Result<bool> {
        let incumbent = entry.incumbent.and_then(|own| Some((own, own.open()?)));
        let successor = entry.joining.and_then(|own| Some((own, own.open()?)));
        let Some((serving, _)) = incumbent.as_ref().or(successor.as_ref()) else { return Ok(false) };
        let listeners = take_listeners(*serving, &entry.listeners)?;
        self.adoption.gathered = Some(Gathered { count: Some(listeners.len()), listeners });
        self.resuming = true;
        let spec = Arc::new(spec.clone());
        let id = self.new_id();
        self.attempt = Some(Attempt::new(id, spec.clone(), monotonic_ns()));
        self.feed(Input::Unlinked(entry.generation));
        for retired in &entry.leaving {
            self.admit_drained(*retired, &spec);
        }
        let lives = [incumbent.is_some(), successor.is_some()];
        if let Some((own, pidfd)) = incumbent {
            self.admit_incumbent(own.pid, pidfd, entry.program_of(&spec), entry.generation)?;
            self.admit_former(&entry.former);
        }
        if let Some((own, pidfd)) = successor {
            self.admit_successor(own.pid, pidfd, spec, entry.generation + 1);
        }
        self.unlinked.serves = true;
        if entry.joining.is_some() {
            Unlinked::resume(lives[0], lives[1]).into_iter().for_each(|action| self.do_unlinked(action));
        }
        Ok(true)
    }

    /// Whether it was told to stop is not known; nobody is told twice at once. So it gets its stop signal when its grace is
    /// over, and then the grace again.
    fn admit_drained(&mut self, retired: Retired, spec: &Arc<SpawnSpec>) {
        let Retired { identity: own, generation, term } = retired;
        let Some(pidfd) = own.open() else { return };
        let process = self.found(own.pid, pidfd, spec.clone(), generation, None);
        match process.watch(&self.epoll) {
            Ok(()) => _ = self.leave_unlinked(process, term),
            Err(errno) => trace::trouble(&self.service, Some(own.pid), &format!("cannot watch it: {errno}")),
        }
    }
}

/// The listeners that the daemon has, or one of its processes. What none of them has any more is left out.
fn take_listeners(daemon: Identity, wanted: &[(u64, String)]) -> Result<Vec<(String, OwnedFd)>> {
    let mut left: Vec<&(u64, String)> = wanted.iter().collect();
    let mut taken = Vec::new();
    let mut pids = members(session_of(daemon.pid).unwrap_or(daemon.pid));
    pids.sort_by_key(|pid| *pid != daemon.pid);
    for pid in pids {
        let Ok(pidfd) = Pidfd::open(pid) else { continue };
        for number in descriptors(pid) {
            let Some(at) = left.iter().position(|(inode, _)| is_socket(pid, number, *inode)) else { continue };
            let fd = pidfd.descriptor(number).map_err(|error| not_taken(daemon.pid, &left[at].1, &error))?;
            taken.push((left.remove(at).1.clone(), fd));
        }
        if left.is_empty() {
            break;
        }
    }
    // In the order in which daemons get them.
    taken.sort_by_key(|(name, _)| wanted.iter().position(|(_, wanted)| wanted == name));
    Ok(taken)
}

fn not_taken(pid: i32, name: &str, error: &std::io::Error) -> Error {
    let command = proc::command(pid);
    Error::Locked(format!(
        "process {pid} ({command}) of this service lives without a supervisor, and its listener '{name}' can not be taken \
         over (pidfd_getfd: {error}; it needs root, or the same user and the right to trace it): stop it first (kill {pid})"
    ))
}

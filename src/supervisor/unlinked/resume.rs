//! Taking over a daemon that does not link the library, and so can not be asked: what the journal says of it, and the kernel.

use super::main_pid::is_socket;
use crate::error::{Error, Result};
use crate::protocol::supervisor::Input;
use crate::protocol::unlinked::Unlinked;
use crate::supervisor::attempt::Attempt;
use crate::supervisor::engine::Engine;
use crate::supervisor::journal::{Entry, Retired};
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
        let listeners = take_listeners(&[serving.pid], &entry.listeners)?;
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
    /// One that was undone has had it.
    pub(in crate::supervisor) fn admit_drained(&mut self, retired: Retired, spec: &Arc<SpawnSpec>) {
        let Retired { identity: own, generation, term } = retired;
        let Some(pidfd) = own.open() else { return };
        let process = self.found(own.pid, pidfd, spec.clone(), generation, None);
        match process.watch(&self.epoll) {
            Ok(()) => {
                let leaving = self.leave_unlinked(process, term);
                if generation == 0 {
                    leaving.note_told();
                }
            }
            Err(errno) => trace::trouble(&self.service, Some(own.pid), &format!("cannot watch it: {errno}")),
        }
    }

    /// Nobody of these will serve, but they may have the listeners: the next process gets them from there. If they can not be taken,
    /// they are free when those have ended.
    pub(in crate::supervisor) fn take_from(&mut self, pids: &[i32], wanted: &[(u64, String)]) {
        match take_listeners(pids, wanted) {
            Ok(listeners) => self.adoption.gathered = Some(Gathered { count: Some(listeners.len()), listeners }),
            Err(error) => {
                trace::trouble(&self.service, None, &error.to_string());
                self.adoption.occupied = true;
            }
        }
    }
}

/// The listeners that one of these processes has, or one of its session, in the order in which daemons get them. What none of them
/// has any more is left out.
fn take_listeners(daemons: &[i32], wanted: &[(u64, String)]) -> Result<Vec<(String, OwnedFd)>> {
    let mut taken: Vec<Option<OwnedFd>> = wanted.iter().map(|_| None).collect();
    for daemon in daemons {
        let others = members(session_of(*daemon).unwrap_or(*daemon)).into_iter().filter(|pid| pid != daemon);
        for pid in std::iter::once(*daemon).chain(others) {
            if taken.iter().any(Option::is_none) {
                take_from(pid, wanted, &mut taken).map_err(|(at, error)| not_taken(*daemon, &wanted[at].1, &error))?;
            }
        }
    }
    Ok(wanted.iter().zip(taken).filter_map(|((_, name), fd)| Some((name.clone(), fd?))).collect())
}

/// What is still wanted and this process has; or what it has, and why that can not be taken.
fn take_from(
    pid: i32,
    wanted: &[(u64, String)],
    taken: &mut [Option<OwnedFd>],
) -> std::result::Result<(), (usize, std::io::Error)> {
    let Ok(pidfd) = Pidfd::open(pid) else { return Ok(()) };
    for number in descriptors(pid) {
        let is_it =
            |((inode, _), taken): (&(u64, String), &Option<OwnedFd>)| taken.is_none() && is_socket(pid, number, *inode);
        let Some(at) = wanted.iter().zip(taken.iter()).position(is_it) else { continue };
        taken[at] = Some(pidfd.descriptor(number).map_err(|error| (at, error))?);
    }
    Ok(())
}

fn not_taken(pid: i32, name: &str, error: &std::io::Error) -> Error {
    let command = proc::command(pid);
    Error::Locked(format!(
        "process {pid} ({command}) of this service lives without a supervisor, and its listener '{name}' can not be taken \
         over (pidfd_getfd: {error}; it needs root, or the same user and the right to trace it): stop it first (kill {pid})"
    ))
}

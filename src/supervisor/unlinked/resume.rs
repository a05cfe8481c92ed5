//! Taking over a daemon that does not link the library, and so can not be asked: what the journal says of it, and the kernel.

use super::ReadySign;
use super::main_pid::is_socket;
#[cfg(feature = "program")]
use super::readiness::Sign;
use crate::error::{Error, Result};
use crate::protocol::supervisor::{Input, Phase};
use crate::protocol::unlinked::Unlinked;
use crate::supervisor::attempt::Attempt;
use crate::supervisor::engine::Engine;
use crate::supervisor::journal::{Entry, Retired};
use crate::supervisor::resume::{Found, Gathered, uid_of};
use crate::supervisor::spec::SpawnSpec;
use crate::supervisor::trace;
use crate::supervisor::unlinked::UNLINKED;
use crate::sys::clock::monotonic_ns;
use crate::sys::pidfd::Pidfd;
use crate::sys::proc::{self, descriptors};
use crate::sys::session::{members, session_of};
#[cfg(feature = "program")]
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
#[cfg(feature = "program")]
use std::os::unix::fs::OpenOptionsExt;
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

    /// The daemon of the journal has been silent for long enough, or has given a sign of its own: it does not link the library, or its supervisor was
    /// killed before that. It is taken over as one that is up, or will be when it gives its sign; if it says Hello after all, nobody hears it.
    pub(in crate::supervisor) fn adopt_silent(&mut self) -> Result<bool> {
        let Some(spec) = self.attempt.as_ref().map(|attempt| attempt.spec.clone()) else { return Ok(false) };
        let is_known = UNLINKED && self.adoption.found == Found::Journal;
        if !is_known || self.processes.successor.is_some() || self.is_linked() {
            return Ok(false);
        }
        // Those that leave are here already.
        let entry = Entry { leaving: Vec::new(), ..self.last_entry() };
        let is_ready = std::mem::take(&mut self.adoption.ready);
        self.forget_incumbent();
        let resumed = self.resume_unlinked(&entry, &spec)?;
        if resumed && !is_ready {
            self.await_sign_again(&entry);
        }
        Ok(resumed)
    }

    /// The process that serves, or will, was started by another supervisor, which has not seen its sign.
    pub(in crate::supervisor) fn await_sign_again(&mut self, entry: &Entry) {
        let Some(process) = self.processes.incumbent.as_ref().filter(|process| process.spec.ready_sign().is_some())
        else {
            return;
        };
        let (key, pid, sign) = (process.key, process.pid, process.spec.ready_sign().cloned());
        if let Some(ReadySign::Descriptor(_)) = sign {
            self.unlinked.pipe = ready_pipe_of(pid, entry);
            if self.unlinked.pipe.is_none() {
                return; // closed: it has said so, and if not, it never will
            }
        }
        let watched = self.bind_notify(uid_of(pid)).and_then(|()| self.watch_readiness(key));
        if let Err(error) = watched {
            trace::trouble(&self.service, Some(pid), &error.to_string());
        }
    }

    /// Whether the sign of the process that serves, or starts, is still to come.
    pub(in crate::supervisor) fn awaits_sign(&self) -> bool {
        let key = self.processes.incumbent.as_ref().map(|process| process.key);
        self.unlinked.watch.as_ref().is_some_and(|watch| Some(watch.key) == key)
    }

    /// The same of one that was started by another supervisor, and adopted.
    pub(in crate::supervisor) fn was_adopted_unready(&self) -> bool {
        self.awaits_sign() && self.machine.phase() == Phase::Idle && !self.resuming
    }

    /// The sign of a daemon that was adopted has not come in time. What it may have said while there was nobody to hear it counts as said: it is no
    /// failure of the daemon's. No: that can not be.
    #[cfg(feature = "program")]
    pub(in crate::supervisor) fn settle_for_up(&mut self) -> bool {
        let was_adopted = self.was_adopted_unready();
        let is_word =
            self.unlinked.watch.as_ref().is_some_and(|watch| matches!(watch.sign, Sign::Notify | Sign::Pipe(_)));
        if was_adopted && is_word {
            self.on_ready();
        }
        was_adopted && is_word
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

    /// The same of the incumbent of the journal.
    pub(in crate::supervisor) fn take_from_retired(&mut self, pid: i32) {
        let listeners = self.last_entry().listeners;
        self.take_from(&[pid], &listeners);
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

/// The other end of the pipe in which the incumbent of this journal is to say that it is ready, if one of its processes has it.
#[cfg(feature = "program")]
fn ready_pipe_of(pid: i32, entry: &Entry) -> Option<OwnedFd> {
    let link = format!("pipe:[{}]", entry.ready_pipe?);
    let others = members(session_of(pid).unwrap_or(pid)).into_iter().filter(|other| *other != pid);
    let open = |pid: i32| {
        let is_it = |path: &String| fs::read_link(path).is_ok_and(|found| found.as_os_str() == link.as_str());
        let path = descriptors(pid).map(|number| format!("/proc/{pid}/fd/{number}")).find(is_it)?;
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()
    };
    std::iter::once(pid).chain(others).find_map(open).map(OwnedFd::from)
}

#[cfg(not(feature = "program"))]
fn ready_pipe_of(_: i32, _: &Entry) -> Option<OwnedFd> {
    None
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

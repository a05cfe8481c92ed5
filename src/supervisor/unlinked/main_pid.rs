//! `MAINPID=` (sd_notify(3)): a daemon whose main process is replaced by another one of its own, as by a wrapper that starts it and
//! exits, or by gunicorn's USR2.

use super::UNLINKED;
use crate::limits::DEATH_AFTER_END;
use crate::protocol::supervisor::Peer;
use crate::supervisor::engine::Engine;
use crate::supervisor::journal::Identity;
use crate::supervisor::process::{Process, Token, Was};
use crate::supervisor::resume::clean_up_after;
#[cfg(feature = "program")]
use crate::sys::descendants::{claim, release};
use crate::sys::pidfd::Pidfd;
use crate::sys::proc::descriptors;
use crate::sys::session::{belongs_to, end_some_members, members, session_of};
use nix::sys::signal::Signal;
use std::fs;

/// A process that was the main process of a daemon. It is not reaped, so its number is its own.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(in crate::supervisor) struct Former {
    pub(in crate::supervisor) pid: i32,
    /// For the journal.
    pub(in crate::supervisor) identity: Option<Identity>,
    pidfd: Pidfd,
}

impl Former {
    /// Its end.
    #[cfg(feature = "program")]
    pub(in crate::supervisor) fn watch(&self, epoll: &nix::sys::epoll::Epoll) -> nix::Result<()> {
        crate::supervisor::carry::claim_child(self.pid, &self.pidfd);
        epoll.add(&self.pidfd, Token::Former.event())
    }

    /// Reaps it, if it is a child of ours and dead; no if it is and lives.
    fn is_reaped(&self) -> bool {
        let reaped = !matches!(self.pidfd.wait(), Ok(None));
        #[cfg(feature = "program")]
        if reaped {
            release(self.pid); // also of one that was none
        }
        reaped
    }
}

impl Process {
    /// Whether its session is named after it: so it is unless another process was started, and it took its place.
    pub(in crate::supervisor) fn leads(&self) -> bool {
        self.leader == self.pid
    }

    /// Those that have exited meanwhile: nobody waits for that.
    pub(in crate::supervisor) fn reap_former(&mut self) {
        let is_over = |former: &Former| former.pidfd.is_dead() && former.is_reaped();
        if UNLINKED {
            self.former.retain(|former| !is_over(former));
        }
    }

    /// Those that are still there end with the one that followed them.
    pub(in crate::supervisor) fn end_former(&mut self) {
        for former in self.former.drain(..).filter(|_| UNLINKED) {
            let _ = former.pidfd.kill(Signal::SIGKILL);
            former.pidfd.await_death(DEATH_AFTER_END);
            former.is_reaped();
        }
    }

    /// Whether this is a process of the daemon, and lives. Its descriptor was opened before.
    ///
    /// That a process of the daemon names it is no reason to believe it: by now the number may be a stranger's, whom we
    /// would signal, perhaps as root.
    fn has_member(&self, pid: i32, pidfd: &Pidfd) -> bool {
        let near = |leader: i32| belongs_to(pid, leader);
        let is_ours = near(self.leader) || self.former.iter().any(|former| near(former.pid));
        pid > 1 && is_ours && !pidfd.is_dead()
    }
}

impl Engine {
    /// The daemon of this key says which process it is from now on.
    pub(in crate::supervisor) fn on_main_pid(&mut self, key: u64, pid: i32) {
        if let Err(why) = self.replace_main(key, pid) {
            self.refuse_notification(pid, format!("MAINPID={pid} is left out: {why}"));
        }
    }

    fn replace_main(&mut self, key: u64, pid: i32) -> Result<(), String> {
        let linked = match self.processes.peer_of(key) {
            Some(Peer::Incumbent) => self.machine.incumbent_said_hello(),
            Some(Peer::Successor) => !self.waits_for_readiness(),
            Some(Peer::Parked) => true,
            None => return Err("the process that says so was replaced".to_owned()),
        };
        if linked {
            return Err("this daemon links libhandoff, so its session says which process it is".to_owned());
        }
        let Some(process) = self.processes.iter_mut().find(|process| process.key == key) else { return Ok(()) };
        if process.spec.ready_sign().is_none() {
            return Err("only a daemon that is run with --ready may say so".to_owned());
        }
        let none = |error: std::io::Error| format!("there is no such process ({error})");
        let pidfd = Pidfd::open(pid).map_err(none)?;
        if !process.has_member(pid, &pidfd) {
            return Err(format!("it is no process of this daemon, which is process {}", process.pid));
        }
        // It becomes our child when whoever has started it ends, if we are a subreaper.
        #[cfg(feature = "program")]
        claim(pid);
        self.epoll.add(&pidfd, Token::Death(key).event()).map_err(|errno| format!("it can not be watched: {errno}"))?;
        let _ = self.epoll.delete(&process.pidfd);
        let before = std::mem::replace(&mut process.pidfd, pidfd);
        let former = Former { pid: process.pid, identity: process.identity, pidfd: before };
        let watched = self.epoll.add(&former.pidfd, Token::Former.event());
        process.former.retain(|former| former.pid != pid); // it comes back
        process.former.push(former);
        (process.pid, process.identity) = (pid, Identity::of(pid));
        process.leader = session_of(pid).unwrap_or(process.leader);
        let (leader, before) = (process.leader, process.former.last().map(|former| former.pid));
        self.redirect_probe(key, leader);
        tracing::info!(target: "handoff", service = self.service, pid, before, "the daemon has another main process");
        self.record();
        watched.map_err(|errno| format!("the process before it can not be watched: {errno}"))
    }

    /// Those that were the incumbent's main process under another supervisor, and live.
    pub(in crate::supervisor) fn admit_former(&mut self, identities: &[Identity]) {
        let Some(process) = &mut self.processes.incumbent else { return };
        for own in identities {
            let Some(pidfd) = own.open() else { continue };
            let former = Former { pid: own.pid, identity: Some(*own), pidfd };
            // One that can not be watched is ended with the daemon all the same.
            let _ = self.epoll.add(&former.pidfd, Token::Former.event());
            process.former.push(former);
        }
    }

    /// Whether children of a process that died in a handoff may keep the lock from whoever goes on. Those of an incumbent
    /// that was replaced may still serve its last clients.
    pub(in crate::supervisor) fn is_in_the_way(&self, was: &Was) -> bool {
        let committed = self.is_committed();
        match was {
            Was::Peer(Peer::Successor) => true,
            Was::Peer(Peer::Incumbent) => {
                let handed = self.machine.handoff().is_some() && (!committed || self.processes.parked.is_some());
                handed || self.waits_for_readiness()
            }
            Was::Peer(Peer::Parked) | Was::Leaving => false,
        }
    }

    /// Whether what a dead process has left in its session must go with it.
    pub(in crate::supervisor) fn leaves_behind(&self, was: &Was, process: &Process) -> bool {
        self.is_in_the_way(was)
            || match was {
                // One that exits by itself after its replacement may leave its last clients to others.
                Was::Leaving => process.was_killed(),
                Was::Peer(_) => !process.leads() && process.spec.ready_sign().is_some(),
            }
    }

    /// Ends what a dead process has left in a session whose number may be a stranger's by now: but not together with our
    /// lock, or our listeners.
    pub(in crate::supervisor) fn end_known_members(&self, dead: &Process) {
        clean_up_after(dead.pid, &dead.spec);
        // One that was started by hand is in the session of others, if not in ours.
        if dead.spec.ready_sign().is_none() || session_of(std::process::id().cast_signed()) == Some(dead.leader) {
            return;
        }
        let inodes = self.listeners.inodes();
        let has_listener =
            |pid: &i32| descriptors(*pid).any(|number| inodes.iter().any(|(inode, _)| is_socket(*pid, number, *inode)));
        end_some_members(dead.leader, members(dead.leader).into_iter().filter(has_listener));
    }
}

/// Whether this descriptor of a process is this socket.
pub(in crate::supervisor) fn is_socket(pid: i32, number: i32, inode: u64) -> bool {
    let link = fs::read_link(format!("/proc/{pid}/fd/{number}"));
    link.is_ok_and(|target| target.as_os_str() == format!("socket:[{inode}]").as_str())
}

//! What a process leaves behind in its session.

use std::collections::HashMap;
use std::io;

use nix::sys::signal::Signal;

use super::look::Look;
use super::pidfd::Pidfd;
use super::proc::{self, Stat};

/// Sends a signal to every process of this session (setsid(2)), whose leader is dead, and says to how many. The number of a
/// session is not given to another process while it has members; a leader that lives is one who got the number later.
///
/// A process that forks at the same time may be missed: call it again until it says none. A zombie counts as none.
pub fn signal_members(session: i32, signal: Signal) -> usize {
    signal_seen(session, signal, &mut Look::default())
}

fn signal_seen(session: i32, signal: Signal, look: &mut Look) -> usize {
    // Session 0 and 1 are the kernel's and init's.
    if session <= 1 || look.session(session).is_some() || look.is_blind() {
        return 0;
    }
    let mut count = 0;
    for pid in look.pids() {
        let is_member = |look: &mut Look| pid != session && look.session(pid) == Some(session);
        if !is_member(look) {
            continue;
        }
        let Some(process) = look.open(pid) else { continue };
        // Looked at again behind the descriptor: the number may have been reused before it.
        count += usize::from(is_member(look) && process.kill(signal).is_ok());
    }
    count
}

/// Ends those of these processes that are members of this session. They may still be dying then.
pub fn end_some_members(session: i32, pids: impl Iterator<Item = i32>) -> Vec<Pidfd> {
    end_some_seen(session, pids, &mut Look::default())
}

/// The same as a part of a search.
pub(crate) fn end_some_seen(session: i32, pids: impl Iterator<Item = i32>, look: &mut Look) -> Vec<Pidfd> {
    let mut ended = Vec::new();
    for pid in pids.filter(|pid| *pid != session && session > 1) {
        let Some(process) = look.open(pid) else { continue };
        if look.session(pid) == Some(session) && process.kill(Signal::SIGKILL).is_ok() {
            tracing::info!(pid, session, "ended what a process left behind");
            ended.push(process);
        }
    }
    ended
}

/// The processes that live and are members of the session that this process leads or led, or descendants of a member.
pub fn members(leader: i32) -> Vec<i32> {
    let living: HashMap<i32, (i32, i32)> = proc::pids().filter_map(|pid| Some((pid, living(pid)?))).collect();
    let look = |pid: i32| living.get(&pid).copied();
    living.keys().copied().filter(|pid| descends(*pid, leader, look)).collect()
}

/// Whether this process is one of these.
pub fn belongs_to(pid: i32, leader: i32) -> bool {
    descends(pid, leader, living)
}

fn descends(mut pid: i32, leader: i32, look: impl Fn(i32) -> Option<(i32, i32)>) -> bool {
    /// A chain of parents is short; one that changes while it is followed might be endless.
    const PARENTS_MAX: usize = 32;
    for _ in 0..PARENTS_MAX {
        match look(pid) {
            Some((_, session)) if pid == leader || session == leader => return true,
            Some((parent, _)) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    false
}

/// Ends what the leader of a session has left behind.
pub fn end_members(session: i32) {
    end_seen(session, &mut Look::default());
}

/// The same as a part of a search.
pub(crate) fn end_seen(session: i32, look: &mut Look) {
    /// Against a helper that forks faster than we look.
    const ROUNDS_MAX: usize = 10;
    let left = |_: &usize| signal_seen(session, Signal::SIGKILL, look) > 0;
    let rounds = (0..ROUNDS_MAX).take_while(left).count();
    if rounds > 0 {
        tracing::info!(pid = session, "ended what the process left behind");
    }
}

/// The session of a process that is no zombie.
pub fn session_of(pid: i32) -> Option<i32> {
    living(pid).map(|(_, session)| session)
}

/// Parent and session of a process that is no zombie.
fn living(pid: i32) -> Option<(i32, i32)> {
    let place = place_of(pid).ok().filter(|place| !place.is_dead)?;
    Some((place.parent, place.session))
}

/// Where a process is among others.
pub(crate) struct Place {
    /// It is a zombie.
    pub(crate) is_dead: bool,
    pub(crate) parent: i32,
    pub(crate) session: i32,
}

/// `NotFound`, `ESRCH`: no such process.
pub(crate) fn place_of(pid: i32) -> io::Result<Place> {
    let stat = Stat::of(pid)?;
    let field = |number| stat.field(number).ok_or(io::ErrorKind::InvalidData);
    Ok(Place { is_dead: stat.is_dead(), parent: field(4)?, session: field(6)? })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn reaches_those_who_are_left_and_nobody_else() {
        // A leader that ends, and leaves a child that holds the pipe.
        let script = "sleep 1000 & echo $$";
        let mut child = Command::new("setsid").args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let session: i32 = line.trim().parse().unwrap();
        child.wait().unwrap();
        assert_eq!(signal_members(session, Signal::SIGKILL), 1);
        assert_eq!(output.read_to_end(&mut Vec::new()).unwrap(), 0, "it is dying");
        // Its descriptors are closed first; it is a zombie a moment later.
        let until = Instant::now() + Duration::from_secs(60);
        while signal_members(session, Signal::SIGKILL) > 0 {
            assert!(Instant::now() < until, "it never goes");
        }
        assert_eq!(signal_members(1, Signal::SIGKILL), 0);
    }

    #[test]
    fn a_leader_that_lives_is_another_one() {
        let script = "sleep 1000 & echo $$; wait";
        let mut child = Command::new("setsid").args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let session: i32 = line.trim().parse().unwrap();
        assert_eq!(signal_members(session, Signal::SIGKILL), 0, "its number was given again");
        Pidfd::open(session).unwrap().kill(Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert_eq!(signal_members(session, Signal::SIGKILL), 1);
    }

    #[test]
    fn a_descendant_belongs_to_who_leads_its_session_or_its_parents() {
        let script = "setsid sh -c 'echo $$; exec sleep 1000' & echo $$; wait";
        let mut child = Command::new("setsid").args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut pids: Vec<i32> = output.lines().take(2).map(|line| line.unwrap().parse().unwrap()).collect();
        let leader = child.id() as i32;
        pids.retain(|pid| *pid != leader);
        assert!(belongs_to(leader, leader) && belongs_to(pids[0], leader), "another session, but a child");
        assert!(!belongs_to(leader, pids[0]) && !belongs_to(std::process::id() as i32, leader));
        assert!(!belongs_to(i32::MAX, leader));
        let found = members(leader);
        assert!(found.contains(&leader) && found.contains(&pids[0]) && !found.contains(&(std::process::id() as i32)));
        for pid in [pids[0], leader] {
            Pidfd::open(pid).unwrap().kill(Signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
        assert!(!belongs_to(leader, leader));
    }
}

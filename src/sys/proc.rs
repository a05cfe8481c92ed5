//! Looking at other processes through /proc (proc(5)): for messages to people, best effort.
//! What cannot be read is skipped.

use std::fs;

/// The processes that can be seen, the lowest pid first: so the kernel lists them.
pub fn pids() -> impl Iterator<Item = i32> {
    numbers("/proc").into_iter()
}

/// The numbers of the open descriptors of a process.
pub fn descriptors(pid: i32) -> impl Iterator<Item = i32> {
    numbers(&format!("/proc/{pid}/fd")).into_iter()
}

fn numbers(dir: &str) -> Vec<i32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The command line of a process, its arguments joined by spaces, cut to a length for a
/// message; empty if it is gone. A kernel thread or zombie gives its name in brackets.
pub fn command(pid: i32) -> String {
    const CHARS_MAX: usize = 120;
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
    let line = line.trim();
    if line.is_empty() {
        return match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("[{}]", name.trim_end()),
            Err(_) => String::new(),
        };
    }
    line.chars().take(CHARS_MAX).collect()
}

/// Whether a process is stopped, by a signal or a debugger (proc_pid_stat(5)).
pub fn is_stopped(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may itself hold spaces and parentheses.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| matches!(state, 'T' | 't'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::Pidfd;
    use crate::sys::testing::Cat;
    use nix::sys::signal::Signal;
    use std::time::{Duration, Instant};

    #[test]
    fn sees_a_child() {
        let cat = Cat::start();
        assert!(pids().any(|pid| pid == cat.pid()));
        assert!(descriptors(cat.pid()).any(|fd| fd == 0));
        assert_eq!(command(cat.pid()), "cat");
        assert_eq!(command(i32::MAX), "");
        assert!(!is_stopped(cat.pid()) && !is_stopped(i32::MAX));
        Pidfd::open(cat.pid()).unwrap().kill(Signal::SIGSTOP).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while !is_stopped(cat.pid()) {
            assert!(Instant::now() < until, "it never stops");
        }
    }
}

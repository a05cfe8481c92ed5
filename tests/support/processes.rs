//! Processes of a test: who they are, how they are, and signals to them.

use super::{MARK, wait_until};
use std::fs;
use std::process::Command;

/// Processes that carry a mark.
pub fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}");
    let carries = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(carries).collect()
}

pub fn signal(pid: i32, signal: i32) {
    // SAFETY: kill(2) takes two numbers; the pid is one of this test's own processes, which nobody has reaped.
    let result = unsafe { libc_kill(pid, signal) };
    assert_eq!(result, 0, "kill {pid} {signal}");
}

pub const SIGINT: i32 = 2;
pub const SIGKILL: i32 = 9;
pub const SIGSEGV: i32 = 11;
pub const SIGTERM: i32 = 15;
pub const SIGCONT: i32 = 18;
pub const SIGSTOP: i32 = 19;

unsafe extern "C" {
    #[link_name = "kill"]
    pub fn libc_kill(pid: i32, signal: i32) -> i32;
}

/// The state letter of /proc/PID/stat; none if it is gone.
pub fn process_state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Alive: neither gone nor a zombie.
pub fn lives(pid: i32) -> bool {
    !matches!(process_state(pid), None | Some('Z' | 'X'))
}

pub fn wait_for_death(pid: i32) {
    wait_until(&format!("the death of {pid}"), || (!lives(pid)).then_some(()));
}

/// Stops a process, and waits until it stands.
pub fn freeze(pid: i32) {
    signal(pid, SIGSTOP);
    wait_until("stopped", || (process_state(pid) == Some('T')).then_some(()));
}

pub fn thaw(pid: i32) {
    signal(pid, SIGCONT);
}

/// A signal for a process that may have ended by itself meanwhile; false if it has.
pub fn signal_if_there(pid: i32, signal: i32) -> bool {
    // SAFETY: as in `signal`; a pid is not given again within the moments since it was looked up.
    unsafe { libc_kill(pid, signal) == 0 }
}

/// Children of a process, zombies included.
pub fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether the main thread sleeps in poll(2) or epoll_wait(2).
pub fn waits(pid: i32) -> bool {
    let wchan = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    process_state(pid) == Some('S') && wchan.contains("poll")
}

/// Sets the soft limit of descriptors of a process.
pub fn limit_descriptors(pid: i32, soft: u64) {
    let limit = format!("--nofile={soft}:");
    let done = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(done.expect("prlimit is needed").success());
}

pub fn open_descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

//! Looking at other processes through /proc (proc(5)): for messages to people, best effort.
//! What cannot be read is skipped.

use std::io::Read;
use std::str::FromStr;
use std::{fs, io};

/// The processes that can be seen, the lowest pid first: so the kernel lists them.
pub fn pids() -> impl Iterator<Item = i32> {
    all().unwrap_or_default().into_iter()
}

/// The same, for who must know whether they are all.
pub(crate) fn all() -> io::Result<Vec<i32>> {
    numbers("/proc")
}

/// The numbers of the open descriptors of a process.
pub fn descriptors(pid: i32) -> impl Iterator<Item = i32> {
    numbers(&format!("/proc/{pid}/fd")).unwrap_or_default().into_iter()
}

/// The threads of a process.
#[cfg(feature = "program")]
pub(crate) fn tasks(pid: i32) -> io::Result<Vec<i32>> {
    numbers(&format!("/proc/{pid}/task"))
}

fn numbers(dir: &str) -> io::Result<Vec<i32>> {
    let entries = fs::read_dir(dir)?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
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

/// More than the numbers of [`Stat`] can take.
const STAT_BYTES: usize = 4096;

/// What the kernel says of a process: /proc/PID/stat (proc_pid_stat(5)).
pub(crate) struct Stat(Vec<u8>);

impl Stat {
    /// `NotFound`: no such process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        // At once, with room for all of it: the file has no size that could be asked for.
        let mut text = Vec::with_capacity(STAT_BYTES);
        fs::File::open(format!("/proc/{pid}/stat"))?.take(STAT_BYTES as u64).read_to_end(&mut text)?;
        Ok(Self(text))
    }

    /// A field behind the name, counted from 1 as in the manual: from 3 on.
    pub(crate) fn field<T: FromStr>(&self, number: usize) -> Option<T> {
        const FIRST_AFTER_NAME: usize = 3;
        // The second field is the name in parentheses, and may itself hold spaces and parentheses.
        let name_end = self.0.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&self.0[name_end + 1..]).ok()?;
        rest.split_ascii_whitespace().nth(number - FIRST_AFTER_NAME)?.parse().ok()
    }

    /// Its state.
    pub(crate) fn state(&self) -> Option<char> {
        self.field(3)
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state(), Some('Z' | 'X'))
    }

    /// `PF_…`, as the kernel has them (include/linux/sched.h).
    #[cfg(feature = "program")]
    pub(crate) fn flags(&self) -> Option<u32> {
        self.field(9)
    }
}

/// Whether a process is stopped, by a signal or a debugger.
pub fn is_stopped(pid: i32) -> bool {
    Stat::of(pid).is_ok_and(|stat| matches!(stat.state(), Some('T' | 't')))
}

/// Whether a process has been killed, or exits, although it is still there.
#[cfg(feature = "program")]
pub fn is_ending(pid: i32) -> bool {
    const PF_EXITING: u32 = 4;
    let flags = Stat::of(pid).ok().and_then(|stat| stat.flags());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    let pending = pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    flags.is_some_and(|flags| flags & PF_EXITING != 0) || pending & (1 << (libc::SIGKILL - 1)) != 0
}

/// Whether a process has a handler for a signal (`SigCgt`, proc_pid_status(5)).
#[cfg(feature = "program")]
pub fn catches(pid: i32, signal: nix::sys::signal::Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (signal as u32 - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::Pidfd;
    use crate::sys::testing::Cat;
    use nix::sys::signal::Signal;
    use std::time::{Duration, Instant};

    #[test]
    fn fields_of_a_process_with_a_nasty_name() {
        let start_time = |stat: &[u8]| Stat(stat.to_vec()).field::<u64>(22);
        let stat = b"7 (a) S 1 (b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(start_time(stat), Some(4711));
        assert_eq!(start_time(b"7 (a) S 1"), None);
        assert_eq!(start_time(b""), None);
    }

    #[test]
    fn sees_a_child() {
        let cat = Cat::start();
        assert!(pids().any(|pid| pid == cat.pid()));
        assert!(descriptors(cat.pid()).any(|fd| fd == 0));
        assert_eq!(command(cat.pid()), "cat");
        assert_eq!(command(i32::MAX), "");
        assert!(!is_stopped(cat.pid()) && !is_stopped(i32::MAX));
        #[cfg(feature = "program")]
        assert!(!is_ending(cat.pid()) && !is_ending(i32::MAX));
        Pidfd::open(cat.pid()).unwrap().kill(Signal::SIGSTOP).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while !is_stopped(cat.pid()) {
            assert!(Instant::now() < until, "it never stops");
        }
        Pidfd::open(cat.pid()).unwrap().kill(Signal::SIGKILL).unwrap();
        // It may have taken the signal, and not begun to exit.
        #[cfg(feature = "program")]
        while !is_ending(cat.pid()) {
            assert!(Instant::now() < until, "it never ends");
        }
    }
}

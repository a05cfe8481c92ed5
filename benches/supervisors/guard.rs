//! Whatever ends this bench, also SIGKILL or Ctrl-C, ends what it has started.

use crate::support::{SIGKILL, signal_if_there};
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const MARK: &str = "BENCH_OF_SUPERVISORS";
const WATCHES: &str = "BENCH_OF_SUPERVISORS_GUARD";

/// The guard's own life, if this process is one: it waits for the end of its standard input.
pub fn is_one() -> bool {
    let Some(pid) = std::env::var_os(WATCHES).and_then(|pid| pid.into_string().ok()) else { return false };
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let mark = format!("{MARK}={pid}");
    while kill_all(mark.as_bytes()) {
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Dropped, it does its work, and is waited for.
pub struct Guard(Child);

/// In a process group of its own, so that Ctrl-C does not reach it.
pub fn start() -> Guard {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(WATCHES, std::process::id().to_string()).stdin(Stdio::piped()).process_group(0);
    Guard(command.spawn().expect("a guard"))
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

pub fn mark(command: &mut Command) {
    command.env(MARK, std::process::id().to_string());
}

/// False when nobody was left.
fn kill_all(mark: &[u8]) -> bool {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let carries = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == mark)
    };
    pids.filter(carries).fold(false, |_, pid| {
        signal_if_there(pid, SIGKILL);
        true
    })
}

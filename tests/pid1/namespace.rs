//! A namespace of processes of its own, with `handoff run` as its init.

use crate::harness::{Place, Run, wait_until};
use std::fs;
use std::process::Command;

/// Whether this user may make one. If not, that is said aloud, and is an error where everything must be tested (`CI=true`).
pub fn can_unshare() -> bool {
    let made = unshare().arg("true").output().is_ok_and(|output| output.status.success());
    if !made {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "unshare --pid fails, and CI=true");
        eprintln!("SKIPPED: unshare --pid --mount-proc is not permitted here");
    }
    made
}

/// Its exit status is that of the init; when it is killed, everything in the namespace is.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command
}

/// As a shell would start it that has closed these descriptors.
pub fn closing(redirections: &str) -> Vec<String> {
    let script = format!("exec \"$@\" {redirections}");
    ["setsid", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

/// `handoff run`, by this wrapper, with these options, of a script.
pub fn run<'a>(place: &'a Place, wrapper: &[String], options: &[&str], script: &str) -> Run<'a> {
    let handoff = place.handoff("run");
    let mut command = unshare();
    command.args(wrapper).arg(handoff.get_program()).args(handoff.get_args());
    command.args(options).args(["--name", "main", "--", "sh", "-c", script]);
    command.envs(handoff.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(std::process::Stdio::null());
    place.spawn(command)
}

/// The init, as it is called out here.
pub fn init(run: &Run<'_>) -> i32 {
    wait_until("an init", || children(run.pid()).first().copied())
}

/// Its children, zombies included.
pub fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

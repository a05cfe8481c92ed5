//! How the processes of units are started, and how everything that they leave is ended: the program from outside.

mod attributes;
#[path = "../support/copy.rs"]
mod copy;
mod descriptors;
mod errors;
#[allow(dead_code, reason = "it is that of another test, which uses all of it")]
#[path = "../program/harness.rs"]
mod harness;
mod hooks;
mod limits;
mod selfup;
mod stops;
mod trees;
mod users;

use harness::{Place, Run, wait_until};
use std::fs;
use std::path::Path;

/// Writes units, and runs them.
fn up<'a>(place: &'a Place, units: &str) -> Run<'a> {
    let file = place.file("units.toml", units, 0o644);
    let mut command = place.handoff("up");
    command.arg("-c").arg(file).stdout(std::process::Stdio::null());
    place.spawn(command)
}

/// What a process has written to a file, when it is all there.
fn written(path: &Path, lines: usize) -> Vec<String> {
    wait_until(&format!("{lines} lines in {}", path.display()), || {
        let text = fs::read_to_string(path).ok()?;
        let found: Vec<String> = text.lines().map(str::to_owned).collect();
        (found.len() >= lines && text.ends_with('\n')).then_some(found)
    })
}

/// The pid that a process has written to a file.
fn pid_in(path: &Path) -> i32 {
    written(path, 1)[0].trim().parse().unwrap()
}

fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED: only root may become another user");
    }
    root
}

/// Whoever is not its owner may go through the directory of this test.
fn open_to_others(place: &Place) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
}

/// Stops the supervisor, and all that it runs.
fn shut_down(run: &mut Run<'_>) {
    harness::signal(run.pid(), nix::sys::signal::Signal::SIGTERM);
    assert_eq!(run.end(), 0, "{}", run.stderr());
}

//! Orphans are reaped, and nobody's own child is: alone in its program, since it reaps whatever this process has.

#[path = "support/mod.rs"]
mod support;

use handoff::service::reaper::Reaper;
use handoff::sys::descendants::adopt_orphans;
use handoff::sys::spawn::{Child, Spawn, spawn};
use std::ffi::OsString;
use std::path::Path;
use support::{process_state, wait_until};

fn start(script: &str) -> Child {
    let argv = ["sh", "-c", script].map(OsString::from);
    spawn(&Spawn { new_session: true, ..Spawn::new(Path::new("/bin/sh"), &argv) }).unwrap()
}

fn is_zombie(pid: i32) -> bool {
    process_state(pid) == Some('Z')
}

#[test]
fn the_end_of_a_child_is_left_to_whoever_waits_for_it() {
    adopt_orphans().unwrap();
    let first = start("exit 7");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("orphan");
    // It is our child when its parent has ended.
    let second = start(&format!("(echo $$ > /dev/null; exit 3) & echo $! > {}", file.display()));
    wait_until("the ends of both", || (first.pidfd.is_dead() && second.pidfd.is_dead()).then_some(()));
    let orphan: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    wait_until("the end of the orphan", || is_zombie(orphan).then_some(()));

    // The kernel shows the first one, which is awaited: the orphan behind it has to wait, and nothing spins.
    let mut reaper = Reaper::new();
    assert_eq!(reaper.turn(), 0);
    assert!(is_zombie(first.pid) && is_zombie(second.pid));
    assert!(reaper.due_in().is_some_and(|due| !due.is_zero()), "{reaper:?}");
    assert_eq!(first.pidfd.wait().unwrap().unwrap().code, Some(7));
    reaper.wake();
    assert_eq!(reaper.turn(), 0, "another one is before it");
    assert_eq!(second.pidfd.wait().unwrap().unwrap().code, Some(0));
    reaper.wake();
    assert_eq!(reaper.turn(), 1);
    assert_eq!((process_state(orphan), reaper.due_in()), (None, None));
}

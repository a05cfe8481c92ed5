//! Whatever becomes a child of PID 1 is reaped; the end of what it has started itself is never stolen.

use crate::harness::{Place, lives, wait_until};
use crate::namespace::{can_unshare, children, init, run};
use serde_json::json;
use std::process::Command;

/// A thousand orphans that are dead when init gets them or die a moment later, fifty that live on for a while in sessions of their own.
pub const MAKE_ORPHANS: &str = "i=0; while [ $i -lt 1000 ]; do ( (exit 3) & ); i=$((i + 1)); done
i=0; while [ $i -lt 50 ]; do (setsid sleep 0.2 &); i=$((i + 1)); done";

#[test]
fn no_zombie_is_left_of_a_thousand_orphans() {
    if !can_unshare() {
        return;
    }
    let place = Place::new();
    let script = format!("{MAKE_ORPHANS}\nsh -c 'echo last is $$ >&2'; exec sleep 1000");
    let run = run(&place, &[], &[], &script);
    run.wait_for_text("last is ");
    let said = run.stderr();
    let last: u32 = said.split("last is ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(last > 2000, "there were that many: {said}");
    let init = init(&run);
    let main = wait_until("only the main process is left", || match children(init).as_slice() {
        [main] => Some(*main),
        _ => None,
    });
    assert!(lives(main));
}

#[test]
fn the_cause_of_an_end_is_known_among_orphans() {
    if !can_unshare() {
        return;
    }
    let place = Place::new();
    let flag = place.path("second");
    let script = format!(
        "[ -e {0} ] && exec sleep 1000; : > {0}; ( {MAKE_ORPHANS} ) & sleep 0.1; kill -KILL $$",
        flag.display()
    );
    let run = run(&place, &[], &[], &script);
    let service = run.wait_for("a second start", |service| service["restarts"] == 1 && service["state"] == "running");
    assert!(service["why"].as_str().unwrap().contains("killed by signal 9"), "{service}");
    assert_eq!(service["generation"], json!(2));
    let init = init(&run);
    wait_until("no orphan is left", || (children(init).len() == 1).then_some(()));
}

/// The program reaps also when it is no init: what was a child of the shell that has become it.
#[test]
fn children_from_before_the_exec_are_reaped() {
    let place = Place::new();
    let handoff = place.handoff("run");
    let mut shell = Command::new("sh");
    shell.args(["-c", "(exit 3) & sleep 0.2 & exec \"$@\"", "sh"]).arg(handoff.get_program());
    shell.args(handoff.get_args()).args(["--name", "main", "--", "sleep", "1000"]);
    shell.envs(handoff.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = place.spawn(shell);
    run.wait_for("running", |service| service["pid"].is_i64());
    wait_until("only the daemon is left", || (children(run.pid()).len() == 1).then_some(()));
}

//! All units together have a time to stop. What is left then is killed.

use crate::scene::Scene;
use crate::support::{SIGTERM, lives, signal};
use std::fs;

/// Hears no TERM, and would have half an hour.
const DEAF: &str =
    "exec = \"trap '' TERM INT; echo >&3; while :; do sleep 0.1; done\"\nshell = true\nmode = 'none'\nready = 'fd=3'";

fn units() -> String {
    format!(
        "[unit.deaf]\n{DEAF}\nstop = ['TERM 30m', 'KILL']\nrequires = ['needed', 'left']\n\
         [unit.slow]\n{DEAF}\nstop = ['TERM 10m', 'INT 10m', 'QUIT 10m', 'KILL']\nrequires = ['needed']\n\
         [unit.needed]\nexec = \"trap 'echo needed stops >> \\\"$LOG\\\"; sleep 1000' TERM; echo >&3; sleep 1000 & wait\"\n\
         shell = true\nmode = 'none'\nready = 'fd=3'\nstop = ['TERM 30m', 'KILL']\n\
         [unit.left]\nexec = \"setsid sleep 1000 & echo $! > \\\"$DIR/left\\\"; echo >&3; wait\"\nshell = true\n\
         mode = 'none'\nready = 'fd=3'\npost_stop = ['sleep', '1000']\n\
         [unit.begins]\nexec = ['sleep', '1000']\npre_start = ['sleep', '1000']\nstart_timeout = '30m'\nmode = 'none'\nready = 'delay=0s'\n"
    )
}

#[test]
fn what_is_left_is_killed_when_the_time_for_all_is_over() {
    let mut scene = Scene::place(&units());
    scene.launch_with(&["--shutdown-timeout", "2s"]);
    scene.all_run(&["deaf", "slow", "needed", "left"]);
    scene.wait_for("begins", "starting");
    let left: i32 = fs::read_to_string(scene.place.path("left")).unwrap().trim().parse().unwrap();
    let pids = ["deaf", "slow", "needed", "left"].map(|name| scene.pid(name));
    signal(scene.supervisor(), SIGTERM);
    assert_eq!(scene.end(), 0, "{}", scene.stderr());
    assert!(!pids.into_iter().chain([left]).any(lives), "{}", scene.stderr());
    let said = scene.stderr();
    let at = |line: &str| said.find(line).unwrap_or_else(|| panic!("{line:?} is not in {said}"));
    at("after 2 s, what is left is killed");
    for name in ["deaf", "slow", "needed", "left"] {
        let killed = at(&format!("{name}: stops: the time for the shutdown is over; killed"));
        assert!(killed < at(&format!("{name}: ended: ")), "until then each has what it wants: {said}");
    }
    // What others need is told to stop only when they are gone.
    for name in ["needed", "left"] {
        assert!(!said.contains(&format!("{name}: stops: SIGTERM")), "{said}");
    }
}

//! Children that end around it: each end is known exactly.

use crate::harness::{Place, text};
use crate::{executes, must_upgrade, other_program, up, wait_for, wait_for_state};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

/// Each group ends in a self-upgrade of its own.
const GROUPS: usize = 10;
const IN_GROUP: usize = 6;

#[test]
fn no_exit_status_is_lost() {
    let place = Place::new();
    let fifo = |group: usize| place.path(&format!("fifo{group}"));
    (0..GROUPS).for_each(|group| nix::unistd::mkfifo(&fifo(group), nix::sys::stat::Mode::S_IRWXU).unwrap());
    // Open for both: so nobody waits for another one, and no line is lost.
    let open = |group| fs::File::options().read(true).write(true).open(fifo(group)).unwrap();
    let mut fifos: Vec<fs::File> = (0..GROUPS).map(open).collect();
    let mut units = String::new();
    for number in 0..GROUPS * IN_GROUP {
        let end = match number % 3 {
            0 => "exit 0".to_owned(),
            1 => format!("exit {}", 1 + number),
            _ => "kill -USR1 $$; sleep 1000".to_owned(),
        };
        // Before it, in the midst of it, and after it.
        let time = (number % IN_GROUP) as f64 * 0.02;
        let fifo = fifo(number / IN_GROUP);
        let _ = write!(
            units,
            "[unit.u{number}]\nexec = [\"/bin/sh\", \"-c\", \"read line < {}; sleep {time}; {end}\"]\nmode = \"none\"\n\
             ready = \"delay=0ms\"\nrestart = \"never\"\n",
            text(&fifo)
        );
    }
    let run = up(&place, &units);
    let programs = [other_program(&place), executes(run.pid())];
    (0..GROUPS * IN_GROUP).for_each(|number| drop(wait_for_state(&place, &format!("u{number}"), "running")));
    for (group, fifo) in fifos.iter_mut().enumerate() {
        fifo.write_all("go\n".repeat(IN_GROUP).as_bytes()).unwrap();
        must_upgrade(&place, &programs[group % 2]);
    }
    let ended = |unit: &serde_json::Value| unit["state"] == "failed" || unit["state"] == "stopped";
    for number in 0..GROUPS * IN_GROUP {
        let unit = wait_for(&place, &format!("u{number}"), "over", ended);
        let why = unit["why"].as_str().unwrap();
        let wanted = match number % 3 {
            0 => "status 0".to_owned(),
            1 => format!("exit status {}", 1 + number),
            _ => "SIGUSR1".to_owned(),
        };
        assert!(why.contains(&wanted), "u{number}: {wanted:?} is not in {why:?}");
    }
}

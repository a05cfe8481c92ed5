//! What a new configuration changes.

use std::collections::BTreeSet;
use std::path::Path;

use handoff::service::config::{Config, File, UNIT_KEYS};
use proptest::collection::btree_map;
use proptest::prelude::*;

use crate::cases;

fn config(text: &str) -> Config {
    Config::of(&[File { path: Path::new("x.toml").into(), content: Ok(text.into()) }])
}

/// Lines that may be in a unit: of each key two that differ, and one that says the default.
const LINES: &[(&str, [&str; 3])] = &[
    ("user", ["user = \"a\"", "user = \"b\"", ""]),
    ("env", ["env.A = \"1\"", "env = { A = \"2\", B = \"1\" }", "env = {}"]),
    ("autostart", ["autostart = false", "autostart = false # as before", "autostart = true"]),
    ("start_timeout", ["start_timeout = \"5s\"", "start_timeout = \"1m\"", "start_timeout = \"0.5m\""]),
    ("listen", ["listen = [\"a=127.0.0.1:0\"]", "listen = [\"a=127.0.0.1:0,backlog=5\"]", "listen = []"]),
];

fn value(line: usize, choice: usize) -> usize {
    // The first two of autostart are the same.
    if LINES[line].0 == "autostart" && choice == 1 { 0 } else { choice }
}

type Units = std::collections::BTreeMap<usize, [usize; 5]>;

fn text(units: &Units) -> String {
    let lines = |choices: &[usize; 5]| {
        choices.iter().enumerate().map(|(line, choice)| format!("{}\n", LINES[line].1[*choice])).collect::<String>()
    };
    units.iter().map(|(unit, choices)| format!("[unit.u{unit}]\n{}exec = [\"x\"]\n", lines(choices))).collect()
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_diff_is_exact(old in btree_map(0usize..6, [0usize..3, 0..3, 0..3, 0..3, 0..3], 0..6), new in btree_map(0usize..6, [0usize..3, 0..3, 0..3, 0..3, 0..3], 0..6)) {
        let (before, after) = (config(&text(&old)), config(&text(&new)));
        prop_assert!(before.faults.is_empty() && after.faults.is_empty(), "{:?} {:?}", before.faults, after.faults);
        let diff = before.diff(&after);
        for unit in 0..6 {
            let name = format!("u{unit}");
            let keys = |old: &[usize; 5], new: &[usize; 5]| -> BTreeSet<&str> {
                (0..5).filter(|line| value(*line, old[*line]) != value(*line, new[*line])).map(|line| LINES[line].0).collect()
            };
            let differ = old.get(&unit).zip(new.get(&unit)).map(|(old, new)| keys(old, new)).unwrap_or_default();
            prop_assert_eq!(diff.added.contains(&name), !old.contains_key(&unit) && new.contains_key(&unit));
            prop_assert_eq!(diff.removed.contains(&name), old.contains_key(&unit) && !new.contains_key(&unit));
            let told: BTreeSet<&str> = diff.changed.get(&name).into_iter().flatten().copied().collect();
            prop_assert_eq!(&told, &differ);
            let same = old.contains_key(&unit) && new.contains_key(&unit) && differ.is_empty();
            prop_assert_eq!(diff.unchanged.contains(&name), same);
        }
    }
}

/// Each key alone is a change of that key, and the same again is none.
#[test]
fn every_key_counts() {
    let other = "[unit.other]\nexec = [\"x\"]\n[unit.task]\nexec = [\"x\"]\noneshot = true\n[unit.third]\nexec = [\"x\"]\nautostart = false\n";
    let lines = [
        "shell = true\npre_start = \"x\"",
        "dir = \"/\"",
        "env = { A = \"1\" }",
        "env_file = \"/e\"",
        "user = \"a\"",
        "group = \"a\"",
        "umask = \"0\"",
        "rlimits = { nofile = 1 }",
        "no_new_privs = true",
        "oom_score_adj = 1",
        "listen = [\"a=[::1]:0\"]",
        "data_dir = \"/d\"",
        "mode = \"none\"\nready = \"notify\"",
        "start_timeout = \"1s\"",
        "autostart = false",
        "oneshot = true",
        "system = true",
        "requires = [\"other\"]",
        "wants = [\"other\"]",
        "after = [\"task\"]",
        "conflicts = [\"third\"]",
        "post_stop = [\"x\"]",
        "stop = [\"INT 1s\", \"KILL\"]",
        "restart = \"always\"",
        "backoff.first = \"1s\"",
        "restart_limit.count = 1",
        "health = { exec = [\"x\"] }",
        "watchdog = \"1s\"",
        "mode = \"overlap\"",
        "probation = \"1s\"",
        "deadline = \"1s\"",
        "drain_grace = \"1s\"",
        "ready_timeout = \"1s\"",
        "hello_timeout = \"1s\"",
        "mode = \"overlap\"\nmax_draining = 1",
        "log.lines = 1",
        "pre_start = [\"y\"]",
    ];
    let before = config(&format!("{other}[unit.u]\nexec = [\"x\"]\n"));
    assert_eq!(before.faults, []);
    let mut seen: BTreeSet<&str> = BTreeSet::from(["exec", "shell"]);
    for line in lines {
        let after = config(&format!("{other}[unit.u]\nexec = [\"x\"]\n{line}\n"));
        assert_eq!(after.faults, [], "{line}");
        let diff = before.diff(&after);
        let keys: BTreeSet<&str> = diff.changed["u"].iter().copied().collect();
        let written = line.lines().map(|line| line.split([' ', '.']).next().unwrap()).filter(|key| *key != "shell");
        assert_eq!(keys, written.collect(), "{line}");
        assert_eq!((diff.changed.len(), diff.unchanged.len()), (1, 3));
        assert!(after.diff(&after).changed.is_empty());
        seen.extend(keys);
    }
    assert_eq!(seen, UNIT_KEYS.iter().copied().collect());
    let other_program = config(&format!("{other}[unit.u]\nexec = [\"y\"]\n"));
    assert_eq!(before.diff(&other_program).changed["u"], ["exec"]);
}

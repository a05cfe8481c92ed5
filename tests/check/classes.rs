//! One mistake each, in a file that is in order otherwise: its line, and whom it takes along.

use std::fs;
use std::os::unix::fs::symlink;

use crate::check;

/// A unit that has nothing to do with any of it.
const BYSTANDER: &str = "[unit.bystander]\nexec = [\"x\"]\n";

/// `unit` with these lines after `exec`; the fault is in line `line` of the file, at `column`, and has this text.
pub fn in_unit(lines: &str, line: usize, column: usize, text: &str) {
    in_file(&format!("[unit.u]\nexec = [\"x\"]\n{lines}\n"), &[&format!("{line}:{column}: {text}")]);
}

/// What is told of a file, and nothing else; the bystander can run.
pub fn in_file(units: &str, told: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f.toml"), format!("{units}{BYSTANDER}")).unwrap();
    let said = check(dir.path(), &["-c", "f.toml"]);
    let lines: Vec<&str> = said.stdout.lines().collect();
    let (summary, faults) = lines.split_last().unwrap();
    let told: Vec<String> = told.iter().map(|told| format!("f.toml:{told}")).collect();
    assert_eq!(faults, told, "{units}");
    assert_eq!((said.code, said.stderr.as_str()), (1, ""));
    let json = check(dir.path(), &["-c", "f.toml", "--json"]).json();
    let good: Vec<&str> = json["units"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(good.contains(&"bystander"), "{units}{good:?}");
    assert!(summary.contains(" could run"), "{summary}");
}

#[test]
fn keys() {
    in_unit("exce = 1", 3, 1, "u, exce: unknown key 'exce' of a unit; do you mean 'exec'?");
    in_unit("colour = 1", 3, 1, "u, colour: unknown key 'colour' of a unit; leave it out");
    in_unit(
        "log = { size = 1 }",
        3,
        9,
        "u, log.size: unknown key 'size' of 'log'; there are lines, bytes, dir, file_bytes, files",
    );
    in_file("[unit.u]\n", &["1:7: u: there is no 'exec'; write exec = [\"/path/of/program\", \"argument\", …]"]);
    in_file("[target.t]\n", &["1:9: t: there is no 'units'; write units = [\"NAME\", …]"]);
    in_file("[unit]\nu = 3\n", &["2:1: u: this is no table; write [unit.NAME], and keys under it"]);
    in_file("[service.u]\n", &["1:2: service: unknown key 'service'; write [unit.NAME], and keys under it"]);
}

#[test]
fn types() {
    in_unit("user = 33", 3, 8, "u, user: a whole number has no meaning here; write a name, or a number in quotes");
    in_unit("autostart = \"no\"", 3, 13, "u, autostart: a string has no meaning here; write true or false");
    in_unit(
        "start_timeout = 30",
        3,
        17,
        "u, start_timeout: a whole number has no meaning here; write a time in quotes, like \"30s\"",
    );
    in_unit(
        "requires = \"db\"",
        3,
        12,
        "u, requires: a string has no meaning here; write [\"NAME\", \"NAME:CONDITION\", …]",
    );
    in_unit("env = [\"A=1\"]", 3, 7, "u, env: an array has no meaning here; write a table");
    in_unit(
        "pre_start = \"x | y\"",
        3,
        13,
        "u, pre_start: a string would need a shell; write [\"/path/of/program\", \"argument\", …], or add shell = true",
    );
}

#[test]
fn values() {
    in_unit("umask = \"0999\"", 3, 9, "u, umask: '0999' is no umask; write an octal number up to 0777, like \"0027\"");
    in_unit("deadline = \"30sec\"", 3, 12, "u, deadline: 'sec' is no unit of time; do you mean '30s'?");
    in_unit("log.bytes = \"3mb\"", 3, 13, "u, log.bytes: 'mb' is no unit of size; do you mean '3MiB'?");
    in_unit("deadline = \"3d\"", 3, 12, "u, deadline: 'd' is no unit of time; write 500ms, 30s, 5m or 1h");
    in_unit(
        "watchdog = \"0s\"",
        3,
        12,
        "u, watchdog: '0s' has no meaning here; write a time longer than 0: nothing is done in no time",
    );
    in_unit("dir = \"data\"", 3, 7, "u, dir: 'data' is no path from the root; write one that begins with /");
    in_unit(
        "mode = \"rolling\"",
        3,
        8,
        "u, mode: 'rolling' is none of these; write \"exclusive\" or \"overlap\" or \"none\"",
    );
    in_unit("oom_score_adj = 1001", 3, 17, "u, oom_score_adj: the number is out of range; write -1000 to 1000");
    in_unit(
        "rlimits.nofile = 99999999999999999999",
        3,
        18,
        "u, rlimits.nofile: the number is out of range; write 0 or more",
    );
    in_unit(
        "listen = [\"a=127.0.0.1:0\", \"b=unix:run\"]",
        3,
        28,
        "u, listen: listener 'b=unix:run': the path is not from the root; write unix:/path",
    );
    in_unit(
        "env = { \"A=B\" = \"\" }",
        3,
        9,
        "u, env.A=B: \"A=B\" can not be the name of a variable; choose another name",
    );
    in_unit(
        "pre_start = [\"a\\u0000b\"]",
        3,
        14,
        "u, pre_start: a NUL can not be passed on to a program or the kernel; leave it out",
    );
    in_unit(
        "stop = [\"KILL\", \"TERM 1s\"]",
        3,
        8,
        "u, stop: nothing else surely ends a process; write \"KILL\" once, as the last step",
    );
    in_unit("stop = [\"STOP 1s\", \"KILL\"]", 3, 9, "u, stop: no daemon can act on it; write TERM or QUIT");
    in_unit(
        "health = { url = \"localhost:80\" }",
        3,
        18,
        "u, health.url: 'localhost:80' has no meaning here; write tcp://127.0.0.1:80, http://127.0.0.1:80/path, unix:/run/app.sock or http+unix://%2Frun%2Fapp.sock/path",
    );
    in_unit(
        "health = { url = \"http://127.0.0.1:80\", status = \"600\" }",
        3,
        50,
        "u, health.status: '600' is no status of HTTP; write \"200\" or \"200-299\", from 100 to 599",
    );
    in_unit("log = { bytes = \"1 MB\" }", 3, 17, "u, log.bytes: ' MB' is no unit of size; do you mean '1MiB'?");
    in_unit(
        "rlimits = { nofile = \"2:1\" }",
        3,
        22,
        "u, rlimits.nofile: '2:1' has a soft limit above the hard one; write the smaller one first",
    );
}

#[test]
fn contradictions() {
    let replaced = "a oneshot ends, and is neither asked nor replaced; leave it out, or leave oneshot out";
    in_unit("oneshot = true\nprobation = \"1m\"", 4, 13, &format!("u, probation: {replaced}"));
    in_unit(
        "oneshot = true\nrestart = \"always\"",
        4,
        11,
        "u, restart: a oneshot that is done is not started again; write \"on-failure\" or \"never\"",
    );
    in_unit(
        "ready = \"notify\"",
        3,
        9,
        "u, ready: only a daemon that links libhandoff can be replaced in exclusive mode; add mode = \"overlap\" or mode = \"none\"",
    );
    in_unit(
        "ready = \"health\"\nmode = \"none\"",
        3,
        9,
        "u, ready: there is no health to ask; add health = { url = \"…\" }, or write ready = \"health=URL\"",
    );
    in_unit(
        "ready = \"health\"\nmode = \"overlap\"\nhealth = { exec = [\"/bin/true\"] }",
        3,
        9,
        "u, ready: a command can not tell which of two processes it has asked; write health.url, or mode = \"none\"",
    );
    in_unit(
        "mode = \"none\"\ndeadline = \"1m\"",
        4,
        12,
        "u, deadline: with mode = \"none\" there is no handoff; leave one of them out",
    );
    in_unit(
        "mode = \"overlap\"\nprobation = \"1m\"",
        4,
        13,
        "u, probation: there is a probation in exclusive mode only; leave it out",
    );
    in_unit(
        "max_draining = 3",
        3,
        16,
        "u, max_draining: only in overlap mode processes drain beside each other; leave it out, or add mode = \"overlap\"",
    );
    in_unit(
        "restart = \"never\"\nbackoff.max = \"1s\"",
        4,
        1,
        "u, backoff: with restart = \"never\" nothing is started again; leave one of them out",
    );
    in_unit(
        "backoff = { first = \"1m\", max = \"1s\" }",
        3,
        21,
        "u, backoff.first: the first wait is longer than the longest; make 'first' smaller or 'max' larger",
    );
    in_unit(
        "shell = true",
        3,
        9,
        "u, shell: no command is a string for a shell; leave shell out, or write exec = \"COMMAND | COMMAND\"",
    );
    in_unit(
        "health = { url = \"tcp://[::1]:1\", exec = [\"x\"] }",
        3,
        42,
        "u, health.exec: there is a url, too, and one thing is asked; leave one of them out",
    );
    in_unit("health.retries = 2", 3, 1, "u, health: nothing is asked; write a url, or exec = […]");
    in_unit(
        "health = { exec = [\"x\"], status = \"200\" }",
        3,
        35,
        "u, health.status: only http:// and http+unix:// have a status; leave it out",
    );
}

/// What no machine has, and no process can wait for.
#[test]
fn what_can_not_be() {
    for number in ["4294967295", "99999999999999999999"] {
        for key in ["user", "group"] {
            let text =
                format!("u, {key}: {number} can not be the number of a user or group; write one below 4294967295");
            in_unit(&format!("{key} = \"{number}\""), 3, key.len() + 4, &text);
        }
    }
    in_unit(
        "mode = \"none\"\nready = \"fd=99999999\"",
        4,
        9,
        "u, ready: no process has descriptor 99999999; the first one that is free is 3",
    );
    in_unit(
        "mode = \"none\"\nready = \"delay=30s\"",
        4,
        9,
        "u, ready: the delay is not over within start_timeout, 30s; make it shorter, or 'start_timeout' longer",
    );
    in_unit(
        "mode = \"overlap\"\nready = \"delay=20s\"\nready_timeout = \"10s\"",
        4,
        9,
        "u, ready: the delay is not over within ready_timeout, 10s; make it shorter, or 'ready_timeout' longer",
    );
    in_unit(
        "mode = \"overlap\"\nready = \"delay=20s\"\ndeadline = \"15s\"",
        4,
        9,
        "u, ready: the delay is not over within deadline, 15s; make it shorter, or 'deadline' longer",
    );
}

/// What is next to that, and can be.
#[test]
fn what_can_just_be() {
    let dir = tempfile::tempdir().unwrap();
    let keys = "mode = \"none\"\nready = \"delay=29s\"\nuser = \"4294967294\"\ngroup = \"12345678\"\n";
    let far = "mode = \"none\"\nready = \"fd=1000\"\n";
    let text = format!(
        "[unit.u]\nexec = [\"x\"]\n{keys}[unit.\"v.control.b\"]\nexec = [\"x\"]\n{far}[target.v]\nunits = [\"u\"]\n"
    );
    fs::write(dir.path().join("f.toml"), text).unwrap();
    let said = check(dir.path(), &["-c", "f.toml"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "2 units and 1 target, all well\n"));
}

#[test]
fn names() {
    in_file(
        "[unit.\"u.control\"]\nexec = [\"x\"]\n[target.\".control\"]\nunits = [\"bystander\"]\n",
        &[
            "1:7: u.control: files of 'u' begin so; rename it: no name ends in .control",
            "3:9: .control: this can not be a name; rename it: 1 to 48 letters, digits and any of -_.@+, the first a letter, a digit or _",
        ],
    );
    in_file(
        "[unit.\"a/b\"]\nexec = [\"x\"]\n",
        &[
            "1:7: a/b: this can not be a name; rename it: 1 to 48 letters, digits and any of -_.@+, the first a letter, a digit or _",
        ],
    );
    in_file(
        "[unit.u]\nexec = [\"x\"]\n[target.u]\nunits = [\"bystander\"]\n",
        &[
            "1:7: u: the name is there twice, at f.toml:3:9; rename this one",
            "3:9: u: the name is there twice, at f.toml:1:7; rename this one",
        ],
    );
    in_file(
        "[unit.u]\nexec = [\"x\"]\nsystem = true\n[target.u]\nunits = [\"bystander\"]\n",
        &["4:9: u: there is a system unit of this name, at f.toml:1:7; rename this one"],
    );
    in_file(
        "[unit.u]\nexec = [\"x\"]\n[unit.u]\nexec = [\"y\"]\n",
        &["3:7: u: this is there twice; leave one of them out"],
    );
}

#[test]
fn nothing_in_a_file_reaches_the_terminal() {
    in_file(
        "[unit.\"a\\u001b[31m\"]\nexec = [\"x\"]\n\"k\\n\" = 1\n",
        &[
            "1:7: a\\u{1b}[31m: this can not be a name; rename it: 1 to 48 letters, digits and any of -_.@+, the first a letter, a digit or _",
            "3:1: a\\u{1b}[31m, k\\n: unknown key 'k\\n' of a unit; leave it out",
        ],
    );
}

#[test]
fn what_two_units_claim() {
    let pair = |a: &str, b: &str| format!("[unit.a]\nexec = [\"x\"]\n{a}\n[unit.b]\nexec = [\"x\"]\n{b}\n");
    in_file(
        &pair("listen = [\"http=127.0.0.1:80\"]", "listen = [\"web=0.0.0.0:80\"]"),
        &[
            "3:11: a, listen: 127.0.0.1:80 is the address of listener 'web' of b, too, at f.toml:6:11; choose another",
            "6:11: b, listen: 0.0.0.0:80 is the address of listener 'http' of a, too, at f.toml:3:11; choose another",
        ],
    );
    in_file(
        &pair("listen = [\"a=unix:/run/./x\"]", "listen = [\"b=unix:/run//x\"]\nsystem = true"),
        &["3:11: a, listen: unix:/run/x is the address of listener 'b' of b, too, at f.toml:6:11; choose another"],
    );
    in_file(
        &pair("data_dir = \"/srv/x\"", "data_dir = \"/srv/x/\""),
        &[
            "3:12: a, data_dir: b writes to this directory, too, at f.toml:6:12; give each its own",
            "6:12: b, data_dir: a writes to this directory, too, at f.toml:3:12; give each its own",
        ],
    );
    in_unit(
        "listen = [\"a=127.0.0.1:0\", \"a=127.0.0.1:1\"]",
        3,
        28,
        "u, listen: the unit has a listener 'a' already; each needs a name of its own",
    );
    in_file(
        "[unit.u]\nexec = [\"x\"]\nlisten = [\"a=[::]:9\", \"b=[::1]:9\"]\n",
        &[
            "3:11: u, listen: [::]:9 is the address of listener 'b' of u, too, at f.toml:3:23; choose another",
            "3:23: u, listen: [::1]:9 is the address of listener 'a' of u, too, at f.toml:3:11; choose another",
        ],
    );
}

#[test]
fn two_names_of_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir(at("real")).unwrap();
    symlink("real", at("link")).unwrap();
    let real = fs::canonicalize(at("real")).unwrap().display().to_string();
    let check_pair = |one: &str, other: &str, both: &str| {
        in_file(
            &format!(
                "[unit.a]\nexec = [\"x\"]\ndata_dir = \"{one}\"\n[unit.b]\nexec = [\"x\"]\ndata_dir = \"{other}\"\n"
            ),
            &[
                &format!("3:12: a, data_dir: b writes to this directory, too, at f.toml:6:12{both}; give each its own"),
                &format!("6:12: b, data_dir: a writes to this directory, too, at f.toml:3:12{both}; give each its own"),
            ],
        );
    };
    for other in [at("./real"), at("real/")] {
        check_pair(&at("real"), &other, "");
    }
    check_pair(&at("real"), &at("link"), &format!(" (both are {real})"));
    check_pair(&at("real"), &at("link/../real"), &format!(" (both are {real})"));
    // Also what is not there yet.
    check_pair(&at("real/x/y"), &at("link/x/./y"), &format!(" (both are {real}/x/y)"));
}

#[test]
fn dependencies() {
    in_unit(
        "requires = [\"bystandr\"]",
        3,
        13,
        "u, requires: there is no unit or target 'bystandr'; do you mean 'bystander'?",
    );
    in_unit(
        "after = [\"postgres\"]",
        3,
        10,
        "u, after: there is no unit or target 'postgres'; write [unit.postgres], or leave it out",
    );
    in_unit(
        "requires = [\"bystander:up\"]",
        3,
        13,
        "u, requires: 'up' is no condition; write started, healthy or completed",
    );
    in_unit(
        "requires = [\"bystander:healthy\"]",
        3,
        13,
        "u, requires: 'bystander' has no health; write \"bystander\", or add health there",
    );
    in_unit(
        "wants = [\"bystander:completed\"]",
        3,
        10,
        "u, wants: 'bystander' is no oneshot, and goes on; write \"bystander\", or add oneshot = true there",
    );
    in_unit(
        "after = [\"t:started\"]\n[target.t]\nunits = [\"bystander\"]",
        3,
        10,
        "u, after: 't' is a target, whose units have conditions of their own; write \"t\"",
    );
    in_unit("requires = [\"u\"]", 3, 13, "u, requires: it waits for itself: u -> u; take one of these steps out");
    in_file(
        "[unit.a]\nexec = [\"x\"]\nrequires = [\"b\"]\n[unit.b]\nexec = [\"x\"]\nrequires = [\"t\"]\n[target.t]\nunits = [\"c\", \"bystander\"]\n[unit.c]\nexec = []\n",
        &[
            "3:13: a, requires: 'b' can not run, see f.toml:4:7; mend that first",
            "6:13: b, requires: 't' can not run, see f.toml:7:9; mend that first",
            "10:8: c, exec: there is no program; write [\"/path/of/program\", \"argument\", …]",
        ],
    );
}

#[test]
fn conflicts() {
    in_unit("conflicts = [\"u\"]", 3, 14, "u, conflicts: the unit can not conflict with itself; leave it out");
    in_unit(
        "conflicts = [\"bystander\"]",
        3,
        14,
        "u, conflicts: 'bystander' conflicts, and both are started automatically; add autostart = false to one of them",
    );
    in_unit(
        "conflicts = [\"bystander\"]\nrequires = [\"bystander\"]",
        3,
        14,
        "u, conflicts: 'bystander' is required as well; leave out one of the two",
    );
    in_file(
        "[unit.u]\nexec = [\"x\"]\nrequires = [\"bystander\", \"v\"]\n[unit.v]\nexec = [\"x\"]\nconflicts = [\"bystander\"]\nautostart = false\n",
        &["3:26: u, requires: 'v' conflicts with 'bystander', which would have to run, too; leave out one of the two"],
    );
}

#[test]
fn syntax() {
    in_file(
        "[unit.u]\nexec = [\"x\"]\numask = 0027\n[unit.v]\nexec = [\"x\"]\nrequires = [\"u\"]\n[unit.u.env]\nA = \"1\"\n",
        &[
            "3:9: u, umask: no number of TOML begins with 0; leave that out, or, of a umask, put it in quotes: \"0027\"",
            "6:13: v, requires: 'u' can not run, see f.toml:3:9; mend that first",
        ],
    );
    in_file(
        "[unit.u\nexec = [\"x\"]\n[unit.v]\nexec = \"\nrequires = [\"u\"]\n",
        &[
            "1:8: u: this is no TOML: unclosed table, expected ']'; mend it",
            "4:9: v: this is no TOML: invalid basic string, expected '\"'; mend it",
        ],
    );
    in_file(
        "exec = [\n[unit.u]\nexec = [\"x\"]\nlog.lines = 5\n",
        &["1:9: this is no TOML: unclosed array, expected ']'; mend it"],
    );
}

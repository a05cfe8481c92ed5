//! What is meant by what is written, and what can not be meant for this machine.

use std::fs;

use crate::check;
use crate::classes::{in_file, in_unit};

/// As others call it, or as it is cut by a dot.
#[test]
fn keys_that_mean_another_one() {
    in_unit("enviroment = {}", 3, 1, "u, enviroment: unknown key 'enviroment' of a unit; do you mean 'env'?");
    in_unit("command = [\"x\"]", 3, 1, "u, command: unknown key 'command' of a unit; do you mean 'exec'?");
    in_unit(
        "log = { command = 1 }",
        3,
        9,
        "u, log.command: unknown key 'command' of 'log'; there are lines, bytes, dir, file_bytes, files",
    );
    let name = "2:9: u, 1: unknown key '1' of a unit; leave it out, or put the name in quotes if it has a dot: \"u.1\"";
    in_file(
        "[unit.u]\n[unit.u.1]\nexec = [\"x\"]\n",
        &["1:7: u: there is no 'exec'; write exec = [\"/path/of/program\", \"argument\", …]", name],
    );
}

/// It is no TOML, and hides nothing else.
#[test]
fn a_number_that_begins_with_0() {
    let zero = |digits: &str| {
        format!("no number of TOML begins with 0; leave that out, or, of a umask, put it in quotes: \"{digits}\"")
    };
    in_file(
        "[unit.u]\nexec = [\"x\"]\numask = 0022\nflies = 1\nhealth = { exec = [\"x\"], retries = 03 }\n",
        &[
            &format!("3:9: u, umask: {}", zero("0022")),
            "4:1: u, flies: unknown key 'flies' of a unit; leave it out",
            &format!("5:36: u, health.retries: {}", zero("03")),
        ],
    );
}

/// It exits with 0: the units may be meant for another machine.
#[test]
fn what_is_not_on_this_machine_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let units = "[unit.u]\nexec = [\"sleep 1000\"]\nuser = \"nobody-of-this-name\"\ngroup = \"no-such-group\"\npre_start = [\"bin/x\"]\n\
                 [unit.v]\nexec = [\"/bin/echo\", \"a b\"]\nuser = \"root\"\ngroup = \"12345\"\n";
    fs::write(dir.path().join("f.toml"), units).unwrap();
    let said = check(dir.path(), &["-c", "f.toml"]);
    let told = [
        "f.toml:2:8: u, exec: warning: there is no program 'sleep 1000' here; if it has arguments, write [\"sleep\", \"1000\"]",
        "f.toml:3:8: u, user: warning: there is no user 'nobody-of-this-name' on this machine; the unit can not start without",
        "f.toml:4:9: u, group: warning: there is no group 'no-such-group' on this machine; the unit can not start without",
        "f.toml:5:13: u, pre_start: warning: 'bin/x' is looked for from where the supervisor is started; write a path from the root",
        "2 units and 0 targets; 4 warnings",
    ];
    assert_eq!((said.code, said.stdout.lines().collect::<Vec<_>>()), (0, told.to_vec()));
    let json = check(dir.path(), &["-c", "f.toml", "--json"]).json();
    assert_eq!((json["faults"].as_array().unwrap().len(), json["warnings"].as_array().unwrap().len()), (0, 4));
}

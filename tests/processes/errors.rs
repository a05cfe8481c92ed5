//! What can not be started says why, and what to do.

use super::copy::copy_program;
use super::harness::Place;
use super::{is_root, open_to_others, shut_down, up};

/// What is said of a unit with these keys that can not be started.
fn failure(place: &Place, keys: &str, words: &[&str]) {
    let units = format!("[unit.a]\nmode = 'none'\nready = 'delay=1ms'\nrestart = 'never'\n{keys}\n");
    let mut run = up(place, &units);
    for word in words {
        run.wait_for_text(word);
    }
    let why = place.output("why", &["a"]);
    assert!(words.iter().all(|word| why.stdout.contains(word)), "{words:?} in {why:?}");
    shut_down(&mut run);
}

#[test]
fn names_that_nobody_has() {
    failure(
        &Place::new(),
        "exec = ['true']\nuser = 'no-such-user'",
        &["there is no user 'no-such-user' on this machine"],
    );
    failure(&Place::new(), "exec = ['true']\ngroup = 'no-such-group'", &["there is no group 'no-such-group'"]);
    failure(
        &Place::new(),
        "exec = ['true']\nuser = '3999999'",
        &["user 3999999 is not in the user database", "write group"],
    );
}

#[test]
fn files_that_are_not_there() {
    let place = Place::new();
    let none = place.path("none");
    let none = none.display();
    failure(&place, &format!("exec = ['true']\nenv_file = '{none}'"), &["cannot read env_file", &none.to_string()]);
    failure(&Place::new(), &format!("exec = ['true']\ndir = '{none}'"), &["working directory", &none.to_string()]);
    failure(&Place::new(), &format!("exec = ['{none}']"), &[&none.to_string(), "No such file"]);
    let file = place.file("variables", "A=1\nno variable\n", 0o600);
    let line = format!("env_file {}:2: there is no '='", file.display());
    failure(&Place::new(), &format!("exec = ['true']\nenv_file = '{}'", file.display()), &[&line]);
}

#[test]
fn what_another_user_may_not() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    open_to_others(&place);
    let script = place.file("script", "#!/bin/sh\n", 0o700);
    let keys = format!("exec = ['{}']\nuser = 'nobody'", script.display());
    failure(&place, &keys, &["user 65534 may not execute it"]);
    let place = Place::new();
    std::fs::create_dir(place.path("closed")).unwrap();
    std::fs::set_permissions(place.path("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let keys = format!("exec = ['true']\nuser = 'nobody'\ndir = '{}'", place.path("closed").display());
    failure(&place, &keys, &["chdir", "closed: Permission denied"]);
}

#[test]
fn what_only_root_may() {
    if !is_root() {
        return;
    }
    // A supervisor of nobody's own.
    let place = Place::new();
    open_to_others(&place);
    std::fs::create_dir(place.path("runtime")).unwrap();
    nix::unistd::chown(&place.path("runtime"), Some(65534.into()), None).unwrap();
    std::fs::set_permissions(place.path("runtime"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let program = place.path("handoff");
    copy_program(env!("CARGO_BIN_EXE_handoff"), &program);
    for (name, keys, words) in [
        (
            "user",
            "user = 'daemon'",
            ["user 1: only root may start", "run the supervisor as root, or leave out user and group"],
        ),
        ("group", "group = 'daemon'", ["setresgid", "run the supervisor as root"]),
        ("limit", "rlimits = { nofile = '8:99999999' }", ["RLIMIT_NOFILE", "may raise it; write a smaller number"]),
        ("oom", "oom_score_adj = -1000", ["oom_score_adj", "write a larger number"]),
    ] {
        let units =
            format!("[unit.{name}]\nexec = ['true']\nmode = 'none'\nready = 'delay=1ms'\nrestart = 'never'\n{keys}\n");
        let units = place.file(&format!("{name}.toml"), units, 0o644);
        let mut command = place.handoff("up");
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let variables: Vec<_> = command.get_envs().map(|(n, v)| (n.to_owned(), v.unwrap().to_owned())).collect();
        command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(arguments);
        command.arg("-c").arg(units).envs(variables).stdin(std::process::Stdio::null());
        let mut run = place.spawn(command);
        words.iter().for_each(|word| run.wait_for_text(word));
        shut_down(&mut run);
    }
}

//! What descends from a process ends with it, wherever it has gone. Each with control groups, where they can be made, and without.

use super::harness::{Place, Run, lives, signal, wait_until};
use super::{pid_in, shut_down, up, written};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// Runs these units where no control group can be made.
fn up_without_groups<'a>(place: &'a Place, units: &str) -> Run<'a> {
    let file = place.file("units.toml", units, 0o644);
    let of = place.handoff("up");
    let mut command = std::process::Command::new("unshare");
    let line = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", line]).arg(of.get_program()).args(of.get_args()).arg("-c").arg(file);
    command.envs(of.get_envs().map(|(name, value)| (name, value.unwrap()))).stdin(Stdio::null()).stdout(Stdio::null());
    place.spawn(command)
}

/// In two ways, if this machine can do both.
pub fn each_way(test: impl Fn(for<'a> fn(&'a Place, &str) -> Run<'a>)) {
    test(up);
    let hide = ["--mount", "mount", "-t", "tmpfs", "none", "/sys/fs/cgroup"];
    match std::process::Command::new("unshare")
        .args(hide)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        true => test(up_without_groups),
        false => eprintln!("SKIPPED: control groups can not be hidden here"),
    }
}

/// The control group of a process, of version 2.
fn group(pid: i32) -> String {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

/// Starts a child that is in no session of ours, whose parents are gone, and that has nothing of our environment but what says to
/// which test it belongs, and what `env` leaves of the rest.
pub fn leave(pid: &Path, env: &str) -> String {
    format!("setsid sh -c \"{env} setsid sleep 1000 & echo \\$! > {}\" & wait", pid.display())
}

pub fn unit(line: &str, keys: &str) -> String {
    format!("[unit.a]\nshell = true\nexec = '{line}'\nmode = 'none'\nready = 'delay=1ms'\n{keys}\n")
}

/// It writes its pid to `main`, and that of what it leaves to `left`.
fn unit_that_leaves(place: &Place, env: &str) -> String {
    let (left, main) = (place.path("left"), place.path("main"));
    unit(&format!("{}; echo $$ > {}; exec sleep 1000", leave(&left, env), main.display()), "")
}

#[test]
fn what_has_left_its_session_is_gone_after_a_stop() {
    each_way(|up| {
        let place = Place::new();
        let mut run = up(&place, &unit_that_leaves(&place, ""));
        let (main, left) = (pid_in(&place.path("main")), pid_in(&place.path("left")));
        assert!(lives(left) && lives(main));
        let said = place.output("stop", &["a"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!lives(left) && !lives(main), "gone when stop says so: {}", run.stderr());
        shut_down(&mut run);
    });
}

#[test]
fn none_is_alive_before_a_restart() {
    each_way(|up| {
        let place = Place::new();
        let (left, log, main) = (place.path("left"), place.path("log"), place.path("main"));
        // At its start it looks for the one before.
        let line = format!(
            "test -e {0} && (grep -qs \"^State:.[^ZX]\" /proc/$(cat {0})/status && echo alive || echo dead) >> {1}; {2}; echo $$ > {3}; exec sleep 1000",
            left.display(),
            log.display(),
            leave(&left, ""),
            main.display()
        );
        let mut run = up(&place, &unit(&line, "backoff = { first = '1ms', max = '1ms' }"));
        let first = pid_in(&main);
        signal(first, Signal::SIGKILL);
        assert_eq!(written(&log, 1), ["dead"]);
        wait_until("another one", || Some(pid_in(&main)).filter(|pid| *pid != first));
        let said = place.output("restart", &["a"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(written(&log, 2), ["dead", "dead"]);
        shut_down(&mut run);
    });
}

#[test]
fn none_is_alive_before_a_start_by_another_supervisor() {
    each_way(|up| {
        let place = Place::new();
        let (left, log, main) = (place.path("left"), place.path("log"), place.path("main"));
        // One that has left its session, a child, and one without the mark; at its start it looks for those before.
        let line = format!(
            "for was in $(cat {0} {0}.child {0}.bare 2>/dev/null); do (grep -qs \"^State:.[^ZX]\" /proc/$was/status && echo alive || echo dead) >> {1}; done; \
             {2}; sleep 1000 & echo $! > {0}.child; env -u INVOCATION_ID sleep 1000 & echo $! > {0}.bare; \
             echo $$ > {3}; exec sleep 1000",
            left.display(),
            log.display(),
            leave(&left, ""),
            main.display()
        );
        // They have its socket, too.
        let units = unit(&line, &format!("listen = ['a=unix:{}']", place.path("a.sock").display()));
        let mut run = up(&place, &units);
        let (first, helpers) =
            (pid_in(&main), ["left", "left.child", "left.bare"].map(|name| pid_in(&place.path(name))));
        run.child.kill().unwrap();
        run.child.wait().unwrap();
        signal(first, Signal::SIGKILL);
        wait_until("its end", || (!lives(first)).then_some(()));
        assert!(helpers.into_iter().all(lives), "nobody ends them now");
        let mut run = up(&place, &units);
        assert_eq!(written(&log, 3), ["dead", "dead", "dead"]);
        wait_until("another one", || Some(pid_in(&main)).filter(|pid| *pid != first));
        let said = place.output("why", &["a"]);
        assert!(said.stdout.contains("3 processes that it had left were ended"), "{said:?}");
        run.wait_for_text(&format!("process {} (", helpers.iter().min().unwrap()));
        shut_down(&mut run);
    });
}

#[test]
fn what_a_unit_has_left_that_was_taken_out_meanwhile_is_gone_too() {
    each_way(|up| {
        let place = Place::new();
        let mut run = up(&place, &unit_that_leaves(&place, ""));
        let (main, left) = (pid_in(&place.path("main")), pid_in(&place.path("left")));
        run.child.kill().unwrap();
        run.child.wait().unwrap();
        signal(main, Signal::SIGKILL);
        wait_until("its end", || (!lives(main)).then_some(()));
        let mut run = up(&place, "[unit.other]\nexec = ['sleep', '1000']\nmode = 'none'\n");
        wait_until("the end of what it left", || (!lives(left)).then_some(()));
        shut_down(&mut run);
    });
}

#[test]
fn a_hook_of_a_supervisor_that_was_killed_is_gone_before_the_next_one() {
    each_way(|up| {
        let place = Place::new();
        let (hook, log, release) = (place.path("hook"), place.path("log"), place.path("release"));
        let before = format!(
            "test -e {0} && (grep -qs \"^State:.[^ZX]\" /proc/$(cat {0})/status && echo alive || echo dead) >> {1}; \
             echo $$ > {0}; until test -e {2}; do sleep 0.01; done",
            hook.display(),
            log.display(),
            release.display()
        );
        let units = unit("exec sleep 1000", &format!("pre_start = ['sh', '-c', '{before}']"));
        let mut run = up(&place, &units);
        let first = pid_in(&hook);
        run.child.kill().unwrap();
        run.child.wait().unwrap();
        assert!(lives(first), "nobody ends it now");
        let mut run = up(&place, &units);
        assert_eq!(written(&log, 1), ["dead"]);
        fs::write(&release, "").unwrap();
        run.wait_for("running", |service| service["state"] == "running");
        shut_down(&mut run);
    });
}

#[test]
fn a_daemon_that_forks_into_the_background_is_gone_too() {
    each_way(|up| {
        let place = Place::new();
        let left = place.path("left");
        // Its main process exits, which says nothing of the rest.
        let mut run = up(&place, &unit(&leave(&left, "").replace("& wait", ""), "restart = 'never'"));
        let left = pid_in(&left);
        wait_until("its end", || (!lives(left)).then_some(()));
        shut_down(&mut run);
    });
}

#[test]
fn none_of_many_that_fork_while_their_daemon_dies_is_left() {
    const DAEMONS: usize = 60;
    each_way(|up| {
        let place = Place::new();
        let left = place.path("left");
        let line = leave(&left, "").replace("& wait", "").replace(" > ", " >> ");
        let keys = format!(
            "restart = 'always'\nbackoff = {{ first = '1ms', max = '1ms' }}\nrestart_limit = {{ count = {} }}",
            10 * DAEMONS
        );
        let mut run = up(&place, &unit(&line, &keys));
        let pids = written(&left, DAEMONS);
        shut_down(&mut run);
        let living: Vec<&String> = pids.iter().filter(|pid| lives(pid.parse().unwrap())).collect();
        assert_eq!(living, Vec::<&String>::new());
    });
}

#[test]
fn a_control_group_needs_no_mark() {
    let place = Place::new();
    let env = "env -u INVOCATION_ID -u HANDOFF_CONTROL -u HANDOFF_SOCK_FD";
    let mut run = up(&place, &unit_that_leaves(&place, env));
    let (main, left) = (pid_in(&place.path("main")), pid_in(&place.path("left")));
    let of_main = group(main);
    if !of_main.contains("/handoff.a.") {
        eprintln!("SKIPPED: no control group can be made here");
        return;
    }
    assert_eq!(group(left), of_main);
    assert!(!group(run.pid()).contains("/handoff.a."));
    let said = place.output("stop", &["a"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!lives(left));
    shut_down(&mut run);
    let exists = |dir: &str| fs::exists(format!("{dir}{of_main}")).unwrap();
    assert!(!["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().any(exists), "its group is removed");
}

#[test]
fn others_are_left_alone() {
    each_way(|up| {
        let place = Place::new();
        let (one, other, main) = (place.path("one"), place.path("other"), place.path("main"));
        let unit = |name: &str, left: &Path, main: &Path| {
            format!(
                "[unit.{name}]\nshell = true\nexec = '{}; echo $$ > {}; exec sleep 1000'\nmode = 'none'\nready = 'delay=1ms'\n",
                leave(left, ""),
                main.display()
            )
        };
        let units = unit("one", &one, &place.path("main-one")) + &unit("other", &other, &main);
        let mut run = up(&place, &units);
        let (one, other, main) = (pid_in(&one), pid_in(&other), pid_in(&main));
        let said = place.output("stop", &["one"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!lives(one) && lives(other) && lives(main), "only what the first one left");
        shut_down(&mut run);
        assert!(!lives(other));
    });
}

/// A daemon that can be replaced, with a helper that has left its session. It ends by itself if it is told to, or not at all.
pub fn replaceable(place: &Place, deaf: bool) -> String {
    let trap = if deaf { "trap : TERM" } else { "trap \"exit 0\" TERM" };
    let line = format!(
        "{trap}; setsid sh -c \"setsid sleep 1000 & echo \\$! > {0}/helper-$$; mv {0}/helper-$$ {0}/helper.$$\" & echo $$ > {0}/main; \
         while :; do sleep 0.01; done",
        place.dir.path().display()
    );
    format!(
        "[unit.a]\nshell = true\nexec = '{line}'\nmode = 'overlap'\nready = 'delay=50ms'\ndrain_grace = '200ms'\nstop = ['TERM 100ms', 'KILL']\n"
    )
}

/// The main process that was started after this one, and its helper.
pub fn pair(place: &Place, before: i32) -> (i32, i32) {
    let main = wait_until("a main process", || {
        let pid: i32 = fs::read_to_string(place.path("main")).ok()?.trim().parse().ok()?;
        (pid != before).then_some(pid)
    });
    (main, pid_in(&place.path(&format!("helper.{main}"))))
}

#[test]
fn what_a_process_that_was_replaced_has_left_serves_on_until_a_stop() {
    each_way(|up| {
        let place = Place::new();
        let mut run = up(&place, &replaceable(&place, false));
        let (first, old) = pair(&place, 0);
        run.wait_for("running", |service| service["state"] == "running");
        let said = place.output("upgrade", &["a"]);
        assert_eq!(said.code, 0, "{said:?} {}", run.stderr());
        let (second, new) = pair(&place, first);
        wait_until("the end of the first one", || (!lives(first)).then_some(()));
        run.wait_for("nobody drains", |service| service["draining"].as_array().is_some_and(Vec::is_empty));
        assert!(lives(old) && lives(new) && lives(second), "it ended by itself: {}", run.stderr());
        let said = place.output("stop", &["a"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!lives(old) && !lives(new) && !lives(second), "{}", run.stderr());
        shut_down(&mut run);
    });
}

#[test]
fn what_a_process_that_was_killed_has_left_ends_and_its_successors_does_not() {
    each_way(|up| {
        let place = Place::new();
        let mut run = up(&place, &replaceable(&place, true));
        let (first, old) = pair(&place, 0);
        run.wait_for("running", |service| service["state"] == "running");
        let said = place.output("upgrade", &["a"]);
        assert_eq!(said.code, 0, "{said:?} {}", run.stderr());
        let (second, new) = pair(&place, first);
        wait_until("the end of the first one, and of its helper", || (!lives(first) && !lives(old)).then_some(()));
        assert!(lives(new) && lives(second));
        shut_down(&mut run);
        assert!(!lives(new) && !lives(second));
    });
}

#[test]
fn another_supervisor_ends_what_was_left_under_the_first() {
    each_way(|up| {
        let place = Place::new();
        let units = replaceable(&place, false);
        let mut run = up(&place, &units);
        let (first, helper) = pair(&place, 0);
        run.wait_for("running", |service| service["state"] == "running");
        run.child.kill().unwrap();
        run.child.wait().unwrap();
        let mut run = up(&place, &units);
        run.wait_for_text("adopted");
        assert!(lives(first) && lives(helper));
        let said = place.output("stop", &["a"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!lives(first) && !lives(helper), "{}", run.stderr());
        shut_down(&mut run);
    });
}

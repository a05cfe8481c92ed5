//! What operators say, and what they are told.

use crate::scene::{Said, Scene, daemon, task};
use crate::support::{SIGINT, SIGTERM, Service, lives, programs, signal, wait_until};
use serde_json::json;

#[test]
fn every_command_has_its_exit_codes() {
    let target = "[target.all]\nunits = ['a', 'b']\n";
    let mut scene = Scene::up(&(daemon("a", "") + &daemon("b", "requires = ['a']") + target));
    scene.wait_for("b", "running");
    for command in ["start", "stop", "restart", "kill", "why", "tree"] {
        scene
            .run(command, &["nobody"])
            .expect(4, &["there is no service 'nosuch'".replace("nosuch", "nobody").as_str()]);
        scene.run(command, &["--fly"]).expect(2, &[]);
    }
    scene.run("stop", &[]).expect(2, &["which service?", "a, b"]);
    let answer = scene.run("stop", &["all", "--json"]);
    let units = answer.expect(0, &[]).json()["units"].clone();
    assert_eq!(units.as_array().unwrap().len(), 2);
    assert_eq!(
        (&units[0]["unit"], &units[0]["state"], &units[0]["ok"]),
        (&json!("a"), &json!("stopped"), &json!(true))
    );
    // Nothing runs: nobody gets a signal.
    scene.run("kill", &["all"]).expect(1, &["does not run"]);
    scene.run("stop", &["all"]).expect(0, &[]);
    scene.run("start", &["all", "--no-wait"]).expect(0, &[]);
    scene.wait_for("b", "running");
    scene.run("tree", &[]).expect(0, &["b (running)\n    requires a (running)"]);
    scene.run("reload", &[]).expect(0, &["nothing has changed"]);
    let mut shutdown = scene.begin("shutdown", &[]);
    assert_eq!(scene.end(), 0);
    assert_eq!(shutdown.wait().unwrap().code(), Some(0));
    for command in ["start", "stop", "restart", "reload", "why", "tree", "shutdown"] {
        scene.run(command, &[]).expect(3, &["not running"]);
    }
}

#[test]
fn one_that_does_not_come_up_in_time_is_code_5_and_goes_on() {
    let scene = Scene::up(&task("slow", "autostart = false"));
    scene.run("start", &["slow", "--timeout", "100ms"]).expect(5, &["timed out", "handoff why"]);
    scene.end_task("slow", 0);
    scene.wait_for("slow", "done");
}

/// Who waits for what fails hears it as soon as it is known, as of the failing one itself.
#[test]
fn a_start_does_not_wait_for_what_keeps_failing() {
    let never_ready =
        "exec = ['sh', '-c', 'exit 3']\nmode = 'none'\nready = 'notify'\nbackoff = { first = '1h', max = '1h' }\n";
    let units = format!("[unit.bad]\n{never_ready}autostart = false\n")
        + &daemon("mid", "requires = ['bad']\nautostart = false")
        + &daemon("top", "requires = ['mid']\nautostart = false")
        + &daemon("wants", "wants = ['bad']\nautostart = false");
    let mut scene = Scene::up(&units);
    for first in ["mid", "top"] {
        let told = [
            &format!("{first}: waiting"),
            "it needs bad, which has failed: ",
            "exit status 3",
            "started again by itself",
        ];
        scene.run("start", &[first]).expect(1, &told);
    }
    // Without it the unit runs, too: as soon as it is certain that it must.
    scene.run("start", &["wants", "--timeout", "500ms"]).expect(5, &["timed out"]);
    scene.run("stop", &["bad"]).expect(0, &[]);
    scene.run("start", &["mid"]).expect(1, &["exit status 3"]);
    assert_eq!(scene.stop(), 0);
}

#[test]
fn a_signal_reaches_the_main_process_and_no_other() {
    let script = "trap 'echo told >> \"$LOG\"' USR1; sleep 1000 & echo >&3; while :; do wait; done";
    let unit = |name: &str| format!("[unit.{name}]\nexec = {script:?}\nshell = true\nmode = 'none'\nready = 'fd=3'\n");
    let scene = Scene::up(&(unit("one") + &unit("two")));
    let pid = scene.wait_for("one", "running")["pid"].as_i64().unwrap();
    let two = scene.wait_for("two", "running")["pid"].clone();
    scene.run("kill", &["one", "USR1"]).expect(0, &[&format!("one: SIGUSR1 to process {pid}")]);
    wait_until("it is told", || (scene.log() == ["told"]).then_some(()));
    for (word, code) in [("NOSUCH", 2), ("0", 2), ("-1", 2)] {
        scene.run("kill", &["one", word]).expect(code, &[]);
    }
    // It dies, and is started again: that is no stop.
    scene.run("kill", &["one", "KILL"]).expect(0, &[]);
    wait_until("another one", || (scene.unit("one")["generation"] == 2).then_some(()));
    assert_eq!(scene.unit("two")["pid"], two);
}

#[test]
fn a_second_supervisor_of_the_name_refuses_and_names_the_first() {
    let scene = Scene::up(&daemon("a", ""));
    let config = scene.config();
    let second = scene.run("up", &["-c", config.to_str().unwrap()]);
    second.expect(125, &["runs already", &format!("process {}", scene.supervisor())]);
    // A unit of another supervisor is that one's: only this unit fails.
    std::fs::write(scene.place.path("other.toml"), daemon("a", "") + &daemon("b", "")).unwrap();
    scene.wait_for("a", "running");
    let mut other = scene.place.other_command(env!("CARGO_BIN_EXE_handoff"));
    let runtime = scene.place.path("run");
    other.envs(scene.place.environment.iter().cloned());
    other.args(["up", "--name", "other", "--runtime-dir"]).arg(&runtime).arg("-c").arg(scene.place.path("other.toml"));
    let mut other = other.stderr(std::process::Stdio::null()).spawn().unwrap();
    let status = || {
        let mut command = scene.place.other_command(env!("CARGO_BIN_EXE_handoff"));
        command.args(["status", "--json", "--name", "other", "--runtime-dir"]).arg(&runtime);
        let status: serde_json::Value = serde_json::from_slice(&command.output().unwrap().stdout).ok()?;
        status["services"].as_array().cloned()
    };
    let units = wait_until("b runs", || status().filter(|units| units[1]["state"] == "running"));
    assert_eq!(units[0]["state"], "failed");
    assert!(units[0]["why"].as_str().unwrap().contains("runs already"), "{}", units[0]);
    signal(other.id() as i32, SIGTERM);
    assert_eq!(other.wait().unwrap().code(), Some(0));
    assert_eq!(scene.log().iter().filter(|line| *line == "a starts").count(), 1);
}

/// A program, a user, a directory that is not there: that unit fails, and the rest runs.
#[test]
fn what_can_not_be_executed_is_a_failure_of_that_unit_alone() {
    let bad = |name: &str, keys: &str| format!("[unit.{name}]\nrestart = 'never'\n{keys}\n");
    let units = bad("program", "exec = ['/no/such/program']")
        + &bad("user", "exec = ['sleep', '1']\nuser = 'nobody-of-this-name'")
        + &bad("dir", "exec = ['sleep', '1']\ndir = '/no/such/dir'")
        + &bad("bound", "exec = ['sleep', '1']\nlisten = ['x=unix:/no/such/dir/x.sock']")
        + "[unit.again]\nexec = ['/no/such/program']\nbackoff = { first = '1h', max = '1h' }\n"
        + &daemon("free", "");
    let scene = Scene::up(&units);
    scene.wait_for("free", "running");
    for (name, words) in [
        ("program", "No such file"),
        ("user", "nobody-of-this-name"),
        ("dir", "/no/such/dir"),
        ("bound", "create the directory first"),
    ] {
        let unit = scene.wait_for(name, "failed");
        assert!(unit["why"].as_str().unwrap().contains(words), "{unit}");
        assert_eq!((&unit["pid"], &unit["want"]), (&json!(null), &json!("running")));
    }
    // Whoever starts it does not wait for its next attempt, and hears of the failure at once.
    scene.wait_for("again", "waiting");
    scene.run("start", &["again"]).expect(1, &["No such file", "started again by itself"]);
    assert_eq!(scene.unit("again")["restarts"], 2);
    scene.run("stop", &["again"]).expect(0, &["again: stopped"]);
}

/// `handoff run` is the same with one unit, and without a configuration.
#[test]
fn the_one_daemon_of_run_obeys_the_same_commands() {
    let mut service = Service::start(&programs().kv_a);
    let run = |command: &str, arguments: &[&str]| {
        let output = service.command(command).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    };
    let pid = service.daemon_pid();
    run("start", &[]).expect(0, &[&format!("kv: running, process {pid}")]);
    run("restart", &["kv"]).expect(0, &["kv: committed"]);
    assert_ne!(service.daemon_pid(), pid);
    run("why", &[]).expect(0, &["kv: running, wanted running, by an operator"]);
    run("tree", &[]).expect(0, &["kv (running)"]);
    run("reload", &[]).expect(1, &["has no other units"]);
    run("kill", &["kv", "0"]).expect(2, &[]);
    run("stop", &[]).expect(0, &["kv: stopped"]);
    // It was the only one, so the supervisor ends with it.
    assert_eq!(service.wait_for_end(), Some(0));
}

#[test]
fn who_interrupts_twice_does_not_wait_for_a_daemon_that_does_not_stop() {
    let deaf = "[unit.deaf]\nexec = \"trap '' TERM; echo >&3; while :; do sleep 1000; done\"\nshell = true\nmode = 'none'\nready = 'fd=3'\n\
                stop = ['TERM 1h', 'KILL']\nrequires = ['db']\n";
    let mut scene = Scene::up(&(deaf.to_owned() + &daemon("db", "")));
    let pid = scene.wait_for("deaf", "running")["pid"].as_i64().unwrap() as i32;
    signal(scene.supervisor(), SIGINT);
    let unit = scene.wait_for("deaf", "stopping");
    assert_eq!((&unit["want"], &scene.unit("db")["state"]), (&json!("stopped"), &json!("running")));
    // Nothing is started during a shutdown.
    scene.run("restart", &["db", "--no-wait"]).expect(0, &[]);
    signal(scene.supervisor(), SIGINT);
    assert_eq!(scene.end(), 0);
    assert!(!lives(pid));
    assert_eq!(scene.log(), ["db starts", "db stops"]);
}

//! kill -9 of the supervisor, and another one.

use crate::scene::{Scene, daemon, task};
use crate::support::{SIGKILL, freeze, lives, programs, signal, thaw, wait_for_death, wait_until};
use serde_json::json;

/// A store that links the library.
fn store(scene: &Scene, name: &str) -> String {
    let data = scene.place.path(&format!("data-{name}"));
    std::fs::create_dir_all(&data).unwrap();
    let program = programs().kv_a.clone();
    format!("[unit.{name}]\nexec = [{program:?}]\nlisten = ['kv=127.0.0.1:0']\ndata_dir = {data:?}\n")
}

#[test]
fn nothing_is_started_twice_and_what_was_stopped_stays_so() {
    let mut scene = Scene::place("");
    let units = daemon("plain", "")
        + &store(&scene, "kv")
        + &task("done", "")
        + &task("long", "")
        + &task("lost", "")
        + &daemon("off", "")
        + &daemon("on", "autostart = false");
    scene.write(&units);
    scene.end_task("done", 0);
    scene.launch();
    scene.all_run(&["plain", "kv", "off", "long", "lost"]);
    scene.wait_for("done", "done");
    scene.run("stop", &["off"]).expect(0, &[]);
    scene.run("start", &["on"]).expect(0, &[]);
    let names = ["plain", "kv", "on", "long"];
    let pids = names.map(|name| scene.pid(name));
    let lost = scene.pid("lost");
    let address = scene.unit("kv")["listeners"][0]["address"].clone();
    let log = scene.log();
    scene.kill();
    scene.end_task("lost", 0);
    wait_for_death(lost);
    scene.launch();
    scene.all_run(&names);
    assert_eq!(names.map(|name| scene.pid(name)), pids);
    assert_eq!(scene.unit("kv")["listeners"][0]["address"], address);
    assert_eq!((&scene.unit("done")["state"], &scene.unit("off")["state"]), (&json!("done"), &json!("stopped")));
    assert_eq!(scene.unit("on")["wanted_by"], "an operator");
    // Nobody saw how it ended, so nobody runs it again.
    let unit = scene.wait_for("lost", "failed");
    assert!(unit["why"].as_str().unwrap().contains("how it ended is not known"), "{unit}");
    scene.end_task("long", 0);
    wait_until("its end", || scene.log().contains(&"long ends".to_owned()).then_some(()));
    let mut expected = log;
    expected.extend(["lost ends", "long ends"].map(str::to_owned));
    assert_eq!(scene.log(), expected);
    assert_eq!(scene.stop(), 0);
    assert!(pids.iter().all(|pid| !lives(*pid)));
}

#[test]
fn one_that_does_not_answer_holds_up_no_other() {
    let mut scene = Scene::place("");
    let units = store(&scene, "silent")
        + &store(&scene, "kv")
        + &daemon("plain", "")
        + &daemon("user", "requires = ['silent']");
    scene.write(&units);
    scene.launch();
    let names = ["silent", "kv", "plain", "user"];
    scene.all_run(&names);
    let pids = names.map(|name| scene.pid(name));
    scene.kill();
    freeze(pids[0]);
    scene.launch();
    scene.all_run(&["kv", "plain", "user"]);
    let silent = wait_until("it is said", || {
        Some(scene.unit("silent")).filter(|unit| unit["why"].as_str().unwrap().contains("kill -CONT"))
    });
    assert_eq!((&silent["state"], &silent["phase"]), (&json!("starting"), &json!("adopting")));
    scene.run("stop", &["plain"]).expect(0, &[]);
    thaw(pids[0]);
    scene.wait_for("silent", "running");
    assert_eq!(["silent", "kv", "user"].map(|name| scene.pid(name)), [pids[0], pids[1], pids[3]]);
    assert_eq!(scene.stop(), 0);
}

/// The runtime directory is removed while they are being taken over, and the supervisor is killed again: its journals tell of them all the same.
#[test]
fn what_is_lost_while_it_is_taken_over_is_made_anew() {
    let mut scene = Scene::place("");
    let units = store(&scene, "silent") + &daemon("unready", "").replace("echo >&3; ", "");
    scene.write(&units);
    scene.launch();
    let names = ["silent", "unready"];
    scene.wait_for("silent", "running");
    let pids = names.map(|name| wait_until("a pid", || scene.unit(name)["pid"].as_i64()) as i32);
    let run = scene.place.path("run");
    let journal = run.join("silent.journal");
    let listeners = || {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("listener=")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = listeners();
    assert_eq!(before.len(), 1);
    scene.kill();
    freeze(pids[0]);
    scene.launch();
    wait_until("it is waited for", || (scene.unit("silent")["phase"] == "adopting").then_some(()));
    std::fs::remove_dir_all(&run).unwrap();
    wait_until("it is told", || scene.stderr().contains("and was made anew").then_some(()));
    for name in names {
        for file in ["lock", "journal", "unit"] {
            assert!(run.join(format!("{name}.{file}")).exists(), "{name}.{file}: {}", scene.stderr());
        }
    }
    assert_eq!(listeners(), before);
    scene.kill();
    scene.launch();
    thaw(pids[0]);
    scene.wait_for("silent", "running");
    let taken = names.map(|name| wait_until("a pid", || scene.unit(name)["pid"].as_i64()) as i32);
    assert_eq!(taken, pids, "{}", scene.stderr());
    assert_eq!(listeners(), before);
    assert_eq!(scene.log(), ["unready starts"]);
    assert_eq!(scene.stop(), 0);
}

/// The configuration has changed while there was no supervisor.
#[test]
fn what_was_taken_out_meanwhile_is_stopped_but_not_for_a_fault() {
    let mut scene = Scene::up(&(daemon("kept", "") + &daemon("gone", "requires = ['kept']")));
    scene.all_run(&["kept", "gone"]);
    let pids = ["kept", "gone"].map(|name| scene.pid(name));
    scene.kill();
    scene.write(&(daemon("kept", "") + &daemon("gone", "requires = ['kept']\nflies = true")));
    scene.launch();
    scene.wait_for("kept", "running");
    let said = format!("process {} ", pids[1]);
    wait_until("it is said", || scene.stderr().contains(&said).then_some(()));
    assert!(lives(pids[1]) && scene.unit("gone")["state"] == "faulty");
    scene.kill();
    scene.write(&daemon("kept", ""));
    scene.launch();
    wait_for_death(pids[1]);
    wait_until("it is gone", || (scene.status().len() == 1).then_some(()));
    assert_eq!((scene.pid("kept"), scene.log()[2..].to_vec()), (pids[0], vec!["gone stops".to_owned()]));
}

/// Killed before its daemons were ready: they are taken over, and not started beside, and their dependents still wait.
#[test]
fn what_was_still_starting_is_taken_over_and_waited_for() {
    let unit = |name: &str, ready: &str, script: &str| {
        let user = daemon(&format!("after-{name}"), &format!("requires = ['{name}']"));
        format!("[unit.{name}]\nexec = {script:?}\nshell = true\nmode = 'none'\n{ready}\n{user}")
    };
    let says = "until test -e \"$DIR/go\"; do sleep 0.01; done; echo >&3; sleep 1000 & wait";
    let health = "ready = 'health'\nhealth = { exec = ['sh', '-c', 'test -e \"$DIR/go\"'] }";
    let units = unit("says", "ready = 'fd=3'", says)
        + &unit("asked", health, "exec sleep 1000")
        + &unit("silent", "ready = 'notify'\nstart_timeout = '1h'", "exec sleep 1000")
        + &task("begun", "");
    let names = ["says", "asked", "silent", "begun"];
    let mut scene = Scene::up(&units);
    let pids = names.map(|name| wait_until("a pid", || scene.unit(name)["pid"].as_i64()));
    wait_until("it begins", || (scene.log() == ["begun begins"]).then_some(()));
    for _ in 0..2 {
        scene.kill();
        scene.launch();
        for name in &names[..3] {
            wait_until("it is adopted", || (scene.unit(name)["pid"].is_i64()).then_some(()));
            assert_eq!(scene.unit(name)["state"], "starting", "{name}");
        }
        assert_eq!(scene.log(), ["begun begins"]);
    }
    // What can be told to nobody but a supervisor may have been told to none.
    scene.kill();
    scene.write(&units.replace("'1h'", "'1s'"));
    scene.launch();
    wait_until("somebody hears it", || (scene.unit("says")["pid"].is_i64()).then_some(()));
    std::fs::write(scene.place.path("go"), "").unwrap();
    scene.all_run(&["after-says", "after-asked", "after-silent", "begun"]);
    assert_eq!(names.map(|name| scene.unit(name)["pid"].as_i64().unwrap()), pids);
    assert!(scene.stderr().contains("silent: it has not said that it is ready, or has while"), "{}", scene.stderr());
    scene.end_task("begun", 0);
    wait_until("its end", || scene.unit("begun")["pid"].is_null().then_some(()));
    assert_eq!(scene.stop(), 0);
    assert!(pids.iter().all(|pid| !lives(*pid as i32)));
}

/// Nobody reads what it says, and it is not killed for that (pipe(7), SIGPIPE).
#[test]
fn who_gets_ready_while_there_is_no_supervisor_lives_and_is_ready() {
    let says = "until test -e \"$DIR/go\"; do sleep 0.01; done; echo >&3; touch \"$DIR/said\"; exec sleep 1000";
    let unit =
        format!("[unit.a]\nexec = {says:?}\nshell = true\nmode = 'none'\nready = 'fd=3'\nstart_timeout = '1h'\n");
    let mut scene = Scene::up(&unit);
    let pid = wait_until("a pid", || scene.unit("a")["pid"].as_i64());
    scene.kill();
    std::fs::write(scene.place.path("go"), "").unwrap();
    wait_until("it goes on", || scene.place.path("said").exists().then_some(()));
    scene.launch();
    scene.all_run(&["a"]);
    assert_eq!((scene.unit("a")["pid"].as_i64(), &scene.unit("a")["generation"]), (Some(pid), &json!(1)));
    assert_eq!(scene.stop(), 0);
}

/// Started before the file was changed: with a reload, and without.
#[test]
fn what_is_stale_stays_so() {
    let units = |edition: &str| {
        let unit = |name: &str| daemon(name, &format!("env = {{ EDITION = '{edition}' }}"));
        unit("reloaded") + &unit("changed").replace(edition, if edition == "2" { "1" } else { edition })
    };
    let mut scene = Scene::up(&units("1"));
    scene.all_run(&["reloaded", "changed"]);
    scene.write(&units("2"));
    scene.run("reload", &[]).expect(0, &[]);
    assert_eq!(scene.unit("reloaded")["stale"], json!(["env"]));
    scene.kill();
    scene.write(&units("3"));
    scene.launch();
    scene.all_run(&["reloaded", "changed"]);
    for name in ["reloaded", "changed"] {
        assert_eq!(scene.unit(name)["stale"], json!(["env"]), "{name}");
    }
    scene.run("restart", &["changed"]).expect(0, &[]);
    assert_eq!(scene.unit("changed")["stale"], json!([]));
    scene.kill();
    scene.launch();
    scene.all_run(&["reloaded", "changed"]);
    assert_eq!(["reloaded", "changed"].map(|name| scene.unit(name)["stale"].clone()), [json!(["env"]), json!([])]);
    assert_eq!(scene.stop(), 0);
}

/// What the supervisor knew of already has mended nothing.
#[test]
fn an_edit_before_the_crash_starts_nothing_again() {
    let names = ["daemon", "task"];
    let units = |edition: u8| {
        let keys = format!("restart = 'never'\nenv = {{ EDITION = '{edition}' }}");
        daemon("daemon", &keys) + &task("task", &keys)
    };
    let mut scene = Scene::up(&units(1));
    scene.all_run(&names);
    wait_until("both began", || (scene.log().len() == 2).then_some(()));
    scene.write(&units(2));
    scene.run("reload", &[]).expect(0, &[]);
    let pids = names.map(|name| scene.pid(name));
    scene.kill();
    for pid in pids {
        signal(pid, SIGKILL);
        wait_for_death(pid);
    }
    let log = scene.log();
    for _ in 0..2 {
        scene.launch();
        for name in names {
            let unit = scene.wait_for(name, "failed");
            assert!(unit["why"].as_str().unwrap().contains("not known"), "{unit}");
        }
        assert_eq!(scene.log(), log);
        scene.kill();
    }
    // One of which it knew nothing may have.
    scene.write(&units(3));
    scene.launch();
    scene.all_run(&names);
    assert_eq!(scene.stop(), 0);
}

#[test]
fn no_task_runs_again_whatever_its_end() {
    let slow = "backoff = { first = '1000s', max = '1000s' }";
    let quick = "backoff = { first = '1ms', max = '1ms' }\nrestart_limit = { count = 1, window = '1000s' }";
    let units = task("never", "restart = 'never'")
        + &task("waits", &format!("restart = 'on-failure'\n{slow}"))
        + &task("often", &format!("restart = 'on-failure'\n{quick}"))
        + &task("stopped", "")
        + &task("struck", "restart = 'on-failure'")
        + &task("changed", "restart = 'never'");
    let mut scene = Scene::place(&units);
    ["never", "waits", "often", "changed"].iter().for_each(|name| scene.end_task(name, 3));
    scene.launch();
    let states = [("never", "failed"), ("waits", "waiting"), ("often", "failed"), ("changed", "failed")];
    states.iter().for_each(|(name, state)| drop(scene.wait_for(name, state)));
    scene.run("stop", &["stopped"]).expect(0, &[]);
    let before = states.map(|(name, _)| scene.unit(name));
    scene.all_run(&["struck"]);
    let (struck, log) = (scene.pid("struck"), scene.log());
    scene.kill();
    signal(struck, SIGKILL);
    wait_for_death(struck);
    scene.write(&units.replace("[unit.changed]", "[unit.changed]\nenv = { EDITION = '2' }"));
    scene.launch();
    // What was wrong with it may be mended, as in a reload.
    wait_until("the one that was changed", || (scene.log().len() == log.len() + 2).then_some(()));
    scene.wait_for("changed", "failed");
    let unit = scene.wait_for("struck", "failed");
    assert!(unit["why"].as_str().unwrap().contains("how it ended is not known"), "{unit}");
    assert_eq!(scene.unit("stopped")["state"], "stopped");
    for (name, before) in states.iter().map(|(name, _)| *name).zip(&before).take(3) {
        let unit = scene.unit(name);
        for key in ["state", "why", "cause", "restarts", "generation"] {
            assert_eq!(unit[key], before[key], "{key} of {name}");
        }
    }
    let left = |unit: &serde_json::Value| unit["next_start_ms"].as_u64().unwrap();
    assert!(left(&scene.unit("waits")) < left(&before[1]), "it does not begin anew");
    let ended = log.len() + 2;
    assert_eq!(scene.log()[log.len()..], ["changed begins", "changed ends"]);
    scene.run("restart", &["never", "--no-wait"]).expect(0, &[]);
    wait_until("an operator runs it again", || (scene.log().len() == ended + 2).then_some(()));
    assert_eq!(scene.stop(), 0);
}

#[test]
fn a_daemon_that_failed_too_often_is_not_tried_again_by_another_supervisor() {
    let keys = "backoff = { first = '1ms', max = '1ms' }\nrestart_limit = { count = 2, window = '1000s' }";
    let mut scene = Scene::up(&(daemon("app", keys) + &daemon("never", "restart = 'never'")));
    let crash = |scene: &Scene, name: &str| {
        scene.wait_for(name, "running");
        let pid = scene.pid(name);
        signal(pid, SIGKILL);
        wait_for_death(pid);
        pid
    };
    for _ in 0..2 {
        let before = crash(&scene, "app");
        wait_until("another one", || scene.unit("app")["pid"].as_i64().filter(|pid| *pid != i64::from(before)));
    }
    scene.all_run(&["app", "never"]);
    let never = scene.pid("never");
    scene.kill();
    signal(never, SIGKILL);
    wait_for_death(never);
    scene.launch();
    crash(&scene, "app");
    let unit = scene.wait_for("app", "failed");
    assert!(unit["why"].as_str().unwrap().contains("too often"), "{unit}");
    // Whose end nobody saw, and that is never restarted.
    let unit = scene.wait_for("never", "failed");
    assert!(unit["why"].as_str().unwrap().contains("how is not known"), "{unit}");
    let log = scene.log();
    scene.kill();
    scene.launch();
    for name in ["app", "never"] {
        assert_eq!(scene.unit(name)["state"], "failed", "{name}");
    }
    assert_eq!(scene.log(), log);
    scene.run("start", &["app", "never"]).expect(0, &[]);
    assert_eq!(scene.stop(), 0);
}

#[test]
fn numbers_of_processes_and_reasons_go_on() {
    let mut scene = Scene::up(&(daemon("off", "") + &daemon("base", "") + &daemon("top", "requires = ['base']")));
    scene.all_run(&["off", "top"]);
    scene.run("stop", &["off", "base"]).expect(0, &[]);
    scene.run("start", &["base"]).expect(0, &[]);
    let top = scene.wait_for("top", "running");
    assert!(top["why"].as_str().unwrap().contains("nothing keeps it from that any more"), "{top}");
    let pid = scene.pid("base");
    scene.kill();
    signal(pid, SIGKILL);
    wait_for_death(pid);
    scene.launch();
    scene.all_run(&["base", "top"]);
    let base = scene.unit("base");
    assert!(base["why"].as_str().unwrap().contains("ended while there was no supervisor"), "{base}");
    assert_eq!(base["generation"], 3);
    scene.run("start", &["off"]).expect(0, &[]);
    assert_eq!(scene.unit("off")["generation"], 2);
    assert_eq!(scene.stop(), 0);
}

/// A daemon that says nothing to anybody is known by the journal.
#[test]
fn one_that_does_not_link_the_library_is_taken_over_too() {
    let plain = |name: &str| format!("[unit.{name}]\nexec = ['sleep', '1000']\nhello_timeout = '200ms'\n");
    let mut scene = Scene::up(&(plain("a") + &plain("b")));
    scene.all_run(&["a", "b"]);
    let pids = ["a", "b"].map(|name| scene.pid(name));
    for _ in 0..2 {
        scene.kill();
        scene.launch();
        scene.all_run(&["a", "b"]);
        assert_eq!(["a", "b"].map(|name| scene.pid(name)), pids);
    }
    let unit = scene.unit("a");
    assert_eq!((&unit["linked"], &unit["generation"]), (&json!(false), &json!(1)), "{unit}");
    scene.run("upgrade", &["a"]).expect(13, &[&format!("process {} serves", pids[0]), "never said Hello"]);
    scene.run("restart", &["a"]).expect(0, &["a: running"]);
    assert!(!lives(pids[0]) && scene.pid("a") != pids[0]);
    scene.run("stop", &["b"]).expect(0, &["b: stopped"]);
    assert!(!lives(pids[1]));
    assert_eq!(scene.stop(), 0);
}

/// It may still be one that links the library, and is about to say so; but whoever wants it stopped does not wait for that.
#[test]
fn one_that_may_still_say_hello_is_stopped_all_the_same() {
    let mut scene = Scene::up("[unit.a]\nexec = ['sleep', '1000']\n[unit.b]\nexec = ['sleep', '1000']\n");
    let pids = ["a", "b"].map(|name| wait_until("it runs", || scene.unit(name)["pid"].as_i64()) as i32);
    scene.kill();
    scene.launch();
    scene.run("stop", &["a"]).expect(0, &["a: stopped"]);
    assert!(!lives(pids[0]) && lives(pids[1]));
    scene.run("shutdown", &[]).expect(0, &[]);
    assert_eq!(scene.end(), 0);
    assert!(!lives(pids[1]));
}

/// Nobody may end who holds the data and does not answer; then it is said.
#[test]
fn what_can_not_be_taken_over_is_not_left_in_silence() {
    let mut scene = Scene::place("");
    scene.write(&(store(&scene, "silent") + &daemon("plain", "")));
    scene.launch();
    scene.all_run(&["silent", "plain"]);
    let pid = scene.pid("silent");
    scene.kill();
    freeze(pid);
    scene.launch();
    let (lives_on, kill) =
        (format!("process {pid} ("), format!("of silent lives on, and could not be taken over; end it (kill {pid})"));
    scene.run("stop", &["silent"]).expect(1, &["silent: failed", &lives_on, &kill]);
    let said = scene.run("shutdown", &["--json"]);
    let left = &said.expect(1, &[]).json()["left"];
    assert_eq!((&left[0]["unit"], &left[0]["pid"], &left[1]), (&json!("silent"), &json!(pid), &json!(null)));
    assert_eq!(scene.end(), 1);
    assert!(scene.stderr().contains(&kill), "{}", scene.stderr());
    // The next one finds it.
    thaw(pid);
    scene.launch();
    assert_eq!(scene.wait_for("silent", "running")["pid"], pid);
    assert_eq!(scene.stop(), 0);
    assert!(!lives(pid));
}

/// Wherever it was: its process lives still, or nobody does.
#[test]
fn a_restart_that_was_cut_is_ended_by_the_next_one_and_the_place_goes_to_nobody() {
    for dies_meanwhile in [false, true] {
        let script = "echo a starts >> \"$LOG\"; trap 'echo a told >> \"$LOG\"; until test -e \"$DIR/go\"; do sleep 0.01; done; exit 0' TERM; echo >&3; while :; do sleep 0.01; done";
        let a = format!(
            "[unit.a]\nexec = {script:?}\nshell = true\nmode = 'none'\nready = 'fd=3'\nstop = ['TERM 1h', 'KILL']\nconflicts = ['d']\n"
        );
        let units = a + &daemon("d", "autostart = false") + &daemon("user", "requires = ['a']");
        let mut scene = Scene::up(&units);
        scene.all_run(&["a", "user"]);
        scene.run("start", &["d"]).expect(1, &["a must not run beside it"]);
        let before = scene.pid("a");
        scene.run("restart", &["a", "--no-wait"]).expect(0, &[]);
        wait_until("it is told to stop", || scene.log().contains(&"a told".to_owned()).then_some(()));
        scene.kill();
        if dies_meanwhile {
            std::fs::write(scene.place.path("go"), "").unwrap();
            wait_for_death(before);
        }
        scene.launch();
        std::fs::write(scene.place.path("go"), "").unwrap();
        wait_for_death(before);
        scene.all_run(&["a", "user"]);
        assert_eq!(scene.unit("d")["state"], "blocked");
        let count = |what: &str| scene.log().iter().filter(|line| *line == what).count();
        assert_eq!(["a starts", "user starts", "d starts"].map(count), [2, 2, 0], "{:?}", scene.log());
        // It is done: the next supervisor restarts nothing.
        let pid = scene.pid("a");
        scene.kill();
        scene.launch();
        scene.all_run(&["a", "user"]);
        assert_eq!((scene.pid("a"), scene.unit("a")["state"].clone()), (pid, json!("running")));
        assert_eq!(scene.stop(), 0);
    }
}

/// Nothing is started again that would take its place.
#[test]
fn the_socket_of_a_oneshot_that_was_done_before_a_kill_is_gone() {
    let mut scene = Scene::up(&task("once", ""));
    scene.end_task("once", 0);
    scene.wait_for("once", "done");
    let socket = scene.place.path("run/once.notify");
    assert!(socket.exists());
    scene.kill();
    scene.launch();
    wait_until("its socket is gone", || (!socket.exists()).then_some(()));
    assert_eq!(scene.unit("once")["state"], "done");
}

//! Who starts after whom, and who stops before whom.

use crate::scene::{Scene, daemon, task};
use crate::support::{lives, wait_until};

#[test]
fn they_start_in_order_and_stop_in_reverse() {
    let units = daemon("web", "requires = ['app']")
        + &daemon("app", "wants = ['db']")
        + &daemon("db", "")
        + &daemon("side", "after = ['db']");
    let mut scene = Scene::up(&units);
    scene.all_run(&["web", "app", "db", "side"]);
    for (first, then) in [("db", "app"), ("app", "web"), ("db", "side")] {
        assert!(scene.when(&format!("{first} starts")) < scene.when(&format!("{then} starts")), "{:?}", scene.log());
    }
    assert_eq!(scene.stop(), 0);
    for (first, then) in [("web", "app"), ("app", "db"), ("side", "db")] {
        assert!(scene.when(&format!("{first} stops")) < scene.when(&format!("{then} stops")), "{:?}", scene.log());
    }
    assert!(!scene.place.path("run/kv.sock").exists() && !scene.place.path("run/kv.state").exists());
}

/// Gone, and not only told to stop: its script takes its time before it says that it stops.
#[test]
fn a_dependency_is_told_to_stop_when_its_dependents_are_gone() {
    let scene = Scene::up(&(daemon("app", "requires = ['db']") + &daemon("db", "") + &daemon("other", "")));
    let app = scene.wait_for("app", "running")["pid"].clone();
    let other = scene.wait_for("other", "running")["pid"].clone();
    scene.run("stop", &["db"]).expect(0, &["db: stopped"]);
    assert_eq!(scene.log()[3..], ["app stops", "db stops"]);
    assert!(!lives(app.as_i64().unwrap() as i32));
    let app = scene.unit("app");
    assert_eq!((&app["state"], &app["want"], &app["pid"]), (&"blocked".into(), &"running".into(), &None::<i64>.into()));
    scene
        .run("why", &["app"])
        .expect(0, &["app: blocked", "requires db, which is stopped", "db: stopped", "by an operator"]);
    // What was blocked starts by itself when what blocked it is gone.
    scene.run("start", &["db"]).expect(0, &["db: running"]);
    scene.wait_for("app", "running");
    assert_eq!(scene.pid("other"), other.as_i64().unwrap() as i32);
}

#[test]
fn a_dependent_of_a_oneshot_starts_when_it_is_done_and_not_when_it_runs() {
    let scene = Scene::up(&(task("migrate", "") + &daemon("app", "requires = ['migrate']")));
    wait_until("it begins", || (scene.log() == ["migrate begins"]).then_some(()));
    let (app, task) = (scene.wait_for("app", "waiting"), scene.wait_for("migrate", "running"));
    assert_eq!((&app["why"], &app["pid"]), (&"waits until migrate is completed".into(), &None::<i64>.into()));
    assert_eq!(task["want"], "done");
    scene
        .run("why", &["app"])
        .expect(0, &["waits until migrate is completed", "migrate: running, wanted done, by autostart"]);
    scene.end_task("migrate", 0);
    scene.wait_for("app", "running");
    assert_eq!(scene.log(), ["migrate begins", "migrate ends", "app starts"]);
    let task = scene.unit("migrate");
    assert_eq!((&task["state"], &task["want"]), (&"done".into(), &"done".into()));
    // It is done, and not run again by anything but a restart.
    scene.run("start", &["migrate"]).expect(0, &["migrate: done"]);
    assert_eq!(scene.log().len(), 3);
}

#[test]
fn a_unit_that_fails_takes_only_those_that_require_it() {
    let units = task("migrate", "restart = 'never'")
        + &daemon("app", "requires = ['migrate']")
        + &daemon("web", "requires = ['app']")
        + &daemon("free", "wants = ['migrate']");
    let scene = Scene::up(&units);
    scene.end_task("migrate", 3);
    let task = scene.wait_for("migrate", "failed");
    assert!(task["why"].as_str().unwrap().contains("exit status 3"), "{task}");
    scene.wait_for("free", "running");
    let web = scene.wait_for("web", "blocked");
    assert_eq!(web["why"], "requires app, which requires migrate, which has failed");
    let said = scene.run("start", &["web"]);
    said.expect(1, &["web: blocked", "which has failed"]);
    scene.end_task("migrate", 0);
    scene.run("restart", &["migrate"]).expect(0, &["migrate: done"]);
    scene.wait_for("web", "running");
}

#[test]
fn one_that_is_not_ready_in_time_is_stopped_and_has_failed() {
    let late = "[unit.late]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'fd=3'\nstart_timeout = '300ms'\nrestart = 'never'\n";
    let again = "[unit.again]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'fd=3'\nstart_timeout = '50ms'\n\
                 backoff = { first = '10ms', max = '10ms' }\nrestart_limit = { count = 2, window = '60s' }\n";
    let scene = Scene::up(&(late.to_owned() + again + &daemon("app", "requires = ['late']")));
    // Its time may be over before anybody asks.
    let of_log = |log: String| -> Option<i32> { log.split("late: process ").nth(1)?.split(' ').next()?.parse().ok() };
    let pid = wait_until("a pid", || of_log(scene.stderr()));
    let unit = scene.wait_for("late", "failed");
    assert_eq!((&unit["why"], &unit["want"]), (&"it was not ready within 0.3 s".into(), &"running".into()));
    assert!(!lives(pid));
    scene.wait_for("app", "blocked");
    let unit = scene.wait_for("again", "failed");
    assert!(unit["why"].as_str().unwrap().contains("too often"), "{unit}");
    assert_eq!(unit["restarts"], 2);
    // An operator's start begins anew.
    let mut start = scene.begin("start", &["late", "--timeout", "1m"]);
    wait_until("it runs again", || scene.unit("late")["pid"].as_i64());
    assert_eq!(wait_until("its end", || start.try_wait().unwrap()).code(), Some(1));
}

#[test]
fn those_that_conflict_never_run_side_by_side() {
    let scene = Scene::up(&(daemon("blue", "conflicts = ['green']") + &daemon("green", "autostart = false")));
    scene.wait_for("blue", "running");
    scene.run("start", &["green"]).expect(1, &["green: blocked", "blue must not run beside it"]);
    scene.run("stop", &["blue"]).expect(0, &[]);
    // Its operator wants it, and nothing is in its way any more.
    scene.wait_for("green", "running");
    assert!(scene.when("blue stops") < scene.when("green starts"));
}

/// Nor what is stopped to be started again, also because of what it requires: who waits for its end waits on.
#[test]
fn who_is_restarted_gives_way_to_nobody() {
    let scene = Scene::up(
        &(daemon("a", "autostart = false\nconflicts = ['z']") + &daemon("z", "requires = ['db']") + &daemon("db", "")),
    );
    scene.wait_for("z", "running");
    scene.run("start", &["a"]).expect(1, &["z must not run beside it"]);
    for name in ["z", "db"] {
        let before = scene.pid("z");
        scene.run("restart", &[name]).expect(0, &[&format!("{name}: running")]);
        let after = scene.wait_for("z", "running");
        assert_ne!(after["pid"], before);
        assert_eq!(scene.unit("a")["state"], "blocked", "after a restart of {name}");
    }
    assert!(!scene.log().contains(&"a starts".to_owned()), "{:?}", scene.log());
    // It can not come back, so it is in nobody's way.
    scene.run("stop", &["db"]).expect(0, &[]);
    scene.wait_for("a", "running");
    scene.run("start", &["db"]).expect(0, &[]);
    assert!(scene.wait_for("z", "blocked")["why"].as_str().unwrap().contains("a must not run beside it"));
}

#[test]
fn what_only_a_dependent_needs_starts_and_stops_with_it() {
    let scene =
        Scene::up(&(daemon("app", "autostart = false\nrequires = ['db']") + &daemon("db", "autostart = false")));
    let units = scene.status();
    assert!(units.iter().all(|unit| unit["state"] == "stopped" && unit["want"] == "stopped"), "{units:?}");
    scene.run("start", &["app"]).expect(0, &["app: running"]);
    assert_eq!(scene.unit("db")["wanted_by"], "app");
    scene.run("stop", &["app"]).expect(0, &[]);
    scene.wait_for("db", "stopped");
    assert_eq!(scene.log(), ["db starts", "app starts", "app stops", "db stops"]);
}

/// What it has done stays done, whatever becomes of what it needed for that.
#[test]
fn a_oneshot_that_is_done_needs_nothing_any_more() {
    let units = daemon("db", "") + &task("migrate", "requires = ['db']") + &daemon("app", "requires = ['migrate']");
    let scene = Scene::up(&units);
    scene.end_task("migrate", 0);
    let app = scene.wait_for("app", "running")["pid"].clone();
    scene.run("stop", &["db"]).expect(0, &["db: stopped"]);
    scene.run("start", &["db"]).expect(0, &["db: running"]);
    scene.run("restart", &["db"]).expect(0, &["db: running"]);
    assert_eq!((&scene.unit("app")["pid"], &scene.unit("migrate")["state"]), (&app, &"done".into()));
    assert!(!scene.log().contains(&"app stops".to_owned()), "{:?}", scene.log());
    assert_eq!(scene.log().iter().filter(|line| *line == "migrate begins").count(), 1);
    // It is no fact any more.
    scene.run("stop", &["migrate"]).expect(0, &[]);
    scene.wait_for("app", "blocked");
}

/// Whoever requires it by way of one that is dead is stopped with it, and it makes no difference whether it has ended by itself before.
#[test]
fn a_stop_takes_along_those_behind_one_that_is_dead() {
    for ended_before in [false, true] {
        let dies = "restart = 'never'";
        let scene = Scene::up(
            &(daemon("db", dies)
                + &daemon("between", &format!("{dies}\nrequires = ['db']"))
                + &daemon("app", "requires = ['between']")
                + &daemon("other", "wants = ['db']")),
        );
        scene.all_run(&["app", "other"]);
        for name in if ended_before { &["between", "db"][..] } else { &["between"] } {
            scene.run("kill", &[name, "KILL"]).expect(0, &[]);
            scene.wait_for(name, "failed");
        }
        scene.all_run(&["app"]); // a death stops nobody
        scene.run("stop", &["db"]).expect(0, &["db: stopped"]);
        scene.wait_for("app", "blocked");
        assert_eq!(scene.log().last().unwrap(), if ended_before { "app stops" } else { "db stops" });
        scene.all_run(&["other"]);
        scene.run("start", &["app"]).expect(0, &["app: running"]);
    }
}

#[test]
fn it_is_told_when_a_unit_is_blocked_and_when_that_is_over() {
    let scene =
        Scene::up(&(daemon("db", "") + &daemon("app", "requires = ['db']") + &daemon("web", "requires = ['app']")));
    scene.wait_for("web", "running");
    let told = |what: &str| scene.stderr().matches(what).count();
    scene.run("stop", &["db"]).expect(0, &[]);
    let blocked = [
        "app: blocked: requires db, which is stopped",
        "web: blocked: requires app, which requires db, which is stopped",
    ];
    for what in blocked {
        wait_until(what, || (told(what) == 1).then_some(()));
    }
    scene.run("start", &["web"]).expect(0, &["web: running"]);
    for what in ["app: not blocked any more", "web: not blocked any more"] {
        wait_until(what, || (told(what) == 1).then_some(()));
    }
    scene.run("restart", &["db"]).expect(0, &[]);
    scene.wait_for("web", "running");
    assert_eq!(blocked.map(told), [1, 1], "to wait is not to be blocked");
}

/// Also by way of what it waits for: it would not be known of its rival whether it comes.
#[test]
fn who_is_restarted_gives_way_to_nobody_whom_it_is_after() {
    let scene = Scene::up(
        &(daemon("a", "conflicts = ['d']\nafter = ['d']")
            + &daemon("b", "conflicts = ['e']\nwants = ['between']")
            + &daemon("between", "after = ['e']")
            + &daemon("d", "autostart = false")
            + &daemon("e", "autostart = false")),
    );
    for (name, rival) in [("a", "d"), ("b", "e")] {
        scene.wait_for(name, "running");
        scene.run("start", &[rival]).expect(1, &[&format!("{name} must not run beside it")]);
        scene.run("restart", &[name]).expect(0, &[&format!("{name}: running")]);
        assert_eq!(scene.unit(rival)["state"], "blocked", "after a restart of {name}");
        assert!(!scene.log().contains(&format!("{rival} starts")), "{:?}", scene.log());
        // Its place is free only when it is stopped.
        scene.run("stop", &[name]).expect(0, &[]);
        scene.wait_for(rival, "running");
    }
}

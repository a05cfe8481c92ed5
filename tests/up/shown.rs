//! What is shown of units that never run, or not for long.

use crate::scene::{Scene, daemon};
use crate::support::wait_until;
use serde_json::json;

/// Also of who is dead before anybody looks.
#[test]
fn each_start_and_each_end_is_in_the_history() {
    let quick = "backoff = { first = '1ms', max = '1ms' }\nrestart_limit = { count = 8, window = '1000s' }\n";
    let unit = |name: &str, program: &str| {
        format!("[unit.{name}]\nexec = ['{program}']\nmode = 'none'\nready = 'delay=1s'\nrestart = 'always'\n{quick}")
    };
    let scene = Scene::up(&(unit("a", "true") + &unit("b", "false")));
    for name in ["a", "b"] {
        scene.wait_for(name, "failed");
        let said = scene.run("history", &[name, "--json"]).json();
        let entries = said["services"][0]["entries"].as_array().unwrap();
        assert_eq!(entries.len(), 18, "{entries:?}");
        for (number, pair) in entries.chunks(2).enumerate() {
            let [start, end] = pair else { panic!("{pair:?}") };
            assert_eq!((&start["kind"], &start["generation"]), (&json!("start"), &json!(number + 1)), "{entries:?}");
            assert_eq!((&end["kind"], &end["pid"]), (&json!("end"), &start["pid"]), "{entries:?}");
        }
    }
}

#[test]
fn units_at_fault_are_shown_with_what_is_wrong() {
    let faulty = daemon("bad", "flies = true");
    let needs = daemon("needs", "requires = ['bad']");
    let scene = Scene::up(&(daemon("good", "") + &faulty + &needs));
    scene.wait_for("good", "running");
    let bad = scene.unit("bad");
    assert_eq!((&bad["state"], &bad["want"], &bad["pid"]), (&json!("faulty"), &json!("running"), &json!(null)));
    let path = scene.config();
    let place = format!("{}:", path.display());
    let told = bad["why"].as_str().unwrap();
    assert!(told.starts_with(&place) && told.contains("bad, flies: unknown key 'flies'"), "{told}");
    assert_eq!(scene.unit("needs")["state"], "faulty");
    scene.run("status", &[]).expect(0, &["bad    faulty", "unknown key 'flies'"]);
    scene.run("status", &["bad"]).expect(0, &["bad: faulty", &place]);
    scene.run("why", &["bad"]).expect(0, &["bad: faulty, wanted running", &place]);
    scene.run("doctor", &[]).expect(1, &[&format!("bad: {told}")]);
    for command in ["start", "stop", "upgrade"] {
        scene.run(command, &["bad"]).expect(1, &["bad is at fault: ", "unknown key 'flies'", "handoff reload"]);
    }
    scene.write(&(daemon("good", "") + &daemon("bad", "") + &needs));
    scene.run("reload", &[]).expect(0, &["bad: added: starts"]);
    scene.all_run(&["good", "bad", "needs"]);
}

#[test]
fn what_never_ran_has_no_process_that_ended() {
    let scene =
        Scene::up("[unit.a]\nexec = ['sleep', '1']\npre_start = ['false']\nbackoff = { first = '1h', max = '1h' }\n");
    let unit = scene.wait_for("a", "waiting");
    assert_eq!(unit["why"], "its last start failed: pre_start: exit status 1", "{unit}");
}

#[test]
fn what_a_program_without_the_library_is_waited_for_is_said() {
    let scene = Scene::up("[unit.a]\nexec = ['/bin/sleep', '1000']\n");
    wait_until("it is said", || scene.run("why", &["a"]).out.contains("waits for its Hello").then_some(()));
}

//! Keys of units that are options of `handoff run`, too, where they are tested more: that they reach what they are for.

use crate::scene::Scene;
use crate::support::{programs, wait_until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Why an upgrade of a store to a program that never says Hello was rolled back.
fn why_undone(keys: &str) -> String {
    let mut scene = Scene::place("");
    let (program, data) = (programs().kv_a.clone(), scene.place.path("data"));
    scene.write(&format!("[unit.db]\nexec = [{program:?}]\ndata_dir = {data:?}\n{keys}\n"));
    scene.launch();
    scene.wait_for("db", "running");
    let silent = scene.place.path("silent");
    fs::write(&silent, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&silent, fs::Permissions::from_mode(0o755)).unwrap();
    let said = scene.run("upgrade", &["db", "--binary", silent.to_str().unwrap(), "--json"]);
    said.expect(10, &[]).json()["reason"].as_str().unwrap_or_else(|| panic!("{said:?}")).to_owned()
}

#[test]
fn a_program_that_never_says_hello_has_the_time_of_its_unit() {
    let hello = why_undone("hello_timeout = '300ms'");
    assert!(hello.contains("Hello"), "{hello}");
    let late = why_undone("deadline = '300ms'");
    assert!(late.contains("deadline"), "{late}");
}

/// The first process is ready; all others are as the unit says by then.
fn overlapping(scene: &Scene, keys: &str) {
    let script = "trap '' TERM; test -e \"$DIR/mute\" || echo >&3; sleep 1000 & wait; wait";
    scene.write(&format!(
        "[unit.web]\nexec = {script:?}\nshell = true\nmode = 'overlap'\nready = 'fd=3'\nstop = ['TERM 100ms', 'KILL']\n{keys}\n"
    ));
}

/// It runs, and no other process will ever be ready: its pid.
fn the_last_that_is_ready(scene: &mut Scene, keys: &str) -> Value {
    overlapping(scene, keys);
    scene.launch();
    let pid = scene.wait_for("web", "running")["pid"].clone();
    fs::write(scene.place.path("mute"), "").unwrap();
    pid
}

#[test]
fn a_program_that_is_never_ready_has_the_time_of_its_unit() {
    let mut scene = Scene::place("");
    let pid = the_last_that_is_ready(&mut scene, "ready_timeout = '300ms'");
    scene.run("upgrade", &["web"]).expect(10, &["rolled back", "ready"]);
    assert_eq!(scene.unit("web")["pid"], pid);
}

/// Although it could take longer to be ready.
#[test]
fn a_handoff_has_the_time_of_its_unit() {
    let mut scene = Scene::place("");
    let pid = the_last_that_is_ready(&mut scene, "deadline = '300ms'\nready_timeout = '1h'");
    let mut upgrade = scene.begin("upgrade", &["web"]);
    assert_eq!(wait_until("its end", || upgrade.try_wait().unwrap()).code(), Some(10));
    assert_eq!(scene.unit("web")["pid"], pid);
}

/// The waits of a unit before its restarts, in milliseconds, as its history has them.
fn waits(scene: &Scene, name: &str) -> Vec<f64> {
    let said = scene.run("history", &[name]);
    let wait = |line: &str| line.split_once("starts again in ")?.1.split_once(" ms")?.0.parse().ok();
    said.expect(0, &[]).out.lines().filter_map(wait).collect()
}

/// Up to half of each wait is left to chance.
#[test]
fn who_has_run_for_long_enough_begins_with_the_first_wait_again() {
    let unit = |name: &str, reset: &str| {
        format!(
            "[unit.{name}]\nexec = ['sh', '-c', 'sleep 0.1; exit 1']\nmode = 'none'\nready = 'delay=1ms'\n\
             backoff = {{ first = '20ms', reset = '{reset}' }}\nrestart_limit = {{ count = 4, window = '1h' }}\n"
        )
    };
    let scene = Scene::up(&(unit("well", "50ms") + &unit("ill", "10m")));
    let [well, ill] = ["well", "ill"].map(|name| {
        scene.wait_for(name, "failed");
        waits(&scene, name)
    });
    assert_eq!((well.len(), ill.len()), (4, 4));
    assert!(well.iter().all(|wait| (10.0..=20.0).contains(wait)), "{well:?}");
    let doubled: Vec<_> = (0..4).map(|power| 10.0 * 2f64.powi(power)).collect();
    assert!(ill.iter().zip(&doubled).all(|(wait, half)| (*half..=2.0 * half).contains(wait)), "{ill:?}");
}

/// Two may drain by default.
#[test]
fn so_many_drain_as_the_unit_says() {
    let mut scene = Scene::place("");
    overlapping(&scene, "max_draining = 1\ndrain_grace = '10m'");
    scene.launch();
    scene.wait_for("web", "running");
    scene.run("upgrade", &["web"]).expect(0, &["committed"]);
    let draining = |web: &Value| web["draining"].as_array().unwrap().len();
    let web = wait_until("one drains", || Some(scene.unit("web")).filter(|web| draining(web) == 1));
    assert!(web["draining"][0]["left_ms"].as_u64().unwrap() > 60_000, "{web}");
    scene.run("upgrade", &["web", "--when-draining", "refuse"]).expect(13, &["refused"]);
}

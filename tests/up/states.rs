//! What a unit is said to be after an end, and after an upgrade that came to nothing.

use crate::scene::Scene;
use crate::support::{SIGKILL, programs, signal, wait_until};
use serde_json::json;

/// It should go on, and does not: that it has ended with status 0 each time makes it no better.
#[test]
fn one_that_ends_too_often_with_status_0_has_failed() {
    let keys = "restart = 'always'\nrestart_limit = { count = 2, window = '60s' }\nbackoff = { first = '1ms' }";
    let scene = Scene::up(&format!(
        "[unit.a]\nexec = ['true']\nmode = 'none'\nready = 'delay=1s'\n{keys}\n[unit.b]\nexec = ['sleep', '1000']\n\
         mode = 'none'\nready = 'delay=1ms'\nrequires = ['a']\n"
    ));
    let a = scene.wait_for("a", "failed");
    assert!(a["why"].as_str().unwrap().contains("it ended too often to be started again"), "{a}");
    assert!(a["cause"].as_str().unwrap().contains("exit status 0"), "{a}");
    assert_eq!(a["restarts"], json!(2));
    assert_eq!(scene.wait_for("b", "blocked")["why"], json!("requires a, which has failed"));
    scene.run("start", &["a"]).expect(1, &["a: "]);
}

/// Its process is that of before, and so is the one that is started after a crash: the new configuration was found to be bad.
#[test]
fn an_upgrade_that_is_undone_leaves_the_unit_as_it_was() {
    let unit = |script: &str| {
        format!(
            "[unit.web]\nexec = 'echo good >> \"$LOG\"; {script}'\nshell = true\nmode = 'overlap'\nready = 'delay=50ms'\n\
             backoff = {{ first = '1ms' }}\n"
        )
    };
    let scene = Scene::up(&unit("exec sleep 1000"));
    let pid = scene.wait_for("web", "running")["pid"].clone();
    scene.write(&unit("exit 3").replace("echo good", "echo bad"));
    scene.run("reload", &[]).expect(0, &["web: changed (exec): runs as before"]);
    scene.run("upgrade", &["web"]).expect(10, &["rolled back"]);
    let web = scene.unit("web");
    assert_eq!((&web["pid"], &web["stale"]), (&pid, &json!(["exec"])));
    scene.run("kill", &["web", "KILL"]).expect(0, &[]);
    wait_until("another process", || {
        Some(scene.unit("web")).filter(|web| web["state"] == "running" && web["pid"] != pid)
    });
    assert_eq!(scene.log(), ["good", "bad", "good"]);
    assert_eq!(scene.unit("web")["stale"], json!(["exec"]));
    // An operator's word is more.
    scene.write(&unit("exec sleep 1001"));
    scene.run("reload", &[]).expect(0, &[]);
    scene.run("upgrade", &["web"]).expect(0, &["committed"]);
    assert_eq!(scene.unit("web")["stale"], json!([]));
}

/// The same, when it is undone by the death of the new process in its probation.
#[test]
fn a_reserve_that_takes_over_is_stale_again() {
    let mut scene = Scene::place("");
    let (program, data) = (programs().kv_a.clone(), scene.place.path("data"));
    let unit = |keys: &str| {
        format!(
            "[unit.db]\nexec = [{program:?}]\ndata_dir = {data:?}\nlisten = ['kv=127.0.0.1:0']\nprobation = '60s'\n{keys}\n"
        )
    };
    scene.write(&unit(""));
    scene.launch();
    let before = scene.wait_for("db", "running")["pid"].clone();
    scene.write(&unit("env = { A = '1' }"));
    scene.run("reload", &[]).expect(0, &[]);
    scene.run("upgrade", &["db"]).expect(0, &["committed"]);
    assert_eq!(scene.unit("db")["stale"], json!([]));
    signal(scene.pid("db"), SIGKILL);
    wait_until("the reserve serves", || {
        Some(scene.unit("db")).filter(|db| db["pid"] == before && db["state"] == "running")
    });
    wait_until("it is told", || scene.stderr().contains("reverted").then_some(()));
    assert_eq!(scene.unit("db")["stale"], json!(["env"]));
}

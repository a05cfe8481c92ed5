//! Units that are replaced by a handoff, and those that depend on them.

use crate::compiled::have;
use crate::scene::{Scene, daemon};
use crate::support::{ask, programs, wait_until};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks the store behind it, on a connection of its own for each request.
const FRONT: &str = r#"
import os, socket, threading
back = (os.environ["BACK_HOST"], int(os.environ["BACK_PORT"]))
def serve(client):
    with client, socket.create_connection(back) as store:
        store.sendall(client.makefile("rb").readline())
        client.sendall(store.makefile("rb").readline())
with socket.socket(fileno=3) as listener:
    listener.setblocking(True)
    os.write(4, b"\n")
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"#;

fn store(scene: &Scene, port: u16) -> String {
    let (program, data) = (programs().kv_a.clone(), scene.place.path("data"));
    format!("[unit.db]\nexec = [{program:?}]\nlisten = ['kv=127.0.0.1:{port}']\ndata_dir = {data:?}\n")
}

#[test]
fn a_dependency_is_restarted_and_nobody_who_asks_its_dependent_notices() {
    if !have("python3") {
        return;
    }
    let mut scene = Scene::place("");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let front = format!(
        "[unit.front]\nexec = ['python3', '-c', {FRONT:?}]\nlisten = ['front=127.0.0.1:0']\nmode = 'none'\nready = 'fd=4'\n\
         requires = ['db']\nenv = {{ BACK_HOST = '127.0.0.1', BACK_PORT = '{port}' }}\n"
    );
    scene.write(&(store(&scene, port) + &front + &daemon("other", "requires = ['front']")));
    scene.launch();
    let address: SocketAddr =
        scene.wait_for("front", "running")["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
    scene.wait_for("other", "running");
    let (db, front, other) = (scene.pid("db"), scene.pid("front"), scene.pid("other"));
    let enough = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let enough = &enough;
                scope.spawn(move || {
                    let mut asked = 0;
                    while !enough.load(Ordering::Relaxed) {
                        let reply = ask(address, &format!("SET key{client} {asked}"));
                        assert!(reply.as_ref().is_some_and(|reply| reply.starts_with("OK")), "{reply:?} after {asked}");
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for _ in 0..3 {
            scene.run("restart", &["db"]).expect(0, &["db: committed"]);
        }
        enough.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
    });
    assert!(asked > 3, "{asked}");
    assert_ne!(scene.pid("db"), db);
    assert_eq!(scene.unit("db")["generation"], 4);
    assert_eq!((scene.pid("front"), scene.pid("other")), (front, other));
}

/// An upgrade of one unit, and what an operator can say while it is under way.
#[test]
fn an_upgrade_of_one_unit_leaves_the_others_alone() {
    let scene = {
        let mut scene = Scene::place("");
        scene.write(&(store(&scene, 0) + &daemon("app", "requires = ['db']")));
        scene.launch();
        scene
    };
    let app = scene.wait_for("app", "running")["pid"].clone();
    scene.run("upgrade", &[]).expect(2, &["which service?"]);
    let binary = programs().kv_b.clone();
    scene.run("upgrade", &["db", "--binary", binary.to_str().unwrap()]).expect(0, &["committed"]);
    scene.run("rollback", &["db"]).expect(0, &["committed"]);
    assert_eq!((&scene.unit("app")["pid"], &scene.unit("db")["generation"]), (&app, &3.into()));
    scene.run("upgrade", &["app"]).expect(13, &["refused"]);
    // Undone: its process is as it was, and so it is still stale.
    let bad = store(&scene, 0).replace("data_dir", "env = { KV_FAULT = 'crash' }\ndata_dir");
    let bad = bad.replace(programs().kv_a.to_str().unwrap(), programs().faulty.to_str().unwrap());
    scene.write(&(bad + &daemon("app", "requires = ['db']")));
    scene.run("reload", &[]).expect(0, &["db: changed (exec, env): runs as before"]);
    scene.run("restart", &["db"]).expect(10, &["rolled back"]);
    assert_eq!(
        (&scene.unit("db")["stale"], &scene.unit("db")["generation"]),
        (&serde_json::json!(["exec", "env"]), &3.into())
    );
    scene.run("stop", &["db"]).expect(0, &[]);
    scene.run("upgrade", &["db"]).expect(13, &["refused"]);
    assert_eq!(scene.unit("db")["state"], "stopped");
}

/// Neither those of the handoff before, nor those of the start.
#[test]
fn a_refused_upgrade_has_no_phases_of_others() {
    let scene = Scene::up("[unit.a]\nexec = ['/bin/sleep', '1000']\nmode = 'overlap'\nready = 'delay=10ms'\n");
    scene.wait_for("a", "running");
    let bad = scene.place.path("bad");
    std::fs::write(&bad, "no program").unwrap();
    std::fs::set_permissions(&bad, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let phases = || {
        let said = scene.run("history", &["a", "--json"]).json();
        let entries = said["services"][0]["entries"].as_array().unwrap();
        let last = entries.iter().rfind(|entry| entry["kind"] == "handoff");
        last.unwrap_or_else(|| panic!("{said}"))["phases"].clone()
    };
    for _ in 0..2 {
        scene.run("upgrade", &["a", "--binary", bad.to_str().unwrap()]).expect(13, &["refused"]);
        assert_eq!(phases(), serde_json::json!([]));
        scene.run("upgrade", &["a"]).expect(0, &["committed"]);
        assert_ne!(phases(), serde_json::json!([]));
    }
}

/// Nobody keeps what an interpreter runs: at least that is said, before and after.
#[test]
fn a_way_back_of_an_interpreter_says_what_it_does_not_change() {
    let scene = Scene::place("");
    let app = scene.place.path("app.sh");
    std::fs::write(&app, "exec sleep 1000").unwrap();
    let mut scene = scene;
    scene.write(&format!("[unit.a]\nexec = ['/bin/sh', {app:?}]\nmode = 'overlap'\nready = 'delay=10ms'\n"));
    scene.launch();
    scene.wait_for("a", "running");
    scene
        .run("upgrade", &["a", "--dry-run"])
        .expect(0, &["a rollback would not undo it", "app.sh, which runs as it is"]);
    scene.run("upgrade", &["a"]).expect(0, &["committed"]);
    scene.run("rollback", &["a"]).expect(0, &["committed", "app.sh, which runs as it is"]);
    let other = scene.run("upgrade", &["a", "--dry-run", "--binary", "/bin/sleep"]);
    assert!(!other.expect(0, &[]).out.contains("undo"), "{other:?}");
}

/// What it has beside it is found by `$0`.
#[test]
fn a_script_that_is_gone_back_to_knows_its_path() {
    let mut scene = Scene::place("");
    let [one, two] = ["one", "two"].map(|name| {
        let path = scene.place.path(name);
        std::fs::write(&path, "#!/bin/sh\necho $0 >> \"$LOG\"; exec sleep 1000\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    });
    scene.write(&format!("[unit.a]\nexec = [{one:?}]\nmode = 'overlap'\nready = 'delay=100ms'\n"));
    scene.launch();
    scene.wait_for("a", "running");
    scene.run("upgrade", &["a", "--binary", &two]).expect(0, &["committed"]);
    scene.run("rollback", &["a"]).expect(0, &["committed"]);
    wait_until("it has written its name", || (scene.log().len() == 3).then_some(()));
    assert_eq!(scene.log(), [one.clone(), two, one]);
}

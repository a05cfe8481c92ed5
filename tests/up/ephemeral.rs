//! Units that are in no file: added and removed at run time.

use crate::scene::{Scene, daemon, task};
use crate::support::{lives, wait_until};
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

fn add(scene: &Scene, units: &str, arguments: &[&str]) -> crate::scene::Said {
    fs::write(scene.place.path("more.toml"), units).unwrap();
    let path = scene.place.path("more.toml");
    scene.run("add", &[&[path.to_str().unwrap()], arguments].concat())
}

/// Through everything that a supervisor goes through, the process is the same, and what an operator has said stays said.
#[test]
fn they_are_units_like_others_until_they_are_removed() {
    let mut scene = Scene::up(&(daemon("db", "") + &daemon("app", "requires = ['db']")));
    scene.all_run(&["db", "app"]);
    let units = daemon("extra", "requires = ['db']")
        + &daemon("idle", "autostart = false")
        + &daemon("held", "")
        + &task("once", "");
    scene.end_task("once", 0);
    add(&scene, &units, &[]).expect(0, &["extra: running, process ", "idle: stopped", "once: done"]);
    fs::remove_file(scene.place.path("more.toml")).unwrap();
    scene.run("stop", &["held"]).expect(0, &[]);
    let pid = scene.pid("extra");
    let check = |scene: &Scene| {
        let extra = scene.wait_for("extra", "running");
        assert_eq!((&extra["pid"], &extra["ephemeral"], &extra["stale"]), (&json!(pid), &json!(true), &json!([])));
        assert_eq!((&scene.unit("app")["ephemeral"], &scene.unit("idle")["state"]), (&json!(false), &json!("stopped")));
        assert_eq!(
            (&scene.unit("held")["why"], &scene.unit("once")["state"]),
            (&json!("stopped by an operator"), &json!("done"))
        );
    };
    check(&scene);
    scene.run("status", &["extra"]).expect(0, &["ephemeral  it is in no file"]);
    scene.run("status", &[]).expect(0, &["running (ephemeral)"]);
    scene.run("reload", &[]).expect(0, &["nothing has changed"]);
    check(&scene);
    scene.run("self-upgrade", &[]).expect(0, &[]);
    scene.run("status", &[]).expect(0, &["supervisor kv: process ", "self-upgrade done"]);
    check(&scene);
    scene.kill();
    scene.launch();
    check(&scene);
    // In the order of all.
    scene.run("stop", &["db"]).expect(0, &[]);
    assert!(scene.when("extra stops") < scene.when("db stops"), "{:?}", scene.log());
    scene.run("why", &["extra"]).expect(0, &["extra: blocked", "requires db, which is stopped"]);
    scene.run("start", &["extra"]).expect(0, &["extra: running"]);
    let pid = scene.pid("extra");
    scene.run("remove", &["extra", "idle"]).expect(0, &["extra: gone", "idle: gone"]);
    assert!(!lives(pid));
    scene.run("status", &["extra"]).expect(4, &["there is no service 'extra'"]);
    scene.run("tree", &["held"]).expect(0, &["held (stopped)"]);
    // The end in order is the end of them.
    assert_eq!(scene.stop(), 0);
    scene.launch();
    scene.all_run(&["db", "app"]);
    assert_eq!(scene.status().len(), 2);
}

#[test]
fn what_is_at_fault_changes_nothing() {
    let unit = |name: &str, keys: &str| {
        format!("[unit.{name}]\nexec = ['sleep', '1000']\nmode = 'none'\nready = 'delay=10ms'\n{keys}\n")
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data = tempfile::tempdir().unwrap();
    let data = format!("data_dir = '{}'", data.path().display());
    let web = format!("listen = ['x=127.0.0.1:{port}']\nautostart = false\n{data}");
    let base = unit("own", "system = true") + &unit("web", &web);
    let scene = Scene::up(&(base + "[target.all]\nunits = ['web']\n"));
    scene.wait_for("own", "running");
    let web = format!("{}:6:7", scene.config().display());
    for (units, fault) in [
        (unit("new", "") + "flies = true\n", "more.toml:6:1: new, flies: unknown key 'flies'".to_owned()),
        (unit("new", "") + &unit("web", ""), format!("more.toml:6:7: web: there is a unit of this name, at {web}")),
        (unit("own", ""), "more.toml:1:7: own: there is a system unit of this name".to_owned()),
        (unit("all", ""), "more.toml:1:7: all: there is a unit of this name".to_owned()),
        (unit("new", "system = true"), "new: a system unit can not be added".to_owned()),
        (unit("new", &format!("listen = ['y=0.0.0.0:{port}']")), format!("listener 'x' of web, too, at {web}")),
        (unit("new", &data), format!("web writes to this directory, too, at {web}")),
        (
            unit("new", "requires = ['nobody']"),
            "more.toml:5:13: new, requires: there is no unit or target 'nobody'".to_owned(),
        ),
        (unit("new", "conflicts = ['own']"), "'own' conflicts, and both are started".to_owned()),
        (unit("new", "requires = ['new']"), "it waits for itself".to_owned()),
        ("[target.new]\nunits = ['web']\n".to_owned(), "new: only units can be added".to_owned()),
        (unit("new", "") + "[unit\n", "more.toml:6:6: new: this is no TOML".to_owned()),
        (String::new(), "more.toml:1:1: there is no unit in it".to_owned()),
    ] {
        add(&scene, &units, &[]).expect(1, &[&fault, "nothing was added"]);
        let answer = add(&scene, &units, &["--json"]).json();
        assert_eq!(
            (&answer["units"], answer["faults"].as_array().unwrap().is_empty()),
            (&json!([]), false),
            "{answer}"
        );
        assert_eq!(scene.status().len(), 2);
    }
    add(&scene, &format!("#{}", "x".repeat(16 * 1024)), &[]).expect(1, &["16 KiB"]);
    scene.run("add", &["/no/such"]).expect(1, &["/no/such: cannot read it"]);
    add(&Scene::place(""), &unit("new", ""), &[]).expect(3, &["not running"]);
    // The same from standard input; what is there already is at fault.
    let from_stdin = || {
        let mut add = scene.place.command("add");
        fs::write(scene.place.path("in"), unit("new", "requires = ['all']")).unwrap();
        add.arg("-").stdin(File::open(scene.place.path("in")).unwrap()).output().unwrap()
    };
    assert_eq!(from_stdin().status.code(), Some(0));
    scene.all_run(&["new", "web"]);
    let again = from_stdin();
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stdout).unwrap();
    assert!(said.contains("<stdin>:1:7: new: the name is there twice"), "{said}");
}

#[test]
fn only_what_was_added_and_is_not_needed_is_removed() {
    let scene = Scene::up(&daemon("db", ""));
    add(&scene, &(daemon("below", "") + &daemon("above", "requires = ['below']")), &["--json"]).expect(0, &[]);
    scene.run("remove", &["db"]).expect(1, &["db is in the files"]);
    scene.run("remove", &["nobody"]).expect(4, &["nobody"]);
    scene
        .run("remove", &["below"])
        .expect(1, &["above, requires: there is no unit or target 'below'", "nothing was removed"]);
    scene.all_run(&["db", "below", "above"]);
    scene.run("remove", &["below", "above", "--json"]).expect(0, &[]);
    assert!(scene.when("above stops") < scene.when("below stops"), "{:?}", scene.log());
    assert_eq!(scene.status().len(), 1);
    // A name that is free again, and a start that fails.
    let fails = "[unit.below]\nexec = ['/no/such']\nmode = 'none'\nready = 'delay=10ms'\nrestart = 'never'\n";
    add(&scene, fails, &[]).expect(1, &["below: failed"]);
    assert_eq!(scene.unit("below")["ephemeral"], json!(true));
    scene.run("remove", &["below"]).expect(0, &["below: gone"]);
}

/// Nothing of the files gives way to them, and nothing is lost in silence.
#[test]
fn files_win_and_what_loses_is_told() {
    let mut scene = Scene::up(&daemon("db", ""));
    add(&scene, &daemon("extra", ""), &[]).expect(0, &[]);
    let pid = scene.pid("extra");
    scene.write(&(daemon("db", "") + &daemon("extra", "env = { A = '1' }")));
    for arguments in [&["--dry-run"][..], &[]] {
        scene
            .run("reload", arguments)
            .expect(1, &["more.toml:1:7: extra: there is a unit of this name, at ", "the units of before stay"]);
    }
    assert_eq!((scene.pid("extra"), &scene.unit("extra")["ephemeral"]), (pid, &json!(true)));
    scene.kill();
    scene.launch();
    wait_until("it is told", || {
        scene.stderr().contains("more.toml:1:7: extra: there is a unit of this name").then_some(())
    });
    let extra = scene.wait_for("extra", "running");
    assert_eq!((&extra["pid"], &extra["ephemeral"]), (&json!(pid), &json!(false)), "the unit of the file is it now");
    scene.run("remove", &["extra"]).expect(0, &[]);
    assert_eq!(scene.pid("extra"), pid);
    scene.run("reload", &[]).expect(0, &["nothing has changed"]);
}

/// Others may go through the runtime directory, as soon as a unit has a user of its own.
#[test]
fn nobody_else_can_read_the_variables_of_what_was_added() {
    let mut scene = Scene::up(&daemon("db", ""));
    scene.all_run(&["db"]);
    add(&scene, &daemon("job", "env = { TOKEN = 'the-token-of-job' }"), &[]).expect(0, &["job: running"]);
    let files = fs::read_dir(scene.place.path("run")).unwrap().map(|entry| entry.unwrap().path());
    let has_token = |path: &std::path::PathBuf| {
        fs::read(path).is_ok_and(|bytes| bytes.windows(16).any(|window| window == b"the-token-of-job"))
    };
    let mut with_token: Vec<_> = files.filter(has_token).collect();
    with_token.sort();
    let names: Vec<_> = with_token.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["job.unit", "kv.state"]);
    for path in &with_token {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(scene.stop(), 0);
}

//! Files of units that are gone, half written, no files at all, or too much: the units of before stay, and nobody waits for a reader.

use crate::support::fleet::Fleet;
use crate::support::{signal, wait_until};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

const SIGHUP: i32 = 1;

fn unit(fleet: &Fleet, name: &str) -> String {
    format!("[unit.{name}]\n{}mode = 'none'\nready = 'fd=9'\n", fleet.acts(name, "fd=9"))
}

/// One unit, `app`, and its process.
fn start() -> (Fleet, i32) {
    let mut fleet = Fleet::place();
    fleet.configure(&unit(&fleet, "app"));
    fleet.launch();
    let pid = fleet.wait_for("app", "running")["pid"].as_i64().unwrap() as i32;
    (fleet, pid)
}

/// A reload is refused with these words, and the same process is the only one.
#[track_caller]
fn refused(fleet: &Fleet, pid: i32, words: &[&str]) {
    fleet.run("reload", &[]).expect(1, words).expect(1, &["the units of before stay"]);
    let status = fleet.status().unwrap();
    let found: Vec<(&Value, &Value)> = status.iter().map(|unit| (&unit["name"], &unit["pid"])).collect();
    assert_eq!(found, [(&Value::from("app"), &Value::from(pid))], "{words:?}");
}

#[test]
fn a_file_that_is_gone_or_half_or_too_much() {
    let (fleet, pid) = start();
    let (app, path) = (unit(&fleet, "app"), fleet.path("units.toml"));
    fs::remove_file(&path).unwrap();
    refused(&fleet, pid, &["units.toml: cannot read it: No such file"]);
    let rows: [(Vec<u8>, &str); 10] = [
        (Vec::new(), "there is no unit in"),
        (app[..app.len() / 2].into(), "this is no TOML"),
        ((app.clone() + "[unit.more").into(), "this is no TOML"),
        ((app.clone() + "[unit.more]\nexec = [").into(), "this is no TOML"),
        ((app.clone() + "\0").into(), "this is no TOML"),
        ([app.as_bytes(), b"# \xff\n"].concat(), "this is not UTF-8; save the file as UTF-8"),
        (app.repeat(2).into(), "this is there twice"),
        (vec![b'#'; 100 * 1024 * 1024], "it has more than 1024 KiB; split it"),
        (["a = ", &"[".repeat(50_000)].concat().into(), "recurs"),
        (["a", &".a".repeat(50_000), " = 1"].concat().into(), "recurs"),
    ];
    for (content, words) in rows {
        fs::write(&path, content).unwrap();
        refused(&fleet, pid, &["units.toml", words]);
    }
    fleet.configure(&app);
    fleet.run("reload", &[]).expect(0, &["nothing has changed"]);
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let (fleet, pid) = start();
    let path = fleet.path("units.toml");
    let link = |to: &str| symlink(to, &path).unwrap();
    let rows: [(&dyn Fn(), &str); 5] = [
        (&|| mkfifo(&path, Mode::S_IRWXU).unwrap(), "it is no regular file"),
        (&|| link("/dev/zero"), "it is no regular file"),
        (&|| drop(UnixListener::bind(&path).unwrap()), "cannot read it"),
        (&|| link("units.toml"), "remove this symbolic link"),
        (&|| fs::create_dir(&path).unwrap(), "there is no file *.toml in"),
    ];
    for (make, words) in rows {
        fs::remove_file(&path).unwrap();
        make();
        refused(&fleet, pid, &["units.toml", words]);
    }
    // It is a directory now.
    let app = unit(&fleet, "app");
    fs::write(path.join("app.toml"), &app).unwrap();
    let other = path.join("other.toml");
    let link = |to: &Path| symlink(to, &other).unwrap();
    let rows: [(&dyn Fn(), &str); 6] = [
        (&|| mkfifo(&other, Mode::S_IRWXU).unwrap(), "it is no regular file"),
        (&|| link(&other), "remove this symbolic link"),
        (&|| link("/dev/tty".as_ref()), "cannot read it"),
        (&|| link("nobody".as_ref()), "No such file"),
        // Who writes it anew has emptied it.
        (&|| fs::write(&other, "").unwrap(), "it is empty; write [unit.NAME], or remove it"),
        (&|| fs::create_dir(&other).unwrap(), "it is no regular file"),
    ];
    for (make, words) in rows {
        make();
        refused(&fleet, pid, &["other.toml", words]);
        let _ = fs::remove_file(&other).or_else(|_| fs::remove_dir(&other));
    }
    fleet.run("reload", &[]).expect(0, &["nothing has changed"]);
}

/// At a start the rest runs; and one file of many that has gone takes its units along, which is no mistake.
#[test]
fn a_directory_of_many_files() {
    const MANY: usize = 100;
    let mut fleet = Fleet::place();
    let dir = fleet.path("units.toml");
    fs::create_dir(&dir).unwrap();
    for name in ["app", "other"] {
        fs::write(dir.join(format!("{name}.toml")), unit(&fleet, name)).unwrap();
    }
    for number in 0..MANY {
        let idle = format!("[unit.n{number}]\nexec = ['true']\noneshot = true\nautostart = false\n");
        fs::write(dir.join(format!("n{number}.toml")), idle).unwrap();
    }
    fs::write(dir.join("empty.toml"), "").unwrap();
    mkfifo(&dir.join("pipe.toml"), Mode::S_IRWXU).unwrap();
    fs::write(dir.join("half.toml"), "[unit.half]\nexec = [").unwrap();
    fleet.launch();
    let pid = fleet.wait_for("app", "running")["pid"].clone();
    fleet.wait_for("other", "running");
    assert_eq!(fleet.status().unwrap().len(), MANY + 3);
    assert_eq!(fleet.unit("half").unwrap()["state"], "faulty");
    for (file, words) in [("empty", "it is empty"), ("pipe", "no regular file"), ("half", "this is no TOML")] {
        let log = fleet.log();
        let said = log.lines().filter(|line| line.contains(&format!("{file}.toml")) && line.contains(words));
        assert_eq!(said.count(), 1, "{file}: {log}");
        fs::remove_file(dir.join(format!("{file}.toml"))).unwrap();
    }
    fs::remove_file(dir.join("other.toml")).unwrap();
    signal(fleet.pid(), SIGHUP);
    wait_until("it is gone", || fleet.unit("other").is_none().then_some(()));
    assert_eq!((fleet.unit("app").unwrap()["pid"].clone(), fleet.status().unwrap().len()), (pid, MANY + 1));
}

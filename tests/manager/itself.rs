//! The unit file under systemd itself, as PID 1 of namespaces of its own. It needs root and control groups that can be written, and so is not
//! run by itself: `cargo test --test manager -- --ignored itself`.

use crate::daemons::systemd;
use crate::harness::{Place, ask, wait_until};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The versions of control groups that this machine has.
fn versions() -> Vec<u8> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let first = Path::new("/sys/fs/cgroup/systemd").exists().then_some(1);
    let second = mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")).then_some(2);
    let found: Vec<u8> = first.into_iter().chain(second).collect();
    assert!(!found.is_empty(), "no control groups: {mounts}");
    found
}

struct Systemd {
    dir: std::path::PathBuf,
    unit: &'static str,
    child: Child,
}

impl Systemd {
    fn command(dir: &Path, what: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manager/itself.sh");
        let mut command = Command::new(script);
        command.arg(what).arg(dir).stdin(Stdio::null());
        command
    }

    /// Runs this unit of docs/systemd, with its files in this directory, under systemd with control groups of this version.
    fn start(dir: &Path, version: u8, file: &str, unit: &'static str) -> Self {
        fs::create_dir_all(dir.join("units/test.target.wants")).unwrap();
        fs::write(dir.join("groups"), version.to_string()).unwrap();
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd").join(file);
        let text = fs::read_to_string(docs).unwrap().replace("/usr/local/bin/handoff", env!("CARGO_BIN_EXE_handoff"));
        let text =
            text.replace("/etc/handoff/", &format!("{}/", dir.display())).replace("WatchdogSec=30", "WatchdogSec=3");
        fs::write(dir.join("units").join(file), text.replace("[Unit]", "[Unit]\nDefaultDependencies=no")).unwrap();
        fs::write(dir.join("units/test.target"), "[Unit]\nDefaultDependencies=no\n").unwrap();
        symlink(format!("../{file}"), dir.join("units/test.target.wants").join(format!("{unit}.service"))).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Self::command(dir, "start");
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut inside = Self { dir: dir.to_owned(), unit, child: command.spawn().unwrap() };
        let pid = inside.child.id();
        let init = wait_until("systemd", || {
            assert!(inside.child.try_wait().unwrap().is_none(), "systemd can not be run here");
            let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
            let init = list.split_whitespace().next()?.to_owned();
            (fs::read_link(format!("/proc/{init}/exe")).ok()?.ends_with("systemd")).then_some(init)
        });
        fs::write(dir.join("init"), init).unwrap();
        inside
    }

    /// Runs a command inside; what it wrote, if it has succeeded.
    fn run(&self, words: &[&str]) -> Option<String> {
        let output = Self::command(&self.dir, "enter").args(words).stderr(Stdio::null()).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// The program that is tested, inside.
    fn handoff(&self, words: &[&str]) -> Option<String> {
        self.run(&[&[env!("CARGO_BIN_EXE_handoff")], words].concat())
    }

    fn properties(&self) -> HashMap<String, String> {
        let said = self.run(&["systemctl", "show", self.unit]).unwrap_or_default();
        said.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, wanted: &[(&str, &str)]) -> HashMap<String, String> {
        wait_until(what, || {
            let found = self.properties();
            wanted.iter().all(|(key, value)| found.get(*key).is_some_and(|found| found == value)).then_some(found)
        })
    }

    /// The only service.
    fn service(&self) -> Value {
        wait_until("an answer", || {
            let said = self.handoff(&["status", "--json"])?;
            let status: Value = serde_json::from_str(&said).ok()?;
            status["services"].get(0).filter(|service| service["state"] == "running").cloned()
        })
    }

    /// What the doctor finds of the unit of systemd, and of the supervisor: the checks that are not well.
    fn ills(&self) -> Vec<String> {
        let output =
            Self::command(&self.dir, "enter").args([env!("CARGO_BIN_EXE_handoff"), "doctor", "--json"]).output();
        let said: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let findings = said["findings"].as_array().unwrap().iter();
        let of_us = findings
            .filter(|finding| finding["place"] == format!("{}.service", self.unit) || finding["place"] == "supervisor");
        let mut checks: Vec<String> = of_us
            .filter(|finding| finding["severity"] != "ok")
            .map(|finding| finding["check"].as_str().unwrap().to_owned())
            .collect();
        checks.sort_unstable();
        checks
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- systemd said:\n{}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let clean = || Self::command(&self.dir, "clean").stderr(Stdio::null()).status().ok()?.success().then_some(());
        wait_until("its control groups are empty", clean);
    }
}

#[test]
#[ignore = "runs systemd"]
fn one_under_systemd_itself() {
    versions().into_iter().for_each(one);
}

fn one(version: u8) {
    let place = Place::new();
    let dir = place.path("systemd");
    fs::create_dir(&dir).unwrap();
    // Without a sign it would not be replaced; on this one it is ready at once.
    let options = "--listen web=127.0.0.1:0 --mode overlap --ready delay=50ms";
    let command = systemd(&place, "plain").join(" ");
    fs::write(dir.join("web.conf"), format!("OPTIONS={options}\nCOMMAND={command}\n")).unwrap();

    let inside = Systemd::start(&dir, version, "handoff@.service", "handoff@web");
    let up = inside
        .wait_for("up, with its listener in the store", &[("ActiveState", "active"), ("NFileDescriptorStore", "1")]);
    assert!(up["StatusText"].contains("web: running"), "{up:?}");
    let service = inside.service();
    let address = service["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(i64::from(ask(address, "one").0), service["pid"].as_i64().unwrap());

    // Killed, or hanging: its daemon lives on under the next one. Pids are those of the namespace.
    for (number, how) in [(1, "KILL"), (2, "STOP")] {
        let main = inside.properties()["MainPID"].clone();
        inside.run(&["kill", &format!("-{how}"), &main]).unwrap();
        inside.wait_for(how, &[("NRestarts", &number.to_string()), ("ActiveState", "active"), ("SubState", "running")]);
        let after = inside.service();
        assert_eq!(after["pid"], service["pid"], "{how}: {after}");
        assert!(after["why"].as_str().unwrap().contains("adopted"), "{how}: {after}");
    }
    inside.run(&["systemctl", "reload", "handoff@web"]).expect("an upgrade");
    let upgraded = inside.service();
    assert_eq!((&upgraded["generation"], upgraded["pid"] == service["pid"]), (&2.into(), false), "{upgraded}");

    inside.run(&["systemctl", "kill", "--kill-whom=all", "--signal=KILL", "handoff@web"]).unwrap();
    inside.wait_for("it is started again", &[("NRestarts", "3"), ("ActiveState", "active"), ("SubState", "running")]);
    assert_eq!(ask(address, "three").1, "three", "on the same socket, out of the store");

    inside.run(&["systemctl", "stop", "handoff@web"]).expect("a stop");
    inside.wait_for("down", &[("ActiveState", "inactive"), ("Result", "success")]);
}

#[test]
#[ignore = "runs systemd"]
fn many_under_systemd_itself() {
    versions().into_iter().for_each(many);
}

/// The table "What survives what" of docs/systemd.md, and the doctor, who asks systemd.
fn many(version: u8) {
    let place = Place::new();
    let dir = place.path("systemd");
    fs::create_dir(&dir).unwrap();
    let [python, script, mode] = systemd(&place, "plain");
    let units = format!(
        "[unit.web]\nexec = ['{python}', '{script}', '{mode}']\nlisten = ['web=127.0.0.1:0']\nmode = 'overlap'\nready = 'delay=50ms'\n"
    );
    fs::write(dir.join("units.toml"), &units).unwrap();
    let inside = Systemd::start(&dir, version, "handoff.service", "handoff");
    let active = [("ActiveState", "active"), ("SubState", "running"), ("NFileDescriptorStore", "1")];
    let first = inside.wait_for("up", &active);
    let service = inside.service();
    let address = service["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(inside.ills(), [""; 0]);
    let same = |what: &str| {
        let (now, service_now) = (inside.wait_for(what, &active), inside.service());
        assert_eq!((&now["MainPID"], &now["NRestarts"]), (&first["MainPID"], &"0".to_owned()), "{what}");
        assert_eq!(service_now["pid"], service["pid"], "{what}");
        assert_eq!(i64::from(ask(address, what).0), service["pid"].as_i64().unwrap());
    };
    inside.handoff(&["self-upgrade"]).expect("a self-upgrade");
    same("self-upgrade");
    inside.run(&["systemctl", "daemon-reexec"]).expect("daemon-reexec");
    same("daemon-reexec");
    inside.handoff(&["self-upgrade"]).expect("another one");
    inside.run(&["systemctl", "reload", "handoff"]).expect("a reload");
    same("reload");
    // It goes on giving signs of life: longer than systemd waits for one.
    std::thread::sleep(Duration::from_secs(4));
    same("the watchdog");

    // A mistake in the unit's file is found where systemd has it, and so is what hems in the supervisor.
    fs::create_dir(dir.join("units/handoff.service.d")).unwrap();
    let worse = "[Service]\nKillMode=mixed\nOOMPolicy=stop\nSystemCallFilter=~@raw-io\n";
    fs::write(dir.join("units/handoff.service.d/worse.conf"), worse).unwrap();
    inside.run(&["systemctl", "daemon-reload"]).expect("a reload of its files");
    assert_eq!(inside.ills(), ["KillMode", "OOMPolicy"]);
    inside.run(&["systemctl", "restart", "handoff"]).expect("a restart");
    inside.wait_for("up again", &active);
    assert_eq!(inside.ills(), ["KillMode", "OOMPolicy", "seccomp"]);
    let again = inside.service();
    assert_ne!(again["pid"], service["pid"]);
    assert_eq!(i64::from(ask(address, "out of the store").0), again["pid"].as_i64().unwrap());

    inside.handoff(&["self-upgrade"]).expect("a self-upgrade behind a filter");
    inside.handoff(&["upgrade", "web"]).expect("an upgrade behind a filter");
    inside.run(&["systemctl", "stop", "handoff"]).expect("a stop");
    inside.wait_for("down", &[("ActiveState", "inactive"), ("Result", "success"), ("NFileDescriptorStore", "0")]);
}

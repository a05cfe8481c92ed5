//! A daemon that links the library, and runs as another user than its supervisor.

use super::copy::copy_program;
use super::harness::{Place, Run, pid_of, text};
use super::{is_root, open_to_others, shut_down, up};
use nix::unistd::{Gid, Uid, chown};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

#[path = "../compiled/mod.rs"]
mod compiled;

pub const NOBODY: u32 = 65534;

/// A store that nobody can reach, with its library, and a data directory of nobody's own.
pub fn store(place: &Place) -> PathBuf {
    open_to_others(place);
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| compiled::program("kv", "examples-c/kv.c", &["-std=c11"]));
    for name in ["kv", "libhandoff.so.0"] {
        copy_program(program.with_file_name(name), place.path(name));
    }
    fs::create_dir(place.path("data")).unwrap();
    chown(&place.path("data"), Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY))).unwrap();
    place.path("kv")
}

pub fn units(place: &Place, program: &std::path::Path, user: &str) -> String {
    format!(
        "[unit.kv]\nexec = ['{}']\nlisten = ['kv=127.0.0.1:0']\ndata_dir = '{}'\nuser = '{user}'\n",
        program.display(),
        place.path("data").display()
    )
}

pub fn uid_of(pid: i32) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

pub fn serves(run: &Run<'_>, before: i32) -> i32 {
    pid_of(&run.wait_for("serving", |service| {
        service["state"] == "running" && service["pid"] != before && service["pid"].is_i64()
    }))
}

#[test]
fn is_replaced_goes_back_and_is_adopted() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let program = store(&place);
    let mut run = up(&place, &units(&place, &program, "nobody"));
    let first = serves(&run, 0);
    assert_eq!(uid_of(first), NOBODY, "{}", run.stderr());
    let said = place.output("upgrade", &["kv"]);
    assert_eq!(said.code, 0, "{said:?} {}", run.stderr());
    let second = serves(&run, first);
    assert_eq!(uid_of(second), NOBODY);
    // The file that it was started from is started again, whatever its path leads to.
    let other = place.path("kv-other");
    // Another program, for those who remember it.
    copy_program(&program, &other);
    fs::OpenOptions::new().append(true).open(&other).unwrap().write_all(b"other").unwrap();
    let said = place.output("upgrade", &["kv", "--binary", text(&other), "--probation", "60s"]);
    assert_eq!(said.code, 0, "{said:?} {}", run.stderr());
    let third = serves(&run, second);
    let said = place.output("rollback", &["kv"]);
    assert_eq!(said.code, 0, "{said:?} {}", run.stderr());
    let fourth = serves(&run, third);
    assert_eq!((fourth, uid_of(fourth)), (second, NOBODY));
    // Another supervisor finds it.
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let mut run = up(&place, &units(&place, &program, "nobody"));
    run.wait_for_text("adopted");
    assert_eq!(serves(&run, 0), fourth);
    let said = place.output("upgrade", &["kv"]);
    assert_eq!(said.code, 0, "{said:?} {}", run.stderr());
    shut_down(&mut run);
}

#[test]
fn a_script_is_executed_again_by_its_descriptor() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let program = store(&place);
    let script = place.file("script", format!("#!/bin/sh\nexec {} \"$@\"\n", program.display()), 0o755);
    let mut run = up(&place, &units(&place, &script, "nobody"));
    let first = serves(&run, 0);
    let other = place.file("other", format!("#!/bin/sh\nexec {} \"$@\"\n", program.display()), 0o755);
    let said = place.output("upgrade", &["kv", "--binary", text(&other)]);
    assert_eq!(said.code, 0, "{said:?} {}", run.stderr());
    fs::remove_file(&other).unwrap();
    fs::remove_file(&script).unwrap();
    let second = serves(&run, first);
    let said = place.output("rollback", &["kv"]);
    assert_eq!(said.code, 0, "{said:?} {}", run.stderr());
    let third = serves(&run, second);
    assert_eq!(uid_of(third), NOBODY);
    shut_down(&mut run);
}

#[test]
fn another_user_can_say_that_it_is_ready() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    open_to_others(&place);
    let program = place.path("notify");
    copy_program(compiled::program("notify", "tests/processes/notify.c", &["-std=c11"]), &program);
    let keys = "mode = 'none'\nready = 'notify'\nuser = 'nobody'";
    let mut run = up(&place, &format!("[unit.a]\nexec = ['{}']\n{keys}\n", program.display()));
    let service = run.wait_for("ready", |service| service["state"] == "running" && service["says"]["status"] != "");
    assert_eq!(service["says"]["status"], format!("as {NOBODY}"));
    shut_down(&mut run);
}

#[test]
fn a_successor_of_another_user_is_refused() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let program = store(&place);
    let mut run = up(&place, &units(&place, &program, "nobody"));
    let first = serves(&run, 0);
    place.file("units.toml", units(&place, &program, "daemon"), 0o644);
    let said = place.output("reload", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = place.output("upgrade", &["kv"]);
    said.expect(13, &["could not undo the handoff", "stop the service and start it again"]);
    assert_eq!(serves(&run, 0), first, "nothing was disturbed");
    shut_down(&mut run);
}

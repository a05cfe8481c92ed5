//! Programs that can not go on: refused, with the reason, and nothing is changed.

use crate::harness::{Place, Run, signal, text, wait_until};
use crate::{executes, must_upgrade, other_program, self_upgrade, unit, up, wait_for_state};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const UNIT: &str = "[unit.a]\nexec = [\"/bin/sleep\", \"1000\"]\nmode = \"none\"\nready = \"delay=0ms\"\n";

/// The reason.
fn must_refuse(place: &Place, program: &Path, reason: &str) -> String {
    let said = self_upgrade(place, program);
    said.expect(13, &[]);
    let outcome = said.json();
    let why = outcome["reason"].as_str().unwrap().to_owned();
    assert!(outcome["result"] == "refused" && why.contains(reason), "{reason:?} is not in {outcome}");
    why
}

#[test]
fn bad_programs_are_refused_and_nothing_is_changed() {
    let place = Place::new();
    let run = up(&place, UNIT);
    let pid = wait_for_state(&place, "a", "running")["pid"].clone();
    let own = fs::read(env!("CARGO_BIN_EXE_handoff")).unwrap();
    let mut foreign = own[..4096].to_vec();
    foreign[18] ^= 0x55;
    let script = |name: &str, body: &str| place.file(name, format!("#!/bin/sh\n{body}\n"), 0o755);
    let left = place.path("left");
    let cases = [
        (place.path("missing"), "No such file"),
        (place.file("not-executable", &own, 0o644), "not executable"),
        (place.file("foreign", &foreign, 0o755), "another architecture"),
        (place.file("no-program", "hello\n", 0o755), "not a program"),
        (place.file("empty", "", 0o755), "not a program"),
        (place.file("cut-off", &own[..own.len() / 3], 0o755), "can not go on"),
        (place.dir.path().to_owned(), "directory"),
        (script("exits", "echo sorry >&2; exit 3"), "exit status 3; its last output: sorry"),
        (script("crashes", "kill -SEGV $$"), "SIGSEGV"),
        (script("garbage", "head -c 100000 /dev/urandom; exit 0"), "does not answer as handoff does"),
        (script("silent", "exit 0"), "does not answer as handoff does"),
        // One from before there was such a thing.
        (
            script("older", "echo \"error: unrecognized subcommand '$1'\" >&2; exit 2"),
            "unrecognized subcommand 'handoff-preflight'",
        ),
        ("/bin/true".into(), "does not answer as handoff does"),
        (script("leaves", &format!("setsid sleep 1000 & echo $! > {}; exit 3", text(&left))), "exit status 3"),
        // When memory ends, nobody else is ended for it.
        (script("expendable", "cat /proc/self/oom_score_adj; exit 3"), "its last output: 1000"),
    ];
    for (program, reason) in cases {
        let said = must_refuse(&place, &program, reason);
        assert!(said.contains(text(&program)) || said.contains("directory"), "it does not name the file: {said}");
    }
    let left = fs::read_to_string(left).unwrap().trim().parse().unwrap();
    assert!(!crate::harness::lives(left), "what it has left is gone when it is refused");
    // A script can not take our place, even if what it calls could.
    let wrapper = script("wrapper", &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_handoff")));
    must_refuse(&place, &wrapper, "cannot execute");
    assert_eq!((executes(run.pid()), &unit(&place, "a")["pid"]), (env!("CARGO_BIN_EXE_handoff").into(), &pid));
    assert_eq!(place.output("status", &["--json"]).json()["supervisor"]["self_upgrades"], 0);
    must_upgrade(&place, &other_program(&place));
}

#[test]
fn a_program_that_hangs_holds_nobody_up_and_is_ended() {
    let place = Place::new();
    let run = up(&place, UNIT);
    wait_for_state(&place, "a", "running");
    let hung = place.path("hung");
    let script = format!("#!/bin/sh\necho $$ > {}\nexec sleep 1000\n", text(&hung));
    let hangs = place.file("hangs", script, 0o755);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| must_refuse(&place, &hangs, "has not said within"));
        wait_until("it hangs", || fs::read_to_string(&hung).ok().filter(|text| text.ends_with('\n')));
        // Meanwhile everything is answered, and a second one is refused.
        assert_eq!(unit(&place, "a")["state"], "running");
        must_refuse(&place, &other_program(&place), "busy");
        asked.join().unwrap();
    });
    let pid = fs::read_to_string(&hung).unwrap().trim().parse().unwrap();
    wait_until("it is dead", || (!crate::harness::lives(pid)).then_some(()));
    must_upgrade(&place, &other_program(&place));
    drop(run);
}

#[test]
fn a_probation_is_not_disturbed() {
    use crate::support::{Service, programs};
    let service = Service::start_with(&programs().kv_a, &["--probation", "10m"]);
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    let asked = service.command("self-upgrade").stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(13), "{said}");
    assert!(said.contains("kv: it is in its probation"), "{said}");
}

/// Units in namespaces where a command has made what is needed, as root.
fn up_behind<'a>(place: &'a Place, made: &str) -> Run<'a> {
    let units = place.file("units.toml", UNIT, 0o644);
    let of = place.handoff("up");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{made} && exec \"$0\" \"$@\"")]);
    command.arg(of.get_program()).args(of.get_args()).arg("-c").arg(units).stdin(Stdio::null()).stdout(Stdio::null());
    command.envs(of.get_envs().map(|(name, value)| (name, value.unwrap())));
    let run = place.spawn(command);
    wait_for_state(place, "a", "running");
    run
}

fn may_mount() -> bool {
    let made = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let may = made.is_ok_and(|output| output.status.success());
    if !may {
        eprintln!("SKIPPED: nothing can be mounted here");
    }
    may
}

#[test]
fn a_file_system_that_executes_nothing() {
    if !may_mount() {
        return;
    }
    let place = Place::new();
    let mounted = place.path("mounted");
    fs::create_dir(&mounted).unwrap();
    let made =
        format!("mount -t tmpfs -o noexec none {0} && cp {1} {0}/", text(&mounted), env!("CARGO_BIN_EXE_handoff"));
    let run = up_behind(&place, &made);
    must_refuse(&place, &mounted.join("handoff"), "not executable");
    must_upgrade(&place, &other_program(&place));
    drop(run);
}

/// A control group with little memory; none if there can not be one here.
struct LittleMemory(PathBuf);

impl LittleMemory {
    fn new() -> Option<Self> {
        let name = format!("handoff-test-{}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let made = kinds.iter().find_map(|(tree, limit)| {
            let group = Self(Path::new(tree).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), (300 << 20).to_string()).ok()?;
            Some(group)
        });
        if made.is_none() {
            eprintln!("SKIPPED: no control group can have a limit of memory here");
        }
        made
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_program_that_takes_all_memory_is_the_one_that_is_ended() {
    let Some(group) = LittleMemory::new().filter(|_| may_mount()) else { return };
    let place = Place::new();
    let run = up_behind(&place, &format!("echo $$ > {}/cgroup.procs", text(&group.0)));
    let pid = unit(&place, "a")["pid"].clone();
    let eats = "#!/usr/bin/python3\nall = []\nwhile True: all.append(bytearray(1 << 20))\n";
    must_refuse(&place, &place.file("eats", eats, 0o755), "SIGKILL");
    assert_eq!(unit(&place, "a")["pid"], pid);
    must_upgrade(&place, &other_program(&place));
    drop(run);
}

/// It works with duplicates until it has everything.
#[test]
fn descriptors_for_twice_what_is_open_are_there_or_it_is_refused() {
    let place = Place::new();
    let units: String = ["a", "b", "c", "d"].map(|name| UNIT.replace("unit.a", &format!("unit.{name}"))).concat();
    let mut run = up(&place, &units);
    for name in ["a", "b", "c", "d"] {
        wait_for_state(&place, name, "running");
    }
    let limit = |limits: &str| {
        let done =
            Command::new("prlimit").args(["--pid", &run.pid().to_string(), &format!("--nofile={limits}")]).status();
        assert!(done.unwrap().success());
    };
    // The soft limit it raises by itself.
    limit("64:");
    must_upgrade(&place, &other_program(&place));
    limit("64:64");
    must_refuse(
        &place,
        &other_program(&place),
        "RLIMIT_NOFILE of the supervisor is 64, and the program that goes on needs",
    );
    wait_for_state(&place, "a", "running");
    signal(run.pid(), Signal::SIGTERM);
    assert_eq!(run.end(), 0, "{}", run.stderr());
}

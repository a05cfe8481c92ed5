//! What can not be started, and how often it is tried.

use crate::harness::{Place, text, wait_until};
use std::fs;
use std::process::Command;

/// Runs a command that ends by itself.
fn run(place: &Place, arguments: &[&str]) -> crate::harness::Said {
    place.output("run", arguments)
}

#[test]
fn the_exit_code_of_a_daemon_that_ends_is_ours() {
    let place = Place::new();
    run(&place, &["--", "true"]).expect(0, &["ended: exit status 0"]);
    // A first start that fails by itself is final.
    run(&place, &["--", "sh", "-c", "echo why >&2; exit 3"]).expect(3, &["why\n", "ended: exit status 3"]);
    run(&place, &["--restart", "never", "--", "sh", "-c", "kill -9 $$"]).expect(137, &["signal 9"]);
    let said = run(&place, &["--", "sh", "-c", "echo only once >&2; exit 3"]);
    assert_eq!(said.stderr.matches("only once").count(), 1, "{said:?}");
}

#[test]
fn what_can_not_be_executed_has_a_code_and_a_reason() {
    let place = Place::new();
    let of = |file: &std::path::Path| run(&place, &["--name", "x", "--", text(file)]);
    of(&place.path("missing")).expect(127, &["missing"]);
    run(&place, &["--", "no-such-program-anywhere"]).expect(127, &["PATH"]);
    run(&place, &["--", "./missing"]).expect(127, &["handoff: missing: cannot execute"]);
    run(&place, &["--name", "a/b", "--", "./missing"]).expect(2, &["handoff: run: 'a/b'"]);
    of(&place.file("plain", "text", 0o644)).expect(126, &["not executable", "chmod"]);
    of(place.dir.path()).expect(126, &["directory"]);
    of(&place.file("script", "#!/no/such/interpreter\n", 0o755)).expect(127, &["interpreter", "/no/such/interpreter"]);
    let mut elf = fs::read("/proc/self/exe").unwrap();
    elf[18] = 0xf3; // e_machine: RISC-V
    of(&place.file("foreign", elf, 0o755)).expect(126, &["architecture"]);
    assert!(run(&place, &["--"]).code == 2 && run(&place, &["--", ""]).code == 2);
}

#[test]
fn a_data_directory_must_be_one() {
    let place = Place::new();
    let file = place.file("file", "", 0o644);
    run(&place, &["--data-dir", "/no/such/dir", "--", "true"]).expect(125, &["does not exist", "mkdir"]);
    run(&place, &["--data-dir", text(&file), "--", "true"]).expect(125, &["not a directory"]);
    let dir = text(place.dir.path());
    run(&place, &["--data-dir", dir, "--", "sh", "-c", "test -n \"$HANDOFF_DATA_DIR\""]).expect(0, &[]);
}

#[test]
fn options_that_mean_nothing_are_errors() {
    let place = Place::new();
    let refused = |arguments: &str, words: &[&str]| {
        let arguments: Vec<&str> = arguments.split_whitespace().chain(["--name", "x", "--", "true"]).collect();
        run(&place, &arguments).expect(2, words);
    };
    refused("--ready notify", &["--ready is for daemons", "--mode overlap"]);
    refused("--mode exclusive --ready delay=1s", &["--ready is for daemons", "--mode overlap"]);
    refused(
        "--mode overlap --ready notify --health tcp://127.0.0.1:80",
        &["--health", "no probation", "leave one of them out"],
    );
    refused("--mode overlap --probation 3s", &["--probation", "overlap", "leave one of them out"]);
    let late = "--ready delay=2s can never be seen within --ready-timeout 1s";
    refused("--mode overlap --ready delay=2s --ready-timeout 1s", &[late]);
    refused("--mode overlap --ready delay=60s", &["--ready delay=60s", "--ready-timeout 60s"]);
    for option in ["--deadline", "--hello-timeout", "--ready-timeout"] {
        refused(&format!("{option} 0"), &[option, "longer than 0"]);
    }
    refused("--mode exclusive --max-draining 3", &["--max-draining", "--mode exclusive", "leave one of them out"]);
    refused("--mode overlap --max-draining 0", &["1 or more", "never be replaced"]);
    refused("--max-draining many", &["'many' is no number"]);
    refused("--mode overlap --ready delay=-1s", &["a time can not be negative"]);
    for option in ["--drain-grace=-1s", "--drain-grace -1s", "--probation -1s", "--deadline -1"] {
        refused(option, &["a time can not be negative"]);
    }
    refused("--max-draining -1", &["'-1' is no number; write 1 or more"]);
    for number in ["2", "-1", "x", "99999999999999"] {
        let words = format!("'{number}' is no number of a descriptor; the first one that is free is 3");
        refused(&format!("--mode overlap --ready fd={number}"), &[&words]);
    }
    let taken = "that is a listener's number; the first one that is free is 6";
    let listen = "--listen web=127.0.0.1:0,sockets=2 --listen dns=udp:127.0.0.1:0";
    refused(&format!("{listen} --mode overlap --ready fd=5"), &["--ready fd=5", taken]);
    for (option, value) in [("sockets", "4"), ("backlog", "4"), ("blocking", "")] {
        let option = if value.is_empty() { option.to_owned() } else { format!("{option}={value}") };
        let twice = format!("--listen web=127.0.0.1:0,{option},{option}");
        refused(&twice, &[&format!("'{}' is there twice", option.split('=').next().unwrap())]);
    }
    assert!(!place.path("runtime").exists(), "nothing was changed");
}

#[test]
fn the_help_names_every_kind_of_probe() {
    let help = run(&Place::new(), &["--help"]).stdout;
    let of = |option: &str| help.split(option).nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    for option in ["--health <URL>", "--ready <SIGN>"] {
        let text = of(option);
        let kinds = ["tcp://IP:PORT", "http://IP:PORT/PATH", "unix:/SOCKET", "http+unix://%2FSOCKET/PATH"];
        assert!(kinds.iter().all(|kind| text.contains(kind)), "{text}");
    }
}

#[test]
fn a_descriptor_that_no_process_can_have_is_no_sign() {
    let place = Place::new();
    let far = |number: &'static str| ["--mode", "overlap", "--ready", number, "--", "true"];
    for number in ["fd=2147483647", "fd=1048576"] {
        run(&place, &far(number)).expect(2, &["--ready <SIGN>", "no process has descriptor", &number[3..]]);
    }
    // What this one may not have.
    let handoff = place.handoff("run");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 500 && exec \"$0\" \"$@\""]).arg(handoff.get_program());
    limited.args(handoff.get_args()).args(far("fd=500")).env("HANDOFF_RUNTIME_DIR", place.path("runtime"));
    let mut limited = place.spawn(limited);
    assert_eq!(limited.end(), 2);
    limited.wait_for_text("--ready fd=500: a process has 500 descriptors here at most (RLIMIT_NOFILE, ulimit -Hn): write a smaller number");
    assert!(!place.path("runtime").exists(), "nothing was changed");
}

#[test]
fn a_probe_that_waits_for_a_probation_says_so() {
    let place = Place::new();
    let probe = ["--health", "tcp://127.0.0.1:80"];
    let said = run(&place, &[&probe[..], &["--", "true"]].concat());
    said.expect(0, &["--health: nothing is asked without a probation", "upgrade --probation"]);
    let said = run(&place, &[&probe[..], &["--probation", "1s", "--", "true"]].concat());
    assert!(said.code == 0 && !said.stderr.contains("--health"), "{said:?}");
}

#[test]
fn policies_say_what_starts_again() {
    let place = Place::new();
    let count = place.path("count");
    let script = format!("echo x >> {}; exit $1", count.display());
    let starts = || fs::read_to_string(&count).unwrap_or_default().lines().count();
    for (policy, code) in [("always", "0"), ("on-failure", "3")] {
        let _ = fs::remove_file(&count);
        let run = place.run(&["--restart", policy, "--", "sh", "-c", &script, "sh", code]);
        wait_until("three starts", || (starts() >= 3).then_some(()));
        run.wait_for_text("starts again in");
    }
    let _ = fs::remove_file(&count);
    run(&place, &["--restart", "on-failure", "--", "sh", "-c", &script, "sh", "0"]).expect(0, &[]);
    run(&place, &["--restart", "never", "--", "sh", "-c", &script, "sh", "3"]).expect(3, &[]);
    assert_eq!(starts(), 2);
}

#[test]
fn what_is_not_known_yet_is_not_claimed() {
    let place = Place::new();
    // On a slow machine its first second may be over.
    let (status, upgrade) = wait_until("a look in its first second", || {
        let run = place.run(&["--name", "one", "--", "sleep", "1000"]);
        wait_until("running", || (place.output("status", &[]).code == 0).then_some(()));
        let said = [place.output("status", &[]), place.output("upgrade", &[])];
        let [status, upgrade] = said;
        let early = upgrade.stderr.contains("starting");
        let pid = place.output("status", &["--json"]).json()["services"][0]["pid"].as_i64().unwrap();
        drop(run);
        crate::harness::signal(pid as i32, nix::sys::signal::Signal::SIGKILL);
        early.then_some((status, upgrade))
    });
    assert!(status.stdout.contains("linked     not known yet"), "{status:?}");
    upgrade.expect(13, &["busy: the service is still starting; try again"]);
}

#[test]
fn who_waits_for_a_start_sees_when_it_comes() {
    let place = Place::new();
    let _run = place.run(&["--name", "one", "--restart", "always", "--", "sh", "-c", "exit 3"]);
    let status = wait_until("waiting", || {
        let said = place.output("status", &[]).stdout;
        said.contains("one: waiting").then_some(said)
    });
    for word in [", starts again in ", "linked     -\n", "its last process ended: exit status 3"] {
        assert!(status.contains(word), "{word:?} is missing in {status}");
    }
}

#[test]
fn a_second_supervisor_of_the_name_is_refused() {
    let place = Place::new();
    let first = place.run(&["--name", "one", "--", "sleep", "1000"]);
    wait_until("running", || (place.output("status", &[]).code == 0).then_some(()));
    let said = run(&place, &["--name", "one", "--", "true"]);
    said.expect(125, &["'one'", &format!("process {}", first.pid()), "--name"]);
    run(&place, &["--name", "two", "--", "true"]).expect(0, &[]);
    run(&place, &["--name", "a/b", "--", "true"]).expect(2, &["a/b"]);
}

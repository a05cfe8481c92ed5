//! `handoff doctor`.

use crate::support::copy::copy_program;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{SIGKILL, Service, programs, signal, wait_for_death};
use crate::{json_of, output, text};

/// The findings, and the exit code.
fn examine(service: &Service) -> (Vec<Value>, i32) {
    let said = output(service, "doctor", &["--json"]);
    let findings = json_of(&said)["findings"].as_array().unwrap().clone();
    (findings, said.status.code().unwrap())
}

/// The severity of this check of this place.
#[track_caller]
fn severity<'a>(findings: &'a [Value], place: &str, check: &str) -> &'a str {
    let found = findings.iter().find(|finding| finding["place"] == place && finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check} of {place}: {findings:#?}"));
    assert_eq!(found["severity"] == "ok", found["advice"] == "", "{found}");
    found["severity"].as_str().unwrap()
}

#[test]
fn a_healthy_service_has_no_errors() {
    let service = Service::start(&programs().kv_a);
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    let (findings, _) = examine(&service);
    for check in ["replaceable", "program", "data-dir", "descriptors", "backlog"] {
        assert_eq!(severity(&findings, "kv", check), "ok", "{findings:#?}");
    }
    for check in ["kernel", "runtime-dir"] {
        assert_eq!(severity(&findings, "machine", check), "ok", "{findings:#?}");
    }
    assert_eq!(severity(&findings, "supervisor", "descriptors"), "ok", "{findings:#?}");
    let plain = text(&output(&service, "doctor", &[]).stdout);
    assert!(plain.contains("ok      kv: it links libhandoff, mode exclusive\n"), "{plain}");
    assert!(!plain.contains('\x1b'), "colours in a pipe: {plain}");
}

#[test]
fn what_can_be_provoked_is_found() {
    let mut service = Service::place();
    // Beside its library.
    let program = programs().kv_a.with_file_name(format!("doomed-{}", std::process::id()));
    copy_program(&programs().kv_a, &program);
    service.launch(&program, &[]);

    fs::remove_file(&program).unwrap();
    let (findings, code) = examine(&service);
    assert_eq!((severity(&findings, "kv", "program"), code), ("error", 1));
    assert_eq!(severity(&findings, "kv", "running-program"), "ok");
    copy_program(&programs().kv_b, &program);

    let run = service.path("run");
    let mode = |mode| fs::set_permissions(&run, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o770);
    let (findings, code) = examine(&service);
    assert_eq!((severity(&findings, "machine", "runtime-dir"), code), ("error", 1));
    mode(0o700);

    fs::remove_file(&program).unwrap();

    let limit = format!("--pid={}", service.daemon_pid());
    assert!(Command::new("prlimit").args([&limit, "--nofile=20:20"]).status().unwrap().success());
    let (findings, code) = examine(&service);
    assert_eq!((severity(&findings, "kv", "descriptors"), code), ("error", 1));
}

/// A filter of the kernel's own, and not one of a made-up fact: of the daemon alone, and of the supervisor with all that it starts.
#[test]
fn filters_are_found_where_they_are() {
    let filtered = crate::support::compile("filtered", "tests/seeing/filtered.c", &[]);
    let mut service = Service::place();
    let behind = service.path("behind-a-filter");
    fs::write(&behind, format!("#!/bin/sh\nexec {} {}\n", filtered.display(), programs().kv_a.display())).unwrap();
    fs::set_permissions(&behind, fs::Permissions::from_mode(0o755)).unwrap();
    service.launch(&programs().kv_a, &[]);
    let seccomp = |findings: &[Value], place: &str| {
        let of = |finding: &&Value| finding["place"] == place && finding["check"] == "seccomp";
        findings.iter().find(of).map(|finding| finding["text"].as_str().unwrap().to_owned())
    };
    let findings = examine(&service).0;
    assert_eq!((seccomp(&findings, "kv"), seccomp(&findings, "supervisor")), (None, None));
    assert_eq!(service.upgrade(&behind, &[]).code, 0);
    let findings = examine(&service).0;
    let text = format!("process {} has a seccomp filter and NoNewPrivs", service.daemon_pid());
    assert_eq!((seccomp(&findings, "kv"), seccomp(&findings, "supervisor")), (Some(text), None));
    assert_eq!(severity(&findings, "kv", "seccomp"), "warning");

    // A supervisor behind it: the script becomes the program that is tested.
    let mut service = Service::place();
    service.handoff = service.path("filtered-handoff");
    let script = format!("#!/bin/sh\nexec {} {} \"$@\"\n", filtered.display(), env!("CARGO_BIN_EXE_handoff"));
    fs::write(&service.handoff, script).unwrap();
    fs::set_permissions(&service.handoff, fs::Permissions::from_mode(0o755)).unwrap();
    service.launch(&programs().kv_a, &[]);
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    let findings = examine(&service).0;
    assert_eq!(severity(&findings, "supervisor", "seccomp"), "warning");
    assert_eq!(severity(&findings, "kv", "seccomp"), "warning");
}

#[test]
fn a_program_that_failed_its_probation_is_found() {
    let service = Service::start(&programs().kv_a);
    let program = service.faulty("logs");
    assert_eq!(service.upgrade(&program, &["--probation", "10m"]).code, 0);
    let failed = service.daemon_pid();
    signal(failed, SIGKILL);
    wait_for_death(failed);
    service.wait_for_phase("idle");
    let (findings, _) = examine(&service);
    assert!(!findings.iter().any(|finding| finding["check"] == "bad-program"), "the one before runs: {findings:#?}");
    assert_eq!(service.upgrade(&program, &["--force"]).code, 0);
    assert_eq!(severity(&examine(&service).0, "kv", "program"), "ok");
}

#[test]
fn units_can_be_looked_at_before_they_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("handoff.toml");
    let units = "[unit.good]\nexec = [\"/bin/sleep\", \"1\"]\n[unit.none]\nexec = [\"/no/such/program\"]\n\
                 [unit.data]\nexec = [\"/bin/sleep\"]\ndata_dir = \"/no/such/dir\"\n[unit.typo]\nexecc = [\"x\"]\n";
    fs::write(&file, units).unwrap();
    let doctor = |path: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handoff"));
        command.args(["doctor", "--json", "-c"]).arg(path).env("HANDOFF_RUNTIME_DIR", dir.path().join("run"));
        command.output().unwrap()
    };
    let said = doctor(&file);
    let findings = json_of(&said)["findings"].as_array().unwrap().clone();
    assert_eq!(severity(&findings, "good", "program"), "ok");
    assert_eq!(severity(&findings, "none", "program"), "error");
    assert_eq!(severity(&findings, "data", "data-dir"), "error");
    assert_eq!(severity(&findings, "typo", "config"), "error");
    assert_eq!(said.status.code(), Some(1));
    assert_eq!(doctor(&dir.path().join("none.toml")).status.code(), Some(1));
}

#[test]
fn without_a_supervisor_the_machine_is_looked_at() {
    let service = Service::place();
    let said = service
        .other_command(env!("CARGO_BIN_EXE_handoff"))
        .args(["doctor", "--json", "--runtime-dir"])
        .arg(service.path("run"))
        .output()
        .unwrap();
    let findings = json_of(&said)["findings"].as_array().unwrap().clone();
    assert_eq!(severity(&findings, "supervisor", "running"), "warning");
    assert_eq!(severity(&findings, "machine", "kernel"), "ok");
    let named = output(&service, "doctor", &[]); // by name
    assert_eq!(named.status.code(), Some(3), "{named:?}");
}

//! `handoff upgrade --dry-run`.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::support::{SIGKILL, Service, programs, signal, wait_for_death};
use crate::{json_of, output, text};

fn look(service: &Service, binary: &Path, arguments: &[&str]) -> Output {
    let all = [&["--dry-run", "--binary", binary.to_str().unwrap()], arguments].concat();
    output(service, "upgrade", &all)
}

/// Refused, with a reason that has each of these words; as many reasons as words.
#[track_caller]
fn refused(service: &Service, binary: &Path, words: &[&str]) {
    let said = look(service, binary, &["--json"]);
    let preview = json_of(&said);
    assert_eq!((said.status.code(), &preview["possible"]), (Some(13), &false.into()), "{preview}");
    let reasons: Vec<&str> = preview["reasons"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(reasons.len(), words.len(), "{reasons:#?}");
    for word in words {
        assert!(reasons.iter().any(|reason| reason.contains(word)), "{word}: {reasons:#?}");
    }
}

#[test]
fn what_can_be_known_is_told_and_nothing_is_started() {
    let service = Service::start(&programs().kv_a);
    let pid = service.daemon_pid();
    let good = look(&service, &programs().kv_b, &["--json"]);
    let preview = json_of(&good);
    assert_eq!(good.status.code(), Some(0), "{preview}");
    assert_eq!(
        (&preview["service"], &preview["mode"], &preview["possible"]),
        (&"kv".into(), &"exclusive".into(), &true.into())
    );
    assert_eq!(preview["program"].as_str().unwrap(), programs().kv_b.to_str().unwrap());
    let plain = look(&service, &programs().kv_b, &[]);
    assert!(text(&plain.stdout).starts_with("kv: it would begin, with "), "{plain:?}");

    refused(&service, &service.path("none"), &["No such file"]);
    let file = service.path("program");
    fs::write(&file, "hello\n").unwrap();
    refused(&service, &file, &["not executable"]);
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    refused(&service, &file, &["not a program"]);
    let mut foreign = fs::read(&programs().kv_b).unwrap();
    foreign[18] ^= 0x55; // e_machine
    fs::write(&file, foreign).unwrap();
    refused(&service, &file, &["another architecture"]);
    let plain = look(&service, &file, &[]);
    assert!(text(&plain.stdout).starts_with("kv: it would be refused\n    "), "{plain:?}");

    assert_eq!((service.daemon_pid(), service.daemons().len()), (pid, 1));
    let history = json_of(&output(&service, "history", &["--json"]));
    assert_eq!(history["services"][0]["entries"].as_array().unwrap().len(), 1, "{history}");
}

#[test]
fn all_reasons_are_told_at_once() {
    let service = Service::start(&programs().kv_a);
    let upgrade = service.upgrade(&programs().kv_b, &["--probation", "10m"]);
    assert_eq!(upgrade.code, 0, "{upgrade:?}");
    let failed = service.daemon_pid();
    signal(failed, SIGKILL);
    wait_for_death(failed);
    service.wait_for_phase("idle");
    refused(&service, &programs().kv_b, &["has failed its probation"]);
    assert_eq!(look(&service, &programs().kv_b, &["--force"]).status.code(), Some(0));
    refused(&service, &programs().kv_b, &["has failed its probation"]);

    let slow = service.begin_upgrade(&service.faulty("slow-warm=3000"), &[]);
    service.wait_for_phase("warming");
    refused(&service, &programs().kv_b, &["has failed its probation", "a handoff is under way (warming)"]);
    assert_eq!(slow.wait().code, 0);
}

#[test]
fn a_daemon_that_does_not_link_the_library_can_not_be_replaced() {
    let mut service = Service::place();
    let silent = service.path("silent");
    fs::write(&silent, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&silent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    service.begin_launch(&silent, &[]);
    crate::support::wait_until("it seems to be up", || (service.status()?["state"] == "running").then_some(()));
    refused(&service, &programs().kv_b, &["never said Hello"]);
}

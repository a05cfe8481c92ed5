//! Every way in which a handoff can fail without anybody's death: after each, the incumbent serves reads and writes, the
//! outcome names the cause, and the next upgrade commits.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use support::{Service, Upgrade, freeze, programs, thaw, wait_for_death};

/// The incumbent's state before the handoff, and what must still be true after it.
struct Before {
    service: Service,
    pid: i32,
}

impl Before {
    fn new() -> Self {
        Self::of(Service::start(&programs().kv_a))
    }

    fn of(service: Service) -> Self {
        assert!(service.ask("SET before 1").unwrap().starts_with("OK "));
        let pid = service.daemon_pid();
        Self { service, pid }
    }

    /// The incumbent serves, alone, and can be replaced.
    fn check(self, upgrade: &Upgrade, code: i32, result: &str, cause: &str) {
        assert_eq!((upgrade.code, upgrade.result.as_str()), (code, result), "{upgrade:?}");
        assert!(upgrade.reason.contains(cause), "{:?} does not name {cause:?}", upgrade.reason);
        let service = self.service;
        assert_eq!(service.ping().expect("an answer").0, self.pid, "the incumbent must have gone on");
        assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
        assert!(service.ask("SET after 2").unwrap().starts_with("OK "));
        let next = service.upgrade(&programs().kv_b, &[]);
        assert_eq!(next.result, "committed", "{next:?}");
        wait_for_death(self.pid);
        assert_eq!(service.ask("GET after").as_deref(), Some("VALUE 2"));
        assert_eq!(service.ping().unwrap().1, "b");
        assert_eq!(service.daemons().len(), 1);
    }

    fn after_fault(fault: &str, arguments: &[&str], result: &str, cause: &str) {
        let before = Self::new();
        let upgrade = before.service.upgrade(&before.service.faulty(fault), arguments);
        let code = if result == "refused" { 13 } else { 10 };
        before.check(&upgrade, code, result, cause);
    }
}

// ---- the successor is at fault

#[test]
fn successor_is_missing() {
    let before = Before::new();
    let upgrade = before.service.upgrade(Path::new("/nonexistent/daemon"), &[]);
    before.check(&upgrade, 13, "refused", "/nonexistent/daemon");
}

#[test]
fn successor_is_not_executable() {
    let before = Before::new();
    let file = before.service.path("plain");
    fs::write(&file, "text").unwrap();
    let upgrade = before.service.upgrade(&file, &[]);
    before.check(&upgrade, 13, "refused", "plain");
}

#[test]
fn successor_is_a_directory() {
    let before = Before::new();
    let upgrade = before.service.upgrade(&before.service.path("data"), &[]);
    before.check(&upgrade, 13, "refused", "director");
}

#[test]
fn successor_is_of_another_architecture() {
    let before = Before::new();
    let file = before.service.path("foreign");
    let mut elf = fs::read(&programs().kv_b).unwrap();
    elf[18] = 0xf3; // e_machine: RISC-V
    fs::write(&file, elf).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let upgrade = before.service.upgrade(&file, &[]);
    before.check(&upgrade, 13, "refused", "architecture");
}

#[test]
fn successor_is_a_script_without_its_interpreter() {
    let before = Before::new();
    let file = before.service.path("script");
    fs::write(&file, "#!/nonexistent/interpreter\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let upgrade = before.service.upgrade(&file, &[]);
    before.check(&upgrade, 13, "refused", "interpreter");
}

#[test]
fn successor_exits_before_hello() {
    Before::after_fault("exit-before-hello", &[], "rolled_back", "exit status 7");
}

#[test]
fn successor_is_killed_by_a_signal() {
    Before::after_fault("segv", &[], "rolled_back", "signal 11");
}

#[test]
fn successor_is_silent_before_hello() {
    Before::after_fault("hang-before-hello", &["--hello-timeout", "1s"], "rolled_back", "Hello");
}

/// It can not have become the one that serves, and it is gone: that is decided, at the deadline, too.
#[test]
fn successor_is_silent_before_hello_until_the_deadline() {
    let times = ["--deadline", "1s", "--hello-timeout", "60s"];
    Before::after_fault("hang-before-hello", &times, "rolled_back", "deadline is past");
}

#[test]
fn successor_is_frozen_after_begin() {
    let before = Before::new();
    let service = &before.service;
    let upgrading = service.begin_upgrade(&service.faulty("slow-open=600000"), &[]);
    let successor = service.successor_of(before.pid);
    service.wait_for_phase("opening");
    freeze(successor);
    let upgrade = upgrading.wait();
    wait_for_death(successor);
    before.check(&upgrade, 10, "rolled_back", "no sign of life");
}

#[test]
fn successor_is_frozen_while_the_incumbent_drains() {
    // It gives the successor its state, and would wait for it.
    let before = Before::of(Service::start_faulty("slow-drain=1000"));
    let service = &before.service;
    let upgrading = service.begin_upgrade(&programs().kv_b, &[]);
    let successor = service.successor_of(before.pid);
    service.wait_for_phase("draining");
    freeze(successor);
    let upgrade = upgrading.wait();
    wait_for_death(successor);
    before.check(&upgrade, 10, "rolled_back", "the successor gave no sign of life");
}

#[test]
fn application_of_the_successor_hangs_after_begin() {
    Before::after_fault("hang-open", &["--ready-timeout", "1s"], "rolled_back", "ready in time");
}

#[test]
fn successor_is_unhealthy() {
    Before::after_fault("unhealthy", &[], "rolled_back", "told to be unhealthy");
}

#[test]
fn successor_opened_old_revisions() {
    Before::after_fault("old-revision", &[], "rolled_back", "a write would be lost");
}

#[test]
fn successor_speaks_another_version() {
    let before = Before::new();
    let script = before.service.path("future");
    // A Hello of protocol 7 to 9, packed by hand as in docs/protocol.md.
    fs::write(&script, include_str!("support/future_hello.py")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let upgrade = before.service.upgrade(&script, &[]);
    before.check(&upgrade, 13, "refused", "7 to 9");
}

// ---- the incumbent is at fault

/// An incumbent with this fault is replaced in vain by a good successor; the second attempt finds no fault.
fn incumbent_fault(fault: &str, arguments: &[&str], cause: &str) {
    let before = Before::of(Service::start_faulty(fault));
    let upgrade = before.service.upgrade(&programs().kv_b, arguments);
    before.check(&upgrade, 10, "rolled_back", cause);
}

#[test]
fn incumbent_can_not_drain() {
    incumbent_fault("drain-fails", &[], "told to fail the drain");
}

#[test]
fn incumbent_drains_past_its_grace() {
    incumbent_fault("drain-hangs", &["--drain-grace", "1s"], "grace");
}

#[test]
fn incumbent_can_not_seal() {
    incumbent_fault("seal-fails", &[], "told to fail the seal");
}

// ---- slow, but right

#[test]
fn a_frozen_incumbent_that_wakes_up_goes_on() {
    let before = Before::new();
    let service = &before.service;
    freeze(before.pid);
    let upgrading = service.begin_upgrade(&programs().kv_b, &["--deadline", "3s"]);
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (14, "undecided"), "{upgrade:?}");
    thaw(before.pid);
    service.wait_for_phase("idle");
    let settled = service.status().unwrap()["last_handoff"]["result"].as_str().unwrap_or_default().to_owned();
    assert_eq!(settled, "rolled_back");
    let last = Upgrade { code: 10, result: settled, ..upgrade };
    before.check(&last, 10, "rolled_back", "");
}

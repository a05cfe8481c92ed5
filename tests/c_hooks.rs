//! Hooks in C under a real supervisor: answers, silence, calls that are not for hooks, forks, a handle freed from inside.

mod compiled;

use handoff::supervisor::{SpawnSpec, Supervisor};
use handoff::{HandoffOutcome, Verdict};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compiled::program("hooks", "ffi-tests/c/hooks.c", &["-std=c11"]))
}

struct Service {
    dir: tempfile::TempDir,
    supervisor: Supervisor,
}

impl Service {
    /// The incumbent of this scenario, serving.
    fn start(scenario: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let journal = dir.path().join("journal");
        let mut service = Self { dir, supervisor: Supervisor::new().unwrap().with_journal(journal) };
        let spec = service.spec(scenario);
        let started = service.supervisor.perform_handoff(&spec).unwrap();
        assert_eq!(started.verdict, Verdict::StartedCold, "{}\n{}", started.reason, service.report());
        service
    }

    fn spec(&self, scenario: &str) -> SpawnSpec {
        let (program, report) = (program().as_os_str(), self.dir.path().join("report"));
        SpawnSpec::new([program, scenario.as_ref(), report.as_os_str()])
            .data_dir(self.dir.path().join("data"))
            .control_path(self.dir.path().join("control"))
            .drain_grace(Duration::from_secs(20))
            .deadline(Duration::from_secs(40))
    }

    fn replace(&mut self) -> HandoffOutcome {
        self.supervisor.perform_handoff(&self.spec("successor")).unwrap()
    }

    fn report(&self) -> String {
        fs::read_to_string(self.dir.path().join("report")).unwrap_or_default()
    }

    /// What a process of this scenario says when it ends.
    fn expect_end(&mut self, scenario: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        let (good, any) = (format!("{scenario}: 0, 0 failures"), format!("{scenario}: "));
        while !self.report().lines().any(|line| line.starts_with(&any)) {
            assert!(Instant::now() < until, "{scenario} does not end:\n{}", self.report());
            self.supervisor.turn(Some(Duration::from_millis(20))).unwrap();
        }
        assert!(self.report().contains(&good), "{}", self.report());
        assert!(!self.report().contains("not so") && !self.report().contains(", not "), "{}", self.report());
    }

    fn stop(&mut self) {
        self.supervisor.signal(15).unwrap();
    }
}

impl Drop for Service {
    /// A test that fails leaves nobody behind.
    fn drop(&mut self) {
        let mark = self.dir.path().display().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&mark) {
                let _ = Command::new("kill").arg("-9").arg(entry.file_name()).status();
            }
        }
    }
}

#[test]
fn hooks_answer_from_any_thread_once_and_owner_calls_are_busy() {
    let mut service = Service::start("answers");
    let outcome = service.replace();
    assert_eq!(outcome.verdict, Verdict::Committed, "{}\n{}", outcome.reason, service.report());
    service.expect_end("answers");
    service.stop();
    service.expect_end("successor");
}

#[test]
fn a_loop_of_its_own_answers_without_hooks() {
    let mut service = Service::start("poll");
    // It seals no revisions; the successor has some, which is fine.
    let spec = service.spec("successor").env("NO_REVISIONS", "1");
    let outcome = service.supervisor.perform_handoff(&spec).unwrap();
    assert_eq!(outcome.verdict, Verdict::Committed, "{}\n{}", outcome.reason, service.report());
    service.expect_end("poll");
    service.stop();
    service.expect_end("successor");
}

#[test]
fn silence_is_failure_and_the_incumbent_serves_again() {
    let mut service = Service::start("silent");
    let outcome = service.replace();
    assert_eq!(outcome.verdict, Verdict::RolledBack, "{}\n{}", outcome.reason, service.report());
    assert!(outcome.reason.contains("drain hook returned without an answer"), "{}", outcome.reason);
    service.stop();
    service.expect_end("silent");
}

#[test]
fn a_failure_is_passed_on_and_counts_once() {
    let mut service = Service::start("fails");
    let outcome = service.replace();
    assert_eq!(outcome.verdict, Verdict::RolledBack, "{}\n{}", outcome.reason, service.report());
    assert!(outcome.reason.contains("told to fail"), "{}", outcome.reason);
    service.stop();
    service.expect_end("fails");
}

#[test]
fn without_a_drain_hook_the_handoff_fails_with_a_text_that_says_so() {
    let mut service = Service::start("none");
    let outcome = service.replace();
    // It cannot resume without a hook either: the supervisor ends it, and starts another one.
    assert_eq!(outcome.verdict, Verdict::StartedCold, "{}", service.report());
    assert!(outcome.reason.contains("no drain hook is registered"), "{}", outcome.reason);
    assert!(!service.report().contains("not so") && !service.report().contains(", not "), "{}", service.report());
}

#[test]
fn a_child_forked_in_a_hook_is_told_that_it_is_one() {
    let mut service = Service::start("fork");
    let outcome = service.replace();
    assert_eq!(outcome.verdict, Verdict::Committed, "{}\n{}", outcome.reason, service.report());
    let until = Instant::now() + Duration::from_secs(60);
    while !service.report().contains("fork: 0, 0 failures") {
        assert!(Instant::now() < until, "{}", service.report());
        service.supervisor.turn(Some(Duration::from_millis(20))).unwrap();
    }
    assert!(service.report().contains("fork: 44, 0 failures"), "{}", service.report());
    service.stop();
    service.expect_end("successor");
}

#[test]
fn a_handle_freed_inside_its_hook_is_gone_when_serve_returns() {
    let mut service = Service::start("free");
    let outcome = service.replace();
    assert_ne!(outcome.verdict, Verdict::RolledBack, "{}\n{}", outcome.reason, service.report());
    service.expect_end("free");
}

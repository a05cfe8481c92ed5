//! A program in C as a daemon under a supervisor that runs in the test, to see what it does with its hooks.

use handoff::supervisor::{SpawnSpec, Supervisor};
use handoff::{HandoffOutcome, Verdict};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What its processes are told on the command line: a scenario, and the file to which they report.
pub struct Hosted {
    dir: tempfile::TempDir,
    pub supervisor: Supervisor,
    /// The program, with what runs it, if that is something else.
    program: Vec<OsString>,
    pub deadline: Duration,
    pub drain_grace: Duration,
}

impl Hosted {
    /// The incumbent of this scenario, serving.
    pub fn start(program: &Path, scenario: &str) -> Self {
        Self::start_by(&[], program, scenario)
    }

    /// The same, run by a tool.
    pub fn start_by(tool: &[&OsStr], program: &Path, scenario: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let journal = dir.path().join("journal");
        let mut service = Self {
            supervisor: Supervisor::new().unwrap().with_journal(journal),
            program: tool.iter().copied().chain([program.as_os_str()]).map(OsStr::to_owned).collect(),
            deadline: Duration::from_secs(60),
            drain_grace: Duration::from_secs(40),
            dir,
        };
        let spec = service.spec(scenario);
        let started = service.supervisor.perform_handoff(&spec).unwrap();
        assert_eq!(started.verdict, Verdict::StartedCold, "{}\n{}", started.reason, service.report());
        service
    }

    pub fn spec(&self, scenario: &str) -> SpawnSpec {
        let report = self.dir.path().join("report");
        let arguments = [OsString::from(scenario), report.into_os_string()];
        SpawnSpec::new(self.program.iter().cloned().chain(arguments))
            .data_dir(self.dir.path().join("data"))
            .control_path(self.dir.path().join("control"))
            .drain_grace(self.drain_grace)
            .deadline(self.deadline)
    }

    /// Replaces the incumbent by a process of this scenario.
    pub fn replace(&mut self, scenario: &str) -> HandoffOutcome {
        self.supervisor.perform_handoff(&self.spec(scenario)).unwrap()
    }

    /// The same, with what must come of it.
    pub fn expect(&mut self, scenario: &str, verdict: Verdict) -> HandoffOutcome {
        let outcome = self.replace(scenario);
        assert_eq!(outcome.verdict, verdict, "{}\n{}", outcome.reason, self.report());
        outcome
    }

    pub fn report(&self) -> String {
        fs::read_to_string(self.dir.path().join("report")).unwrap_or_default()
    }

    /// Waits until the report has this text.
    pub fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + Duration::from_secs(90);
        while !self.report().contains(text) {
            assert!(Instant::now() < until, "in vain: {text}\n{}", self.report());
            self.supervisor.turn(Some(Duration::from_millis(20))).unwrap();
        }
    }

    /// What a process of this scenario says when it ends.
    pub fn expect_end(&mut self, scenario: &str) {
        self.wait_for(&format!("{scenario}: "));
        assert!(self.report().contains(&format!("{scenario}: 0, 0 failures")), "{}", self.report());
        self.expect_no_complaint();
    }

    /// Nothing was other than promised.
    pub fn expect_no_complaint(&self) {
        assert!(!self.report().contains("not so") && !self.report().contains(", not "), "{}", self.report());
    }

    pub fn stop(&mut self) {
        self.supervisor.signal(15).unwrap();
    }
}

impl Drop for Hosted {
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

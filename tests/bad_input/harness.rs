//! A service that must not notice, and commands that must fail.

use crate::support::{Service, programs, wait_for_death, wait_until};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a command left.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stderr: String,
}

impl Said {
    /// This exit code; standard error has each of the words; and the first of them, what it is about, in one line only.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing in {self:?}");
        }
        once(&self.stderr, words[0]);
    }

    /// The same of a program that says nothing else.
    #[track_caller]
    pub fn expect_line(&self, code: i32, words: &[&str]) {
        self.expect(code, words);
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{self:?}");
    }
}

/// A thing is said in one line, not in a stack of them.
#[track_caller]
pub fn once(text: &str, what: &str) {
    let lines = text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines, 1, "{what:?} is in {lines} lines of {text}");
}

/// Runs a command that ends by itself.
pub fn run(command: &mut Command) -> Said {
    let mut file = tempfile::tempfile().unwrap();
    let child = command.stdout(Stdio::null()).stderr(file.try_clone().unwrap()).spawn().unwrap();
    let mut child = Running(child);
    let status = wait_until("its end", || child.0.try_wait().unwrap());
    let mut stderr = String::new();
    std::io::Seek::rewind(&mut file).unwrap();
    std::io::Read::read_to_string(&mut file, &mut stderr).unwrap();
    Said { code: status.code().unwrap_or(-1), stderr }
}

/// A process that does not outlive this value.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The files of a directory: inode, owner and size of each.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, (u64, u32, u64)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let look = |entry: fs::DirEntry| {
        let found = fs::symlink_metadata(entry.path()).ok()?;
        Some((entry.path(), (found.ino(), found.uid(), found.len())))
    };
    entries.filter_map(look).collect()
}

pub fn names(dir: &Path) -> Vec<String> {
    files(dir).keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// The store in C, serving under `handoff run`, and how everything was before somebody made a mistake.
pub struct Scene {
    pub service: Service,
    pub pid: i32,
    listeners: serde_json::Value,
}

impl Scene {
    pub fn new() -> Self {
        Self::of(Service::start(&programs().kv_a))
    }

    pub fn of(service: Service) -> Self {
        assert!(service.ask("SET before 1").unwrap().starts_with("OK "));
        let pid = service.daemon_pid();
        let listeners = service.status().unwrap()["listeners"].clone();
        Self { service, pid, listeners }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.service.path(name)
    }

    pub fn runtime(&self) -> BTreeMap<PathBuf, (u64, u32, u64)> {
        let mut files = files(&self.path("run"));
        // The journal is written anew, and what the daemon says grows.
        files.values_mut().for_each(|(inode, _, size)| (*inode, *size) = (0, 0));
        files
    }

    /// An upgrade as an operator types it, which fails. The supervisor says the same once, too.
    #[track_caller]
    pub fn upgrade_fails(&self, binary: &Path, code: i32, result: &str, words: &[&str]) {
        let (files, told) = (self.runtime(), self.service.stderr().len());
        let said = run(self.service.command("upgrade").arg("--binary").arg(binary));
        let serves = format!("kv: {result}; process {} serves (generation", self.pid);
        said.expect(code, &[&[serves.as_str()], words].concat());
        // Once, and not as "a: a: b".
        for word in words {
            assert_eq!(said.stderr.matches(word).count(), 1, "{word:?} in {said:?}");
        }
        let log = wait_until("the outcome in the log", || {
            let log = self.service.stderr()[told..].to_owned();
            log.contains("handoff: kv: upgrade").then_some(log)
        });
        once(&log, "handoff: kv: upgrade");
        assert!(!log.contains("starts again") && !log.contains("cannot send"), "{log}");
        wait_until("the files of before", || (self.runtime() == files).then_some(()));
        self.goes_on();
    }

    /// The same process serves reads and writes, alone, on the same listeners.
    #[track_caller]
    pub fn goes_on(&self) {
        let service = &self.service;
        assert_eq!(service.ping().expect("an answer").0, self.pid, "the same process must serve");
        assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
        assert!(service.ask("SET after 2").unwrap().starts_with("OK "));
        wait_until("nothing under way", || (service.status()?["phase"] == "idle").then_some(()));
        let status = service.status().unwrap();
        assert_eq!((&status["listeners"], &status["state"]), (&self.listeners, &"running".into()));
        wait_until("one daemon", || (service.daemons() == [self.pid]).then_some(()));
    }

    /// It can still be replaced, and nothing that was written is lost.
    #[track_caller]
    pub fn next_commits(self) {
        self.goes_on();
        let next = self.service.upgrade(&programs().kv_b, &[]);
        assert_eq!(next.result, "committed", "{next:?}");
        wait_for_death(self.pid);
        assert_eq!(self.service.ask("GET before").as_deref(), Some("VALUE 1"));
        assert_eq!(self.service.ask("GET after").as_deref(), Some("VALUE 2"));
        assert!(self.service.ask("SET after 3").unwrap().starts_with("OK "));
        assert_eq!(self.service.ping().unwrap().1, "b");
    }
}

/// `handoff run` of a service that ends by itself: its own runtime directory, the store, and these arguments.
pub fn run_store(service: &Service, runtime: &Path, data: &Path, arguments: &[&str]) -> Said {
    let mut command = service.other_command(env!("CARGO_BIN_EXE_handoff"));
    command.arg("run").arg("--runtime-dir").arg(runtime).args(["--name", "other"]).arg("--data-dir").arg(data);
    let said = run(command.args(arguments).arg("--").arg(&programs().kv_a));
    assert!(!said.stderr.contains("starts again"), "a restart loop: {said:?}");
    assert!(said.stderr.matches(" runs (generation ").count() <= 1, "started twice: {said:?}");
    said
}

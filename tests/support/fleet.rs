//! A supervisor of many units, `handoff up`, and what /proc has of the actors of `ffi-tests/c/actor.c` that run under it.

use super::{MARK, PATIENCE, lives, marked, process_state, signal_if_there, wait_until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// `handoff up` in a directory of its own.
pub struct Fleet {
    pub dir: tempfile::TempDir,
    up: Option<Child>,
}

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// It ended with this status, and said all of this.
    #[track_caller]
    pub fn expect(&self, code: i32, texts: &[&str]) -> &Self {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "{said}");
        texts.iter().for_each(|text| assert!(said.contains(text), "{text:?} is not in: {said}"));
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The program that does what it is told.
pub fn actor() -> &'static Path {
    static ACTOR: OnceLock<PathBuf> = OnceLock::new();
    ACTOR.get_or_init(|| super::compile("actor", "ffi-tests/c/actor.c", &[]))
}

impl Fleet {
    /// Its directory, and nothing that runs.
    pub fn place() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), up: None }
    }

    /// With these units, up, and it answers.
    pub fn start(units: &str) -> Self {
        let mut fleet = Self::place();
        fleet.configure(units);
        fleet.launch();
        fleet
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts this in the place of the file of units.
    pub fn configure(&self, units: &str) {
        fs::write(self.path("new"), units).unwrap();
        fs::rename(self.path("new"), self.path("units.toml")).unwrap();
    }

    /// The command of a unit that is an actor.
    pub fn acts(&self, unit: &str, words: &str) -> String {
        let mut argv = vec![actor().to_str().unwrap(), unit, self.dir.path().to_str().unwrap()];
        argv.extend(words.split_whitespace());
        format!("exec = {argv:?}\n")
    }

    /// Starts `handoff up`, and waits until it answers.
    pub fn launch(&mut self) {
        self.begin_launch();
        wait_until("handoff up answers", || self.status());
    }

    /// Only the first half.
    pub fn begin_launch(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.path("up.stderr")).unwrap();
        let mut command = self.command("up");
        command.arg("-c").arg(self.path("units.toml")).stdout(Stdio::null()).stderr(log);
        self.up = Some(command.spawn().unwrap());
    }

    /// The program, told where this supervisor is; it ends with the test.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handoff"));
        command.env(MARK, self.dir.path()).stdin(Stdio::null());
        command.arg(subcommand).arg("--runtime-dir").arg(self.path("run"));
        command
    }

    pub fn run(&self, subcommand: &str, arguments: &[&str]) -> Answer {
        let output = self.command(subcommand).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Answer { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// All services, as the supervisor says; none while nobody answers.
    pub fn status(&self) -> Option<Vec<Value>> {
        let mut all: Value = serde_json::from_str(&self.run("status", &["--json"]).stdout).ok()?;
        match all["services"].take() {
            Value::Array(services) => Some(services),
            _ => None,
        }
    }

    /// One of them.
    pub fn unit(&self, name: &str) -> Option<Value> {
        self.status()?.into_iter().find(|unit| unit["name"] == name)
    }

    /// Waits until a unit is in this state; how it is then.
    pub fn wait_for(&self, name: &str, state: &str) -> Value {
        wait_until(&format!("{name} is {state}"), || self.unit(name).filter(|unit| unit["state"] == state))
    }

    pub fn pid_of(&self, name: &str) -> i32 {
        wait_until(&format!("{name} has a process"), || self.unit(name)?["pid"].as_i64()) as i32
    }

    /// Of the supervisor.
    pub fn pid(&self) -> i32 {
        self.up.as_ref().unwrap().id() as i32
    }

    /// kill -9, and reaps it.
    pub fn kill_supervisor(&mut self) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
    }

    /// The exit status of `handoff up`, which ends by itself.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let mut up = self.up.take().unwrap();
        wait_until("the end of handoff up", || up.try_wait().unwrap()).code()
    }

    /// What `handoff up` has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("up.stderr")).unwrap_or_default()
    }

    /// The starts of a unit that is an actor, by pid.
    pub fn starts(&self, unit: &str) -> Vec<i32> {
        let starts = fs::read_to_string(self.path("starts")).unwrap_or_default();
        let pid = |line: &str| line.strip_prefix(unit)?.strip_prefix(' ')?.parse().ok();
        starts.lines().filter_map(pid).collect()
    }

    /// The processes of actors that live now.
    pub fn actors(&self) -> Vec<Actor> {
        actors(self.dir.path())
    }

    /// Processes of the test that live, with the supervisor and commands.
    pub fn processes(&self) -> Vec<i32> {
        marked(self.dir.path().to_str().unwrap()).into_iter().filter(|pid| lives(*pid)).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- handoff up said last:\n{}", super::last_lines(&self.log(), super::LINES_SHOWN));
        }
        if let Some(mut up) = self.up.take() {
            let _ = up.kill();
            let _ = up.wait();
        }
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for pid in left {
                signal_if_there(pid, super::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub pid: i32,
    pub unit: String,
    /// It belongs to the main process, and is not it.
    pub helper: bool,
    pub parent: i32,
}

/// All that name this directory in their command line, and are no zombies.
pub fn actors(dir: &Path) -> Vec<Actor> {
    let dir = dir.as_os_str().as_encoded_bytes();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?; // empty of a zombie
        let mut words = line.split(|byte| *byte == 0);
        let (role, unit) = (words.next()?, words.next()?);
        if words.next()? != dir || matches!(process_state(pid), None | Some('Z' | 'X')) {
            return None;
        }
        let unit = String::from_utf8_lossy(unit).into_owned();
        Some(Actor { pid, unit, helper: role.starts_with(b"help:"), parent: parent(pid)? })
    })
    .collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// TCP sockets that listen, in the namespace of this process: port and inode.
pub fn listening() -> Vec<(u16, u64)> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.split(':').nth(1)?, 16).ok()?;
        (fields.get(3)? == &"0A").then_some((port, fields.get(9)?.parse().ok()?))
    };
    // There may be ten thousand others.
    table.lines().filter(|line| line.contains(" 0A ")).filter_map(socket).collect()
}

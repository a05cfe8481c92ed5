//! Processes of a test, which end with it.

use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// In the environment of every process of a test, with a value of its own.
const MARK: &str = "PROGRAM_TEST_MARK";
/// Only ever reached when what must come does not come.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(pause);
        // Many a look is a process: those that wait for long leave the machine to the others.
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}

pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// A directory for the files of a test. Dropped, it ends every process that was started from here.
pub struct Place {
    pub dir: tempfile::TempDir,
    mark: String,
}

impl Place {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { dir: tempfile::tempdir().unwrap(), mark }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file with this mode.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub fn handoff(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handoff"));
        command.arg(subcommand).env("HANDOFF_RUNTIME_DIR", self.path("runtime")).env(MARK, &self.mark);
        command.stdin(Stdio::null());
        command
    }

    /// A command that ends by itself.
    pub fn output(&self, subcommand: &str, arguments: &[&str]) -> Said {
        let stdout = self.new_file("stdout");
        let mut command = self.handoff(subcommand);
        command.args(arguments).stdout(fs::File::create(&stdout).unwrap());
        let mut run = self.spawn(command);
        let code = run.end();
        Said { code, stdout: fs::read_to_string(stdout).unwrap(), stderr: run.stderr() }
    }

    fn new_file(&self, name: &str) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        self.path(&format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    /// `handoff run`, which goes on.
    pub fn run(&self, arguments: &[&str]) -> Run<'_> {
        let mut command = self.handoff("run");
        command.args(arguments).stdout(Stdio::null());
        self.spawn(command)
    }

    pub fn spawn(&self, mut command: Command) -> Run<'_> {
        let stderr = self.new_file("stderr");
        command.stderr(fs::File::create(&stderr).unwrap());
        Run { place: self, child: command.spawn().unwrap(), stderr }
    }

    pub fn living(&self) -> Vec<i32> {
        let wanted = format!("{MARK}={}", self.mark);
        let carries = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
        };
        let pids = fs::read_dir("/proc").unwrap().flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(carries)
            .filter(|pid| lives(*pid))
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let living = self.living();
            if living.is_empty() || Instant::now() > until {
                return;
            }
            for pid in living {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Neither gone nor a zombie.
pub fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next()).is_some_and(|state| !"ZX".contains(state))
}

/// What a command left.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The exit code, and these words on standard error.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing in {self:?}");
        }
    }
}

/// A `handoff run`.
pub struct Run<'a> {
    place: &'a Place,
    pub child: Child,
    stderr: PathBuf,
}

impl Run<'_> {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it and its daemon wrote.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    pub fn wait_for_text(&self, text: &str) {
        wait_until(&format!("{text:?} on standard error"), || self.stderr().contains(text).then_some(()));
    }

    /// The service, when it is as `look` wants it.
    pub fn wait_for(&self, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        let stderr = || self.stderr();
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.place.output("status", &["--json"]);
            let status: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
            let service = status["services"][0].clone();
            if service.is_object() && look(&service) {
                return service;
            }
            assert!(Instant::now() < until, "in vain: {what}: {said:?}; {}", stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a process runs, and gives its pid and its first address.
    pub fn running(&self) -> (i32, SocketAddr) {
        let service = self.wait_for("running", |service| service["pid"].is_i64());
        (pid_of(&service), service["listeners"][0]["address"].as_str().unwrap().parse().unwrap())
    }

    /// Waits for its end; the exit code.
    pub fn end(&mut self) -> i32 {
        let child = &mut self.child;
        let status = wait_until("the end of handoff run", || child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- handoff run said:\n{}", self.stderr());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn pid_of(service: &Value) -> i32 {
    service["pid"].as_i64().unwrap() as i32
}

/// One request, its answer: `PID WORD`.
pub fn ask(address: SocketAddr, word: &str) -> (i32, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(word.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (pid, rest) = answer.split_once(' ').unwrap_or_else(|| panic!("{answer:?}"));
    (pid.parse().unwrap(), rest.to_owned())
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

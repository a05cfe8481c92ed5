//! A real supervisor, real daemons in C, and real clients, for the end-to-end tests.
//!
//! Every process of a test carries a mark in its environment, which no other process has: when the test ends, however it
//! ends, whatever still carries it is killed.

#![allow(dead_code)] // each test program uses a part of this

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub mod copy;
pub mod fleet;
pub mod go;
#[allow(unused_imports, reason = "each test uses a part of it")]
#[path = "../../src/bin/handoff/demo/load.rs"]
pub mod load;
pub mod overlapping;
pub mod processes;
pub mod python;
pub mod streams;
pub mod watch;

pub use processes::*;

pub const MARK: &str = "TEST_OF_HANDOFF";
/// Of a service that was never started.
const NO_PORT: u16 = 1;
/// How long a test waits for an event that must come: generous, since it is only ever reached when it does not come.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Of the supervisor's log, after a failure.
const LINES_SHOWN: usize = 200;

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Waits for something that must come true.
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

// ---- programs

/// Where cargo has put this build's `libhandoff.so`: beside the dependencies of the test programs.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().join("libhandoff.so")
}

/// Compiles a daemon in C against the library of this build; once for each name and test program.
pub fn compile(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    compile_with(&library(), name, source, flags)
}

/// A library that stands in front of the real one, and has events that nobody knows yet.
pub fn newer_library() -> PathBuf {
    compile("libnewer.so", "ffi-tests/c/newer.c", &["-shared", "-fPIC", "-Wl,--no-as-needed"])
}

/// The same, against another build's library.
pub fn compile_with(library: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Each test program has a directory of its own: they run side by side.
    let test = std::env::current_exe().unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test.file_name().unwrap());
    fs::create_dir_all(&dir).unwrap();
    // Put into place by a rename: the same test program may run twice at once.
    // And two of its threads may come here at once.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let own = |name: &str| dir.join(format!("{name}.{}.{number}", std::process::id()));
    let link = own("libhandoff.so.0");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(library, &link).unwrap();
    fs::rename(link, dir.join("libhandoff.so.0")).unwrap();
    let program = own(name);
    let output = Command::new("cc")
        .args(["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"])
        .args(flags)
        .arg("-I")
        .arg(root.join("include"))
        .arg("-o")
        .arg(&program)
        .arg(root.join(source))
        .arg("-L")
        .arg(&dir)
        .args(["-l:libhandoff.so.0", "-Wl,-rpath,$ORIGIN"])
        .output()
        .expect("a C compiler is needed: cc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(program, dir.join(name)).unwrap();
    dir.join(name)
}

/// The daemons that the tests use.
pub struct Programs {
    pub kv_a: PathBuf,
    pub kv_b: PathBuf,
    pub echo: PathBuf,
    pub faulty: PathBuf,
}

/// Compiles them, once.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| Programs {
        kv_a: compile("kv-a", "examples-c/kv.c", &["-DBUILD=\"a\""]),
        kv_b: compile("kv-b", "examples-c/kv.c", &["-DBUILD=\"b\""]),
        echo: compile("echo", "examples-c/echo.c", &[]),
        faulty: compile("faulty-kv", "ffi-tests/c/faulty_kv.c", &["-DBUILD=\"faulty\""]),
    })
}

/// A script that becomes the faulty store with this fault.
pub fn faulty_script(dir: &Path, program: &Path, fault: &str) -> PathBuf {
    // Written by another process, under a name of its own: what is open for writing can not be executed, and a process that another
    // thread starts has for a moment whatever this one has open.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let script = dir.join(format!("faulty-{fault}-{}-{number}", std::process::id()));
    let program = program.display();
    let text = format!("#!/bin/sh\nKV_FAULT={fault} exec {program} \"$@\"");
    let write = ["-c", "echo \"$0\" > \"$1\" && chmod 755 \"$1\"", &text];
    assert!(Command::new("sh").args(write).arg(&script).status().unwrap().success());
    script
}

// ---- a service

/// One request to a store on a connection of its own; none if it failed, or nobody answered for a second.
pub fn ask(address: SocketAddr, request: &str) -> Option<String> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).ok()?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).ok()?;
    let reply = reply.trim_end().trim_end_matches(" CLOSE").to_owned();
    (!reply.is_empty() && reply != "CLOSE").then_some(reply)
}

/// What `handoff upgrade` said.
#[derive(Debug)]
pub struct Upgrade {
    pub code: i32,
    pub result: String,
    pub reason: String,
    pub outcome: Value,
}

/// A service under `handoff run`, in a directory of its own.
pub struct Service {
    pub dir: tempfile::TempDir,
    mark: String,
    run: Option<Child>,
    pub address: SocketAddr,
    /// The supervisor's socket, if it is not in the runtime directory.
    pub socket: Option<PathBuf>,
    /// The soft limit of descriptors under which the supervisor is started, if it is not ours.
    pub soft_descriptors: Option<u64>,
    /// The program that is tested.
    pub handoff: PathBuf,
    /// What it finds in its environment, beside what the test itself has.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl Service {
    /// Runs `program` and waits until it serves.
    pub fn start(program: &Path) -> Self {
        Self::start_with(program, &[])
    }

    /// The same, with further arguments of `handoff run`.
    pub fn start_with(program: &Path, arguments: &[&str]) -> Self {
        let mut service = Self::place();
        service.launch(program, arguments);
        service
    }

    /// Its directories, and nothing that runs yet.
    pub fn place() -> Self {
        Self::place_in(tempfile::tempdir().unwrap())
    }

    /// The same, in this directory.
    pub fn place_in(dir: tempfile::TempDir) -> Self {
        fs::create_dir(dir.path().join("data")).unwrap();
        let mark = dir.path().display().to_string();
        let handoff = env!("CARGO_BIN_EXE_handoff").into();
        let address = (Ipv4Addr::LOCALHOST, NO_PORT).into();
        let environment = Vec::new();
        Self { dir, mark, run: None, address, socket: None, soft_descriptors: None, handoff, environment }
    }

    /// Runs `program` here, and waits until it serves.
    pub fn launch(&mut self, program: &Path, arguments: &[&str]) {
        self.begin_launch(program, arguments);
        self.wait_until_running();
    }

    /// Only the first half.
    pub fn begin_launch(&mut self, program: &Path, arguments: &[&str]) {
        // Appended: what a supervisor before this one said stays readable.
        let stderr = fs::File::options().create(true).append(true).open(self.path("run.stderr")).unwrap();
        let mut command = self.command("run");
        if let Some(soft) = self.soft_descriptors {
            command = self.other_command("prlimit");
            command.arg(format!("--nofile={soft}:")).args([self.command("run").get_program()]);
            command.args(self.command("run").get_args());
        }
        // Started again, it has the same port, also if nobody is left who could hand it over.
        let port = if self.address.port() == NO_PORT { 0 } else { self.address.port() };
        let child = command
            .args(["--listen", &format!("kv=127.0.0.1:{port}"), "--listen", "echo=127.0.0.1:0", "--data-dir"])
            .arg(self.path("data"))
            .args(arguments)
            .arg("--")
            .arg(program)
            .stderr(stderr)
            .spawn()
            .unwrap();
        self.run = Some(child);
    }

    /// The second half.
    pub fn wait_until_running(&mut self) {
        let status = wait_until("the daemon serves", || {
            let status = self.status()?;
            let settled = status["phase"] == "idle" || status["phase"] == "probation";
            (status["state"] == "running" && status["linked"] == true && settled).then_some(status)
        });
        self.address = status["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
    }

    /// Runs the store with this fault.
    pub fn start_faulty(fault: &str) -> Self {
        Self::start(&faulty_script(Path::new(env!("CARGO_TARGET_TMPDIR")), &programs().faulty, fault))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, told where this service is.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = self.other_command(&self.handoff);
        command.envs(self.environment.iter().cloned());
        command.arg(subcommand).arg("--runtime-dir").arg(self.path("run")).args(["--name", "kv"]);
        if let Some(socket) = &self.socket {
            command.arg("--socket").arg(socket);
        }
        command
    }

    /// Any program, which ends with the test.
    pub fn other_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env(MARK, &self.mark).stdin(Stdio::null());
        command
    }

    /// The service's entry in `handoff status --json`; none while nobody answers.
    pub fn status(&self) -> Option<Value> {
        let output = self.command("status").arg("--json").output().unwrap();
        let all: Value = serde_json::from_slice(&output.stdout).ok()?;
        all["services"].get(0).cloned()
    }

    /// Starts an upgrade, and does not wait.
    pub fn begin_upgrade(&self, binary: &Path, arguments: &[&str]) -> Upgrading {
        let mut command = self.command("upgrade");
        command.arg("--json").arg("--binary").arg(binary).args(arguments);
        Upgrading(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    pub fn upgrade(&self, binary: &Path, arguments: &[&str]) -> Upgrade {
        self.begin_upgrade(binary, arguments).wait()
    }

    /// A script that becomes the faulty store with this fault.
    pub fn faulty(&self, fault: &str) -> PathBuf {
        faulty_script(self.dir.path(), &programs().faulty, fault)
    }

    pub fn supervisor_pid(&self) -> i32 {
        self.run.as_ref().unwrap().id() as i32
    }

    /// The process that serves, as the supervisor says.
    pub fn daemon_pid(&self) -> i32 {
        wait_until("a pid", || self.status()?["pid"].as_i64()) as i32
    }

    /// Daemons that live, in the order of their starts.
    pub fn daemons(&self) -> Vec<i32> {
        // The program itself has the mark, too: the supervisor, and commands that are under way.
        let program = fs::canonicalize(&self.handoff).unwrap();
        let is_daemon =
            |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe != program) && lives(*pid);
        let mut pids: Vec<i32> = marked(&self.mark).into_iter().filter(is_daemon).collect();
        pids.sort_unstable();
        pids
    }

    /// The successor of `incumbent`, once it runs.
    pub fn successor_of(&self, incumbent: i32) -> i32 {
        wait_until("a successor", || self.daemons().into_iter().find(|pid| *pid != incumbent))
    }

    pub fn wait_for_phase(&self, phase: &str) {
        wait_until(&format!("phase {phase}"), || (self.status()?["phase"] == phase).then_some(()));
    }

    /// Kills the supervisor, and reaps it.
    pub fn kill_supervisor(&mut self) {
        let mut run = self.run.take().unwrap();
        run.kill().unwrap();
        run.wait().unwrap();
    }

    /// Reaps a supervisor that was killed.
    pub fn reap_supervisor(&mut self) {
        self.run.take().unwrap().wait().unwrap();
    }

    /// Who answers on the service's address.
    pub fn ping(&self) -> Option<(i32, String)> {
        let reply = self.ask("PING")?;
        let mut words = reply.split(' ').skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
    }

    /// As [`ask`].
    pub fn ask(&self, request: &str) -> Option<String> {
        ask(self.address, request)
    }

    /// Waits until somebody serves reads and writes.
    pub fn wait_until_served(&self) -> i32 {
        wait_until("somebody serves", || {
            self.ask("SET alive 1").filter(|reply| reply.starts_with("OK "))?;
            Some(self.ping()?.0)
        })
    }

    /// What `handoff run` and the daemons have written.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("run.stderr")).unwrap_or_default()
    }

    /// Stops the service as an operator does; the exit code of `handoff run`.
    pub fn stop(&mut self) -> Option<i32> {
        signal(self.supervisor_pid(), SIGTERM);
        self.wait_for_end()
    }

    /// The exit code of `handoff run`, which ends by itself.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let mut run = self.run.take().unwrap();
        wait_until("the end of handoff run", || run.try_wait().unwrap()).code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- handoff run said last:\n{}", last_lines(&self.stderr(), LINES_SHOWN));
            if let Some(run) = &self.run {
                let pid = run.id() as i32;
                let waits = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
                eprintln!("---- handoff run, process {pid}, is {:?} in {waits:?}", process_state(pid));
            }
        }
        if let Some(mut run) = self.run.take() {
            let _ = run.kill();
            let _ = run.wait();
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let left: Vec<i32> = marked(&self.mark).into_iter().filter(|pid| lives(*pid)).collect();
            if left.is_empty() || Instant::now() > until {
                return;
            }
            for pid in left {
                // SAFETY: as in `signal`; it may have ended by itself in between.
                unsafe { libc_kill(pid, SIGKILL) };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A client that keeps its connection: a drain would tell it to hang up.
pub struct KeptAlive {
    stream: std::net::TcpStream,
    replies: std::io::BufReader<std::net::TcpStream>,
}

impl KeptAlive {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let replies = std::io::BufReader::new(stream.try_clone().unwrap());
        Self { stream, replies }
    }

    /// The reply as it came, without its end of line.
    pub fn ask(&mut self, request: &str) -> String {
        self.say(&format!("{request}\n"));
        self.hear().trim_end().to_owned()
    }

    /// Sends these bytes, which need not be a line.
    pub fn say(&mut self, bytes: &str) {
        std::io::Write::write_all(&mut self.stream, bytes.as_bytes()).unwrap();
    }

    /// A line; empty at the end of the connection.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.replies, &mut line).unwrap();
        line
    }
}

/// An upgrade that is under way.
pub struct Upgrading(Option<Child>);

impl Upgrading {
    /// The command's own process.
    pub fn pid(&self) -> i32 {
        self.0.as_ref().unwrap().id() as i32
    }

    pub fn wait(mut self) -> Upgrade {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let outcome: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let word = |field: &str| outcome[field].as_str().unwrap_or_default().to_owned();
        Upgrade { code: output.status.code().unwrap_or(-1), result: word("result"), reason: word("reason"), outcome }
    }
}

impl Drop for Upgrading {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

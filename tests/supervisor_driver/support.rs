//! One service at a time, and nobody left behind.

use handoff::supervisor::{Event, HandoffOutcome, SpawnSpec, Supervisor};
use handoff::sys::pidfd::Pidfd;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The tests count the children and descriptors of this process: one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A supervisor and a directory; in the end all children of this process are killed and reaped.
pub struct Service {
    pub supervisor: Option<Supervisor>,
    pub dir: TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Service {
    pub fn new() -> Self {
        Self::with(|supervisor, _| supervisor)
    }

    pub fn with(build: impl FnOnce(Supervisor, &TempDir) -> Supervisor) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(children(), []);
        let supervisor = build(Supervisor::new().unwrap().with_name("test").unwrap(), &dir);
        Self { supervisor: Some(supervisor), dir, _one: one }
    }

    /// A peer with this script, impatient.
    pub fn peer(&self, script: &str) -> SpawnSpec {
        let exe = std::env::current_exe().unwrap();
        let argv = [exe.as_os_str(), "--exact".as_ref(), "peer_main".as_ref(), "--nocapture".as_ref(), "-q".as_ref()];
        SpawnSpec::new(argv).env("PEER", script).env("PEER_LOG", self.log_path())
    }

    pub fn s(&mut self) -> &mut Supervisor {
        self.supervisor.as_mut().unwrap()
    }

    /// A handoff, or a cold start, to a peer with this script.
    pub fn hand_off(&mut self, script: &str) -> HandoffOutcome {
        let spec = self.peer(script);
        self.s().perform_handoff(&spec).unwrap()
    }

    /// Turns until an outcome comes; all events before it, too.
    pub fn outcome(&mut self) -> (HandoffOutcome, Vec<Event>) {
        let mut seen = Vec::new();
        loop {
            for event in self.s().turn(Some(LONG)).unwrap() {
                match event {
                    Event::Outcome(outcome) => return (outcome, seen),
                    other => seen.push(other),
                }
            }
        }
    }

    /// Turns until this holds.
    pub fn turn_until(&mut self, what: &str, mut holds: impl FnMut(&Supervisor, &[Event]) -> bool) -> Vec<Event> {
        let end = Instant::now() + LONG;
        let mut seen = Vec::new();
        while !holds(self.s(), &seen) {
            assert!(Instant::now() < end, "{what} does not come; seen: {seen:?}");
            seen.extend(self.s().turn(Some(Duration::from_millis(20))).unwrap());
        }
        seen
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Turns until the peers' log has this.
    pub fn wait_for_log(&mut self, line: &str) {
        let path = self.log_path();
        let has = move || fs::read_to_string(&path).unwrap_or_default().contains(line);
        match self.supervisor {
            Some(_) => drop(self.turn_until(line, |_, _| has())),
            None => wait_until(line, has),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.supervisor.take());
        for (pid, _) in children() {
            // Our child and not reaped yet, so the number is its own.
            let _ = Pidfd::open(pid).and_then(|pidfd| pidfd.kill(Signal::SIGKILL));
            let _ = waitpid(Pid::from_raw(pid), None);
        }
    }
}

/// For what must come, however slow the machine is.
pub const LONG: Duration = Duration::from_secs(60);

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "{what} does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The children of this process, and whether each is a zombie.
pub fn children() -> Vec<(i32, bool)> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        if parent == Some(&own) {
            found.push((pid, state == Some("Z")));
        }
    }
    found
}

pub fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

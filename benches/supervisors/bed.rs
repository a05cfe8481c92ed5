//! A supervisor with its services, in a directory of its own. Dropped, all of it ends.

use crate::files;
use crate::guard;
use crate::support::{self, SIGTERM, lives, marked, signal, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SIGHUP: i32 = 1;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Handoff,
    Supervisord,
    Runit,
    S6,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Handoff, Self::Supervisord, Self::Runit, Self::S6];

    pub fn name(self) -> &'static str {
        ["handoff", "supervisord", "runit", "s6"][self as usize]
    }

    /// The first of its programs that is not there.
    pub fn missing(self) -> Option<&'static str> {
        let needed: &[&str] = match self {
            Self::Handoff => &[],
            Self::Supervisord => &["supervisord", "supervisorctl"],
            Self::Runit => &["runsvdir", "runsv", "sv", "svlogd"],
            Self::S6 => &["s6-svscan", "s6-supervise", "s6-svc", "s6-svstat", "s6-svwait", "s6-log"],
        };
        let path = search_path();
        let is_there = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).exists());
        needed.iter().find(|name| !is_there(name)).copied()
    }

    /// Whether each service has a supervising process of its own.
    pub fn has_many_processes(self) -> bool {
        matches!(self, Self::Runit | Self::S6)
    }
}

/// Where get.sh has put what was missing.
fn others() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("others/usr")
}

fn search_path() -> std::ffi::OsString {
    let known = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&known).collect::<Vec<_>>();
    std::env::join_paths(std::iter::once(others().join("bin")).chain(dirs)).expect("a path")
}

/// Services that are alike.
#[derive(Clone)]
pub struct Unit {
    pub name: &'static str,
    pub count: usize,
    /// Arguments of service.c.
    pub words: String,
    /// What it writes goes to files, below `logs`.
    pub logged: bool,
    /// Killed if it has not ended by then.
    pub patience_s: u32,
    pub port: Option<u16>,
    /// Started again if it ends, where that can be turned off.
    pub again: bool,
}

impl Unit {
    pub fn new(name: &'static str, count: usize, words: &str) -> Self {
        Self { name, count, words: words.to_owned(), logged: false, patience_s: 10, port: None, again: true }
    }

    pub fn logged(self) -> Self {
        Self { logged: true, ..self }
    }

    /// As directories and units are called.
    pub fn instances(&self) -> Vec<String> {
        match self.count {
            1 => vec![self.name.to_owned()],
            count => (0..count).map(|at| format!("{}-{at}", self.name)).collect(),
        }
    }
}

pub struct Bed {
    pub kind: Kind,
    pub units: Vec<Unit>,
    pub place: support::Service,
    child: Option<Child>,
}

impl Bed {
    /// With its files, and nothing that runs.
    pub fn new(kind: Kind, units: Vec<Unit>) -> Self {
        let place = support::Service::place();
        fs::create_dir(place.path("logs")).expect("a directory");
        let bed = Self { kind, units, place, child: None };
        files::write(&bed);
        bed
    }

    pub fn launch(&mut self) {
        let mut command = match self.kind {
            Kind::Handoff => self.handoff("up"),
            Kind::Supervisord => self.command("supervisord"),
            Kind::Runit => self.command("runsvdir"),
            Kind::S6 => self.command("s6-svscan"),
        };
        match self.kind {
            Kind::Handoff => command.arg("-c").arg(self.place.path("units.toml")),
            Kind::Supervisord => command.arg("-n").arg("-c").arg(self.place.path("supervisord.conf")),
            Kind::Runit => command.arg("-P").arg(self.place.path("services")),
            Kind::S6 => command.args(["-c", "4000"]).arg(self.place.path("services")),
        };
        // What handoff writes there, of lines that go to files, would be written twice.
        let logged = self.units.iter().any(|unit| unit.logged);
        let stderr = if logged { Stdio::null() } else { self.last_words() };
        self.child = Some(command.stdout(Stdio::null()).stderr(stderr).spawn().expect("a supervisor"));
    }

    /// The place shows them after a failure.
    fn last_words(&self) -> Stdio {
        let options = fs::File::options().create(true).append(true).open(self.place.path("run.stderr"));
        options.expect("a file").into()
    }

    /// Launched, and all services have begun; when the last of them did.
    pub fn launch_all(&mut self) -> u64 {
        self.launch();
        let count = self.units.iter().map(|unit| unit.count).sum();
        wait_until("all services have begun", || (self.starts().len() >= count).then_some(()));
        wait_until("all run, as it says", || self.says_all_run().then_some(()));
        self.starts().iter().map(|start| start.1).max().expect("services")
    }

    /// A program that ends with this bench.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.place.other_command(program);
        command.env("PATH", search_path());
        if self.kind == Kind::Supervisord {
            command.env("PYTHONPATH", others().join("lib/python3/dist-packages"));
        }
        self.known(command)
    }

    pub fn handoff(&self, subcommand: &str) -> Command {
        self.known(self.place.command(subcommand))
    }

    fn known(&self, mut command: Command) -> Command {
        guard::mark(&mut command);
        command.env("BENCH_DIR", self.place.path(""));
        command
    }

    fn supervisorctl(&self, words: &[&str]) -> Command {
        let mut command = self.command("supervisorctl");
        command.arg("-c").arg(self.place.path("supervisord.conf")).args(words);
        command
    }

    pub fn unit(&self, name: &str) -> &Unit {
        self.units.iter().find(|unit| unit.name == name).expect("a unit")
    }

    fn directories(&self, name: &str) -> Vec<PathBuf> {
        let instances = self.unit(name).instances();
        instances.into_iter().map(|instance| self.place.path("services").join(instance)).collect()
    }

    // ---- what an operator does

    /// What lets all services of a unit stop.
    pub fn stop(&self, name: &str) -> Command {
        match self.kind {
            Kind::Handoff => {
                let mut command = self.handoff("stop");
                command.args(self.unit(name).instances());
                command
            }
            Kind::Supervisord if self.unit(name).count == 1 => self.supervisorctl(&["stop", name]),
            Kind::Supervisord => self.supervisorctl(&["stop", &format!("{name}:*")]),
            Kind::Runit => {
                let mut command = self.command("sv");
                command.arg("-w").arg(self.unit(name).patience_s.to_string());
                command.arg("force-stop").args(self.directories(name));
                command
            }
            Kind::S6 => self.each_directory(name, "s6-svc -d"),
        }
    }

    /// What stops one service, and starts it again.
    pub fn restart(&self, name: &str) -> Command {
        match self.kind {
            Kind::Handoff => {
                let mut command = self.handoff("restart");
                command.arg(name);
                command
            }
            Kind::Supervisord => self.supervisorctl(&["restart", name]),
            Kind::Runit => {
                let mut command = self.command("sv");
                command.arg("restart").args(self.directories(name));
                command
            }
            Kind::S6 => self.each_directory(name, "s6-svc -wR -T 7000 -r"),
        }
    }

    /// What asks for the state of the first service of a unit.
    pub fn status(&self, name: &str) -> Command {
        let first = self.unit(name).instances().remove(0);
        let mut command = match self.kind {
            Kind::Handoff => self.handoff("status"),
            Kind::Supervisord => return self.supervisorctl(&["status", &format!("{name}:{first}")]),
            Kind::Runit => self.command("sv"),
            Kind::S6 => self.command("s6-svstat"),
        };
        match self.kind {
            Kind::Runit => command.arg("status").arg(self.place.path("services").join(first)),
            Kind::S6 => command.arg(self.place.path("services").join(first)),
            _ => command.arg(first),
        };
        command
    }

    fn each_directory(&self, name: &str, what: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", &format!("for each; do {what} \"$each\"; done"), "sh"]).args(self.directories(name));
        command
    }

    /// Whether all run, in its own words.
    pub fn says_all_run(&self) -> bool {
        let count: usize = self.units.iter().map(|unit| unit.count).sum();
        let all = self.units.iter().flat_map(|unit| self.directories(unit.name));
        match self.kind {
            Kind::Handoff => succeeds(self.handoff("start").arg("all")),
            Kind::Supervisord => {
                let said = crate::ask::supervisord(self, "getAllProcessInfo");
                said.is_ok_and(|said| said.matches("<string>RUNNING</string>").count() == count)
            }
            Kind::Runit => {
                let said = self.command("sv").arg("status").args(all).output().expect("sv");
                String::from_utf8_lossy(&said.stdout).lines().filter(|line| line.starts_with("run: ")).count() == count
            }
            Kind::S6 => succeeds(self.command("s6-svwait").args(["-u", "-t", "60000"]).args(all)),
        }
    }

    // ---- the supervisor's end

    /// Tells it to stop all services and to end.
    pub fn begin_end(&self) {
        signal(self.pid(), if self.kind == Kind::Runit { SIGHUP } else { SIGTERM });
    }

    /// Waits until all of it has ended.
    pub fn wait_for_end(&mut self) {
        self.reap();
        wait_until("the end of all", || self.processes().is_empty().then_some(()));
    }

    /// Waits until the first of its processes has ended.
    pub fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            wait_until("the end of the supervisor", || child.try_wait().expect("a wait"));
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("a supervisor").id() as i32
    }

    // ---- what /proc has

    /// All that live.
    pub fn processes(&self) -> Vec<i32> {
        let mark = self.place.path("");
        let mark = mark.to_str().expect("a path").trim_end_matches('/');
        marked(mark).into_iter().filter(|pid| lives(*pid)).collect()
    }

    pub fn services(&self) -> Vec<i32> {
        self.processes().into_iter().filter(|pid| is_service(*pid)).collect()
    }

    /// The supervisor, and what supervises and logs for it.
    pub fn supervisors(&self) -> Vec<i32> {
        self.processes().into_iter().filter(|pid| !is_service(*pid)).collect()
    }

    /// Those that supervise services themselves.
    pub fn direct_supervisors(&self) -> Vec<i32> {
        let name = if self.kind == Kind::Runit { "runsv" } else { "s6-supervise" };
        if !self.kind.has_many_processes() {
            return vec![self.pid()];
        }
        let is_one = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        self.supervisors().into_iter().filter(is_one).collect()
    }

    /// Services that have begun: pid, and when.
    pub fn starts(&self) -> Vec<(i32, u64)> {
        numbers(&self.place.path("starts")).into_iter().map(|(pid, ns)| (pid as i32, ns)).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn is_service(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == files::service())
}

/// Lines of two numbers.
pub fn numbers(path: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let two = |line: &str| line.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    text.lines().filter_map(two).collect()
}

pub fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("a command").success()
}

pub fn rest(duration: Duration) {
    std::thread::sleep(duration);
}

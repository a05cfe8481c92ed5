//! An upgrade whose phases are followed, so that a blow can fall into one of them.

use crate::schedule::{Blow, Kind, Moment, PHASES, Role, Round};
use crate::support::{PATIENCE, SIGCONT, SIGKILL, SIGSTOP, Service, children, lives, signal_if_there};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Before the first phase is told.
const BEFORE: &str = "before";
/// No upgrade is under way.
pub const IDLE: &str = "idle";

/// `handoff upgrade`, with what it says of its phases.
pub struct Upgrading {
    child: Child,
    lines: Receiver<String>,
    begun: Instant,
    phase: &'static str,
    last_line: String,
}

impl Upgrading {
    pub fn begin(service: &Service, binary: &Path, round: &Round) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = service.command("upgrade");
        command.arg("--binary").arg(binary).args(["--deadline", "60s"]).args(round.arguments);
        let child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, begun: Instant::now(), phase: BEFORE, last_line: String::new() }
    }

    /// Waits for the moment; false if it does not come.
    fn wait_for(&mut self, moment: Moment) -> bool {
        match moment {
            Moment::After(ms) => {
                let at = self.begun + Duration::from_millis(ms);
                while self.listen(at.saturating_duration_since(Instant::now())) {}
                thread::sleep(at.saturating_duration_since(Instant::now()));
                true
            }
            Moment::Phase(phase, later_us) => {
                while self.phase != phase && self.listen(PATIENCE) {}
                thread::sleep(Duration::from_micros(later_us));
                self.phase == phase
            }
        }
    }

    /// Takes one line; false if none came in this time, or none will come.
    fn listen(&mut self, time: Duration) -> bool {
        match self.lines.recv_timeout(time) {
            Ok(line) => {
                let told = line.strip_prefix("kv: ");
                match PHASES.iter().find(|phase| told == Some(phase)) {
                    Some(phase) => self.phase = phase,
                    None => self.last_line = line,
                }
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                self.phase = IDLE;
                false
            }
        }
    }

    /// Its exit code, and the last it said.
    pub fn wait(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        while self.listen(PATIENCE) {}
        (code, self.last_line)
    }
}

/// What became of a blow.
pub struct Dealt {
    pub blow: Blow,
    /// The phase that was told last; the process may have been in the next one already.
    pub phase: &'static str,
    /// None if the moment did not come, or the process was not there.
    pub pid: Option<i32>,
    thaw: Option<JoinHandle<()>>,
}

impl Dealt {
    pub fn deal(blow: Blow, upgrading: &mut Upgrading, service: &Service, incumbent: i32) -> Self {
        let comes = upgrading.wait_for(blow.moment);
        let pid = Some(blow.role).filter(|_| comes).and_then(|role| find(role, service, incumbent));
        let first = if blow.kind == Kind::Kill { SIGKILL } else { SIGSTOP };
        let pid = pid.filter(|pid| signal_if_there(*pid, first));
        let thaw = match (blow.kind, pid) {
            (Kind::Stall(ms), Some(pid)) => Some(thread::spawn(move || {
                thread::sleep(Duration::from_millis(ms));
                signal_if_there(pid, SIGCONT);
            })),
            _ => None,
        };
        Self { blow, phase: upgrading.phase, pid, thaw }
    }

    pub fn is(&self, role: Role, kind: Kind) -> bool {
        self.pid.is_some() && (self.blow.role, self.blow.kind) == (role, kind)
    }

    pub fn stall_ms(&self) -> u64 {
        match (self.pid, self.blow.kind) {
            (Some(_), Kind::Stall(ms)) => ms,
            _ => 0,
        }
    }

    /// Waits until it runs again, if it was stopped.
    pub fn wait_for_thaw(&mut self) {
        self.thaw.take().map(JoinHandle::join).transpose().unwrap();
    }
}

fn find(role: Role, service: &Service, incumbent: i32) -> Option<i32> {
    let supervisor = service.supervisor_pid();
    match role {
        Role::Supervisor => Some(supervisor),
        Role::Incumbent => Some(incumbent).filter(|pid| lives(*pid)),
        Role::Successor => children(supervisor).into_iter().find(|pid| *pid != incumbent && lives(*pid)),
    }
}

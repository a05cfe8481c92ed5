//! What a service looks like from outside.

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use serde::{Serialize, Serializer};

use super::event::Ended;
use super::{IDLE, PROBATION, Service, State, is_settling};
use crate::service::graph;
use crate::service::log::LogStatus;
use crate::supervisor::{Draining, HandoffOutcome, Mode, ReadySign, Said, Status};
use crate::sys::clock::monotonic_ns;

/// What [`ServiceStatus::state`] may be.
pub const STATES: [&str; 10] =
    ["starting", "running", "upgrading", "waiting", "blocked", "stopping", "stopped", "done", "failed", "faulty"];

/// A service: what is, what is wanted, and why.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// `starting`, `running`, `upgrading`, `waiting` (for its next start), `stopping`, `stopped` or `failed`.
    pub state: &'static str,
    /// `running` or `stopped`.
    pub want: &'static str,
    /// Who wants it: `an operator`, `autostart`, or the name of a unit that needs it.
    pub wanted_by: Option<String>,
    /// The keys in which its process differs from its configuration, until it is restarted or upgraded.
    pub stale: Vec<&'static str>,
    /// It is in no file: an operator has added it.
    pub ephemeral: bool,
    /// Why it is not what it should be, or what made it what it is.
    pub why: String,
    /// Why it failed first, since it was started or was well.
    pub cause: Option<String>,
    /// The phase of the handoff or the start that is under way; `idle` if none is.
    pub phase: &'static str,
    /// The process that serves or starts.
    pub pid: Option<i32>,
    /// Which process of the service it is: 1, 2, 3, …
    pub generation: u64,
    /// For how long it has served, or been starting.
    pub uptime_ms: Option<u64>,
    /// Processes that were replaced in overlap mode, and serve their last clients.
    pub draining: Vec<DrainingStatus>,
    /// An upgrade or a rollback that has not begun.
    pub waits: Option<WaitingStatus>,
    /// The program that runs, and that is started again after a crash.
    pub program: String,
    /// Its sockets.
    pub listeners: Vec<ListenerStatus>,
    /// It has said Hello: it can be replaced. While it starts, that is not known yet.
    pub linked: bool,
    /// A file that it needs to be replaced, and that somebody has removed: only a restart makes it anew.
    pub lost_lock: Option<PathBuf>,
    /// `none`, if it is not replaced by a handoff; `exclusive` or `overlap`: whether a successor serves beside its predecessor for a while. What a daemon that links the library
    /// offers; of others, and until then, what was asked for.
    pub mode: &'static str,
    /// How a daemon that does not link the library tells that it is ready, as `--ready` has it.
    pub ready: Option<String>,
    /// What the process has said to `NOTIFY_SOCKET`.
    pub says: Said,
    /// Whether it is well, if that is asked.
    pub health: Option<HealthStatus>,
    /// While its watchdog is on.
    pub watchdog: Option<WatchdogStatus>,
    /// While it is `waiting`: how long until its next start.
    pub next_start_ms: Option<u64>,
    /// How often it was started again after it ended by itself.
    pub restarts: u64,
    /// What is kept of its output.
    pub log: LogStatus,
    /// The process before it, which takes over if it dies: in a probation.
    pub parked_pid: Option<i32>,
    /// For how much longer.
    pub probation_left_ms: Option<u64>,
    /// How the last handoff ended that was not refused.
    #[serde(serialize_with = "outcome")]
    pub last_handoff: Option<Rc<HandoffOutcome>>,
}

/// Whether a service is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthStatus {
    /// `unknown` (it does not run, or has not answered well yet), `healthy` or `unhealthy`.
    pub state: &'static str,
    /// For how long; none: it was never asked.
    pub since_ms: Option<u64>,
    /// Bad answers since the last good one.
    pub failures: u32,
    /// For how long there have been only such.
    pub failing_ms: Option<u64>,
    /// What the first of them said.
    pub cause: Option<String>,
}

/// The watchdog of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchdogStatus {
    /// For how long its process need not say that it is alive.
    pub left_ms: u64,
}

/// A process that was replaced in overlap mode, and serves its last clients.
#[derive(Clone, Debug, Serialize)]
pub struct DrainingStatus {
    /// Its pid.
    pub pid: i32,
    /// Which process of the service it was; 0 if it was undone.
    pub generation: u64,
    /// For how long it has been draining.
    pub since_ms: u64,
    /// For how long it still may.
    pub left_ms: u64,
}

impl DrainingStatus {
    /// When the service is stopped, that may come first.
    fn of(draining: &Draining, stop_ns: Option<u64>) -> Self {
        let Draining { pid, generation, since_ns, deadline_ns } = *draining;
        let deadline_ns = stop_ns.map_or(deadline_ns, |stop_ns| deadline_ns.min(stop_ns));
        let ms = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) / 1_000_000;
        let now_ns = monotonic_ns();
        Self { pid, generation, since_ms: ms(since_ns, now_ns), left_ms: ms(now_ns, deadline_ns) }
    }
}

/// An upgrade or a rollback that waits to begin. It is given up when its command ends.
#[derive(Clone, Debug, Serialize)]
pub struct WaitingStatus {
    /// `upgrade` or `rollback`.
    pub what: &'static str,
    /// Those that serve their last clients, one of which must end first. If there are none, the process before the present one is
    /// about to exit.
    pub pids: Vec<i32>,
    /// For how much longer it waits.
    pub left_ms: u64,
}

/// A socket of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where it is bound, with the port that the kernel chose.
    pub address: String,
    /// How many sockets share the address.
    pub sockets: usize,
}

fn outcome<S: Serializer>(outcome: &Option<Rc<HandoffOutcome>>, serializer: S) -> Result<S::Ok, S::Error> {
    outcome.as_deref().serialize(serializer)
}

impl ServiceStatus {
    /// Of a service that does not run, and of which nothing is known.
    pub(in crate::service) fn bare(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: "stopped",
            want: "stopped",
            wanted_by: None,
            stale: Vec::new(),
            ephemeral: false,
            why: String::new(),
            cause: None,
            phase: IDLE,
            pid: None,
            generation: 0,
            uptime_ms: None,
            draining: Vec::new(),
            waits: None,
            program: String::new(),
            listeners: Vec::new(),
            linked: false,
            lost_lock: None,
            mode: mode_name(Mode::Exclusive),
            ready: None,
            says: Said::default(),
            health: None,
            watchdog: None,
            next_start_ms: None,
            restarts: 0,
            log: LogStatus::default(),
            parked_pid: None,
            probation_left_ms: None,
            last_handoff: None,
        }
    }
}

impl Service {
    /// What it is, what is wanted, and why. Never waits.
    pub fn status(&self) -> ServiceStatus {
        if let State::Adopting(adopting) = &self.state {
            return self.settings.while_adopting(adopting);
        }
        let status = self.look();
        let program = self.program.as_ref().map(|program| program.as_os_str());
        let program = program.or(self.settings.argv.first().map(OsString::as_os_str)).unwrap_or_default();
        let state = match &self.state {
            State::Adopting(_) | State::New => "starting",
            State::Starting if !status.linked && self.seems_up() => "running",
            State::Starting => "starting",
            State::Running if status.phase == PROBATION || is_settling(status.phase) => "running",
            State::Running if status.handoff_id.is_some() => "upgrading",
            State::Running => "running",
            State::Waiting(_) => "waiting",
            State::Stopping(_) => "stopping",
            State::Ended(_) if self.stopped => "stopped",
            State::Ended(ended) if self.is_well_ended(ended) => "stopped",
            State::Ended(_) => "failed",
        };
        let stop_ns = match self.state {
            State::Stopping(stop) => Some(stop.kill_ns(&self.settings.stop)),
            _ => None,
        };
        let stopped = matches!(self.state, State::Stopping(_) | State::Ended(_)) && self.late.is_none();
        ServiceStatus {
            name: self.settings.name.clone(),
            state,
            want: if stopped { "stopped" } else { "running" },
            wanted_by: None,
            stale: Vec::new(),
            ephemeral: false,
            why: self.why.clone() + self.wait_for_hello(&status),
            cause: self.cause.clone(),
            // What waits for a Hello that never comes is no start.
            phase: if state == "running" && status.phase == "starting" { IDLE } else { status.phase },
            pid: status.pid,
            generation: status.generation,
            uptime_ms: status.pid.map(|_| self.age().as_millis() as u64),
            draining: status.draining.iter().map(|draining| DrainingStatus::of(draining, stop_ns)).collect(),
            waits: self.queued.as_ref().map(|queued| WaitingStatus {
                what: queued.what,
                pids: self.crowd(),
                left_ms: queued.until_ns.saturating_sub(monotonic_ns()) / 1_000_000,
            }),
            program: program.to_string_lossy().into_owned(),
            listeners: self.listeners.clone(),
            linked: status.linked,
            lost_lock: self.lost_lock(),
            mode: match self.settings.handoff {
                true => mode_name(status.mode.unwrap_or(self.settings.mode)),
                false => "none",
            },
            ready: self.settings.readiness.as_ref().map(ReadySign::to_string),
            says: status.said.clone(),
            health: self.health_status(),
            watchdog: self.watchdog_status(),
            next_start_ms: match self.state {
                State::Waiting(until_ns) => Some(until_ns.saturating_sub(monotonic_ns()) / 1_000_000),
                _ => None,
            },
            restarts: self.restarts.total(),
            log: self.log.status(),
            parked_pid: status.parked_pid,
            probation_left_ms: status.probation_end_ns.map(|end| end.saturating_sub(monotonic_ns()) / 1_000_000),
            last_handoff: self.last.clone(),
        }
    }
}

impl Service {
    /// What a program without the library never does, so that its start is one of `hello_timeout`.
    fn wait_for_hello(&self, status: &Status) -> &'static str {
        let is_silent =
            self.settings.readiness.is_none() && !self.settings.oneshot && !status.linked && !self.seems_up();
        match matches!(self.state, State::Starting) && status.pid.is_some() && is_silent {
            true => {
                "; waits for its Hello: a program that does not link the library wants ready, and mode (docs/units.md)"
            }
            false => "",
        }
    }

    /// With status 0, and not once too often.
    fn is_well_ended(&self, ended: &Ended) -> bool {
        !self.given_up && ended.status.is_some_and(|status| status.code == Some(0))
    }

    /// What it is to others that depend on it.
    pub(in crate::service) fn stage(&self) -> graph::State {
        match &self.state {
            State::New => graph::State::Down,
            State::Adopting(_) | State::Starting | State::Waiting(_) => graph::State::Starting,
            State::Running if self.settings.oneshot => graph::State::Starting,
            State::Running if self.watch.is_healthy() => graph::State::Healthy,
            State::Running => graph::State::Started,
            State::Stopping(_) => graph::State::Stopping,
            State::Ended(_) if self.stopped => graph::State::Down,
            State::Ended(ended) if self.is_well_ended(ended) => graph::State::Completed,
            State::Ended(_) => graph::State::Failed,
        }
    }
}

pub(super) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "exclusive",
        Mode::Overlap => "overlap",
    }
}

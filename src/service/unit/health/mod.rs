//! Whether a unit is well, and what follows if it is not.
//!
//! Readiness is one thing, liveness another. The first is over when a process serves; from its first good answer on, the second is asked for as
//! long as it lives. [`machine`] says when, and what answers come to; here is who asks.

mod machine;
mod watchdog;

use std::os::fd::AsFd;
use std::time::Duration;

use super::ending::Late;
use super::event::{Event, RestartCause};
use super::restart::Policy;
use super::settings::Settings;
use super::status::{HealthStatus, WatchdogStatus};
use super::{IDLE, PROBATION, Service, State, is_settling};
use crate::limits::{CHECK_FIRST, HEALTH_LOOK, HEALTH_LOOK_FIRST, START_TIMEOUT};
use crate::service::config::{Check, Health};
use crate::service::task::Task;
use crate::supervisor::{Probe, Pulse, Status, Step, Supervisor};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use machine::{Change, Machine, Terms};
use watchdog::Watchdog;

/// Why a process is ended that is not well begins with this.
const UNHEALTHY: &str = "unhealthy: ";

/// What watches the process of a service that serves.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Watch {
    health: Option<Asked>,
    watchdog: Watchdog,
    /// The process that is watched.
    pid: Option<i32>,
}

/// The health of a unit that has one.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Asked {
    health: Health,
    machine: Machine,
    question: Option<Question>,
}

/// A question that was asked.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Question {
    by: Asking,
    /// When to look for its answer, in absolute `CLOCK_MONOTONIC` nanoseconds. That of a command is also told by its descriptor.
    look_ns: u64,
    /// Between two looks; it doubles.
    wait_ns: u64,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Asking {
    Socket(Probe),
    Exec(Box<Task>),
}

impl Watch {
    pub(super) fn new(settings: &Settings) -> Self {
        let grace_ns = nanoseconds(settings.start_timeout.unwrap_or(START_TIMEOUT));
        let health = settings.check.clone().map(|health| Asked {
            machine: Machine::new(Terms {
                first_ns: nanoseconds(CHECK_FIRST),
                interval_ns: nanoseconds(health.interval),
                retries: health.retries,
                grace_ns,
            }),
            health,
            question: None,
        });
        Self { health, watchdog: Watchdog::new(settings.watchdog), pid: None }
    }

    /// It was read from what another program of this process has left.
    pub(super) fn go_on(&self, supervisor: &Supervisor) -> crate::Result<()> {
        match self.health.as_ref().and_then(|asked| asked.question.as_ref()).map(|question| &question.by) {
            Some(Asking::Exec(task)) => {
                task.watch_again()?;
                supervisor.watch(task.as_fd())
            }
            Some(Asking::Socket(_)) | None => Ok(()),
        }
    }

    /// When to look, in absolute `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let asked = self.health.iter().filter_map(|asked| match &asked.question {
            Some(question) => Some(question.look_ns),
            None => asked.machine.due_ns(),
        });
        asked.chain(self.watchdog.look_ns()).min()
    }

    /// Whether it was asked, and is well.
    pub(super) fn is_healthy(&self) -> bool {
        self.health.as_ref().is_some_and(|asked| asked.machine.state().0 == machine::State::Healthy)
    }

    /// For how long the process was well that is there, or was last; none: nobody asks.
    pub(super) fn well_for(&self, now_ns: u64) -> Option<Duration> {
        self.health.as_ref().map(|asked| Duration::from_nanos(asked.machine.well_ns(now_ns)))
    }

    /// The process that serves now, or starts; `is_new`: that is not a successor, which its handoff has found to be well.
    fn note_process(&mut self, pid: Option<i32>, is_new: bool, now_ns: u64) {
        let before = std::mem::replace(&mut self.pid, pid);
        let Some(asked) = self.health.as_mut().filter(|_| before != pid) else { return };
        match pid {
            Some(_) if before.is_some() && !is_new => return asked.machine.succeed(),
            Some(_) => asked.machine.begin(now_ns),
            None => asked.machine.end(now_ns),
        }
        asked.question = None;
    }
}

impl Asked {
    fn turn(&mut self, settings: &Settings, supervisor: &Supervisor, pid: i32) -> Option<Change> {
        let now_ns = monotonic_ns();
        if self.question.is_none() && self.machine.ask(now_ns) {
            match Question::ask(&self.health, settings, supervisor, pid) {
                Ok(question) => self.question = Some(question),
                Err(why) => return self.machine.answer(Err(why), now_ns),
            }
        }
        let answer = self.question.as_mut()?.look(now_ns)?;
        self.question = None;
        let answer = answer.map_err(|why| format!("{}: {why}", what(&self.health)));
        self.machine.answer(answer, monotonic_ns())
    }
}

impl Question {
    fn ask(health: &Health, settings: &Settings, supervisor: &Supervisor, pid: i32) -> Result<Self, String> {
        let by = match &health.check {
            Check::Socket(socket) => Asking::Socket(Probe::new(socket.clone(), None, health.timeout)),
            Check::Exec(command) => {
                let main_pid = ("MAINPID".into(), pid.to_string().into());
                let spec = settings.process.task(&command.argv(), vec![main_pid]);
                let task = Task::start_of(&spec, health.timeout, supervisor.lineage());
                let task = task.map_err(|error| error.to_string())?;
                supervisor.watch(task.as_fd()).map_err(|error| error.to_string())?;
                Asking::Exec(Box::new(task))
            }
        };
        Ok(Self { by, look_ns: 0, wait_ns: nanoseconds(HEALTH_LOOK_FIRST) })
    }

    /// None while there is no answer.
    fn look(&mut self, now_ns: u64) -> Option<Result<(), String>> {
        match &mut self.by {
            Asking::Socket(_) if now_ns < self.look_ns => None,
            Asking::Socket(probe) => match probe.advance() {
                Step::Ready => Some(Ok(())),
                Step::Failed => Some(Err(probe.why().to_owned())),
                Step::Pending => {
                    self.look_ns = now_ns.saturating_add(self.wait_ns);
                    self.wait_ns = self.wait_ns.saturating_mul(2).min(nanoseconds(HEALTH_LOOK));
                    None
                }
            },
            Asking::Exec(task) => {
                let end = task.turn().end;
                self.look_ns = task.due_ns().unwrap_or(u64::MAX);
                end.map(|end| if end.success() { Ok(()) } else { Err(end.to_string()) })
            }
        }
    }
}

fn what(health: &Health) -> String {
    match &health.check {
        Check::Socket(socket) => socket.to_string(),
        Check::Exec(command) => {
            let program = command.argv().into_iter().next().unwrap_or_default();
            program.to_string_lossy().into_owned()
        }
    }
}

impl Service {
    /// Looks whether its process is well, and acts if it is not.
    pub(super) fn watch(&mut self) {
        let status = self.look();
        let now_ns = monotonic_ns();
        let is_up = matches!(self.state, State::Starting | State::Running) && !self.settings.oneshot;
        let pid = status.pid.filter(|_| is_up);
        self.watch.note_process(pid, matches!(self.state, State::Starting), now_ns);
        let excused = is_replaced(&status);
        let serves = matches!(self.state, State::Running) && !excused;
        let pulse: Option<Pulse> = self.supervisor.pulse().filter(|_| serves && pid.is_some());
        if let Some(why) = self.watch.watchdog.turn(pulse.as_ref(), now_ns) {
            return self.abort_process(why);
        }
        let (Some(asked), Some(pid)) = (&mut self.watch.health, pid) else { return };
        asked.machine.excuse(excused, now_ns);
        match asked.turn(&self.settings, &self.supervisor, pid) {
            Some(Change::Healthy) => {
                self.supervisor.tell_ready();
                self.again = true;
            }
            Some(Change::Unhealthy(why)) => self.condemn_process(format!("{UNHEALTHY}{why}")),
            None => {}
        }
    }

    /// It is ended, and started again as after a failure; in a probation the reserve takes over.
    fn condemn_process(&mut self, why: String) {
        if self.supervisor.in_probation() {
            if let Err(error) = self.supervisor.condemn(&why) {
                self.events.push(Event::Warning(format!("{why}; {error}")));
            }
            return;
        }
        if self.settings.restart.policy == Policy::Never {
            return self.events.push(Event::Warning(format!("{why}; it is never started again, and so left alone")));
        }
        self.events.push(Event::Warning(why.clone()));
        self.set_why(why.clone());
        self.late = Some(Late { text: why.clone(), cause: RestartCause::Health });
        self.begin_stop(&why);
    }

    /// The same, but it gets a signal first by which it leaves a core dump. It may hang, so nobody asks it.
    fn abort_process(&mut self, why: String) {
        if self.supervisor.in_probation() {
            return self.condemn_process(why);
        }
        self.events.push(Event::Warning(why.clone()));
        self.set_why(why.clone());
        self.late = Some(Late { text: why.clone(), cause: RestartCause::Watchdog });
        self.begin_abort(&why);
    }

    /// Until when its process has asked to be waited for, at its start or its end (`EXTEND_TIMEOUT_USEC=`), in `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn extended_ns(&self) -> u64 {
        self.supervisor.pulse().map_or(0, |pulse| pulse.extended_ns)
    }

    pub(super) fn health_status(&self) -> Option<HealthStatus> {
        let asked = self.watch.health.as_ref()?;
        let (state, since_ns) = asked.machine.state();
        let age_ms = |since_ns: u64| monotonic_ns().saturating_sub(since_ns) / 1_000_000;
        let failing = asked.machine.failing();
        Some(HealthStatus {
            state: match state {
                machine::State::Unknown => "unknown",
                machine::State::Healthy => "healthy",
                machine::State::Unhealthy => "unhealthy",
            },
            since_ms: (since_ns > 0).then(|| age_ms(since_ns)),
            failures: failing.map_or(0, |(failures, _)| failures),
            failing_ms: failing.map(|(_, since_ns)| age_ms(since_ns)),
            cause: asked.machine.cause().map(str::to_owned),
        })
    }

    pub(super) fn watchdog_status(&self) -> Option<WatchdogStatus> {
        let left = |due_ns: u64| Duration::from_nanos(due_ns.saturating_sub(monotonic_ns()));
        let due_ns = self.watch.watchdog.due_ns()?;
        Some(WatchdogStatus { left_ms: left(due_ns).as_millis() as u64 })
    }
}

/// A handoff is under way that is not decided yet.
fn is_replaced(status: &Status) -> bool {
    status.handoff_id.is_some() && status.phase != PROBATION && status.phase != IDLE && !is_settling(status.phase)
}

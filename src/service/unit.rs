//! One daemon: what it should be, what it is, and why.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::address::{ListenSpec, check_all};
use super::bad::BadPrograms;
use super::paths::RuntimeDir;
use super::restart::{End, Next, Restarts};
use super::settings::{Settings, Times};
use super::status::{ListenerStatus, ServiceStatus};
use super::stop::Stop;
use super::upgrade::{Pending, Queued};
use crate::error::Result;
use crate::limits::START_PROBE;
use crate::supervisor::{self, Awaited, ExitStatus, HandoffOutcome, SpawnSpec, Status, Supervisor};
use crate::sys::clock::monotonic_ns;
use crate::sys::session::end_members;

/// What happened to a service.
#[derive(Clone, Debug)]
pub enum Event {
    /// A process was started.
    Started {
        /// Its pid.
        pid: i32,
        /// Which process of the service it is.
        generation: u64,
    },
    /// A process that another supervisor has started, and that is gone, was taken over.
    Adopted {
        /// Its pid.
        pid: i32,
        /// Which process of the service it is.
        generation: u64,
    },
    /// A start or a handoff has come to this phase; with what it waits for there, for people.
    Phase(&'static str, Option<String>),
    /// A step of a handoff progresses, in the application's own unit.
    Progress {
        /// How much of it is done.
        done: u64,
        /// Of how much.
        total: u64,
    },
    /// How an `upgrade` or a `rollback` ended: whoever waits for it may go.
    Outcome(&'static str, Rc<HandoffOutcome>),
    /// It ended otherwise than the outcome of the same id said; who waits now waits for another one.
    Corrected(&'static str, Rc<HandoffOutcome>),
    /// The daemon ended, or could not be started, and will be started again.
    Restarting {
        /// What happened.
        text: String,
        /// When.
        after: Duration,
    },
    /// A program has died in its probation, or was found to be bad: for people.
    ProbationFailed {
        /// Which, and whether that is remembered.
        text: String,
    },
    /// What the daemon wrote to its standard error.
    Output(Vec<u8>),
    /// The daemon ended for good, and others that it has left are still to end: for people.
    Ending {
        /// How it ended, and who is left.
        text: String,
    },
    /// The service ended for good.
    Ended(Ended),
}

/// How a service ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The status of its last process; none if it is unknown or there was none.
    pub status: Option<ExitStatus>,
    /// Why its program could not be started (errno(3)).
    pub errno: Option<i32>,
    /// For people.
    pub text: String,
}

/// The phase in which the successor serves and the incumbent is about to exit.
const RETIRING: &str = "retiring";
/// The phase in which the incumbent is the reserve of its successor.
pub(super) const PROBATION: &str = "probation";
/// The phase in which that is over, and the incumbent about to exit.
pub(super) const CONFIRMING: &str = "confirming";
/// The phase in which the incumbent is to take over again.
const REVERTING: &str = "reverting";
/// The phase in which nothing is under way.
pub(super) const IDLE: &str = "idle";

/// Whether the handoff is decided, and the incumbent about to exit.
pub(super) fn is_settling(phase: &str) -> bool {
    [RETIRING, CONFIRMING].contains(&phase)
}

/// What a service is doing.
#[derive(Debug)]
pub(super) enum State {
    New,
    /// A cold start is under way.
    Starting,
    Running,
    /// For its next start, in `CLOCK_MONOTONIC` nanoseconds.
    Waiting(u64),
    Stopping(Stop),
    Ended(Ended),
}

/// One daemon and its supervisor.
#[derive(Debug)]
pub struct Service {
    pub(super) settings: Settings,
    pub(super) runtime: RuntimeDir,
    pub(super) supervisor: Supervisor,
    pub(super) listeners: Vec<ListenerStatus>,
    /// What is executed instead of `argv[0]`.
    pub(super) program: Option<PathBuf>,
    pub(super) state: State,
    pub(super) why: String,
    pub(super) restarts: Restarts,
    pub(super) bad: BadPrograms,
    pub(super) pending: Option<Pending>,
    /// Waits until the incumbent of the last handoff has retired, or one of those before it is gone.
    pub(super) queued: Option<Queued>,
    pub(super) last: Option<Rc<HandoffOutcome>>,
    /// When the process that serves, or starts, was started.
    pub(super) started_ns: u64,
    pub(super) served: bool,
    /// It has said Hello, so that it can say that it serves.
    said_hello: bool,
    /// The pid that [`Event::Started`] named last.
    announced: Option<i32>,
    /// How the process that ended last did.
    pub(super) last_end: Option<Ended>,
    /// A start failed (with errno(3) if the program could not be executed), and nobody serves.
    pub(super) failed: Option<(Option<i32>, String)>,
    /// The supervisor may have news that its descriptor does not tell of.
    pub(super) again: bool,
    pub(super) events: Vec<Event>,
}

impl Service {
    /// A service whose files are in `runtime`, which exists. It does not run yet, or is adopted if its daemon was left alone
    /// by another supervisor: then that daemon's listeners are used, and only those that it does not have are bound.
    ///
    /// While it has to wait for that daemon, `unwanted` is told what it waits for, and asked whether, and why, to give up: about once a
    /// second.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked): its daemon runs already, and can not be adopted.
    /// [`Error::Duplicate`](crate::Error::Duplicate): two listeners have the same name or address. Those of a bind(2).
    pub fn new(
        settings: Settings,
        runtime: RuntimeDir,
        listen: &[ListenSpec],
        unwanted: &mut dyn FnMut(&ServiceStatus) -> Option<String>,
    ) -> Result<Self> {
        check_all(listen)?;
        let name = &settings.name;
        let supervisor = Supervisor::new()?.with_name(name)?.with_journal(runtime.journal(name));
        let mut supervisor = supervisor.with_notify(runtime.notify(name));
        // Before the addresses: a daemon that lives holds them.
        let spec = spawn_spec(&settings, &runtime, None, Times::default());
        let mut unwanted = |awaited: &Awaited| unwanted(&settings.while_adopting(awaited));
        let outcome = supervisor.resume_unless(&spec, &mut unwanted)?;
        let (mut supervisor, listeners) = hold(supervisor, listen)?;
        if supervisor.status().pid.is_some() {
            supervisor.record();
        }
        let mut service = Self {
            restarts: Restarts::new(settings.restart),
            bad: BadPrograms::new(runtime.bad(&settings.name)),
            settings,
            runtime,
            supervisor,
            listeners,
            program: None,
            state: State::New,
            why: "started by an operator".to_owned(),
            pending: None,
            queued: None,
            last: None,
            started_ns: 0,
            served: false,
            said_hello: false,
            announced: None,
            last_end: None,
            failed: None,
            again: true,
            events: Vec::new(),
        };
        service.take_over(outcome);
        Ok(service)
    }

    /// A daemon that was adopted runs as one that was started.
    fn take_over(&mut self, outcome: Option<HandoffOutcome>) {
        let status = self.look();
        self.program = self.supervisor.program().map(Path::to_owned); // also of a daemon that has just ended
        let Some(pid) = status.pid else { return };
        self.state = State::Running;
        self.why = "adopted from a supervisor that is gone".to_owned();
        (self.started_ns, self.served, self.said_hello) = (monotonic_ns(), true, status.linked);
        self.announced = Some(pid);
        self.events.push(Event::Adopted { pid, generation: status.generation });
        self.expect(outcome.as_ref().map(|outcome| outcome.id).or(status.handoff_id));
        if let Some(outcome) = outcome {
            self.on_outcome(outcome);
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What would be executed.
    pub(super) fn spec(&self, binary: Option<&PathBuf>, times: Times) -> SpawnSpec {
        spawn_spec(&self.settings, &self.runtime, binary.or(self.program.as_ref()), times)
    }

    /// Starts the daemon, unless it was adopted. What comes of it are events.
    pub fn start(&mut self) {
        if matches!(self.state, State::Running) {
            return;
        }
        let spec = self.spec(None, Times::default());
        let spec = match self.supervisor.pinned() {
            Some(executable) => spec.executable(executable),
            None => spec,
        };
        if let Err(error) = self.start_cold(&spec) {
            self.on_end(None, None, error.to_string());
        }
    }

    pub(super) fn start_cold(&mut self, spec: &SpawnSpec) -> Result<()> {
        self.again = true;
        let _ = self.runtime.create(); // somebody may have wiped it; what can not be written there says why
        self.supervisor.start(spec)?;
        self.enter_starting();
        Ok(())
    }

    pub(super) fn enter_starting(&mut self) {
        self.state = State::Starting;
        self.started_ns = monotonic_ns();
        self.served = false;
        self.said_hello = false;
    }

    /// Passes a signal on to the daemon if it handles it; says whether it did. One whose default is death must not
    /// kill a daemon that never asked for it.
    pub fn forward(&self, signal: Signal) -> bool {
        let pid = self.supervisor.status().pid;
        pid.is_some_and(|pid| catches(pid, signal)) && self.supervisor.signal(signal as i32).is_ok()
    }

    /// Deals with what happened, without waiting.
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System): the supervisor can not poll.
    pub fn turn(&mut self) -> Result<Vec<Event>> {
        self.again = false;
        self.listen()?;
        match self.state {
            State::Waiting(until) if monotonic_ns() >= until => self.start(),
            State::Stopping(_) => self.advance_stop(),
            _ => self.begin_queued(),
        }
        self.announce();
        Ok(std::mem::take(&mut self.events))
    }

    /// Takes what the supervisor has to say.
    pub(super) fn listen(&mut self) -> Result<()> {
        for event in self.supervisor.turn(Some(Duration::ZERO))? {
            self.on_event(event);
        }
        if let Some((errno, text)) = self.failed.take().filter(|_| self.supervisor.status().pid.is_none()) {
            self.on_end(None, errno, text);
        }
        self.announce();
        Ok(())
    }

    /// In what time [`Self::turn`] must be called at the latest; none: when the descriptor is readable.
    pub fn due_in(&self) -> Option<Duration> {
        let own = match &self.state {
            _ if self.again || !self.events.is_empty() => Some(0),
            State::Waiting(until) => Some(*until),
            State::Stopping(stop) => Some(stop.until_ns()),
            _ => self.queued.as_ref().map(|queued| queued.until_ns),
        };
        let due = own.into_iter().chain(self.supervisor.next_due()).min()?;
        Some(Duration::from_nanos(due.saturating_sub(monotonic_ns())))
    }

    /// What the supervisor does. After the commit it names the successor as the process that serves, although the incumbent
    /// is still there; that it serves is known by the commit.
    pub(super) fn look(&self) -> Status {
        let mut status = self.supervisor.status();
        if status.phase == RETIRING && status.successor_pid.is_some() {
            (status.linked, status.serving) = (true, true);
        }
        status
    }

    /// A process that is new is reported once; one that is to take over again, only when it has.
    fn announce(&mut self) {
        let status = self.look();
        if status.phase == REVERTING {
            return;
        }
        self.said_hello |= status.linked;
        if status.pid != self.announced {
            self.announced = status.pid;
            if let Some(pid) = status.pid {
                self.events.push(Event::Started { pid, generation: status.generation });
            }
        }
    }

    fn on_event(&mut self, event: supervisor::Event) {
        match event {
            supervisor::Event::Phase(phase) => {
                let waits = self.reserve_must_end(phase);
                self.events.push(Event::Phase(phase, waits));
            }
            supervisor::Event::Progress { done, total } => self.events.push(Event::Progress { done, total }),
            supervisor::Event::Stderr { bytes, .. } => self.events.push(Event::Output(bytes)),
            supervisor::Event::Outcome(outcome) => self.on_outcome(outcome),
            supervisor::Event::ProbationFailed { program, text } => self.on_probation_failed(program, &text),
            supervisor::Event::Exited { pid, status, text, .. } => {
                // Its helpers would serve beside the next one.
                end_members(pid);
                self.on_exit(status, text);
            }
        }
    }

    /// A process died, and nobody serves, unless another was started at once.
    fn on_exit(&mut self, status: Option<ExitStatus>, text: String) {
        self.failed = None;
        self.last_end = status.map(|own| Ended { status, errno: None, text: own.to_string() });
        if self.supervisor.status().pid.is_none() {
            self.on_end(status, None, text);
        }
    }

    /// Nobody serves any more, or could not be started.
    fn on_end(&mut self, status: Option<ExitStatus>, errno: Option<i32>, text: String) {
        let end = End {
            success: status.is_some_and(|status| status.code == Some(0)),
            signalled: status.is_some_and(|status| status.signal.is_some()),
            up: self.served || self.seems_up(),
            age: self.age(),
        };
        let first_exec_failed = errno.is_some() && self.restarts.total() == 0 && !self.served;
        // Its last output is known: it was an event.
        let short = status.map_or_else(|| text.clone(), |status| status.to_string());
        match self.state {
            State::Stopping(_) => return self.advance_stop(),
            State::Ended(_) => return,
            _ => self.why = text,
        }
        if first_exec_failed {
            return self.finish(Ended { status, errno, text: short });
        }
        let chance = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        match self.restarts.on_end(end, Duration::from_nanos(monotonic_ns()), chance) {
            Next::Again(after) => {
                self.state = State::Waiting(monotonic_ns() + after.as_nanos() as u64);
                self.why = format!("its last process ended: {}", self.why);
                self.events.push(Event::Restarting { text: short, after });
            }
            Next::Ended => self.finish(Ended { status, errno, text: short }),
            Next::GivenUp => {
                self.why = format!("it failed too often to be started again; the last time: {}", self.why);
                let text = format!("{short}; it failed too often to be started again");
                self.finish(Ended { status, errno, text });
            }
        }
    }

    /// A daemon that never says Hello, and has no other sign, is taken to be up a while after its exec.
    pub(super) fn seems_up(&self) -> bool {
        self.settings.readiness.is_none() && !self.said_hello && self.age() >= START_PROBE
    }

    /// For good.
    pub(super) fn end(&mut self, ended: Ended) {
        self.state = State::Ended(ended.clone());
        self.events.push(Event::Ended(ended));
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_nanos(monotonic_ns().saturating_sub(self.started_ns))
    }

    /// How it ended for good, if it did.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    pub(super) fn set_why(&mut self, why: String) {
        self.why = why;
    }
}

fn spawn_spec(settings: &Settings, runtime: &RuntimeDir, binary: Option<&PathBuf>, times: Times) -> SpawnSpec {
    let mut spec =
        SpawnSpec::new(&settings.argv).control_path(runtime.control(&settings.name)).capture_stderr(runtime.path());
    spec = spec.mode(settings.mode).stop_signal(settings.stop_signal);
    if let Some(readiness) = &settings.readiness {
        spec = spec.readiness(readiness.clone());
    }
    if let Some(health) = &settings.health {
        spec = spec.health(health.clone());
    }
    if let Some(binary) = binary {
        spec = spec.binary(binary);
    }
    if let Some(dir) = &settings.data_dir {
        spec = spec.data_dir(dir);
    }
    times.or(settings.times).apply(spec)
}

/// The listeners that are wanted: those of the daemon that was adopted, and new ones.
fn hold(mut supervisor: Supervisor, listen: &[ListenSpec]) -> Result<(Supervisor, Vec<ListenerStatus>)> {
    let mut named = Vec::new();
    let serves = supervisor.status().pid.is_some();
    for spec in listen {
        let held = supervisor.listeners().filter(|(name, _)| *name == spec.name).map(|(_, fd)| fd).collect::<Vec<_>>();
        let mut held = spec.check_all_held(&held);
        if held.is_err() && !serves {
            // Those that leave may keep it.
            supervisor.remove_listener(&spec.name);
            held = Ok(None);
        }
        let address = match held? {
            Some(address) => address,
            None => {
                let bound = spec.bind_all()?;
                let address = bound.first().map_or_else(String::new, |listener| listener.address.clone());
                let fds = bound.into_iter().map(|listener| listener.fd).collect();
                supervisor = supervisor.with_listener_group(&spec.name, fds)?;
                address
            }
        };
        named.push(ListenerStatus { name: spec.name.clone(), address, sockets: spec.sockets });
    }
    let unwanted = |(name, _): (&str, _)| (!listen.iter().any(|spec| spec.name == name)).then(|| name.to_owned());
    let unwanted: Vec<String> = supervisor.listeners().filter_map(unwanted).collect();
    unwanted.iter().for_each(|name| supervisor.remove_listener(name));
    Ok((supervisor, named))
}

/// Whether a process has a handler for a signal (`SigCgt`, proc_pid_status(5)).
fn catches(pid: i32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (signal as u32 - 1)) != 0
}

impl AsFd for Service {
    /// Readable when [`Service::turn`] has work.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.supervisor.as_fd()
    }
}

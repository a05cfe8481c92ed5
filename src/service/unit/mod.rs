//! One daemon: what it should be, what it is, and why.

mod adopting;
pub(in crate::service) mod ending;
pub(in crate::service) mod event;
mod files;
pub(in crate::service) mod health;
mod hooks;
mod launch;
pub(in crate::service) mod listening;
mod output;
pub(in crate::service) mod past;
pub(in crate::service) mod preview;
pub mod restart;
pub(in crate::service) mod rollback;
pub(in crate::service) mod settings;
pub(in crate::service) mod status;
pub(in crate::service) mod stop;
pub(in crate::service) mod upgrade;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::address::{ListenSpec, check_all};
use super::bad::BadPrograms;
use super::log::{Log, Source};
use super::paths::RuntimeDir;
use crate::error::Result;
use crate::supervisor::{self, HandoffOutcome, Mode, OutputWatch, Status, Supervisor};
use crate::sys::clock::monotonic_ns;
use crate::sys::listing::Listing;
use crate::sys::proc::catches;
use adopting::Adopting;
use ending::Late;
use event::{Ended, Event, RestartCause};
use health::Watch;
use hooks::Hooks;
use launch::{resume_times, spawn_spec};
use past::Past;
use restart::Restarts;
use settings::Settings;
use status::ListenerStatus;
use stop::Stop;
use upgrade::{Pending, Queued};

/// Why a daemon runs that this supervisor has not started.
const ADOPTED: &str = "adopted from a supervisor that is gone";
/// The phase in which the successor serves and the incumbent is about to exit.
const RETIRING: &str = "retiring";
/// The phase in which the incumbent is the reserve of its successor.
const PROBATION: &str = "probation";
/// The phase in which that is over, and the incumbent about to exit.
const CONFIRMING: &str = "confirming";
/// The phase in which the incumbent is to take over again.
const REVERTING: &str = "reverting";
/// The phase in which nothing is under way.
pub(super) const IDLE: &str = "idle";

/// Whether the handoff is decided, and the incumbent about to exit.
fn is_settling(phase: &str) -> bool {
    [RETIRING, CONFIRMING].contains(&phase)
}

/// What a service is doing.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum State {
    /// The daemon of another supervisor is waited for.
    #[serde(skip)]
    Adopting(Adopting),
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
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Service {
    settings: Settings,
    runtime: RuntimeDir,
    supervisor: Supervisor,
    /// What it should listen at.
    listen: Vec<ListenSpec>,
    /// What it listens at.
    listeners: Vec<ListenerStatus>,
    /// What is executed instead of `argv[0]`.
    program: Option<PathBuf>,
    /// The configured command has changed since, and counts: not the file that was gone back to.
    #[serde(default)]
    command_is_new: bool,
    state: State,
    why: String,
    /// Why it failed first, since an operator has started it, or it was well.
    cause: Option<String>,
    /// What was found and done when it came from another supervisor: it belongs to the reason of its next start.
    meanwhile: Option<String>,
    /// It was told to stop, and is not to be started again.
    stopped: bool,
    /// Why it is stopped, to be started again.
    late: Option<Late>,
    /// Whether it is well.
    watch: Watch,
    restarts: Restarts,
    /// They were too many.
    #[serde(default)]
    given_up: bool,
    bad: BadPrograms,
    log: Log,
    pending: Option<Pending>,
    /// Waits until the incumbent of the last handoff has retired, or one of those before it is gone.
    queued: Option<Queued>,
    #[serde(with = "crate::supervisor::carried_outcome")]
    last: Option<Rc<HandoffOutcome>>,
    /// When the process that serves, or starts, was started.
    started_ns: u64,
    /// The same of the process that was replaced last, and the id of that handoff.
    #[serde(default)]
    before: Option<(u64, u64)>,
    served: bool,
    /// It was adopted before it was ready.
    #[serde(default)]
    unready: bool,
    /// It has said Hello, so that it can say that it serves.
    said_hello: bool,
    /// The pid that [`Event::Started`] named last.
    announced: Option<i32>,
    hooks: Hooks,
    /// How the process that ended last did.
    last_end: Option<Ended>,
    /// A start failed (with errno(3) if the program could not be executed), and nobody serves.
    failed: Option<(Option<i32>, String)>,
    /// The supervisor may have news that its descriptor does not tell of.
    again: bool,
    /// It was said that what is left can not be looked for.
    #[serde(default)]
    is_blind: bool,
    /// It has ended, and what it left has not: when to look again, in `CLOCK_MONOTONIC` nanoseconds.
    #[serde(default)]
    relook_ns: Option<u64>,
    #[serde(skip)]
    events: Vec<Event>,
}

impl Service {
    /// A service whose files are in `runtime`, which exists. It does not run yet, or its daemon was left alone by another supervisor:
    /// the first [`Self::turn`] takes that over, with its listeners, and binds those that it does not have. Its output is watched by `watch`: the caller drains that when it is readable, and looks
    /// at [`Self::due_ns`] again. `past`: what it was then; none: it is to start, whatever that was.
    /// `listing`: what is in `runtime`, if the caller has looked.
    ///
    /// # Errors
    /// [`Error::Locked`](crate::Error::Locked): its daemon runs already, and can not be adopted.
    /// [`Error::Duplicate`](crate::Error::Duplicate): two listeners have the same name or address.
    pub(super) fn new(
        settings: Settings,
        runtime: RuntimeDir,
        listen: &[ListenSpec],
        watch: &OutputWatch,
        past: Option<Past>,
        listing: Option<&Arc<Listing>>,
    ) -> Result<Self> {
        check_all(listen)?;
        let name = &settings.name;
        let supervisor = Supervisor::new()?.with_name(name)?.with_journal(runtime.journal(name));
        let mut supervisor =
            supervisor.with_notify(runtime.notify(name)).with_output_watch(watch).with_listing(listing);
        // Before the addresses: a daemon that lives holds them.
        let number = past.as_ref().map_or(0, |past| past.generation);
        supervisor.begin_resume(&spawn_spec(&settings, &runtime, None, resume_times(&settings)), number)?;
        Ok(Self {
            watch: Watch::new(&settings),
            restarts: Restarts::new(settings.restart),
            given_up: false,
            bad: BadPrograms::new(runtime.bad(&settings.name)),
            log: Log::new(&settings.name, &settings.log),
            settings,
            runtime,
            supervisor,
            listen: listen.to_vec(),
            listeners: Vec::new(),
            program: None,
            command_is_new: false,
            state: State::Adopting(Adopting::begin(past)),
            why: "started by an operator".to_owned(),
            cause: None,
            meanwhile: None,
            stopped: false,
            late: None,
            pending: None,
            queued: None,
            last: None,
            started_ns: 0,
            before: None,
            served: false,
            unready: false,
            said_hello: false,
            announced: None,
            hooks: Hooks::default(),
            last_end: None,
            failed: None,
            again: true,
            is_blind: false,
            relook_ns: None,
            events: Vec::new(),
        })
    }

    /// A daemon that was adopted runs as one that was started.
    fn take_over(&mut self, outcome: Option<HandoffOutcome>) {
        let status = self.look();
        self.program = self.supervisor.program().map(Path::to_owned); // also of a daemon that has just ended
        let Some(pid) = status.pid else { return };
        let is_up = !self.supervisor.awaits_sign();
        self.state = if is_up { State::Running } else { State::Starting };
        self.why = ADOPTED.to_owned() + if is_up { "" } else { ", and was not ready then" };
        (self.started_ns, self.served, self.said_hello) = (monotonic_ns(), is_up, status.linked);
        self.unready = !is_up;
        self.announced = Some(pid);
        self.events.push(Event::Adopted { pid, generation: status.generation });
        self.expect(outcome.as_ref().map(|outcome| outcome.id).or(status.handoff_id));
        if let Some(outcome) = outcome {
            self.on_outcome(outcome);
        }
    }

    /// A daemon that was not ready when it was adopted is, by now: no outcome tells of that.
    fn go_up_adopted(&mut self) {
        if !self.unready || !matches!(self.state, State::Starting) || self.supervisor.awaits_sign() {
            return;
        }
        let Some(pid) = self.supervisor.pid() else { return };
        self.unready = false;
        (self.state, self.served) = (State::Running, true);
        self.why = ADOPTED.to_owned();
        self.events.push(Event::Ready { pid });
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts the daemon, unless it runs, or is about to. What comes of it are events. One that has ended starts as if nothing had happened before.
    pub fn start(&mut self, why: &str) {
        match self.state {
            State::New => {}
            State::Waiting(_) | State::Ended(_) => {
                self.restarts.forgive();
                self.supervisor.reopen();
                (self.cause, self.stopped) = (None, false);
            }
            State::Adopting(_) | State::Starting | State::Running | State::Stopping(_) => return,
        }
        let more = self.meanwhile.take().map(|meanwhile| format!("; {meanwhile}"));
        self.set_why(why.to_owned() + &more.unwrap_or_default());
        match self.supervisor.pid() {
            Some(pid) => {
                self.on_end(None, None, RestartCause::Start, format!("process {pid} is still there after SIGKILL"))
            }
            None => self.launch_when_clear(),
        }
    }

    /// Whether [`Self::upgrade`] could replace its process now, as far as is known.
    pub fn can_hand_over(&self) -> bool {
        let status = self.look();
        let beside = self.settings.mode == Mode::Overlap && self.settings.readiness.is_some();
        self.settings.handoff
            && self.lost_lock().is_none()
            && matches!(self.state, State::Running)
            && (status.linked || beside)
    }

    /// An operator starts it, or its configuration has changed: one that has failed is as one that has never run.
    pub(super) fn forgive(&mut self) {
        if matches!(self.state, State::Ended(_)) {
            self.stopped = true;
        }
    }

    /// How it is run from the next process on, and where it listens.
    ///
    /// # Errors
    /// Those of a bind(2). It may be called again.
    pub(super) fn reconfigure(&mut self, settings: Settings, listen: &[ListenSpec]) -> Result<()> {
        self.listen_to(listen)?;
        if settings.argv != self.settings.argv {
            (self.program, self.command_is_new) = (None, true);
        }
        self.restarts.set_rules(settings.restart);
        if settings.log != self.settings.log {
            self.log.resize(&settings.name, &settings.log);
        }
        if (&settings.check, settings.watchdog) != (&self.settings.check, self.settings.watchdog) {
            self.watch = Watch::new(&settings);
        }
        self.settings = settings;
        Ok(())
    }

    /// As it was configured before an upgrade that came to nothing.
    ///
    /// # Errors
    /// As [`Self::reconfigure`].
    pub(super) fn configure_back(&mut self, settings: Settings, listen: &[ListenSpec]) -> Result<()> {
        let is_undone = settings.argv != self.settings.argv && self.supervisor.pid().is_some();
        self.reconfigure(settings, listen)?;
        if is_undone {
            self.keep_program(); // the process is that of before
        }
        Ok(())
    }

    /// What the process was started from is what is started after a crash.
    fn keep_program(&mut self) {
        self.program = self.supervisor.program().map(Path::to_owned);
        self.command_is_new = false;
    }

    /// Sends a signal to the process that serves, or starts; its pid, if there is one.
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System): not permitted.
    pub fn signal(&self, signal: Signal) -> Result<Option<i32>> {
        match self.look().pid {
            Some(pid) => self.supervisor.signal(signal as i32).map(|()| Some(pid)),
            None => Ok(None),
        }
    }

    /// Passes a signal on to the daemon if it handles it; says whether it did. One whose default is death must not
    /// kill a daemon that never asked for it.
    pub fn forward(&self, signal: Signal) -> bool {
        let pid = self.supervisor.pid();
        pid.is_some_and(|pid| catches(pid, signal)) && self.supervisor.signal(signal as i32).is_ok()
    }

    /// Deals with what happened, without waiting.
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System): the supervisor can not poll. Those of a bind(2). The service is of no use then.
    pub fn turn(&mut self) -> Result<Vec<Event>> {
        self.again = false;
        if matches!(self.state, State::Adopting(_)) {
            self.adopt()?;
            return Ok(std::mem::take(&mut self.events));
        }
        // Who was in time by then has been heard, also if we are stopped in the midst of this.
        let now_ns = monotonic_ns();
        let has_waited = matches!(self.state, State::Waiting(_)); // or it may have to give way first
        self.listen()?;
        self.turn_hooks();
        self.check_late(now_ns);
        self.watch();
        match self.state {
            State::Waiting(until) if has_waited && monotonic_ns() >= until => self.launch_when_clear(),
            State::Stopping(_) => self.advance_stop(),
            State::Ended(_) => self.look_again(now_ns),
            _ => self.begin_queued(),
        }
        self.announce();
        Ok(std::mem::take(&mut self.events))
    }

    /// Takes what the supervisor has to say.
    fn listen(&mut self) -> Result<()> {
        for event in self.supervisor.turn(Some(Duration::ZERO))? {
            self.on_event(event);
        }
        self.go_up_adopted();
        self.supervisor.note_output_taken();
        if let Some((errno, text)) = self.failed.take().filter(|_| self.supervisor.pid().is_none()) {
            self.on_end(None, errno, RestartCause::Start, text);
        }
        self.announce();
        Ok(())
    }

    /// When [`Self::turn`] must be called at the latest, in absolute `CLOCK_MONOTONIC` nanoseconds; none: when the descriptor is readable.
    pub fn due_ns(&self) -> Option<u64> {
        let own = match &self.state {
            _ if self.again || !self.events.is_empty() => Some(0),
            State::Waiting(_) if self.hooks.running().is_some() => None,
            State::Waiting(until) => Some(*until),
            State::Stopping(stop) => Some(self.stop_due_ns(*stop)),
            State::Adopting(adopting) => Some(adopting.due_ns),
            State::Ended(_) => self.relook_ns,
            _ => self.queued.as_ref().map(|queued| queued.until_ns),
        };
        let due = own.into_iter().chain(self.late_ns()).chain(self.seems_up_ns()).chain(self.hooks.due_ns());
        due.chain(self.watch.due_ns()).chain(self.supervisor.next_due()).min()
    }

    /// What the supervisor does. After the commit it names the successor as the process that serves, although the incumbent
    /// is still there; that it serves is known by the commit.
    fn look(&self) -> Status {
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
            supervisor::Event::Output { key, pid, generation, stream, bytes, dropped, last } => {
                let source = Source { pid, generation, origin: stream.into() };
                self.take_output(key, source, bytes, dropped, last);
            }
            supervisor::Event::Outcome(outcome) => self.on_outcome(outcome),
            supervisor::Event::ProbationFailed { program, text } => self.on_probation_failed(program, &text),
            supervisor::Event::Exited { pid, generation, status, text } => {
                // Whoever dies at once was there, too.
                if self.announced != Some(pid) {
                    self.events.push(Event::Started { pid, generation });
                }
                self.announced = None;
                self.begin_post_stop(pid, status);
                self.on_exit(status, text);
            }
        }
    }

    fn age(&self) -> Duration {
        Duration::from_nanos(monotonic_ns().saturating_sub(self.started_ns))
    }

    /// How it ended for good, if it did.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// Why it can not go on in another program of this process now, and whether that passes soon.
    pub(super) fn transaction(&self) -> Option<(&'static str, bool)> {
        self.supervisor.transaction()
    }

    /// Whether there is something that was not told yet.
    pub(super) fn has_news(&self) -> bool {
        !self.events.is_empty() || self.supervisor.has_events()
    }

    /// It was read from what another program of this process has left.
    pub(super) fn watch_again(&mut self, watch: &OutputWatch) -> Result<()> {
        self.again = true;
        self.supervisor.watch_again(watch)?;
        self.watch.go_on(&self.supervisor)?;
        self.watch_hook_again()
    }

    fn set_why(&mut self, why: String) {
        self.why = why;
    }
}

impl AsFd for Service {
    /// Readable when [`Service::turn`] has work.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.supervisor.as_fd()
    }
}

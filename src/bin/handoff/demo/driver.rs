//! The demo itself: supervisor, load and replacements in one loop.

use super::DemoArgs;
use super::daemon::{self, Fault};
use super::load::{self, Load, LoadOptions, Snapshot};
use super::step::Step;
use super::view::View;
use handoff::limits::LISTEN_BACKLOG;
use handoff::supervisor::Event;
use handoff::sys::listener::bind_tcp;
use handoff::sys::pidfd::Pidfd;
use handoff::sys::signals::Signals;
use handoff::{HandoffOutcome, SpawnSpec, Supervisor, Verdict};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Load before, between and after the replacements.
const GAP: Duration = Duration::from_millis(250);
/// After an outcome, requests that waited for it are still on their way.
const SETTLE: Duration = Duration::from_millis(50);
/// And this much later they do not count as "without a handoff" either, however many clients there are.
const AFTERMATH: Duration = Duration::from_millis(100);
/// Between two looks at the load.
const TICK: Duration = Duration::from_millis(50);
/// Between two requests of one client: a machine that is busy to its limit would show its own stalls.
const THINK: Duration = Duration::from_millis(1);
/// For a disk that is busy with something else.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// For the build that hangs: its clients wait for so long.
const HANG_TIMEOUT: Duration = Duration::from_secs(1);
const DRAIN_GRACE: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(20);
const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no result.
#[derive(Debug)]
pub enum Trouble {
    Signal(u8),
    Failed(String),
}

type Result<T> = std::result::Result<T, Trouble>;

/// For `map_err`: what was tried.
fn failed<E: Display>(what: impl Display) -> impl FnOnce(E) -> Trouble {
    move |error| Trouble::Failed(format!("{what}: {error}"))
}

/// What happened.
#[derive(Debug)]
pub struct Performance {
    pub steps: Vec<Step>,
    /// A connection for each request; connections that are kept.
    pub loads: [load::Report; 2],
    /// Acknowledged writes that the last daemon does not have, in words.
    pub lost: Vec<String>,
    pub elapsed: Duration,
}

/// Everything, from the first daemon to the end of the last.
pub fn perform(args: &DemoArgs, view: &mut View) -> Result<Performance> {
    // Before any thread: they inherit the mask.
    let signals = Signals::take(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]);
    let signals = signals.map_err(failed("cannot take signals"))?;
    let began = Instant::now();
    let limit = began + Duration::from_secs(20) + args.replacements * Duration::from_millis(2500);
    let mut stage = Stage::build(signals, limit, view)?;
    stage.start_cold()?;
    stage.loads = Some(Loads::start(stage.address, args.clients));
    stage.rest(GAP)?;
    let mut steps = Vec::new();
    for number in 1..=args.replacements {
        let step = stage.replace(number, fault_of(number, args.replacements))?;
        stage.view.step(&step);
        steps.push(step);
        stage.rest(GAP)?;
    }
    let loads = stage.stop_load();
    let lost = stage.verify(&loads)?;
    stage.stop_daemon()?;
    Ok(Performance { steps, loads, lost, elapsed: began.elapsed() })
}

/// The bad builds, in the middle of the good ones.
fn fault_of(number: u32, of: u32) -> Option<Fault> {
    let places = [of / 4, of / 2, of * 3 / 4].map(|place| place + 1);
    let faults = [Fault::Crash, Fault::Hang, Fault::LostWrite];
    places.iter().zip(faults).find(|(place, _)| **place == number).map(|(_, fault)| fault)
}

/// The two loads.
struct Loads([Load; 2]);

impl Loads {
    fn start(address: SocketAddr, clients: u32) -> Self {
        let clients = clients as usize;
        let options = |name: &str, clients, keep_alive| LoadOptions {
            clients,
            keep_alive,
            think: THINK,
            name: name.into(),
            ..LoadOptions::new(address)
        };
        Self([
            Load::start(options("once", clients / 2, false)),
            Load::start(options("kept", clients - clients / 2, true)),
        ])
    }

    fn now(&self) -> [u64; 2] {
        self.0.each_ref().map(Load::now_ns)
    }

    fn open_window(&self) -> [u64; 2] {
        self.0.each_ref().map(Load::open_window)
    }

    fn close_window(&self) -> [u64; 2] {
        self.0.each_ref().map(Load::close_window)
    }

    fn slowest_in_window_ns(&self) -> u64 {
        self.0.iter().map(Load::slowest_in_window_ns).max().unwrap_or(0)
    }

    fn snapshot(&self) -> Snapshot {
        let [once, kept] = self.0.each_ref().map(Load::snapshot);
        Snapshot {
            requests: once.requests + kept.requests,
            failed_requests: once.failed_requests + kept.failed_requests,
            // Whoever has a connection for each request closes it anyway.
            closed_connections: kept.closed_connections,
            acknowledged: once.acknowledged + kept.acknowledged,
            slowest_ns: once.slowest_ns.max(kept.slowest_ns),
        }
    }
}

/// Supervisor, daemons and files. Dropped, nothing of it is left.
struct Stage<'a> {
    supervisor: Option<Supervisor>,
    /// Every daemon that may live.
    daemons: Vec<Pidfd>,
    signals: Signals,
    address: SocketAddr,
    program: PathBuf,
    loads: Option<Loads>,
    /// When nothing was under way any more.
    quiet_since: [u64; 2],
    next_tick: Instant,
    limit: Instant,
    view: &'a mut View,
    /// Goes last.
    dir: TempDir,
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        drop(self.supervisor.take()); // revokes and kills a successor that has not committed
        for daemon in &self.daemons {
            let _ = daemon.kill(Signal::SIGKILL);
        }
        for daemon in &self.daemons {
            let mut ended = [PollFd::new(daemon.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ended, PollTimeout::from(2000_u16));
            let _ = daemon.wait(); // reaped by the supervisor is as good
        }
    }
}

impl<'a> Stage<'a> {
    fn build(signals: Signals, limit: Instant, view: &'a mut View) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("handoff-demo-").tempdir().map_err(failed("cannot make a directory"))?;
        std::fs::create_dir(dir.path().join("data")).map_err(failed("cannot make a directory"))?;
        // Clients that connect in a pause wait in the backlog.
        let listener = bind_tcp(([127, 0, 0, 1], 0).into(), LISTEN_BACKLOG, false, false);
        let listener = TcpListener::from(listener.map_err(failed("cannot bind a port of 127.0.0.1"))?);
        let address = listener.local_addr().map_err(failed("cannot set up the listener"))?;
        let supervisor = Supervisor::new()
            .and_then(|supervisor| supervisor.with_name("demo"))
            .map(|supervisor| supervisor.with_journal(dir.path().join("journal")))
            .and_then(|supervisor| supervisor.with_listener(daemon::LISTENER, listener))
            .map_err(failed("cannot set up the supervisor"))?;
        Ok(Self {
            supervisor: Some(supervisor),
            daemons: Vec::new(),
            signals,
            address,
            program: std::env::current_exe().map_err(failed("cannot find the own program"))?,
            loads: None,
            quiet_since: [0; 2],
            next_tick: Instant::now(),
            limit,
            view,
            dir,
        })
    }

    fn spec(&self, fault: Option<Fault>) -> SpawnSpec {
        let dir = self.dir.path();
        let parent = format!("--parent={}", std::process::id());
        let data = dir.join("data");
        let argv = [self.program.as_os_str(), "demo-daemon".as_ref(), data.as_os_str(), parent.as_ref()];
        let spec = SpawnSpec::new(argv)
            .control_path(dir.join("control"))
            .capture_stderr(dir)
            .deadline(DEADLINE)
            .drain_grace(DRAIN_GRACE)
            .ready_timeout(if fault == Some(Fault::Hang) { HANG_TIMEOUT } else { READY_TIMEOUT });
        fault.iter().fold(spec, |spec, fault| spec.env(daemon::FAULT, fault.name()))
    }

    fn supervisor(&mut self) -> Result<&mut Supervisor> {
        self.supervisor.as_mut().ok_or_else(|| Trouble::Failed("there is no supervisor any more".into()))
    }

    fn start_cold(&mut self) -> Result<()> {
        let outcome = self.start(None)?;
        match outcome.verdict {
            Verdict::StartedCold => Ok(()),
            _ => Err(Trouble::Failed(format!("the store did not start: {}", outcome.reason))),
        }
    }

    fn replace(&mut self, number: u32, fault: Option<Fault>) -> Result<Step> {
        self.view.begin(number, fault);
        let begin = self.loads.as_ref().map_or([0; 2], Loads::open_window);
        let outcome = self.start(fault)?;
        let end = self.loads.as_ref().map_or([0; 2], Loads::close_window);
        self.view.outcome(&outcome);
        if matches!(outcome.verdict, Verdict::Failed | Verdict::Undecided) {
            return Err(Trouble::Failed(format!("replacement {number} left nobody that serves: {}", outcome.reason)));
        }
        self.rest(SETTLE)?;
        let before = std::array::from_fn(|load| (self.quiet_since[load], begin[load]));
        let during = std::array::from_fn(|load| (begin[load], end[load]));
        self.quiet_since = self.now().map(|now| now + AFTERMATH.as_nanos() as u64);
        let slowest_ns = self.loads.as_ref().map_or(0, Loads::slowest_in_window_ns);
        Ok(Step { number, fault, outcome, during, before, slowest_ns })
    }

    /// Starts a daemon, and waits for the outcome.
    fn start(&mut self, fault: Option<Fault>) -> Result<HandoffOutcome> {
        let spec = self.spec(fault);
        let until = Instant::now() + START_PATIENCE;
        // The one before the last may still be on its way out.
        while self.supervisor()?.status().serving && !self.supervisor()?.supports_handoff() {
            self.quiet_turn(until)?;
        }
        self.supervisor()?.start(&spec).map_err(failed("cannot start the store"))?;
        loop {
            for event in self.turn(until)? {
                match event {
                    Event::Phase(phase) => self.view.phase(phase),
                    Event::Outcome(outcome) => return self.keep(outcome),
                    Event::Exited { text, .. } => return Err(Trouble::Failed(format!("the store died: {text}"))),
                    _ => {}
                }
            }
            if Instant::now() >= until {
                return Err(Trouble::Failed("a replacement has no outcome".into()));
            }
        }
    }

    /// Remembers the daemon of an outcome, so that it can not be left behind.
    fn keep(&mut self, mut outcome: HandoffOutcome) -> Result<HandoffOutcome> {
        self.daemons.retain(|daemon| !daemon.is_dead());
        if let Some(pidfd) = outcome.pidfd.take() {
            self.daemons.push(Pidfd::from_fd(pidfd).map_err(failed("the outcome's pidfd"))?);
        }
        Ok(outcome)
    }

    /// Lets the load run.
    fn rest(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.quiet_turn(until)?;
        }
        Ok(())
    }

    /// A turn in which no daemon may die.
    fn quiet_turn(&mut self, until: Instant) -> Result<()> {
        for event in self.turn(until)? {
            match event {
                Event::Exited { text, .. } => return Err(Trouble::Failed(format!("the store died: {text}"))),
                Event::Outcome(outcome) => {
                    let text = format!("an outcome was taken back: {:?}, {}", outcome.verdict, outcome.reason);
                    self.keep(outcome)?;
                    return Err(Trouble::Failed(text));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits for what happens, until the next tick at most.
    fn turn(&mut self, until: Instant) -> Result<Vec<Event>> {
        let now = Instant::now();
        if now >= self.limit {
            return Err(Trouble::Failed("it takes far too long".into()));
        }
        let signals = self.signals.as_fd();
        let Some(supervisor) = &mut self.supervisor else { return Ok(Vec::new()) };
        let left = until.min(self.next_tick).saturating_duration_since(now);
        let timeout = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        let mut ready = [supervisor.as_fd(), signals].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut ready, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(failed("poll")(error)),
        }
        let events = supervisor.turn(Some(Duration::ZERO)).map_err(failed("the supervisor"))?;
        if let Ok(Some(arrived)) = self.signals.next() {
            return Err(Trouble::Signal(u8::try_from(arrived.signal).unwrap_or(0)));
        }
        self.tick();
        Ok(events)
    }

    fn tick(&mut self) {
        if Instant::now() < self.next_tick {
            return;
        }
        self.next_tick = Instant::now() + TICK;
        if let Some(loads) = &self.loads {
            let snapshot = loads.snapshot();
            self.view.tick(&snapshot);
        }
    }

    fn now(&self) -> [u64; 2] {
        self.loads.as_ref().map_or([0; 2], Loads::now)
    }

    fn stop_load(&mut self) -> [load::Report; 2] {
        self.loads.take().map(|loads| loads.0.map(Load::stop)).unwrap_or_default()
    }

    /// Asks the last daemon for every acknowledged write.
    fn verify(&self, loads: &[load::Report; 2]) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        for load in loads {
            lost.extend(load::verify(self.address, &load.acknowledged).map_err(failed("cannot read the writes back"))?);
        }
        Ok(lost)
    }

    fn stop_daemon(&mut self) -> Result<()> {
        self.supervisor()?.signal(Signal::SIGTERM as i32).map_err(failed("cannot stop the store"))?;
        let until = Instant::now() + STOP_PATIENCE;
        while Instant::now() < until {
            for event in self.turn(until)? {
                match event {
                    Event::Exited { status: Some(status), .. } if status.code == Some(0) => return Ok(()),
                    Event::Exited { text, .. } => {
                        return Err(Trouble::Failed(format!("the store did not stop well: {text}")));
                    }
                    _ => {}
                }
            }
        }
        Err(Trouble::Failed("the store does not stop".into()))
    }
}

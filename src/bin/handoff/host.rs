//! The loop of a supervisor process: daemons, commands, signals. One thread, and nothing in it ever waits but the poll.

mod added;
mod asked;
mod echo;
mod manager;
mod place;
mod polling;
mod said;
mod seeing;
mod selfup;
mod waiters;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use handoff::service::Service;
use handoff::service::fleet::Fleet;
use handoff::service::instance::Instance;
use handoff::service::manager::Manager;
use handoff::service::reaper::Reaper;
use handoff::service::signals::{Arrived, Signals};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::control::server::{self, Call, Server};
use crate::exporter::{self, Exporter};
use crate::output::Output;
use crate::readers::Readers;
use crate::seen::Seen;
use echo::Echo;
use manager::Front;
use place::Place;
use polling::{Polled, poll_all};
use selfup::SelfUpgrade;
use waiters::Waiter;

/// The signals that a supervisor deals with itself.
pub const SIGNALS: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCHLD,
];

/// How long a poll may take when nothing is due: the loop does not depend on it.
const POLL_MAX: Duration = Duration::from_secs(3600);

/// What a supervisor process is for.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub enum Purpose {
    /// One daemon, with which it ends, and which gets the signals that it does not need itself.
    One,
    /// The units of this file or directory.
    Units(PathBuf),
}

/// A supervisor process.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Host {
    pub name: String,
    pub purpose: Purpose,
    pub fleet: Fleet,
    pub server: Server,
    #[serde(with = "selfup::signals")]
    pub signals: Signals,
    pub output: Output,
    readers: Readers,
    /// Of what units write, which lines are next to be said.
    echo: Echo,
    /// What is remembered, counted and told.
    seen: Seen,
    /// Where metrics are read, if that is wanted.
    pub exporter: Option<Exporter>,
    /// Of what becomes a child of this process without having been started by it.
    #[serde(skip, default = "Reaper::new")]
    reaper: Reaper,
    /// Towards who has started this process.
    front: Front,
    /// Clients that wait for something.
    waiters: Vec<Waiter>,
    /// Commands that wait until a daemon is adopted.
    #[serde(skip)]
    held: Vec<Call>,
    /// Keeps other supervisors of this name away.
    pub instance: Option<Instance>,
    /// Whether, and how, this program is being replaced.
    pub self_upgrade: SelfUpgrade,
    /// There are more descriptors to poll than may be polled at once.
    #[serde(skip)]
    polls_parts: bool,
    /// Its files, while it runs.
    #[serde(skip)]
    place: Place,
}

/// What a descriptor belongs to.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signals,
    Output,
    Fleet,
    Server(server::Source),
    Exporter(exporter::Source),
    Preflight,
    Place,
}

impl Host {
    pub fn new(
        name: &str,
        purpose: Purpose,
        fleet: Fleet,
        server: Server,
        signals: Signals,
        output: Output,
        manager: Manager,
    ) -> Self {
        let (waiters, held, name) = (Vec::new(), Vec::new(), name.to_owned());
        let (reaper, front, seen) = (Reaper::new(), Front::new(manager), Seen::new(fleet.runtime().clone()));
        let (readers, echo, exporter) = (Readers::default(), Echo::default(), None);
        let (instance, self_upgrade) = (None, SelfUpgrade::default());
        Self {
            name,
            purpose,
            fleet,
            server,
            signals,
            output,
            readers,
            echo,
            seen,
            exporter,
            reaper,
            front,
            waiters,
            held,
            instance,
            self_upgrade,
            polls_parts: false,
            place: Place::default(),
        }
    }

    /// Runs until the daemon has ended for good, or, with many, until they were told to end and have.
    pub fn run(&mut self) -> handoff::Result<()> {
        self.turn_fleet()?;
        self.tell_manager();
        self.watch_place();
        while !self.is_over() {
            let ready = self.wait().map_err(|source| handoff::Error::System { what: "poll".into(), source })?;
            let mut place_is_told = false;
            for (source, events) in ready {
                match source {
                    Source::Place => place_is_told = true,
                    Source::Signals => self.read_signals(),
                    Source::Output => self.output.flush(),
                    Source::Fleet | Source::Preflight => {}
                    Source::Exporter(source) => self.export(source),
                    Source::Server(source) => {
                        self.server.on_ready(source, events).into_iter().for_each(|call| self.on_call(call));
                    }
                }
            }
            self.turn_place(place_is_told);
            self.turn_fleet()?;
            self.reaper.turn();
            self.tell_manager();
            if !self.readers.is_empty() {
                self.readers.serve(&mut self.fleet.logs_mut().collect(), &mut self.server);
            }
            self.server.tidy();
            self.exporter.iter_mut().for_each(Exporter::tidy);
            self.forget_gone();
            self.take_held();
            self.answer_reached();
            self.advance_self_upgrade();
        }
        self.readers.finish(&mut self.fleet.logs_mut().collect(), &mut self.server);
        self.answer_last();
        self.answer_late();
        Ok(())
    }

    fn is_over(&self) -> bool {
        match self.purpose {
            Purpose::Units(_) => self.fleet.is_ending() && self.fleet.is_down(),
            Purpose::One => {
                let service = self.fleet.service(&self.name);
                service.is_none_or(|service| service.ended().is_some())
            }
        }
    }

    /// The descriptors that are ready; none if something is due.
    fn wait(&mut self) -> io::Result<Vec<(Source, PollFlags)>> {
        let (readable, writable) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let timeout = self.timeout();
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = vec![
            (Source::Signals, self.signals.as_fd(), readable),
            // One for all services: it tells which of them are ready.
            (Source::Fleet, self.fleet.as_fd(), readable),
        ];
        watched.extend(self.self_upgrade.interest().map(|fd| (Source::Preflight, fd, readable)));
        watched.extend(self.place.interest().map(|fd| (Source::Place, fd, readable)));
        if self.output.is_waiting() {
            watched.push((Source::Output, self.output.as_fd(), writable));
        }
        let server = self.server.interests();
        watched.extend(server.map(|(source, fd, events)| (Source::Server(source), fd, events)));
        let exporter = self.exporter.iter().flat_map(Exporter::interests);
        watched.extend(exporter.map(|(source, fd, events)| (Source::Exporter(source), fd, events)));
        let mut fds: Vec<_> = watched.iter().map(|(_, fd, events)| PollFd::new(*fd, *events)).collect();
        let polled = poll_all(&mut fds, timeout)?;
        let ready = watched.iter().zip(&fds).map(|((source, _, wanted), fd)| match polled {
            Polled::Nothing => (*source, *wanted),
            _ => (*source, fd.revents().unwrap_or(PollFlags::empty())),
        });
        let (ready, count) = (ready.filter(|(_, events)| !events.is_empty()).collect(), fds.len());
        self.note_polled(polled, count);
        Ok(ready)
    }

    /// Rounded up: never too early, and never a spin.
    fn timeout(&mut self) -> PollTimeout {
        if !self.readers.is_empty() && self.readers.have_work(&self.fleet.logs_mut().collect(), &self.server) {
            return PollTimeout::ZERO;
        }
        let own = self.fleet.due_ns().into_iter().chain(self.self_upgrade.due_ns()).chain(self.place.due_ns()).min();
        let fleet = own.map(|due_ns| Duration::from_nanos(due_ns).saturating_sub(now()));
        let exporter = self.exporter.as_ref().and_then(Exporter::next_due);
        let clients = self.server.next_due().into_iter().chain(exporter).min();
        let clients = clients.map(|due| due.saturating_duration_since(Instant::now()));
        let others = self.reaper.due_in().into_iter().chain(self.front.manager.due_in());
        let due = fleet.into_iter().chain(clients).chain(others).min().unwrap_or(POLL_MAX).min(POLL_MAX);
        let milliseconds = due.as_micros().div_ceil(1000);
        PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
    }

    fn turn_fleet(&mut self) -> handoff::Result<()> {
        let events = self.fleet.turn()?;
        self.front.news |= !events.is_empty();
        events.into_iter().for_each(|(name, event)| self.on_event(&name, event));
        self.seen.publish(&self.output, &mut self.server);
        Ok(())
    }

    fn read_signals(&mut self) {
        while let Ok(Some(arrived)) = self.signals.next() {
            self.on_arrival(&arrived);
        }
    }

    fn on_arrival(&mut self, arrived: &Arrived) {
        let Ok(signal) = Signal::try_from(arrived.signal) else { return };
        if signal == Signal::SIGCHLD {
            return self.reaper.wake();
        }
        if let Some(why) = reason_to_stop(arrived) {
            return self.shut_down(&why, matches!(signal, Signal::SIGINT | Signal::SIGQUIT));
        }
        match (&self.purpose, signal) {
            (Purpose::Units(_), Signal::SIGHUP) => self.reload_for_signal(),
            (Purpose::Units(_), _) => {}
            (Purpose::One, Signal::SIGHUP) => {
                self.front.manager.reloading();
                self.forward(signal);
                self.front.manager.reloaded();
            }
            (Purpose::One, _) => self.forward(signal),
        }
    }

    fn forward(&self, signal: Signal) {
        let is_taken = self.fleet.service(&self.name).is_some_and(|service| service.forward(signal));
        if !is_taken && signal != Signal::SIGWINCH {
            let text = format!("{signal} ignored: the daemon has no handler for it");
            self.output.say("signal", &self.name, &text, json!({ "signal": signal.as_str() }));
        }
    }

    /// Stops every service; who asks again with `insist` does not want to wait.
    fn shut_down(&mut self, why: &str, insist: bool) {
        if let (Purpose::Units(_), false) = (&self.purpose, self.fleet.is_ending()) {
            let seconds = self.fleet.shutdown_timeout().as_secs_f64();
            let text = format!("stops all units: {why}; after {seconds} s, what is left is killed");
            self.output.say("shutdown", &self.name, &text, json!({}));
        }
        self.fleet.shut_down(why, insist);
    }

    /// Whether nothing waits to be told, or to be begun.
    fn is_told(&self) -> bool {
        self.held.is_empty() && !self.front.given
    }

    fn is_adopting(&self, name: &str) -> bool {
        self.fleet.is_preparing() || self.fleet.service(name).is_some_and(Service::is_adopting)
    }
}

/// On the clock of the services.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// Whether a signal ends the service, and how to say that.
pub fn reason_to_stop(arrived: &Arrived) -> Option<String> {
    match Signal::try_from(arrived.signal).ok()? {
        Signal::SIGHUP if arrived.from_kernel => Some("the terminal is gone".to_owned()),
        signal @ (Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) => Some(match arrived.from_kernel {
            true => format!("{signal} from the terminal"),
            false => format!("{signal} from process {}", arrived.pid),
        }),
        _ => None,
    }
}

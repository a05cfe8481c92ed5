//! The loop of a supervisor process: daemons, commands, signals. One thread, and nothing in it ever waits but the poll.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use handoff::HandoffOutcome;
use handoff::service::signals::{Arrived, Signals};
use handoff::service::{Event, Service, ServiceStatus, WayBack};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::control::server::{self, Call, Client, Server};
use crate::control::{ErrorCode, Request, RpcError};
use crate::output::Output;
use crate::text;

/// The signals that a supervisor deals with itself.
pub const SIGNALS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// How long a poll may take when nothing is due: the loop does not depend on it.
const POLL_MAX: Duration = Duration::from_secs(3600);

/// The results that are success.
const COMMITTED: &str = "committed";
const REVERTED: &str = "reverted";

/// A supervisor process.
#[derive(Debug)]
pub struct Host {
    pub name: String,
    pub services: BTreeMap<String, Service>,
    pub server: Server,
    pub signals: Signals,
    pub output: Output,
    /// Who waits for the outcome of which service's upgrade.
    pub waiters: Vec<Waiter>,
}

/// A client that waits for an outcome.
#[derive(Debug)]
pub struct Waiter {
    client: Client,
    id: Value,
    service: String,
    /// The result that is success.
    wanted: &'static str,
    /// What it asked for has not begun yet, or had not then.
    waiting: Option<u64>,
}

/// What a descriptor belongs to. Services are looked at in each turn.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signals,
    Output,
    Service,
    Server(server::Source),
}

impl Host {
    /// Runs until every service has ended for good.
    pub fn run(&mut self) -> handoff::Result<()> {
        self.turn_services()?;
        while self.services.values().any(|service| service.ended().is_none()) {
            let ready = self.wait().map_err(|source| handoff::Error::System { what: "poll".into(), source })?;
            for (source, events) in ready {
                match source {
                    Source::Signals => self.read_signals(),
                    Source::Output => self.output.flush(),
                    Source::Service => {}
                    Source::Server(source) => {
                        self.server.on_ready(source, events).into_iter().for_each(|call| self.on_call(call));
                    }
                }
            }
            self.turn_services()?;
            self.server.tidy();
            self.forget_gone();
        }
        for waiter in std::mem::take(&mut self.waiters) {
            let error = RpcError::new(ErrorCode::Ended, "the service ended before the upgrade had an outcome");
            self.server.answer(waiter.client, &waiter.id, Err(error));
        }
        Ok(())
    }

    /// Nobody waits any more for what a command asked for that has ended. If it has not begun, it never will.
    fn forget_gone(&mut self) {
        let (here, gone) =
            std::mem::take(&mut self.waiters).into_iter().partition(|waiter| self.server.has(waiter.client));
        self.waiters = here;
        for waiter in Vec::<Waiter>::from_iter(gone) {
            if let (Some(service), Some(waiting)) = (self.services.get_mut(&waiter.service), waiter.waiting) {
                service.give_up(waiting);
            }
        }
    }

    /// The descriptors that are ready; none if something is due.
    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let (readable, writable) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> =
            vec![(Source::Signals, self.signals.as_fd(), readable)];
        if self.output.is_waiting() {
            watched.push((Source::Output, self.output.as_fd(), writable));
        }
        watched.extend(self.services.values().map(|service| (Source::Service, service.as_fd(), readable)));
        let server = self.server.interests();
        watched.extend(server.map(|(source, fd, events)| (Source::Server(source), fd, events)));
        let mut fds: Vec<_> = watched.iter().map(|(_, fd, events)| PollFd::new(*fd, *events)).collect();
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready =
            watched.iter().zip(&fds).map(|((source, ..), fd)| (*source, fd.revents().unwrap_or(PollFlags::empty())));
        Ok(ready.filter(|(_, events)| !events.is_empty()).collect())
    }

    /// Rounded up: never too early, and never a spin.
    fn timeout(&self) -> PollTimeout {
        let services = self.services.values().filter(|service| service.ended().is_none()).filter_map(Service::due_in);
        let server = self.server.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        let due = services.chain(server).min().unwrap_or(POLL_MAX).min(POLL_MAX);
        let milliseconds = due.as_micros().div_ceil(1000);
        PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
    }

    fn turn_services(&mut self) -> handoff::Result<()> {
        let mut news = Vec::new();
        for (name, service) in &mut self.services {
            news.extend(service.turn()?.into_iter().map(|event| (name.clone(), event)));
        }
        news.into_iter().for_each(|(name, event)| self.on_event(&name, event));
        Ok(())
    }

    fn on_event(&mut self, name: &str, event: Event) {
        match event {
            Event::Output(bytes) => self.output.copy(&bytes),
            Event::Started { pid, generation } => {
                let text = format!("process {pid} runs (generation {generation})");
                self.output.say("started", name, &text, json!({ "pid": pid, "generation": generation }));
            }
            Event::Adopted { pid, generation } => {
                let text = format!("process {pid} serves already (generation {generation}): adopted");
                self.output.say("adopted", name, &text, json!({ "pid": pid, "generation": generation }));
            }
            Event::Phase(phase, waits) => {
                self.tell(name, "phase", &json!({ "service": name, "phase": phase, "waits_for": waits }));
            }
            Event::Progress { done, total } => {
                self.tell(name, "progress", &json!({ "service": name, "done": done, "total": total }));
            }
            Event::Corrected(what, outcome) => drop(self.say_outcome(name, what, &outcome)),
            Event::Outcome(what, outcome) => {
                let outcome = self.say_outcome(name, what, &outcome);
                let (done, rest) =
                    std::mem::take(&mut self.waiters).into_iter().partition(|waiter| waiter.service == name);
                self.waiters = rest;
                for waiter in Vec::<Waiter>::from_iter(done) {
                    self.answer_outcome(&waiter, outcome.clone());
                }
            }
            Event::Restarting { text, after } => {
                let text = format!("{text}; starts again in {}", text::nanoseconds(after.as_nanos() as u64));
                self.output.say("restarting", name, &text, json!({ "after_ms": after.as_millis() as u64 }));
            }
            Event::Ending { text } => self.output.say("ending", name, &text, json!({})),
            Event::ProbationFailed { text } => self.output.say("probation_failed", name, &text, json!({})),
            Event::Ended(ended) => {
                let status = ended.status;
                let details = json!({
                    "code": status.and_then(|status| status.code),
                    "signal": status.and_then(|status| status.signal),
                });
                let what = if ended.errno.is_some() { "" } else { "ended: " };
                self.output.say("ended", name, &format!("{what}{}", ended.text), details);
            }
        }
    }

    /// For the log; the same for those who wait.
    fn say_outcome(&self, name: &str, what: &str, outcome: &HandoffOutcome) -> Value {
        let outcome = json!(outcome);
        let text = format!("{what} {}", text::outcome_line(&outcome));
        self.output.say("outcome", name, &text, json!({ "what": what, "outcome": outcome }));
        outcome
    }

    /// To everybody who waits for this service.
    fn tell(&mut self, name: &str, method: &str, params: &Value) {
        for waiter in self.waiters.iter().filter(|waiter| waiter.service == name) {
            self.server.notify(waiter.client, method, params.clone());
        }
    }

    fn answer_outcome(&mut self, waiter: &Waiter, outcome: Value) {
        let result = json!({ "service": waiter.service, "outcome": outcome, "wanted": waiter.wanted });
        self.server.answer(waiter.client, &waiter.id, Ok(result));
    }

    pub fn on_call(&mut self, call: Call) {
        let Call { client, id, request } = call;
        match request {
            Request::Status(param) => {
                let answer = self.status(param.service.as_deref());
                self.server.answer(client, &id, answer);
            }
            Request::Upgrade(params) => {
                self.begin(client, id, params.service.as_deref(), |service| {
                    service.upgrade(params.upgrade()).map(|()| COMMITTED)
                });
            }
            Request::Rollback(params) => self.begin(client, id, params.service.as_deref(), |service| {
                service
                    .rollback(params.when_draining)
                    .map(|way| if way == WayBack::Verdict { REVERTED } else { COMMITTED })
            }),
        }
    }

    /// What has begun has an outcome some time, for which this client waits.
    fn begin(
        &mut self,
        client: Client,
        id: Value,
        service: Option<&str>,
        begin: impl FnOnce(&mut Service) -> Result<&'static str, Rc<HandoffOutcome>>,
    ) {
        let name = match self.find(service) {
            Ok(name) => name,
            Err(error) => return self.server.answer(client, &id, Err(error)),
        };
        let Some(service) = self.services.get_mut(&name) else { return };
        let begun = begin(service);
        let (waiting, status) = (service.waiting(), service.status());
        let mut waiter = Waiter { client, id, service: name, wanted: COMMITTED, waiting };
        match begun {
            Err(outcome) => return self.answer_outcome(&waiter, json!(&*outcome)),
            Ok(wanted) => waiter.wanted = wanted,
        }
        if let Some(waits) = status.waits.filter(|waits| !waits.pids.is_empty()) {
            let waits = json!(waits);
            let phase = format!("waits {}", text::waits_for(&waits));
            let word = waits["what"].as_str().unwrap_or_default();
            self.output.say("waiting", &status.name, &format!("{word} {phase}"), waits.clone());
            self.server.notify(client, "phase", json!({ "service": status.name, "phase": phase, "waits": waits }));
        }
        self.waiters.push(waiter);
    }

    fn status(&self, service: Option<&str>) -> Result<Value, RpcError> {
        let services: Vec<ServiceStatus> = match service {
            None => self.services.values().map(Service::status).collect(),
            Some(_) => {
                let name = self.find(service)?;
                self.services.get(&name).map(Service::status).into_iter().collect()
            }
        };
        Ok(status_of(&self.name, &services))
    }

    /// The service that is meant: by its name, or because it is the only one.
    fn find(&self, service: Option<&str>) -> Result<String, RpcError> {
        let names = || self.services.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match (service, self.services.keys().next()) {
            (Some(name), _) if self.services.contains_key(name) => Ok(name.to_owned()),
            (Some(name), _) => Err(RpcError::new(
                ErrorCode::NoSuchService,
                format!("there is no service '{name}'; there is: {}", names()),
            )),
            (None, Some(only)) if self.services.len() == 1 => Ok(only.clone()),
            (None, _) => Err(RpcError::new(ErrorCode::WhichService, format!("which service? There are: {}", names()))),
        }
    }

    fn read_signals(&mut self) {
        while let Ok(Some(arrived)) = self.signals.next() {
            self.on_arrival(arrived);
        }
    }

    pub fn on_arrival(&mut self, arrived: Arrived) {
        let Ok(signal) = Signal::try_from(arrived.signal) else { return };
        if let Some(why) = reason_to_stop(&arrived) {
            return self.stop_all(&why, matches!(signal, Signal::SIGINT | Signal::SIGQUIT));
        }
        for (name, service) in &self.services {
            if !service.forward(signal) && signal != Signal::SIGWINCH {
                let text = format!("{signal} ignored: the daemon has no handler for it");
                self.output.say("signal", name, &text, json!({ "signal": signal.as_str() }));
            }
        }
    }

    /// Stops every service; who asks again with `insist` does not want to wait.
    fn stop_all(&mut self, why: &str, insist: bool) {
        for (name, service) in &mut self.services {
            if service.status().state == "stopping" {
                if insist {
                    service.stop_now();
                }
                continue;
            }
            self.output.say("stopping", name, &format!("stops: {why}"), json!({}));
            service.stop(why);
        }
    }
}

/// The answer to `status`.
pub fn status_of(name: &str, services: &[ServiceStatus]) -> Value {
    let supervisor = json!({ "name": name, "pid": std::process::id(), "version": env!("CARGO_PKG_VERSION") });
    json!({ "supervisor": supervisor, "services": services })
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

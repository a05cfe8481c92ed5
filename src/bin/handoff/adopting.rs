//! Before a daemon of another supervisor is adopted: whoever asks hears what it waits for.

use handoff::service::ServiceStatus;
use handoff::service::signals::{Arrived, Signals};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

use crate::control::server::{Call, Server, Source};
use crate::control::{ErrorCode, Request, RpcError};
use crate::host::{reason_to_stop, status_of};
use crate::output::Output;

/// Clients that come without end do not keep it from its work.
const ROUNDS_MAX: usize = 64;

/// What a supervisor process has by then.
#[derive(Debug)]
pub struct Adopting {
    pub name: String,
    pub server: Server,
    pub signals: Signals,
    pub output: Output,
    /// Signals that came meanwhile, and do not end the wait.
    pub early: Vec<Arrived>,
    /// Commands that came meanwhile: they wait, too.
    pub calls: Vec<Call>,
    /// What was said last.
    pub said: String,
}

impl Adopting {
    /// Called about once a second. Why not to go on, if a signal says so.
    pub fn attend(&mut self, status: &ServiceStatus) -> Option<String> {
        if self.said != status.why {
            self.said.clone_from(&status.why);
            self.output.say("adopting", &self.name, &status.why, json!({ "phase": status.phase }));
        }
        self.output.flush();
        self.answer(status);
        while let Ok(Some(arrived)) = self.signals.next() {
            if let Some(why) = reason_to_stop(&arrived) {
                return Some(why);
            }
            self.early.push(arrived);
        }
        None
    }

    /// Everything that is there by now.
    fn answer(&mut self, status: &ServiceStatus) {
        for _ in 0..ROUNDS_MAX {
            let ready = self.ready();
            if ready.is_empty() {
                break;
            }
            for (source, events) in ready {
                for call in self.server.on_ready(source, events) {
                    self.on_call(call, status);
                }
            }
            self.server.tidy();
        }
    }

    fn ready(&self) -> Vec<(Source, PollFlags)> {
        let watched: Vec<_> = self.server.interests().collect();
        let mut fds: Vec<_> = watched.iter().map(|(_, fd, events)| PollFd::new(*fd, *events)).collect();
        if poll(&mut fds, PollTimeout::ZERO).is_err() {
            return Vec::new(); // the next time
        }
        let events = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        watched.iter().map(|(source, ..)| *source).zip(events).filter(|(_, events)| !events.is_empty()).collect()
    }

    fn on_call(&mut self, call: Call, status: &ServiceStatus) {
        let Request::Status(param) = &call.request else { return self.calls.push(call) };
        let answer = match &param.service {
            Some(name) if *name != status.name => Err(RpcError::new(
                ErrorCode::NoSuchService,
                format!("there is no service '{name}'; there is: {}", status.name),
            )),
            _ => Ok(status_of(&self.name, std::slice::from_ref(status))),
        };
        self.server.answer(call.client, &call.id, answer);
    }
}

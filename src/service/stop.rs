//! Stopping a daemon: undo the handoff, ask, insist.

use nix::sys::signal::Signal;

use super::unit::{Ended, Event, Service, State};
use crate::limits::{CANCEL_GRACE, RESERVE_GRACE, STOP_GRACE};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::control::remove_dead;

/// Where a stop is, and until when it stays there, in `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The handoff that was under way is being undone.
    Cancelling(u64),
    /// SIGTERM is sent.
    Terminating(u64),
    /// SIGKILL is sent.
    Killing(u64),
}

impl Stop {
    pub(super) fn until_ns(self) -> u64 {
        match self {
            Self::Cancelling(until) | Self::Terminating(until) | Self::Killing(until) => until,
        }
    }

    /// When SIGKILL comes at the latest.
    pub(super) fn kill_ns(self) -> u64 {
        match self {
            Self::Cancelling(until) => until.saturating_add(nanoseconds(STOP_GRACE)),
            Self::Terminating(until) | Self::Killing(until) => until,
        }
    }
}

impl Service {
    /// Stops the daemon for good: aborts a handoff first, then SIGTERM, 10 s, SIGKILL. A second call changes nothing.
    pub fn stop(&mut self, why: &str) {
        match self.state {
            State::Stopping(_) | State::Ended(_) => return,
            _ => self.set_why(why.to_owned()),
        }
        self.drop_queued("the service stops");
        self.supervisor.close(why);
        let has_reserve = self.supervisor.status().parked_pid.is_some();
        let grace = if has_reserve { RESERVE_GRACE } else { CANCEL_GRACE };
        self.state = State::Stopping(Stop::Cancelling(after(grace)));
        self.advance_stop();
    }

    /// Does not wait any longer: SIGKILL now, if it is being stopped.
    pub fn stop_now(&mut self) {
        if matches!(self.state, State::Stopping(Stop::Cancelling(_) | Stop::Terminating(_))) {
            self.signal_all(Signal::SIGKILL);
            self.state = State::Stopping(Stop::Killing(after(STOP_GRACE)));
        }
    }

    /// The daemon has ended by itself, for good: whoever it has left is ended as by a stop.
    pub(super) fn finish(&mut self, ended: Ended) {
        let left: Vec<String> = self.supervisor.leaving().map(|pid| pid.to_string()).collect();
        if !left.is_empty() {
            let text =
                format!("the daemon has ended: {}; waits for the end of process {}", ended.text, left.join(", "));
            self.events.push(Event::Ending { text });
        }
        self.drop_queued("the service has ended");
        self.supervisor.close(&ended.text);
        self.last_end = Some(ended);
        self.state = State::Stopping(Stop::Cancelling(after(CANCEL_GRACE)));
        self.advance_stop();
    }

    /// Goes on to the next step when the one before is done, or late.
    pub(super) fn advance_stop(&mut self) {
        let State::Stopping(stop) = self.state else { return };
        let status = self.supervisor.status();
        let others = [status.pid, status.successor_pid, status.parked_pid];
        if others.iter().all(Option::is_none) && self.supervisor.leaving().next().is_none() {
            let unknown = || Ended { status: None, errno: None, text: "it did not run".to_owned() };
            let ended = self.last_end.take().unwrap_or_else(unknown);
            return self.end(ended);
        }
        let late = monotonic_ns() >= stop.until_ns();
        let next = match stop {
            Stop::Cancelling(_) if late || status.handoff_id.is_none() => {
                // A reserve that has not retired by now would take over.
                self.supervisor.kill_reserve();
                self.signal_all(self.settings.stop_signal);
                Stop::Terminating(after(STOP_GRACE))
            }
            Stop::Terminating(_) if late => {
                self.signal_all(Signal::SIGKILL);
                Stop::Killing(after(STOP_GRACE))
            }
            Stop::Killing(_) if late => {
                let text = "it is still there after SIGKILL".to_owned();
                return self.end(Ended { status: None, errno: None, text });
            }
            unchanged => unchanged,
        };
        self.state = State::Stopping(next);
    }

    /// When it has ended for good: removes its files that have no meaning any more. Locks stay, since another one may be about to take
    /// them.
    pub fn remove_files(&mut self) {
        self.supervisor.remove_journal();
        remove_dead(&self.runtime.control(&self.settings.name));
    }

    /// To the process that serves, and, before that, to others that could take its place; and to those that serve their last clients.
    fn signal_all(&self, signal: Signal) {
        self.supervisor.signal_others(signal);
        let _ = self.supervisor.signal(signal as i32);
        self.supervisor.signal_leaving(signal);
    }
}

fn after(time: std::time::Duration) -> u64 {
    monotonic_ns() + time.as_nanos() as u64
}

//! Stopping a daemon: undo the handoff, ask, insist.

use nix::sys::signal::Signal;

use super::event::{Ended, Event};
use super::{Service, State};
use crate::limits::{BLIND_GRACE, CANCEL_GRACE, DYING_LOOK, RESERVE_GRACE, STOP_GRACE};
use crate::service::config::StopStep;
use crate::sys::clock::{monotonic_ns, nanoseconds};

/// Where a stop is, and until when it stays there, in `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Stop {
    /// SIGABRT was sent.
    Aborted(u64),
    /// The handoff that was under way is being undone.
    Cancelling(u64),
    /// The signal of this step is sent; that of the last one is SIGKILL.
    Signalled(usize, u64),
    /// No process is left but those that they left behind, which were killed. Look again then, until then at most.
    Clearing { look_ns: u64, until_ns: u64 },
}

impl Stop {
    /// When to look again at the latest.
    pub(super) fn until_ns(self) -> u64 {
        match self {
            Self::Aborted(until)
            | Self::Cancelling(until)
            | Self::Signalled(_, until)
            | Self::Clearing { look_ns: until, .. } => until,
        }
    }

    /// When SIGKILL comes at the latest.
    pub(super) fn kill_ns(self, steps: &[StopStep]) -> u64 {
        let next = match self {
            Self::Aborted(_) | Self::Cancelling(_) => 0,
            Self::Signalled(step, _) => step + 1,
            Self::Clearing { .. } => steps.len(),
        };
        let waits = steps.iter().skip(next).filter_map(|step| step.wait);
        waits.fold(self.until_ns(), |until, wait| until.saturating_add(nanoseconds(wait)))
    }
}

impl Service {
    /// Stops the daemon for good: aborts a handoff first, then goes through [`Settings::stop`](super::Settings::stop). A second call changes nothing.
    pub fn stop(&mut self, why: &str) {
        self.late = None;
        match &mut self.state {
            State::Adopting(adopting) => return adopting.unwanted = Some(why.to_owned()),
            State::Stopping(_) | State::Ended(_) if self.stopped => return,
            _ => (self.why, self.stopped) = (why.to_owned(), true),
        }
        if !matches!(self.state, State::Stopping(_) | State::Ended(_)) {
            self.begin_stop(why);
        }
    }

    /// The same as [`Self::begin_stop`], after SIGABRT to the process that serves, which has as long to die of it as of the first signal of a
    /// stop: it may write its memory to a disk.
    pub(super) fn begin_abort(&mut self, why: &str) {
        self.drop_queued("the service stops");
        self.supervisor.close(why);
        let _ = self.supervisor.signal(Signal::SIGABRT as i32); // it may just have ended
        let wait = self.settings.stop.first().and_then(|step| step.wait).unwrap_or(STOP_GRACE);
        self.state = State::Stopping(Stop::Aborted(after(wait)));
        self.advance_stop();
    }

    /// When the next step is due. A process that is told to stop may ask for more time, but not once SIGKILL is sent.
    pub(super) fn stop_due_ns(&self, stop: Stop) -> u64 {
        match stop {
            Stop::Signalled(step, until) if step + 1 < self.settings.stop.len() => until.max(self.extended_ns()),
            stop => stop.until_ns(),
        }
    }

    pub(super) fn begin_stop(&mut self, why: &str) {
        self.drop_queued("the service stops");
        self.supervisor.close(why);
        let has_reserve = self.supervisor.status().parked_pid.is_some();
        let grace = if has_reserve { RESERVE_GRACE } else { CANCEL_GRACE };
        self.state = State::Stopping(Stop::Cancelling(after(grace)));
        self.advance_stop();
    }

    /// Does not wait any longer: SIGKILL now, if it is being stopped.
    pub fn stop_now(&mut self) {
        let last = self.settings.stop.len().saturating_sub(1);
        match self.state {
            State::Stopping(Stop::Signalled(step, _)) if step >= last => {}
            State::Stopping(Stop::Aborted(_) | Stop::Cancelling(_) | Stop::Signalled(..)) => self.send_step(last),
            State::Stopping(Stop::Clearing { .. }) => self.hooks.kill(),
            _ => {}
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
            return self.clear(stop);
        }
        let late = monotonic_ns() >= self.stop_due_ns(stop);
        match stop {
            Stop::Aborted(_) if late => self.send_step(0),
            Stop::Cancelling(_) if late || status.handoff_id.is_none() => {
                // A reserve that has not retired by now would take over.
                self.supervisor.kill_reserve();
                self.send_step(0);
            }
            Stop::Signalled(step, _) if late && step + 1 < self.settings.stop.len() => self.send_step(step + 1),
            Stop::Signalled(..) if late => {
                let text = "it is still there after SIGKILL".to_owned();
                self.end(Ended { status: None, errno: None, text });
            }
            _ => {}
        }
    }

    /// Sends the signal of this step, and waits for what comes of it.
    fn send_step(&mut self, index: usize) {
        let step = self.settings.stop.get(index).copied();
        let StopStep { signal, wait } = step.unwrap_or(StopStep { signal: Signal::SIGKILL, wait: None });
        self.signal_all(signal);
        self.state = State::Stopping(Stop::Signalled(index, after(wait.unwrap_or(STOP_GRACE))));
    }

    /// Its processes have ended: what they have left behind ends, too, and then the service has.
    fn clear(&mut self, stop: Stop) {
        self.supervisor.end_left();
        self.hooks.kill_pre_start();
        let until_ns = match stop {
            Stop::Clearing { until_ns, .. } => until_ns,
            _ => after(STOP_GRACE),
        };
        if self.hooks.running().is_some() {
            self.state = State::Stopping(Stop::Clearing { look_ns: u64::MAX, until_ns });
            return;
        }
        let is_dying = self.is_dying();
        let blind_ns = self.supervisor.blind().map(|(since_ns, _)| since_ns.saturating_add(nanoseconds(BLIND_GRACE)));
        let until_ns = blind_ns.map_or(until_ns, |blind_ns| until_ns.min(blind_ns));
        if is_dying && monotonic_ns() < until_ns {
            self.state = State::Stopping(Stop::Clearing { look_ns: after(DYING_LOOK), until_ns });
            return;
        }
        let unknown = || Ended { status: None, errno: None, text: "it did not run".to_owned() };
        let ended = self.last_end.take().unwrap_or_else(unknown);
        self.end(ended);
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

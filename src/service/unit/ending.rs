//! How a daemon ends, and what follows.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use nix::errno::Errno;

use super::event::{Ended, Event, RestartCause};
use super::restart::{End, Next};
use super::{Service, State};
use crate::limits::{ENDED_LOOK, START_PROBE};
use crate::service::words::DESCRIPTORS_ADVICE;
use crate::supervisor::ExitStatus;
use crate::sys::clock::{monotonic_ns, nanoseconds};

/// A oneshot may be done, and is not simply run again.
pub(super) const UNKNOWN_END: &str =
    "it ran when its supervisor was killed, and how it ended is not known; handoff restart runs it again";

/// Whether what kept a program from being executed is the want of something that others may give back.
fn passes(errno: i32) -> bool {
    matches!(Errno::from_raw(errno), Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)
}

/// A process that was not ready in time, or is not well, is stopped, and started again as if it had ended by itself.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Late {
    /// Why.
    pub(super) text: String,
    pub(super) cause: RestartCause,
}

impl Late {
    /// As `post_stop` hears it (systemd.exec(5)).
    pub(super) fn result(&self) -> &'static str {
        match self.cause {
            RestartCause::Health => "unhealthy",
            RestartCause::Watchdog => "watchdog",
            _ => "timeout",
        }
    }
}

impl Service {
    /// A process died, and nobody serves, unless another was started at once.
    pub(super) fn on_exit(&mut self, status: Option<ExitStatus>, text: String) {
        self.failed = None;
        self.last_end = status.map(|own| Ended { status, errno: None, text: own.to_string() });
        if self.supervisor.pid().is_some() {
            return;
        }
        match status {
            // Before Linux 6.15, of a process that another supervisor has started.
            None if self.settings.oneshot && !matches!(self.state, State::Stopping(_)) => {
                self.why = UNKNOWN_END.to_owned();
                self.finish(Ended { status, errno: None, text });
            }
            _ => self.on_end(status, None, RestartCause::of(status), text),
        }
    }

    /// Nobody serves any more, or could not be started.
    pub(super) fn on_end(&mut self, status: Option<ExitStatus>, errno: Option<i32>, cause: RestartCause, text: String) {
        let end = End {
            success: status.is_some_and(|status| status.code == Some(0)),
            signalled: status.is_some_and(|status| status.signal.is_some()),
            up: self.served || self.seems_up(),
            well: self.well_for(),
        };
        let first_exec_failed = errno.is_some_and(|errno| !passes(errno)) && self.restarts.total() == 0 && !self.served;
        // Its last output is known: it was an event.
        let short = status.map_or_else(|| text.clone(), |status| status.to_string());
        match self.state {
            State::Stopping(_) => return self.advance_stop(),
            State::Ended(_) => return,
            _ => self.why = text,
        }
        if !end.success && (self.cause.is_none() || end.well >= self.settings.restart.backoff.reset) {
            self.cause = Some(self.why.clone());
        }
        if first_exec_failed {
            return self.finish(Ended { status, errno, text: short });
        }
        let chance = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        match self.restarts.on_end(end, Duration::from_nanos(monotonic_ns()), chance) {
            Next::Again(after) => {
                self.state = State::Waiting(monotonic_ns() + after.as_nanos() as u64);
                let what =
                    if cause == RestartCause::Start { "its last start failed" } else { "its last process ended" };
                self.why = format!("{what}: {}", self.why);
                self.events.push(Event::Restarting { text: short, after, status, cause });
            }
            Next::Ended => self.finish(Ended { status, errno, text: short }),
            Next::GivenUp => {
                self.given_up = true;
                if self.cause.is_none() {
                    self.cause = Some(self.why.clone());
                }
                let what = if end.success { "ended" } else { "failed" };
                self.why = format!("it {what} too often to be started again; the last time: {}", self.why);
                if let Some(cause) = self.cause.as_ref().filter(|cause| !self.why.ends_with(*cause)) {
                    self.why = format!("{}; the first time: {cause}", self.why);
                }
                let text = format!("{short}; it {what} too often to be started again");
                self.finish(Ended { status, errno, text });
            }
        }
    }

    /// Whether it has failed, and waits for its next start.
    pub(in crate::service) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_)) && self.cause.is_some()
    }

    /// It must not run beside another one, which runs: whether it is started again is not its own affair any more.
    pub(in crate::service) fn give_way(&mut self) {
        if matches!(self.state, State::Waiting(_)) {
            self.state = State::New;
        }
    }

    /// For how long its process was well: it served, and was found to be healthy, if it is asked.
    fn well_for(&self) -> Duration {
        match self.served || self.seems_up() {
            true => self.watch.well_for(monotonic_ns()).unwrap_or_else(|| self.age()),
            false => Duration::ZERO,
        }
    }

    /// A daemon that never says Hello, and has no other sign, is taken to be up a while after its exec.
    pub(super) fn seems_up(&self) -> bool {
        self.has_no_sign() && self.age() >= START_PROBE
    }

    fn has_no_sign(&self) -> bool {
        self.settings.start_timeout.is_none() && self.settings.readiness.is_none() && !self.said_hello
    }

    /// When it will be, in `CLOCK_MONOTONIC` nanoseconds: nothing else happens then.
    pub(super) fn seems_up_ns(&self) -> Option<u64> {
        let waits = matches!(self.state, State::Starting) && self.has_no_sign() && self.age() < START_PROBE;
        waits.then(|| self.started_ns.saturating_add(nanoseconds(START_PROBE)))
    }

    /// Until when it must be ready, or done, in `CLOCK_MONOTONIC` nanoseconds.
    pub(super) fn late_ns(&self) -> Option<u64> {
        let time = self.settings.start_timeout?;
        let is_starting = match self.state {
            // What runs before it has a limit of its own.
            State::Starting => self.hooks.running().is_none(),
            State::Running => self.settings.oneshot,
            _ => false,
        };
        // What has ended is not late, also if what it left is still being ended, so that its end is not told yet.
        let is_starting = is_starting && self.supervisor.pid().is_some();
        is_starting.then(|| self.started_ns.saturating_add(nanoseconds(time)).max(self.extended_ns()))
    }

    /// It has taken too long: it is stopped, and that counts as a failure.
    pub(super) fn check_late(&mut self, now_ns: u64) {
        if self.late_ns().is_none_or(|late_ns| now_ns < late_ns) {
            return;
        }
        if self.supervisor.settle_for_up() {
            let text = "it has not said that it is ready, or has while there was no supervisor: it counts as ready";
            self.events.push(Event::Warning(text.to_owned()));
            return self.go_up_adopted();
        }
        let (time, what) = (self.settings.start_timeout.unwrap_or_default(), self.settings.oneshot);
        let text = format!("it was not {} within {} s", if what { "done" } else { "ready" }, time.as_secs_f64());
        self.set_why(text.clone());
        self.late = Some(Late { text, cause: RestartCause::Start });
        self.begin_stop("it is late");
    }

    /// Whether something that a process has left is not gone, as far as is known. What can not be known is said, once.
    pub(super) fn is_dying(&mut self) -> bool {
        let is_dying = self.supervisor.is_dying();
        let blind = self.supervisor.blind().map(|(_, why)| why);
        let is_news = blind.is_some() != std::mem::replace(&mut self.is_blind, blind.is_some());
        if let (Some(why), true) = (blind, is_news) {
            let text = format!(
                "what its last process has left behind can not be looked for: {why}; it is tried again, and nothing is started before; \
                 {DESCRIPTORS_ADVICE}"
            );
            self.events.push(Event::Warning(text));
        }
        is_dying
    }

    /// It has ended: looks again for what it left, and then its files have no meaning any more, either.
    pub(super) fn look_again(&mut self, now_ns: u64) {
        if self.relook_ns.is_none_or(|relook_ns| now_ns < relook_ns) {
            return;
        }
        self.relook_ns = self.is_dying().then(|| now_ns.saturating_add(nanoseconds(ENDED_LOOK)));
        if self.relook_ns.is_none() {
            self.remove_files();
        }
    }

    /// It has ended, and something that it has left has not, as far as is known: for people.
    pub(in crate::service) fn left_behind(&self) -> Option<String> {
        self.ended().and_then(|_| self.what_is_left())
    }

    fn what_is_left(&self) -> Option<String> {
        if !self.supervisor.has_dying() {
            return None;
        }
        Some(match self.supervisor.blind() {
            Some((_, why)) => {
                format!("what it left behind can not be looked for, and may be there: {why}; {DESCRIPTORS_ADVICE}")
            }
            None => "what it left behind is still there after SIGKILL".to_owned(),
        })
    }

    /// For good, unless it was only late.
    pub(super) fn end(&mut self, mut ended: Ended) {
        let nobody_is_left = self.supervisor.pid().is_none();
        if let Some(late) = self.late.take().filter(|_| nobody_is_left) {
            self.supervisor.reopen();
            self.state = State::Starting;
            return self.on_end(None, None, late.cause, late.text);
        }
        if let Some(left) = self.what_is_left() {
            ended.text = format!("{}; {left}", ended.text);
            self.relook_ns = Some(monotonic_ns().saturating_add(nanoseconds(ENDED_LOOK)));
        }
        self.state = State::Ended(ended.clone());
        self.remove_files();
        self.events.push(Event::Ended(ended));
    }
}

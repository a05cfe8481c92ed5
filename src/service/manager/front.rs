//! What is said to our manager, and when. Pure: the caller brings the clock.

use crate::limits::{EXTENSION, EXTENSION_INTERVAL};
use crate::sys::clock::nanoseconds;

/// How this process and its services are.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Condition {
    /// Everything that starts with this process is up, or has shown that it does not come up.
    pub ready: bool,
    /// Everything is being stopped.
    pub stopping: bool,
    /// A start, a stop or a handoff is under way, which ends by itself.
    pub busy: bool,
    /// A line for people.
    pub status: String,
}

/// What was said until now. Times are absolute `CLOCK_MONOTONIC` nanoseconds.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Front {
    /// Between two signs of life: half of what the manager waits for.
    watchdog_ns: Option<u64>,
    alive_due_ns: u64,
    extend_due_ns: Option<u64>,
    ready: bool,
    stopping: bool,
    status: String,
}

impl Front {
    /// `watchdog_ns`: after so long without a sign of life the manager acts.
    pub(super) fn new(watchdog_ns: Option<u64>) -> Self {
        Self {
            watchdog_ns: watchdog_ns.map(|time| time / 2),
            alive_due_ns: 0,
            extend_due_ns: None,
            ready: false,
            stopping: false,
            status: String::new(),
        }
    }

    /// The message that is due, if there is one.
    pub(super) fn turn(&mut self, condition: &Condition, now_ns: u64) -> Option<String> {
        let mut lines = Vec::new();
        if condition.ready && !self.ready && !condition.stopping {
            self.ready = true;
            lines.push("READY=1".to_owned());
        }
        if condition.stopping && !self.stopping {
            self.stopping = true;
            lines.push("STOPPING=1".to_owned());
        }
        if condition.status != self.status {
            self.status.clone_from(&condition.status);
            lines.push(format!("STATUS={}", self.status.replace('\n', " ")));
        }
        if let Some(interval) = self.watchdog_ns.filter(|_| now_ns >= self.alive_due_ns) {
            self.alive_due_ns = now_ns.saturating_add(interval);
            lines.push("WATCHDOG=1".to_owned());
        }
        // Also of its last seconds the manager hears: what begins now has the whole time.
        match condition.busy {
            true if self.extend_due_ns.is_none_or(|due_ns| now_ns >= due_ns) => {
                self.extend_due_ns = Some(now_ns.saturating_add(nanoseconds(EXTENSION_INTERVAL)));
                lines.push(format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
            }
            true => {}
            false => self.extend_due_ns = None,
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// When something is due although nothing happens.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.watchdog_ns.map(|_| self.alive_due_ns).into_iter().chain(self.extend_due_ns).min()
    }

    /// Before it was ready, and when it stops, that is no news.
    pub(super) fn reloading(&mut self, now_ns: u64) -> Option<String> {
        let is_up = self.ready && !self.stopping;
        is_up.then(|| format!("RELOADING=1\nMONOTONIC_USEC={}", now_ns / 1000))
    }

    pub(super) fn reloaded(&mut self) -> Option<String> {
        (self.ready && !self.stopping).then(|| "READY=1".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn up(status: &str) -> Condition {
        Condition { ready: true, status: status.to_owned(), ..Condition::default() }
    }

    #[test]
    fn each_thing_is_said_once() {
        let mut front = Front::new(None);
        assert_eq!(front.reloading(0), None, "not ready yet");
        let starting = Condition { status: "starting".to_owned(), busy: true, ..Condition::default() };
        assert_eq!(front.turn(&starting, 0).unwrap(), "STATUS=starting\nEXTEND_TIMEOUT_USEC=30000000");
        assert_eq!(front.turn(&starting, SECOND), None);
        assert_eq!(front.turn(&starting, 10 * SECOND).unwrap(), "EXTEND_TIMEOUT_USEC=30000000");
        assert_eq!(front.turn(&up("up"), 11 * SECOND).unwrap(), "READY=1\nSTATUS=up");
        assert_eq!((front.turn(&up("up"), 90 * SECOND), front.due_ns()), (None, None));
        assert_eq!(front.reloading(5_000).unwrap(), "RELOADING=1\nMONOTONIC_USEC=5");
        assert_eq!(front.reloaded().unwrap(), "READY=1");
        let busy = Condition { busy: true, ..up("up") };
        assert!(front.turn(&busy, 91 * SECOND).unwrap().starts_with("EXTEND"), "a second time begins at once");
        let stopping = Condition { stopping: true, busy: true, ..up("a\nb") };
        assert_eq!(front.turn(&stopping, 92 * SECOND).unwrap(), "STOPPING=1\nSTATUS=a b");
        assert_eq!((front.reloading(0), front.reloaded()), (None, None));
    }

    #[test]
    fn a_sign_of_life_at_half_of_the_time() {
        let mut front = Front::new(Some(4 * SECOND));
        let mut said = Vec::new();
        for second in 100..110 {
            said.extend(front.turn(&Condition::default(), second * SECOND).map(|text| (second, text)));
            assert!(front.due_ns().unwrap() <= (second + 2) * SECOND);
        }
        let alive = |second| (second, "WATCHDOG=1".to_owned());
        assert_eq!(said, [100, 102, 104, 106, 108].map(alive));
    }

    #[test]
    fn never_ready_in_a_stop() {
        let mut front = Front::new(None);
        let stopping = Condition { ready: true, stopping: true, ..Condition::default() };
        assert_eq!(front.turn(&stopping, 0).unwrap(), "STOPPING=1");
        assert_eq!(front.turn(&stopping, SECOND), None);
    }
}

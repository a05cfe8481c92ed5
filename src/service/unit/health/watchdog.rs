//! Whether a process says often enough that it is alive (`WATCHDOG=1`, sd_notify(3)). Pure: the caller brings the clock, and what was said.

use std::time::Duration;

use crate::supervisor::Pulse;
use crate::sys::clock::nanoseconds;

/// What [`Watchdog::turn`] says begins with this.
const WATCHDOG: &str = "watchdog: ";

/// The watchdog of one unit. Times are absolute nanoseconds.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Watchdog {
    /// What the unit asks for; the process may say otherwise (`WATCHDOG_USEC=`).
    interval: Option<Duration>,
    /// Since when its process must say so.
    since_ns: Option<u64>,
    due_ns: Option<u64>,
    /// When [`Self::turn`] was called last, and must be called at the latest.
    looked_ns: u64,
    look_ns: Option<u64>,
}

/// So often in an interval it is looked at least, to see that we have slept ourselves.
const LOOKS: u64 = 4;

impl Watchdog {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self { interval, ..Self::default() }
    }

    /// What the process has said until now; none: there is none that serves, or it is being replaced, and its handoff has times of its own.
    /// Why it is to be ended, if it is.
    pub(super) fn turn(&mut self, pulse: Option<&Pulse>, now_ns: u64) -> Option<String> {
        let looked_ns = std::mem::replace(&mut self.looked_ns, now_ns);
        let Some(pulse) = pulse else {
            (self.since_ns, self.due_ns, self.look_ns) = (None, None, None);
            return None;
        };
        if pulse.triggered {
            return Some(format!("{WATCHDOG}the process itself says that it has failed (WATCHDOG=trigger)"));
        }
        let interval = self.interval(pulse);
        // Who has stopped us (a freezer, a debugger, a host without time for us) may have stopped the process, too.
        let slept = interval.is_some_and(|interval| now_ns.saturating_sub(looked_ns) > nanoseconds(interval) / 2);
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        let since_ns = if slept { now_ns } else { since_ns };
        self.since_ns = Some(since_ns);
        self.due_ns = interval
            .map(|interval| since_ns.max(pulse.heard_ns).saturating_add(nanoseconds(interval)).max(pulse.extended_ns));
        let next_ns = interval.map(|interval| now_ns.saturating_add(nanoseconds(interval) / LOOKS));
        self.look_ns = self.due_ns.into_iter().chain(next_ns).min();
        let is_late = self.due_ns.is_some_and(|due_ns| now_ns >= due_ns);
        let interval = interval.filter(|_| is_late)?;
        Some(format!("{WATCHDOG}it did not say that it is alive for {} s", interval.as_secs_f64()))
    }

    /// Zero turns it off.
    fn interval(&self, pulse: &Pulse) -> Option<Duration> {
        pulse.watchdog.or(self.interval).filter(|interval| !interval.is_zero())
    }

    /// When it is late.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// When [`Self::turn`] must be called at the latest.
    pub(super) fn look_ns(&self) -> Option<u64> {
        self.look_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Looks whenever it must, from the last look on until then: what came of it.
    fn watch(dog: &mut Watchdog, pulse: &Pulse, until_ns: u64) -> Option<String> {
        while let Some(look_ns) = dog.look_ns().filter(|look_ns| *look_ns < until_ns) {
            assert_eq!(dog.turn(Some(pulse), look_ns), None, "at {look_ns}");
        }
        dog.turn(Some(pulse), until_ns)
    }

    #[test]
    fn late_is_counted_from_the_last_sign() {
        let mut dog = Watchdog::new(Some(Duration::from_secs(10)));
        let mut pulse = Pulse::default();
        assert_eq!((dog.turn(None, SECOND), dog.due_ns()), (None, None));
        assert_eq!(dog.turn(Some(&pulse), 100 * SECOND), None);
        assert_eq!(dog.due_ns(), Some(110 * SECOND), "from when it serves");
        pulse.heard_ns = 105 * SECOND;
        assert_eq!(watch(&mut dog, &pulse, 110 * SECOND), None);
        assert!(watch(&mut dog, &pulse, 115 * SECOND).unwrap().contains("for 10 s"));
        // A handoff in between, and it begins anew.
        assert_eq!(dog.turn(None, 116 * SECOND), None);
        assert_eq!((dog.turn(Some(&pulse), 120 * SECOND), dog.due_ns()), (None, Some(130 * SECOND)));
    }

    #[test]
    fn who_has_slept_himself_waits_once_more() {
        let mut dog = Watchdog::new(Some(Duration::from_secs(10)));
        let pulse = Pulse { heard_ns: 100 * SECOND, ..Pulse::default() };
        assert_eq!(dog.turn(Some(&pulse), 100 * SECOND), None);
        assert_eq!((dog.turn(Some(&pulse), 111 * SECOND), dog.due_ns()), (None, Some(121 * SECOND)));
        // Also if it was not late yet when we woke.
        assert_eq!(watch(&mut dog, &pulse, 114 * SECOND), None);
        assert_eq!((dog.turn(Some(&pulse), 120 * SECOND), dog.due_ns()), (None, Some(130 * SECOND)));
        assert!(watch(&mut dog, &pulse, 130 * SECOND).is_some(), "but only then");
    }

    #[test]
    fn a_process_may_change_it_extend_it_and_trip_it() {
        let mut dog = Watchdog::new(None);
        let mut pulse = Pulse::default();
        assert_eq!((dog.turn(Some(&pulse), SECOND), dog.due_ns()), (None, None), "nobody wants one");
        pulse.watchdog = Some(Duration::from_secs(2));
        assert_eq!((dog.turn(Some(&pulse), 2 * SECOND), dog.due_ns()), (None, Some(3 * SECOND)));
        pulse.extended_ns = 60 * SECOND;
        assert_eq!((watch(&mut dog, &pulse, 59 * SECOND), dog.due_ns()), (None, Some(60 * SECOND)));
        pulse.watchdog = Some(Duration::ZERO);
        assert_eq!((dog.turn(Some(&pulse), 90 * SECOND), dog.due_ns()), (None, None), "zero turns it off");
        pulse.triggered = true;
        assert!(dog.turn(Some(&pulse), 91 * SECOND).unwrap().contains("trigger"));
    }
}

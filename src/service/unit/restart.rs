//! Whether a daemon that ended is started again, and when. Pure: the caller brings clock and chance.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::{RESTART_DELAY_FIRST, RESTART_DELAY_MAX, RESTART_HEALTHY, RESTART_WINDOW, RESTARTS_IN_WINDOW_MAX};

/// When a daemon that ended by itself is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Policy {
    /// Whatever it ended with.
    Always,
    /// When it ended with a status other than 0, or by a signal.
    OnFailure,
    /// As [`Policy::OnFailure`], but a first start that fails by itself is final: a status other than 0 before the
    /// daemon served (or, of a daemon that never says so, within a second) is a mistake in its settings, and is best
    /// seen at once.
    #[default]
    OnceUp,
    /// Never.
    Never,
}

/// The wait before a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Backoff {
    /// The first one, which doubles.
    pub first: Duration,
    /// The longest one.
    pub max: Duration,
    /// Who was well for that long begins again at the first.
    pub reset: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: RESTART_DELAY_FIRST, max: RESTART_DELAY_MAX, reset: RESTART_HEALTHY }
    }
}

/// Restarts that are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RestartLimit {
    /// So many restarts are allowed
    pub count: usize,
    /// in this time.
    pub window: Duration,
}

impl Default for RestartLimit {
    fn default() -> Self {
        Self { count: RESTARTS_IN_WINDOW_MAX, window: RESTART_WINDOW }
    }
}

/// When a daemon is started again, after which wait, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rules {
    /// Whether.
    pub policy: Policy,
    /// When.
    pub backoff: Backoff,
    /// How often.
    pub limit: RestartLimit,
}

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// It exited with status 0.
    pub success: bool,
    /// It was killed by a signal.
    pub signalled: bool,
    /// It served, or lived for long enough if it can not say that it does.
    pub up: bool,
    /// For how long it was well.
    pub well: Duration,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start it again after this time.
    Again(Duration),
    /// It ended for good, as the policy says.
    Ended,
    /// It would be started again, but failed too often.
    GivenUp,
}

/// The restarts of one daemon.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Restarts {
    rules: Rules,
    first: bool,
    /// How often it was started again since it was last healthy.
    row: u32,
    /// When, on the caller's clock.
    recent: VecDeque<Duration>,
    total: u64,
}

impl Default for Restarts {
    fn default() -> Self {
        Self::new(Rules::default())
    }
}

impl Restarts {
    /// Nothing happened yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, first: true, row: 0, recent: VecDeque::new(), total: 0 }
    }

    /// From now on by these.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// An operator starts it: what was before does not count any more.
    pub fn forgive(&mut self) {
        (self.first, self.row) = (true, 0);
        self.recent.clear();
    }

    /// How often the daemon was started again.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The daemon ended. `now`: on any clock that does not go backwards. `chance`: 0 to 1.
    pub fn on_end(&mut self, end: End, now: Duration, chance: f64) -> Next {
        let first = std::mem::replace(&mut self.first, false);
        if !self.wants_again(end, first) {
            return Next::Ended;
        }
        let Rules { backoff, limit, .. } = self.rules;
        if end.well >= backoff.reset {
            self.row = 0;
        }
        while self.recent.front().is_some_and(|then| now.saturating_sub(*then) >= limit.window) {
            self.recent.pop_front();
        }
        if self.recent.len() >= limit.count {
            return Next::GivenUp;
        }
        self.recent.push_back(now);
        self.total += 1;
        let delay = backoff.first.saturating_mul(2u32.saturating_pow(self.row)).min(backoff.max);
        self.row += 1;
        // Half of it is fixed, so that many daemons that died together do not return together.
        Next::Again(delay.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0))
    }

    fn wants_again(&self, end: End, first: bool) -> bool {
        match self.rules.policy {
            Policy::Always => true,
            Policy::Never => false,
            Policy::OnFailure => !end.success,
            Policy::OnceUp => !end.success && (!first || end.signalled || end.up),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: End = End { success: false, signalled: true, up: true, well: Duration::from_secs(1) };
    const FAILED: End = End { success: false, signalled: false, up: false, well: Duration::ZERO };
    const DONE: End = End { success: true, signalled: false, up: true, well: Duration::from_secs(1) };

    fn by(policy: Policy) -> Rules {
        Rules { policy, ..Rules::default() }
    }

    #[test]
    fn policies() {
        let again = |policy, end| matches!(Restarts::new(by(policy)).on_end(end, Duration::ZERO, 1.0), Next::Again(_));
        assert!(again(Policy::Always, DONE) && again(Policy::Always, CRASH));
        assert!(!again(Policy::Never, CRASH));
        assert!(!again(Policy::OnFailure, DONE) && again(Policy::OnFailure, FAILED));
        assert!(!again(Policy::OnceUp, DONE) && !again(Policy::OnceUp, FAILED) && again(Policy::OnceUp, CRASH));
    }

    #[test]
    fn a_start_that_fails_later_is_tried_again() {
        let mut restarts = Restarts::new(by(Policy::OnceUp));
        assert!(matches!(restarts.on_end(CRASH, Duration::ZERO, 1.0), Next::Again(_)));
        assert!(matches!(restarts.on_end(FAILED, Duration::ZERO, 1.0), Next::Again(_)));
    }

    #[test]
    fn the_delay_doubles_to_a_bound_and_starts_anew_after_health() {
        let mut restarts = Restarts::new(by(Policy::OnFailure));
        let mut now = Duration::ZERO;
        let mut delays = Vec::new();
        for _ in 0..7 {
            let Next::Again(delay) = restarts.on_end(CRASH, now, 1.0) else { panic!() };
            delays.push(delay.as_secs_f64());
            now += delay + CRASH.well;
        }
        assert_eq!(delays, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
        let healthy = End { well: RESTART_HEALTHY, ..CRASH };
        assert_eq!(restarts.on_end(healthy, now + RESTART_HEALTHY, 0.0), Next::Again(Duration::from_millis(250)));
        assert_eq!(restarts.total(), 8);
    }

    #[test]
    fn too_many_in_a_window_is_the_end() {
        let mut restarts = Restarts::new(by(Policy::Always));
        let at = Duration::from_secs;
        for second in 0..RESTARTS_IN_WINDOW_MAX as u64 {
            assert!(matches!(restarts.on_end(CRASH, at(second), 0.5), Next::Again(_)));
        }
        assert_eq!(restarts.on_end(CRASH, at(59), 0.5), Next::GivenUp);
        assert!(matches!(restarts.on_end(CRASH, at(60), 0.5), Next::Again(_)));
    }

    #[test]
    fn a_unit_has_its_own_times_and_numbers() {
        let seconds = Duration::from_secs;
        let backoff = Backoff { first: seconds(1), max: seconds(3), reset: seconds(5) };
        let rules = Rules { backoff, limit: RestartLimit { count: 4, window: seconds(100) }, ..by(Policy::Always) };
        let mut restarts = Restarts::new(rules);
        let again =
            |restarts: &mut Restarts, well| restarts.on_end(End { well: seconds(well), ..CRASH }, seconds(0), 1.0);
        for (well, delay) in [(1, 1), (1, 2), (4, 3), (5, 1)] {
            assert_eq!(again(&mut restarts, well), Next::Again(seconds(delay)));
        }
        assert_eq!(again(&mut restarts, 1), Next::GivenUp);
        restarts.forgive();
        assert_eq!((again(&mut restarts, 1), restarts.total()), (Next::Again(seconds(1)), 5));
    }
}

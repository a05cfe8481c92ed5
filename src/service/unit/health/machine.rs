//! Whether a unit is well: when it is asked, and what its answers come to. Pure: the caller brings the clock, and asks.

/// How often, and what is too bad. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Terms {
    /// The wait before the first question to a new process, which doubles up to `interval_ns` until its first good answer.
    pub(super) first_ns: u64,
    /// Between an answer and the next question.
    pub(super) interval_ns: u64,
    /// So many bad answers in a row.
    pub(super) retries: u32,
    /// How long a new process may take for its first good answer.
    pub(super) grace_ns: u64,
}

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum State {
    /// There is no process, or it has not answered well yet.
    Unknown,
    Healthy,
    Unhealthy,
}

/// What an answer has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is well: it is ready, if that is how it tells, and whoever waits for its health may start.
    Healthy,
    /// It is not, for this first cause.
    Unhealthy(String),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Next {
    /// Nobody is there to be asked.
    Never,
    /// A question, in absolute nanoseconds.
    At(u64),
    /// The answer to one; whether it counts if it is bad.
    Answer(bool),
}

/// The health of one unit. It is never done: after an answer there is a next question, as long as there is a process.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Machine {
    terms: Terms,
    state: State,
    /// Since when, in absolute nanoseconds.
    since_ns: u64,
    next: Next,
    /// The wait before the next question, while it grows.
    wait_ns: u64,
    /// The process has answered well once.
    answered: bool,
    /// Until when it need not.
    grace_until_ns: u64,
    /// Bad answers in a row, since when, and what the first of them said.
    failures: u32,
    #[serde(default)]
    failing_ns: u64,
    cause: Option<String>,
    /// The first good answer of this process.
    #[serde(default)]
    good_ns: Option<u64>,
    /// For how long the process was well that is gone.
    #[serde(default)]
    was_well_ns: u64,
    /// Bad answers do not count: the unit is being replaced. In exclusive mode nobody accepts between the drain of the one and the commit of
    /// the other; that is watched by the handoff, which has times of its own, and goes back to the old process if the new one is no good. A
    /// restart in the midst of it would make an outage of a pause.
    excused: bool,
}

impl Machine {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: State::Unknown,
            since_ns: 0,
            next: Next::Never,
            wait_ns: 0,
            answered: false,
            grace_until_ns: 0,
            failures: 0,
            failing_ns: 0,
            cause: None,
            good_ns: None,
            was_well_ns: 0,
            excused: false,
        }
    }

    /// A process has started, of which nothing is known.
    pub(super) fn begin(&mut self, now_ns: u64) {
        let grace_until_ns = now_ns.saturating_add(self.terms.grace_ns);
        let cause = self.cause.take();
        *self = Self { since_ns: now_ns, grace_until_ns, excused: self.excused, cause, ..Self::new(self.terms) };
        self.ask_soon(now_ns);
    }

    /// A process has replaced the one before, and counts as well as that one until it answers.
    pub(super) fn succeed(&mut self) {
        self.good_ns = None;
    }

    /// The process is gone, or is being stopped.
    pub(super) fn end(&mut self, now_ns: u64) {
        self.was_well_ns = self.well_ns(now_ns);
        self.good_ns = None;
        self.next = Next::Never;
        self.change(State::Unknown, now_ns);
    }

    /// The unit is being replaced, or not any more: then whoever serves is asked soon.
    pub(super) fn excuse(&mut self, excused: bool, now_ns: u64) {
        if std::mem::replace(&mut self.excused, excused) && !excused && self.next != Next::Never {
            (self.failures, self.cause) = (0, None);
            match self.next {
                Next::Answer(_) => self.next = Next::Answer(false), // it was asked before
                _ => self.ask_soon(now_ns),
            }
        }
    }

    fn ask_soon(&mut self, now_ns: u64) {
        self.wait_ns = self.terms.first_ns.min(self.terms.interval_ns);
        self.next = Next::At(now_ns.saturating_add(self.wait_ns));
    }

    /// When to ask, in absolute nanoseconds; none: while an answer is waited for, and without a process.
    pub(super) fn due_ns(&self) -> Option<u64> {
        match self.next {
            Next::At(due_ns) => Some(due_ns),
            Next::Never | Next::Answer(_) => None,
        }
    }

    /// Whether to ask now; then an answer must follow, some time.
    pub(super) fn ask(&mut self, now_ns: u64) -> bool {
        let asks = self.due_ns().is_some_and(|due_ns| now_ns >= due_ns);
        if asks {
            self.next = Next::Answer(!self.excused);
        }
        asks
    }

    /// The answer to the question, or that there was none in time.
    pub(super) fn answer(&mut self, answer: Result<(), String>, now_ns: u64) -> Option<Change> {
        let Next::Answer(counts) = self.next else { return None };
        let is_good = answer.is_ok();
        self.wait_ns = match is_good || self.answered {
            true => self.terms.interval_ns,
            false => self.wait_ns.saturating_mul(2).min(self.terms.interval_ns),
        };
        self.next = Next::At(now_ns.saturating_add(self.wait_ns));
        match answer {
            Ok(()) => {
                (self.answered, self.failures, self.cause) = (true, 0, None);
                self.good_ns.get_or_insert(now_ns);
                self.change(State::Healthy, now_ns).then_some(Change::Healthy)
            }
            Err(why) => self.fail(why, counts && !self.excused, now_ns),
        }
    }

    fn fail(&mut self, why: String, counts: bool, now_ns: u64) -> Option<Change> {
        if !counts {
            return None;
        }
        if self.failures == 0 {
            (self.cause, self.failing_ns) = (Some(why.clone()), now_ns);
        }
        self.failures = self.failures.saturating_add(1);
        let is_too_bad = self.failures >= self.terms.retries && (self.answered || now_ns >= self.grace_until_ns);
        // A reserve that has taken over may be as bad: that is news, too.
        if !is_too_bad || !(self.change(State::Unhealthy, now_ns) || self.failures == self.terms.retries) {
            return None;
        }
        Some(Change::Unhealthy(self.cause.clone().unwrap_or(why)))
    }

    fn change(&mut self, state: State, now_ns: u64) -> bool {
        let changed = std::mem::replace(&mut self.state, state) != state;
        if changed {
            self.since_ns = now_ns;
        }
        changed
    }

    /// What is known, and since when, in absolute nanoseconds.
    pub(super) fn state(&self) -> (State, u64) {
        (self.state, self.since_ns)
    }

    /// For how long this process, or the last one if there is none, was found to be well: from its first good answer on, until the first of the bad ones since its last good one.
    pub(super) fn well_ns(&self, now_ns: u64) -> u64 {
        let until_ns = if self.failures > 0 { self.failing_ns } else { now_ns };
        self.good_ns.map_or(self.was_well_ns, |good_ns| until_ns.saturating_sub(good_ns))
    }

    /// Bad answers since the last good one, and since when, in absolute nanoseconds; none: there was none.
    pub(super) fn failing(&self) -> Option<(u32, u64)> {
        (self.failures > 0).then_some((self.failures, self.failing_ns))
    }

    /// Why it was not well last, until it is well again.
    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

//! The rules of replacing a daemon that does not link the library: N starts beside O, on the same listeners.
//!
//! Neither process can touch a decision word, so none is needed: S alone decides. Until N is ready, nobody tells O anything; from
//! then on N is the process in the books, and O gets its stop signal, after which it finishes what it has accepted. An N that is
//! given up may have accepted, too, so it gets the same signal, and is killed only if it does not go.
//!
//! O, or N in its place, is told to stop only while the other one runs; only the end of the service stops both.

use super::message::Side;
use super::supervisor::Verdict;

/// What happens in such a handoff. It begins when N runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// N is ready.
    Ready,
    /// N's time to become ready is over; with what is known of that.
    Late(String),
    /// The process is dead; with its exit status and last lines of stderr.
    Died(Side, String),
    /// It has said Hello: it does link the library.
    Linked(Side),
    /// The caller does not want this handoff any more.
    Cancel(String),
    /// The service is to end.
    End(String),
}

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Wait no longer for N's readiness.
    Disarm,
    /// N is the service's process from here on, also in the journal. An O that lives is one that leaves.
    Promote,
    /// Stop signal, grace, SIGKILL.
    Stop(Side),
    /// What the caller of the handoff hears. The handoff is over.
    Report(Verdict, String),
}

/// Such a handoff.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unlinked {
    over: bool,
    /// How O ended, if it is dead.
    incumbent_end: Option<String>,
}

impl Unlinked {
    /// N runs, and O serves.
    #[allow(clippy::new_without_default, reason = "it begins with a process that runs")]
    pub fn new() -> Self {
        Self { over: false, incumbent_end: None }
    }

    /// What another supervisor has left that is gone. N has not replaced O in its journal, so O was told nothing.
    pub fn resume(incumbent_lives: bool, successor_lives: bool) -> Vec<Action> {
        let why = "the supervisor was restarted in mid-handoff".to_owned();
        match (incumbent_lives, successor_lives) {
            (true, true) => vec![Action::Stop(Side::Successor), Action::Report(Verdict::RolledBack, why)],
            (true, false) => vec![Action::Report(Verdict::RolledBack, why)],
            (false, true) => vec![
                Action::Promote,
                Action::Report(
                    Verdict::Committed,
                    format!("{why}, and the incumbent has died: only the successor is left"),
                ),
            ],
            (false, false) => vec![],
        }
    }

    /// Takes an input; returns what must be done, in order.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        if self.over {
            return Vec::new();
        }
        let alone = self.incumbent_end.is_some();
        match input {
            Input::Ready => self.commit(),
            Input::Late(more) => self.give_up(format!("the successor was not ready in time{more}")),
            Input::Died(Side::Incumbent, status) => {
                self.incumbent_end = Some(status);
                Vec::new()
            }
            Input::Died(Side::Successor, status) => self.lose(status),
            // Who is alone is not given up for another's sake.
            Input::Linked(_) | Input::Cancel(_) if alone => Vec::new(),
            Input::Linked(Side::Successor) => self.refuse(
                "the successor links libhandoff, but the incumbent does not: they can not hand over to each other; \
                 stop the service and start it with the new program",
            ),
            Input::Linked(Side::Incumbent) => {
                self.refuse("the incumbent links libhandoff, and has said so only now: try again")
            }
            Input::Cancel(why) | Input::End(why) => self.give_up(why),
        }
    }

    fn commit(&mut self) -> Vec<Action> {
        self.over = true;
        let mut out = vec![Action::Disarm, Action::Promote];
        let reason = match &self.incumbent_end {
            None => {
                out.push(Action::Stop(Side::Incumbent));
                String::new()
            }
            Some(end) => format!("the incumbent died before: {end}"),
        };
        out.push(Action::Report(Verdict::Committed, reason));
        out
    }

    /// N is dead.
    fn lose(&mut self, status: String) -> Vec<Action> {
        self.over = true;
        let (verdict, before) = self.without_successor();
        vec![
            Action::Disarm,
            Action::Report(verdict, format!("{before}the successor died before it was ready: {status}")),
        ]
    }

    fn give_up(&mut self, why: String) -> Vec<Action> {
        self.over = true;
        let (verdict, before) = self.without_successor();
        vec![Action::Disarm, Action::Stop(Side::Successor), Action::Report(verdict, format!("{before}{why}"))]
    }

    fn refuse(&mut self, why: &str) -> Vec<Action> {
        self.over = true;
        vec![Action::Disarm, Action::Stop(Side::Successor), Action::Report(Verdict::Refused, why.to_owned())]
    }

    /// How it ends if N does not come to serve.
    fn without_successor(&self) -> (Verdict, String) {
        match &self.incumbent_end {
            None => (Verdict::RolledBack, String::new()),
            Some(end) => (Verdict::Failed, format!("the incumbent died: {end}; and ")),
        }
    }
}

#[cfg(test)]
mod tests;

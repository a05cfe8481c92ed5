//! N: the process that will serve.

use super::message::{
    AdoptAck, Begin, Heartbeat, Hello, Message, Readiness, Ready, Reject, RejectCode, Sealed, Serving, Terms, Warmed,
};
use super::transfer::Totals;
use super::{Decide, Decision, HandoffId, Violation, check_revisions};

/// Where N is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Hello is sent.
    AwaitAck,
    /// The application loads what it can without the data.
    Warming,
    /// Warmed is sent.
    AwaitBegin,
    /// Begin came: the driver takes gate and lock.
    Locking,
    /// The lock is held: the application opens the data.
    Opening,
    /// Ready is sent.
    AwaitCommitted,
    /// Looks at O's pidfd, as the last act before it revokes.
    Looking,
    /// Asked for a swap to revoked.
    Revoking,
    /// Asked for a swap to committed.
    Committing,
    /// Won: the control path is put into its place.
    Won,
    /// Everybody has been told.
    Serving,
    /// Not wanted: exit without touching anything.
    Aborted,
}

impl Phase {
    /// The phase's name in logs and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AwaitAck => "waiting for HelloAck",
            Self::Warming => "warming",
            Self::AwaitBegin => "waiting for Begin",
            Self::Locking => "locking",
            Self::Opening => "opening",
            Self::AwaitCommitted => "waiting for Committed",
            Self::Looking | Self::Revoking => "giving up",
            Self::Committing => "committing",
            Self::Won => "publishing",
            Self::Serving => "serving",
            Self::Aborted => "aborted",
        }
    }
}

/// The timers of N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// HelloAck is late.
    Ack,
    /// The whole handoff is late: [`Terms::deadline_ns`].
    Deadline,
    /// Say that we are alive.
    Heartbeat,
}

/// What happens to N.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The session is open: say Hello.
    Start(Hello),
    /// S said this.
    Message(Message),
    /// The session has ended, and its queue is read to the end.
    SupervisorGone,
    /// Another supervisor takes this daemon over, on a new session: it has won, and its control path is in its place. With
    /// the answer, which lacks what the machine knows.
    Adopted(AdoptAck),
    /// O's pidfd is readable.
    IncumbentDied,
    /// The answer to [`Action::Look`].
    IncumbentSeen {
        /// Whether O lives.
        alive: bool,
    },
    /// The application has loaded all it can without the data.
    Warmed,
    /// The answer to [`Action::TakeLock`]: gate and lock are held.
    Locked,
    /// The answer to [`Action::TakeLock`]: why not.
    LockRefused(String),
    /// The application has opened the data; the control socket listens under its temporary name.
    Opened(Readiness),
    /// O has said how much it sent, and this is what has come.
    Received(Totals),
    /// What O sends can not be had, and why.
    TransferFailed(String),
    /// The application progresses: done and total.
    Progress(u64, u64),
    /// The value of the decision word after [`Action::Decide`].
    Decided(Decision),
    /// The application serves: tell everybody.
    Served {
        /// When the word was won.
        committed_ns: u64,
        /// Whether the control path is in its place.
        control: Result<(), String>,
    },
    /// The application asked to stop.
    Stop,
    /// A timer fired, and the session's queue is read to the end.
    Timer(Timer),
}

/// What the driver of N must do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send this to S; nothing if the session is gone.
    Send(Message),
    /// Send this to O on the transfer socket.
    Tell(Message),
    /// Start this timer anew.
    Arm(Timer),
    /// Stop this timer.
    Disarm(Timer),
    /// Take the gate, if it did not come with the transfer socket, then the lock. Answer: `Locked` or `LockRefused`.
    TakeLock(Sealed),
    /// Look whether O's pidfd is readable. Answer: `IncumbentSeen`.
    Look,
    /// Compare-and-swap the decision word. Answer: `Decided`.
    Decide(Decide),
    /// Put the control path into its place and set the page's `serving`. Then wait for the application to serve.
    Publish,
    /// The application must exit, touching nothing.
    Abandon(String),
    /// The session makes no sense any more: close it.
    EndSession(Violation),
}

/// The machine of N.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Successor {
    phase: Phase,
    terms: Option<Terms>,
    generation: u64,
    /// What Begin said that O sealed.
    sealed: Option<Vec<u64>>,
    readiness: Readiness,
    /// What came from O.
    taken: Totals,
    progress: Option<(u64, u64)>,
    supervisor_gone: bool,
    incumbent_dead: bool,
    warmed: bool,
    /// Where [`Phase::Looking`] came from, and goes back to if N turns out to be the last.
    back: Phase,
    /// Why it gives up, while it does.
    reason: String,
}

impl Default for Successor {
    fn default() -> Self {
        Self::new()
    }
}

impl Successor {
    /// A process that was started as successor and has said nothing yet.
    pub fn new() -> Self {
        Self {
            phase: Phase::AwaitAck,
            terms: None,
            generation: 0,
            sealed: None,
            readiness: Readiness::default(),
            taken: Totals::default(),
            progress: None,
            supervisor_gone: false,
            incumbent_dead: false,
            warmed: false,
            back: Phase::AwaitAck,
            reason: String::new(),
        }
    }

    /// Where it is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The handoff, once HelloAck has named it.
    pub fn terms(&self) -> Option<&Terms> {
        self.terms.as_ref()
    }

    /// Which process of the service it is, once HelloAck has said so.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn id(&self) -> HandoffId {
        self.terms.map_or(HandoffId::COLD, |terms| terms.id)
    }

    /// Nobody is left who could decide, or serve, but N.
    fn alone(&self) -> bool {
        self.supervisor_gone && self.incumbent_dead
    }

    /// Whether it may still give up: the word is not won, not asked for, and not lost.
    fn uncommitted(&self) -> bool {
        !matches!(self.phase, Phase::Committing | Phase::Won | Phase::Serving | Phase::Aborted)
    }

    /// Takes an input; returns what must be done, in order.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Start(hello) => out.extend([Action::Send(Message::Hello(hello)), Action::Arm(Timer::Ack)]),
            Input::Message(message) => self.on_message(message, &mut out),
            Input::SupervisorGone => {
                self.supervisor_gone = true;
                self.on_loss("the supervisor is gone", &mut out);
            }
            Input::Adopted(ack) => {
                let ack = AdoptAck { generation: self.generation, phase: 1, id: self.id(), ..ack };
                out.push(Action::Send(Message::AdoptAck(ack)));
            }
            Input::IncumbentDied => {
                self.incumbent_dead = true;
                if self.supervisor_gone {
                    self.on_loss("the supervisor is gone", &mut out);
                }
            }
            Input::IncumbentSeen { alive } => self.on_seen(alive, &mut out),
            Input::Warmed => self.on_warmed(&mut out),
            Input::Locked => {
                if let Some(phase) = self.at(Phase::Locking) {
                    *phase = Phase::Opening;
                }
            }
            Input::LockRefused(why) => self.on_lock_refused(why, &mut out),
            Input::Opened(readiness) => self.on_opened(readiness, &mut out),
            Input::Received(totals) => self.taken = totals,
            Input::TransferFailed(why) => self.on_transfer_failed(why, &mut out),
            Input::Progress(done, total) => self.progress = Some((done, total)),
            Input::Decided(value) => self.on_decided(value, &mut out),
            Input::Served { committed_ns, control } => self.on_served(committed_ns, control, &mut out),
            Input::Stop => self.withdraw("it was asked to stop".into(), &mut out),
            Input::Timer(timer) => self.on_timer(timer, &mut out),
        }
        out
    }

    fn on_message(&mut self, message: Message, out: &mut Vec<Action>) {
        let named = message.id();
        match message {
            Message::HelloAck(ack) if self.phase == Phase::AwaitAck => {
                let Some(terms) = ack.terms else {
                    return self.abandon("the supervisor takes this process for a cold start".into(), out);
                };
                self.terms = Some(terms);
                self.generation = ack.generation;
                self.phase = Phase::Warming;
                out.extend([Action::Disarm(Timer::Ack), Action::Arm(Timer::Deadline), Action::Arm(Timer::Heartbeat)]);
                if self.warmed {
                    self.on_warmed(out);
                }
            }
            Message::Reject(reject) if self.uncommitted() => {
                self.abandon(format!("the supervisor refuses this process: {}", reject.text), out);
            }
            _ if self.phase == Phase::Aborted => {}
            Message::Begin(_) | Message::Committed(_) | Message::Abort(_) if self.is_crossing(named) => {}
            // Hello was late: S gave up before it could tell us the terms.
            Message::Abort(m) if self.phase == Phase::AwaitAck => self.abandon(m.reason, out),
            Message::Begin(Begin { id, sealed }) if id == self.id() && self.phase == Phase::AwaitBegin => {
                self.lock(sealed, out);
            }
            Message::Committed(m) if m.id == self.id() && self.phase == Phase::AwaitCommitted => {
                let deadline_ns = self.terms.map(|terms| terms.deadline_ns);
                self.commit(deadline_ns, out);
            }
            Message::Abort(m) if m.id == self.id() && self.uncommitted() => self.abandon(m.reason, out),
            other => {
                let phase = self.phase.name();
                out.push(Action::EndSession(Violation { message: other.name(), phase, id: named }));
                self.supervisor_gone = true;
                self.on_loss("the supervisor broke the protocol", out);
            }
        }
    }

    /// Whether nothing is left to do about a message: of an older handoff, or because N is giving up or has won.
    fn is_crossing(&self, id: HandoffId) -> bool {
        let older = id != HandoffId::COLD && id < self.id();
        let decided = matches!(self.phase, Phase::Looking | Phase::Revoking) || !self.uncommitted();
        older || id == self.id() && decided
    }

    fn on_warmed(&mut self, out: &mut Vec<Action>) {
        self.warmed = true;
        if self.phase != Phase::Warming {
            return;
        }
        if self.alone() {
            return self.lock(Sealed::Recover, out);
        }
        self.phase = Phase::AwaitBegin;
        out.push(Action::Send(Message::Warmed(Warmed { id: self.id() })));
    }

    fn lock(&mut self, sealed: Sealed, out: &mut Vec<Action>) {
        self.phase = Phase::Locking;
        if let Sealed::Complete { revisions, .. } = &sealed {
            self.sealed = Some(revisions.clone());
        }
        out.push(Action::TakeLock(sealed));
    }

    /// The phase to change when the application moves on from `phase`; it may do so while N looks at O.
    fn at(&mut self, phase: Phase) -> Option<&mut Phase> {
        if self.phase == phase {
            Some(&mut self.phase)
        } else if self.phase == Phase::Looking && self.back == phase {
            Some(&mut self.back)
        } else {
            None
        }
    }

    fn on_lock_refused(&mut self, why: String, out: &mut Vec<Action>) {
        if self.at(Phase::Locking).is_none() {
            return;
        }
        let readiness = Readiness { unhealthy: true, detail: why.clone(), ..Readiness::default() };
        out.push(Action::Send(self.ready(readiness)));
        self.withdraw(why, out);
    }

    fn ready(&self, readiness: Readiness) -> Message {
        Message::Ready(Ready { id: self.id(), readiness, taken: self.taken })
    }

    /// What is lost can not be had again; O still has it.
    fn on_transfer_failed(&mut self, why: String, out: &mut Vec<Action>) {
        if self.terms.is_some() && self.uncommitted() && self.phase != Phase::Revoking {
            out.push(Action::Send(Message::Reject(Reject { code: RejectCode::Unable, text: why.clone() })));
            self.withdraw(why, out);
        }
    }

    fn on_opened(&mut self, readiness: Readiness, out: &mut Vec<Action>) {
        let Some(phase) = self.at(Phase::Opening) else { return };
        *phase = Phase::AwaitCommitted;
        self.readiness = readiness.clone();
        if self.phase != Phase::AwaitCommitted {
            return;
        }
        if !self.alone() {
            return out.push(Action::Send(self.ready(readiness)));
        }
        self.promote(out);
    }

    /// Commits without S, or withdraws if the application could not serve, or has not opened all that O sealed.
    fn promote(&mut self, out: &mut Vec<Action>) {
        if self.readiness.unhealthy {
            return self.withdraw(format!("it could not serve: {}", self.readiness.detail), out);
        }
        let complete = self.sealed.as_ref().map_or(Ok(()), |sealed| check_revisions(sealed, &self.readiness.revisions));
        if let Err(reason) = complete {
            return self.withdraw(reason, out);
        }
        self.commit(None, out);
    }

    fn commit(&mut self, deadline_ns: Option<u64>, out: &mut Vec<Action>) {
        self.phase = Phase::Committing;
        let incompatible = self.readiness.format_changes;
        out.push(Action::Decide(Decide::Commit { incompatible, deadline_ns }));
    }

    /// S is gone: goes on alone if O is dead, and leaves the service to O otherwise.
    fn on_loss(&mut self, reason: &str, out: &mut Vec<Action>) {
        if !self.incumbent_dead {
            return self.leave(reason, out);
        }
        match self.phase {
            Phase::Warming if self.warmed => self.on_warmed(out),
            Phase::AwaitBegin => self.lock(Sealed::Recover, out),
            Phase::AwaitCommitted => self.promote(out),
            _ => {} // on_warmed, on_opened and on_seen go on from here
        }
    }

    /// Leaves the service to O; but looks first, as the last act before the swap, whether O lives.
    fn leave(&mut self, reason: &str, out: &mut Vec<Action>) {
        if !self.uncommitted() || matches!(self.phase, Phase::Looking | Phase::Revoking) {
            return;
        }
        if self.terms.is_none() {
            return self.abandon(reason.into(), out);
        }
        self.reason = reason.into();
        self.back = self.phase;
        self.phase = Phase::Looking;
        out.push(Action::Look);
    }

    /// Can not serve, whoever else is left: revokes the word, so that nobody waits for it.
    fn withdraw(&mut self, reason: String, out: &mut Vec<Action>) {
        if !self.uncommitted() || self.phase == Phase::Revoking {
            return;
        }
        if self.terms.is_none() {
            return self.abandon(reason, out);
        }
        self.reason = reason;
        self.phase = Phase::Revoking;
        out.push(Action::Decide(Decide::Revoke));
    }

    fn on_seen(&mut self, alive: bool, out: &mut Vec<Action>) {
        if self.phase != Phase::Looking {
            return;
        }
        self.incumbent_dead |= !alive;
        if !self.alone() {
            let reason = std::mem::take(&mut self.reason);
            return self.withdraw(reason, out);
        }
        self.phase = self.back;
        self.on_loss("", out);
    }

    fn on_decided(&mut self, value: Decision, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Committing if value.is_committed() => {
                self.phase = Phase::Won;
                out.extend([Action::Disarm(Timer::Deadline), Action::Publish]);
            }
            Phase::Committing if value == Decision::Open => {
                // Too late; but first it must be known whether N is the last. A timer fires after the queue is read.
                self.phase = Phase::AwaitCommitted;
                if self.alone() {
                    return self.promote(out);
                }
                out.push(Action::Arm(Timer::Deadline));
            }
            Phase::Committing => self.abandon("the handoff was revoked".into(), out),
            Phase::Revoking => {
                let reason = std::mem::take(&mut self.reason);
                self.abandon(reason, out);
            }
            _ => {}
        }
    }

    fn on_served(&mut self, committed_ns: u64, control: Result<(), String>, out: &mut Vec<Action>) {
        if self.phase != Phase::Won {
            return;
        }
        self.phase = Phase::Serving;
        let serving = Message::Serving(Serving { id: self.id(), committed_ns, control });
        out.extend([Action::Disarm(Timer::Heartbeat), Action::Tell(serving.clone()), Action::Send(serving)]);
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match timer {
            Timer::Ack if self.phase == Phase::AwaitAck => {
                self.abandon("the supervisor did not answer Hello".into(), out);
            }
            Timer::Deadline if !self.alone() => self.leave("the handoff's deadline is past", out),
            Timer::Heartbeat if self.terms.is_some() && !matches!(self.phase, Phase::Serving | Phase::Aborted) => {
                let heartbeat = Heartbeat { id: self.id(), progress: self.progress };
                out.extend([Action::Send(Message::Heartbeat(heartbeat)), Action::Arm(Timer::Heartbeat)]);
            }
            _ => {}
        }
    }

    fn abandon(&mut self, reason: String, out: &mut Vec<Action>) {
        self.phase = Phase::Aborted;
        out.extend([
            Action::Disarm(Timer::Ack),
            Action::Disarm(Timer::Deadline),
            Action::Disarm(Timer::Heartbeat),
            Action::Abandon(reason),
        ]);
    }
}

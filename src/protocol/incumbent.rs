//! O: the process that serves now.

use super::message::{
    Commit, Drained, Fingerprint, Heartbeat, Hello, Message, Mode, PrepareHandoff, Readiness, Ready, Reject,
    RejectCode, ResumeAfterAbort, Resumed, SealComplete, SealFailed, SealProgress, SealRequest, SealStep, Serving,
    Stopping,
};
use super::{Decide, Decision, HandoffId, Violation};

/// Where O is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A cold start that does not serve yet.
    Starting,
    /// Serves.
    Serving,
    /// The application drains.
    Draining,
    /// Drained is sent.
    Drained,
    /// The application seals.
    Sealing,
    /// The driver gives the gate to N and releases the lock.
    Unlocking,
    /// SealComplete is sent: the data is not ours.
    Sealed,
    /// SealFailed is sent; the lock is held.
    Failed,
    /// Asked for a swap to revoked.
    Fencing,
    /// N has committed and lives: waits until it serves, or is dead.
    AwaitServing,
    /// The word is revoked, N is being killed: waits for its pidfd.
    AwaitDeath,
    /// Takes the lock back.
    Locking,
    /// The application reopens the data.
    Resuming,
    /// The data belongs to N: exit without touching anything.
    Replaced,
    /// Can not take over again: exit.
    Lost,
}

impl Phase {
    /// The phase's name in logs and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Sealing => "sealing",
            Self::Unlocking => "unlocking",
            Self::Sealed => "sealed",
            Self::Failed => "waiting for the abort",
            Self::Fencing => "fencing",
            Self::AwaitServing => "waiting for the successor to serve",
            Self::AwaitDeath => "waiting for the successor's death",
            Self::Locking => "locking",
            Self::Resuming => "resuming",
            Self::Replaced => "replaced",
            Self::Lost => "unable to resume",
        }
    }
}

/// The timers of O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The drain is late: its grace, or the handoff's deadline if that is sooner.
    Drain,
    /// The whole handoff is late, and the slack for an answer on the wire is over, too.
    Deadline,
    /// Say that we are alive.
    Heartbeat,
    /// Try the lock again.
    Lock,
}

/// What the application does for a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Stop accepting, finish, make acknowledged writes durable.
    Drain,
    /// Flush and close the writers.
    Seal,
    /// Reopen, accept again.
    Resume,
}

/// What happens to O.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A cold start has a session: say Hello.
    Start(Hello),
    /// The application of a cold start is ready.
    Ready(Readiness),
    /// The application of a cold start serves.
    Served {
        /// Absolute `CLOCK_MONOTONIC` nanoseconds.
        now_ns: u64,
        /// Whether the control path is in its place.
        control: Result<(), String>,
    },
    /// S said this.
    Message(Message),
    /// S sent PrepareHandoff, but what came with it can not be used.
    Unable(HandoffId, String),
    /// The session has ended, and its queue is read to the end.
    SupervisorGone,
    /// N's Serving came on the transfer socket, or the page says so.
    SuccessorServing,
    /// N's pidfd is readable.
    SuccessorDied,
    /// The drain hook has succeeded.
    Drained {
        /// Connections still open.
        connections_open: u32,
        /// When accepting stopped.
        accept_stopped_ns: u64,
    },
    /// The seal hook has succeeded, and no writer is inside.
    Sealed(Vec<u64>),
    /// The resume hook has succeeded.
    Resumed,
    /// The hook that runs has failed.
    HookFailed(String),
    /// The hook that runs progresses: done and total.
    Progress(u64, u64),
    /// The answer to [`Action::ReleaseLock`].
    Unlocked(Fingerprint),
    /// The answer to [`Action::ReleaseLock`]: why the lock is still held.
    UnlockFailed(String),
    /// The answer to [`Action::TakeLock`].
    Locked,
    /// The answer to [`Action::TakeLock`]: who holds it.
    LockRefused(String),
    /// The value of the decision word after [`Action::Decide`].
    Decided(Decision),
    /// The application asked to stop.
    Stop,
    /// A timer fired.
    Timer(Timer),
}

/// What the driver of O must do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send this to S; nothing if the session is gone.
    Send(Message),
    /// Start this timer anew.
    Arm(Timer),
    /// Stop this timer.
    Disarm(Timer),
    /// Run this hook, once the one before it has returned.
    Run(Hook),
    /// Tell the hook that runs that its answer is not wanted any more.
    Cancel,
    /// Give the gate to N on the transfer socket, then release the lock. Answer: `Unlocked` or `UnlockFailed`.
    ReleaseLock,
    /// Take the lock. Answer: `Locked` or `LockRefused`.
    TakeLock,
    /// Compare-and-swap the decision word. Answer: `Decided`.
    Decide(Decide),
    /// SIGKILL N by its pidfd.
    KillSuccessor,
    /// Set the page's `retired`: this process will never serve again.
    Retire,
    /// The handoff is over: close what belonged to it, and bind the control path again if it is not ours.
    Release,
    /// The application must exit; with a reason if that is not because N serves.
    Exit(Option<String>),
    /// The session makes no sense any more: close it.
    EndSession(Violation),
}

/// The handoff that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Current {
    id: HandoffId,
    /// The lock is released.
    unlocked: bool,
    successor_dead: bool,
    successor_serving: bool,
    progress: Option<(u64, u64)>,
    /// S was lost while the lock was being released: fence as soon as it is known whether it is.
    fence_next: bool,
}

/// The machine of O.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Incumbent {
    phase: Phase,
    generation: u64,
    /// The newest handoff that was seen: what is older, or equal and not current, is finished.
    newest: HandoffId,
    current: Option<Current>,
    readiness: Readiness,
    revisions: Vec<u64>,
    /// Messages of finished handoffs that were dropped.
    dropped: u64,
}

impl Incumbent {
    /// A cold start that has said nothing yet.
    pub fn cold() -> Self {
        Self {
            phase: Phase::Starting,
            generation: 0,
            newest: HandoffId::COLD,
            current: None,
            readiness: Readiness::default(),
            revisions: Vec::new(),
            dropped: 0,
        }
    }

    /// A successor that has committed handoff `id` and serves.
    pub fn committed(generation: u64, id: HandoffId) -> Self {
        Self { phase: Phase::Serving, generation, newest: id, ..Self::cold() }
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Which process of the service it is; 0 before S has said so.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The handoff that is under way.
    pub fn handoff(&self) -> Option<HandoffId> {
        self.current.as_ref().map(|current| current.id)
    }

    /// Messages of finished handoffs that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn id(&self) -> HandoffId {
        self.handoff().unwrap_or(self.newest)
    }

    /// Takes an input; returns what must be done, in order.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Start(hello) => out.push(Action::Send(Message::Hello(hello))),
            Input::Ready(readiness) => self.on_ready(readiness, &mut out),
            Input::Served { now_ns, control } => self.on_served(now_ns, control, &mut out),
            Input::Message(message) => self.on_message(message, &mut out),
            Input::Unable(id, text) => self.on_unable(id, text, &mut out),
            Input::SupervisorGone => self.fence(&mut out),
            Input::SuccessorServing => self.on_successor(|current| current.successor_serving = true, &mut out),
            Input::SuccessorDied => self.on_successor(|current| current.successor_dead = true, &mut out),
            Input::Drained { connections_open, accept_stopped_ns } => {
                self.on_drained(connections_open, accept_stopped_ns, &mut out);
            }
            Input::Sealed(revisions) => self.on_sealed(revisions, &mut out),
            Input::Resumed => self.on_resumed(&mut out),
            Input::HookFailed(error) => self.on_hook_failed(error, &mut out),
            Input::Progress(done, total) => self.on_progress(done, total, &mut out),
            Input::Unlocked(fingerprint) => self.on_unlocked(fingerprint, &mut out),
            Input::UnlockFailed(error) => self.on_unlock_failed(error, &mut out),
            Input::Locked => self.on_locked(&mut out),
            Input::LockRefused(_) => {
                // N is dead, so a child that it left behind, or a stranger, has the lock: it is named in the log.
                if self.phase == Phase::Locking {
                    out.push(Action::Arm(Timer::Lock));
                }
            }
            Input::Decided(value) => self.on_decided(value, &mut out),
            Input::Stop => self.on_stop(&mut out),
            Input::Timer(timer) => self.on_timer(timer, &mut out),
        }
        out
    }

    fn on_ready(&mut self, readiness: Readiness, out: &mut Vec<Action>) {
        if self.phase == Phase::Starting {
            self.readiness = readiness.clone();
            out.push(Action::Send(Message::Ready(Ready { id: HandoffId::COLD, readiness })));
        }
    }

    fn on_served(&mut self, now_ns: u64, control: Result<(), String>, out: &mut Vec<Action>) {
        if self.phase == Phase::Starting {
            self.phase = Phase::Serving;
            let serving = Serving { id: HandoffId::COLD, committed_ns: now_ns, control };
            out.push(Action::Send(Message::Serving(serving)));
        }
    }

    fn on_message(&mut self, message: Message, out: &mut Vec<Action>) {
        let id = message.id();
        match (self.phase, message) {
            (Phase::Starting | Phase::Serving, Message::HelloAck(ack))
                if ack.terms.is_none() && self.generation == 0 =>
            {
                self.generation = ack.generation;
            }
            (Phase::Starting | Phase::Serving, Message::Reject(_)) => {} // the log has it; the daemon serves unsupervised
            (Phase::Serving, Message::PrepareHandoff(prepare)) if id > self.newest => self.on_prepare(&prepare, out),
            (Phase::Drained, Message::SealRequest(SealRequest { id })) if id == self.id() => {
                self.phase = Phase::Sealing;
                out.push(Action::Run(Hook::Seal));
            }
            (Phase::Sealed, Message::Commit(Commit { id })) if id == self.id() => self.on_commit(out),
            (Phase::Fencing | Phase::AwaitServing, Message::Commit(Commit { id })) if id == self.id() => {
                self.on_successor(|current| current.successor_serving = true, out);
            }
            (_, Message::ResumeAfterAbort(ResumeAfterAbort { id })) if id <= self.newest => self.on_abort(id, out),
            // Crossings: of a finished handoff, or of one that O has left by itself.
            (_, Message::PrepareHandoff(_) | Message::SealRequest(_) | Message::Commit(_)) if self.is_crossing(id) => {
                self.dropped += 1;
            }
            (phase, other) => {
                let violation = Violation { message: other.name(), phase: phase.name(), id };
                out.push(Action::EndSession(violation));
                self.fence(out);
            }
        }
    }

    /// Whether a message of handoff `id` may arrive although nothing waits for it.
    fn is_crossing(&self, id: HandoffId) -> bool {
        let finished = id < self.id() || self.current.is_none() && id <= self.newest;
        let leaving = !matches!(self.phase, Phase::Serving | Phase::Draining | Phase::Drained | Phase::Sealing);
        finished || id == self.id() && leaving
    }

    fn on_unable(&mut self, id: HandoffId, text: String, out: &mut Vec<Action>) {
        self.newest = self.newest.max(id);
        out.push(Action::Send(Message::Reject(Reject { code: RejectCode::Unable, text })));
        out.push(Action::Release);
    }

    fn on_prepare(&mut self, prepare: &PrepareHandoff, out: &mut Vec<Action>) {
        if prepare.mode != Mode::Exclusive {
            return self.on_unable(prepare.id, "this library knows no overlap mode yet".into(), out);
        }
        self.newest = prepare.id;
        self.current = Some(Current {
            id: prepare.id,
            unlocked: false,
            successor_dead: false,
            successor_serving: false,
            progress: None,
            fence_next: false,
        });
        self.phase = Phase::Draining;
        out.extend([
            Action::Arm(Timer::Deadline),
            Action::Arm(Timer::Drain),
            Action::Arm(Timer::Heartbeat),
            Action::Run(Hook::Drain),
        ]);
    }

    fn on_drained(&mut self, connections_open: u32, accept_stopped_ns: u64, out: &mut Vec<Action>) {
        if self.phase == Phase::Draining {
            self.phase = Phase::Drained;
            let drained = Drained { id: self.id(), connections_open, accept_stopped_ns };
            out.extend([Action::Disarm(Timer::Drain), Action::Send(Message::Drained(drained))]);
        }
    }

    fn on_sealed(&mut self, revisions: Vec<u64>, out: &mut Vec<Action>) {
        if self.phase == Phase::Sealing {
            self.phase = Phase::Unlocking;
            self.revisions = revisions;
            out.push(Action::ReleaseLock);
        }
    }

    fn on_unlocked(&mut self, fingerprint: Fingerprint, out: &mut Vec<Action>) {
        if let Some(current) = &mut self.current {
            current.unlocked = true;
        }
        if self.phase == Phase::Unlocking {
            self.phase = Phase::Sealed;
            if self.current.as_ref().is_some_and(|current| current.fence_next) {
                return self.fence(out);
            }
            let revisions = std::mem::take(&mut self.revisions);
            let complete = SealComplete { id: self.id(), revisions, fingerprint };
            out.push(Action::Send(Message::SealComplete(complete)));
        }
    }

    fn on_unlock_failed(&mut self, error: String, out: &mut Vec<Action>) {
        if self.phase == Phase::Unlocking {
            self.fail(SealStep::Seal, error, out);
            if self.current.as_ref().is_some_and(|current| current.fence_next) {
                self.fence(out);
            }
        }
    }

    fn on_hook_failed(&mut self, error: String, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Draining => self.fail(SealStep::Drain, error, out),
            Phase::Sealing => self.fail(SealStep::Seal, error, out),
            Phase::Resuming => {
                let resumed = Resumed { id: self.id(), error: Some(error.clone()) };
                out.push(Action::Send(Message::Resumed(resumed)));
                self.lose(format!("it could not resume: {error}"), out);
            }
            _ => {}
        }
    }

    /// Tells S that the hook failed, and waits for its ResumeAfterAbort, its end or the deadline.
    fn fail(&mut self, step: SealStep, error: String, out: &mut Vec<Action>) {
        self.phase = Phase::Failed;
        let failed = SealFailed { id: self.id(), step, error };
        out.extend([Action::Disarm(Timer::Drain), Action::Send(Message::SealFailed(failed))]);
    }

    fn on_progress(&mut self, done: u64, total: u64, out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        current.progress = Some((done, total));
        if self.phase == Phase::Sealing {
            let progress = SealProgress { id: self.id(), done, total };
            out.push(Action::Send(Message::SealProgress(progress)));
        }
    }

    /// S says that N serves. N may have died since: then O is the one to go on.
    fn on_commit(&mut self, out: &mut Vec<Action>) {
        if self.current.as_ref().is_some_and(|current| current.successor_dead) {
            return self.fence(out);
        }
        self.retire(out);
    }

    fn on_abort(&mut self, id: HandoffId, out: &mut Vec<Action>) {
        match self.phase {
            // Idempotent: it may have resumed by itself, or never have heard of this handoff.
            Phase::Serving => out.push(Action::Send(Message::Resumed(Resumed { id, error: None }))),
            _ if id == self.id() => self.fence(out),
            _ => self.dropped += 1,
        }
    }

    fn on_stop(&mut self, out: &mut Vec<Action>) {
        if self.current.is_none() {
            return;
        }
        out.push(Action::Send(Message::Stopping(Stopping { id: self.id() })));
        if matches!(self.phase, Phase::Draining | Phase::Drained | Phase::Failed) {
            self.fence(out);
        }
    }

    /// Whoever wants to resume must first win the word from N.
    fn fence(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Draining | Phase::Sealing => out.push(Action::Cancel),
            Phase::Drained | Phase::Sealed | Phase::Failed => {}
            Phase::Unlocking => {
                if let Some(current) = &mut self.current {
                    current.fence_next = true;
                }
                return;
            }
            _ => return, // serves, is fencing already, or is past it
        }
        self.phase = Phase::Fencing;
        out.extend([Action::Disarm(Timer::Drain), Action::Decide(Decide::Revoke)]);
    }

    fn on_decided(&mut self, value: Decision, out: &mut Vec<Action>) {
        let (Phase::Fencing, Some(current)) = (self.phase, &self.current) else { return };
        match value {
            Decision::Committed | Decision::CommittedIncompatible if !current.successor_dead => {
                self.phase = Phase::AwaitServing;
                self.on_successor(|_| {}, out);
            }
            Decision::Committed => self.take_lock(out),
            Decision::CommittedIncompatible => {
                self.lose("the successor changed the format of the data and died".into(), out);
            }
            Decision::Revoked | Decision::Open => {
                self.phase = Phase::AwaitDeath;
                out.push(Action::KillSuccessor);
                self.on_successor(|_| {}, out);
            }
        }
    }

    fn on_successor(&mut self, note: impl FnOnce(&mut Current), out: &mut Vec<Action>) {
        let Some(current) = &mut self.current else { return };
        note(current);
        match self.phase {
            Phase::AwaitServing if current.successor_dead => {
                // The word says which kind of commit it was; it can not change any more.
                self.phase = Phase::Fencing;
                out.push(Action::Decide(Decide::Revoke));
            }
            Phase::AwaitServing if current.successor_serving => self.retire(out),
            Phase::AwaitDeath if current.successor_dead => self.take_lock(out),
            _ => {}
        }
    }

    fn take_lock(&mut self, out: &mut Vec<Action>) {
        let unlocked = self.current.as_ref().is_some_and(|current| current.unlocked);
        self.phase = Phase::Locking;
        if unlocked { out.push(Action::TakeLock) } else { self.on_locked(out) }
    }

    fn on_locked(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Locking {
            self.phase = Phase::Resuming;
            out.extend([Action::Disarm(Timer::Lock), Action::Run(Hook::Resume)]);
        }
    }

    fn on_resumed(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Resuming {
            let resumed = Resumed { id: self.id(), error: None };
            self.phase = Phase::Serving;
            self.current = None;
            self.quiet(out);
            // The control path is bound again before anybody hears that O serves.
            out.extend([Action::Release, Action::Send(Message::Resumed(resumed))]);
        }
    }

    fn retire(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Replaced;
        self.quiet(out);
        out.extend([Action::Retire, Action::Exit(None)]);
    }

    fn lose(&mut self, reason: String, out: &mut Vec<Action>) {
        self.phase = Phase::Lost;
        self.quiet(out);
        out.push(Action::Exit(Some(reason)));
    }

    fn quiet(&self, out: &mut Vec<Action>) {
        let timers = [Timer::Drain, Timer::Deadline, Timer::Heartbeat, Timer::Lock];
        out.extend(timers.map(Action::Disarm));
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match timer {
            Timer::Drain if self.phase == Phase::Draining => {
                out.push(Action::Cancel);
                self.fail(SealStep::Drain, "the drain took longer than its grace".into(), out);
            }
            Timer::Deadline => self.fence(out),
            Timer::Heartbeat => {
                let Some(current) = &self.current else { return };
                let heartbeat = Heartbeat { id: current.id, progress: current.progress };
                out.extend([Action::Send(Message::Heartbeat(heartbeat)), Action::Arm(Timer::Heartbeat)]);
            }
            Timer::Lock if self.phase == Phase::Locking => out.push(Action::TakeLock),
            _ => {}
        }
    }
}

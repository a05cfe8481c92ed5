//! O: the process that serves now.
//!
//! What it says and hears is in `session`, its application and the lock in `hooks`, who goes on in `fence`, and how it waits
//! behind a commit in `probation`; what is different when both serve at once is in `overlap`.

mod fence;
mod hooks;
mod overlap;
mod probation;
mod session;

use super::message::{AdoptAck, Fingerprint, Hello, Message, Mode, Readiness};
use super::{Decide, Decision, HandoffId, Violation};

/// Where O is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A cold start that does not serve yet.
    Starting,
    /// Serves.
    Serving,
    /// Overlap mode: Announced is sent, or about to be. Serves on, as in each phase up to [`Phase::Leaving`].
    Announced,
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
    /// N serves: looks at its pidfd, as the last act before it is replaced.
    Looking,
    /// N serves, and O is its reserve: sealed, without the lock, until N is dead or the probation is over.
    Parked,
    /// The word is revoked, N is being killed: waits for its pidfd.
    AwaitDeath,
    /// Takes the lock back.
    Locking,
    /// The application reopens the data.
    Resuming,
    /// Overlap mode: N serves, the application drains for the last time.
    Leaving,
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
            Self::Announced => "announced",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Sealing => "sealing",
            Self::Unlocking => "unlocking",
            Self::Sealed => "sealed",
            Self::Failed => "waiting for the abort",
            Self::Fencing => "fencing",
            Self::AwaitServing => "waiting for the successor to serve",
            Self::Looking => "retiring",
            Self::Parked => "parked",
            Self::AwaitDeath => "waiting for the successor's death",
            Self::Locking => "locking",
            Self::Resuming => "resuming",
            Self::Leaving => "leaving",
            Self::Replaced => "replaced",
            Self::Lost => "unable to resume",
        }
    }

    /// The same for a supervisor, as [`AdoptAck::phase`] has it.
    fn number(self) -> u8 {
        match self {
            Self::Starting => 0,
            Self::Serving => AdoptAck::SERVING,
            Self::Announced | Self::Draining | Self::Drained | Self::Failed => 3,
            Self::Sealing | Self::Unlocking => 4,
            Self::Sealed
            | Self::Fencing
            | Self::AwaitServing
            | Self::Looking
            | Self::Parked
            | Self::AwaitDeath
            | Self::Locking => 5,
            Self::Resuming => 6,
            Self::Leaving | Self::Replaced | Self::Lost => 7,
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
    /// The probation is over: its time, and the slack for S to end it.
    Park,
}

/// What the application does for a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Stop accepting, finish, make acknowledged writes durable.
    Drain,
    /// Flush and close the writers.
    Seal,
    /// Reopen, accept again.
    Resume {
        /// N had committed, and is dead: what was given to it stays given, and its clients may have been answered.
        after_commit: bool,
    },
    /// Overlap mode: N serves. Stop accepting and finish; there is no way back, and this process ends with it.
    Leave,
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
    /// Another supervisor takes this daemon over, on a new session; the one before is closed, and what was unread in it is
    /// lost. With the answer, which lacks what the machine knows.
    Adopted(AdoptAck),
    /// N's Serving came on the transfer socket, or the page says so.
    SuccessorServing,
    /// N's pidfd is readable.
    SuccessorDied,
    /// The answer to [`Action::Look`].
    SuccessorSeen {
        /// Whether N lives.
        alive: bool,
    },
    /// The answer to [`Action::SendGate`].
    GateSent,
    /// The answer to [`Action::SendGate`]: why not.
    GateFailed(String),
    /// The drain hook has succeeded, that of [`Hook::Leave`] too.
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
    /// A timer fired, and the session's queue is read to the end.
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
    /// Tell the hook that runs that its answer is not wanted any more; then do not give that answer to the machine.
    Cancel,
    /// Tell the application that it is a reserve: what was given to N is N's to use. No answer.
    Park,
    /// Give the gate to N on the transfer socket. Answer: `GateSent` or `GateFailed`.
    SendGate,
    /// Give the gate to N on the transfer socket, then release the lock. Answer: `Unlocked` or `UnlockFailed`.
    ReleaseLock,
    /// Take the lock. Answer: `Locked` or `LockRefused`.
    TakeLock,
    /// Look whether N's pidfd is readable. Answer: `SuccessorSeen`; what follows it must follow at once.
    Look,
    /// Compare-and-swap the decision word. Answer: `Decided`.
    Decide(Decide),
    /// SIGKILL N by its pidfd.
    KillSuccessor,
    /// Set the page's `retired`: this process will never serve again. In overlap mode, let go of the gate before that: whoever
    /// is started when N dies must not wait for the end of the drain.
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
    mode: Mode,
    /// The lock is released.
    unlocked: bool,
    successor_dead: bool,
    successor_serving: bool,
    /// The word was found to be so.
    committed: bool,
    progress: Option<(u64, u64)>,
    /// It parks behind the commit: so it was asked, and nothing has ended that.
    parks: bool,
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
            Input::Adopted(ack) => self.on_adopted(ack, &mut out),
            Input::SuccessorServing => self.on_successor(|current| current.successor_serving = true, &mut out),
            Input::SuccessorDied => self.on_successor(|current| current.successor_dead = true, &mut out),
            Input::SuccessorSeen { alive } => self.on_seen(alive, &mut out),
            Input::GateSent => self.on_gate_sent(&mut out),
            Input::GateFailed(error) => self.on_gate_failed(error, &mut out),
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
}

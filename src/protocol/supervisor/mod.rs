//! S: holds the listeners, spawns, and drives a handoff.
//!
//! The happy path is in `forward`, what leads away from it in `back`, the start of processes in `start`, a new session
//! with one that runs in `adopt`, and the time in which O is the reserve of an N that serves in `probation`; `overlap` has what is
//! different when both daemons serve at once.

mod adopt;
mod back;
mod forward;
mod overlap;
mod probation;
mod start;

pub use adopt::{Past, PastHandoff};

use super::message::{Fingerprint, Hello, Message, Terms};
use super::transfer::Room;
use super::{Decide, Decision, HandoffId, Violation};

/// The two daemons of a handoff. O is [`Peer::Incumbent`] until it is gone, also after the commit; but in a probation N is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Peer {
    /// O, and a cold start.
    Incumbent,
    /// N.
    Successor,
    /// O in a probation.
    Parked,
}

/// Where S is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Phase {
    /// No handoff is under way.
    Idle,
    /// A process was started without a predecessor; it does not serve yet.
    ColdStarting,
    /// N is being spawned.
    Spawning,
    /// N runs.
    AwaitHello,
    /// N loads what it can without the data.
    Warming,
    /// PrepareHandoff is sent, in overlap mode: O serves on.
    Announcing,
    /// PrepareHandoff is sent.
    Draining,
    /// SealRequest is sent.
    Sealing,
    /// Begin is sent.
    AwaitReady,
    /// Committed is sent.
    AwaitServing,
    /// Asked for a swap to revoked.
    Revoking,
    /// The word is revoked and N is killed or told to go; O is told to resume, if it was disturbed.
    RollingBack,
    /// N has committed and died; O is told to take over.
    Reverting,
    /// Commit is sent: waits until O is dead or retired.
    Retiring,
    /// Commit is sent, and N serves: O is parked, and goes on if N dies.
    Probation,
    /// EndProbation is sent: waits until O is dead or retired.
    Confirming,
}

impl Phase {
    /// The phase's name in logs, errors and `handoff status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::ColdStarting => "starting",
            Self::Spawning => "spawning",
            Self::AwaitHello => "waiting for Hello",
            Self::Warming => "warming",
            Self::Announcing => "announcing",
            Self::Draining => "draining",
            Self::Sealing => "sealing",
            Self::AwaitReady => "opening",
            Self::AwaitServing => "committing",
            Self::Revoking => "revoking",
            Self::RollingBack => "rolling back",
            Self::Reverting => "reverting",
            Self::Retiring => "retiring",
            Self::Probation => "probation",
            Self::Confirming => "confirming",
        }
    }
}

/// The timers of S.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Timer {
    /// A Hello is late.
    Hello,
    /// O's Drained is late: grace and slack.
    Drain,
    /// N's Ready is late.
    Ready,
    /// N's Serving is late.
    Serving,
    /// The whole handoff is late: deadline and slack. A cold start has a time of its own.
    Deadline,
    /// No frame from the peer that owes one.
    Liveness(Peer),
    /// The session has ended, but its process lives.
    Lost(Peer),
    /// N was told to go, but is still there.
    AbortGrace,
    /// A retired O is still there.
    Retire,
    /// An O that is told to go on has no session yet.
    Adoption,
    /// The probation is over.
    Probation,
}

/// How a handoff ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Verdict {
    /// N serves.
    Committed,
    /// O serves.
    RolledBack,
    /// N had committed and died; O serves again.
    Reverted,
    /// Nobody was left, or nobody was there yet: a new process was started and serves.
    StartedCold,
    /// Nothing was disturbed.
    Refused,
    /// Not known at the deadline; S goes on.
    Undecided,
    /// Nobody was left, or nobody was there yet, and the new process did not come to serve.
    Failed,
}

/// What to do when O dies before it has sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum OnIncumbentDeath {
    /// Give N up, and start O's program again.
    #[default]
    StartCold,
    /// Let N recover the data.
    Promote,
}

/// What is asked of a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Plan {
    /// What both daemons are told. The mode is decided when N says which it offers.
    pub terms: Terms,
    /// How long the drain may take, in nanoseconds.
    pub drain_grace_ns: u64,
    /// Whom to trust when O dies.
    pub on_incumbent_death: OnIncumbentDeath,
}

/// What S's driver knows of a process that said Hello, from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// The process that sent the message.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// The process that S started on this session.
    pub spawned_pid: u32,
    /// S's own time namespace; 0 if unknown.
    pub time_namespace: u64,
}

/// What happens to S.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Start a process without a predecessor.
    StartCold,
    /// The answer to [`Action::SpawnCold`]: it could not be executed.
    ColdSpawnFailed(String),
    /// The cold start is up, and never said Hello: it does not link the library.
    Up,
    /// This process of the service serves from here on, and does not link the library (see
    /// [`unlinked`](crate::protocol::unlinked)).
    Unlinked(u64),
    /// Replace the incumbent.
    StartHandoff(Plan),
    /// The answer to [`Action::SpawnSuccessor`].
    Spawned,
    /// The answer to [`Action::SpawnSuccessor`]: why not.
    SpawnFailed(String),
    /// Another supervisor is gone, and this is what it left; the first input of all. Its word can be decided, and its
    /// processes are watched.
    Resume(Past),
    /// A daemon said Hello.
    Hello(Peer, Hello, Sender),
    /// A daemon said anything else.
    Message(Peer, Message),
    /// What came is no message of this protocol; the driver has closed the session.
    Garbage(Peer, String),
    /// The session has ended, and its queue is read to the end.
    Gone(Peer),
    /// The process is dead, and its queue is read to the end; with its exit status and last lines of stderr.
    Died(Peer, String),
    /// O has set `retired` on the page; while S lets it take over again, only if it also drains on.
    Retired,
    /// N, whose session has ended, has set `serving` on the page.
    PageServing,
    /// The value of the decision word after [`Action::Decide`].
    Decided(Decision),
    /// The caller does not want this handoff any more.
    Cancel(String),
    /// The caller needs no reserve any more.
    EndProbation,
    /// The caller has found that the N of this probation is no good, and why.
    Condemn(String),
    /// A timer fired, and every queue is read to the end, and every death that can be seen was told.
    Timer(Timer),
}

/// What the driver of S must do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Start the incumbent's program. Answer: a Hello, `Died` or `ColdSpawnFailed`.
    SpawnCold,
    /// Create page and sockets and start N. Answer: `Spawned` or `SpawnFailed`.
    SpawnSuccessor,
    /// Send this; nothing if the session is gone.
    Send(Peer, Message),
    /// Connect to the control path until the incumbent, and nobody else, is there, or is dead. Answer, some time: its
    /// Hello.
    Adopt,
    /// Write to the journal that this handoff is open.
    OpenJournal,
    /// Write to the journal that no handoff is open.
    CloseJournal,
    /// Start this timer anew.
    Arm(Timer),
    /// Stop this timer.
    Disarm(Timer),
    /// Compare-and-swap the decision word. Answer: `Decided`.
    Decide(Decide),
    /// SIGKILL N. Only after the word was found revoked.
    KillSuccessor,
    /// SIGKILL O, which is sealed and silent, and can not be waited for. In a probation: N, which was condemned.
    KillIncumbent,
    /// A retired O does not exit: SIGTERM, and SIGKILL when it is asked for again.
    EvictIncumbent,
    /// N is the incumbent, and O is [`Peer::Parked`].
    Park,
    /// N is dead: O is the incumbent again.
    Unpark,
    /// A parked O that does not retire: SIGTERM, and SIGKILL when it is asked for again.
    EvictParked,
    /// The parked O is dead, or retired: then the driver evicts it, and says nothing of its end.
    Dismiss,
    /// N, if it lives, is the incumbent from here on. An O that is retired but lives is not the machine's any more: the driver
    /// evicts it, and says nothing of its end.
    Promote,
    /// What the caller of the handoff hears. A second report corrects an earlier one.
    Report(Verdict, String),
    /// Everything of this handoff may be closed.
    Release,
    /// The session makes no sense any more: close it.
    EndSession(Peer, Violation),
}

/// The handoff that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Current {
    plan: Plan,
    /// The journal says that this handoff is open.
    journalled: bool,
    prepared: bool,
    begun: bool,
    /// N has said that it will write in another format: O could not go on after it.
    format_changes: bool,
    /// The caller has condemned N in its probation.
    condemned: bool,
    /// Somebody refused to take part before anything was disturbed.
    rejected: bool,
    /// What O sealed, once it has.
    sealed: Option<(Vec<u64>, Fingerprint)>,
    incumbent_dead: bool,
    successor: Option<Linked>,
    successor_dead: bool,
    /// The session with N has ended.
    successor_lost: bool,
    resumed: bool,
    /// S has asked for a swap to revoked.
    asked: bool,
    /// The deadline is past.
    late: bool,
    undecided: bool,
    /// O has no session, and gets none.
    unreachable: bool,
    /// The first cause of the rollback.
    reason: String,
}

/// A daemon that has said Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Linked {
    uid: u32,
    capabilities: u32,
    room: Room,
    serving: bool,
}

/// The machine of S, for one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Supervisor {
    phase: Phase,
    generation: u64,
    /// The incumbent, if it links the library.
    incumbent: Option<Linked>,
    /// The session with the living incumbent is lost.
    incumbent_lost: bool,
    /// It is not looked for any more.
    estranged: bool,
    /// How often this incumbent was adopted since the last handoff.
    adoptions: u8,
    newest: HandoffId,
    current: Option<Current>,
    /// O in a probation.
    parked: Option<Linked>,
    /// It has no session.
    parked_lost: bool,
    dropped: u64,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// A service that runs no process.
    pub fn new() -> Self {
        Self {
            phase: Phase::Idle,
            generation: 0,
            incumbent: None,
            incumbent_lost: false,
            estranged: false,
            adoptions: 0,
            newest: HandoffId::COLD,
            current: None,
            parked: None,
            parked_lost: false,
            dropped: 0,
        }
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Which process of the service serves, or starts.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The handoff that is under way.
    pub fn handoff(&self) -> Option<HandoffId> {
        self.current.as_ref().map(|current| current.plan.terms.id)
    }

    /// Whether the incumbent has said Hello, and can still be talked to.
    pub fn incumbent_is_linked(&self) -> bool {
        self.incumbent.is_some() && !self.incumbent_lost
    }

    /// Whether the incumbent links the library: also if the session with it is lost, or came to nothing.
    pub fn incumbent_said_hello(&self) -> bool {
        self.incumbent.is_some() || self.incumbent_lost
    }

    /// Whether the incumbent has said that it serves.
    pub fn incumbent_serves(&self) -> bool {
        self.incumbent.is_some_and(|incumbent| incumbent.serving)
    }

    /// Whether the incumbent lives, but will not be talked to.
    pub fn incumbent_is_estranged(&self) -> bool {
        self.incumbent.is_some() && self.estranged
    }

    /// Messages of finished handoffs that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes an input; returns what must be done, in order.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::StartCold => self.start_cold(&mut out),
            Input::ColdSpawnFailed(error) => self.on_cold_failed(&error, &mut out),
            Input::Up => self.on_up(&mut out),
            Input::Unlinked(generation) => self.on_unlinked(generation),
            Input::StartHandoff(plan) => self.start_handoff(plan, &mut out),
            Input::Spawned => self.on_spawned(&mut out),
            Input::SpawnFailed(error) => self.on_spawn_failed(error, &mut out),
            Input::Resume(past) => self.on_resume(past, &mut out),
            Input::Hello(peer, hello, sender) => self.on_hello(peer, &hello, sender, &mut out),
            Input::Message(peer, message) => self.on_message(peer, message, &mut out),
            Input::Garbage(peer, error) => self.on_lost(peer, &error, &mut out),
            Input::Gone(peer) => self.on_gone(peer, &mut out),
            Input::Died(peer, status) => self.on_died(peer, &status, &mut out),
            Input::Retired => self.on_retired(&mut out),
            Input::PageServing => self.on_page_serving(&mut out),
            Input::Decided(value) => self.on_decided(value, &mut out),
            Input::Cancel(reason) => self.on_cancel(reason, &mut out),
            Input::EndProbation => self.end_probation(&mut out),
            Input::Condemn(reason) => self.condemn(reason, &mut out),
            Input::Timer(timer) => self.on_timer(timer, &mut out),
        }
        out
    }

    /// Moves on, and watches the peer that owes a frame in the new phase.
    fn enter(&mut self, phase: Phase, out: &mut Vec<Action>) {
        self.phase = phase;
        for peer in [Peer::Incumbent, Peer::Successor] {
            let timer = Timer::Liveness(peer);
            out.push(if self.owes(peer) { Action::Arm(timer) } else { Action::Disarm(timer) });
        }
    }

    /// Whether S waits for this peer, which sends heartbeats while it works.
    fn owes(&self, peer: Peer) -> bool {
        let disturbed = self.current.as_ref().is_some_and(|current| current.prepared && !current.resumed);
        match self.phase {
            Phase::Warming | Phase::AwaitReady | Phase::AwaitServing => peer == Peer::Successor,
            Phase::Announcing => peer == Peer::Incumbent,
            // O's drain and seal wait for an N that takes what it is given.
            Phase::Draining | Phase::Sealing => true,
            Phase::RollingBack | Phase::Reverting => peer == Peer::Incumbent && disturbed && !self.incumbent_lost,
            _ => false,
        }
    }

    /// Ends what is under way: nothing of it is left but the report.
    fn settle(&mut self, verdict: Verdict, reason: String, out: &mut Vec<Action>) {
        if let Some(current) = self.current.take() {
            if current.journalled {
                out.push(Action::CloseJournal);
            }
            out.push(Action::Release);
        }
        self.enter(Phase::Idle, out);
        let timers = [
            Timer::Hello,
            Timer::Drain,
            Timer::Ready,
            Timer::Serving,
            Timer::Deadline,
            Timer::AbortGrace,
            Timer::Retire,
            Timer::Adoption,
            Timer::Probation,
        ];
        out.extend(timers.map(Action::Disarm));
        out.push(Action::Report(verdict, reason));
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match timer {
            Timer::Hello => self.on_hello_late(out),
            Timer::Drain => self.abort("the incumbent did not finish its drain within the grace".into(), out),
            Timer::Ready => self.abort("the successor was not ready in time after Begin".into(), out),
            Timer::Serving => self.abort("the successor did not commit in time".into(), out),
            Timer::Deadline => self.on_late(out),
            Timer::Liveness(peer) => self.on_silence(peer, out),
            Timer::Lost(peer) => self.on_lost(peer, "the session ended, but its process lives", out),
            Timer::Adoption => self.on_unreachable(out),
            Timer::AbortGrace => self.on_abort_grace(out),
            Timer::Retire if self.phase == Phase::Retiring => {
                out.extend([Action::EvictIncumbent, Action::Arm(Timer::Retire)]);
            }
            Timer::Retire if self.phase == Phase::Confirming => {
                out.extend([Action::EvictParked, Action::Arm(Timer::Retire)]);
            }
            Timer::Probation => self.end_probation(out),
            Timer::Retire => {}
        }
    }
}

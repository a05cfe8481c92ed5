//! What the three processes say to each other.

mod adoption;

pub use super::attachment::Attachment;
pub use super::capability::{self, Mode};
use super::codec::{Decode, Encode};
use super::transfer::{Connections, Room, State, Taken, Totals};
pub use adoption::{Adopt, AdoptAck, AdoptListeners};
use std::fmt;

/// The oldest version of the protocol that this library speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version of the protocol that this library speaks.
pub const VERSION_MAX: u16 = 1;

/// The newest version that this library and a peer, which speaks `min` to `max`, both speak.
pub fn common_version(min: u16, max: u16) -> Option<u16> {
    (min <= VERSION_MAX && max >= VERSION_MIN).then(|| max.min(VERSION_MAX))
}

/// Names a handoff: the `CLOCK_MONOTONIC` nanoseconds of its creation, so that ids increase through one boot.
///
/// Smaller than the newest one seen means finished. Zero is no handoff: a cold start.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct HandoffId(pub u64);

impl HandoffId {
    /// The id in the messages of a cold start.
    pub const COLD: Self = Self(0);
}

impl fmt::Display for HandoffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who says Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// A daemon that serves, or starts without a predecessor.
    Incumbent,
    /// A daemon that waits for Begin.
    Successor,
}

/// The first message of a daemon on a session. Its layout never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// Who speaks.
    pub side: Side,
    /// The daemon's pid as it sees itself.
    pub pid: u32,
    /// The oldest version that it speaks.
    pub version_min: u16,
    /// The newest version that it speaks.
    pub version_max: u16,
    /// Bits of [`capability`].
    pub capabilities: u32,
    /// Which process of this service it is; 0 if it does not know.
    pub generation: u64,
    /// How many descriptors it has open.
    pub open_descriptors: u32,
    /// How many it may have open, its hard `RLIMIT_NOFILE`; 0 if it does not say. An extension.
    pub descriptors_max: u64,
    /// The inode of its time namespace: absolute deadlines mean nothing across two of them. 0 if unknown.
    pub time_namespace: u64,
    /// For people: which build this is.
    pub build_id: Vec<u8>,
}

/// The answer to Hello. Its layout never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HelloAck {
    /// The version that both will speak.
    pub version: u16,
    /// Which process of this service the daemon is.
    pub generation: u64,
    /// For a successor: the handoff. Three descriptors come with it, see [`Message::attachments`].
    pub terms: Option<Terms>,
}

/// What a successor needs to know of its handoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Terms {
    /// The handoff.
    pub id: HandoffId,
    /// Exclusive or overlap.
    pub mode: Mode,
    /// When the whole handoff is late: absolute `CLOCK_MONOTONIC` nanoseconds.
    pub deadline_ns: u64,
    /// How long O parks after the commit, in nanoseconds.
    pub park_ns: u64,
    /// How many descriptors O has open, beside the listeners, for which N makes room; 0 if that is unknown. An extension.
    pub open_descriptors: u32,
}

/// Why somebody was refused before anything was disturbed. The numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectCode {
    /// No version of the protocol in common.
    Version,
    /// An incumbent where a successor was expected, or the reverse.
    Role,
    /// Not the process that was started.
    Pid,
    /// Another user.
    Uid,
    /// Another time namespace.
    TimeNamespace,
    /// The handoff can not be taken part in: the text says why.
    Unable,
}

/// A refusal, before anything was disturbed. Its layout never changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reject {
    /// Why, for programs.
    pub code: RejectCode,
    /// Why, for people.
    pub text: String,
}

/// N has loaded all it can without the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Warmed {
    /// The handoff.
    pub id: HandoffId,
}

/// O is to drain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct PrepareHandoff {
    /// The handoff.
    pub id: HandoffId,
    /// Exclusive or overlap.
    pub mode: Mode,
    /// When the whole handoff is late: absolute `CLOCK_MONOTONIC` nanoseconds.
    pub deadline_ns: u64,
    /// How long the drain may take, in nanoseconds.
    pub drain_grace_ns: u64,
    /// How long O parks after the commit, in nanoseconds.
    pub park_ns: u64,
    /// What N has room for; none if it takes neither connections nor state.
    pub transfer: Option<Room>,
}

/// O has stopped accepting, and what it acknowledged is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Drained {
    /// The handoff.
    pub id: HandoffId,
    /// Connections that are still open.
    pub connections_open: u32,
    /// When accepting stopped: absolute `CLOCK_MONOTONIC` nanoseconds.
    pub accept_stopped_ns: u64,
}

/// Overlap mode: O knows that N is coming, and has handed the gate to it. It serves on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Announced {
    /// The handoff.
    pub id: HandoffId,
}

/// O is to seal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SealRequest {
    /// The handoff.
    pub id: HandoffId,
}

/// The gate's locked description, from O to N, on the transfer socket: O's last word there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Gate {
    /// The handoff.
    pub id: HandoffId,
    /// What N must have by now.
    pub sent: Totals,
}

/// How far the seal is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SealProgress {
    /// The handoff.
    pub id: HandoffId,
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
}

/// Which data directory: device and inode of the directory and of the lock file in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    /// Of the directory that holds the lock.
    pub directory: (u64, u64),
    /// Of the lock file.
    pub lock: (u64, u64),
}

/// O has sealed, and has released the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SealComplete {
    /// The handoff.
    pub id: HandoffId,
    /// The last revision of each shard.
    pub revisions: Vec<u64>,
    /// What was sealed.
    pub fingerprint: Fingerprint,
}

/// What O could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum SealStep {
    /// It could not drain.
    Drain,
    /// It could not seal.
    Seal,
}

/// O could not drain or seal. It never released the lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct SealFailed {
    /// The handoff.
    pub id: HandoffId,
    /// What failed.
    pub step: SealStep,
    /// Why, for people.
    pub error: String,
}

/// What N finds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Sealed {
    /// O sealed: N must open at least these revisions of this directory.
    Complete {
        /// The last revision of each shard.
        revisions: Vec<u64>,
        /// What was sealed.
        fingerprint: Fingerprint,
    },
    /// O is dead and sealed nothing: recover as after a crash.
    Recover,
    /// Overlap mode: O serves on, and has sealed nothing.
    Beside,
}

/// N may lock and open the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Begin {
    /// The handoff.
    pub id: HandoffId,
    /// What it finds.
    pub sealed: Sealed,
}

/// Whether, and with what, N could serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
pub struct Readiness {
    /// It could not serve; `detail` says why.
    pub unhealthy: bool,
    /// It will change the format on disk, so that O could not take over any more.
    pub format_changes: bool,
    /// The last revision that it opened of each shard.
    pub revisions: Vec<u64>,
    /// For people: where it listens, or why it is unhealthy.
    pub detail: String,
}

/// N could serve.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Ready {
    /// The handoff.
    pub id: HandoffId,
    /// With what.
    pub readiness: Readiness,
    /// What it took from O.
    pub taken: Totals,
}

/// N may try the decision word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Committed {
    /// The handoff.
    pub id: HandoffId,
}

/// N has won the word and serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Serving {
    /// The handoff.
    pub id: HandoffId,
    /// When it won: absolute `CLOCK_MONOTONIC` nanoseconds.
    pub committed_ns: u64,
    /// Whether the control path is in its place; why not, if it is not.
    pub control: Result<(), String>,
}

/// O is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Commit {
    /// The handoff.
    pub id: HandoffId,
}

/// A parked O is not needed any more: it retires.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct EndProbation {
    /// The handoff.
    pub id: HandoffId,
}

/// N is not wanted any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Abort {
    /// The handoff.
    pub id: HandoffId,
    /// Why, for people.
    pub reason: String,
}

/// O is to take over again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct ResumeAfterAbort {
    /// The handoff.
    pub id: HandoffId,
}

/// O serves again, or can not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Resumed {
    /// The handoff.
    pub id: HandoffId,
    /// Why it can not.
    pub error: Option<String>,
}

/// O was asked to stop in mid-handoff.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Stopping {
    /// The handoff.
    pub id: HandoffId,
}

/// Alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Heartbeat {
    /// The handoff.
    pub id: HandoffId,
    /// Done and total of what the application reported.
    pub progress: Option<(u64, u64)>,
}

/// Every message. The numbers on the wire are in [`super::codec`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each variant is described at its type
pub enum Message {
    Hello(Hello),
    HelloAck(HelloAck),
    Reject(Reject),
    Adopt(Adopt),
    AdoptAck(AdoptAck),
    Warmed(Warmed),
    PrepareHandoff(PrepareHandoff),
    Drained(Drained),
    SealRequest(SealRequest),
    Gate(Gate),
    SealProgress(SealProgress),
    SealComplete(SealComplete),
    SealFailed(SealFailed),
    Begin(Begin),
    Ready(Ready),
    Committed(Committed),
    Serving(Serving),
    Commit(Commit),
    Abort(Abort),
    ResumeAfterAbort(ResumeAfterAbort),
    Resumed(Resumed),
    Stopping(Stopping),
    Heartbeat(Heartbeat),
    AdoptListeners(AdoptListeners),
    Connections(Connections),
    State(State),
    Taken(Taken),
    Announced(Announced),
    EndProbation(EndProbation),
}

impl Message {
    /// The handoff that the message names; [`HandoffId::COLD`] if it names none.
    pub fn id(&self) -> HandoffId {
        match self {
            Self::Hello(_) | Self::Reject(_) | Self::Adopt(_) | Self::AdoptListeners(_) => HandoffId::COLD,
            Self::HelloAck(m) => m.terms.map_or(HandoffId::COLD, |terms| terms.id),
            Self::AdoptAck(m) => m.id,
            Self::Warmed(m) => m.id,
            Self::PrepareHandoff(m) => m.id,
            Self::Drained(m) => m.id,
            Self::SealRequest(m) => m.id,
            Self::Gate(m) => m.id,
            Self::SealProgress(m) => m.id,
            Self::SealComplete(m) => m.id,
            Self::SealFailed(m) => m.id,
            Self::Begin(m) => m.id,
            Self::Ready(m) => m.id,
            Self::Committed(m) => m.id,
            Self::Serving(m) => m.id,
            Self::Commit(m) => m.id,
            Self::EndProbation(m) => m.id,
            Self::Abort(m) => m.id,
            Self::ResumeAfterAbort(m) => m.id,
            Self::Resumed(m) => m.id,
            Self::Stopping(m) => m.id,
            Self::Heartbeat(m) => m.id,
            Self::Connections(m) => m.id,
            Self::State(m) => m.id,
            Self::Taken(m) => m.id,
            Self::Announced(m) => m.id,
        }
    }

    /// The message's name, as the documentation has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::HelloAck(_) => "HelloAck",
            Self::Reject(_) => "Reject",
            Self::Adopt(_) => "Adopt",
            Self::AdoptAck(_) => "AdoptAck",
            Self::Warmed(_) => "Warmed",
            Self::PrepareHandoff(_) => "PrepareHandoff",
            Self::Drained(_) => "Drained",
            Self::SealRequest(_) => "SealRequest",
            Self::Gate(_) => "Gate",
            Self::SealProgress(_) => "SealProgress",
            Self::SealComplete(_) => "SealComplete",
            Self::SealFailed(_) => "SealFailed",
            Self::Begin(_) => "Begin",
            Self::Ready(_) => "Ready",
            Self::Committed(_) => "Committed",
            Self::Serving(_) => "Serving",
            Self::Commit(_) => "Commit",
            Self::Abort(_) => "Abort",
            Self::ResumeAfterAbort(_) => "ResumeAfterAbort",
            Self::Resumed(_) => "Resumed",
            Self::Stopping(_) => "Stopping",
            Self::Heartbeat(_) => "Heartbeat",
            Self::AdoptListeners(_) => "AdoptListeners",
            Self::Connections(_) => "Connections",
            Self::State(_) => "State",
            Self::Taken(_) => "Taken",
            Self::Announced(_) => "Announced",
            Self::EndProbation(_) => "EndProbation",
        }
    }
}

//! What is explored: the bounds of a configuration, and the rules that are taken back.

use handoff::protocol::HandoffId;
use handoff::protocol::message::{Mode, Terms};
use handoff::protocol::supervisor::{OnIncumbentDeath, Plan};

/// A rule of the protocol that is taken back, in the drivers, to see that the model misses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The swap is a read, and then a write, with a step between them.
    SplitSwap,
    /// O kills by pid, which a stranger may have by then.
    RawPid,
    /// O exits when the word says committed, also if N is dead.
    CommittedMeansExit,
    /// N leaves when S is gone, also if O is dead.
    NoSelfPromotion,
    /// The next handoff starts although the O before is neither dead nor retired.
    NoRetireRule,
    /// The lock alone is what keeps others out.
    NoGate,
    /// A late message of a finished handoff ends the session.
    LateEndsSession,
    /// S takes the end of a session for a death.
    EndMeansDeath,
    /// O resumes when it finds the lock free.
    LockMeansResume,
    /// S believes any Ready.
    AnyRevision,
    /// "Committed" is said when N is told to commit.
    EarlyCommitted,
    /// S kills N without asking the word.
    KillUnasked,
    /// O does not look at N's pidfd before it retires.
    NoLook,
    /// O releases the lock before its writers are joined.
    UnlockBeforeSeal,
    /// "Rolled back" is said when the word is won.
    EarlyRollback,
    /// A message of another handoff than the one under way ends the session.
    OtherIdEndsSession,
    /// A daemon that is adopted goes on with what was unread in the session before.
    KeepUnread,
    /// A daemon that is adopted neither fences the open handoff nor tells of it.
    SilentAdoption,
    /// S' does not ask the word of the handoff that was open: it kills N and lets O resume.
    PastUnasked,
    /// S' asks the word, but takes a handoff that has committed for one that was rolled back.
    PastRolledBack,
    /// A cold start takes the lock without the gate.
    ColdWithoutGate,
    /// A parked O takes over when it finds the lock free; and the next handoff does not wait for its end.
    ParkedTakesFreeLock,
    /// A parked O exits when S is gone.
    ParkedExitsOnEnd,
    /// The next handoff does not wait for the end of a parked O.
    IgnoresParked,
    /// Overlap: O hears of N only with Commit.
    NoAnnounce,
    /// Overlap: S does not wait for O to say that it knows N.
    AnnounceNotAcked,
    /// Overlap: O stops when the word says committed, and does not wait until N serves.
    StopOnWord,
    /// O goes on with its connections although the word says committed.
    KeepsAfterCommit,
    /// N's application is shown the connections before the word is won.
    ShowsEarly,
    /// O says that N has all connections, and N has none.
    GivesNothing,
}

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub name: &'static str,
    /// Handoffs that are asked for, one after the other.
    pub handoffs: u8,
    /// Processes that are killed with SIGKILL.
    pub crashes: u8,
    /// Processes that get SIGSTOP and never SIGCONT.
    pub freezes: u8,
    /// Only S may be frozen.
    pub freeze_service_only: bool,
    /// Sessions that break with both sides alive.
    pub cuts: u8,
    /// How often S is started again after it was killed; or never.
    pub restarts: u8,
    /// The journal may be lost before S is started again.
    pub wipes: bool,
    /// O parks behind the commit.
    pub park: bool,
    /// How often the operator finds that an N on probation is no good.
    pub verdicts: u8,
    /// Writes that a client sees acknowledged.
    pub writes: u8,
    /// A stranger tries to take the data.
    pub stranger: bool,
    /// N commits also when its deadline is past.
    pub no_deadline_check: bool,
    /// Hooks and N's open may fail, and N may come up with less than was sealed.
    pub bad_applications: bool,
    /// The caller may cancel, and O may be asked to stop: so often.
    pub requests: u8,
    /// The daemons run in overlap mode.
    pub overlap: bool,
    /// Whether O's death before the seal lets N recover the data.
    pub promote: bool,
    pub mutant: Option<Mutant>,
}

/// One handoff, without faults.
pub const BASE: Config = Config {
    name: "R0 one handoff",
    handoffs: 1,
    crashes: 0,
    freezes: 0,
    freeze_service_only: false,
    cuts: 0,
    restarts: 0,
    wipes: false,
    park: false,
    verdicts: 0,
    writes: 0,
    stranger: false,
    no_deadline_check: false,
    bad_applications: false,
    requests: 0,
    overlap: false,
    promote: true,
    mutant: None,
};

impl Config {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn plan(&self, id: u64) -> Plan {
        let park_ns = u64::from(self.park);
        let terms = Terms { id: HandoffId(id), mode: Mode::Exclusive, deadline_ns: 1, park_ns, open_descriptors: 0 };
        let on_incumbent_death = if self.promote { OnIncumbentDeath::Promote } else { OnIncumbentDeath::StartCold };
        Plan { terms, drain_grace_ns: 0, on_incumbent_death }
    }
}

//! How a handoff ended.

use crate::protocol::supervisor::Verdict;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::os::fd::OwnedFd;

/// How a handoff, or a cold start, ended. As JSON it has the field names of `handoff_outcome` in `handoff.h`, with
/// `result` as one of the words of [`verdict_name`].
#[derive(Debug)]
pub struct HandoffOutcome {
    /// The handoff: `CLOCK_MONOTONIC` nanoseconds of its creation; 0 for a cold start that nobody's death caused.
    pub id: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, for people; empty if all went well. With a successor's exit status, and its last lines of stderr if captured.
    pub reason: String,
    /// Which process of the service serves now; 0 if none does.
    pub generation: u64,
    /// Its pid; 0 if none serves.
    pub pid: i32,
    /// Its pidfd, yours.
    pub pidfd: Option<OwnedFd>,
    /// Nanoseconds from the spawn to Warmed; 0, like those below, if it did not come so far.
    pub warm_ns: u64,
    /// From Prepare to Drained.
    pub drain_ns: u64,
    /// From SealRequest to SealComplete.
    pub seal_ns: u64,
    /// From Begin to Ready.
    pub ready_ns: u64,
    /// Nobody accepted for this long: from "accept closed", as O says, to the commit, as N says, or until O served again; of a
    /// commit that was reverted, from N's death. 0 if that is not known.
    pub pause_ns: u64,
    /// From the call to the outcome.
    pub total_ns: u64,
    /// Connections that moved to the successor, if it serves.
    pub transferred_connections: u64,
    /// Bytes of state that moved to it: blobs, and what belongs to connections.
    pub transferred_state_bytes: u64,
    /// The errno(3) of a spawn that failed; what [`super::SpawnSpec::check`] finds has none. Not in the JSON.
    pub errno: Option<i32>,
}

impl HandoffOutcome {
    /// Whether the successor serves.
    pub fn committed(&self) -> bool {
        self.verdict == Verdict::Committed
    }

    /// Whether a process serves that this call started.
    pub fn started(&self) -> bool {
        matches!(self.verdict, Verdict::Committed | Verdict::StartedCold)
    }
}

/// An outcome for the next program of this process; the pidfd is not of it.
#[cfg(feature = "program")]
pub(crate) mod carried_outcome {
    use super::*;
    use serde::{Deserialize, Deserializer};
    use std::rc::Rc;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Carried {
        id: u64,
        verdict: Verdict,
        reason: String,
        generation: u64,
        pid: i32,
        times_ns: [u64; 6],
        moved: [u64; 2],
        errno: Option<i32>,
    }

    pub(crate) fn serialize<S: Serializer>(
        outcome: &Option<Rc<HandoffOutcome>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let carried = outcome.as_ref().map(|it| Carried {
            id: it.id,
            verdict: it.verdict,
            reason: it.reason.clone(),
            generation: it.generation,
            pid: it.pid,
            times_ns: [it.warm_ns, it.drain_ns, it.seal_ns, it.ready_ns, it.pause_ns, it.total_ns],
            moved: [it.transferred_connections, it.transferred_state_bytes],
            errno: it.errno,
        });
        carried.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Rc<HandoffOutcome>>, D::Error> {
        let carried = Option::<Carried>::deserialize(deserializer)?;
        Ok(carried.map(|carried| {
            let Carried { id, verdict, reason, generation, pid, times_ns, moved, errno } = carried;
            let [warm_ns, drain_ns, seal_ns, ready_ns, pause_ns, total_ns] = times_ns;
            let [transferred_connections, transferred_state_bytes] = moved;
            Rc::new(HandoffOutcome {
                id,
                verdict,
                reason,
                generation,
                pid,
                pidfd: None,
                warm_ns,
                drain_ns,
                seal_ns,
                ready_ns,
                pause_ns,
                total_ns,
                transferred_connections,
                transferred_state_bytes,
                errno,
            })
        }))
    }
}

/// The word for a verdict in JSON and logs.
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Committed => "committed",
        Verdict::RolledBack => "rolled_back",
        Verdict::Reverted => "reverted",
        Verdict::StartedCold => "started_cold",
        Verdict::Refused => "refused",
        Verdict::Undecided => "undecided",
        Verdict::Failed => "failed",
    }
}

impl Serialize for HandoffOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("handoff_outcome", 13)?;
        fields.serialize_field("result", verdict_name(self.verdict))?;
        fields.serialize_field("handoff_id", &self.id)?;
        fields.serialize_field("generation", &self.generation)?;
        fields.serialize_field("pid", &self.pid)?;
        fields.serialize_field("warm_ns", &self.warm_ns)?;
        fields.serialize_field("drain_ns", &self.drain_ns)?;
        fields.serialize_field("seal_ns", &self.seal_ns)?;
        fields.serialize_field("ready_ns", &self.ready_ns)?;
        fields.serialize_field("pause_ns", &self.pause_ns)?;
        fields.serialize_field("total_ns", &self.total_ns)?;
        fields.serialize_field("transferred_connections", &self.transferred_connections)?;
        fields.serialize_field("transferred_state_bytes", &self.transferred_state_bytes)?;
        fields.serialize_field("reason", &self.reason)?;
        fields.end()
    }
}

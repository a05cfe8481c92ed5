//! The handoffs whose steps are the matrix.

use crate::build::build;
use crate::support::faulty_script;
use std::path::{Path, PathBuf};

/// A handoff that takes the same way each time.
pub struct Scenario {
    pub name: &'static str,
    /// How it ends if nobody crashes.
    pub result: &'static str,
    incumbent_fault: Option<&'static str>,
    successor_fault: Option<&'static str>,
    /// Steps from here on are its own; those before it are another scenario's, too.
    pub own_from: Option<&'static str>,
    /// Steps that it must have: if one of them is gone, the matrix has a hole.
    pub must_have: &'static [&'static str],
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "commit",
        result: "committed",
        incumbent_fault: None,
        successor_fault: None,
        own_from: None,
        must_have: &[
            "S:before create page",
            "S:after spawn Successor",
            "S:before rename open journal",
            "S:before send HelloAck",
            "S:before send PrepareHandoff",
            "S:before send SealRequest",
            "S:before send Begin",
            "S:before send Committed",
            "S:receive Serving",
            "S:before unlink page",
            "O:before map page",
            "O:before send Drained",
            "O:before send Gate to the other daemon",
            "O:before release lock",
            "O:after release lock",
            "O:before send SealComplete",
            "O:before set retired",
            "N:before exec",
            "N:before send Hello",
            "N:before map page",
            "N:before send Warmed",
            "N:before take lock",
            "N:before send Ready",
            "N:before commit",
            "N:after commit",
            "N:before rename control path",
            "N:before set serving",
            "N:before send Serving",
        ],
    },
    Scenario {
        name: "rollback",
        result: "rolled_back",
        incumbent_fault: None,
        successor_fault: Some("unhealthy"),
        own_from: Some("S:receive Ready"),
        must_have: &[
            "S:before revoke",
            "S:before send SIGKILL to Successor",
            "S:before send ResumeAfterAbort",
            "S:receive Resumed",
            "O:before take lock",
            "O:before send Resumed",
        ],
    },
    Scenario {
        name: "drain fails",
        result: "rolled_back",
        incumbent_fault: Some("drain-fails"),
        successor_fault: None,
        own_from: Some("O:before send SealFailed"),
        must_have: &["S:receive SealFailed", "S:before send Abort", "O:before revoke", "O:before send Resumed"],
    },
];

impl Scenario {
    /// What runs, and what replaces it, in a service whose files are in `dir`.
    pub fn programs(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let build = build();
        let with = |fault: Option<&str>, good: &Path| {
            fault.map_or(good.to_owned(), |fault| faulty_script(dir, &build.faulty, fault))
        };
        (with(self.incumbent_fault, &build.kv_a), with(self.successor_fault, &build.kv_b))
    }

    /// The steps in a trace that belong to this scenario, each once, in their order.
    pub fn own_steps(&self, trace: &str) -> Vec<String> {
        let mut steps = Vec::new();
        let mut own = self.own_from.is_none();
        for step in trace.lines() {
            own |= self.own_from == Some(step);
            if own && !steps.iter().any(|known| known == step) {
                steps.push(step.to_owned());
            }
        }
        let missing: Vec<_> = self.must_have.iter().filter(|step| !steps.iter().any(|known| known == *step)).collect();
        assert!(missing.is_empty(), "{}: a handoff without these steps: {missing:?}\n{trace}", self.name);
        steps
    }
}

//! The handoffs whose steps are the matrix.

use crate::build::build;
use crate::run::Blow;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A handoff that takes the same way each time.
pub struct Scenario {
    pub name: &'static str,
    /// How it ends if nobody else crashes.
    pub result: &'static str,
    /// The daemons run in overlap mode: `ffi-tests/c/overlap.c`. The incumbent gives the connections in its last drain.
    pub overlap: bool,
    /// Faults of the store of `ffi-tests/c/faulty_kv.c`: in the first process that runs the program, not in later ones.
    incumbent_fault: Option<&'static str>,
    successor_fault: Option<&'static str>,
    /// How long the incumbent parks.
    pub probation: &'static str,
    /// A process is killed here before anything else happens to anybody.
    pub killed_at: Option<&'static str>,
    /// Steps from here on are its own; those before it are another scenario's, too. What two processes do at the same time
    /// comes in any order: this is what the others follow from.
    own_from: &'static str,
    /// Roles that must not be killed as well, or nobody would be left until a supervisor is started again.
    spared: &'static [&'static str],
    /// The outcome if a process is killed at this step, or at an earlier one of the same role; the first that fits counts.
    /// After the last of a role it depends on who has heard what.
    ends: &'static [(&'static str, &'static str)],
    /// Steps that it must have: if one of them is gone, the matrix has a hole.
    must_have: &'static [&'static str],
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "commit",
        result: "committed",
        overlap: false,
        incumbent_fault: None,
        successor_fault: None,
        probation: "0s",
        killed_at: None,
        own_from: "S:before create page",
        spared: &[],
        ends: &[
            ("O:before send SealComplete", "started_cold"),
            ("N:before commit", "rolled_back"),
            ("N:before send Serving to the other daemon", "reverted"),
        ],
        must_have: &[
            "S:after spawn Successor",
            "S:before rename open journal",
            "S:before send HelloAck",
            "S:before send PrepareHandoff",
            "S:before send SealRequest",
            "S:before send Begin",
            "S:before send Committed",
            "S:receive Serving",
            "S:before send Commit",
            "S:before unlink page",
            "O:receive PrepareHandoff",
            "O:before map page",
            "O:before copy state",
            "O:before send State to the other daemon",
            "O:before send Connections to the other daemon",
            "O:receive Taken from the other daemon",
            "O:before send Drained",
            "O:before send Gate to the other daemon",
            "O:before release lock",
            "O:before send SealComplete",
            "O:before set retired",
            "N:before exec",
            "N:before send Hello",
            "N:before bind control path",
            "N:before map page",
            "N:before make room",
            "N:before send Warmed",
            "N:receive State from the other daemon",
            "N:receive Connections from the other daemon",
            "N:before send Taken to the other daemon",
            "N:receive Gate from the other daemon",
            "N:settle what was given",
            "N:before take lock",
            "N:before send Ready",
            "N:before commit",
            "N:before rename control path",
            "N:show a connection",
            "N:before set serving",
            "N:before send Serving to the other daemon",
            "N:before send Serving",
        ],
    },
    Scenario {
        name: "trial",
        result: "committed",
        incumbent_fault: None,
        successor_fault: None,
        probation: "500ms",
        overlap: false,
        killed_at: None,
        own_from: "S:before send Commit",
        spared: &[],
        ends: &[],
        must_have: &[
            "S:before send EndProbation",
            "O:receive EndProbation",
            "O:before set retired",
            "S:before unlink page",
        ],
    },
    Scenario {
        name: "trial fails",
        result: "reverted",
        incumbent_fault: None,
        successor_fault: None,
        probation: "2s",
        overlap: false,
        killed_at: Some("N:after close link"),
        own_from: "N:after close link",
        spared: &[],
        ends: &[],
        must_have: &["O:before take lock", "O:before rename control path", "O:before send Resumed"],
    },
    Scenario {
        name: "rollback",
        result: "rolled_back",
        overlap: false,
        incumbent_fault: None,
        successor_fault: Some("unhealthy"),
        probation: "0s",
        killed_at: None,
        own_from: "S:receive Ready",
        spared: &[],
        ends: &[("O:before send Resumed", "started_cold")],
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
        name: "no drain",
        result: "rolled_back",
        overlap: false,
        incumbent_fault: Some("drain-fails"),
        successor_fault: None,
        probation: "0s",
        killed_at: None,
        own_from: "O:before send SealFailed",
        spared: &[],
        ends: &[("O:before send Resumed", "started_cold")],
        must_have: &["S:receive SealFailed", "S:before send Abort", "O:before revoke", "O:before send Resumed"],
    },
    Scenario {
        name: "N dies late",
        result: "reverted",
        overlap: false,
        incumbent_fault: None,
        successor_fault: None,
        probation: "0s",
        killed_at: Some("N:after commit"),
        own_from: "N:after commit",
        spared: &[],
        ends: &[("O:before send Resumed", "started_cold")],
        must_have: &["S:before reap successor", "S:before send ResumeAfterAbort", "O:before take lock"],
    },
    Scenario {
        name: "O dies early",
        result: "started_cold",
        overlap: false,
        incumbent_fault: None,
        successor_fault: None,
        probation: "0s",
        killed_at: Some("O:after release lock"),
        own_from: "O:after release lock",
        spared: &["S"],
        ends: &[],
        must_have: &["S:before revoke", "S:before spawn Cold", "O:before take lock", "S:receive Serving"],
    },
    Scenario {
        name: "O dies late",
        result: "committed",
        overlap: false,
        incumbent_fault: None,
        successor_fault: None,
        probation: "0s",
        killed_at: Some("O:after send SealComplete"),
        own_from: "S:receive SealComplete",
        spared: &["S"],
        ends: &[("N:before send Serving", "started_cold")],
        must_have: &["N:before take lock", "N:before commit", "S:receive Serving"],
    },
    Scenario {
        name: "S dies",
        result: "",
        overlap: false,
        incumbent_fault: None,
        successor_fault: None,
        probation: "0s",
        killed_at: Some("S:after send Begin"),
        own_from: "S:after send Begin",
        spared: &["O"],
        ends: &[],
        must_have: &["O:before revoke", "O:before kill successor", "O:before take lock"],
    },
    Scenario {
        name: "overlap",
        result: "committed",
        overlap: true,
        incumbent_fault: None,
        successor_fault: None,
        probation: "0s",
        killed_at: None,
        own_from: "S:before send PrepareHandoff",
        spared: &[],
        ends: &[
            ("O:before send Announced", "started_cold"),
            ("N:before commit", "rolled_back"),
            ("N:before send Serving to the other daemon", "reverted"),
        ],
        must_have: &[
            "S:receive Announced",
            "S:before send Begin",
            "S:before send Committed",
            "S:receive Serving",
            "S:before promote",
            "S:before unlink page",
            "O:receive PrepareHandoff",
            "O:before send Gate to the other daemon",
            "O:before send Announced",
            "O:before let go of the gate",
            "O:before set retired",
            "O:before send Connections to the other daemon",
            "O:receive Taken from the other daemon",
            "N:before take lock",
            "N:before send Ready",
            "N:before commit",
            "N:before rename control path",
            "N:before set serving",
            "N:before send Serving to the other daemon",
            "N:before send Serving",
            "N:receive Connections from the other daemon",
            "N:before send Taken to the other daemon",
            "N:show a connection",
        ],
    },
    Scenario {
        name: "overlap back",
        result: "rolled_back",
        overlap: true,
        incumbent_fault: None,
        successor_fault: Some("unhealthy"),
        probation: "0s",
        killed_at: None,
        own_from: "S:receive Ready",
        spared: &[],
        ends: &[("O:before send Resumed", "started_cold")],
        must_have: &[
            "S:before revoke",
            "S:before send SIGKILL to Successor",
            "S:before send ResumeAfterAbort",
            "O:before send Resumed",
        ],
    },
    Scenario {
        name: "overlap late",
        result: "reverted",
        overlap: true,
        incumbent_fault: None,
        successor_fault: None,
        probation: "0s",
        killed_at: Some("N:after commit"),
        own_from: "N:after commit",
        spared: &[],
        ends: &[("O:before send Resumed", "started_cold")],
        must_have: &["S:before reap successor", "S:before send ResumeAfterAbort", "O:before send Resumed"],
    },
];

impl Scenario {
    /// What runs, and what replaces it, in a service whose files are in `dir`.
    pub fn programs(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let (a, b) = self.builds();
        let with =
            |fault: Option<&str>, good: &Path| fault.map_or(good.to_owned(), |fault| self.faulty_once(dir, fault));
        (with(self.incumbent_fault, a), with(self.successor_fault, b))
    }

    /// The good ones.
    pub fn builds(&self) -> (&'static Path, &'static Path) {
        let build = build();
        if self.overlap { (&build.overlap_a, &build.overlap_b) } else { (&build.kv_a, &build.kv_b) }
    }

    /// A script that becomes a faulty store, the first time with this fault.
    fn faulty_once(&self, dir: &Path, fault: &str) -> PathBuf {
        let script = dir.join(format!("faulty-{fault}"));
        let (variable, program) =
            if self.overlap { ("OVERLAP_FAULT", &build().overlap_b) } else { ("KV_FAULT", &build().faulty) };
        let (program, used) = (program.display(), dir.join("used"));
        let text = format!(
            "#!/bin/sh\nmkdir {} 2>/dev/null && export {variable}={fault}\nexec {program} \"$@\"\n",
            used.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        script
    }

    /// The steps in a trace that belong to this scenario, each once, in their order.
    pub fn own_steps(&self, trace: &str, blow: Blow) -> Vec<String> {
        let mut steps: Vec<String> = Vec::new();
        // The step at which somebody dies in any case can not be struck again.
        let own = trace.lines().skip_while(|step| *step != self.own_from).filter(|step| self.killed_at != Some(*step));
        for step in own {
            if !steps.iter().any(|known| known == step) {
                steps.push(step.to_owned());
            }
        }
        // The end of a step that began before this scenario was another one.
        let begun = |step: &str| step.split_once(":after ").map(|(role, step)| format!("{role}:before {step}"));
        let all = steps.clone();
        steps.retain(|step| {
            begun(step).is_none_or(|begin| all.contains(&begin) || self.killed_at == Some(begin.as_str()))
        });
        let missing: Vec<_> = self.must_have.iter().filter(|step| !steps.iter().any(|known| known == **step)).collect();
        assert!(missing.is_empty(), "{}: a handoff without these steps: {missing:?}\n{trace}", self.name);
        steps.retain(|step| match blow {
            Blow::Kill => !self.spares(&step[..1]),
            Blow::KillAndStart => step.starts_with('S'),
            Blow::Stop => true,
        });
        steps
    }

    /// Whether somebody else is dead already, without whom this role must not be killed, too, for good.
    pub fn spares(&self, role: &str) -> bool {
        self.spared.contains(&role)
    }

    /// Whether each handoff of this kind comes to the step, whoever is faster.
    pub fn must_have(&self, step: &str) -> bool {
        self.must_have.contains(&step)
    }

    /// How it ends if a process is killed at `step`, one of these; none if that is not sure.
    pub fn end(&self, steps: &[String], step: &str) -> Option<&'static str> {
        let place = |wanted: &str| steps.iter().position(|step| step == wanted);
        let fits = |(last, _): &&(&str, &str)| last[..1] == step[..1] && place(step) <= place(last);
        self.ends.iter().find(fits).map(|(_, outcome)| *outcome)
    }
}

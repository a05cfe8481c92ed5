//! What would make an upgrade fail or hurt, found before it does.
//!
//! [`facts`] gathers, and every check is a function of what was gathered.

pub mod facts;
mod machine;
mod manager;
mod service;

use std::path::Path;

use serde::Serialize;

use facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing to do.
    Ok,
    /// It may hurt.
    Warning,
    /// An upgrade, or the service itself, will fail.
    Error,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The check: a word that stays the same.
    pub check: &'static str,
    /// Whom or what it concerns: `machine`, `supervisor`, or a service.
    pub place: String,
    /// What is.
    pub text: String,
    /// What to do; empty if all is well.
    pub advice: String,
}

/// One check of one place.
#[derive(Debug)]
pub struct Check {
    check: &'static str,
    place: String,
}

impl Check {
    /// A check, and what it concerns.
    pub fn new(check: &'static str, place: &str) -> Self {
        Self { check, place: place.to_owned() }
    }

    /// Nothing to do.
    pub fn ok(self, text: impl Into<String>) -> Finding {
        self.found(Severity::Ok, text.into(), "")
    }

    /// It may hurt.
    pub fn warning(self, text: impl Into<String>, advice: &str) -> Finding {
        self.found(Severity::Warning, text.into(), advice)
    }

    /// It will fail.
    pub fn error(self, text: impl Into<String>, advice: &str) -> Finding {
        self.found(Severity::Error, text.into(), advice)
    }

    fn found(self, severity: Severity, text: String, advice: &str) -> Finding {
        Finding { severity, check: self.check, place: self.place, text, advice: advice.to_owned() }
    }
}

/// Everything that the facts show, the machine first.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = machine::examine(&facts.machine);
    findings.extend(facts.supervisor.as_ref().map(machine::supervisor).into_iter().flatten());
    findings.extend(facts.manager.as_ref().map(manager::examine).into_iter().flatten());
    let room = facts.machine.memory_available;
    findings.extend(facts.services.iter().flat_map(|service| service::examine(service, room)));
    findings
}

/// The kernel's word for bytes, for people.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

//! A service whose daemon is not adopted yet, from outside.

use super::settings::Settings;
use super::status::{ServiceStatus, mode_name};
use crate::supervisor::{Awaited, ReadySign, Said};

impl Settings {
    /// What is known while another supervisor's daemon is waited for: who serves is not.
    pub(super) fn while_adopting(&self, awaited: &Awaited) -> ServiceStatus {
        ServiceStatus {
            name: self.name.clone(),
            state: "starting",
            want: "running",
            why: format!("waits: {}", awaited.text),
            phase: awaited.phase,
            pid: None,
            generation: 0,
            draining: Vec::new(),
            waits: None,
            program: self.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default(),
            listeners: Vec::new(),
            linked: false,
            mode: mode_name(self.mode),
            ready: self.readiness.as_ref().map(ReadySign::to_string),
            says: Said::default(),
            next_start_ms: None,
            restarts: 0,
            parked_pid: None,
            probation_left_ms: None,
            last_handoff: None,
        }
    }
}

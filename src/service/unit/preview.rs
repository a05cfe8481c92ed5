//! What can be known of an upgrade before it is begun.

use std::fs::File;
use std::path::PathBuf;

use serde::Serialize;

use super::settings::{Upgrade, WhenDraining};
use super::{IDLE, Service, State, is_settling};
use crate::error::Error;
use crate::supervisor::Mode;
use crate::sys::program::check_format;

/// What an upgrade would meet. Whether the new program works, only an upgrade can tell.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Preview {
    /// What would be executed.
    pub program: Option<PathBuf>,
    /// How: `exclusive`, `overlap`, or `cold` if nobody serves now.
    pub mode: Option<&'static str>,
    /// Why it would be refused; empty if nothing speaks against it.
    pub reasons: Vec<String>,
    /// What it would have to wait for.
    pub waits: Option<String>,
    /// What it would begin with all the same, and what may not be meant.
    pub warning: Option<String>,
}

impl Service {
    /// Whether [`Self::upgrade`] would begin. Nothing is started or changed.
    pub fn preview(&mut self, upgrade: &Upgrade) -> Preview {
        let mut preview = Preview::default();
        if let Err(error) = self.listen() {
            preview.reasons.push(error.to_string());
        }
        self.look_at_program(upgrade, &mut preview);
        if let Err(outcome) = self.check_end().and_then(|()| self.check_queue()) {
            preview.reasons.push(outcome.reason.clone());
        }
        self.look_at_daemon(upgrade, &mut preview);
        preview
    }

    fn look_at_program(&self, upgrade: &Upgrade, preview: &mut Preview) {
        let spec = self.spec(upgrade.binary.as_ref(), upgrade.times);
        let program = match spec.check() {
            Ok(program) => program,
            Err(error) => return preview.reasons.push(error.to_string()),
        };
        if let Err(why) = check_format(&program) {
            preview.reasons.push(format!("{}: {why}", program.display()));
        }
        let bad = File::open(&program).ok().map(|file| self.bad.verdict(&file)).transpose();
        match bad.map_err(Error::system("the programs that have failed their probation")) {
            Ok(Some(Some(why))) if !upgrade.force => preview.reasons.push(why),
            Ok(_) => {}
            Err(error) => preview.reasons.push(error.to_string()),
        }
        preview.program = Some(program);
        preview.warning = self.supervisor.script_of_same(&spec).map(|script| super::upgrade::not_kept(&script));
    }

    fn look_at_daemon(&self, upgrade: &Upgrade, preview: &mut Preview) {
        let status = self.status();
        match (&self.state, status.state) {
            (State::Waiting(_), _) => preview.mode = Some("cold"),
            (State::Starting | State::New, "running") => {
                preview.reasons.push(super::upgrade::NEVER_SAID_HELLO.to_owned())
            }
            (State::Starting | State::New | State::Adopting(_), _) => {
                preview.reasons.push(super::upgrade::STILL_STARTING.to_owned())
            }
            (State::Running, _) => preview.mode = Some(status.mode),
            _ => {}
        }
        if !matches!(self.state, State::Running) {
            return;
        }
        if !self.settings.handoff {
            return preview.reasons.push(super::upgrade::STOPPED_AND_STARTED.to_owned());
        }
        // During a probation an upgrade ends it first.
        if is_settling(status.phase) {
            preview.waits = Some("the end of the process that was replaced".to_owned());
        } else if status.phase != IDLE && !self.supervisor.in_probation() {
            preview.reasons.push(format!("busy: a handoff is under way ({}); try again", status.phase));
        }
        if !status.linked && status.mode != super::status::mode_name(Mode::Overlap) {
            preview.reasons.push(super::upgrade::NEVER_SAID_HELLO.to_owned());
        }
        let crowd = self.crowd();
        if !crowd.is_empty() {
            let pids: Vec<String> = crowd.iter().map(i32::to_string).collect();
            match upgrade.when_draining {
                WhenDraining::Refuse => preview.reasons.push(self.too_many()),
                WhenDraining::Wait => preview.waits = Some(format!("the end of process {}", pids.join(" or "))),
                WhenDraining::Cut => {}
            }
        }
    }
}

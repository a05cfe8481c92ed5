//! The way back to the program before.

use std::rc::Rc;

use super::event::Event;
use super::settings::WhenDraining;
use super::{Service, State};
use crate::error::Result;
use crate::supervisor::{Executable, HandoffOutcome, SpawnSpec};

/// What a rollback comes to if all goes well: the outcome's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayBack {
    /// The probation ends with the death of the process that serves: [`crate::Verdict::Reverted`].
    Verdict,
    /// An upgrade to the program before: [`crate::Verdict::Committed`].
    Upgrade,
}

impl Service {
    /// Begins to go back to the program before the present one; an [`Event::Outcome`] follows. In a probation the process that serves is
    /// killed, and its reserve takes over; after it, it is replaced by the file that was started before, also if its path leads to
    /// another one by now; if too many drain, what `when_draining` says.
    ///
    /// # Errors
    /// The outcome of a rollback that was refused at once; nothing was disturbed.
    pub fn rollback(&mut self, when_draining: WhenDraining) -> std::result::Result<WayBack, Rc<HandoffOutcome>> {
        self.listen().map_err(|error| self.refused(error.to_string()))?;
        if self.supervisor.in_probation() && matches!(self.state, State::Running) {
            self.again = true;
            self.expect(self.supervisor.status().handoff_id);
            let condemned = self.supervisor.condemn("rolled back by an operator");
            return condemned.map(|()| WayBack::Verdict).map_err(|error| self.refused(error.to_string()));
        }
        self.check_end()?;
        let Some(previous) = self.supervisor.previous() else {
            let why = match self.supervisor.pinned() {
                Some(_) => "there is nothing to go back to any more: the last upgrade was taken back already",
                None => "there is nothing to go back to: this supervisor knows of no program before the present one",
            };
            return Err(self.refused(format!("{why}; upgrade --binary PATH starts the one that you name")));
        };
        self.begin_back(previous, when_draining).map(|()| WayBack::Upgrade)
    }

    /// What a supervisor has seen of a program in its probation.
    pub(super) fn on_probation_failed(&mut self, program: Option<Executable>, text: &str) {
        if matches!(self.state, State::Stopping(_)) {
            return; // it has obeyed
        }
        let before = self.supervisor.pinned();
        if let Some((program, _)) =
            program.as_ref().zip(before.as_ref()).filter(|(program, before)| program.is_same_file(before))
        {
            let text = format!(
                "{} has failed its probation; that is the file that is gone back to, too, so the next upgrade to it is not refused",
                program.path().display()
            );
            return self.events.push(Event::ProbationFailed { text });
        }
        let remembered = program.as_ref().map(|program| self.bad.remember(program.file(), text));
        let text = match (&program, remembered) {
            (Some(program), Some(Ok(()))) => format!("{} has failed its probation", program.path().display()),
            (Some(program), Some(Err(error))) => {
                format!("{} has failed its probation, which can not be written down: {error}", program.path().display())
            }
            _ => {
                "a program that can not be read has failed its probation; the next upgrade to it is not refused".into()
            }
        };
        self.events.push(Event::ProbationFailed { text });
    }

    /// Whether the program of this spec may be started.
    pub(super) fn check_bad(&self, spec: &SpawnSpec, force: bool) -> Result<Option<String>> {
        // What can not be opened is refused later, with a better text.
        let Some(file) = spec.check().ok().and_then(|path| std::fs::File::open(path).ok()) else { return Ok(None) };
        let checked = match force {
            true => self.bad.forgive(&file).map(|()| None),
            false => self.bad.verdict(&file),
        };
        checked.map_err(crate::error::Error::system("the programs that have failed their probation"))
    }
}

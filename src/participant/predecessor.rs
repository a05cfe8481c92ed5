//! N has committed with a probation: O is its reserve until it is dead, or says that it will never serve again.
//!
//! N sees that by itself, by O's pidfd, so it needs no supervisor to be confirmed.

use super::core::{Core, Source, add, remove};
use super::event::{Event, EventKind};
use super::trace;
use crate::error::{Error, Result};
use crate::protocol::HandoffId;
use crate::sys::page::DecisionPage;
use crate::sys::pidfd::Pidfd;
use std::os::fd::AsFd;

/// The O of this process's own handoff.
#[derive(Debug)]
pub(super) struct Predecessor {
    id: HandoffId,
    page: DecisionPage,
    pidfd: Pidfd,
}

impl Core {
    /// The handoff is over for N, but its O may be parked.
    pub(super) fn keep_predecessor(&mut self) {
        self.close_transfer();
        let Some(link) = self.link.take() else { return };
        remove(&self.sources, link.peer.as_fd());
        // Not watched, its end is only seen with the next handoff.
        if let Err(error) = add(&self.sources, link.peer.as_fd(), Source::Predecessor) {
            trace::trouble(&error, "the end of the probation will not be told");
        }
        self.predecessor = Some(Predecessor { id: link.id, page: link.page, pidfd: link.peer });
    }

    /// O is dead: the application may know that nobody will take over from it.
    pub(super) fn note_predecessor(&mut self) {
        if self.predecessor.as_ref().is_some_and(|predecessor| predecessor.pidfd.is_dead()) {
            self.confirm();
        }
    }

    fn confirm(&mut self) {
        let Some(predecessor) = self.predecessor.take() else { return };
        remove(&self.sources, predecessor.pidfd.as_fd());
        trace::step(predecessor.id, "confirmed");
        self.notices.push_back(Event::notice(EventKind::Confirmed, predecessor.id));
    }

    /// Whoever serves after this process must not find its parked O beside it.
    pub(super) fn check_predecessor(&mut self) -> Result<()> {
        match &self.predecessor {
            Some(predecessor) if !predecessor.page.is_retired() && !predecessor.pidfd.is_dead() => {
                let pid = predecessor.pidfd.pid().map_or_else(String::new, |pid| format!(" (process {pid})"));
                Err(Error::Refused(format!(
                    "the probation of the last handoff is not over: its incumbent{pid} is parked"
                )))
            }
            _ => {
                self.confirm();
                Ok(())
            }
        }
    }
}

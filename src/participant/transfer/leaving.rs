//! Overlap mode, O's side: N serves, and O gives it connections in its last drain.
//!
//! A connection that was sent is N's, and never used here again. One that could not be sent stays the application's.

use crate::error::{Error, Result};
use crate::participant::core::Core;
use crate::participant::event::Event;
use crate::participant::handle::Participant;
use crate::participant::trace;
use crate::protocol::incumbent::Phase;
use crate::protocol::message::Mode;

impl Participant {
    /// The last drain is done: N must have what it was given, and nothing may be left that came from the process before.
    /// The outer error: not yet, or the event is over.
    pub(in crate::participant) fn finish_leaving(&self, event: u64) -> Result<Result<()>> {
        self.shared.with(Core::refuse_gifts)??;
        match self.finish_giving(event) {
            Err(Error::Refused(why)) => {
                trace::failed(None, &why, "the last drain is done");
                Ok(Err(Error::Refused(why)))
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Ok(())),
        }
    }
}

impl Core {
    /// While the event is open, only the end of the successor ends its transfer. In overlap mode nothing is undone by that.
    pub(super) fn explain(&mut self, event: Event, error: Error) -> Error {
        if !(event.after_commit && matches!(error, Error::Stale)) {
            return error;
        }
        self.read_transfer(); // its last words
        Error::Refused(match self.lost() {
            0 => "the successor is gone, and takes nothing any more".into(),
            lost => format!("the successor is gone, and connections that were given to it are lost ({lost})"),
        })
    }

    fn lost(&self) -> u64 {
        self.link.as_ref().and_then(|link| link.giving.as_ref()).map_or(0, |giving| giving.untaken())
    }

    /// N is dead, and everything that it said is read; a child of its may keep the socket open.
    pub(in crate::participant) fn stop_giving(&mut self) {
        if self.incumbent_phase() == Some(Phase::Leaving) {
            self.close_transfer();
        }
    }

    /// This process exits, perhaps because its drain is late. What is on the way by then may still reach N.
    pub(in crate::participant) fn note_untaken(&self) {
        let connections = self.lost();
        if self.mode == Mode::Overlap && connections > 0 {
            trace::lost(connections, None, None, "the successor has not said that it has these connections");
        }
    }
}

//! How the application answers an event, and how its writers pass the fence. Any thread may.

use super::core::Core;
use super::drainable::DrainReport;
use super::event::{Event, EventKind};
use super::handle::Participant;
use crate::error::{Error, Result};
use crate::limits::REVISIONS_MAX;
use crate::protocol::incumbent;
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::fork::Witness;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::time::Duration;

impl Participant {
    // ---- answers (any thread, while the event is open)

    /// A drain or a resume has succeeded. `connections_open` are those that a drain left open.
    ///
    /// # Errors
    /// [`Error::Stale`]: the event is over, and nothing was done. [`Error::State`]: a seal wants [`Participant::sealed`].
    pub fn done(&self, event: u64, connections_open: u32) -> Result<()> {
        self.drained(event, &DrainReport { connections_open, ..DrainReport::default() })
    }

    /// [`Participant::done`], for a drain that can say more.
    ///
    /// # Errors
    /// As [`Participant::done`].
    pub fn drained(&self, event: u64, report: &DrainReport) -> Result<()> {
        let DrainReport { connections_open, accept_stopped } = *report;
        let stopped_ns = accept_stopped.map(|at| monotonic_ns().saturating_sub(nanoseconds(at.elapsed())));
        self.answer(event, |core, event| {
            let input = match event.kind {
                EventKind::Drain => {
                    core.has_given_all(); // sends what is left, while S asks for the seal
                    let accept_stopped_ns = core.events.accept_stopped_ns(stopped_ns);
                    incumbent::Input::Drained { connections_open, accept_stopped_ns }
                }
                EventKind::Resume => incumbent::Input::Resumed,
                _ => return Err(Error::State("a seal is answered with sealed".into())),
            };
            core.events.answer(event.id)?;
            core.feed_incumbent(input);
            Ok(())
        })
    }

    /// All writers are closed, at these revisions, one per shard. Waits for writers that are still inside
    /// [`Participant::write_begin`], for forked children, and until the successor has all that was given to it; then the lock is
    /// released.
    ///
    /// # Errors
    /// [`Error::Stale`]: the event is over, nothing was released. [`Error::State`]: writers or children are still there at
    /// the event's deadline: the seal has failed.
    pub fn sealed(&self, event: u64, revisions: &[u64]) -> Result<()> {
        if revisions.len() > REVISIONS_MAX {
            return Err(Error::TooBig(format!("at most {REVISIONS_MAX} revisions")));
        }
        self.answer(event, |core, event| match event.kind {
            // Under the mutex: a resume that overtakes this answer opens the fence again, and it must stay open.
            EventKind::Seal => {
                core.fence.close();
                Ok(())
            }
            _ => Err(Error::State("only a seal is answered with sealed".into())),
        })?;
        loop {
            if let Err(why) = self.wait_for_writers(event).and_then(|()| self.finish_giving(event)) {
                return self.fail_seal(event, why);
            }
            let answered = self.answer(event, |core, event| {
                if !core.has_given_all() {
                    return Ok(false); // another thread has given more in between
                }
                core.events.answer(event.id)?;
                core.feed_incumbent(incumbent::Input::Sealed(revisions.to_vec()));
                Ok(true)
            })?;
            if answered {
                return Ok(());
            }
        }
    }

    fn fail_seal(&self, event: u64, why: Error) -> Result<()> {
        self.shared.with(|core| {
            core.events.give_up(event)?;
            core.fence.open();
            let gone = "the successor is gone, or has not taken in time what was given to it";
            let text = if matches!(why, Error::Stale) { gone.to_owned() } else { why.to_string() };
            core.feed_incumbent(incumbent::Input::HookFailed(text));
            Ok(())
        })??;
        Err(why)
    }

    /// The event could not be done.
    ///
    /// # Errors
    /// [`Error::Stale`]: the event is over.
    pub fn failed(&self, event: u64, why: &str) -> Result<()> {
        self.answer(event, |core, event| {
            core.events.answer(event.id)?;
            core.feed_incumbent(incumbent::Input::HookFailed(why.into()));
            Ok(())
        })
    }

    /// How far the event is, for people.
    ///
    /// # Errors
    /// [`Error::Stale`]: the answer is not wanted any more.
    pub fn progress(&self, event: u64, done: u64, total: u64) -> Result<()> {
        self.answer(event, |core, _| {
            core.feed_incumbent(incumbent::Input::Progress(done, total));
            Ok(())
        })
    }

    /// Milliseconds until the event is late, rounded up; 0 if it is late, cancelled or over.
    ///
    /// # Errors
    /// Called in a forked child.
    pub fn remaining_ms(&self, event: u64) -> Result<u64> {
        self.shared.check_fork()?;
        self.shared.with(|core| core.events.remaining_ms(event))
    }

    fn answer<T>(&self, id: u64, f: impl FnOnce(&mut Core, Event) -> Result<T>) -> Result<T> {
        self.shared.check_fork()?;
        self.shared.with(|core| core.events.look(id).and_then(|event| f(core, event)))?
    }

    // ---- writers (any thread)

    /// Enters the fence: until [`Participant::write_end`] the seal waits.
    ///
    /// # Errors
    /// [`Error::Sealed`]: the data must not be written now.
    pub fn write_begin(&self) -> Result<()> {
        self.shared.check_fork()?;
        self.shared.fence().begin()
    }

    /// Leaves the fence.
    ///
    /// # Errors
    /// Without a begin.
    pub fn write_end(&self) -> Result<()> {
        self.shared.check_fork()?;
        self.shared.fence().end()
    }

    /// Waits for the last writer, then for forked children that have neither exec'ed nor exited.
    fn wait_for_writers(&self, event: u64) -> Result<()> {
        let left = || self.remaining_ms(event).unwrap_or(0);
        loop {
            let inside = self.shared.fence().wait_empty(Duration::from_millis(left().min(100)));
            match (inside, left()) {
                (0, _) => break,
                (_, 0) => return Err(Error::State(format!("{inside} writers did not leave write_begin in time"))),
                _ => {}
            }
        }
        let mut witnesses = self.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
        witnesses.iter_mut().for_each(Witness::close_own_write_end);
        loop {
            // Those that are left stay for the next seal: their children may still write then.
            witnesses.retain(|witness| !witness.all_gone());
            let Some(witness) = witnesses.first() else { return Ok(()) };
            let left = left();
            if left == 0 {
                break;
            }
            let timeout = PollTimeout::try_from(left.min(100)).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(witness.as_fd(), PollFlags::empty())], timeout);
        }
        // Asked only for the error: it takes a walk through all of /proc, in the middle of the pause.
        let living = witnesses.iter().map(Witness::living).collect::<Vec<_>>().join(", ");
        Err(Error::State(format!("forked children have neither exec'ed nor exited, and may still write: {living}")))
    }
}

//! The way of a daemon from its start to the moment in which it serves.

use super::core::{Core, End, Machine};
use super::data_lock::DataDirLock;
use crate::error::{Error, Result};
use crate::limits::LOCK_RETRY;
use crate::protocol::message::Readiness;
use crate::protocol::{incumbent, successor};
use crate::sys::clock::monotonic_ns;
use crate::sys::crash;
use std::time::{Duration, Instant};

impl Core {
    /// Whether the lock is held and the data may be opened; and when to look again.
    pub(super) fn begin_state(&mut self, patience: Instant) -> (Result<bool>, Option<Duration>) {
        if let Some(End::Aborted(reason)) = &self.end {
            let locked = self.successor().is_some() && reason.contains(" is locked by ");
            let error = if locked { Error::Locked(reason.clone()) } else { Error::Aborted(reason.clone()) };
            return (Err(error), None);
        }
        match &self.machine {
            Machine::Successor(machine) => {
                use successor::Phase::{AwaitCommitted, Committing, Opening, Serving, Won};
                let begun = matches!(machine.phase(), Opening | AwaitCommitted | Committing | Won | Serving);
                let retry = (!self.tasks.is_empty()).then_some(LOCK_RETRY);
                (Ok(begun), retry)
            }
            Machine::Incumbent(machine) if self.cold_begun || self.served => match machine.phase() {
                incumbent::Phase::Starting => (Ok(true), None),
                _ if machine.serves() => (Ok(true), None),
                // The data is sealed, or will be: what opens it again is a resume.
                _ => (Err(Error::State("the data was opened long ago, and a handoff is under way".into())), None),
            },
            Machine::Incumbent(_) => match self.begin_cold() {
                Ok(true) => (Ok(true), None),
                Ok(false) if Instant::now() < patience => (Ok(false), Some(LOCK_RETRY)),
                Ok(false) => (Err(Error::Locked(self.lock.as_ref().map_or(String::new(), |lock| lock.blame()))), None),
                Err(error) => (Err(error), None),
            },
        }
    }

    /// Takes the lock of a cold start, unless its control path can not be had: that is known before the data is opened.
    fn begin_cold(&mut self) -> Result<bool> {
        self.control.check()?;
        if !self.try_lock()? {
            return Ok(false);
        }
        self.control.check_free(None)?;
        self.cold_begun = true;
        self.fence.open();
        Ok(true)
    }

    /// One attempt at gate and lock; true without any.
    pub(super) fn try_lock(&mut self) -> Result<bool> {
        let (role, lock) = (self.role(), &mut self.lock);
        crash::around(role, format_args!("take lock"), || lock.as_mut().map_or(Ok(true), DataDirLock::try_take))
    }

    /// N says that it is warm; before that it does whatever can fail, or takes time, and does not need the data.
    pub(super) fn say_warmed(&mut self) -> Result<()> {
        if self.successor().is_some() && self.end.is_none() {
            self.prepare_control()?;
            let opened = || self.lock.as_mut().map_or(Ok(()), DataDirLock::open);
            crash::around('N', format_args!("open lock"), opened)?;
        }
        self.feed_successor(successor::Input::Warmed);
        Ok(())
    }

    /// The first call of announce_ready.
    pub(super) fn announce(&mut self, readiness: &Readiness) -> Result<()> {
        self.pump();
        let cold = self.successor().is_none();
        let too_early = || Error::State("announce_ready needs wait_for_begin first".into());
        if cold {
            if !self.cold_begun || self.cold_ready || self.incumbent_phase() != Some(incumbent::Phase::Starting) {
                return Err(too_early());
            }
            self.control.check_free(None)?;
            self.prepare_control()?;
            self.publish_control();
            self.feed_incumbent(incumbent::Input::Ready(readiness.clone()));
            self.cold_ready = true;
            return Ok(());
        }
        match self.successor().map(|machine| *machine.phase()) {
            Some(successor::Phase::Opening) => {}
            Some(successor::Phase::AwaitCommitted | successor::Phase::Committing) => return Ok(()), // called again
            _ if self.end.is_some() => return Ok(()), // commit_state says why
            _ => return Err(too_early()),
        }
        self.feed_successor(successor::Input::Opened(readiness.clone()));
        Ok(())
    }

    /// Whether this process serves.
    pub(super) fn commit_state(&self) -> Result<bool> {
        match &self.end {
            Some(End::Aborted(reason)) => Err(Error::Aborted(reason.clone())),
            _ => Ok(self.has_won() || self.cold_ready),
        }
    }

    /// The application has come back to serve: now everybody may know.
    pub(super) fn tell_served(&mut self) {
        if self.served {
            return;
        }
        if self.has_won() {
            self.served = true;
            self.become_incumbent();
        } else if self.cold_ready {
            self.served = true;
            let (now_ns, control) = (monotonic_ns(), self.published.clone());
            self.feed_incumbent(incumbent::Input::Served { now_ns, control });
            if let (Some(lock), Some(machine)) = (&self.lock, self.incumbent()) {
                lock.record(machine.generation());
            }
        }
    }
}

//! A supervisor that goes on in another program of this process.

use super::Supervisor;
use super::engine::Engine;
use super::output::OutputWatch;
use super::process::Token;
use crate::error::{Error, Result};
use crate::protocol::supervisor::Phase;
use crate::sys::descendants::claim;
use crate::sys::pidfd::Pidfd;

impl Engine {
    /// What must have ended before: nothing of it could be taken along.
    fn transaction(&self) -> Option<(&'static str, bool)> {
        let processes = &self.processes;
        let is_idle = self.machine.handoff().is_none() && self.rendezvous.is_none() && !self.waits_for_readiness();
        match () {
            () if self.resuming => Some(("a daemon is being adopted", true)),
            () if self.machine.phase() == Phase::Probation => {
                Some(("it is in its probation, which must be over", false))
            }
            () if !is_idle || processes.successor.is_some() || processes.parked.is_some() => {
                Some(("a handoff is under way", true))
            }
            () => None,
        }
    }

    /// Watches all that was taken along, on an epoll that is new.
    fn watch_again(&mut self, watch: &OutputWatch) -> Result<()> {
        self.output_watch = Some(watch.clone());
        let failed = |errno: nix::Error| Error::system("cannot watch what was taken along")(errno.into());
        self.epoll.add(&self.timers, Token::Timer.event()).map_err(failed)?;
        self.canceller.watch(&self.epoll).map_err(failed)?;
        self.watch_notifications().map_err(failed)?;
        self.watch_pipe().map_err(failed)?;
        for process in self.processes.iter_mut() {
            process.watch(&self.epoll).map_err(failed)?;
            claim_child(process.pid, &process.pidfd);
            for former in &process.former {
                former.watch(&self.epoll).map_err(failed)?;
            }
            if let Some(output) = &mut process.output {
                output.watch_again(watch).map_err(failed)?;
            }
        }
        self.come_again();
        Ok(())
    }
}

/// Its end is waited for here, and by nobody else.
pub(super) fn claim_child(pid: i32, process: &Pidfd) {
    if process.is_child() {
        claim(pid);
    }
}

impl Supervisor {
    /// Why it can not go on in another program now, and whether that passes soon.
    pub(crate) fn transaction(&self) -> Option<(&'static str, bool)> {
        self.engine.transaction()
    }

    /// Whether events wait that nobody has fetched.
    pub(crate) fn has_events(&self) -> bool {
        !self.engine.events.is_empty()
    }

    /// It was taken along from the program before: from now on it is as any other one.
    pub(crate) fn watch_again(&mut self, watch: &OutputWatch) -> Result<()> {
        self.engine.watch_again(watch)
    }
}

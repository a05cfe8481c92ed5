//! The control path of a daemon on its way: bound, in its place, without room for those who come, bound again.

use super::core::{Core, Source, Timer, add, remove};
use super::trace;
use crate::error::Result;
use crate::limits::{ACCEPT_RETRY, CONTROL_RETRY};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::{crash, fork};

impl Core {
    /// Binds and listens under a temporary name.
    pub(super) fn prepare_control(&mut self) -> Result<()> {
        crash::around(self.role(), format_args!("bind control path"), || self.control.prepare())
    }

    /// Puts the control path into its place, and tries again later if that fails: a commit stands.
    pub(super) fn publish_control(&mut self) {
        let role = self.role();
        let published = crash::around(role, format_args!("rename control path"), || self.control.publish());
        self.published = match published {
            Ok(Some(listener)) => {
                fork::withhold(listener);
                add(&self.sources, listener, Source::Control).map_err(|error| error.to_string())
            }
            Ok(None) => return,
            Err(error) => {
                trace::trouble(&error, "the control path is not in its place; trying again");
                self.timers.arm(Timer::Control, monotonic_ns() + nanoseconds(CONTROL_RETRY));
                Err(error.to_string())
            }
        };
    }

    /// Nobody can be accepted, most likely because `RLIMIT_NOFILE` is reached: whoever waits would wake us without end.
    pub(super) fn rest_control(&mut self, error: &std::io::Error) {
        trace::trifle(None, error, "cannot accept on the control path; trying again");
        if let Some(listener) = self.control.listener() {
            remove(&self.sources, listener);
        }
        self.timers.arm(Timer::Accept, monotonic_ns() + nanoseconds(ACCEPT_RETRY));
    }

    pub(super) fn watch_control(&mut self) {
        if let Some(listener) = self.control.listener() {
            let _ = add(&self.sources, listener, Source::Control); // watched already: bound again in between
        }
    }

    /// Binds the control path again if another process has it, or has removed it.
    pub(super) fn rebind_control(&mut self) {
        if !self.control.is_lost() {
            return;
        }
        if let Some(listener) = self.control.listener() {
            fork::release(listener);
            remove(&self.sources, listener);
        }
        match self.prepare_control() {
            Ok(()) => self.publish_control(),
            Err(error) => trace::trouble(&error, "the control path can not be bound again"),
        }
    }
}

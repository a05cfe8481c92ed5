//! Orphans: whoever becomes a child of this process without having been started by it, because this process is PID 1 of its
//! namespace or a child subreaper (prctl(2), `PR_SET_CHILD_SUBREAPER`), or was their parent before its exec.
//!
//! A process that was started here is waited for through its pidfd, by whoever wants its exit status: that one is never reaped here.

use std::time::Duration;

use crate::limits::{ORPHANS_REAPED_MAX, REAP_RETRY};
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::descendants::is_claimed;
use crate::sys::reap::{first_zombie, reap};

/// What reaps them. It has no state that a restart of this process would have to keep.
#[derive(Debug)]
pub struct Reaper {
    /// When to look, in absolute `CLOCK_MONOTONIC` nanoseconds; none: at the next SIGCHLD.
    look_ns: Option<u64>,
}

impl Reaper {
    /// Children may have ended already.
    #[expect(clippy::new_without_default, reason = "its first look is due")]
    pub fn new() -> Self {
        Self { look_ns: Some(0) }
    }

    /// SIGCHLD came. Ten ends can be one SIGCHLD.
    pub fn wake(&mut self) {
        self.look_ns = Some(0);
    }

    /// In what time [`Self::turn`] must be called at the latest; none: after [`Self::wake`].
    pub fn due_in(&self) -> Option<Duration> {
        self.look_ns.map(|look_ns| Duration::from_nanos(look_ns.saturating_sub(monotonic_ns())))
    }

    /// Reaps orphans, and says how many. Call it after those had their turn who wait for children of their own: the kernel shows one dead
    /// child only, and if somebody waits for that one, the others are hidden behind it until he has.
    pub fn turn(&mut self) -> usize {
        if self.look_ns.is_none_or(|look_ns| monotonic_ns() < look_ns) {
            return 0;
        }
        for reaped in 0..ORPHANS_REAPED_MAX {
            match first_zombie() {
                Ok(Some(pid)) if !is_claimed(pid) && reap(pid).is_ok() => {}
                Ok(None) => {
                    self.look_ns = None;
                    return reaped;
                }
                Ok(Some(_)) | Err(_) => {
                    self.look_ns = Some(monotonic_ns().saturating_add(nanoseconds(REAP_RETRY)));
                    return reaped;
                }
            }
        }
        ORPHANS_REAPED_MAX // it goes on in the next turn
    }
}

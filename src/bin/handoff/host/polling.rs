//! poll(2), also where fewer descriptors may be polled at once than there are: somebody has lowered `RLIMIT_NOFILE` of this process
//! (prlimit(1)).

use std::io;
use std::thread;
use std::time::Duration;

use handoff::sys::limits::{raise_nofile, soft_nofile};
use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};
use serde_json::json;

use super::Host;

/// Between two looks at all descriptors, where no poll can wait for them.
const LOOK: Duration = Duration::from_millis(20);

/// What a poll has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// Which are ready.
    Whole,
    /// The same, of parts one after the other.
    InParts,
    /// Nothing: any may be.
    Nothing,
}

pub(super) fn poll_all(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> io::Result<Polled> {
    let polled = poll(fds, timeout);
    // Before anything is done that needs a descriptor: only the soft limit may have been lowered.
    let _ = raise_nofile();
    match polled {
        Ok(_) | Err(Errno::EINTR) => Ok(Polled::Whole),
        Err(Errno::EINVAL) => poll_more(fds, timeout),
        Err(errno) => Err(errno.into()),
    }
}

/// They are more than `RLIMIT_NOFILE` allows.
fn poll_more(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> io::Result<Polled> {
    if let Ok(_) | Err(Errno::EINTR) = poll(fds, PollTimeout::ZERO) {
        return Ok(Polled::Whole); // the next one waits
    }
    let limit = usize::try_from(soft_nofile()?).unwrap_or(usize::MAX);
    let ready = fds.chunks_mut(limit.max(1)).map(|part| poll(part, PollTimeout::ZERO)).sum::<nix::Result<i32>>();
    if !ready.is_ok_and(|count| count > 0) {
        // A wait for some of them would be too long for the others.
        thread::sleep(timeout.as_millis().map_or(LOOK, |time| Duration::from_millis(time.into()).min(LOOK)));
    }
    Ok(if ready.is_ok() { Polled::InParts } else { Polled::Nothing })
}

impl Host {
    /// Says once that it polls in another way, and why.
    pub(super) fn note_polled(&mut self, polled: Polled, count: usize) {
        let is_whole = polled == Polled::Whole;
        if self.polls_parts == is_whole {
            self.polls_parts = !is_whole;
            if !is_whole {
                let (limit, pid) = (soft_nofile().unwrap_or(0), std::process::id());
                let text = format!(
                    "RLIMIT_NOFILE was lowered to {limit}, but {count} descriptors are watched: commands may not get through, and nothing \
                     can be started; raise it: prlimit --pid {pid} --nofile=65536"
                );
                self.output.say("warning", &self.name, &text, json!({ "limit": limit }));
            }
        }
    }
}

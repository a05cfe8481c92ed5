//! A search through processes, and whether it could look at all of them.

use std::io;

use super::pidfd::Pidfd;
use super::proc;
use super::session::{Place, place_of};

/// One search. What has gone, or belongs to others, is none of its business; but where the kernel gives no descriptor or no memory for a look, nothing is
/// known, and whoever searches must come back.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// How often processes are looked at again, a millisecond later, that can not say yet what they were started with. A search has one number
    /// for all: anybody's process may hang in execve(2), on a file system that has gone.
    #[cfg(feature = "program")]
    pauses: usize,
    /// The first look that was not possible.
    blind: Option<io::Error>,
}

impl Look {
    /// It waits for those that can not tell yet; any other is for who asks again anyway.
    #[cfg(feature = "program")]
    pub(crate) fn patient() -> Self {
        Self { pauses: 250, ..Self::default() }
    }

    /// Whether it has paused.
    #[cfg(feature = "program")]
    pub(crate) fn pause(&mut self) -> bool {
        let left = self.pauses.checked_sub(1);
        self.pauses = left.unwrap_or_default();
        left.inspect(|_| std::thread::sleep(std::time::Duration::from_millis(1))).is_some()
    }

    #[cfg(all(test, feature = "program"))]
    pub(crate) fn pauses(&self) -> usize {
        self.pauses
    }

    /// What is there; none if nothing is, or if that could not be seen.
    pub(crate) fn see<T>(&mut self, found: io::Result<T>) -> Option<T> {
        match found {
            Ok(found) => Some(found),
            Err(error) => {
                if is_blind(&error) && self.blind.is_none() {
                    self.blind = Some(error);
                }
                None
            }
        }
    }

    /// All processes that can be seen.
    pub(crate) fn pids(&mut self) -> Vec<i32> {
        self.see(proc::all()).unwrap_or_default()
    }

    pub(crate) fn open(&mut self, pid: i32) -> Option<Pidfd> {
        self.see(Pidfd::open(pid))
    }

    /// Where a process is, also a zombie.
    pub(crate) fn place(&mut self, pid: i32) -> Option<Place> {
        self.see(place_of(pid))
    }

    /// The same of one that lives.
    pub(crate) fn living(&mut self, pid: i32) -> Option<Place> {
        self.place(pid).filter(|place| !place.is_dead)
    }

    /// The session of one that lives.
    pub(crate) fn session(&mut self, pid: i32) -> Option<i32> {
        self.living(pid).map(|place| place.session)
    }

    #[cfg(feature = "program")]
    pub(crate) fn stat(&mut self, pid: i32) -> Option<proc::Stat> {
        self.see(proc::Stat::of(pid))
    }

    pub(crate) fn is_blind(&self) -> bool {
        self.blind.is_some()
    }

    /// # Errors
    /// Something could not be looked at: it may be there.
    #[cfg(feature = "program")]
    pub(crate) fn end(self) -> io::Result<()> {
        self.blind.map_or(Ok(()), Err)
    }
}

/// Whether an error tells nothing of what was asked for.
pub(crate) fn is_blind(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_is_seen_and_what_can_not_be_looked_at_is_remembered() {
        let mut look = Look::default();
        let own = std::process::id().cast_signed();
        assert!(look.pids().contains(&own) && look.living(own).is_some() && look.open(own).is_some());
        assert!(look.living(i32::MAX).is_none() && look.open(i32::MAX).is_none() && !look.is_blind());
        for errno in [libc::EMFILE, libc::ENFILE, libc::ESRCH] {
            assert_eq!(look.see::<()>(Err(io::Error::from_raw_os_error(errno))), None);
        }
        assert_eq!(look.end().unwrap_err().raw_os_error(), Some(libc::EMFILE), "the first one");
        Look::default().end().unwrap();
    }
}

//! Which files were written to.

use crate::error::{Error, Result};
use crate::limits::OUTPUT_POLL;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::time::TimeSpec;
use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Reads of the queue at most, each of dozens of events: who writes without end keeps nobody from his work.
const READS_MAX: usize = 16;

/// One inotify(7) instance for the output of any number of services: a user has 128 of them by default
/// (`fs.inotify.max_user_instances`). Files that can not be watched, since others have used up what there is, are looked at
/// some times a second. Duplicates are the same.
#[derive(Clone, Debug)]
pub struct OutputWatch(Arc<Shared>);

/// A file. Numbers are never used again.
pub(super) type Watched = u64;

#[derive(Debug)]
struct Shared {
    /// Of the others.
    epoll: Epoll,
    /// None: there is none left.
    inotify: Option<Inotify>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Watched,
    watched: BTreeMap<WatchDescriptor, Watched>,
    /// Those that can not be watched.
    polled: BTreeSet<Watched>,
    /// Made for the first of these.
    timer: Option<TimerFd>,
    /// Of all, the ones that were written to since somebody has looked.
    written: BTreeSet<Watched>,
}

/// Each program has its own.
#[cfg(feature = "program")]
pub(crate) mod anew {
    use super::OutputWatch;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(_: &OutputWatch, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<OutputWatch, D::Error> {
        <()>::deserialize(deserializer)?;
        OutputWatch::new().map_err(de::Error::custom)
    }
}

impl OutputWatch {
    /// # Errors
    /// [`Error::System`]: those of epoll_create1(2).
    pub fn new() -> Result<Self> {
        let failed = |errno: Errno| Error::system("cannot watch the output of processes")(errno.into());
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        inotify.iter().try_for_each(|inotify| epoll.add(inotify, readable())).map_err(failed)?;
        Ok(Self(Arc::new(Shared { epoll, inotify, state: Mutex::default() })))
    }

    /// Takes note of what the kernel tells, when the descriptor is readable.
    pub fn drain(&self) {
        let State { watched, written, timer, polled, .. } = &mut *self.lock();
        // It is nonblocking, and its number of expirations says whether there was one.
        if timer.as_ref().is_some_and(|timer| timer.wait().is_ok()) {
            written.extend(polled.iter());
        }
        for _ in 0..READS_MAX {
            let events = match self.0.inotify.as_ref().map(Inotify::read_events) {
                Some(Ok(events)) => events,
                Some(Err(Errno::EINTR)) => continue,
                Some(Err(_)) | None => return,
            };
            for event in events {
                match watched.get(&event.wd) {
                    _ if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) => written.extend(watched.values()), // any
                    Some(file) => drop(written.insert(*file)),
                    None => {}
                }
            }
        }
    }

    pub(super) fn add(&self, path: &Path) -> nix::Result<Watched> {
        let mut state = self.lock();
        state.last += 1;
        let file = state.last;
        match self.0.inotify.as_ref().map(|inotify| inotify.add_watch(path, AddWatchFlags::IN_MODIFY)) {
            Some(Ok(watch)) => drop(state.watched.insert(watch, file)),
            Some(Err(Errno::ENOSPC)) | None => {
                if state.timer.is_none() {
                    state.timer = Some(self.timer()?);
                }
                state.polled.insert(file);
            }
            Some(Err(errno)) => return Err(errno),
        }
        Ok(file)
    }

    fn timer(&self) -> nix::Result<TimerFd> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        timer.set(Expiration::Interval(TimeSpec::from_duration(OUTPUT_POLL)), TimerSetTimeFlags::empty())?;
        self.0.epoll.add(&timer, readable())?;
        Ok(timer)
    }

    pub(super) fn remove(&self, file: Watched) {
        let State { watched, written, polled, timer, .. } = &mut *self.lock();
        let watch = watched.iter().find(|(_, watched)| **watched == file).map(|(watch, _)| *watch);
        if let (Some(watch), Some(inotify)) = (watch, &self.0.inotify) {
            let _ = inotify.rm_watch(watch);
            watched.remove(&watch);
        }
        polled.remove(&file);
        written.remove(&file);
        timer.take_if(|_| polled.is_empty()); // closed, it leaves the epoll
    }

    pub(super) fn is_written(&self, file: Watched) -> bool {
        self.lock().written.contains(&file)
    }

    /// The same, once.
    pub(super) fn take(&self, file: Watched) -> bool {
        self.lock().written.remove(&file)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn readable() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, 0)
}

impl AsFd for OutputWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.epoll.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd::poll_now;
    use nix::poll::PollFlags;
    use std::fs;
    use std::time::{Duration, Instant};

    /// Waits until the file was written to, as it is told.
    fn is_told(watch: &OutputWatch, file: Watched) -> bool {
        let end = Instant::now() + Duration::from_secs(60);
        while !watch.is_written(file) && Instant::now() < end {
            if !poll_now(watch.as_fd(), PollFlags::POLLIN).unwrap().is_empty() {
                watch.drain();
            }
        }
        watch.take(file) && !watch.is_written(file)
    }

    #[test]
    fn files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["one", "other"].map(|name| dir.path().join(name));
        paths.iter().for_each(|path| fs::write(path, "").unwrap());
        // Other tests may have all instances of this user for a moment.
        let end = Instant::now() + Duration::from_secs(60);
        let mut watch = OutputWatch::new().unwrap();
        while watch.0.inotify.is_none() && Instant::now() < end {
            watch = OutputWatch::new().unwrap();
        }
        let [one, other] = paths.each_ref().map(|path| watch.add(path).unwrap());
        fs::write(&paths[1], "x").unwrap();
        assert!(is_told(&watch, other) && !watch.is_written(one));
        watch.remove(other);
        fs::write(&paths[1], "x").unwrap();
        fs::write(&paths[0], "x").unwrap();
        assert!(is_told(&watch, one) && !watch.is_written(other));
    }

    /// As where the instances of the user are used up.
    #[test]
    fn without_inotify_they_are_looked_at_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let watch = OutputWatch::new().unwrap();
        let Shared { epoll, .. } = Arc::into_inner(watch.0).unwrap();
        let watch = OutputWatch(Arc::new(Shared { epoll, inotify: None, state: Mutex::default() }));
        let file = watch.add(dir.path()).unwrap();
        assert!(is_told(&watch, file) && is_told(&watch, file));
        watch.remove(file);
        assert!(watch.lock().timer.is_none());
    }
}

//! The files by which this supervisor is found, and kept alone: somebody may remove them while it runs.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use handoff::limits::STATE_RETRY;
use handoff::sys::clock::{monotonic_ns, nanoseconds};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::json;

use super::Host;

/// From the first one that is gone until they are made anew: whoever removes a whole directory is to come to its end.
const SETTLE: Duration = Duration::from_millis(100);
/// Looks after that, each twice as late as the one before: of a removal that takes longer some of the new ones are the victims, too.
const LOOKS: u32 = 6;

/// Tells when one of them is removed.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// None: a user has no more of these. Then nobody tells.
    inotify: Option<Inotify>,
    /// When to make anew what is gone, in `CLOCK_MONOTONIC` nanoseconds.
    due_ns: Option<u64>,
    /// Looks that are left.
    looks: u32,
    /// It was said that this can not be done.
    told: bool,
}

impl Place {
    pub(super) fn interest(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    fn watch(&mut self, paths: &[&Path]) {
        self.inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        // To lose its last name is a change of its attributes.
        let flags = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        if let Some(inotify) = &self.inotify {
            paths.iter().for_each(|path| {
                let _ = inotify.add_watch(*path, flags); // gone: that is seen by a look
            });
        }
    }

    /// Reads what was told.
    fn drain(&self) {
        while self.inotify.as_ref().is_some_and(|inotify| inotify.read_events().is_ok()) {}
    }

    /// In so much time, at the latest.
    fn come_back(&mut self, time: Duration) {
        let due_ns = monotonic_ns().saturating_add(nanoseconds(time));
        self.due_ns = Some(self.due_ns.map_or(due_ns, |earlier| earlier.min(due_ns)));
    }

    fn look_again(&mut self) {
        if let Some(left) = self.looks.checked_sub(1) {
            self.come_back(SETTLE * (1 << (LOOKS - left)));
            self.looks = left;
        }
    }
}

impl Host {
    /// From now on they are watched.
    pub(super) fn watch_place(&mut self) {
        let Some(instance) = &self.instance else { return };
        self.place.watch(&[instance.path(), self.server.path()]);
        self.turn_place(true);
    }

    /// Something has become of them, or it is time to make them anew.
    pub(super) fn turn_place(&mut self, is_told: bool) {
        if is_told {
            self.place.drain();
            if self.what_is_gone().is_some() {
                self.place.come_back(SETTLE);
            }
        }
        if self.place.due_ns.is_some_and(|due_ns| monotonic_ns() >= due_ns) {
            self.renew();
        }
    }

    fn what_is_gone(&self) -> Option<&'static str> {
        match &self.instance {
            Some(instance) if !instance.is_there() => Some("its runtime directory"),
            _ => fs::symlink_metadata(self.server.path()).is_err().then_some("its control socket"),
        }
    }

    fn renew(&mut self) {
        self.place.due_ns = None;
        let gone = self.what_is_gone();
        let what = gone.unwrap_or("what it has there");
        let text = match self.try_renew() {
            Ok(()) => {
                self.place.told = false;
                self.watch_place();
                self.place.looks = gone.map_or(self.place.looks, |_| LOOKS);
                self.place.look_again();
                if gone.is_none() {
                    return;
                }
                format!("{what} was removed while it ran, and was made anew")
            }
            Err(error) => {
                self.place.come_back(STATE_RETRY);
                if std::mem::replace(&mut self.place.told, true) {
                    return;
                }
                format!(
                    "{what} was removed while it ran, and can not be made anew: {error}; until that is possible, no command gets through"
                )
            }
        };
        self.output.say("warning", &self.name, &text, json!({}));
    }

    fn try_renew(&mut self) -> handoff::Result<()> {
        self.fleet.runtime().create()?;
        if let Some(instance) = self.instance.as_ref().filter(|instance| !instance.is_there()) {
            self.instance = Some(instance.renew(&self.name, None)?);
        }
        if fs::symlink_metadata(self.server.path()).is_err() {
            self.server.bind_again()?;
        }
        self.fleet.renew_files()
    }
}

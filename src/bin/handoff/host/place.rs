//! The files by which this supervisor is found, its units are kept alone, and a supervisor after it finds what runs: somebody may remove them while
//! it runs, or move them away.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use handoff::limits::STATE_RETRY;
use handoff::service::fleet::Lost;
use handoff::service::paths::owner_of;
use handoff::sys::clock::{monotonic_ns, nanoseconds};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::json;

use super::Host;

/// So long nothing was removed, until what is gone is made anew: whoever removes a whole directory is to come to its end.
const SETTLE: Duration = Duration::from_millis(100);
/// So long at most after the first one.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// Tells when one of them is removed.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// None: a user has no more of these. Then nobody tells.
    inotify: Option<Inotify>,
    /// Whose files were removed since the last look, and when that began.
    told: Told,
    since_ns: u64,
    /// When to look what is gone, in `CLOCK_MONOTONIC` nanoseconds.
    due_ns: Option<u64>,
    /// It was said that this can not be done.
    failed: bool,
}

/// Whose files were removed.
#[derive(Debug)]
enum Told {
    /// Those of these units, and of the supervisor.
    Of(BTreeSet<String>),
    /// Anybody's.
    Any,
}

impl Default for Told {
    fn default() -> Self {
        Self::Of(BTreeSet::new())
    }
}

impl Told {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::Of(names) => names.contains(name),
            Self::Any => true,
        }
    }
}

impl Place {
    pub(super) fn interest(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    fn watch(&mut self, dir: &Path, socket: &Path) {
        self.inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        let of_itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        let of_files = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        if let Some(inotify) = &self.inotify {
            // What is gone by now is seen by the look that follows.
            let _ = inotify.add_watch(dir, of_itself | of_files | AddWatchFlags::IN_ONLYDIR);
            // It may be elsewhere. To lose its last name is a change of its attributes.
            let _ = inotify.add_watch(socket, of_itself | AddWatchFlags::IN_ATTRIB);
        }
    }

    /// Reads what was told. Most of it is what this process does there itself.
    fn read(&mut self) {
        while let Some(Ok(events)) = self.inotify.as_ref().map(Inotify::read_events) {
            for event in events {
                match event.name.as_ref().map(|name| name.to_str().and_then(owner_of)) {
                    Some(Some(owner)) => {
                        if let Told::Of(names) = &mut self.told {
                            names.insert(owner.to_owned());
                        }
                    }
                    Some(None) => continue,
                    None => self.told = Told::Any,
                }
                self.settle();
            }
        }
    }

    /// Something was removed just now.
    fn settle(&mut self) {
        let now_ns = monotonic_ns();
        if self.due_ns.is_none() {
            self.since_ns = now_ns;
        }
        let latest_ns = self.since_ns.saturating_add(nanoseconds(SETTLE_MAX));
        self.due_ns = Some(now_ns.saturating_add(nanoseconds(SETTLE)).min(latest_ns));
    }
}

impl Host {
    /// From now on they are watched.
    pub(super) fn watch_place(&mut self) {
        self.place.watch(self.fleet.runtime().path(), self.server.path());
        self.place.told = Told::Any;
        self.place.settle();
    }

    /// Something has become of them, or it is time to make them anew.
    pub(super) fn turn_place(&mut self, is_told: bool) {
        if is_told {
            self.place.read();
        }
        if self.place.due_ns.is_some_and(|due_ns| monotonic_ns() >= due_ns) {
            self.place.due_ns = None;
            self.renew();
        }
    }

    /// What is gone of the supervisor's own.
    fn what_is_gone(&self) -> Option<&'static str> {
        let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
        match &self.instance {
            _ if !is_there(self.fleet.runtime().path()) => Some("its runtime directory"),
            Some(instance) if !instance.is_there() && !is_there(self.server.path()) => Some("its runtime directory"),
            Some(instance) if !instance.is_there() => Some("its lock"),
            _ => (!is_there(self.server.path())).then_some("its control socket"),
        }
    }

    fn renew(&mut self) {
        let told = std::mem::take(&mut self.place.told);
        let gone = self.what_is_gone();
        let is_told = |name: &str| gone.is_some() || told.has(name);
        let lost = self.fleet.find_lost(is_told);
        if gone.is_none() && lost.is_empty() {
            return;
        }
        let what = gone.map_or_else(|| lost.to_string(), str::to_owned);
        let mut errors = self.try_renew(&lost);
        let still = self.fleet.find_lost(is_told);
        if errors.is_empty() && !still.is_empty() {
            errors.push(handoff::Error::State(format!("{still} is not there yet")));
        }
        let text = if errors.is_empty() {
            self.place.failed = false;
            self.watch_place();
            format!("{what} was removed while it ran, and was made anew{}", self.beyond_renewal())
        } else {
            self.place.told = Told::Any;
            self.place.due_ns = Some(monotonic_ns().saturating_add(nanoseconds(STATE_RETRY)));
            if std::mem::replace(&mut self.place.failed, true) {
                return;
            }
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let deaf = match fs::symlink_metadata(self.server.path()) {
                Ok(_) => "",
                Err(_) => ", and no command gets through until then",
            };
            format!(
                "{what} was removed while it ran, and can not be made anew: {}; it is tried again{deaf}",
                errors.join("; ")
            )
        };
        self.output.say("warning", &self.name, &text, json!({}));
    }

    /// All that can be made anew is, whatever goes wrong with the rest.
    fn try_renew(&mut self, lost: &Lost) -> Vec<handoff::Error> {
        if let Err(error) = self.fleet.runtime().create() {
            return vec![error];
        }
        let mut errors = Vec::new();
        if let Some(instance) = self.instance.as_ref().filter(|instance| !instance.is_there()) {
            match instance.renew(&self.name, None) {
                Ok(instance) => self.instance = Some(instance),
                Err(error) => errors.push(error),
            }
        }
        if fs::symlink_metadata(self.server.path()).is_err() {
            errors.extend(self.server.bind_again().err());
        }
        errors.extend(self.fleet.renew_files(lost));
        self.seen.renew_files();
        errors
    }

    /// What only a restart brings back, for people.
    fn beyond_renewal(&self) -> String {
        let services = self.fleet.names().filter_map(|name| self.fleet.service(name));
        let names: Vec<&str> =
            services.filter(|service| service.lost_lock().is_some()).map(handoff::service::Service::name).collect();
        match names.is_empty() {
            true => String::new(),
            false => format!(
                "; but only a restart makes the locks of {} anew: until then they can not be replaced",
                names.join(", ")
            ),
        }
    }
}

//! One unit of a fleet.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::service::Service;
use crate::service::config::Unit;
use crate::service::fleet::kept::Kept;
use crate::service::fleet::timed::Timed;
use crate::service::graph::{Standing, State};
use crate::service::instance::Instance;
use crate::service::paths::RuntimeDir;
use crate::service::unit::past::Past;
use crate::supervisor::{OutputWatch, Verdict};
use crate::sys::listing::Listing;

/// A unit: what it should be, and its service.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Member {
    /// As it is configured now.
    #[serde(with = "crate::sys::inherit::shared")]
    pub(super) unit: Arc<Unit>,
    /// As its service is configured: true of the next process.
    #[serde(with = "crate::sys::inherit::shared")]
    pub(super) applied: Arc<Unit>,
    /// As its process was, when it was started or taken over.
    #[serde(with = "crate::sys::inherit::shared")]
    pub(super) running: Arc<Unit>,
    /// None before its sockets could be bound.
    pub(super) service: Timed,
    /// Keeps other supervisors from the files of the service.
    lock: Option<Instance>,
    /// In the epoll; never used again.
    pub(super) key: u64,
    /// It is stopped, to be started again.
    pub(super) bounced: bool,
    /// It is no more in the configuration.
    pub(super) removed: bool,
    /// What is written down of it.
    #[serde(skip)] // it is written anew
    pub(super) kept: Option<Kept>,
    /// A process of it was started by this supervisor, or it came with a reload: its next start has a reason of its own.
    pub(super) came_later: bool,
    /// Why it has no service, or can not start.
    pub(super) trouble: Option<String>,
    /// What it was when others were told last.
    pub(super) seen: State,
    /// Why it has not started yet.
    pub(super) standing: Option<Standing>,
    /// It is blocked, as was told: why.
    #[serde(default)]
    pub(super) blocked: Option<String>,
    /// What was applied before the last upgrade, until it is certain that nobody goes back there.
    #[serde(default, with = "crate::sys::inherit::optional_shared")]
    before: Option<Arc<Unit>>,
}

/// The keys that are not of the process, but of the order; they are true at once.
const AT_ONCE: &[&str] = &["autostart", "requires", "wants", "after", "conflicts", "system"];

impl Member {
    pub(super) fn new(unit: Unit, key: u64) -> Self {
        let unit = Arc::new(unit);
        Self {
            applied: unit.clone(),
            running: unit.clone(),
            unit,
            service: Timed::default(),
            lock: None,
            key,
            bounced: false,
            removed: false,
            kept: None,
            came_later: false,
            trouble: None,
            seen: State::Down,
            standing: None,
            blocked: None,
            before: None,
        }
    }

    /// Binds its sockets, or begins to adopt its daemon.
    pub(super) fn prepare(
        &mut self,
        name: &str,
        runtime: &RuntimeDir,
        watch: &OutputWatch,
        supervisor: &str,
        listing: Option<&Arc<Listing>>,
    ) -> Result<()> {
        if self.service.is_some() {
            return Ok(());
        }
        // Of that name is the supervisor's own.
        if self.lock.is_none() && name != supervisor {
            self.lock = Some(Instance::succeed_unit(&runtime.lock(name), name, supervisor)?);
        }
        self.applied = self.unit.clone();
        let past = self.kept.as_ref().map_or_else(Past::default, |kept| kept.service.clone());
        let settings = self.unit.settings(name)?;
        *self.service =
            Some(Box::new(Service::new(settings, runtime.clone(), &self.unit.listen, watch, Some(past), listing)?));
        Ok(())
    }

    /// It has failed under another supervisor, and is configured in another way now.
    pub(super) fn forgive_what_may_be_mended(&mut self) {
        let is_changed = self.kept.as_ref().is_some_and(|kept| *kept.configured() != self.unit);
        if is_changed && self.state() == State::Failed {
            self.forgive();
        }
    }

    /// Whether somebody has removed what it has beside what is written down of it.
    pub(super) fn has_lost_files(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| !lock.is_there())
            || self.service.as_deref().is_some_and(Service::has_lost_files)
    }

    /// They were removed. The journal is made anew also if another supervisor has the lock by now.
    pub(super) fn renew_files(&mut self, name: &str, supervisor: &str) -> Result<()> {
        self.service.iter_mut().for_each(|service| service.renew_files());
        if let Some(lock) = self.lock.as_ref().filter(|lock| !lock.is_there()) {
            self.lock = Some(lock.renew(name, Some(supervisor))?);
        }
        Ok(())
    }

    /// Its files are not those of another supervisor.
    pub(super) fn owns_files(&self) -> bool {
        self.lock.is_some() || self.service.is_some()
    }

    /// What the configuration says now is true of the next process.
    pub(super) fn apply(&mut self, name: &str) -> Result<()> {
        if let Some(service) = self.service.as_mut().filter(|_| self.applied != self.unit) {
            service.reconfigure(self.unit.settings(name)?, &self.unit.listen)?;
            self.applied = self.unit.clone();
        }
        Ok(())
    }

    /// After an upgrade that was refused: its process is as it was. Sockets that are bound by now stay, since their addresses can not
    /// be given back and forth.
    pub(super) fn take_back(&mut self, name: &str, before: Arc<Unit>) -> Result<()> {
        if let Some(service) =
            self.service.as_mut().filter(|_| self.applied != before && self.applied.listen == before.listen)
        {
            service.configure_back(before.settings(name)?, &before.listen)?;
            self.applied = before;
        }
        Ok(())
    }

    /// An upgrade was begun, which changes this.
    pub(super) fn note_upgrade(&mut self, before: Arc<Unit>) {
        self.before = Some(before);
    }

    /// How an upgrade has ended, by now. Undone, the process is that of before, and so is what is started after a crash.
    pub(super) fn note_outcome(&mut self, name: &str, verdict: Verdict) -> Result<()> {
        match verdict {
            Verdict::RolledBack | Verdict::Reverted | Verdict::Refused => {
                let Some(before) = self.before.take() else { return Ok(()) };
                self.running = before.clone();
                self.take_back(name, before)
            }
            _ => Ok(()),
        }
    }

    /// Another process serves.
    pub(super) fn note_process(&mut self) {
        self.running = self.applied.clone();
    }

    /// The process of a supervisor before serves: as it was started then, as far as that is known.
    pub(super) fn note_adopted(&mut self, generation: u64) {
        self.running = match &self.kept {
            Some(kept) if kept.service.generation == generation => kept.running.clone(),
            Some(kept) => kept.next.as_ref().unwrap_or(&kept.running).clone(),
            None => self.applied.clone(),
        };
    }

    /// The keys in which its process differs from its configuration.
    pub(super) fn stale(&self) -> Vec<&'static str> {
        match self.state().is_alive() {
            true => process_keys(&self.running, &self.unit),
            false => Vec::new(),
        }
    }

    /// Whether it would differ from this one.
    pub(super) fn would_be_stale(&self, unit: &Unit) -> bool {
        self.state().is_alive() && !process_keys(&self.running, unit).is_empty()
    }

    pub(super) fn state(&self) -> State {
        let Some(service) = &*self.service else {
            return if self.trouble.is_some() { State::Failed } else { State::Down };
        };
        match service.stage() {
            State::Down | State::Completed | State::Failed if self.trouble.is_some() => State::Failed,
            state => state,
        }
    }

    /// An operator says that it shall start: what kept it from that is tried anew.
    pub(super) fn forgive(&mut self) {
        self.trouble = None;
        if let Some(service) = &mut *self.service {
            service.forgive();
        }
    }

    /// Whether it has failed, and waits for its next attempt.
    pub(super) fn is_waiting(&self) -> bool {
        self.service.as_deref().is_some_and(Service::is_waiting)
    }

    /// It does not wait for that.
    pub(super) fn hurry(&mut self, why: &str) {
        if let Some(service) = self.service.as_mut().filter(|service| service.is_waiting()) {
            service.start(why);
        }
    }

    /// Whether it wants something that only one can have.
    pub(super) fn rivals(&self, other: &Self) -> bool {
        let claims = |unit: &Unit, other: &Unit| {
            let same = |one: &crate::service::address::ListenSpec| {
                other.listen.iter().any(|two| one.address == two.address && !one.address.is_any())
            };
            unit.listen.iter().any(same) || unit.data_dir.is_some() && unit.data_dir == other.data_dir
        };
        claims(&self.unit, &other.applied)
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.service.as_deref().map(AsFd::as_fd)
    }

    pub(super) fn check_service(&mut self, name: &str) -> Result<&mut Service> {
        let trouble = self.trouble.clone();
        self.service.as_deref_mut().ok_or_else(|| {
            Error::State(format!(
                "{name} can not start: {}",
                trouble.unwrap_or_else(|| "it is not bound yet".to_owned())
            ))
        })
    }
}

fn process_keys(running: &Unit, unit: &Unit) -> Vec<&'static str> {
    let mut keys = running.differing_keys(unit);
    keys.retain(|key| !AT_ONCE.contains(key));
    keys
}

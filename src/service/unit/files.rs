//! Its files in the runtime directory: what becomes of them when it ends, and when somebody removes them.

use std::path::PathBuf;

use super::Service;
use crate::sys::control::remove_dead;

impl Service {
    /// When it has ended for good: removes its files that have no meaning any more. Locks stay, since another one may be about to take
    /// them.
    pub(super) fn remove_files(&mut self) {
        self.supervisor.remove_journal();
        remove_dead(&self.runtime.control(&self.settings.name));
    }

    /// The lock file of its daemon that somebody has removed: no successor can take it over, and only a restart makes it anew.
    pub fn lost_lock(&self) -> Option<PathBuf> {
        self.supervisor.lost_lock()
    }

    /// Whether somebody has removed them.
    pub(in crate::service) fn has_lost_files(&self) -> bool {
        self.supervisor.has_lost_files()
    }

    /// Makes them anew.
    pub(in crate::service) fn renew_files(&mut self) {
        self.supervisor.renew_files();
    }
}

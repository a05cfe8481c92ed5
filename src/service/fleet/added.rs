//! Units that are in no file: an operator has added them at run time.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{Fleet, NotDone};
use crate::service::config::{Added, Config, Fault};

impl Fleet {
    /// What the files say; the configuration before.
    pub(super) fn set_config(&mut self, files: Config) -> Config {
        let added = self.memory.added();
        let (config, of_files) = match added.is_empty() {
            true => (files, None),
            false => (files.with(added), Some(files)),
        };
        self.of_files = of_files;
        std::mem::replace(&mut self.config, config)
    }

    fn files(&self) -> &Config {
        self.of_files.as_ref().unwrap_or(&self.config)
    }

    /// Whether it is in no file.
    pub(super) fn is_ephemeral(&self, name: &str) -> bool {
        let is_added = self.memory.added().iter().any(|added| added.units.contains(name));
        is_added && !self.files().units.contains_key(name)
    }

    /// The units of this text from now on beside the others, until they are removed or the supervisor ends in order; their names.
    ///
    /// # Errors
    /// [`NotDone::Faults`], also in their relation to the others; nothing was changed.
    pub fn add_units(&mut self, from: Arc<Path>, text: String) -> Result<BTreeSet<String>, NotDone> {
        let added = Added::new(from, text);
        let names = added.units.clone();
        let mut all = self.memory.added().to_vec();
        all.push(added);
        self.set_added(all)?;
        Ok(names)
    }

    /// These are no more; those of them that no unit of the files has taken the place of, which stop first.
    ///
    /// # Errors
    /// [`NotDone`], also if others that were added could not be without them; nothing was changed.
    pub fn remove_units(&mut self, names: &[String]) -> Result<BTreeSet<String>, NotDone> {
        let stop = names.iter().filter(|name| self.is_ephemeral(name)).cloned().collect();
        let mut all = self.memory.added().to_vec();
        for name in names {
            let Some(added) = all.iter_mut().find(|added| added.units.contains(name)) else {
                self.resolve(std::slice::from_ref(name))?;
                let text = format!("{name} is in the files: take it out there, and reload; or stop it");
                return Err(NotDone::Refused(text));
            };
            added.units.remove(name);
        }
        all.retain(|added| !added.units.is_empty());
        self.set_added(all).map(|()| stop)
    }

    fn set_added(&mut self, added: Vec<Added>) -> Result<(), NotDone> {
        let files = self.files().clone();
        let new = files.with(&added);
        let faults: Vec<Fault> = new.faults.into_iter().filter(|fault| !self.config.faults.contains(fault)).collect();
        if !faults.is_empty() {
            return Err(NotDone::Faults(faults));
        }
        self.memory.set_added(added);
        self.reload(files);
        Ok(())
    }
}

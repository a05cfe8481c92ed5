//! What a new configuration changes.

use std::collections::BTreeMap;

use super::Config;

/// The units of two configurations, each in one of these, in the order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Only in the new one.
    pub added: Vec<String>,
    /// Only in the old one.
    pub removed: Vec<String>,
    /// In both, with the keys whose values differ.
    pub changed: BTreeMap<String, Vec<&'static str>>,
    /// The same in both.
    pub unchanged: Vec<String>,
}

impl Config {
    /// What `new` changes. Comments, order, files, and a default that is written or not make no difference.
    pub fn diff(&self, new: &Self) -> Diff {
        let mut diff = Diff {
            added: new.units.keys().filter(|name| !self.units.contains_key(*name)).cloned().collect(),
            ..Diff::default()
        };
        for (name, old) in &self.units {
            match new.units.get(name).map(|new| old.differing_keys(new)) {
                None => diff.removed.push(name.clone()),
                Some(keys) if keys.is_empty() => diff.unchanged.push(name.clone()),
                Some(keys) => drop(diff.changed.insert(name.clone(), keys)),
            }
        }
        diff
    }
}

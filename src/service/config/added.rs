//! Units that an operator has added at run time, and that are in no file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::fault::{Fault, Place, Position};
use super::file::{self, Contents, Definition, Item};
use super::load::real_path;
use super::{Config, across};

/// A text with units, as it was given. It is read again whenever the others change, and by the next supervisor.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Added {
    /// Where it came from, as faults show it.
    pub from: Arc<Path>,
    /// What was written there.
    pub text: String,
    /// Its units, but those that were removed since.
    pub units: BTreeSet<String>,
}

impl Added {
    /// All units of a text. What is wrong with them is seen by [`Config::with`].
    pub fn new(from: Arc<Path>, text: String) -> Self {
        let units = file::read(&from, &text).definitions.into_iter().map(|definition| definition.name).collect();
        Self { from, text, units }
    }

    fn read(&self) -> Contents {
        let mut contents = file::read(&self.from, &self.text);
        contents.definitions.retain(|definition| self.units.contains(&definition.name));
        for definition in &mut contents.definitions {
            definition.added = true;
            let text = match &definition.item {
                Item::Target(_) => "only units can be added; write a target in a file, and reload",
                Item::Unit(unit) if unit.system => "a system unit can not be added; leave 'system' out",
                _ => continue,
            };
            let (place, unit) = (definition.place.clone(), Some(definition.name.clone()));
            definition.faults.push(Fault { place, unit, key: None, text: text.to_owned() });
        }
        if self.units.is_empty() && contents.faults.is_empty() {
            let place = Place { file: self.from.clone(), position: Some(Position { line: 1, column: 1 }) };
            let text = "there is no unit in it; write [unit.NAME]".to_owned();
            contents.faults.push(Fault { place, unit: None, key: None, text });
        }
        contents
    }
}

impl Config {
    /// These beside those of the files. What is wrong with them is their fault alone: nothing of the files gives way to them.
    pub fn with<'a>(&self, added: impl IntoIterator<Item = &'a Added>) -> Self {
        let mut contents = self.contents();
        for mut read in added.into_iter().map(Added::read) {
            contents.definitions.append(&mut read.definitions);
            contents.faults.append(&mut read.faults);
        }
        across::resolve(contents, real_path)
    }

    /// As it was read.
    fn contents(&self) -> Contents {
        let mut bad: BTreeMap<&str, Vec<Fault>> = BTreeMap::new();
        let mut contents = Contents::default();
        for fault in &self.faults {
            match fault.unit.as_deref().filter(|name| !self.places.contains_key(*name)) {
                Some(name) => bad.entry(name).or_default().push(fault.clone()),
                None => contents.faults.push(fault.clone()),
            }
        }
        let units = self.units.iter().map(|(name, unit)| (name, Item::Unit(Box::new(unit.clone()))));
        let targets = self.targets.iter().map(|(name, target)| (name, Item::Target(target.clone())));
        let good = units.chain(targets).filter_map(|(name, item)| {
            Some(Definition::of(name.clone(), self.places.get(name)?.clone(), item, Vec::new()))
        });
        contents.definitions.extend(good);
        let bad = bad.into_iter().filter_map(|(name, faults)| {
            let place = faults.first()?.place.clone();
            Some(Definition::of(name.to_owned(), place, Item::Unreadable, faults))
        });
        contents.definitions.extend(bad);
        contents
    }
}

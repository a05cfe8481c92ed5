//! Units from files: what they say, and all that is wrong with it, at once. docs/units.md tells what can be written.
//!
//! [`Config::of`] is pure; [`load()`] reads the files for it. A unit is good, or it has a fault: whoever requires one that has
//! a fault has one, too, and nobody else.

mod across;
mod added;
mod conflicts;
mod diff;
mod fault;
mod file;
mod load;
mod read;
mod rules;
mod settings;
mod table;
mod unit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use added::Added;
pub use diff::Diff;
pub use fault::{Fault, Place, Position};
pub use load::{doubts, load};
pub use read::{BACKOFF_KEYS, HEALTH_KEYS, LOG_KEYS, RESTART_LIMIT_KEYS, RLIMITS, TARGET_KEYS, UNIT_KEYS};
pub use unit::{Check, Command, Condition, Dependency, Health, Limit, LogBudget, Mode, Ready, StopStep, Target, Unit};

/// Keys whose values may be right elsewhere, and not on this machine.
const MARKED: &[&str] = &["exec", "pre_start", "post_stop", "user", "group"];

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path, as faults show it.
    pub path: Arc<Path>,
    /// Its bytes, or why they can not be had.
    pub content: Result<Vec<u8>, String>,
}

/// What can run, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Config {
    /// The units that are in order, by name.
    pub units: BTreeMap<String, Unit>,
    /// The targets that are, by name. They may have members that are not.
    pub targets: BTreeMap<String, Target>,
    /// Where each of them is.
    #[serde(default)]
    places: BTreeMap<String, Place>,
    /// Where the values of [`MARKED`] are, by unit and key; another program of this process need not know it.
    #[serde(skip)]
    marks: BTreeMap<String, BTreeMap<String, Place>>,
    /// What is wrong, sorted by place.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

impl Config {
    /// The units of these files, whose order does not matter.
    pub fn of(files: &[File]) -> Self {
        Self::seen(files, Path::to_owned)
    }

    /// The same, if `real` says where a path leads to.
    fn seen(files: &[File], real: fn(&Path) -> PathBuf) -> Self {
        let mut contents = file::Contents::default();
        for file in files {
            let mut read = read_file(file);
            contents.definitions.append(&mut read.definitions);
            contents.faults.append(&mut read.faults);
        }
        across::resolve(contents, real)
    }
}

fn read_file(file: &File) -> file::Contents {
    let broken = |position, text: String| {
        let place = Place { file: file.path.clone(), position };
        Fault { place, unit: None, key: None, text }
    };
    let bytes = match &file.content {
        Ok(bytes) => bytes,
        Err(why) => return file::Contents { definitions: Vec::new(), faults: vec![broken(None, why.clone())] },
    };
    match std::str::from_utf8(bytes) {
        // Some editors begin a file with a mark.
        Ok(text) => file::read(&file.path, text.trim_start_matches('\u{feff}')),
        Err(error) => {
            let text = String::from_utf8_lossy(bytes);
            let position = fault::Lines::of(&text).position(error.valid_up_to());
            let fault = broken(Some(position), "this is not UTF-8; save the file as UTF-8".to_owned());
            file::unreadable(&file.path, &text, fault)
        }
    }
}

//! The tables of one file. A mistake in the syntax of one unit leaves the others in order, if it is sure where they begin.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Lines, Place, hint, shown};
use super::read::{self, Read, TARGET_KEYS, UNIT_KEYS};
use super::rules;
use super::table::{Scope, Table};
use super::unit::{Target, Unit};
use crate::service::paths::{CONTROL_SUFFIX, NAME_BYTES_MAX, check_name};

/// One `[unit.NAME]` or `[target.NAME]`.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) item: Item,
    /// Where the values of its keys are, one place for each element of a list.
    pub(super) places: BTreeMap<String, Vec<Place>>,
    /// What is wrong with it alone.
    pub(super) faults: Vec<Fault>,
    /// It is in no file: an operator has added it.
    pub(super) added: bool,
}

impl Definition {
    /// One of which no more is known.
    pub(super) fn of(name: String, place: Place, item: Item, faults: Vec<Fault>) -> Self {
        Self { name, place, item, places: BTreeMap::new(), faults, added: false }
    }
}

/// What a definition defines.
#[derive(Debug)]
pub(super) enum Item {
    Unit(Box<Unit>),
    Target(Target),
    /// Its syntax is wrong: nothing of it is known.
    Unreadable,
}

/// What a file has, and what is wrong that belongs to no unit.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) definitions: Vec<Definition>,
    pub(super) faults: Vec<Fault>,
}

/// Reads the text of a file.
pub(super) fn read(file: &Arc<Path>, text: &str) -> Contents {
    let lines = Lines::of(text);
    let mut contents = Contents::default();
    let Err(wrong) = add(file, &lines, text, &[(0, 0)], None, &mut contents) else { return contents };
    // A string of many lines may have lines that look like headers.
    if text.contains("\"\"\"") || text.contains("'''") {
        let fault = syntax(file, &lines, &[(0, 0)], None, &wrong);
        return unreadable(file, text, fault);
    }
    for (name, section) in sections(text) {
        let Err(wrong) = add(file, &lines, &section.text, &section.parts, name.as_deref(), &mut contents) else {
            continue;
        };
        let fault = syntax(file, &lines, &section.parts, name.clone(), &wrong);
        match name {
            None => contents.faults.push(fault),
            Some(name) => {
                let place = scope(file, &lines, &section.parts, None).place(0);
                contents.definitions.push(Definition::of(name, place, Item::Unreadable, vec![fault]));
            }
        }
    }
    contents
}

/// A file of which nothing is known but this, and the names in lines that look like headers: they are nobody else's.
pub(super) fn unreadable(file: &Arc<Path>, text: &str, fault: Fault) -> Contents {
    let lines = Lines::of(text);
    let definition = |(name, section): (Option<String>, Section)| {
        let (name, place) = (name?, scope(file, &lines, &section.parts, None).place(0));
        let text = format!("the mistake at {} may reach here; mend that first", fault.place);
        let fault = Fault { place: place.clone(), unit: Some(name.clone()), key: None, text };
        Some(Definition::of(name, place, Item::Unreadable, vec![fault]))
    };
    let definitions = sections(text).into_iter().filter_map(definition).collect();
    Contents { definitions, faults: vec![fault] }
}

fn scope<'a>(
    file: &'a Arc<Path>,
    lines: &'a Lines<'a>,
    parts: &'a [(usize, usize)],
    unit: Option<&'a str>,
) -> Scope<'a> {
    Scope { file, lines, parts, unit, faults: RefCell::default() }
}

/// The first thing that is no TOML. What follows it may only be its consequence.
struct Wrong {
    at: usize,
    text: String,
}

fn syntax(file: &Arc<Path>, lines: &Lines<'_>, parts: &[(usize, usize)], unit: Option<String>, wrong: &Wrong) -> Fault {
    let place = scope(file, lines, parts, None).place(wrong.at);
    Fault { place, unit, key: None, text: wrong.text.clone() }
}

/// What parsers call a number like 0022, which is the one mistake that what follows is no consequence of.
const LEADING_ZERO: &str = "unexpected leading zero";

/// Reads a text that is a file, or a part of one, which is `owner`'s.
fn add(
    file: &Arc<Path>,
    lines: &Lines<'_>,
    text: &str,
    parts: &[(usize, usize)],
    owner: Option<&str>,
    contents: &mut Contents,
) -> Result<(), Wrong> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let at = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    let wrong = |error| Wrong { at: at(error), text: wrong_syntax(error.message(), &text[at(error)..]) };
    let is_harmless = owner.is_some() && errors.iter().all(|error| error.message().starts_with(LEADING_ZERO));
    if let Some(first) = errors.iter().min_by_key(|error| at(error)).filter(|_| !is_harmless) {
        return Err(wrong(first));
    }
    let outside = scope(file, lines, parts, None);
    for (key, value) in root.get_ref() {
        let written: &str = key.get_ref();
        let keys = match written {
            "unit" => UNIT_KEYS,
            "target" => TARGET_KEYS,
            _ => {
                let meant = hint(written, ["unit", "target"]).unwrap_or("unit");
                let text = format!("unknown key '{}'; write [{meant}.NAME], and keys under it", shown(written));
                outside.fault(key.span().start, Some(written), text);
                continue;
            }
        };
        let DeValue::Table(tables) = value.get_ref() else {
            outside.fault(key.span().start, Some(written), format!("this is no table; write [{written}.NAME]"));
            continue;
        };
        for (name, value) in tables {
            let mut definition = define(&scope(file, lines, parts, Some(name.get_ref())), name, value, keys);
            for error in errors.iter().filter(|_| owner == Some(definition.name.as_str())) {
                let fault = syntax(file, lines, parts, Some(definition.name.clone()), &wrong(error));
                // It is of the wrong type, too, for its key.
                let same = definition.faults.iter().position(|other| other.place == fault.place);
                let key = same.and_then(|at| definition.faults.swap_remove(at).key);
                definition.faults.push(Fault { key, ..fault });
            }
            contents.definitions.push(definition);
        }
    }
    contents.faults.append(&mut outside.faults.into_inner());
    Ok(())
}

/// What is no TOML, as a parser says it, and where it is found.
fn wrong_syntax(message: &str, found: &str) -> String {
    match message {
        "duplicate key" => "this is there twice; leave one of them out".to_owned(),
        _ if message.starts_with(LEADING_ZERO) => {
            let digits: String = found.chars().take_while(char::is_ascii_digit).collect();
            format!(
                "no number of TOML begins with 0; leave that out, or, of a umask, put it in quotes: \"{}\"",
                shown(&digits)
            )
        }
        message => {
            let message = message.replace('`', "'");
            format!("this is no TOML: {}; mend it", message.trim_end_matches(", expected nothing"))
        }
    }
}

fn define(
    scope: &Scope<'_>,
    name: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    keys: &[&'static str],
) -> Definition {
    let (at, written) = (name.span().start, name.get_ref().as_ref());
    if let Some(other) = written.strip_suffix(CONTROL_SUFFIX).filter(|other| check_name(other).is_ok()) {
        let text = format!("files of '{other}' begin so; rename it: no name ends in {CONTROL_SUFFIX}");
        scope.fault(at, None, text);
    } else if check_name(written).is_err() {
        let legal = format!("1 to {NAME_BYTES_MAX} letters, digits and any of -_.@+, the first a letter, a digit or _");
        let text = format!("this can not be a name; rename it: {legal}");
        scope.fault(at, None, text);
    }
    let (mut item, mut places) = (Item::Unreadable, BTreeMap::new());
    match value.get_ref() {
        DeValue::Table(entries) if keys == TARGET_KEYS => {
            let read = read::target(Table::new(scope, entries, at, "a target", keys));
            (item, places) = (Item::Target(read.value), read.places);
        }
        DeValue::Table(entries) => {
            let table = Table::new(scope, entries, at, "a unit", keys);
            let Read { value, places: found } = read::unit(table);
            rules::check(table, &value);
            (item, places) = (Item::Unit(Box::new(value)), found);
        }
        _ => scope.fault(at, None, "this is no table; write [unit.NAME], and keys under it"),
    }
    let faults = scope.faults.take();
    Definition { places, ..Definition::of(written.to_owned(), scope.place(at), item, faults) }
}

/// All parts of a file that have to do with one name, put together.
#[derive(Debug, Default)]
struct Section {
    text: String,
    /// As [`Scope::parts`].
    parts: Vec<(usize, usize)>,
}

/// Cuts a text at its headers, by name; what is before the first one, or under a strange one, belongs to none.
fn sections(text: &str) -> BTreeMap<Option<String>, Section> {
    let mut sections: BTreeMap<Option<String>, Section> = BTreeMap::new();
    let (mut start, mut owner) = (0, None);
    let mut give = |from: usize, to: usize, owner: &Option<String>| {
        if from < to {
            let section = sections.entry(owner.clone()).or_default();
            section.parts.push((section.text.len(), from));
            section.text.push_str(&text[from..to]);
        }
    };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some(name) = owner_in_header(line) {
            give(start, at, &owner);
            (start, owner) = (at, name);
        }
        at += line.len();
    }
    give(start, at, &owner);
    sections
}

/// Whose keys follow this line: `web` of `[unit.web.env]`, nobody's of `[unit]`; none if it is not such a header.
fn owner_in_header(line: &str) -> Option<Option<String>> {
    let inner = line.trim_start().strip_prefix('[')?.trim_start_matches(['[', ' ', '\t']);
    let rest = ["unit", "target"].iter().find_map(|kind| inner.strip_prefix(kind))?.trim_start();
    let Some(name) = rest.strip_prefix('.') else { return rest.starts_with(']').then_some(None) };
    let name = name.trim_start();
    let name = match name.chars().next() {
        Some(quote @ ('"' | '\'')) => name[1..].split(quote).next(),
        _ => name.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')).next(),
    };
    Some(name.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_their_owner() {
        let owner = |line| owner_in_header(line);
        for line in
            ["[unit.web]", "  [ unit . web ] # x", "[unit.web.env]", "[unit.web", "[[target.web]]", "[unit.'web']"]
        {
            assert_eq!(owner(line), Some(Some("web".to_owned())), "{line}");
        }
        assert_eq!(owner("[unit.\"a.b\"]"), Some(Some("a.b".to_owned())));
        assert_eq!(owner("[unit]"), Some(None));
        for line in ["", "x = [", "[\"a\"],", "[unity.web]", "unit.web.exec = 1"] {
            assert_eq!(owner(line), None, "{line}");
        }
    }
}

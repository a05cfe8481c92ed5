//! Tables and values of a file, with their places: what has the wrong type, or no meaning, becomes a fault.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, HINTS_MAX, Lines, Place, hint, shown};
use crate::service::parse;

/// What others call a key.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("command", "exec"),
    ("cmd", "exec"),
    ("environment", "env"),
    ("environment_file", "env_file"),
    ("cwd", "dir"),
    ("working_directory", "dir"),
    ("depends_on", "requires"),
];

/// Keys of a table that are all named when one is unknown and like none of them.
const NAMED_KEYS_MAX: usize = 8;

/// Characters of a text at most.
const TEXT_CHARS_MAX: usize = 600;

/// One definition in a file: where its values stand, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) file: &'a Arc<Path>,
    pub(super) lines: &'a Lines<'a>,
    /// Where each part of the text stands in the file: (offset in the text, offset in the file), in order.
    pub(super) parts: &'a [(usize, usize)],
    pub(super) unit: Option<&'a str>,
    pub(super) faults: RefCell<Vec<Fault>>,
}

impl Scope<'_> {
    pub(super) fn place(&self, at: usize) -> Place {
        let part = self.parts.partition_point(|(start, _)| *start <= at).saturating_sub(1);
        let (start, in_file) = self.parts.get(part).copied().unwrap_or_default();
        Place { file: self.file.clone(), position: Some(self.lines.position(at - start + in_file)) }
    }

    pub(super) fn fault(&self, at: usize, key: Option<&str>, text: impl AsRef<str>) {
        let fault = Fault {
            place: self.place(at),
            unit: self.unit.map(str::to_owned),
            key: key.map(str::to_owned),
            text: bounded(text.as_ref()),
        };
        self.faults.borrow_mut().push(fault);
    }
}

/// A table, of which only known keys may be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    pub(super) scope: &'a Scope<'a>,
    entries: &'a DeTable<'a>,
    /// The key of the table, if it has one.
    name: Option<&'static str>,
    pub(super) at: usize,
}

impl<'a> Table<'a> {
    /// `what` it is, for people: "a unit".
    pub(super) fn new(
        scope: &'a Scope<'a>,
        entries: &'a DeTable<'a>,
        at: usize,
        what: &str,
        known: &[&'static str],
    ) -> Self {
        let table = Self { scope, entries, name: None, at };
        table.check(what, known);
        table
    }

    fn check(&self, what: &str, known: &[&'static str]) {
        for (key, value) in self.entries.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let written: &str = key.get_ref();
            let hinted = self.scope.faults.borrow().len() < HINTS_MAX;
            let todo = match meant_key(written, known).filter(|_| hinted) {
                Some(meant) => format!("do you mean '{meant}'?"),
                None if self.name.is_none() && value.get_ref().is_table() => {
                    let name = format!("{}.{written}", self.scope.unit.unwrap_or_default());
                    format!("leave it out, or put the name in quotes if it has a dot: \"{}\"", shown(&name))
                }
                None if known.len() <= NAMED_KEYS_MAX => format!("there are {}", known.join(", ")),
                None => "leave it out".to_owned(),
            };
            let text = format!("unknown key '{}' of {what}; {todo}", shown(written));
            self.scope.fault(key.span().start, Some(&self.full(written)), text);
        }
    }

    fn full(&self, key: &str) -> String {
        self.name.map_or_else(|| key.to_owned(), |name| format!("{name}.{key}"))
    }

    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        let (found, value) = self.entries.get_key_value(key)?;
        Some(self.value(self.full(key), found.span().start, value))
    }

    fn value(&self, key: String, key_at: usize, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value { scope: self.scope, key, key_at, at: value.span().start, value: value.get_ref() }
    }

    /// All of them: of a table whose keys are names of somebody's own.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), self.value(self.full(key.get_ref()), key.span().start, value)))
    }

    /// What is there under `key`, as `read` understands it; none if nothing is, or something wrong.
    pub(super) fn read<T>(&self, key: &str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<T> {
        self.get(key).and_then(read)
    }
}

/// A value, and the key that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Value<'a> {
    scope: &'a Scope<'a>,
    pub(super) key: String,
    /// Where the key stands; of an element of an array, where the array's key stands.
    pub(super) key_at: usize,
    pub(super) at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn fault(&self, text: impl AsRef<str>) {
        self.scope.fault(self.at, Some(&self.key), text);
    }

    pub(super) fn place(&self) -> Place {
        self.scope.place(self.at)
    }

    fn wrong_type(&self, wanted: &str) {
        let is = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.fault(format!("{is} has no meaning here; write {wanted}"));
    }

    pub(super) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    pub(super) fn says(&self, word: &str) -> bool {
        self.value.as_str() == Some(word)
    }

    /// A string without NUL, which neither an argument nor a path can have.
    fn text(&self, wanted: &str) -> Option<&'a str> {
        let Some(text) = self.value.as_str() else {
            self.wrong_type(wanted);
            return None;
        };
        if text.contains('\0') {
            self.fault("a NUL can not be passed on to a program or the kernel; leave it out");
            return None;
        }
        Some(text)
    }

    pub(super) fn string(self) -> Option<String> {
        self.text("a string, in quotes").map(str::to_owned)
    }

    pub(super) fn boolean(self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type("true or false");
        }
        value
    }

    /// The number, if it is one.
    pub(super) fn number(&self) -> Option<Option<i64>> {
        let number = self.value.as_integer()?;
        Some(i64::from_str_radix(number.as_str(), number.radix()).ok())
    }

    pub(super) fn integer(self, range: RangeInclusive<i64>) -> Option<i64> {
        let (least, most) = (*range.start(), *range.end());
        let wanted = if most == i64::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
        match self.number() {
            None => self.wrong_type(&format!("a whole number, {wanted}")),
            Some(Some(number)) if range.contains(&number) => return Some(number),
            Some(_) => self.fault(format!("the number is out of range; write {wanted}")),
        }
        None
    }

    /// What a string means; `wanted` is an example.
    pub(super) fn parsed<T>(self, wanted: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(wanted)?;
        parse(text).map_err(|why| self.fault(with_advice(text, &why, wanted))).ok()
    }

    pub(super) fn duration(self) -> Option<Duration> {
        self.parsed("a time in quotes, like \"30s\"", parse::time_limit)
    }

    pub(super) fn one_of<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let wanted = names.join(" or ");
        self.parsed(&wanted.clone(), |text| {
            let found = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
            found.ok_or_else(|| format!("'{}' is none of these; write {wanted}", shown(text)))
        })
    }

    /// From the root: where a supervisor was started must not matter.
    pub(super) fn path(self) -> Option<PathBuf> {
        self.parsed("a path in quotes, from the root", |text| match text.starts_with('/') {
            true => Ok(PathBuf::from(text)),
            false => Err(format!("'{}' is no path from the root; write one that begins with /", shown(text))),
        })
    }

    pub(super) fn elements(&self, wanted: &str) -> Option<Vec<Value<'a>>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type(wanted);
            return None;
        };
        let element = |value: &'a Spanned<DeValue<'a>>| Value {
            scope: self.scope,
            key: self.key.clone(),
            key_at: self.key_at,
            at: value.span().start,
            value: value.get_ref(),
        };
        Some(array.iter().map(element).collect())
    }

    pub(super) fn table(self, name: &'static str, known: Option<&[&'static str]>) -> Option<Table<'a>> {
        let Some(entries) = self.value.as_table() else {
            self.wrong_type("a table");
            return None;
        };
        let table = Table { scope: self.scope, entries, name: Some(name), at: self.key_at };
        if let Some(known) = known {
            table.check(&format!("'{name}'"), known);
        }
        Some(table)
    }
}

/// The key that is nearly what was written, or that is meant by what is nearly that.
fn meant_key(written: &str, known: &[&'static str]) -> Option<&'static str> {
    let others = || OTHER_NAMES.iter().filter(|(_, key)| known.contains(key));
    let other = || hint(written, others().map(|(name, _)| *name));
    let of = |name: &str| others().find(|(other, _)| *other == name).map(|(_, key)| *key);
    hint(written, known.iter().copied()).or_else(|| other().and_then(of))
}

/// A parser may have quoted all that was written.
fn bounded(text: &str) -> String {
    let chars = text.chars().count();
    if chars <= TEXT_CHARS_MAX {
        return text.to_owned();
    }
    let half = TEXT_CHARS_MAX / 2;
    let part = |from: usize, count: usize| text.chars().skip(from).take(count).collect::<String>();
    format!("{} … {}", part(0, half), part(chars - half, half))
}

/// Parsers say what is wrong, what to write, or both.
fn with_advice(text: &str, why: &str, wanted: &str) -> String {
    if why.contains("; ") {
        why.to_owned()
    } else if why.starts_with("write ") {
        format!("'{}' has no meaning here; {why}", shown(text))
    } else {
        format!("{why}; write {wanted}")
    }
}

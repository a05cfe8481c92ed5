//! The files of a configuration.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::fault::shown;
use super::{Command, Config, Fault, File};
use crate::error::{Error, Result};
use crate::limits::UNIT_FILE_BYTES_MAX;
use crate::sys::fd::read_bounded;
use crate::sys::program::find_program;
use nix::errno::Errno;
use nix::unistd::{Group, User};

/// Reads a file, or all files of a directory whose names end in `.toml` and begin with no dot.
///
/// # Errors
/// [`Error::Invalid`]: `path` can not be read, or has no unit. What is wrong inside, or with a file of a directory, is in
/// [`Config::faults`].
pub fn load(path: &Path) -> Result<Config> {
    let failed = |error: io::Error| Error::Invalid(format!("{}: {}", path.display(), unreadable(&error)));
    let config = if fs::metadata(path).map_err(failed)?.is_dir() {
        let files = names(path).map_err(failed)?;
        if files.is_empty() {
            let what = format!("there is no file *.toml in {}; write one, or give another directory", path.display());
            return Err(Error::Invalid(what));
        }
        Config::seen(&files.iter().map(|path| not_empty(file(path))).collect::<Vec<_>>(), real_path)
    } else {
        let file = file(path);
        if let Err(why) = file.content {
            return Err(Error::Invalid(format!("{}: {why}", path.display())));
        }
        Config::seen(&[file], real_path)
    };
    if config.units.is_empty() && config.faults.is_empty() {
        return Err(Error::Invalid(format!("there is no unit in {}; write [unit.NAME]", path.display())));
    }
    Ok(config)
}

/// What could be right on another machine, and is not on this one: users, groups, programs. That may ask a server, and wait for it.
pub fn doubts(config: &Config) -> Vec<Fault> {
    let mut doubts = Vec::new();
    for (name, unit) in &config.units {
        let found = [
            ("exec", doubt_of_program(Some(&unit.exec))),
            ("pre_start", doubt_of_program(unit.pre_start.as_ref())),
            ("post_stop", doubt_of_program(unit.post_stop.as_ref())),
            (
                "user",
                unit.user.as_deref().and_then(|name| {
                    doubt_of_name("user", name, |name| User::from_name(name).map(|user| user.is_none()))
                }),
            ),
            (
                "group",
                unit.group.as_deref().and_then(|name| {
                    doubt_of_name("group", name, |name| Group::from_name(name).map(|group| group.is_none()))
                }),
            ),
        ];
        for (key, text) in found.into_iter().filter_map(|(key, text)| Some((key, text?))) {
            if let Some(place) = config.marks.get(name).and_then(|marks| marks.get(key)) {
                doubts.push(Fault { place: place.clone(), unit: Some(name.clone()), key: Some(key.to_owned()), text });
            }
        }
    }
    doubts.sort();
    doubts
}

fn doubt_of_program(command: Option<&Command>) -> Option<String> {
    let Some(Command::Argv(words)) = command else { return None };
    let program = words.first()?;
    if program.contains(' ') && find_program(program.as_ref()).is_err() {
        let words: Vec<String> =
            program.split(' ').filter(|word| !word.is_empty()).map(|word| format!("{word:?}")).collect();
        return Some(format!(
            "there is no program '{}' here; if it has arguments, write [{}]",
            shown(program),
            shown(&words.join(", "))
        ));
    }
    let from_here = program.contains('/') && !program.starts_with('/');
    from_here.then(|| {
        format!("'{}' is looked for from where the supervisor is started; write a path from the root", shown(program))
    })
}

fn doubt_of_name(what: &str, name: &str, is_unknown: impl FnOnce(&str) -> nix::Result<bool>) -> Option<String> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let unknown = !is_number && is_unknown(name).unwrap_or(false); // or it can not be told
    unknown.then(|| format!("there is no {what} '{}' on this machine; the unit can not start without", shown(name)))
}

/// In order.
fn names(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn file(path: &Path) -> File {
    File { path: path.into(), content: read_bounded(path, UNIT_FILE_BYTES_MAX).map_err(|error| unreadable(&error)) }
}

/// Whoever writes a file empties it first: its units are not to be stopped for that.
fn not_empty(mut file: File) -> File {
    if file.content.as_ref().is_ok_and(Vec::is_empty) {
        file.content = Err("it is empty; write [unit.NAME], or remove it".to_owned());
    }
    file
}

/// Where a path leads to, as far as it is there: two that are written differently may be one directory.
pub(super) fn real_path(path: &Path) -> PathBuf {
    let real = |above: &Path| Some(fs::canonicalize(above).ok()?.join(path.strip_prefix(above).ok()?));
    let found = path.ancestors().find_map(real).unwrap_or_else(|| path.to_owned());
    found.components().collect() // without a slash at the end
}

fn unreadable(error: &io::Error) -> String {
    let todo = match error.kind() {
        io::ErrorKind::NotFound => "; write it, or give another file or directory",
        io::ErrorKind::PermissionDenied => "; let the user of this process read it",
        _ if error.raw_os_error() == Some(Errno::ELOOP as i32) => "; remove this symbolic link",
        _ => "",
    };
    format!("cannot read it: {error}{todo}")
}

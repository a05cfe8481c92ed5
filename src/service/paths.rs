//! Where a supervisor keeps its files.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::sys::fd::file_context;

/// Bytes of a name at most: a control path of the daemon and its temporary name must fit into a socket address
/// (108 bytes, unix(7)) beside a directory of usual length.
pub(super) const NAME_BYTES_MAX: usize = 48;
const SOCKET_SUFFIX: &str = ".sock";
/// Beside the control path of a service are its locks: no other one may have a name that ends so.
pub(super) const CONTROL_SUFFIX: &str = ".control";
const JOURNAL_SUFFIX: &str = ".journal";

/// A directory that belongs to this user alone, with sockets, locks, journals and pages.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// The directory that commands and supervisors agree on: `given`, else `$HANDOFF_RUNTIME_DIR`, else `/run/handoff`
    /// (root), `$XDG_RUNTIME_DIR/handoff`, `/tmp/handoff-UID`. Nothing is created or checked.
    pub fn locate(given: Option<&Path>) -> Result<Self> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let uid = geteuid();
        let path = match (given, variable("HANDOFF_RUNTIME_DIR"), variable("XDG_RUNTIME_DIR")) {
            (Some(path), _, _) => path.to_owned(),
            (None, Some(path), _) => path,
            _ if uid.is_root() => "/run/handoff".into(),
            (None, None, Some(path)) => path.join("handoff"),
            (None, None, None) => format!("/tmp/handoff-{uid}").into(),
        };
        std::path::absolute(&path).map(Self).map_err(Error::system(format!("runtime directory {}", path.display())))
    }

    /// Creates the directory if it is missing, mode 0700, and refuses one that others could change.
    pub fn create(&self) -> Result<()> {
        let what = || format!("runtime directory {}", self.0.display());
        match DirBuilder::new().recursive(true).mode(0o700).create(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Invalid(format!("{} is not a directory; give another by --runtime-dir", what())));
            }
            Err(error) => return Err(Error::system(what())(file_context(error, "cannot create it"))),
        }
        self.check()
    }

    /// Whoever owns this directory, or may write to it, could pretend to be a supervisor.
    fn check(&self) -> Result<()> {
        let what = || format!("runtime directory {}", self.0.display());
        // A symbolic link in /tmp may belong to a stranger although what it points to does not.
        let found = fs::symlink_metadata(&self.0).map_err(Error::system(what()))?;
        let advice = "remove it, or give another by --runtime-dir";
        if found.is_symlink() || !found.is_dir() {
            return Err(Error::Invalid(format!("{} is a link or not a directory; {advice}", what())));
        }
        if found.uid() != geteuid().as_raw() {
            let text = format!("{} belongs to user {}, not to user {}; {advice}", what(), found.uid(), geteuid());
            return Err(Error::Invalid(text));
        }
        if found.permissions().mode() & 0o022 != 0 {
            let text = format!("{} can be written by others (mode {:o}); chmod 700 it", what(), found.mode() & 0o7777);
            return Err(Error::Invalid(text));
        }
        Ok(())
    }

    /// The path itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where commands for the supervisor `name` go.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.file(name, SOCKET_SUFFIX)
    }

    /// Keeps a second supervisor `name` away.
    pub fn lock(&self, name: &str) -> PathBuf {
        self.file(name, ".lock")
    }

    /// What a supervisor of many services remembers.
    pub fn state(&self, name: &str) -> PathBuf {
        self.file(name, ".state")
    }

    /// The same of one of them.
    pub fn unit(&self, service: &str) -> PathBuf {
        self.file(service, ".unit")
    }

    /// `HANDOFF_CONTROL` of a service.
    pub fn control(&self, service: &str) -> PathBuf {
        self.file(service, CONTROL_SUFFIX)
    }

    /// The same of a service that runs as another user.
    pub fn own_control(&self, service: &str) -> PathBuf {
        self.own_dir(service).join("control")
    }

    /// The directory of that, which belongs to this user.
    pub fn own_dir(&self, service: &str) -> PathBuf {
        self.file(service, ".user")
    }

    /// The journal of a service's handoffs.
    pub fn journal(&self, service: &str) -> PathBuf {
        self.file(service, JOURNAL_SUFFIX)
    }

    /// `NOTIFY_SOCKET` of a service.
    pub fn notify(&self, service: &str) -> PathBuf {
        self.file(service, ".notify")
    }

    /// What a service writes to its standard error.
    pub fn stderr(&self, service: &str) -> PathBuf {
        self.file(service, ".stderr")
    }

    /// The programs of a service that have failed a probation.
    pub fn bad(&self, service: &str) -> PathBuf {
        self.file(service, ".bad")
    }

    /// What a service went through.
    pub fn history(&self, service: &str) -> PathBuf {
        self.file(service, ".history")
    }

    fn file(&self, name: &str, suffix: &str) -> PathBuf {
        self.0.join(format!("{name}{suffix}"))
    }

    /// The names of supervisors that left a socket here, in order. They may be dead.
    pub fn supervisors(&self) -> Result<Vec<String>> {
        self.names_with(SOCKET_SUFFIX)
    }

    /// The names of services that have a journal here, in order.
    pub fn journals(&self) -> Result<Vec<String>> {
        self.names_with(JOURNAL_SUFFIX)
    }

    fn names_with(&self, suffix: &str) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::system(format!("cannot read {}", self.0.display()))(error)),
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(suffix).map(str::to_owned);
        let mut names: Vec<_> = entries.flatten().filter_map(name).collect();
        names.sort();
        Ok(names)
    }
}

/// Whose file of a runtime directory this is, if a supervisor that runs, or the next one, needs it.
pub fn owner_of(file: &str) -> Option<&str> {
    let needed = [SOCKET_SUFFIX, JOURNAL_SUFFIX, ".lock", ".state", ".unit", ".notify"];
    needed.into_iter().find_map(|suffix| file.strip_suffix(suffix))
}

/// The name of a supervisor or a service: it becomes part of file names.
pub fn check_name(name: &str) -> Result<()> {
    match name.strip_suffix(CONTROL_SUFFIX) {
        _ if !is_name(name) => Err(Error::Invalid(no_name(name))),
        Some(other) => Err(Error::Invalid(format!(
            "'{name}' can not be the name of a service: files of one named '{other}' begin so; choose a name that does not end in \
             {CONTROL_SUFFIX}"
        ))),
        None => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    starts_well && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal)
}

fn no_name(name: &str) -> String {
    format!(
        "'{name}' can not be the name of a service: 1 to {NAME_BYTES_MAX} letters, digits and any of -_.@+, the first a letter, \
         a digit or '_'"
    )
}

/// The name for a service that runs this program: its base name.
pub fn name_of(program: &OsStr) -> Result<String> {
    let base = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
    match is_name(&base) {
        true => check_name(&base).map(|()| base),
        false => Err(Error::Invalid(format!("{}; choose one by --name", no_name(&base)))),
    }
}

/// Whether a daemon could work in this directory: it exists, and can be written.
pub fn check_data_dir(path: &Path) -> Result<PathBuf> {
    use nix::unistd::{AccessFlags, access};
    let what = format!("data directory {}", path.display());
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Invalid(format!("{what} does not exist; create it (mkdir -p)")),
        _ => Error::System { what: what.clone(), source: error },
    })?;
    if !found.is_dir() {
        return Err(Error::Invalid(format!("{what} is not a directory")));
    }
    access(path, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|errno| Error::system(what.as_str())(file_context(errno, "it can not be written")))?;
    fs::canonicalize(path).map_err(Error::system(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::locate(Some(&dir.path().join("a/b"))).unwrap();
        assert!(runtime.supervisors().unwrap().is_empty());
        runtime.create().unwrap();
        runtime.create().unwrap();
        assert_eq!(fs::metadata(runtime.path()).unwrap().mode() & 0o777, 0o700);
        fs::write(runtime.socket("kv"), "").unwrap();
        fs::write(runtime.lock("kv"), "").unwrap();
        assert_eq!(runtime.supervisors().unwrap(), ["kv"]);

        fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(runtime.create().unwrap_err().to_string().contains("chmod 700"));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(runtime.path(), &link).unwrap();
        assert!(RuntimeDir(link).create().is_err());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(RuntimeDir(file.clone()).create().is_err());
        assert!(check_data_dir(&file).unwrap_err().to_string().contains("not a directory"));
        assert!(check_data_dir(&dir.path().join("none")).unwrap_err().to_string().contains("mkdir"));
    }

    #[test]
    fn names_are_file_names() {
        for good in ["kv", "kv2.1", "web@1", "_x", "control", "a.control.b"] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "-x", "a b", "a=b", &"x".repeat(49), "a.control"] {
            check_name(bad).unwrap_err();
        }
        assert_eq!(name_of(OsStr::new("/usr/sbin/kv")).unwrap(), "kv");
        assert!(name_of(OsStr::new("/")).is_err());
    }
}

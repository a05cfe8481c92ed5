//! One supervisor per name.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::paths::RuntimeDir;
use crate::error::{Error, Result};
use crate::limits::SUPERVISOR_GONE;
use crate::supervisor::{alive_in_journal, is_in_journal};
use crate::sys::fd::file_context;
use crate::sys::listener::unix_owner;
use crate::sys::lock::{self, LockFile, LockRecord};
use crate::sys::pidfd::{self, Pidfd};
use crate::sys::proc;

/// Before the name of a supervisor, in the lock of a unit.
const SUPERVISOR: &str = "supervisor=";
/// Between two looks at what one that was killed has left.
const LOOK: Duration = Duration::from_millis(5);

/// Held while a supervisor runs. The kernel frees it with the process, however that ends.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Instance {
    #[serde(alias = "_lock")]
    lock: LockFile,
}

impl Instance {
    /// Locks the file (flock(2)) and writes our pid into it. After one that may just have been killed: it is waited for a moment until it is gone, and
    /// until no child of it that had not been executed yet has the lock or listens at `socket`. One that lives is refused at once.
    ///
    /// `Busy`-like: [`Error::Locked`] names the supervisor that runs.
    pub fn succeed(path: &Path, name: &str, socket: &Path) -> Result<Self> {
        let until = Instant::now() + SUPERVISOR_GONE;
        if std::fs::symlink_metadata(path).is_err()
            && let Some(pid) = holder_of_removed(path)
        {
            let who = format!("process {pid} ({}), whose files were removed", proc::command(pid));
            return Err(Error::Locked(runs(name, &who)));
        }
        let instance = Self::acquire(path, name, None, until)?;
        // Whoever it is that still has it, nobody will accept there; if somebody does, to bind it fails.
        while unix_owner(socket).is_some_and(|pid| !is_here(pid)) && Instant::now() < until {
            thread::sleep(LOOK);
        }
        Ok(instance)
    }

    /// The same for a unit `name` of a supervisor, whose name is written there, too. All its locks were let go of one after the other.
    pub fn succeed_unit(path: &Path, name: &str, supervisor: &str) -> Result<Self> {
        Self::acquire(path, name, Some(supervisor), Instant::now() + SUPERVISOR_GONE)
    }

    fn acquire(path: &Path, name: &str, supervisor: Option<&str>, until: Instant) -> Result<Self> {
        let failed = || Error::system(format!("supervisor '{name}'"));
        let lock = LockFile::open(path).map_err(failed())?;
        while !lock.try_lock().map_err(failed())? {
            let is_late = Instant::now() >= until;
            if is_late || lives(path) {
                let taken = taken(path, name);
                // That was a search through all processes: one that was about to die is seen to be by now.
                if is_late || lives(path) {
                    return Err(Error::Locked(taken));
                }
            }
            thread::sleep(LOOK);
        }
        let pid = std::process::id() as i32;
        let start_time = pidfd::start_time(pid).unwrap_or(0);
        let record = LockRecord { generation: 0, pid, start_time };
        let owner = supervisor.map(|supervisor| format!("{SUPERVISOR}{supervisor}\n")).unwrap_or_default();
        let written = lock.write(&format!("{record}{owner}"));
        written.map_err(|e| failed()(file_context(e, format_args!("cannot write {}", path.display()))))?;
        Ok(Self { lock })
    }

    /// Whether its file is still the one at its path.
    pub fn is_there(&self) -> bool {
        let named = std::fs::symlink_metadata(self.path()).map(|found| (found.dev(), found.ino()));
        self.lock.identity().ok() == named.ok()
    }

    /// Of its file.
    pub fn path(&self) -> &Path {
        self.lock.path()
    }

    /// One with a file in the place of the one that was removed.
    pub fn renew(&self, name: &str, supervisor: Option<&str>) -> Result<Self> {
        Self::acquire(self.path(), name, supervisor, Instant::now())
    }
}

/// Whether a supervisor of this name was the last one that had this unit, and one of its processes may have left something: it has a journal.
pub fn was_unit_of(runtime: &RuntimeDir, name: &str, supervisor: &str) -> bool {
    let record = std::fs::read_to_string(runtime.lock(name)).unwrap_or_default();
    let owner = record.lines().find_map(|line| line.strip_prefix(SUPERVISOR));
    owner == Some(supervisor) && is_in_journal(runtime.journal(name))
}

/// The supervisor that runs under this name, whether it has a socket or not: its pid and its command line.
pub fn running(runtime: &RuntimeDir, name: &str) -> Option<(i32, String)> {
    lock::holders(&runtime.lock(name)).into_iter().next().map(|holder| (holder.pid, holder.command))
}

/// The daemon of a supervisor that was killed: the same of it.
pub fn left_alone(runtime: &RuntimeDir, name: &str) -> Option<(i32, String)> {
    if running(runtime, name).is_some() {
        return None;
    }
    daemon_of(runtime, name)
}

/// The same, also while a supervisor runs that may not have adopted it.
pub fn daemon_of(runtime: &RuntimeDir, name: &str) -> Option<(i32, String)> {
    alive_in_journal(runtime.journal(name)).map(|pid| (pid, proc::command(pid)))
}

/// Whether the supervisor that has locked this file last lives.
fn lives(path: &Path) -> bool {
    let record = lock::read_record(path).ok().flatten();
    record.is_some_and(|record| {
        is_here(record.pid) && pidfd::start_time(record.pid).is_ok_and(|start_time| start_time == record.start_time)
    })
}

/// Whether a process lives, and will.
fn is_here(pid: i32) -> bool {
    Pidfd::open(pid).is_ok_and(|process| !process.is_dead()) && !proc::is_ending(pid)
}

fn taken(path: &Path, name: &str) -> String {
    let holder = lock::holders(path).first().map(|holder| format!("process {} ({})", holder.pid, holder.command));
    let record = || lock::read_record(path).ok().flatten().map(|record| format!("process {}", record.pid));
    let who = holder.or_else(record).unwrap_or_else(|| "another process".to_owned());
    runs(name, &who)
}

/// Who has had the lock at this path that somebody has removed, and lives: it will make another one.
fn holder_of_removed(path: &Path) -> Option<i32> {
    let dir = path.parent()?;
    holders_of_removed(dir, |name| Some(name) == path.file_name()).next().map(|(pid, _)| pid)
}

/// Processes that live, and have a file of this directory open that somebody has removed: pid and name of the file. One look at all processes.
fn holders_of_removed(dir: &Path, is_it: impl Fn(&OsStr) -> bool) -> impl Iterator<Item = (i32, PathBuf)> {
    // The kernel tells the path without links; the directory is there again.
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let removed = move |pid: i32, fd: i32| {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
        let path = PathBuf::from(link.to_str()?.strip_suffix(" (deleted)")?);
        (path.parent() == Some(&dir) && is_it(path.file_name()?)).then_some((pid, path))
    };
    let own = std::process::id() as i32;
    let others = proc::pids().filter(move |pid| *pid != own);
    others
        .filter_map(move |pid| proc::descriptors(pid).find_map(|fd| removed(pid, fd)))
        .filter(|(pid, _)| is_here(*pid))
}

/// Whether none of these units is that of a supervisor of another name whose files somebody has removed: its lock keeps nobody away until it is made
/// anew.
///
/// # Errors
/// [`Error::Locked`] names the unit and the supervisor.
pub fn check_removed<'a>(runtime: &RuntimeDir, units: impl Iterator<Item = &'a String>) -> Result<()> {
    let is_missing = |name: &&String| std::fs::symlink_metadata(runtime.lock(name)).is_err();
    let missing: BTreeSet<OsString> = units.filter(is_missing).map(|name| format!("{name}.lock").into()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    match holders_of_removed(runtime.path(), |file| missing.contains(file)).next() {
        None => Ok(()),
        Some((pid, path)) => Err(Error::Locked(format!(
            "process {pid} ({}) runs the unit of {}, which somebody has removed; stop it, or leave that unit out",
            proc::command(pid),
            path.display()
        ))),
    }
}

fn runs(name: &str, who: &str) -> String {
    format!("a supervisor named '{name}' runs already: {who}; stop it, or choose another --name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.lock");
        let first = Instance::acquire(&path, "kv", None, Instant::now()).unwrap();
        let error = Instance::acquire(&path, "kv", None, Instant::now()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
    }

    #[test]
    fn a_unit_is_that_of_the_supervisor_that_had_it_last() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = RuntimeDir::locate(Some(dir.path())).unwrap();
        drop(Instance::succeed_unit(&runtime.lock("web"), "web", "main").unwrap());
        assert!(!was_unit_of(&runtime, "web", "main"), "it has left nothing");
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        std::fs::write(runtime.journal("web"), format!("handoff-journal 1\nboot_id={boot}")).unwrap();
        assert_eq!(runtime.journals().unwrap(), ["web"]);
        assert!(was_unit_of(&runtime, "web", "main") && !was_unit_of(&runtime, "web", "other"));
        // By now it is the daemon of `handoff run`.
        drop(Instance::acquire(&runtime.lock("web"), "web", None, Instant::now()).unwrap());
        assert!(!was_unit_of(&runtime, "web", "main"));
    }
}

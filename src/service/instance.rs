//! One supervisor per name.

use std::path::Path;

use super::paths::RuntimeDir;
use crate::error::{Error, Result};
use crate::supervisor::alive_in_journal;
use crate::sys::fd::file_context;
use crate::sys::lock::{self, LockFile, LockRecord};
use crate::sys::pidfd;
use crate::sys::proc;

/// Held while a supervisor runs. The kernel frees it with the process, however that ends.
#[derive(Debug)]
pub struct Instance {
    _lock: LockFile,
}

impl Instance {
    /// Locks the file (flock(2)) and writes our pid into it.
    ///
    /// `Busy`-like: [`Error::Locked`] names the supervisor that runs.
    pub fn acquire(path: &Path, name: &str) -> Result<Self> {
        let failed = || Error::system(format!("supervisor '{name}'"));
        let lock = LockFile::open(path).map_err(failed())?;
        if !lock.try_lock().map_err(failed())? {
            return Err(Error::Locked(taken(path, name)));
        }
        let pid = std::process::id() as i32;
        let start_time = pidfd::start_time(pid).unwrap_or(0);
        let record = LockRecord { generation: 0, pid, start_time };
        let written = lock.write_record(&record);
        written.map_err(|e| failed()(file_context(e, format_args!("cannot write {}", path.display()))))?;
        Ok(Self { _lock: lock })
    }
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

fn taken(path: &Path, name: &str) -> String {
    let holder = lock::holders(path).first().map(|holder| format!("process {} ({})", holder.pid, holder.command));
    let record = || lock::read_record(path).ok().flatten().map(|record| format!("process {}", record.pid));
    let who = holder.or_else(record).unwrap_or_else(|| "another process".to_owned());
    format!("a supervisor named '{name}' runs already: {who}; stop it, or choose another --name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.lock");
        let first = Instance::acquire(&path, "kv").unwrap();
        let error = Instance::acquire(&path, "kv").unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
    }
}

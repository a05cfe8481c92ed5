//! The lock of the data directory, and the gate that keeps strangers out of the moment between two holders.

use super::trace;
use crate::error::{Error, Result};
use crate::protocol::message::{Fingerprint, Mode, Sealed};
use crate::sys::fork;
use crate::sys::lock::{Holder, LockFile, LockPaths, LockRecord, holders, is_network_fs};
use crate::sys::pidfd::start_time;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `flock(2)` on `<data_dir>/.handoff.lock`: the only truth of who may write the data.
///
/// The file also holds a record for people: generation, pid and start time of the holder.
#[derive(Debug)]
pub struct DataDirLock {
    paths: LockPaths,
    gate: Option<LockFile>,
    lock: Option<LockFile>,
    /// What is locked: looked up before the pause.
    fingerprint: Option<Fingerprint>,
    held: bool,
    /// Overlap mode: two may serve at once, and the gate alone, which they share, keeps strangers out.
    gate_only: bool,
}

impl DataDirLock {
    /// Takes gate and lock of a data directory: for a tool that must not run beside the daemon. Dropped, it frees both.
    ///
    /// # Errors
    /// [`Error::Locked`], with the holder; the directory is missing, no directory, on a network, or can not be written.
    pub fn acquire(data_dir: &Path) -> Result<Self> {
        let mut lock = Self::at(data_dir, false)?;
        if lock.try_take()? { Ok(lock) } else { Err(Error::Locked(lock.blame())) }
    }

    fn at(dir: &Path, network: bool) -> Result<Self> {
        check_directory(dir, network)?;
        Ok(Self::with(LockPaths::of_data(dir)))
    }

    fn with(paths: LockPaths) -> Self {
        Self { paths, gate: None, lock: None, fingerprint: None, held: false, gate_only: false }
    }

    /// Looks for the place of the lock; none without a data directory and a control path.
    pub(super) fn locate(
        data_dir: Option<&Path>,
        control: Option<&Path>,
        network: bool,
        mode: Mode,
    ) -> Result<Option<Self>> {
        let lock = match data_dir {
            Some(dir) => Some(Self::at(dir, network)?),
            None => LockPaths::locate(None, control).map(Self::with),
        };
        Ok(lock.map(|mut lock| {
            lock.gate_only = mode == Mode::Overlap;
            lock
        }))
    }

    /// Whether what O sealed, or not, is of the mode of this process.
    pub(super) fn check_mode(&self, sealed: &Sealed) -> Result<()> {
        match (sealed, self.gate_only) {
            (Sealed::Complete { .. }, true) | (Sealed::Beside, false) => {
                Err(Error::Protocol("the supervisor began a handoff in another mode than that of this process".into()))
            }
            _ => Ok(()),
        }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.paths.lock
    }

    /// Whether this process holds it now. It releases the lock when it has sealed.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Opens the lock file, so that this is done when every microsecond counts.
    pub(super) fn open(&mut self) -> Result<()> {
        if self.lock.is_none() && !self.gate_only {
            self.lock = Some(LockFile::open(&self.paths.lock).map_err(no_lock)?);
        }
        Ok(())
    }

    /// Takes the gate, unless it came from the incumbent, then the lock. `Ok(false)`: somebody holds one of them.
    pub(super) fn try_take(&mut self) -> Result<bool> {
        let gate = try_one(&mut self.gate, &self.paths.gate)?;
        if self.gate_only {
            if let Some(gate) = self.gate.as_ref().filter(|_| gate && !self.held) {
                fork::withhold(gate.as_fd()); // children that serve their last clients must not keep a cold start out
                self.held = true;
            }
            return Ok(gate);
        }
        let taken = gate && try_one(&mut self.lock, &self.paths.lock)?;
        if taken {
            self.held = true;
            self.fingerprint()?;
        }
        Ok(taken)
    }

    /// The gate's locked description, which the incumbent sent.
    pub(super) fn receive_gate(&mut self, gate: OwnedFd) -> Result<()> {
        let gate = LockFile::from_locked(gate, &self.paths.gate).map_err(Error::system("take over the gate"))?;
        self.gate = Some(gate);
        Ok(())
    }

    /// The file that is locked, if it is open.
    pub(super) fn lock_file(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(AsFd::as_fd)
    }

    /// To be sent to the successor.
    pub(super) fn gate(&self) -> Option<BorrowedFd<'_>> {
        self.gate.as_ref().map(AsFd::as_fd)
    }

    /// Closes the gate, which the successor shares: so it is free when that one is dead, whoever else still drains.
    pub(super) fn let_go(&mut self) {
        if let Some(gate) = self.gate.take().filter(|_| self.gate_only) {
            fork::release(gate.as_fd());
        }
        self.held = false;
    }

    /// Unlocks explicitly: a forked child that still has the description must not keep the lock.
    pub(super) fn release(&mut self) -> Result<()> {
        if let Some(lock) = &self.lock {
            lock.unlock().map_err(Error::system(format!("unlock {}", self.paths.lock.display())))?;
        }
        self.held = false;
        Ok(())
    }

    /// What tells this directory from another one.
    pub(super) fn fingerprint(&mut self) -> Result<Fingerprint> {
        if let Some(known) = self.fingerprint {
            return Ok(known);
        }
        let failed = |path: &Path| Error::system(format!("stat {}", path.display()));
        let dir = fs::metadata(&self.paths.dir).map_err(failed(&self.paths.dir))?;
        let lock = match &self.lock {
            Some(lock) => lock.identity().map_err(failed(&self.paths.lock))?,
            None => return Err(Error::State("the lock file is not open".into())),
        };
        let found = Fingerprint { directory: (dir.dev(), dir.ino()), lock };
        self.fingerprint = Some(found);
        Ok(found)
    }

    /// Writes the record for people; it decides nothing.
    pub(super) fn record(&self, generation: u64) {
        let pid = std::process::id() as i32;
        let record = LockRecord { generation, pid, start_time: start_time(pid).unwrap_or(0) };
        let file = if self.gate_only { &self.gate } else { &self.lock };
        if let Some(Err(error)) = file.as_ref().map(|file| file.write_record(&record)) {
            trace::trouble(&error, "the record in the lock file could not be written");
        }
    }

    /// The file that this process could not lock.
    fn refused(&self) -> &Path {
        if self.gate.is_some() { &self.paths.lock } else { &self.paths.gate }
    }

    /// Who is in the way.
    pub(super) fn holders(&self) -> impl Iterator<Item = Holder> {
        let own = std::process::id() as i32;
        holders(self.refused()).into_iter().filter(move |holder| holder.pid != own)
    }

    /// The same for people.
    pub(super) fn blame(&self) -> String {
        let path = self.refused();
        let name = |holder: Holder| format!("process {} ({})", holder.pid, holder.command);
        let mut named: Vec<String> = self.holders().map(name).collect();
        named.dedup();
        let who = if named.is_empty() { "a process that can not be seen from here".into() } else { named.join(", ") };
        format!(
            "{} is locked by {who}: it serves this data already; stop it, or choose another directory",
            path.display()
        )
    }
}

impl Drop for DataDirLock {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn check_directory(dir: &Path, network: bool) -> Result<()> {
    let shown = dir.display();
    let found = fs::metadata(dir).map_err(|error| {
        let advice = if error.kind() == io::ErrorKind::NotFound { "; create it (mkdir -p)" } else { "" };
        let source = io::Error::new(error.kind(), format!("{error}{advice}"));
        Error::System { what: format!("data directory {shown}"), source }
    })?;
    if !found.is_dir() {
        return Err(Error::Invalid(format!("data directory {shown} is not a directory; choose another")));
    }
    match is_network_fs(dir).map_err(Error::system(format!("statfs {shown}")))? {
        Some(kind) if !network => Err(Error::Invalid(format!(
            "data directory {shown} is on {kind}, where a lock may not keep other hosts out; choose a local one, or accept the risk with the option for network data directories"
        ))),
        _ => Ok(()),
    }
}

/// Opens and locks one file; keeps it only when it is locked.
fn try_one(slot: &mut Option<LockFile>, path: &Path) -> Result<bool> {
    let file = match slot.take() {
        Some(file) => file,
        None => LockFile::open(path).map_err(no_lock)?,
    };
    if !file.try_lock().map_err(no_lock)? {
        return Ok(false);
    }
    *slot = Some(file);
    Ok(true)
}

/// The error names the file.
fn no_lock(source: io::Error) -> Error {
    Error::System { what: "no lock on the data".into(), source }
}

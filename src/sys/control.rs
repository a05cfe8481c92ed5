//! The control path: a listening `SOCK_SEQPACKET` socket in the file system that only its
//! owner can use, bound under a temporary name and renamed into place, so that the path never
//! names a socket that does not listen.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;

use super::fd::advice;
use super::listing::Listing;
use super::pidfd::Pidfd;
use super::seqpacket::{Credentials, Seqpacket};
use super::{listener, proc};

/// The longest path that fits into a socket address, in bytes (`sun_path` less its NUL).
pub const PATH_BYTES_MAX: usize = 107;

/// Temporary names that a process uses, one after the other. So few that those of a dead one are looked up, and not searched for in a
/// directory with the files of a thousand services.
const TEMPORARIES: u32 = 32;

/// Connections that wait to be accepted. Few ever come; a supervisor tries again.
const BACKLOG: i32 = 16;

/// Why a control path cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The path does not fit into a socket address.
    #[error("control path {} is too long: its temporary name takes {len} bytes, the kernel allows {max}; choose a shorter directory", path.display())]
    TooLong {
        /// The control path.
        path: PathBuf,
        /// Bytes of the temporary name beside it, which is the longer one.
        len: usize,
        /// [`PATH_BYTES_MAX`].
        max: usize,
    },
    /// Another user has something at the path.
    #[error("control path {} belongs to user {uid}, not to the user of this process; remove it or choose another path", path.display())]
    OwnedBy {
        /// The control path.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The path exists and is not a socket (a symbolic link is none either).
    #[error("control path {} exists and is not a socket; remove it or choose another path", path.display())]
    NotASocket {
        /// The control path.
        path: PathBuf,
    },
    /// Somebody listens there.
    #[error("{who} listens on control path {}: {advice}, or choose another path", path.display())]
    InUse {
        /// The control path.
        path: PathBuf,
        /// Who, as far as it can be seen.
        who: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// The directory of the path does not exist.
    #[error("the directory of control path {} does not exist; create it", path.display())]
    NoDirectory {
        /// The control path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("control path {}: cannot {what}: {source}{}", path.display(), advice(source.kind()))]
    Io {
        /// The control path.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The error of the system call.
        source: io::Error,
    },
}

/// A control socket that listens already, under a temporary name. Dropped, it removes that name.
#[derive(Debug)]
pub struct PreparedControl {
    temporary: PathBuf,
    /// None when it was published.
    listener: Option<ControlListener>,
}

/// A listening control socket. Dropped, it leaves its path: that may belong to a successor.
#[derive(Debug)]
pub struct ControlListener {
    fd: OwnedFd,
    path: PathBuf,
    /// Device and inode of the name; a rename keeps them. The socket pins the inode, so no other
    /// file can get the same while this lives.
    identity: (u64, u64),
}

impl ControlListener {
    /// Binds a socket, mode 0600, beside `path` and listens (socket(2), bind(2), listen(2)).
    pub fn prepare(path: &Path) -> Result<PreparedControl, ControlError> {
        check_existing(path)?;
        let (fd, temporary) = bind_beside(path)?;
        match start_listening(&fd, &temporary) {
            Ok(identity) => {
                Ok(PreparedControl { temporary, listener: Some(Self { fd, path: path.to_owned(), identity }) })
            }
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                Err(io_error(path, "listen", error))
            }
        }
    }

    /// The next connection and who made it (accept4(2), `SO_PEERCRED`); None if none waits. Who
    /// may connect is for the caller to judge.
    pub fn accept(&self) -> io::Result<Option<(Seqpacket, Credentials)>> {
        let none = std::ptr::null_mut();
        loop {
            // SAFETY: null is allowed for an address that nobody wants.
            let accepted =
                Errno::result(unsafe { libc::accept4(self.fd.as_raw_fd(), none, none.cast(), libc::SOCK_CLOEXEC) });
            match accepted {
                Ok(fd) => {
                    // SAFETY: the kernel just made this descriptor, nobody else has it.
                    let socket = Seqpacket::new(unsafe { OwnedFd::from_raw_fd(fd) })?;
                    let peer = socket.peer_credentials()?;
                    return Ok(Some((socket, peer)));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The control path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does the path still name this socket?
    pub fn is_ours(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Removes the path if it still names this socket (unlink(2)); says whether it did. A
    /// rename by somebody else in the same instant may be hit: only the one who serves, and who
    /// gives up, should call this.
    pub fn unlink_if_ours(&self) -> io::Result<bool> {
        if !self.is_ours() {
            return Ok(false);
        }
        fs::remove_file(&self.path).map(|()| true)
    }
}

impl AsFd for ControlListener {
    /// Readable when a connection waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PreparedControl {
    /// Moves the socket to its path, over whatever socket of this user is there (rename(2)).
    /// After a failure this can be called again; after a success it cannot.
    pub fn publish(&mut self) -> Result<ControlListener, ControlError> {
        let Some(listener) = self.listener.take() else {
            let again = io::Error::new(io::ErrorKind::InvalidInput, "it was published before");
            return Err(io_error(&self.temporary, "publish", again));
        };
        let path = &listener.path;
        let renamed = check_existing(path)
            .and_then(|()| fs::rename(&self.temporary, path).map_err(|e| io_error(path, "rename into place", e)));
        match renamed {
            Ok(()) => Ok(listener),
            Err(error) => {
                self.listener = Some(listener);
                Err(error)
            }
        }
    }
}

impl Drop for PreparedControl {
    fn drop(&mut self) {
        if self.listener.is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Whether a control socket could be bound at `path`, without binding one.
pub fn check(path: &Path) -> Result<(), ControlError> {
    temporary_name(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        return Err(ControlError::NoDirectory { path: path.to_owned() });
    }
    check_existing(path)
}

/// Whether nobody but `own` listens at `path`; none: nobody at all may. The listener sees a connection that closes at
/// once.
pub fn check_free(path: &Path, own: Option<i32>) -> Result<(), ControlError> {
    let in_use = |who, advice| Err(ControlError::InUse { path: path.to_owned(), who, advice });
    let process = |pid| format!("process {pid} ({})", proc::command(pid));
    match living_owner(path) {
        Ok(None) => Ok(()),
        Ok(Some(owner)) if own == Some(owner.pid) => Ok(()),
        Ok(Some(owner)) => in_use(process(owner.pid), "stop it"),
        // Its backlog is full; the one that is expected there may be slow.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && own.is_some() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            in_use("a process that does not accept".to_owned(), "find and stop it (ss -xlp)")
        }
        Err(error) => match (listener::unix_owner(path), is_other_kind(path)) {
            (Some(pid), _) => in_use(process(pid), "stop it"),
            (None, true) => in_use("a process with another kind of socket".to_owned(), "find and stop it (ss -xp)"),
            (None, false) => Err(io_error(path, "see who listens", error)),
        },
    }
}

/// Whether a socket is alive there that is not of our kind: stream or datagram.
fn is_other_kind(path: &Path) -> bool {
    let probe =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
    let (Ok(probe), Ok(address)) = (probe, UnixAddr::new(path)) else { return false };
    connect(probe.as_raw_fd(), &address) == Err(Errno::EPROTOTYPE)
}

/// Removes what a process of this pid, which is dead, has left beside `path` under temporary names.
pub fn remove_temporaries(path: &Path, pid: i32) {
    for name in (0..TEMPORARIES).map(|number| temporary_of(path, pid, number)) {
        if fs::symlink_metadata(&name).is_ok_and(|found| found.file_type().is_socket()) {
            let _ = fs::remove_file(name);
        }
    }
}

/// Removes the temporary names beside `path` of processes that are dead.
pub fn remove_dead_temporaries(path: &Path) {
    let dir = path.parent().unwrap_or(Path::new(""));
    remove_dead_listed(path, &Listing::beginning_with(dir, &start_of_temporaries(path)));
}

/// The same of those that are in the listing of the directory of `path`.
pub(crate) fn remove_dead_listed(path: &Path, listing: &Listing) {
    let is_dead = |name: &PathBuf| {
        let name = name.to_string_lossy();
        let pid = name.rsplit_once('-').and_then(|(start, _)| start.rsplit_once('.')?.1.parse().ok());
        // The number may be another's by now, or in another pid namespace: then the name stays, or leads to somebody.
        pid.is_some_and(|pid| match Pidfd::open(pid) {
            Ok(process) => process.is_dead(),
            Err(error) => error.raw_os_error() == Some(libc::ESRCH),
        })
    };
    let start = start_of_temporaries(path);
    let is_socket = |name: &PathBuf| fs::symlink_metadata(name).is_ok_and(|found| found.file_type().is_socket());
    let names = listing.paths(&start).map(|(_, name)| name).filter(is_socket);
    names.filter(is_dead).for_each(|name| remove_dead(&name));
}

/// Removes this name if it is a socket of ours on which nobody listens. Of no use to anybody but tidiness, so an error is
/// none: it stays.
pub fn remove_dead(path: &Path) {
    if path.exists() && check_existing(path).is_ok() && matches!(living_owner(path), Ok(None)) {
        let _ = fs::remove_file(path);
    }
}

/// Their names go on after a dot.
fn start_of_temporaries(path: &Path) -> Vec<u8> {
    [path.file_name().unwrap_or_default().as_bytes(), b"."].concat()
}

/// Who listens at a control path: the process that called listen(2). None if nobody does or
/// there is no such socket. An error says neither; `WouldBlock` means that somebody lives, with
/// a full backlog. The listener sees a connection that closes at once.
pub fn living_owner(path: &Path) -> io::Result<Option<Credentials>> {
    match Seqpacket::connect(path) {
        Ok(socket) => socket.peer_credentials().map(Some),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

fn io_error(path: &Path, what: &'static str, source: impl Into<io::Error>) -> ControlError {
    ControlError::Io { path: path.to_owned(), what, source: source.into() }
}

/// Nothing that is not ours may be replaced.
fn check_existing(path: &Path) -> Result<(), ControlError> {
    let path = path.to_owned();
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.file_type().is_socket() => Err(ControlError::NotASocket { path }),
        Ok(found) if found.uid() != geteuid().as_raw() => {
            let uid = found.uid();
            Err(ControlError::OwnedBy { path, uid })
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(io_error(&path, "look at it", source)),
    }
}

/// Binds a new socket to a name beside `path`.
fn bind_beside(path: &Path) -> Result<(OwnedFd, PathBuf), ControlError> {
    let at = |what, errno: Errno| io_error(path, what, errno);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(|e| at("make a socket", e))?;
    // bind(2) gives the file the mode of the socket's own inode (less the umask), so there is no
    // instant at which others can connect.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| at("set its mode", e))?;
    // A name may be left over from a dead process with our pid (always 1 in a container).
    for _ in 0..TEMPORARIES {
        let temporary = temporary_name(path)?;
        let address = UnixAddr::new(&temporary).map_err(|e| at("name it", e))?;
        match bind(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok((fd, temporary)),
            Err(Errno::EADDRINUSE) => {
                if let Ok(None) = living_owner(&temporary) {
                    let _ = fs::remove_file(&temporary);
                }
            }
            Err(Errno::ENOENT) => {
                let path = path.to_owned();
                return Err(ControlError::NoDirectory { path });
            }
            Err(errno) => return Err(at("bind", errno)),
        }
    }
    Err(at("find a free temporary name", Errno::EADDRINUSE))
}

/// Gives the identity of the name.
fn start_listening(fd: &OwnedFd, temporary: &Path) -> io::Result<(u64, u64)> {
    setsockopt(fd, sockopt::PassCred, &true)?;
    listen(fd, Backlog::new(BACKLOG)?)?;
    identity(temporary)
}

fn temporary_name(path: &Path) -> Result<PathBuf, ControlError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % TEMPORARIES;
    let name = temporary_of(path, std::process::id().cast_signed(), number);
    let len = name.as_bytes().len();
    if len > PATH_BYTES_MAX {
        return Err(ControlError::TooLong { path: path.to_owned(), len, max: PATH_BYTES_MAX });
    }
    Ok(name.into())
}

fn temporary_of(path: &Path, pid: i32, number: u32) -> OsString {
    let mut name = OsString::from(path);
    name.push(format!(".{pid}-{number}"));
    name
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests;

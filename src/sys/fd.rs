//! Small things that can be asked of any descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

/// Sets `FD_CLOEXEC` (fcntl(2), `F_SETFD`). The flag belongs to this descriptor, not to the
/// shared description.
pub fn set_cloexec(fd: impl AsFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// A duplicate of a number that a caller gave, close-on-exec (fcntl(2), `F_DUPFD_CLOEXEC`). `EBADF`: it is not open.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes numbers.
    let fd = Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel just made this descriptor, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets `FD_CLOEXEC` on all open descriptors from `first` to `last` (close_range(2); before Linux 5.11 one by one).
pub fn set_cloexec_range(first: RawFd, last: RawFd) {
    // SAFETY: close_range takes three numbers; with this flag it closes nothing.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) } == 0;
    if !done {
        for fd in first..=last {
            // SAFETY: F_SETFD takes numbers, and changes only the flag.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Whether two descriptors of this process share one description (kcmp(2)); no if the kernel does not tell.
pub fn is_same_description(one: impl AsFd, other: impl AsFd) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    let (pid, one, other) = (std::process::id(), one.as_fd().as_raw_fd(), other.as_fd().as_raw_fd());
    // SAFETY: kcmp takes numbers.
    unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, one, other) == 0 }
}

/// The bytes of a regular file that has no more than so many: somebody may have put something there that never begins, as a
/// pipe, or never ends.
#[cfg(feature = "program")]
pub fn read_bounded(path: &std::path::Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file; remove it"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > bytes_max {
        true => Err(io::Error::other(format!("it has more than {} KiB; split it", bytes_max / 1024))),
        false => Ok(bytes),
    }
}

/// Puts a file that only this user can read in the place of `path`, whole, by a rename from `temporary`.
#[cfg(feature = "program")]
pub fn replace_private(path: &std::path::Path, temporary: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    write_private(temporary, bytes)?;
    std::fs::rename(temporary, path)
}

/// Writes a file that only this user may read.
pub fn write_private(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// Is this number open? (fcntl(2), `F_GETFD`)
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes numbers, and changes nothing.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Kind {
    Socket,
    File,
    Directory,
    Other,
}

/// What a descriptor is, and its device and inode, which it has in common with every other one of the same socket or file;
/// all of those without a place in a file system (eventfd, epoll) have the same (fstat(2)).
pub fn identify(fd: BorrowedFd<'_>) -> io::Result<(Kind, (u64, u64), u64)> {
    let stat = fstat(fd)?;
    let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFSOCK => Kind::Socket,
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Directory,
        _ => Kind::Other,
    };
    Ok((kind, (stat.st_dev, stat.st_ino), u64::try_from(stat.st_size).unwrap_or(0)))
}

/// Is `O_NONBLOCK` set? The flag belongs to the description: every process that shares it sees
/// the same, which is why nothing changes it that somebody uses.
pub fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    let flags = fcntl(fd, FcntlArg::F_GETFL)?;
    Ok(OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
}

/// Sets or clears `O_NONBLOCK`, of a socket that nobody uses yet.
#[cfg(feature = "program")]
pub fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(&fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// What poll(2) says of one descriptor now, without waiting. `POLLHUP` and `POLLERR` are
/// reported although nobody asks for them.
pub fn poll_now(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<PollFlags> {
    let mut entry = [PollFd::new(fd, events)];
    while let Err(errno) = poll(&mut entry, PollTimeout::ZERO) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    Ok(entry[0].revents().unwrap_or(PollFlags::empty()))
}

/// A socket option that is one int (getsockopt(2), level `SOL_SOCKET`). `ENOTSOCK` if `fd` is
/// no socket, `EBADF` if the number is not open.
pub(super) fn socket_option(fd: RawFd, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` and `size` are live, and `size` says how large `value` is.
    Errno::result(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut value).cast(), &mut size) })?;
    Ok(value)
}

/// What an operator can do when a file can not be made or written; empty if only the error itself can say it.
pub fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull => "; free space or inodes there (df, df -i)",
        io::ErrorKind::QuotaExceeded => "; free space there, or raise this user's quota",
        io::ErrorKind::ReadOnlyFilesystem => "; mount it writable, or choose another directory",
        io::ErrorKind::PermissionDenied => "; let the user of this process write it, or choose another directory",
        io::ErrorKind::NotFound => "; create its directory first",
        _ => "",
    }
}

/// For a file that could not be made or written: the same error with what was tried in front of it, and what to do after it.
pub fn file_context(error: impl Into<io::Error>, what: impl std::fmt::Display) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{what}: {error}{}", advice(error.kind())))
}

/// The same error with what was tried in front of it; its kind is kept.
pub(super) fn context(error: impl Into<io::Error>, what: impl std::fmt::Display) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_pipe() {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        assert!(is_nonblocking(&read).unwrap());
        set_cloexec(&read).unwrap();
        let flags = fcntl(&read, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
        assert_eq!(poll_now(read.as_fd(), PollFlags::POLLIN).unwrap(), PollFlags::empty());
        nix::unistd::write(&write, b"x").unwrap();
        assert_eq!(poll_now(read.as_fd(), PollFlags::POLLIN).unwrap(), PollFlags::POLLIN);
        let error = socket_option(read.as_raw_fd(), libc::SO_TYPE).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }
}

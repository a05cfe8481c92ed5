//! The socket of `NOTIFY_SOCKET` (sd_notify(3)): datagrams, with the sender's identity as the kernel knows it.

#[cfg(feature = "program")]
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
#[cfg(feature = "program")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

#[cfg(feature = "program")]
use nix::sys::socket::connect;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use nix::sys::stat::{Mode, fchmod};

use super::fd::file_context;
use super::inherit::is_restoring;
use super::seqpacket::{Received, Seqpacket};

/// A bound `AF_UNIX` socket of type `SOCK_DGRAM` that only its owner may send to. Its name is removed when it is dropped.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct NotifySocket {
    socket: Seqpacket,
    path: PathBuf,
    inode: u64,
}

impl NotifySocket {
    /// Binds it (bind(2)), mode 0600, in a directory that nobody else may write to. A socket that is there is replaced: it is that of
    /// a supervisor that is gone.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let failed = |error: io::Error| file_context(error, format_args!("cannot bind {}", path.display()));
        Self::remove_left(path).map_err(failed)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // The file gets the mode of the socket's own inode: there is no instant at which others may send.
        fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // Before the name: every message carries its sender.
        let socket = Seqpacket::new(fd)?;
        let address = UnixAddr::new(path).map_err(|errno| failed(errno.into()))?;
        bind(socket.as_fd().as_raw_fd(), &address).map_err(|errno| failed(errno.into()))?;
        Ok(Self { socket, path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() })
    }

    /// Removes a socket that is there: that of a supervisor that is gone.
    pub fn remove_left(path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            true => fs::remove_file(path),
            false => Ok(()),
        }
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets this user, and root, send to it (lchown(2)). `EPERM`: this process is not root.
    pub fn give_to(&self, uid: u32) -> io::Result<()> {
        lchown(&self.path, Some(uid), None)
            .map_err(|error| file_context(error, format_args!("cannot give {} to user {uid}", self.path.display())))
    }

    /// Whether the name still leads here: somebody may have removed it.
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// As [`Seqpacket::receive`].
    pub fn receive(&self, buf: &mut [u8]) -> io::Result<Received> {
        self.socket.receive(buf)
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        if !is_restoring() && self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Sends one message to the socket that `NOTIFY_SOCKET` names: a path, or `@` and a name in the abstract namespace (unix(7)). The
/// descriptors are duplicated. Never waits.
///
/// `WouldBlock`: its queue is full. `ConnectionRefused`, `NotFound`: nobody is there. `InvalidInput`: it is no such address.
#[cfg(feature = "program")]
pub fn send_to(address: &OsStr, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        [b'/', ..] => UnixAddr::new(Path::new(address))?,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    connect(fd.as_raw_fd(), &address)?;
    Seqpacket::new(fd)?.send(message, fds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_message_has_its_sender() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.notify");
        let socket = NotifySocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut buf = [0; 16];
        assert!(matches!(socket.receive(&mut buf), Ok(Received::Nothing)));
        let client = UnixDatagram::unbound().unwrap();
        client.send_to(b"READY=1", &path).unwrap();
        client.send_to(&[b'x'; 17], &path).unwrap();
        let Ok(Received::Packet(packet)) = socket.receive(&mut buf) else { panic!("no message") };
        assert_eq!((&buf[..packet.len], packet.sender.unwrap().pid), (&b"READY=1"[..], std::process::id() as i32));
        assert!(socket.receive(&mut buf).is_err(), "it is larger than the buffer");
        assert!(matches!(socket.receive(&mut buf), Ok(Received::Nothing)), "and gone");

        // The next one takes the name; the first one leaves it alone.
        let next = NotifySocket::bind(&path).unwrap();
        assert!(next.is_there() && !socket.is_there());
        drop(socket);
        assert!(next.is_there());
        drop(next);
        assert!(!path.exists());
        assert!(NotifySocket::bind(&dir.path().join("none/x")).is_err());
    }
}

//! `AF_UNIX` sockets of type `SOCK_SEQPACKET`: whole messages, with descriptors, and with the
//! sender's identity as the kernel knows it (unix(7)).

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, getpeername, getsockopt, setsockopt, shutdown,
    socket, socketpair, sockopt,
};

use super::fd::{context, set_cloexec, socket_option};

/// The most descriptors that one message can carry: `SCM_MAX_FD` of the kernel.
pub const DESCRIPTORS_MAX: usize = 253;

/// A connected socket. Its calls never block, whatever the mode of the description is.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Seqpacket(#[serde(with = "crate::sys::inherit::fd")] OwnedFd);

/// Who a process is, as the kernel tells it (`struct ucred`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, seen from our pid namespace.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// One message. Its bytes are in the buffer that was given to [`Seqpacket::receive`].
#[derive(Debug)]
pub struct Packet {
    /// Bytes; at least one.
    pub len: usize,
    /// The descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Who sent it. None if the kernel does not know (sent before `SO_PASSCRED` was set on
    /// either end) or cannot name it here (another pid namespace).
    pub sender: Option<Credentials>,
}

/// What [`Seqpacket::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Packet(Packet),
    /// Nothing yet: it would block.
    Nothing,
    /// The real end of the queue: the other end is closed everywhere and everything was read.
    End,
}

/// A message came without its descriptors, and those of them that came are closed. Its bytes are in the buffer.
#[derive(Debug, thiserror::Error)]
#[error("descriptors of a message got lost; is RLIMIT_NOFILE reached?")]
pub struct LostDescriptors {
    /// Bytes.
    pub len: usize,
}

impl Seqpacket {
    /// Two sockets that are connected to each other (socketpair(2)).
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self::new(one)?, Self::new(other)?))
    }

    /// A descriptor from elsewhere, after a check that it is a connected socket of this kind.
    /// Sets `FD_CLOEXEC` and `SO_PASSCRED`. `InvalidInput`: it is something else.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::check(fd.as_fd())?;
        set_cloexec(&fd)?;
        Self::new(fd)
    }

    /// Is it what [`from_fd`](Self::from_fd) takes? Changes nothing.
    pub(super) fn check(fd: BorrowedFd<'_>) -> io::Result<()> {
        let wrong = |what: &str| {
            let text = format!("descriptor {} is {what}", fd.as_raw_fd());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        match socket_option(fd.as_raw_fd(), libc::SO_DOMAIN) {
            Ok(libc::AF_UNIX) => {}
            Ok(_) => return wrong("not a Unix socket"),
            Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => {
                return wrong("not a socket");
            }
            Err(error) => return Err(error),
        }
        if socket_option(fd.as_raw_fd(), libc::SO_TYPE)? != libc::SOCK_SEQPACKET {
            return wrong("a Unix socket, but not of type SOCK_SEQPACKET");
        }
        match getpeername::<UnixAddr>(fd.as_raw_fd()) {
            Ok(_) => Ok(()),
            Err(Errno::ENOTCONN) => wrong("a SOCK_SEQPACKET socket without a peer"),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Connects to a listening socket (connect(2)). Does not wait: `WouldBlock` says that the
    /// listener lives but its backlog is full.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let what = || format!("cannot connect to {}", path.display());
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        let address = UnixAddr::new(path).map_err(|e| context(e, what()))?;
        connect(fd.as_raw_fd(), &address).map_err(|e| context(e, what()))?;
        Self::new(fd)
    }

    /// Takes a socket that is known to be of this kind.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        setsockopt(&fd, sockopt::PassCred, &true)?;
        Ok(Self(fd))
    }

    /// Sends one message with at most [`DESCRIPTORS_MAX`] descriptors (sendmsg(2)); all of it
    /// or nothing. The descriptors are duplicated, the caller keeps his.
    ///
    /// `WouldBlock`: the peer does not read; poll for `POLLOUT`. `EPIPE`, `ECONNRESET`: it is
    /// gone (but what it sent can still be received). `ETOOMANYREFS`: too many descriptors of
    /// this user are in sockets unread. `EMSGSIZE`: larger than the send buffer.
    /// `InvalidInput`: no bytes, because an empty message reads like an end.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        // SAFETY: a BorrowedFd is a transparent RawFd.
        self.send_numbers(bytes, unsafe { &*(std::ptr::from_ref(fds) as *const [RawFd]) })
    }

    /// As [`Seqpacket::send`], for numbers that somebody else promises to keep open. `EBADF`: one of them is not, and nothing
    /// was sent.
    pub fn send_numbers(&self, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
        if bytes.is_empty() || fds.len() > DESCRIPTORS_MAX {
            let what = format!("cannot send {} bytes, {} descriptors", bytes.len(), fds.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut control = Control::new();
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut header = control.header(&mut part);
        put_descriptors(&mut header, fds);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        loop {
            // SAFETY: `header` points to `part` and `control`, which are live; sendmsg writes
            // to neither.
            match Errno::result(unsafe { libc::sendmsg(self.0.as_raw_fd(), &header, flags) }) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Bytes that were sent and not read by the peer, as the kernel accounts for them (`SIOCOUTQ`, unix(7)).
    pub fn unread_bytes(&self) -> io::Result<usize> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: `bytes` is live, and one int is what this request writes.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
        Ok(usize::try_from(bytes).unwrap_or(0))
    }

    /// Takes the next message (recvmsg(2)). Allocates only if descriptors come.
    ///
    /// A peer that died with unread data makes the kernel say `ECONNRESET` once, before the
    /// messages that it had sent: this reads on. `InvalidData`: a message larger than `buf`, a
    /// message without bytes, or descriptors that got lost (more than fit, or `RLIMIT_NOFILE`
    /// reached, see [`LostDescriptors`]); that message is gone, and those of its descriptors that came are closed.
    pub fn receive(&self, buf: &mut [u8]) -> io::Result<Received> {
        let mut control = Control::new();
        let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let mut header = control.header(&mut part);
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let len = loop {
            // SAFETY: `header` points to `part` and `control`; these and `buf` are live and as
            // large as they say.
            match Errno::result(unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut header, flags) }) {
                Ok(len) => break len as usize,
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(errno) => return Err(errno.into()),
            }
        };
        let (fds, sender) = take_control(&header);
        let invalid = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if header.msg_flags & libc::MSG_TRUNC != 0 {
            return invalid("a message is larger than allowed");
        }
        if header.msg_flags & libc::MSG_CTRUNC != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, LostDescriptors { len }));
        }
        match (len, sender) {
            // With SO_PASSCRED every message carries credentials, and an end carries nothing.
            (0, None) => Ok(Received::End),
            (0, Some(_)) => invalid("a message is empty"),
            (len, sender) => Ok(Received::Packet(Packet { len, fds, sender: sender.filter(|sender| sender.pid != 0) })),
        }
    }

    /// The peer's sends fail with `EPIPE` from here on; what it sent before can still be received (shutdown(2), `SHUT_RD`).
    pub fn stop_receiving(&self) {
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Read); // fails only without a peer
    }

    /// Who was at the other end when the two were connected (`SO_PEERCRED`). For a pair that is
    /// the maker of the pair, whoever has the other end now.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        let peer = getsockopt(&self.0, sockopt::PeerCredentials)?;
        Ok(Credentials { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() })
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Seqpacket> for OwnedFd {
    fn from(socket: Seqpacket) -> Self {
        socket.0
    }
}

const fn space(bytes: usize) -> usize {
    // SAFETY: CMSG_SPACE only calculates.
    unsafe { libc::CMSG_SPACE(bytes as libc::c_uint) as usize }
}

const CONTROL_BYTES: usize = space(size_of::<libc::ucred>()) + space(DESCRIPTORS_MAX * size_of::<RawFd>());

/// Room for everything that can come beside the bytes, aligned for `cmsghdr`.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Control {
    fn new() -> Self {
        Self([0; CONTROL_BYTES])
    }

    /// A header that points here and to `part`; it must not outlive them.
    fn header(&mut self, part: &mut libc::iovec) -> libc::msghdr {
        // SAFETY: all-zero is a valid msghdr (it has private padding on some systems).
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_iov = part;
        header.msg_iovlen = 1;
        header.msg_control = self.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
        header
    }
}

/// Puts `fds` (at most [`DESCRIPTORS_MAX`]) into the control buffer of `header`.
fn put_descriptors(header: &mut libc::msghdr, fds: &[RawFd]) {
    let bytes = size_of_val(fds);
    header.msg_controllen = if fds.is_empty() { 0 } else { space(bytes) as _ };
    if fds.is_empty() {
        return;
    }
    // SAFETY: the buffer is aligned, zeroed and has room for DESCRIPTORS_MAX numbers.
    unsafe {
        let cmsg = libc::CMSG_FIRSTHDR(header);
        (*cmsg).cmsg_level = libc::SOL_SOCKET;
        (*cmsg).cmsg_type = libc::SCM_RIGHTS;
        (*cmsg).cmsg_len = libc::CMSG_LEN(bytes as libc::c_uint) as _;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(cmsg), bytes);
    }
}

/// The descriptors and credentials that recvmsg(2) left in the control buffer.
fn take_control(header: &libc::msghdr) -> (Vec<OwnedFd>, Option<Credentials>) {
    let mut fds = Vec::new();
    let mut sender = None;
    // SAFETY: recvmsg filled the buffer and msg_controllen, so the CMSG functions stay within;
    // CMSG_DATA may be unaligned for what it holds, hence read_unaligned. Each descriptor is
    // new in this process and owned by nobody else.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            let data = libc::CMSG_DATA(cmsg);
            let bytes = (*cmsg).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            match ((*cmsg).cmsg_level, (*cmsg).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let numbers = data.cast::<RawFd>();
                    let count = bytes / size_of::<RawFd>();
                    fds.reserve_exact(count);
                    for i in 0..count {
                        fds.push(OwnedFd::from_raw_fd(numbers.add(i).read_unaligned()));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if bytes >= size_of::<libc::ucred>() => {
                    let ucred = data.cast::<libc::ucred>().read_unaligned();
                    sender = Some(Credentials { pid: ucred.pid, uid: ucred.uid, gid: ucred.gid });
                }
                _ => {}
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    (fds, sender)
}

#[cfg(test)]
mod tests;

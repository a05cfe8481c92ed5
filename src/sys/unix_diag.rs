//! The other end of a connection over a Unix socket (sock_diag(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::sys::stat::fstat;

const HEADER_BYTES: usize = 16;
/// `struct unix_diag_req`, and the fixed part of `struct unix_diag_msg`.
const REQUEST_BYTES: usize = 24;
const ANSWER_BYTES: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;

/// The inode of the socket at the other end of this one; None while nobody has accepted the connection,
/// and when it is closed there. `ENOENT`: the
/// kernel has no `unix_diag`, or no such socket.
pub fn peer_inode(fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let inode = fstat(fd)?.st_ino as u32; // those of sockets have 32 bits
    let diag = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )?;
    send(diag.as_fd().as_raw_fd(), &request(inode), MsgFlags::MSG_NOSIGNAL)?;
    // The kernel has answered within the call above.
    let mut answer = [0; 512];
    let len = recv(diag.as_fd().as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let peer = parse(&answer[..len], inode)?;
    Ok(Some(u64::from(peer)).filter(|peer| *peer != 0))
}

fn request(inode: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + REQUEST_BYTES);
    bytes.extend(((HEADER_BYTES + REQUEST_BYTES) as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]); // sequence number and port
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    // In any state; this inode; its peer; whatever its cookie is.
    for number in [u32::MAX, inode, UDIAG_SHOW_PEER, u32::MAX, u32::MAX] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

fn parse(answer: &[u8], inode: u32) -> io::Result<u32> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "sock_diag: an answer that makes no sense");
    let u16_at = |at: usize| answer.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let u32_at = |at: usize| answer.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    match u16_at(4).map(libc::c_int::from) {
        Some(libc::NLMSG_ERROR) => {
            let errno = u32_at(HEADER_BYTES).ok_or_else(short)?.cast_signed();
            return Err(Errno::from_raw(errno.wrapping_neg()).into());
        }
        Some(kind) if kind == libc::c_int::from(SOCK_DIAG_BY_FAMILY) && u32_at(HEADER_BYTES + 4) == Some(inode) => {}
        _ => return Err(short()),
    }
    let mut at = HEADER_BYTES + ANSWER_BYTES;
    while let (Some(len @ 4..), Some(kind)) = (u16_at(at), u16_at(at + 2)) {
        if kind == UNIX_DIAG_PEER {
            return u32_at(at + 4).ok_or_else(short);
        }
        at += usize::from(len).next_multiple_of(4);
    }
    Err(short())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn the_other_end_has_an_inode_when_it_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let client = UnixStream::connect(dir.path().join("socket")).unwrap();
        assert_eq!(peer_inode(client.as_fd()).unwrap(), None);
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(peer_inode(client.as_fd()).unwrap(), Some(fstat(&accepted).unwrap().st_ino));
        drop(accepted);
        assert_eq!(peer_inode(client.as_fd()).unwrap(), None, "there is none any more");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(peer_inode(file.as_fd()).is_err());
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        for len in 0..40 {
            assert!(parse(&vec![0; len], 1).is_err());
            assert!(parse(&vec![0xff; len], 1).is_err());
        }
    }
}

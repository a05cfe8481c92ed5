//! Binding the sockets that a supervisor holds for its daemons.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, bind, connect, getsockname, getsockopt,
    setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

use super::fd::context;
use super::proc;

/// A listening TCP socket, with `SO_REUSEADDR` (tcp(7)).
///
/// `backlog` is the number of connections that may wait; the kernel lowers it to
/// net.core.somaxconn. `blocking`: for programs that accept in blocking mode; the mode belongs
/// to the description, so choose it here once. `group`: with `SO_REUSEPORT`, so that further sockets
/// of this user can have the same address. `AddrInUse` names who listens, if it can be seen.
pub fn bind_tcp(addr: SocketAddr, backlog: u32, blocking: bool, group: bool) -> io::Result<OwnedFd> {
    let fd = bind_inet(addr, SockType::Stream, blocking, group)?;
    listen_again(fd.as_fd(), backlog).map_err(|e| context(e, format_args!("cannot listen on {addr}")))?;
    Ok(fd)
}

/// A bound UDP socket (udp(7)). No `SO_REUSEADDR`, with which a second process could bind the
/// same address and take the packets. `group` as with [`bind_tcp`].
pub fn bind_udp(addr: SocketAddr, blocking: bool, group: bool) -> io::Result<OwnedFd> {
    bind_inet(addr, SockType::Datagram, blocking, group)
}

/// A listening Unix stream socket (unix(7)). `mode`: the permissions of its path; None means
/// 0777 less the umask.
///
/// A socket file that nobody listens on is replaced. `AddrInUse`: somebody does.
/// `AlreadyExists`: the path is something else.
pub fn bind_unix(path: &Path, backlog: u32, mode: Option<u32>, blocking: bool) -> io::Result<OwnedFd> {
    let what = |tried: &str| format!("cannot {tried} unix:{}", path.display());
    let address = UnixAddr::new(path).map_err(|e| context(e, what("name")))?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags(blocking), None)?;
    if let Some(mode) = mode {
        // The file gets this mode less the umask at once, so it is never too open.
        fchmod(&fd, Mode::from_bits_truncate(mode)).map_err(|e| context(e, what("set mode of")))?;
    }
    let mut bound = bind(fd.as_raw_fd(), &address);
    if bound == Err(Errno::EADDRINUSE) {
        remove_stale(path, &address)?;
        bound = bind(fd.as_raw_fd(), &address);
    }
    bound.map_err(|e| context(e, what("bind")))?;
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| context(e, what("set mode of")))?;
    }
    listen_again(fd.as_fd(), backlog).map_err(|e| context(e, what("listen on")))?;
    Ok(fd)
}

/// listen(2). On a socket that listens already it sets the backlog, which repairs a
/// `listen(fd, 0)` by another process that shares it; connections that wait are kept.
pub fn listen_again(fd: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = libc::c_int::try_from(backlog).unwrap_or(libc::c_int::MAX);
    // SAFETY: listen takes two numbers.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

/// The longest backlog that the kernel allows here, `net.core.somaxconn`; None if it can not be seen.
pub fn longest_backlog() -> Option<u32> {
    fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// The address of a socket for people: `127.0.0.1:4711`, `[::1]:80`, `unix:/path`, `unix:@name`
/// (abstract), `unix:` (without a name) (getsockname(2)).
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<String> {
    let address = getsockname::<SockaddrStorage>(fd.as_raw_fd())?;
    if let Some(address) = address.as_sockaddr_in() {
        return Ok(std::net::SocketAddrV4::from(*address).to_string());
    }
    if let Some(address) = address.as_sockaddr_in6() {
        return Ok(std::net::SocketAddrV6::from(*address).to_string());
    }
    if let Some(address) = address.as_unix_addr() {
        return Ok(match (address.path(), address.as_abstract()) {
            (Some(path), _) => format!("unix:{}", path.display()),
            (_, Some(name)) => format!("unix:@{}", String::from_utf8_lossy(name)),
            _ => "unix:".to_owned(),
        });
    }
    Ok(match address.family() {
        Some(family) => format!("{family:?}"),
        None => "unknown".to_owned(),
    })
}

/// Which process listens on a TCP address, or on the same port of all addresses: pid and
/// command line. For a message, best effort (/proc/net/tcp, /proc/PID/fd): None if it cannot
/// be seen.
pub fn who_listens(addr: SocketAddr) -> Option<(i32, String)> {
    const LISTEN: &str = "0A";
    who_has(["/proc/net/tcp", "/proc/net/tcp6"], LISTEN, addr)
}

/// The same for a UDP address.
pub fn who_receives(addr: SocketAddr) -> Option<(i32, String)> {
    const UNCONNECTED: &str = "07";
    who_has(["/proc/net/udp", "/proc/net/udp6"], UNCONNECTED, addr)
}

fn who_has(tables: [&str; 2], state: &str, addr: SocketAddr) -> Option<(i32, String)> {
    let find = |table| fs::read_to_string(table).ok()?.lines().find_map(|line| inode_of(line, state, addr));
    let inode = tables.into_iter().find_map(find)?;
    who_has_one(proc::pids(), &[format!("socket:[{inode}]")])
}

/// The first of these processes that has one of these open.
fn who_has_one(mut pids: impl Iterator<Item = i32>, links: &[String]) -> Option<(i32, String)> {
    let has = |pid: i32, fd: i32| {
        let found = fs::read_link(format!("/proc/{pid}/fd/{fd}"));
        found.is_ok_and(|found| links.iter().any(|link| found.as_os_str() == link.as_str()))
    };
    let pid = pids.find(|pid| proc::descriptors(*pid).any(|fd| has(*pid, fd)))?;
    Some((pid, proc::command(pid)))
}

/// The same for a Unix socket (/proc/net/unix): rather who called listen(2) than another one that has it, too.
pub fn who_listens_unix(path: &Path) -> Option<(i32, String)> {
    const ACCEPTS: &str = "00010000";
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let link = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (&flags, &inode) = (fields.get(3)?, fields.get(6)?);
        (flags == ACCEPTS && line.ends_with(&format!(" {}", path.display()))).then(|| format!("socket:[{inode}]"))
    };
    let links: Vec<String> = table.lines().filter_map(link).collect();
    who_has_one(unix_owner(path).into_iter().chain(proc::pids()), &links)
}

/// The inode of a connected TCP socket on this machine with these two addresses, once somebody has accepted it
/// (/proc/net/tcp).
pub fn socket_at(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let hex = |addr: SocketAddr, ip: IpAddr| format!("{}:{:04X}", kernel_hex(ip), addr.port());
    // A listener for both families sees a client of the older one at a mapped address.
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    let find = |table: &str, local: String, remote: String| {
        let table = fs::read_to_string(table).ok()?;
        let ends = format!(" {local} {remote} ");
        let line = table.lines().find(|line| line.contains(&ends))?; // of many thousands
        line.split_ascii_whitespace().nth(9).filter(|inode| *inode != "0").map(str::to_owned)
    };
    find("/proc/net/tcp", hex(local, local.ip()), hex(remote, remote.ip()))
        .or_else(|| find("/proc/net/tcp6", hex(local, mapped(local)), hex(remote, mapped(remote))))
}

/// Begins to connect, without waiting (connect(2)): it is writable when it is connected.
pub fn connect_now(addr: SocketAddr) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, flags(false), None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd.into()),
        Err(errno) => Err(errno.into()),
    }
}

/// The same over a Unix socket: it is connected, and waits to be accepted. `EAGAIN`: too many wait before it.
pub fn connect_unix_now(path: &Path) -> io::Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags(false), None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

/// Who called listen(2) on a Unix stream socket (`SO_PEERCRED`); the listener sees a connection that closes at once.
pub fn unix_owner(path: &Path) -> Option<i32> {
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags(false), None).ok()?;
    connect(probe.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    getsockopt(&probe, sockopt::PeerCredentials).ok().map(|peer| peer.pid()).filter(|pid| *pid > 0)
}

/// The inode in a line of /proc/net/tcp, if it is a socket in this state that is in the way of `addr`.
fn inode_of(line: &str, wanted: &str, addr: SocketAddr) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (&local, &state, &inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (ip, port) = local.split_once(':')?;
    let same_port = u16::from_str_radix(port, 16) == Ok(addr.port());
    let everywhere = ip.bytes().all(|digit| digit == b'0');
    let in_the_way = everywhere || addr.ip().is_unspecified() || ip == kernel_hex(addr.ip());
    (state == wanted && same_port && in_the_way).then(|| inode.to_owned())
}

/// An address as /proc/net/tcp writes it: words of 32 bits in native order.
fn kernel_hex(ip: IpAddr) -> String {
    let hex = |bytes: &[u8]| {
        let words = bytes.chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
        words.map(|word| format!("{word:08X}")).collect()
    };
    match ip {
        IpAddr::V4(ip) => hex(&ip.octets()),
        IpAddr::V6(ip) => hex(&ip.octets()),
    }
}

fn flags(blocking: bool) -> SockFlag {
    let nonblock = if blocking { SockFlag::empty() } else { SockFlag::SOCK_NONBLOCK };
    SockFlag::SOCK_CLOEXEC | nonblock
}

fn bind_inet(addr: SocketAddr, kind: SockType, blocking: bool, group: bool) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, flags(blocking), None)
        .map_err(|e| context(e, format_args!("cannot make a socket for {addr}")))?;
    if kind == SockType::Stream {
        // Connections in TIME_WAIT must not keep us from the address.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if group {
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    match bind(fd.as_raw_fd(), &SockaddrStorage::from(addr)) {
        Ok(()) => Ok(fd),
        Err(errno) => {
            let who = match (errno, kind) {
                (Errno::EADDRINUSE, SockType::Stream) => who_listens(addr),
                (Errno::EADDRINUSE, _) => who_receives(addr),
                _ => None,
            };
            let who = who.map(|(pid, command)| format!(" by process {pid} ({command})"));
            let who = who.unwrap_or_default();
            let error = io::Error::from(errno);
            let what = format!("cannot bind {addr}: {error}{who}");
            Err(io::Error::new(error.kind(), what))
        }
    }
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path, address: &UnixAddr) -> io::Result<()> {
    let refuse = |kind, what: &str| Err(io::Error::new(kind, format!("unix:{} {what}", path.display())));
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return refuse(io::ErrorKind::AlreadyExists, "exists and is not a socket; remove it");
    }
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags(false), None)?;
    match connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path),
        // Gone meanwhile.
        Err(Errno::ENOENT) => Ok(()),
        _ => refuse(io::ErrorKind::AddrInUse, "is in use by a process that listens"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::sys::fd::{is_nonblocking, socket_option};

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn address_of(fd: &OwnedFd) -> SocketAddr {
        local_address(fd.as_fd()).unwrap().parse().unwrap()
    }

    #[test]
    fn tcp_listens_and_is_nonblocking_unless_asked() {
        let fd = bind_tcp(any(), 4096, false, false).unwrap();
        assert!(is_nonblocking(&fd).unwrap());
        let addr = address_of(&fd);
        TcpStream::connect(addr).unwrap().write_all(b"x").unwrap();
        let listener = TcpListener::from(fd);
        assert!(listener.accept().is_ok());
        let blocking = bind_tcp(any(), 16, true, false).unwrap();
        assert!(!is_nonblocking(&blocking).unwrap());

        let error = bind_tcp(addr, 16, false, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("by process"), "{error}");
        // A forked child of another test may share it, and be found first.
        assert!(who_listens(addr).is_some());
        assert_eq!(who_listens("127.0.0.1:1".parse().unwrap()), None);
    }

    #[test]
    fn ipv6_and_udp() {
        let fd = bind_udp(any(), false, false).unwrap();
        assert!(is_nonblocking(&fd).unwrap());
        let addr = address_of(&fd);
        let error = bind_udp(addr, false, false).unwrap_err();
        assert!(error.to_string().contains("by process"), "{error}");
        UdpSocket::bind(any()).unwrap().send_to(b"x", addr).unwrap();
        assert_eq!(UdpSocket::from(fd).recv(&mut [0; 8]).unwrap(), 1);
        // Not every machine has IPv6.
        if let Ok(fd) = bind_tcp("[::1]:0".parse().unwrap(), 16, false, false) {
            let addr = address_of(&fd);
            assert!(addr.is_ipv6());
            assert!(who_listens(addr).is_some());
        }
    }

    #[test]
    fn listen_again_repairs_the_backlog() {
        let fd = bind_tcp(any(), 16, false, false).unwrap();
        let addr = address_of(&fd);
        let waiting = TcpStream::connect(addr).unwrap();
        listen_again(fd.as_fd(), 0).unwrap();
        listen_again(fd.as_fd(), u32::MAX).unwrap();
        let more: Vec<_> = (0..10).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let listener = TcpListener::from(fd);
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
        assert_eq!(more.len(), 10);
    }

    #[test]
    fn who_has_a_unix_socket_is_named_and_not_the_dead_that_called_listen() {
        use std::os::unix::process::CommandExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        assert_eq!(who_listens_unix(&path), None);
        let shared = fd.try_clone().unwrap();
        let mut child = std::process::Command::new("true");
        // SAFETY: listen(2) is async-signal-safe.
        unsafe { child.pre_exec(move || listen_again(shared.as_fd(), 16)) };
        assert!(child.status().unwrap().success());
        assert_ne!(unix_owner(&path), Some(own_pid()));
        // A forked child of another test may share it, and be found first.
        assert!(who_listens_unix(&path).is_some_and(|(pid, _)| Some(pid) != unix_owner(&path)));
    }

    fn own_pid() -> i32 {
        std::process::id().cast_signed()
    }

    #[test]
    fn unix_replaces_the_dead_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        // Bound, but nobody listens.
        let flags = SockFlag::SOCK_CLOEXEC;
        let dead = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        bind(dead.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        let fd = bind_unix(&path, 16, Some(0o666), false).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666, "whatever the umask is");
        assert_eq!(local_address(fd.as_fd()).unwrap(), format!("unix:{}", path.display()));
        UnixStream::connect(&path).unwrap();
        let error = bind_unix(&path, 16, None, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        assert!(UnixListener::from(fd).accept().is_ok(), "the living one is untouched");

        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        let error = bind_unix(&file, 16, None, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        assert!(bind_unix(&dir.path().join("x".repeat(200)), 16, None, false).is_err());
        let pair = nix::sys::socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
        assert_eq!(local_address(pair.unwrap().0.as_fd()).unwrap(), "unix:");
        assert!(socket_option(dead.as_raw_fd(), libc::SO_ACCEPTCONN).unwrap() == 0);
    }
}

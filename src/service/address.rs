//! Addresses as people write them, and the sockets bound to them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limits::{BACKLOG_EXPECTED, LISTEN_BACKLOG, LISTENER_NAME_BYTES_MAX, SOCKETS_MAX};
use crate::service::words::counted;
use crate::sys::env::LISTEN_FDS_START;
use crate::sys::fd::advice;
use crate::sys::listener;
use nix::sys::socket::{SockType, getsockopt, sockopt};

/// `NAME=ADDRESS[,OPTION]…`: a socket that a supervisor binds for a daemon.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ListenSpec {
    /// What the daemon finds it by (`LISTEN_FDNAMES`).
    pub name: String,
    /// Where.
    pub address: Address,
    /// For a daemon that accepts in blocking mode.
    pub blocking: bool,
    /// Connections that may wait; none: as many as the kernel allows.
    pub backlog: Option<u32>,
    /// The permissions of a Unix socket's path; none: what the umask leaves.
    pub mode: Option<u32>,
    /// How many sockets with `SO_REUSEPORT` (socket(7)) share the address. All have the same name, and each process gets them all.
    pub sockets: usize,
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Address {
    /// A TCP listener.
    Tcp(SocketAddr),
    /// A UDP socket.
    Udp(SocketAddr),
    /// A Unix stream listener.
    Unix(PathBuf),
}

/// A socket that is bound. Closed when dropped.
#[derive(Debug)]
pub struct Listener {
    /// What the daemon finds it by.
    pub name: String,
    /// The address that it got, also where port 0 was asked for: `127.0.0.1:4711`, `udp:127.0.0.1:53`, `unix:/path`.
    pub address: String,
    /// The socket.
    pub fd: OwnedFd,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl FromStr for ListenSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: String| Error::Invalid(format!("listener '{text}': {what}"));
        let (name, rest) =
            text.split_once('=').ok_or_else(|| bad("there is no name; write NAME=ADDRESS".to_owned()))?;
        check_name(name).map_err(bad)?;
        let mut parts = rest.split(',');
        let address = parts.next().unwrap_or_default().parse().map_err(bad)?;
        let mut spec = Self { name: name.to_owned(), address, blocking: false, backlog: None, mode: None, sockets: 1 };
        let mut seen = Vec::new();
        for option in parts {
            let key = option.split('=').next().unwrap_or_default();
            if seen.contains(&key) {
                return Err(bad(format!("option '{key}' is there twice; leave one of them out")));
            }
            spec.set(option).map_err(bad)?;
            seen.push(key);
        }
        Ok(spec)
    }
}

/// `LISTEN_FDNAMES` separates names by colons (sd_listen_fds(3)).
fn check_name(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("the name is empty; write NAME=ADDRESS".to_owned());
    }
    if name.contains(':') {
        return Err("a name must not contain ':', which separates names in LISTEN_FDNAMES".to_owned());
    }
    if name.len() > LISTENER_NAME_BYTES_MAX || name.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(format!("a name has at most {LISTENER_NAME_BYTES_MAX} characters, printable ASCII without spaces"));
    }
    Ok(())
}

impl ListenSpec {
    fn set(&mut self, option: &str) -> std::result::Result<(), String> {
        match option.split_once('=') {
            None if option == "blocking" => self.blocking = true,
            Some(("backlog", value)) => {
                if matches!(self.address, Address::Udp(_)) {
                    return Err("a UDP socket has no backlog; leave it out".to_owned());
                }
                let backlog = value.parse().ok().filter(|backlog| *backlog > 0);
                self.backlog = Some(backlog.ok_or_else(|| format!("backlog '{value}' is no number above 0"))?);
            }
            Some(("mode", value)) => {
                if !matches!(self.address, Address::Unix(_)) {
                    return Err("only a Unix socket has a mode; leave it out".to_owned());
                }
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
                self.mode = Some(mode.ok_or_else(|| format!("mode '{value}' is not octal like 0660"))?);
            }
            Some(("sockets", value)) => {
                if matches!(self.address, Address::Unix(_)) {
                    return Err("a path has one Unix socket; leave it out".to_owned());
                }
                let sockets = value.parse().ok().filter(|sockets| (1..=SOCKETS_MAX).contains(sockets));
                self.sockets =
                    sockets.ok_or_else(|| format!("sockets '{value}' is no number from 1 to {SOCKETS_MAX}"))?;
            }
            _ => {
                return Err(format!(
                    "unknown option '{option}'; there are blocking, backlog=N, mode=0660 and sockets=N"
                ));
            }
        }
        Ok(())
    }

    /// Binds all sockets of the address, one or more.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_all(&self) -> Result<Vec<Listener>> {
        let first = self.bind()?;
        // The kernel may have chosen the port.
        let address = first.address.parse().map_err(Error::Invalid)?;
        let same = Self { address, ..self.clone() };
        let more = (1..self.sockets).map(|_| same.bind());
        std::iter::once(Ok(first)).chain(more).collect()
    }

    /// Binds a socket (bind(2), listen(2)).
    ///
    /// An address that is in use names its owner, if that can be seen.
    pub fn bind(&self) -> Result<Listener> {
        let (backlog, group) = (self.backlog.unwrap_or(LISTEN_BACKLOG), self.sockets > 1);
        let bound = match &self.address {
            Address::Tcp(address) => listener::bind_tcp(*address, backlog, self.blocking, group),
            Address::Udp(address) => listener::bind_udp(*address, self.blocking, group),
            Address::Unix(path) => listener::bind_unix(path, backlog, self.mode, self.blocking),
        };
        let failed = |error| Error::System { what: format!("listener '{}'", self.name), source: error };
        let fd = bound.map_err(|error| failed(with_advice(self.with_owner(error))))?;
        let address = address_of(fd.as_fd()).map_err(failed)?;
        Ok(Listener { name: self.name.clone(), address, fd })
    }

    /// The address of the sockets that a daemon has under this name already, if it has any, and they are those that are wanted.
    pub(super) fn check_all_held(&self, held: &[BorrowedFd<'_>]) -> Result<Option<String>> {
        if !held.is_empty() && held.len() != self.sockets {
            return Err(Error::Invalid(format!(
                "the daemon that runs has {} of listener '{}', not {}: give it as many, or stop the daemon first",
                counted(held.len() as u64, "socket"),
                self.name,
                self.sockets
            )));
        }
        let mut address = None;
        for fd in held {
            address = Some(self.check_held(*fd)?);
        }
        Ok(address)
    }

    /// The address of a socket that a daemon has under this name already, if it is the one that is wanted.
    pub fn check_held(&self, fd: BorrowedFd<'_>) -> Result<String> {
        let held =
            address_of(fd).map_err(|source| Error::System { what: format!("listener '{}'", self.name), source })?;
        let wanted = self.address.to_string();
        let host = |address: &str| address.rsplit_once(':').map(|(host, _)| host.to_owned());
        if held == wanted || self.address.is_any() && host(&held) == host(&wanted) {
            return Ok(held);
        }
        Err(Error::Invalid(format!(
            "the daemon that runs has listener '{}' at {held}, not at {wanted}: give it that address, or stop the daemon first",
            self.name
        )))
    }
}

/// As [`Listener::address`] has it.
pub(super) fn address_of(fd: BorrowedFd<'_>) -> io::Result<String> {
    let address = listener::local_address(fd)?;
    let datagram = getsockopt(&fd, sockopt::SockType)? == SockType::Datagram;
    Ok(if datagram { format!("udp:{address}") } else { address })
}

impl ListenSpec {
    /// What to know if the kernel cuts the backlog to fewer connections than should find room in it.
    pub fn backlog_warning(&self) -> Option<String> {
        self.cut_to(listener::longest_backlog()?)
    }

    fn cut_to(&self, allowed: u32) -> Option<String> {
        let wanted = self.backlog.unwrap_or(BACKLOG_EXPECTED);
        let cut = allowed < wanted && !matches!(self.address, Address::Udp(_));
        cut.then(|| {
            format!(
                "listener '{}': {} may wait while nobody accepts, not {wanted}: net.core.somaxconn is {allowed}; \
                 more are refused or delayed (sysctl net.core.somaxconn={wanted})",
                self.name,
                counted(allowed.into(), "client")
            )
        })
    }

    /// Names who listens on a Unix socket; for TCP the binding itself did.
    fn with_owner(&self, error: io::Error) -> io::Error {
        match &self.address {
            Address::Unix(path) if error.kind() == io::ErrorKind::AddrInUse => match listener::who_listens_unix(path) {
                Some((pid, command)) => io::Error::new(error.kind(), format!("{error}: process {pid} ({command})")),
                None => error,
            },
            _ => error,
        }
    }
}

fn with_advice(error: io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "; stop that process, or choose another address",
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address (ip addr shows which it has)",
        io::ErrorKind::PermissionDenied => {
            "; a port below net.ipv4.ip_unprivileged_port_start needs CAP_NET_BIND_SERVICE, a path a writable directory"
        }
        io::ErrorKind::NotFound => "; create the directory first",
        io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput => "; a socket's path has 107 bytes at most",
        kind => advice(kind),
    };
    io::Error::new(error.kind(), format!("{error}{advice}"))
}

/// The first descriptor of a process that is none of these (sd_listen_fds(3)).
pub fn first_free(specs: &[ListenSpec]) -> RawFd {
    let sockets: usize = specs.iter().map(|spec| spec.sockets).sum();
    LISTEN_FDS_START.saturating_add(RawFd::try_from(sockets).unwrap_or(RawFd::MAX))
}

/// Whether these can be had together, without binding any.
pub fn check_all(specs: &[ListenSpec]) -> Result<()> {
    for (index, spec) in specs.iter().enumerate() {
        let before = &specs[..index];
        if before.iter().any(|other| other.name == spec.name) {
            let what = format!("two listeners have the name '{}'; each needs its own", spec.name);
            return Err(Error::Duplicate(what));
        }
        if let Some(other) = before.iter().find(|other| other.address == spec.address && !spec.address.is_any()) {
            let what = format!("listeners '{}' and '{}' have the same address {}", other.name, spec.name, spec.address);
            return Err(Error::Duplicate(what));
        }
    }
    Ok(())
}

impl Address {
    /// Whether the kernel chooses the port.
    pub(in crate::service) fn is_any(&self) -> bool {
        matches!(self, Self::Tcp(address) | Self::Udp(address) if address.port() == 0)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", path)) => unix_path(path).map(Self::Unix),
            Some(("udp", rest)) => inet(rest).map(Self::Udp),
            Some(("tcp", rest)) => inet(rest).map(Self::Tcp),
            _ => inet(text).map(Self::Tcp),
        }
    }
}

fn unix_path(path: &str) -> std::result::Result<PathBuf, String> {
    if path.starts_with('@') {
        return Err("abstract Unix sockets can not be protected by permissions; give a path".to_owned());
    }
    std::path::absolute(Path::new(path)).map_err(|_| "the path is empty; write unix:/path".to_owned())
}

fn inet(text: &str) -> std::result::Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().unwrap_or_default();
        let hint = match port.parse::<u16>() {
            Ok(port) => {
                format!("; a host is given by its IP address, like 127.0.0.1:{port}, 0.0.0.0:{port}, [::1]:{port}")
            }
            Err(_) => "; write 127.0.0.1:80, [::1]:80, udp:127.0.0.1:53 or unix:/path; port 0 lets the kernel choose"
                .to_owned(),
        };
        format!("'{text}' is no address{hint}")
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let spec: ListenSpec = "web=127.0.0.1:0,blocking,backlog=16".parse().unwrap();
        assert_eq!(spec.address, Address::Tcp("127.0.0.1:0".parse().unwrap()));
        assert_eq!((spec.blocking, spec.backlog, spec.mode), (true, Some(16), None));
        let spec: ListenSpec = "ctl=unix:/run/x,mode=0660".parse().unwrap();
        assert_eq!((spec.address.to_string().as_str(), spec.mode), ("unix:/run/x", Some(0o660)));
        let spec: ListenSpec = "dns=udp:[::1]:53".parse().unwrap();
        assert_eq!(spec.address, Address::Udp("[::1]:53".parse().unwrap()));
    }

    #[test]
    fn says_what_is_wrong_and_what_to_do() {
        for (text, hint) in [
            ("127.0.0.1:80", "write NAME=ADDRESS"),
            ("=127.0.0.1:80", "name is empty"),
            ("a:b=127.0.0.1:80", "must not contain ':'"),
            ("a b=127.0.0.1:80", "without spaces"),
            ("a=b=127.0.0.1:80", "is no address"),
            ("a=localhost:80", "127.0.0.1:80"),
            ("a=80", "0.0.0.0:80"),
            ("a=", "is no address"),
            ("a=127.0.0.1:http", "is no address"),
            ("a=127.0.0.1:99999", "is no address"),
            ("a=127.0.0.1:80,fast", "unknown option 'fast'"),
            ("a=127.0.0.1:80,backlog=0", "above 0"),
            ("a=127.0.0.1:80,mode=0660", "only a Unix socket"),
            ("a=unix:/x,mode=999", "octal"),
            ("a=udp:127.0.0.1:80,backlog=1", "UDP"),
            ("a=unix:", "path is empty"),
            ("a=unix:@x", "abstract"),
            ("a=unix:/x,sockets=2", "one Unix socket"),
            ("a=127.0.0.1:80,sockets=0", "from 1 to"),
            ("a=127.0.0.1:80,sockets=many", "from 1 to"),
        ] {
            let error = text.parse::<ListenSpec>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn says_when_the_kernel_cuts_the_backlog() {
        let warning = |text: &str, allowed| text.parse::<ListenSpec>().unwrap().cut_to(allowed);
        let text = warning("a=127.0.0.1:0", 128).unwrap();
        assert!(text.contains("'a': 128 ") && text.contains("not 4096"), "{text}");
        assert_eq!(warning("a=127.0.0.1:0", 4096), None);
        assert_eq!(warning("a=unix:/x,backlog=16", 128), None);
        assert!(warning("a=unix:/x,backlog=129", 128).is_some());
        assert_eq!(warning("a=udp:127.0.0.1:0", 1), None);
    }

    #[test]
    fn binds_all_or_says_who_is_in_the_way() {
        let first: ListenSpec = "a=127.0.0.1:0".parse().unwrap();
        let bound = first.bind().unwrap();
        assert!(!bound.address.ends_with(":0"));
        let error = check_all(&[first.clone(), first.clone()]).unwrap_err();
        assert!(matches!(error, Error::Duplicate(_)), "{error}");
        let taken: ListenSpec = format!("b={}", bound.address).parse().unwrap();
        let error = taken.bind().unwrap_err();
        assert!(error.to_string().contains("choose another address"), "{error}");
    }

    #[test]
    fn a_group_shares_its_address_and_nobody_else_has_it() {
        for text in ["a=127.0.0.1:0,sockets=3", "a=udp:127.0.0.1:0,sockets=3"] {
            let group = text.parse::<ListenSpec>().unwrap().bind_all().unwrap();
            assert_eq!(group.len(), 3);
            assert!(group.iter().all(|one| one.address == group[0].address), "{group:?}");
            let alone: ListenSpec = format!("b={}", group[0].address).parse().unwrap();
            assert!(alone.bind_all().is_err(), "one without the option");
        }
    }

    #[test]
    fn what_a_daemon_has_is_compared() {
        let spec = |text: &str| text.parse::<ListenSpec>().unwrap();
        let tcp = spec("a=127.0.0.1:0").bind().unwrap();
        let port = tcp.address.rsplit_once(':').unwrap().1;
        for fits in ["a=127.0.0.1:0", &format!("a={}", tcp.address)] {
            assert_eq!(spec(fits).check_held(tcp.as_fd()).unwrap(), tcp.address);
        }
        for other in ["a=127.0.0.1:1", "a=127.0.0.2:0", &format!("a=udp:127.0.0.1:{port}"), "a=unix:/x"] {
            let error = spec(other).check_held(tcp.as_fd()).unwrap_err().to_string();
            assert!(error.contains(&tcp.address) && error.contains("stop the daemon"), "{error}");
        }
        let udp = spec("a=udp:127.0.0.1:0").bind().unwrap();
        assert_eq!(spec("a=udp:127.0.0.1:0").check_held(udp.as_fd()).unwrap(), udp.address);
        assert!(spec("a=127.0.0.1:0").check_held(udp.as_fd()).is_err());
    }
}

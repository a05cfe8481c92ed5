//! The sockets that S holds for its daemons.

use crate::error::{Error, Result};
use crate::limits::{LISTEN_BACKLOG, LISTENER_NAME_BYTES_MAX, LISTENERS_MAX};
use crate::sys::fd::set_cloexec;
use crate::sys::listener::listen_again;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::fstat;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Listener {
    name: String,
    #[serde(with = "crate::sys::inherit::fd")]
    fd: OwnedFd,
    /// What tells it from all other sockets, for as long as it is open here.
    inode: u64,
    /// It listened when it came: a datagram socket can not.
    listens: bool,
}

/// In the order in which the daemons get them.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Listeners(Vec<Listener>);

impl Listeners {
    /// Whether there may be one more, of this name.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        if name.is_empty() || name.chars().any(|c| c == ':' || c.is_control()) {
            return Err(Error::Invalid(format!(
                "{name:?} can not be the name of a listener: it is empty, or has ':' in it"
            )));
        }
        if name.len() > LISTENER_NAME_BYTES_MAX {
            return Err(Error::TooBig(format!("a listener's name has at most {LISTENER_NAME_BYTES_MAX} bytes")));
        }
        if self.0.iter().any(|listener| listener.name == name) {
            return Err(Error::Duplicate(format!("there is a listener {name} already")));
        }
        if self.0.len() >= LISTENERS_MAX {
            return Err(Error::Limit(format!("more than {LISTENERS_MAX} listeners")));
        }
        Ok(())
    }

    pub(super) fn add(&mut self, name: &str, fd: OwnedFd) -> Result<()> {
        self.check(name)?;
        self.push(name, fd)
    }

    /// Sockets that share name and address (`SO_REUSEPORT`): each process gets them all.
    pub(super) fn add_group(&mut self, name: &str, fds: Vec<OwnedFd>) -> Result<()> {
        self.check(name)?;
        if self.0.len() + fds.len() > LISTENERS_MAX {
            return Err(Error::Limit(format!("more than {LISTENERS_MAX} listeners")));
        }
        fds.into_iter().try_for_each(|fd| self.push(name, fd))
    }

    /// Each group under its name; those of one come one after the other.
    pub(super) fn add_groups(&mut self, listeners: Vec<(String, OwnedFd)>) -> Result<()> {
        let mut groups: Vec<(String, Vec<OwnedFd>)> = Vec::new();
        for (name, fd) in listeners {
            match groups.last_mut().filter(|(of, _)| *of == name) {
                Some((_, group)) => group.push(fd),
                None => groups.push((name, vec![fd])),
            }
        }
        groups.into_iter().try_for_each(|(name, fds)| self.add_group(&name, fds))
    }

    fn push(&mut self, name: &str, fd: OwnedFd) -> Result<()> {
        let listens = getsockopt(&fd, sockopt::AcceptConn)
            .map_err(|errno| Error::Invalid(format!("listener {name} is not a socket: {errno}")))?;
        let inode = fstat(&fd).map_err(|errno| Error::system(format!("listener {name}"))(errno.into()))?.st_ino;
        set_cloexec(&fd).map_err(Error::system(format!("listener {name}")))?;
        self.0.push(Listener { name: name.to_owned(), fd, inode, listens });
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|listener| listener.name != name);
    }

    /// Undoes what a daemon may have done to them all, by `listen(fd, 0)` or `shutdown`.
    pub(super) fn repair(&self) {
        for listener in self.0.iter().filter(|listener| listener.listens) {
            let _ = listen_again(listener.fd.as_fd(), LISTEN_BACKLOG);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What tells them from all other sockets, and their names.
    pub(super) fn inodes(&self) -> Vec<(u64, String)> {
        self.0.iter().map(|listener| (listener.inode, listener.name.clone())).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.0.iter().map(|listener| (listener.name.as_str(), listener.fd.as_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn names_are_checked() {
        let mut listeners = Listeners::default();
        let socket = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        for bad in ["", "a:b", "a\nb", ":"] {
            assert!(matches!(listeners.add(bad, socket()), Err(Error::Invalid(_))), "{bad:?}");
        }
        listeners.add("a", socket()).unwrap();
        assert!(matches!(listeners.add("a", socket()), Err(Error::Duplicate(_))));
        let longest = "l".repeat(LISTENER_NAME_BYTES_MAX);
        assert!(matches!(listeners.add(&format!("{longest}l"), socket()), Err(Error::TooBig(_))));
        listeners.add("b.socket", socket()).unwrap();
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(listeners.add("c", file.into()), Err(Error::Invalid(_))));
        assert!(listeners.iter().map(|(name, _)| name).eq(["a", "b.socket"]));
    }

    #[test]
    fn a_listener_that_was_shut_down_listens_again() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        // Its port is known here only, so it keeps it.
        let mut listeners = Listeners::default();
        let daemon = tcp.try_clone().unwrap();
        listeners.add("tcp", tcp.into()).unwrap();
        listeners.add("udp", UdpSocket::bind("127.0.0.1:0").unwrap().into()).unwrap();
        listen_again(daemon.as_fd(), 0).unwrap();
        listeners.repair();
        let connected: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(connected.len(), 10);
    }
}

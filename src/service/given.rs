//! Sockets that this process was started with (sd_listen_fds(3)): by socket activation, or since it has left them with its manager
//! (`FDSTORE=1`, sd_notify(3)) before it was started again.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::address::{Address, ListenSpec, Listener, address_of};
use crate::sys::fd::set_nonblocking;

/// Those that no service has taken yet, with their names. They are the process's, as its descriptors are.
static GIVEN: Mutex<Vec<(String, OwnedFd)>> = Mutex::new(Vec::new());

fn given() -> MutexGuard<'static, Vec<(String, OwnedFd)>> {
    GIVEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name under which a listener is left with our manager.
pub fn name_of(service: &str, listener: &str) -> String {
    format!("{service}.{listener}")
}

/// Keeps these until a service wants them.
pub(super) fn keep(sockets: Vec<(String, OwnedFd)>) {
    given().extend(sockets);
}

/// Closes what no service has taken; the names.
pub fn close_unused() -> Vec<String> {
    std::mem::take(&mut *given()).into_iter().map(|(name, _)| name).collect()
}

/// The sockets of this listener, all of them or none, with `O_NONBLOCK` as it wants it.
pub(super) fn take(service: &str, wanted: &ListenSpec) -> Option<Vec<Listener>> {
    let fds = take_of(&mut given(), service, wanted);
    let listener = |fd: OwnedFd| {
        set_nonblocking(&fd, !wanted.blocking).ok()?;
        Some(Listener { name: wanted.name.clone(), address: address_of(fd.as_fd()).ok()?, fd })
    };
    let found: Vec<Listener> = fds.into_iter().filter_map(listener).collect();
    (found.len() == wanted.sockets).then_some(found)
}

/// Those that were left under its name and have its address; else those that have its address, under whatever name. Of a group of which
/// only a part is here, that part is not kept, so that the address is free.
fn take_of(given: &mut Vec<(String, OwnedFd)>, service: &str, wanted: &ListenSpec) -> Vec<OwnedFd> {
    let own = name_of(service, &wanted.name);
    let by_name = take_if(given, |name, fd| *name == own && is_it(wanted, fd));
    match by_name.is_empty() && !wanted.address.is_any() {
        true => take_if(given, |_, fd| is_it(wanted, fd)),
        false => by_name,
    }
}

fn take_if(given: &mut Vec<(String, OwnedFd)>, is_wanted: impl Fn(&String, &OwnedFd) -> bool) -> Vec<OwnedFd> {
    given.extract_if(.., |(name, fd)| is_wanted(name, fd)).map(|(_, fd)| fd).collect()
}

/// Whether it is bound there. Nobody could reach one whose path is gone.
fn is_it(wanted: &ListenSpec, fd: &OwnedFd) -> bool {
    let reachable = match &wanted.address {
        Address::Unix(path) => path.exists(),
        Address::Tcp(_) | Address::Udp(_) => true,
    };
    reachable && wanted.check_held(fd.as_fd()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> ListenSpec {
        text.parse().unwrap()
    }

    fn bound(text: &str) -> (String, OwnedFd) {
        let listener = spec(text).bind().unwrap();
        (listener.address.clone(), listener.fd)
    }

    #[test]
    fn by_name_and_address() {
        let ((one, one_fd), (two, two_fd)) = (bound("a=127.0.0.1:0"), bound("a=127.0.0.1:0"));
        let mut given = vec![("kv.a".to_owned(), one_fd), ("other".to_owned(), two_fd)];
        let mut take = |service, text: &str| take_of(&mut given, service, &spec(text)).len();
        assert_eq!(take("web", "a=127.0.0.1:0"), 0, "any port is no address: only the name counts");
        assert_eq!(take("kv", "a=127.0.0.1:1"), 0, "another address");
        assert_eq!(take("kv", "a=127.0.0.1:0"), 1);
        assert_eq!(take("kv", &format!("a={one}")), 0, "it is taken");
        assert_eq!(take("kv", &format!("b={two}")), 1, "by its address");
    }

    #[test]
    fn a_part_of_a_group_is_closed() {
        let group = spec("a=127.0.0.1:0,sockets=2").bind_all().unwrap();
        let address = group[0].address.clone();
        keep(group.into_iter().map(|listener| ("group.a".to_owned(), listener.fd)).collect());
        assert!(take("group", &spec(&format!("a={address},sockets=3"))).is_none());
        assert_eq!(spec(&format!("a={address}")).bind_all().unwrap().len(), 1, "the address is free");
    }

    #[test]
    fn a_socket_whose_path_is_gone_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("a=unix:{}", dir.path().join("s").display());
        let (_, fd) = bound(&text);
        let mut given = vec![("kv.a".to_owned(), fd)];
        std::fs::remove_file(dir.path().join("s")).unwrap();
        assert!(take_of(&mut given, "kv", &spec(&text)).is_empty());
        assert_eq!(given.len(), 1);
    }
}

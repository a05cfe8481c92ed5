//! A listener that has no room for one more connection: the kernel neither makes it nor refuses it.

use crate::daemon::{Daemon, up};
use crate::harness::Place;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, listen, socket};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::spawn;
use std::time::Duration;

/// Connections until there is no room.
fn fill(listener: &TcpListener) -> Vec<TcpStream> {
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200));
    std::iter::from_fn(|| connect().ok()).collect()
}

fn fill_unix(path: &Path) -> Vec<OwnedFd> {
    let connection = || {
        let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
        match connect(made.as_raw_fd(), &UnixAddr::new(path).unwrap()) {
            Ok(()) => Some(made),
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                None
            }
        }
    };
    std::iter::from_fn(connection).collect()
}

/// Nor does one that may take an hour keep the supervisor from the others.
#[test]
fn one_that_has_no_room_is_a_bad_answer_in_time() {
    let place = Place::new();
    let path = place.path("full.sock");
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
    listen(&tcp, Backlog::new(0).unwrap()).unwrap();
    listen(&unix, Backlog::new(0).unwrap()).unwrap();
    let waiting = (fill(&tcp), fill_unix(&path));
    let (tcp_url, unix_url) = (format!("tcp://{}", tcp.local_addr().unwrap()), format!("unix:{}", path.display()));
    let rows =
        [("patient", &tcp_url, "1h", "1h"), ("tcp", &tcp_url, "300ms", "10s"), ("unix", &unix_url, "300ms", "10s")];
    let daemons = rows.map(|(name, ..)| Daemon::new(&place, name));
    let units: Vec<String> = rows
        .iter()
        .zip(&daemons)
        .map(|((_, url, timeout, start), daemon)| {
            let health = format!("health = {{ url = \"{url}\", interval = \"100ms\", timeout = \"{timeout}\" }}");
            let start = format!("start_timeout = \"{start}\"");
            daemon.unit(&[], &["ready = \"notify\"", "restart = \"never\"", &start, &health])
        })
        .collect();
    let up = up(&place, &units);
    for (name, why) in [("tcp", "nobody accepted in 0.3 s"), ("unix", "Resource temporarily unavailable")] {
        let service = up.wait_for_health(name, "unhealthy");
        let cause = service["health"]["cause"].as_str().unwrap();
        assert!(cause.contains(why), "{name}: {cause}");
    }
    up.wait_for_health("patient", "unknown");
    // There is room again, and somebody who accepts and hangs up.
    drop(waiting);
    spawn(move || while tcp.accept().is_ok() {});
    spawn(move || while unix.accept().is_ok() {});
    for name in ["tcp", "unix"] {
        let service = up.wait_for_health(name, "healthy");
        assert_eq!((&service["state"], &service["restarts"]), (&"running".into(), &0.into()), "{service}");
    }
}

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use nix::fcntl::{FcntlArg, fcntl};

use super::*;
use crate::sys::fd::is_nonblocking;
use crate::sys::testing::read_all;

const PID: i32 = 4711;

fn parsed(vars: &[(&str, &str)]) -> Result<Plan, EnvError> {
    let find = |name: &str| vars.iter().find(|var| var.0 == name).map(|var| var.1.into());
    parse(&find, PID)
}

fn plan(vars: &[(&str, &str)]) -> Plan {
    parsed(vars).unwrap()
}

fn error(vars: &[(&str, &str)]) -> EnvError {
    let error = parsed(vars).unwrap_err();
    assert!(!error.to_string().is_empty());
    error
}

#[test]
fn nothing_is_nothing() {
    assert_eq!(plan(&[]), Plan::default());
    let empty = ALL.map(|name| (name, ""));
    assert_eq!(plan(&empty), Plan::default());
}

#[test]
fn a_successors_environment() {
    let plan = plan(&[
        ("LISTEN_FDS", "2"),
        ("LISTEN_FDNAMES", "web:admin"),
        ("LISTEN_PID", "4711"),
        ("HANDOFF_CONTROL", "/run/x/control"),
        ("HANDOFF_DATA_DIR", "/var/lib/x"),
        ("HANDOFF_SOCK_FD", "5"),
        ("HANDOFF_ROLE", "successor"),
    ]);
    assert_eq!(plan.listeners, ["web", "admin"]);
    assert_eq!(plan.session, Some(5));
    assert_eq!(plan.control, Some("/run/x/control".into()));
    assert_eq!(plan.data_dir, Some("/var/lib/x".into()));
    assert!(plan.role_is_successor);
}

#[test]
fn systemds_environment() {
    let named = [("LISTEN_FDS", "1"), ("LISTEN_PID", "4711"), ("LISTEN_FDNAMES", "x.socket")];
    assert_eq!(plan(&named).listeners, ["x.socket"]);
    assert_eq!(plan(&named[..2]).listeners, ["unknown"]);
    // For another process, or for nobody: not for us.
    assert_eq!(plan(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "4712")]), Plan::default());
    assert_eq!(plan(&[("LISTEN_FDS", "1")]), Plan::default());
    // Names without descriptors mean nothing.
    assert_eq!(plan(&[("LISTEN_FDNAMES", "a:b")]), Plan::default());
    let none = [("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "a"), ("LISTEN_PID", "4711")];
    assert_eq!(plan(&none), Plan::default());
}

#[test]
fn a_forking_wrapper_is_named() {
    let expected = EnvError::ForkingWrapper { listen_pid: 4700, our_pid: PID };
    let foreign = ("LISTEN_PID", "4700");
    assert_eq!(error(&[foreign, ("HANDOFF_ROLE", "successor")]), expected);
    assert_eq!(error(&[foreign, ("LISTEN_FDS", "1"), ("HANDOFF_SOCK_FD", "4")]), expected);
    assert!(expected.to_string().contains("4700") && expected.to_string().contains("4711"));
    let missing = [("LISTEN_FDS", "1"), ("HANDOFF_SOCK_FD", "4")];
    assert_eq!(error(&missing), EnvError::NoListenPid);
    // Without listeners a session needs no LISTEN_PID.
    assert_eq!(plan(&[("HANDOFF_SOCK_FD", "4")]).session, Some(4));
}

#[test]
fn bad_values_are_named() {
    let ours = ("LISTEN_PID", "4711");
    for bad in ["x", "-1", "+1", " 1", "1 ", "1.0", "0x10"] {
        for name in ["LISTEN_FDS", "LISTEN_PID", "HANDOFF_SOCK_FD"] {
            let value = bad.into();
            assert_eq!(error(&[(name, bad)]), EnvError::NotANumber { name, value });
        }
    }
    for huge in ["2147483648", "99999999999999999999999"] {
        for name in ["LISTEN_FDS", "LISTEN_PID", "HANDOFF_SOCK_FD"] {
            assert!(matches!(error(&[(name, huge)]), EnvError::OutOfRange { .. }));
        }
    }
    for stdio in ["0", "1", "2"] {
        assert!(matches!(error(&[("HANDOFF_SOCK_FD", stdio)]), EnvError::OutOfRange { .. }));
    }
    let count = [ours, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b:c")];
    assert!(matches!(error(&count), EnvError::NameCount { names: 3, fds: 2, .. }));
    let inside = [ours, ("LISTEN_FDS", "2"), ("HANDOFF_SOCK_FD", "4")];
    assert_eq!(error(&inside), EnvError::Overlap { fd: 4 });
    let role = error(&[("HANDOFF_ROLE", "boss")]);
    assert_eq!(role, EnvError::UnknownRole { value: "boss".into() });
}

#[test]
fn two_billion_listeners_are_refused_at_once() {
    for count in ["1073741823", "1000000000", "2147483645"] {
        let vars = [("LISTEN_FDS", count), ("LISTEN_PID", "4711")];
        assert!(matches!(error(&vars), EnvError::OutOfRange { .. }));
    }
}

/// A number that is open nowhere in this process while `f` runs would be a race with other
/// tests; so what is checked here are descriptors that this test owns.
#[test]
fn listeners_are_checked() {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(check_listener(listening.as_raw_fd()), Ok(()));
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(check_listener(datagram.as_raw_fd()), Ok(()));
    let connected = TcpStream::connect(listening.local_addr().unwrap()).unwrap();
    let fd = connected.as_raw_fd();
    assert_eq!(check_listener(fd), Err(EnvError::NotListening { fd }));
    let file = std::fs::File::open("/dev/null").unwrap();
    let fd = file.as_raw_fd();
    assert_eq!(check_listener(fd), Err(EnvError::NotASocket { name: LISTEN_FDS, fd }));
    let fd = FD_MAX;
    assert_eq!(check_listener(fd), Err(EnvError::NotOpen { name: LISTEN_FDS, fd }));
    assert_eq!(check_session(fd), Err(EnvError::NotOpen { name: SOCK_FD, fd }));
    let fd = listening.as_raw_fd();
    assert!(matches!(check_session(fd), Err(EnvError::NotASession { .. })));
    let (session, _peer) = Seqpacket::pair().unwrap();
    let session = OwnedFd::from(session);
    assert_eq!(check_session(session.as_raw_fd()), Ok(()));
}

/// The whole way needs a process of its own, whose environment and descriptors are really those
/// of a spawned daemon: this test starts itself.
#[test]
fn a_spawned_process_takes_all_and_leaves_nothing() {
    const INNER: &str = "HANDOFF_TEST_INNER";
    if env::var_os(INNER).is_some() {
        return inner();
    }
    let tcp = super::super::listener::bind_tcp("127.0.0.1:0".parse().unwrap(), 16, false, false).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (ours, theirs) = Seqpacket::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let program = env::current_exe().unwrap();
    let name = concat!(module_path!(), "::a_spawned_process_takes_all_and_leaves_nothing");
    let name = name.split_once("::").unwrap().1;
    let argv = ["test", "--exact", "--nocapture", name].map(OsString::from);
    let vars = [
        (INNER, "1"),
        ("LISTEN_FDS", "2"),
        ("LISTEN_FDNAMES", "web:dns"),
        ("HANDOFF_SOCK_FD", "5"),
        ("HANDOFF_ROLE", "successor"),
        ("HANDOFF_CONTROL", "/run/control"),
    ];
    let vars = vars.map(|(name, value)| (name.into(), value.into()));
    use std::os::fd::AsFd;
    let child = crate::sys::spawn::spawn(&crate::sys::spawn::Spawn {
        env: &vars,
        fds: &[tcp.as_fd(), udp.as_fd(), theirs.as_fd()],
        stdout: Some(write.as_fd()),
        stderr: Some(write.as_fd()),
        listen_pid: true,
        ..crate::sys::spawn::Spawn::new(&program, &argv)
    });
    let child = child.unwrap();
    drop((write, theirs));
    let output = read_all(&read);
    let status = child.pidfd.wait_for_end().unwrap().unwrap();
    assert_eq!(status.code, Some(0), "{output}");
    let mut buf = [0; 16];
    let super::super::seqpacket::Received::Packet(packet) = ours.receive(&mut buf).unwrap() else {
        panic!("nothing came: {output}");
    };
    assert_eq!(&buf[..packet.len], b"taken");
    assert_eq!(packet.sender.unwrap().pid, child.pid);
}

fn inner() {
    let inherited = take().unwrap();
    for name in ALL {
        assert_eq!(env::var_os(name), None, "{name}");
    }
    let names: Vec<_> = inherited.listeners.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["web", "dns"]);
    assert!(inherited.role_is_successor);
    assert_eq!(inherited.control, Some("/run/control".into()));
    assert_eq!(inherited.data_dir, None);
    assert!(is_nonblocking(&inherited.listeners[0].1).unwrap());
    assert!(!is_nonblocking(&inherited.listeners[1].1).unwrap());
    for (_, fd) in &inherited.listeners {
        assert_eq!(fcntl(fd, FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);
    }
    let session = Seqpacket::from_fd(inherited.session.unwrap()).unwrap();
    session.send(b"taken", &[]).unwrap();

    let again = take().unwrap();
    assert!(again.listeners.is_empty() && again.session.is_none() && !again.role_is_successor);

    // An error consumes, too.
    for (name, value) in [("LISTEN_FDS", "x"), ("HANDOFF_CONTROL", "/run/control")] {
        // SAFETY: this process runs this test alone.
        unsafe { env::set_var(name, value) };
    }
    assert!(matches!(take(), Err(EnvError::NotANumber { .. })));
    assert_eq!(take().unwrap().control, None);
}

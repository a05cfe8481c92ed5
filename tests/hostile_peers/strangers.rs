//! Processes of another user at the two sockets.

use crate::support::{Service, programs, wait_for_death, wait_until};
use handoff::channel::{Channel, Incoming};
use handoff::protocol::Message;
use handoff::protocol::message::{Reject, RejectCode};
use handoff::sys::seqpacket::Seqpacket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

const NOBODY: libc::c_long = 65534;

/// This needs root; without, it is said aloud, and an error where everything must be tested.
fn can_be_another() -> bool {
    if !geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "not root, and CI=true");
        eprintln!("SKIPPED: only root can become another user");
    }
    geteuid().is_root()
}

/// Runs this as another user: in a thread, since the kernel has a user for each.
fn as_nobody<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    let run = || {
        // SAFETY: the system call takes three numbers; without the library's wrapper it changes this thread only.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(changed, 0);
        f()
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a daemon answers on its control path.
fn refusal(socket: Seqpacket) -> Reject {
    let mut channel = Channel::new(socket);
    loop {
        match channel.receive().unwrap() {
            Incoming::Message(Message::Reject(reject), ..) => return reject,
            Incoming::Nothing => drop(poll(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn another_user_commands_nobody() {
    if !can_be_another() {
        return;
    }
    let service = Service::start_faulty("logs");
    let incumbent = service.daemon_pid();
    let (control, socket) = (service.path("run/kv.control"), service.path("run/kv.sock"));
    as_nobody(|| {
        assert_eq!(UnixStream::connect(&socket).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(Seqpacket::connect(&control).unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
    // Somebody has opened the directory, and then the sockets.
    for dir in [service.path(""), service.path("run")] {
        set_mode(&dir, 0o755);
    }
    as_nobody(|| {
        assert_eq!(UnixStream::connect(&socket).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(Seqpacket::connect(&control).unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
    set_mode(&socket, 0o666);
    set_mode(&control, 0o666);
    let reject = as_nobody(|| refusal(Seqpacket::connect(&control).unwrap()));
    assert_eq!((reject.code, reject.text.as_str()), (RejectCode::Uid, "user 65534 may not control this daemon"));
    let answer = as_nobody(|| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(b"{\"jsonrpc\":\"2.0\",\"handoff\":1,\"id\":1,\"method\":\"stop\"}\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    assert!(answer.contains("only the same user and root"), "{answer:?}");
    for line in ["another user connected to the control path", "another user connected to the control socket"] {
        wait_until(line, || {
            let log = service.stderr();
            log.lines().any(|found| found.contains(line) && found.contains("uid=65534")).then_some(())
        });
    }
    assert_eq!(service.wait_until_served(), incumbent);
    let next = service.upgrade(&programs().kv_b, &[]);
    assert_eq!(next.result, "committed", "{next:?}");
    wait_for_death(incumbent);
}

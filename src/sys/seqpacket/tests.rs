use std::fs::File;
use std::os::unix::net::UnixDatagram;

use nix::poll::PollFlags;
use nix::sys::socket::{Backlog, bind, listen};

use super::*;
use crate::sys::testing::{Forked, wait_for};

fn packet(socket: &Seqpacket, buf: &mut [u8]) -> Packet {
    wait_for(socket.as_fd(), PollFlags::POLLIN);
    match socket.receive(buf).unwrap() {
        Received::Packet(packet) => packet,
        other => panic!("{other:?}"),
    }
}

fn is_end(socket: &Seqpacket) -> bool {
    wait_for(socket.as_fd(), PollFlags::POLLIN);
    matches!(socket.receive(&mut [0; 8]).unwrap(), Received::End)
}

fn send_empty(socket: impl AsFd) {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: no bytes are read from the null pointer.
    assert_eq!(unsafe { libc::send(fd, std::ptr::null(), 0, 0) }, 0);
}

#[test]
fn messages_keep_their_boundaries() {
    let (a, b) = Seqpacket::pair().unwrap();
    let mut buf = [0; 64];
    assert!(matches!(b.receive(&mut buf).unwrap(), Received::Nothing));
    a.send(b"one", &[]).unwrap();
    a.send(b"three", &[]).unwrap();
    assert_eq!(packet(&b, &mut buf).len, 3);
    assert_eq!(packet(&b, &mut buf).len, 5);
    assert_eq!(&buf[..5], b"three");
    assert!(matches!(b.receive(&mut buf).unwrap(), Received::Nothing));
}

#[test]
fn the_kernel_names_the_real_sender() {
    let (a, b) = Seqpacket::pair().unwrap();
    let child = Forked::that_runs(|| a.send(b"x", &[]).is_err() as u8);
    let sender = packet(&b, &mut [0; 8]).sender.unwrap();
    assert_eq!(sender.pid, child.pid());
    assert_eq!(sender.uid, nix::unistd::geteuid().as_raw());
    // SO_PEERCRED of a pair names its maker, although the child sent.
    assert_eq!(b.peer_credentials().unwrap().pid, std::process::id() as i32);
    assert_eq!(child.exit_code(), 0);
}

#[test]
fn the_most_descriptors_travel_and_are_cloexec() {
    let (a, b) = Seqpacket::pair().unwrap();
    let (read, write) = nix::unistd::pipe().unwrap();
    let fds = vec![write.as_fd(); DESCRIPTORS_MAX];
    a.send(b"x", &fds).unwrap();
    let got = packet(&b, &mut [0; 8]).fds;
    assert_eq!(got.len(), DESCRIPTORS_MAX);
    for fd in &got {
        let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
    }
    drop(write);
    nix::unistd::write(&got[DESCRIPTORS_MAX - 1], b"y").unwrap();
    drop(got);
    let mut byte = [0; 2];
    assert_eq!(nix::unistd::read(&read, &mut byte).unwrap(), 1);
    wait_for(read.as_fd(), PollFlags::POLLHUP);
    assert_eq!(nix::unistd::read(&read, &mut byte).unwrap(), 0, "no copy is left");

    let many = vec![read.as_fd(); DESCRIPTORS_MAX + 1];
    let error = a.send(b"x", &many).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn an_empty_message_is_an_error_and_not_the_end() {
    let (a, b) = Seqpacket::pair().unwrap();
    assert_eq!(a.send(b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    send_empty(&a);
    a.send(b"x", &[]).unwrap();
    let error = b.receive(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(packet(&b, &mut [0; 8]).len, 1);
    // The last word of a peer that is gone may be empty, too.
    send_empty(&a);
    drop(a);
    assert!(b.receive(&mut [0; 8]).is_err());
    assert!(is_end(&b));
    assert!(is_end(&b));
}

#[test]
fn an_empty_message_from_before_passcred_is_no_end_either() {
    let fds = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (a, b) = fds.unwrap();
    nix::unistd::write(&a, b"x").unwrap();
    send_empty(&a);
    let b = Seqpacket::from_fd(b).unwrap();
    assert_eq!(packet(&b, &mut [0; 8]).sender, None);
    assert_eq!(b.receive(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn too_large_a_message_is_an_error_and_its_descriptors_are_closed() {
    let (a, b) = Seqpacket::pair().unwrap();
    let (read, write) = nix::unistd::pipe().unwrap();
    a.send(b"0123456789", &[write.as_fd()]).unwrap();
    drop(write);
    let error = b.receive(&mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    wait_for(read.as_fd(), PollFlags::POLLHUP);
    assert!(matches!(b.receive(&mut [0; 4]).unwrap(), Received::Nothing));
}

#[test]
fn lost_descriptors_are_an_error() {
    let (a, b) = Seqpacket::pair().unwrap();
    a.send(b"x", &[a.as_fd(); 3]).unwrap();
    // In a child, because the limit is one of the whole process. (An error allocates: glibc
    // allows that after a fork.)
    let child = Forked::that_runs(|| {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: setrlimit(2) reads one rlimit.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) };
        let received = b.receive(&mut [0; 8]);
        received.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) as u8
    });
    assert_eq!(child.exit_code(), 1);
}

#[test]
fn the_queue_of_a_dead_peer_is_read_to_its_end() {
    let (a, b) = Seqpacket::pair().unwrap();
    b.send(b"never read", &[]).unwrap();
    a.send(b"one", &[]).unwrap();
    a.send(b"three", &[]).unwrap();
    drop(a);
    // Until the close has come through (POLLHUP), ECONNRESET is not pending yet.
    wait_for(b.as_fd(), PollFlags::empty());
    let mut buf = [0; 8];
    assert_eq!(packet(&b, &mut buf).len, 3);
    assert_eq!(packet(&b, &mut buf).len, 5);
    assert!(is_end(&b));
    let error = b.send(b"x", &[]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_full_queue_would_block() {
    let (a, b) = Seqpacket::pair().unwrap();
    let error = loop {
        if let Err(error) = a.send(&[7; 4096], &[]) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(packet(&b, &mut [0; 4096]).len, 4096);
}

#[test]
fn other_descriptors_are_refused() {
    let refused = |fd: OwnedFd| {
        let error = Seqpacket::from_fd(fd).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        error.to_string()
    };
    assert!(refused(File::open("/dev/null").unwrap().into()).contains("not a socket"));
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(refused(tcp.into()).contains("not a Unix socket"));
    let datagram = UnixDatagram::unbound().unwrap();
    assert!(refused(datagram.into()).contains("SOCK_SEQPACKET"));
    let flags = SockFlag::SOCK_CLOEXEC;
    let lonely = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    assert!(refused(lonely).contains("without a peer"));
}

#[test]
fn connect_says_when_the_backlog_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    assert_eq!(Seqpacket::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    let error = Seqpacket::connect(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    listen(&fd, Backlog::new(1).unwrap()).unwrap();
    let mut connected = Vec::new();
    let error = loop {
        match Seqpacket::connect(&path) {
            Ok(socket) => connected.push(socket),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(!connected.is_empty());
    assert_eq!(connected[0].peer_credentials().unwrap().pid, std::process::id() as i32);
}

#[test]
fn what_the_peer_has_not_read_is_counted() {
    let (a, b) = Seqpacket::pair().unwrap();
    assert_eq!(a.unread_bytes().unwrap(), 0);
    a.send(&[7; 1000], &[]).unwrap();
    assert!(a.unread_bytes().unwrap() >= 1000);
    assert_eq!(b.unread_bytes().unwrap(), 0);
    packet(&b, &mut [0; 1000]);
    assert_eq!(a.unread_bytes().unwrap(), 0);
}

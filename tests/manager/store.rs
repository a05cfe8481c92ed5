//! Listeners that are left with the manager, and given back.

use crate::daemons::{refs, web};
use crate::fake::Fake;
use crate::harness::{PATIENCE, Place, ask, signal, wait_until};
use handoff::sys::spawn::{Spawn, spawn};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// What was left under this name.
fn stored(fake: &mut Fake, name: &str) -> OwnedFd {
    let at = fake.wait_for_field("FDNAME", name, 0);
    let message = &mut fake.messages[at];
    assert_eq!((message.get("FDSTORE"), message.get("FDPOLL")), (Some("1"), Some("0")));
    assert_eq!(message.fds.len(), 1);
    message.fds.remove(0)
}

fn addresses(fd: &OwnedFd) -> SocketAddr {
    TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap()
}

/// Starts a command as systemd does: with these descriptors, and with `LISTEN_PID`.
fn start_with(command: &Command, sockets: &[(&str, OwnedFd)], stderr: &Path) -> handoff::sys::spawn::Child {
    let argv: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect();
    let own = |name: &OsString| name.to_str().is_none_or(|name| !name.starts_with("LISTEN_"));
    let mut env: Vec<(OsString, OsString)> = std::env::vars_os().filter(|(name, _)| own(name)).collect();
    env.retain(|(name, _)| !command.get_envs().any(|(set, _)| set == name));
    env.extend(command.get_envs().filter_map(|(name, value)| Some((name.into(), value?.into()))));
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    env.push(("LISTEN_FDS".into(), names.len().to_string().into()));
    env.push(("LISTEN_FDNAMES".into(), names.join(":").into()));
    let fds: Vec<_> = sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
    let stderr = fs::File::create(stderr).unwrap();
    spawn(&Spawn {
        env: &env,
        fds: &fds,
        stderr: Some(stderr.as_fd()),
        listen_pid: true,
        new_session: true,
        ..Spawn::new(Path::new(&argv[0]), &argv)
    })
    .unwrap()
}

#[test]
fn a_restart_of_everything_refuses_nobody() {
    let place = Place::new();
    let mut fake = Fake::new(&place);
    let arguments = web(&place, "plain", &[]);
    let mut run = fake.run(&place, &refs(&arguments));
    let (pid, address) = run.running();
    let socket = stored(&mut fake, "web.web");
    assert_eq!(addresses(&socket), address);

    // As when the whole control group is killed.
    signal(run.pid(), Signal::SIGKILL);
    signal(pid, Signal::SIGKILL);
    assert_eq!(run.end(), -1);
    let mut waiting = TcpStream::connect(address).expect("the manager holds it");
    waiting.write_all(b"hello").unwrap();

    let unknown = TcpListener::bind("127.0.0.1:0").unwrap();
    let unknown_address = unknown.local_addr().unwrap();
    let (said, command) = (place.path("second"), fake.command(&place, &refs(&arguments)));
    let before = fake.messages.len();
    let sockets = [("web.web", socket), ("web.gone", unknown.into())];
    let second = start_with(&command, &sockets, &said);
    drop(sockets);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(" hello"), "{answer}");
    let status = place.output("status", &["--json"]).json();
    assert_eq!(status["services"][0]["listeners"][0]["address"], address.to_string());
    // What is no listener any more is closed, said, and need not be kept.
    let removed = fake.wait_for_field("FDSTOREREMOVE", "1", before);
    assert_eq!(fake.messages[removed].get("FDNAME"), Some("web.gone"));
    let text = || String::from_utf8_lossy(&fs::read(&said).unwrap()).into_owned();
    wait_until("a word about it", || text().contains("'web.gone'").then_some(()));
    wait_until("it is closed", || TcpStream::connect(unknown_address).is_err().then_some(()));
    signal(second.pid, Signal::SIGTERM);
    wait_until("its end", || second.pidfd.wait().unwrap());
}

#[test]
fn socket_activation_is_known_by_its_address() {
    let place = Place::new();
    let fake = Fake::new(&place);
    let path = place.path("app.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let address = tcp.local_addr().unwrap();
    let mut arguments = web(&place, "plain", &[]);
    *arguments.iter_mut().find(|argument| *argument == "web=127.0.0.1:0").unwrap() = format!("web={address}");
    let command = fake.command(&place, &refs(&arguments));
    let sockets = [("app.socket", unix.into()), ("http.socket", tcp.into())];
    let child = start_with(&command, &sockets, &place.path("said"));
    drop(sockets);
    // Without it the address would be in use: our own socket is closed only now.
    assert_eq!(ask(address, "hello").1, "hello");
    signal(child.pid, Signal::SIGTERM);
    wait_until("its end", || child.pidfd.wait().unwrap());
}

#[test]
fn the_sockets_of_somebody_else_are_left_alone() {
    let place = Place::new();
    let fake = Fake::new(&place);
    let mut command = fake.command(&place, &refs(&web(&place, "plain", &[])));
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").env("LISTEN_FDNAMES", "x");
    let run = place.spawn(command);
    let (pid, address) = run.running();
    assert_eq!(ask(address, "hello").0, pid);
}

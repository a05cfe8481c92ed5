//! The variables that a supervisor makes, as a shell, a wrapper or a mistake can make them. The store is started directly.

use crate::harness::{Running, Said, names, run};
use crate::support::{Service, programs, wait_until};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Descriptor 3 comes as standard input; a pid is known only to the process itself.
const WRAPPER: &str = r#"
    if [ "$THIRD" ]; then exec 3<&0; else exec 3<&-; fi
    exec 4<&- 5<&- 6<&- 7<&- 8<&- 9<&- 0</dev/null
    if [ "$LISTEN_PID" = own ]; then LISTEN_PID=$$; fi
    unset THIRD
    exec "$@""#;

/// The store with this environment and this descriptor 3, in the service's data directory.
fn store(service: &Service, variables: &[(&str, &str)], third: Option<OwnedFd>) -> Command {
    let mut command = service.other_command("sh");
    command.args(["-c", WRAPPER, "sh"]).arg(&programs().kv_a).arg(service.path("data"));
    command.envs(variables.iter().copied());
    if let Some(fd) = third {
        command.env("THIRD", "yes").stdin(fd);
    }
    command
}

fn fails(variables: &[(&str, &str)], third: Option<OwnedFd>, words: &[&str]) {
    assert_eq!(files_after(variables, third, words), Vec::<String>::new(), "nothing was changed");
}

/// The store fails with these words; what is in its data directory then.
fn files_after(variables: &[(&str, &str)], third: Option<OwnedFd>, words: &[&str]) -> Vec<String> {
    let service = Service::place();
    let said = run(&mut store(&service, variables, third));
    said.expect(1, words);
    let lines: Vec<&str> = said.stderr.lines().filter(|line| !line.starts_with("kv: listening on ")).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("kv: "), "{said:?}");
    names(&service.path("data"))
}

/// It serves alone, as if there were no supervisor.
fn serves(variables: &[(&str, &str)]) {
    let service = Service::place();
    let child = store(&service, variables, None).stderr(Stdio::piped()).spawn().unwrap();
    let mut store = Running(child);
    let mut line = String::new();
    BufReader::new(store.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("kv: listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    let reply = wait_until("a reply", || {
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.write_all(b"SET a 1\n").ok()?;
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).ok()?;
        Some(reply)
    });
    assert_eq!(reply, "OK 1\n", "{variables:?}");
}

#[test]
fn absent_or_empty_is_no_supervisor() {
    serves(&[]);
    let all = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "HANDOFF_CONTROL", "HANDOFF_SOCK_FD", "HANDOFF_ROLE"];
    serves(&all.map(|name| (name, "")));
    // As under systemd: what is meant for another process is none of our business.
    serves(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]);
}

#[test]
fn no_number_or_out_of_range() {
    for name in ["HANDOFF_SOCK_FD", "LISTEN_FDS", "LISTEN_PID"] {
        for value in ["x", "-1", "3x", " 3", "0x3", "1.5"] {
            fails(&[(name, value)], None, &[&format!("{name}={value} "), "not a number", &format!("unset {name}")]);
        }
        for value in ["99999999999", "99999999999999999999999999"] {
            fails(&[(name, value)], None, &[&format!("{name}={value} "), "out of range", "unset it"]);
        }
    }
    fails(&[("HANDOFF_SOCK_FD", "2")], None, &["HANDOFF_SOCK_FD=2 ", "out of range"]);
    fails(&[("LISTEN_FDS", "1048577")], None, &["LISTEN_FDS=1048577 ", "at most 1048573"]);
}

#[test]
fn a_descriptor_that_is_closed_or_something_else() {
    let null = || Some(OwnedFd::from(File::open("/dev/null").unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = || Some(OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap()));

    let session = [("HANDOFF_SOCK_FD", "3")];
    fails(&session, None, &["descriptor 3, promised by HANDOFF_SOCK_FD, is closed", "unset HANDOFF_SOCK_FD"]);
    fails(&session, null(), &["HANDOFF_SOCK_FD=3", "not a socket", "through its supervisor"]);
    fails(&session, stream(), &["HANDOFF_SOCK_FD=3", "through its supervisor"]);

    let listeners = [("LISTEN_FDS", "1"), ("LISTEN_PID", "own")];
    fails(&listeners, None, &["descriptor 3, promised by LISTEN_FDS, is closed", "unset LISTEN_FDS"]);
    fails(&listeners, null(), &["descriptor 3, promised by LISTEN_FDS, is not a socket", "unset LISTEN_FDS"]);
    fails(&listeners, stream(), &["descriptor 3, promised by LISTEN_FDS", "does not listen"]);
}

#[test]
fn variables_that_contradict_each_other() {
    let null = || Some(OwnedFd::from(File::open("/dev/null").unwrap()));
    let own = ("LISTEN_PID", "own");
    fails(&[("HANDOFF_ROLE", "boss")], None, &["HANDOFF_ROLE=boss", "'successor'", "unset it"]);
    fails(&[("HANDOFF_ROLE", "successor")], None, &["HANDOFF_SOCK_FD is not set", "unset HANDOFF_ROLE"]);
    let wrapper = [("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("HANDOFF_SOCK_FD", "4")];
    fails(&wrapper, null(), &["LISTEN_PID=1", "forked", "exec"]);
    fails(&[("LISTEN_FDS", "1"), ("HANDOFF_SOCK_FD", "4")], null(), &["LISTEN_PID is not", "wrapper"]);
    fails(&[own, ("LISTEN_FDS", "1"), ("HANDOFF_SOCK_FD", "3")], null(), &["HANDOFF_SOCK_FD=3", "LISTEN_FDS"]);
    let names = [own, ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a:b")];
    fails(&names, null(), &["LISTEN_FDNAMES=a:b has 2 names", "LISTEN_FDS=1", "unset LISTEN_FDNAMES"]);
}

#[test]
fn a_listener_of_another_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let variables = [("LISTEN_FDS", "1"), ("LISTEN_PID", "own"), ("LISTEN_FDNAMES", "web")];
    fails(&variables, Some(listener.into()), &["named \"kv\"", "given are: web"]);
}

#[test]
fn a_session_whose_supervisor_has_gone() {
    let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (ours, theirs) = pair();
    drop(ours);
    let successor = [("HANDOFF_SOCK_FD", "3"), ("HANDOFF_ROLE", "successor")];
    // It sees that before it has looked for the lock, or when it is about to say that it is warm; the data was not touched.
    let files = files_after(&successor, Some(theirs), &["the supervisor is gone"]);
    assert!(files.is_empty() || files == [".handoff.lock"], "{files:?}");
}

#[test]
fn a_data_directory_that_is_not_named() {
    let service = Service::place();
    let start = |value: Option<&str>| -> Said {
        let mut command = service.other_command(&programs().kv_a);
        command.envs(value.map(|value| ("HANDOFF_DATA_DIR", value)));
        run(&mut command)
    };
    start(None).expect_line(2, &["usage: kv", "HANDOFF_DATA_DIR"]);
    start(Some("")).expect_line(2, &["usage: kv", "HANDOFF_DATA_DIR"]);
    start(Some("/no/such/dir")).expect_line(1, &["data directory /no/such/dir", "mkdir -p"]);
}

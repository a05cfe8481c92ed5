//! Daemons that know nothing of this project.

use crate::harness::{Place, text};

/// Takes its first listener by systemd's convention, and answers each connection with its pid and what it was sent.
const SYSTEMD: &str = r#"
import os, select, signal, socket, sys
assert int(os.environ["LISTEN_PID"]) == os.getpid(), "LISTEN_PID"
assert int(os.environ["LISTEN_FDS"]) == 1, "LISTEN_FDS"
assert os.environ["LISTEN_FDNAMES"] == "web", "LISTEN_FDNAMES"
assert os.getsid(0) == os.getpid(), "session"
mode = sys.argv[1]
listener = socket.socket(fileno=3)
assert os.get_blocking(3) == (mode == "blocking"), "O_NONBLOCK"
if mode == "reload":
    signal.signal(signal.SIGHUP, lambda *_: os.write(2, b"reloaded\n"))
if mode == "polite":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(2, b"serving \xff\n")
while True:
    # A signal that comes just before select(2) is seen after it.
    while mode != "blocking" and not select.select([listener], [], [], 0.1)[0]:
        pass
    connection, _ = listener.accept()
    connection.setblocking(True)
    word = connection.recv(100)
    if word == b"flood":
        for _ in range(20000):
            os.write(2, b"x" * 99 + b"\n")
    connection.sendall(b"%d %s" % (os.getpid(), word))
    connection.close()
"#;

/// Its command line.
pub fn systemd(place: &Place, mode: &str) -> [String; 3] {
    let script = place.file("systemd.py", SYSTEMD, 0o644);
    ["python3".to_owned(), text(&script).to_owned(), mode.to_owned()]
}

/// Arguments of `handoff run` for it.
pub fn web(place: &Place, mode: &str, arguments: &[&str]) -> Vec<String> {
    let listen = if mode == "blocking" { "web=127.0.0.1:0,blocking" } else { "web=127.0.0.1:0" };
    let mut all: Vec<String> = ["--name", "web", "--listen", listen].map(str::to_owned).to_vec();
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    all.push("--".to_owned());
    all.extend(systemd(place, mode));
    all
}

/// The arguments as `Place::run` takes them.
pub fn refs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

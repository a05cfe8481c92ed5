//! A daemon that links nothing: it is well, or not, as files in its directory say; and the supervisor that runs it.

use crate::harness::{PATIENCE, Place, Run, text, wait_until};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// What is in the file `mode` is what it does: answers by HTTP with this status, `hang`s, `close`s the connection, talks `rubbish`, `drip`s its
/// answer byte by byte, sends an `endless` line, is `deaf` and accepts nothing. It says that it is alive unless there is a file `silent`, and whatever is in a file `say`, once.
const DAEMON: &str = r#"
import os, select, signal, socket, sys, time
here, options = sys.argv[1], sys.argv[2:]
def read(name):
    try:
        with open(os.path.join(here, name)) as file:
            return file.read()
    except FileNotFoundError:
        return None
def write(name, content):
    with open(os.path.join(here, name + ".new"), "w") as file:
        file.write(content)
    os.rename(os.path.join(here, name + ".new"), os.path.join(here, name))
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(message):
    notify.sendto(message.encode(), os.environ["NOTIFY_SOCKET"])
def aborted(*_):
    write("aborted", str(os.getpid()))
    os._exit(3)
def told(*_):
    if "slow-stop" in options:
        say("EXTEND_TIMEOUT_USEC=60000000")
        time.sleep(1.5)
        write("finished", str(os.getpid()))
    os._exit(0)
signal.signal(signal.SIGABRT, aborted)
signal.signal(signal.SIGTERM, told)
if "slow-start" in options:
    say("EXTEND_TIMEOUT_USEC=60000000")
    time.sleep(1.5)
write("environment", "\n".join("%s=%s" % item for item in os.environ.items()))
write("pid", str(os.getpid()))
if "quiet" not in options:
    say("READY=1")
listener = socket.socket(fileno=3) if "LISTEN_FDS" in os.environ else None
asked, kept = 0, []
while True:
    if read("silent") is None:
        say("WATCHDOG=1")
    words = read("say")
    if words is not None:
        os.remove(os.path.join(here, "say"))
        say(words)
    mode = read("mode") or "200"
    if listener is None or mode == "deaf":
        time.sleep(0.02)
        continue
    if not select.select([listener], [], [], 0.02)[0]:
        continue
    connection, _ = listener.accept()
    connection.setblocking(True)
    asked += 1
    write("asked", str(asked))
    if mode == "hang":
        kept.append(connection)
        continue
    try: # who asks may go when it has heard enough
        connection.recv(4096)
        if mode == "rubbish":
            connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
        elif mode == "drip":
            for at in range(100):
                connection.sendall(b"HTTP/1.0 200 OK\r\n"[at % 17:at % 17 + 1])
                time.sleep(0.1)
        elif mode == "endless":
            connection.sendall(b"HTTP/1.0 200")
            for _ in range(1024):
                connection.sendall(b"x" * 65536)
        elif mode != "close":
            connection.sendall(b"HTTP/1.0 %s Word\r\n\r\n%s" % (mode.encode(), b"x" * 100000))
    except OSError:
        pass
    connection.close()
"#;

/// A directory for one unit, with its daemon in it.
pub struct Daemon {
    pub dir: PathBuf,
    name: String,
    script: PathBuf,
}

impl Daemon {
    pub fn new(place: &Place, name: &str) -> Self {
        let dir = place.path(name);
        fs::create_dir(&dir).unwrap();
        Self { dir, name: name.to_owned(), script: place.file(&format!("daemon-{name}.py"), DAEMON, 0o644) }
    }

    /// Its unit, with these further lines.
    pub fn unit(&self, options: &[&str], lines: &[&str]) -> String {
        let mut argv = vec!["python3", text(&self.script), text(&self.dir)];
        argv.extend(options);
        let lines = lines.join("\n");
        let backoff = if lines.contains("restart = ") { "" } else { "backoff = { first = \"50ms\" }" };
        format!("[unit.{}]\nexec = {argv:?}\nmode = \"none\"\n{backoff}\n{lines}\n", self.name)
    }

    /// The same, with a Unix socket to listen at, and readiness by `READY=1`.
    pub fn listening(&self, health: &str, lines: &[&str]) -> String {
        let socket = self.dir.join("socket");
        let url = health.replace("SOCKET", &text(&socket).replace('/', "%2F")).replace("PATH", text(&socket));
        let listen = format!("listen = [\"web=unix:{}\"]", socket.display());
        let health = format!("health = {url}");
        let all = [&[listen.as_str(), "ready = \"notify\"", &health], lines].concat();
        self.unit(&[], &all)
    }

    /// Changes what it does.
    pub fn set(&self, name: &str, content: &str) {
        let fresh = self.dir.join(format!("{name}.fresh"));
        fs::write(&fresh, content).unwrap();
        fs::rename(fresh, self.dir.join(name)).unwrap();
    }

    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }

    pub fn wait_for_file(&self, name: &str) -> String {
        wait_until(&format!("a file {name}"), || self.read(name))
    }

    /// How often its present process was asked.
    pub fn asked(&self) -> u64 {
        self.read("asked").and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// `handoff up` with these units.
pub fn up<'a>(place: &'a Place, units: &[String]) -> Up<'a> {
    let file = place.file("units.toml", units.concat(), 0o644);
    let mut command = place.handoff("up");
    command.args(["-c", text(&file)]).stdout(std::process::Stdio::null());
    Up { place, run: place.spawn(command) }
}

pub struct Up<'a> {
    place: &'a Place,
    pub run: Run<'a>,
}

impl Up<'_> {
    /// A unit, when it is as `look` wants it.
    #[track_caller]
    pub fn wait_for(&self, name: &str, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.place.output("status", &["--json"]);
            let status: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
            let services = status["services"].as_array().cloned().unwrap_or_default();
            let found = services.into_iter().find(|service| service["name"] == name);
            if let Some(service) = found.as_ref().filter(|service| look(service)) {
                return service.clone();
            }
            assert!(Instant::now() < until, "in vain: {name}: {what}: {found:?}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    #[track_caller]
    pub fn wait_for_health(&self, name: &str, state: &str) -> Value {
        self.wait_for(name, state, |service| service["health"]["state"] == state)
    }
}

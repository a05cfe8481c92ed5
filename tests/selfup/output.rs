//! What units write, and who reads it, across it.

use crate::harness::{Place, text, wait_until};
use crate::{executes, must_upgrade, other_program, up, wait_for_state};
use std::fs;
use std::path::Path;
use std::process::Child;

/// A command that goes on, with what it says in a file.
fn follow(place: &Place, name: &str, words: &[&str]) -> Child {
    let mut command = place.handoff(words[0]);
    command.args(&words[1..]).stdout(fs::File::create(place.path(name)).unwrap());
    command.stderr(fs::File::create(place.path(&format!("{name}.stderr"))).unwrap()).spawn().unwrap()
}

fn wait_for_text(path: &Path, wanted: &str) {
    wait_until(&format!("{wanted:?} in {}", path.display()), || {
        fs::read_to_string(path).is_ok_and(|said| said.contains(wanted)).then_some(())
    });
}

#[test]
fn a_line_that_has_no_end_yet_is_one_line_and_readers_stay() {
    let place = Place::new();
    let (fifo, logs) = (place.path("fifo"), place.path("logs"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // A part of a line, the first byte of a character; and the same on the other stream.
    let script = format!(
        "echo first; printf 'pa\\303'; printf 'er\\303' >&2; read line < {0}; printf '\\244rt\\n'; printf '\\244rt\\n' >&2; \
         read line < {0}; exec sleep 1000",
        text(&fifo)
    );
    let units = format!(
        "[unit.writes]\nexec = [\"/bin/sh\", \"-c\", '''{script}''']\nmode = \"none\"\nready = \"delay=0ms\"\n\
         log = {{ dir = \"{}\" }}\n",
        text(&logs)
    );
    let run = up(&place, &units);
    wait_for_state(&place, "writes", "running");
    wait_for_text(&logs.join("writes.log"), "first\n");
    let readers = [
        ("lines", ["logs", "-f", "-n", "100"].as_slice()),
        ("json", &["logs", "-f", "-n", "100", "--json"]),
        ("events", &["events"]),
        ("watch", &["status", "--watch"]),
    ];
    let mut readers = readers.map(|(name, words)| follow(&place, name, words));
    for (name, first) in [("lines", "first"), ("json", "first"), ("watch", "writes: running")] {
        wait_for_text(&place.path(name), first);
    }
    let (other, own) = (other_program(&place), executes(run.pid()));
    for program in [&other, &own, &other] {
        must_upgrade(&place, program);
    }
    fs::write(&fifo, "go\n").unwrap();
    for name in ["lines", "json"] {
        ["paärt", "erärt"].iter().for_each(|line| wait_for_text(&place.path(name), line));
    }
    ["paärt\n", "erärt\n"].iter().for_each(|line| wait_for_text(&logs.join("writes.log"), line));
    place.output("stop", &["writes"]).expect(0, &[]);
    wait_for_text(&place.path("watch"), "writes: stopped");
    wait_for_text(&place.path("events"), "self-upgrade done");
    // In the end nobody has read it twice, and everybody hears of the end.
    place.output("shutdown", &[]).expect(0, &[]);
    for reader in &mut readers {
        assert_eq!(wait_until("the end of a reader", || reader.try_wait().unwrap()).code(), Some(0));
    }
    let count = |text: &str, line: &str| text.matches(line).count();
    let said = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    for text in [said("lines"), said("json"), fs::read_to_string(logs.join("writes.log")).unwrap(), run.stderr()] {
        assert_eq!(["first", "paärt", "erärt"].map(|line| count(&text, line)), [1, 1, 1], "{text}");
    }
    assert_eq!(count(&said("events"), "self-upgrade done"), 3, "{}", said("events"));
    for name in ["lines", "json", "events", "watch"] {
        assert_eq!(said(&format!("{name}.stderr")), "", "{name}");
    }
}

/// Answers nobody until a file is there; counts who has asked.
const SILENT: &str = r#"
import os, socket, sys
here = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(here + "/http")
listener.listen()
held = []
while True:
    connection, _ = listener.accept()
    if not os.path.exists(here + "/answers"):
        held.append(connection)
        open(here + "/asked", "a").write("x")
        continue
    connection.recv(1000)
    connection.sendall(b"HTTP/1.0 200 well\r\n\r\n")
    connection.close()
"#;

/// The connection of a question that is under way ends with the program, and is none of the unit's failures.
#[test]
fn a_question_that_is_under_way_is_asked_again() {
    let place = Place::new();
    let script = place.file("silent.py", SILENT, 0o644);
    let here = text(place.dir.path());
    let url = format!("http+unix://{}%2Fhttp/", here.replace('/', "%2F"));
    let units = format!(
        "[unit.silent]\nexec = [\"python3\", \"{}\", \"{here}\"]\nmode = \"none\"\nready = \"delay=0ms\"\n\
         health = {{ url = \"{url}\", interval = \"30m\", timeout = \"20m\", retries = 1 }}\nstart_timeout = \"30m\"\n",
        text(&script)
    );
    let run = up(&place, &units);
    let asked = |times: usize| {
        wait_until(&format!("asked {times} times"), || {
            fs::read_to_string(place.path("asked")).is_ok_and(|text| text.len() == times).then_some(())
        });
    };
    asked(1);
    let (other, own) = (other_program(&place), executes(run.pid()));
    let pid = wait_for_state(&place, "silent", "running")["pid"].clone();
    must_upgrade(&place, &other);
    asked(2);
    place.file("answers", "", 0o644);
    must_upgrade(&place, &own);
    let unit = crate::wait_for(&place, "silent", "well", |unit| unit["health"]["state"] == "healthy");
    assert_eq!((&unit["pid"], &unit["restarts"]), (&pid, &0.into()), "{unit}");
}

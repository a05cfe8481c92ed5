//! The supervisor replaces its own program: to the manager it is the same process, with nothing to say.

use crate::fake::{Fake, Message};
use crate::harness::{Place, signal, text, wait_until};
use crate::support::copy::copy_program;
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

/// Writes down its environment, has a listener, and is ready when this file is there.
fn unit(place: &Place, name: &str) -> String {
    let path = |what: &str| format!("{}/{what}.{name}", text(place.dir.path()));
    let script = format!(
        "env > {0}; mv {0} {1}; while [ ! -e {2} ]; do sleep 0.02; done; echo >&9; exec sleep 1000",
        path("new"),
        path("env"),
        path("go")
    );
    format!(
        "[unit.{name}]\nexec = \"{script}\"\nshell = true\nmode = \"none\"\nready = \"fd=9\"\nlisten = [\"web=127.0.0.1:0\"]\n"
    )
}

/// The names of its environment, but for those of the shell itself.
fn environment(place: &Place, name: &str) -> Vec<String> {
    let found = wait_until("its environment", || fs::read_to_string(place.path(&format!("env.{name}"))).ok());
    let mut names: Vec<String> =
        found.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_manager_hears_nothing_of_it_and_goes_on_hearing_the_rest() {
    let place = Place::new();
    let mut fake = Fake::new(&place);
    let programs: [PathBuf; 2] = [place.path("other-handoff"), env!("CARGO_BIN_EXE_handoff").into()];
    copy_program(&programs[1], &programs[0]);
    place.file("units.toml", unit(&place, "first"), 0o644);
    let mut command = place.handoff("up");
    // By a path that means something only from here.
    command.current_dir(place.dir.path()).args(["-c", "units.toml"]).stdout(Stdio::null());
    command.env("NOTIFY_SOCKET", fake.path()).env("WATCHDOG_USEC", "200000").env("FDSTORE", "512");
    let mut run = place.spawn(command);
    let replace = |fake: &mut Fake, program: &PathBuf| {
        place.output("self-upgrade", &[text(program)]).expect(0, &[]);
        fake.read();
        let alive = fake.count("WATCHDOG");
        wait_until("signs of life go on", || {
            fake.read();
            (fake.count("WATCHDOG") > alive + 3).then_some(())
        });
    };
    fake.wait_for_field("FDNAME", "first.web", 0);
    // While it starts, and twice when it is up.
    replace(&mut fake, &programs[0]);
    assert_eq!(fake.count("READY"), 0, "{:?}", fake.messages);
    place.file("go.first", "", 0o644);
    fake.wait_for_field("READY", "1", 0);
    replace(&mut fake, &programs[1]);
    replace(&mut fake, &programs[0]);
    let counts = ["READY", "FDSTORE", "FDSTOREREMOVE", "RELOADING", "STOPPING", "MAINPID"].map(|name| fake.count(name));
    assert_eq!(counts, [1, 1, 0, 0, 0, 0], "{:?}", fake.messages);

    // The files are where they were, and what is new is told.
    place.file("go.second", "", 0o644);
    place.file("units.toml", unit(&place, "first") + &unit(&place, "second"), 0o644);
    let before = fake.messages.len();
    place.output("reload", &[]).expect(0, &[]);
    let reloading = fake.wait_for_field("RELOADING", "1", before);
    fake.wait_for_field("READY", "1", reloading);
    let of_second = |message: &Message| message.get("FDNAME") == Some("second.web") && message.fds.len() == 1;
    fake.wait_for("its listener", before, of_second);
    // Nothing of it is left in what services inherit.
    assert_eq!(environment(&place, "first"), environment(&place, "second"));

    let before = fake.messages.len();
    signal(run.pid(), Signal::SIGTERM);
    fake.wait_for_field("STOPPING", "1", before);
    assert_eq!(run.end(), 0);
    fake.read();
    assert!(fake.messages.iter().all(|message| message.pid == run.pid()), "NotifyAccess=main: {:?}", fake.messages);
    let stored: Vec<_> = fake.messages.iter().filter(|message| message.get("FDSTORE").is_some()).collect();
    assert_eq!(stored.len(), 2, "{stored:?}");
}

//! What `upgrade` and `status` show, on a terminal and in a pipe.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};

use crate::support::{SIGTERM, Service, programs, signal, wait_until};
use crate::{output, text};

const GREEN: &str = "\x1b[32m";

/// A terminal, and what was written to it.
struct Terminal {
    screen: File,
    shown: String,
}

impl Terminal {
    /// Runs a command on it; standard error is another place.
    fn spawn(service: &Service, subcommand: &str, arguments: &[&str], colour: bool) -> (Self, std::process::Child) {
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let mut command = service.command(subcommand);
        command.args(arguments).stdout(File::from(pty.slave)).stderr(Stdio::null()).env("TERM", "xterm-256color");
        match colour {
            true => command.env_remove("NO_COLOR"),
            false => command.env("NO_COLOR", "1"),
        };
        let child = command.spawn().unwrap();
        drop(command); // it has the other end
        (Self { screen: pty.master.into(), shown: String::new() }, child)
    }

    /// Reads until this was shown, or to the end.
    fn read_until(&mut self, what: &str) {
        let mut part = [0; 4096];
        while !self.shown.contains(what) {
            match self.screen.read(&mut part) {
                Ok(len @ 1..) => self.shown.push_str(&String::from_utf8_lossy(&part[..len])),
                _ => panic!("the end before {what:?}: {:?}", self.shown),
            }
        }
    }

    /// All of it, when the command has ended.
    fn rest(mut self) -> String {
        let mut part = [0; 4096];
        while let Ok(len @ 1..) = self.screen.read(&mut part) {
            self.shown.push_str(&String::from_utf8_lossy(&part[..len]));
        }
        self.shown
    }
}

#[test]
fn an_upgrade_in_a_pipe_is_plain_lines_and_a_summary() {
    let service = Service::start(&programs().kv_a);
    let first = service.daemon_pid();
    let said = output(&service, "upgrade", &["--binary", programs().kv_b.to_str().unwrap()]);
    let (shown, second) = (text(&said.stdout), service.daemon_pid());
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let at = |line: &str| shown.lines().position(|found| found == line).unwrap_or_else(|| panic!("{line}: {shown}"));
    assert!(at("kv: warming") < at("kv: draining") && at("kv: draining") < at("kv: sealing"), "{shown}");
    assert!(shown.contains(&format!("kv: committed; process {second} serves (generation 2)")), "{shown}");
    assert!(shown.contains(&format!("    generation 1 → 2, process {first} → {second}")), "{shown}");
    assert!(shown.contains("    warm ") && shown.contains(", total "), "{shown}");
    assert!(!shown.contains('\x1b') && !shown.contains('\r'), "{shown:?}");
    let undone = output(&service, "upgrade", &["--binary", service.faulty("crash-warm").to_str().unwrap()]);
    let words = text(&undone.stderr);
    assert!(words.starts_with("kv: rolled back; ") && !words.contains('→'), "{undone:?}");
}

#[test]
fn an_upgrade_on_a_terminal_has_a_line_for_each_phase_and_colours_if_they_are_wanted() {
    let service = Service::start(&programs().kv_a);
    let slow = service.faulty("seal-progress=50");
    for (colour, binary) in [(true, &slow), (false, &programs().kv_b)] {
        let (terminal, mut child) =
            Terminal::spawn(&service, "upgrade", &["--binary", binary.to_str().unwrap()], colour);
        let shown = terminal.rest();
        assert!(child.wait().unwrap().success(), "{shown}");
        for phase in ["✓ warming", "✓ draining", "✓ sealing", "✓ kv: committed"] {
            let plain = console::strip_ansi_codes(&shown).into_owned();
            assert!(plain.contains(phase), "{phase} is missing: {plain:?}");
        }
        assert_eq!(shown.contains(GREEN), colour, "{shown:?}");
    }
}

#[test]
fn a_watched_status_follows_changes() {
    let mut service = Service::start(&programs().kv_a);
    let (first, name) = (service.daemon_pid(), "--watch");
    let (mut terminal, mut watching) = Terminal::spawn(&service, "status", &[name], true);
    terminal.read_until(&format!("process {first}"));
    let lines = service.path("watched");
    let mut plain = service.command("status").arg(name).stdout(File::create(&lines).unwrap()).spawn().unwrap();
    let seen = || std::fs::read_to_string(&lines).unwrap();
    wait_until("its first line", || seen().contains(&format!("kv: running, process {first}")).then_some(()));
    assert_eq!(service.upgrade(&programs().kv_b, &[]).code, 0);
    let second = service.daemon_pid();
    terminal.read_until(&format!("process {second}"));
    wait_until("a line of the other", || seen().contains(&format!("kv: running, process {second}")).then_some(()));
    assert!(!seen().contains('\x1b'), "{}", seen());
    signal(service.supervisor_pid(), SIGTERM);
    let shown = terminal.rest();
    assert!(shown.contains("A\r\x1b[2K"), "it does not go back: {shown:?}");
    assert_eq!((watching.wait().unwrap().code(), plain.wait().unwrap().code()), (Some(0), Some(0)));
    assert_eq!(service.wait_for_end(), Some(0));
}

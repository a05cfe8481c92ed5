//! The other side: the program that goes on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use handoff::limits::RESTORE_TIMEOUT;
use handoff::sys::crash;
use handoff::sys::fd::duplicate;
use handoff::sys::inherit::end_restore;
use handoff::sys::limits::raise_nofile;
use handoff::sys::reexec::{Guard, Program, close_all, name_process};
use nix::sys::signal::Signal;

use super::state::{self, Restored};
use super::{PREFLIGHT_PASSED, RESTORE, RESTORE_FAILED};
use crate::exit::ITSELF_FAILED;
use crate::host::{Host, Purpose};
use crate::run::{LAST_WORDS, host_one, itself, log_to};
use crate::up::host_units;

/// What the program before has left us.
struct Place {
    state: RawFd,
    /// None: this is the old one again.
    old: Option<RawFd>,
}

/// Goes on where another program of this process has stopped, if one has; the exit code.
pub fn go_on() -> Option<u8> {
    let Place { state, old } = place()?;
    let _ = raise_nofile(); // it may have been lowered just before
    std::env::args_os().take(1).for_each(|argument| name_process(&argument));
    let file = |number: RawFd| duplicate(number).map(File::from);
    let (state_file, old_file) = match (file(state), old.map(file).transpose()) {
        (Ok(state), Ok(old)) => (state, old),
        (state, old) => {
            return Some(lost(&format!("the state of the program before is lost: {:?} {:?}", state.err(), old.err())));
        }
    };
    let way_back = |why: &str| {
        // The numbers of the program before: they stay open until all is well.
        let place = format!("{} {state} -", std::process::id());
        let changed = [(RESTORE, Some(place.into())), (RESTORE_FAILED, Some(why.into()))];
        old_file.as_ref().map(|old| Program::new(old, &changed))
    };
    let guard = old_file
        .as_ref()
        .and_then(|_| Guard::new(|signal| way_back(&why_of(signal)).unwrap_or_else(|| unreachable!())).ok());
    let restored = catch_unwind(AssertUnwindSafe(|| restore(&state_file)));
    let restored = restored.unwrap_or_else(|panic| Err(format!("it panicked: {}", text_of(panic.as_ref()))));
    match restored {
        Ok(restored) => {
            drop(guard);
            drop((state_file, old_file));
            Some(take_over(restored, state, old))
        }
        Err(why) => {
            if let Some(program) = way_back(&why) {
                let error = program.execute(&BTreeSet::new());
                return Some(lost(&format!("{why}; and the program before can not be executed: {error}")));
            }
            Some(lost(&why))
        }
    }
}

fn place() -> Option<Place> {
    let place = std::env::var(RESTORE).ok()?;
    let mut words = place.split(' ');
    // Of another process it would be inherited by mistake.
    let pid: u32 = words.next()?.parse().ok()?;
    let (state, old) = (words.next()?.parse().ok()?, words.next()?.parse().ok());
    (pid == std::process::id()).then_some(Place { state, old })
}

fn restore(state: &File) -> Result<Restored<Host>, String> {
    crash::point('S', format_args!("restore"));
    let mut restored: Restored<Host> = state::read(state, false)?;
    restored.it.fleet.go_on().map_err(|error| error.to_string())?;
    crash::point('S', format_args!("restored"));
    Ok(restored)
}

/// There is no way back any more.
fn take_over(restored: Restored<Host>, state: RawFd, old: Option<RawFd>) -> u8 {
    end_restore();
    let Restored { it: mut host, mut left } = restored;
    left.extend(old.into_iter().chain([state]));
    close_all(&left);
    let output = host.output.clone();
    log_to(&output);
    let failed = std::env::var(RESTORE_FAILED).ok();
    host.end_self_upgrade(failed.as_deref());
    let code = run(host, &output);
    output.finish(LAST_WORDS);
    code
}

fn run(host: Host, output: &crate::output::Output) -> u8 {
    let name = host.name.clone();
    let ended = match host.purpose {
        Purpose::One => host_one(host),
        Purpose::Units(_) => host_units(host).map(|()| 0),
    };
    ended.unwrap_or_else(|failure| {
        output.say("error", &name, &failure.text, serde_json::json!({ "exit": failure.code }));
        failure.code
    })
}

/// Nobody is left who could go on; services do, without a supervisor.
fn lost(why: &str) -> u8 {
    eprintln!("handoff: {}", itself(why).text);
    // Not by a return: what was read would be cleaned up.
    std::process::exit(ITSELF_FAILED.into())
}

fn why_of(signal: Signal) -> String {
    match signal {
        Signal::SIGALRM => format!("it has not gone on within {} s", RESTORE_TIMEOUT.as_secs()),
        signal => format!("it crashed ({signal})"),
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no text").to_owned()
}

/// `handoff handoff-preflight STATE`: whether this program could go on with it. It touches nothing.
pub fn preflight(state: &Path) -> u8 {
    crash::point('P', format_args!("preflight"));
    let read = File::open(state).map_err(|error| error.to_string()).and_then(|file| state::read::<Host>(&file, true));
    let (text, code) = match &read {
        Ok(_) => (PREFLIGHT_PASSED.to_owned(), 0),
        Err(why) => (why.clone(), 1),
    };
    let said = writeln!(std::io::stdout(), "{text}");
    // What was read is another process's: nothing of it is cleaned up.
    std::process::exit(if said.is_ok() { code } else { 1 })
}

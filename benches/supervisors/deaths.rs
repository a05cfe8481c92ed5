//! The supervisor dies, or is replaced by a new version of itself.

use crate::ask;
use crate::bed::{Bed, Kind, Unit, numbers, rest, succeeds};
use crate::flood::{files, wait_until_quiet};
use crate::support::{SIGKILL, lives, signal_if_there, wait_until};
use crate::table::Table;
use std::collections::HashSet;
use std::fs;
use std::time::Duration;

const SERVICES: usize = 10;
const SIGUSR1: i32 = 10;
/// Before, and after, what happens to the supervisor.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(2200);
/// From one service that ends by itself to the next.
const ENDS: Duration = Duration::from_millis(5);
const LINES: u64 = 2000; // two seconds of them

/// What happens to it.
#[derive(Clone, Copy)]
enum Fate {
    /// kill -9 of whoever supervises a service.
    Killed,
    /// kill -9 of the first process of all.
    FirstKilled,
    /// A new version takes its place, in the best way that there is.
    Replaced,
}

struct After {
    survived: usize,
    alive: usize,
    written: u64,
    lost: u64,
    twice: u64,
}

impl After {
    fn show(&self) -> String {
        let Self { survived, alive, lost, twice, written } = self;
        let lines = format!("; {lost} lost, {twice} twice, of {written}");
        format!("{survived} of {SERVICES}; {alive}{}", if *written > 0 { &lines } else { "" })
    }
}

/// Services that write.
fn writers() -> Unit {
    Unit::new("count", SERVICES, &format!("count {LINES}")).logged()
}

fn meet(kind: Kind, fate: Fate, unit: Unit) -> After {
    let mut bed = Bed::new(kind, vec![unit]);
    bed.launch_all();
    rest(BEFORE);
    let before = bed.services();
    assert_eq!(before.len(), SERVICES, "{kind:?}");
    strike(&mut bed, fate);
    wait_until("all run again, as it says", || bed.says_all_run().then_some(()));
    rest(AFTER);
    wait_until_quiet(&bed.place.path("logs"));
    let services = bed.services();
    let survived = before.iter().filter(|pid| services.contains(pid)).count();
    bed.begin_end();
    bed.reap();
    for pid in bed.processes() {
        signal_if_there(pid, SIGKILL); // a service that nobody knows any more
    }
    let (written, found) = (written(&bed), found(&bed));
    let different = found.iter().collect::<HashSet<_>>().len() as u64;
    let twice = found.len() as u64 - different;
    After { survived, alive: services.len(), written, lost: written.saturating_sub(different), twice }
}

fn strike(bed: &mut Bed, fate: Fate) {
    match fate {
        Fate::Killed if bed.kind.has_many_processes() => {
            kill(&bed.direct_supervisors()); // the first process starts them again
        }
        Fate::Killed | Fate::FirstKilled => {
            kill(&[bed.pid()]);
            bed.reap();
            bed.launch();
        }
        Fate::Replaced if bed.kind == Kind::Handoff => {
            assert!(succeeds(&mut bed.handoff("self-upgrade")), "a self-upgrade");
        }
        Fate::Replaced => {
            bed.begin_end();
            bed.wait_for_end();
            bed.launch();
        }
    }
}

fn kill(pids: &[i32]) {
    for pid in pids {
        signal_if_there(*pid, SIGKILL);
    }
    for pid in pids {
        wait_until("a death", || (!lives(*pid)).then_some(()));
    }
}

/// Lines, by all processes of the services.
fn written(bed: &Bed) -> u64 {
    let entries = fs::read_dir(bed.place.path("")).expect("a directory").flatten();
    let counters = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("written."));
    let number = |bytes: Vec<u8>| bytes.try_into().map_or(0, u64::from_ne_bytes);
    counters.map(|entry| number(fs::read(entry.path()).expect("a counter"))).sum()
}

/// Lines in files: pid and number.
fn found(bed: &Bed) -> Vec<(u64, u64)> {
    files(&bed.place.path("logs")).iter().flat_map(|file| numbers(file)).collect()
}

/// How many statuses of services are known that ended while it was replaced.
fn statuses(kind: Kind) -> String {
    let mut bed = Bed::new(kind, vec![Unit { again: false, ..Unit::new("ends", 2 * SERVICES, "exits") }]);
    bed.launch_all();
    let services = bed.services();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for pid in services {
                signal_if_there(pid, SIGUSR1);
                rest(ENDS);
            }
        });
        strike(&mut bed, Fate::Replaced);
    });
    let known = wait_until("it answers", || known(&bed));
    let ended = numbers(&bed.place.path("ended")).len();
    bed.begin_end();
    bed.wait_for_end();
    format!("{known} of {ended}")
}

/// Services that have ended with 7, as it says; none while it does not answer.
fn known(bed: &Bed) -> Option<usize> {
    match bed.kind {
        Kind::Handoff => {
            let said: serde_json::Value = serde_json::from_str(&ask::handoff(bed).ok()?).expect("JSON");
            let services = said["result"]["services"].as_array().expect("services");
            let is_7 = |cause: &str| cause.contains("status 7");
            Some(services.iter().filter(|unit| unit["cause"].as_str().is_some_and(is_7)).count())
        }
        Kind::Supervisord => {
            let said = ask::supervisord(bed, "getAllProcessInfo").ok()?;
            Some(said.matches("<name>exitstatus</name>\n<value><int>7</int>").count())
        }
        Kind::Runit | Kind::S6 => {
            let statuses = numbers(&bed.place.path("statuses"));
            Some(statuses.iter().filter(|(status, _)| *status == 7).count())
        }
    }
}

/// How many helpers live after the stop of their services.
fn helpers(kind: Kind) -> String {
    let mut bed = Bed::new(kind, vec![Unit::new("helper", SERVICES, "helper")]);
    bed.launch_all();
    let helpers = wait_until("helpers", || {
        let helpers = numbers(&bed.place.path("helpers"));
        (helpers.len() == SERVICES).then_some(helpers)
    });
    assert!(succeeds(&mut bed.stop("helper")), "{kind:?}");
    rest(BEFORE);
    let left = helpers.iter().filter(|(pid, _)| lives(*pid as i32)).count();
    format!("{left} of {SERVICES}")
}

pub fn measure() {
    let mut table = Table::new("The supervisor dies, or is replaced");
    let none = "— (it is the only one)".to_owned();
    table.row("kill -9 of whoever supervises a service", |kind| meet(kind, Fate::Killed, writers()).show());
    table.row("the same, of services that write nothing", |kind| {
        meet(kind, Fate::Killed, Unit::new("idle", SERVICES, "")).show()
    });
    table.row("kill -9 of its first process", |kind| match kind.has_many_processes() {
        true => meet(kind, Fate::FirstKilled, writers()).show(),
        false => none.clone(),
    });
    table.row("a new version of it takes its place", |kind| meet(kind, Fate::Replaced, writers()).show());
    table.row("exit statuses known of services that end meanwhile", statuses);
    table.row("helpers in sessions of their own that live after a stop of their service", helpers);
    table.print(&format!(
        "{SERVICES} services write a line each millisecond for two seconds, which goes to files. Each cell has the processes \
         of before that still live {:.1} s after it has said that all run again; how many processes of the {SERVICES} services there are then; and lines that \
         were written and are in no file, or twice. A supervisor that does not come back by itself is started again at once. \
         A new version is `handoff self-upgrade` here; of the others all processes are ended by the signal for it and started \
         again. The statuses are those of {} services that end with 7, one each 5 ms from the beginning of that, unless SIGTERM \
         ends them before; of runit and s6 as `finish` has heard of them.",
        AFTER.as_secs_f64(),
        2 * SERVICES
    ));
}

//! FDSTORE: what is kept, and for how long.

use crate::clients::{replace, run, serving};
use crate::harness::{Place, Run, signal, text};
use crate::small::small;
use nix::sys::signal::Signal;

const NOTIFY: &str = "--listen web=127.0.0.1:0 --mode overlap --ready notify";

/// The names of the descriptors that the daemon got which serves now: it is the one of this number.
fn names(run: &Run<'_>, number: usize) -> Vec<String> {
    let said = crate::harness::wait_until("its names", || {
        let said = run.stderr();
        Some(said.lines().filter_map(|line| line.strip_prefix("names: ")).nth(number)?.to_owned())
    });
    said.split(':').map(str::to_owned).collect()
}

#[test]
fn what_is_removed_is_gone_and_the_rest_is_not() {
    let place = Place::new();
    let program = small(&place, "keeper", "notify names many=3 say=FDSTOREREMOVE=1,FDNAME=m1,STATUS=removed");
    let run = run(&place, NOTIFY, &[text(&program)]);
    let (first, _) = serving(&run);
    let second = replace(&place, first, None);
    assert_eq!(names(&run, 1), ["web", "m0", "m1", "m2"]);
    signal(second, Signal::SIGUSR2);
    run.wait_for("it is told", |service| service["says"]["status"] == "removed");
    replace(&place, second, None);
    assert_eq!(names(&run, 2), ["web", "m0", "m2"]);
}

/// One whose other end is closed is of no use to anybody, unless the daemon says that it is.
#[test]
fn what_hung_up_is_kept_only_on_demand() {
    let place = Place::new();
    let program = small(&place, "keeper", "notify names hung");
    let run = run(&place, NOTIFY, &[text(&program)]);
    let (first, _) = serving(&run);
    replace(&place, first, None);
    assert_eq!(names(&run, 1), ["web", "kept"]);
}

/// A log of a line for each would be the daemon's to fill.
#[test]
fn a_flood_is_one_line_and_a_count() {
    let place = Place::new();
    let program = small(&place, "keeper", "notify many=1000");
    let run = run(&place, NOTIFY, &[text(&program)]);
    serving(&run);
    const WHY: &str = "FDSTORE: 128 descriptors are kept already";
    let refused = |said: &str| -> u64 {
        let counts = said.lines().filter_map(|line| line.split(" more messages like this one in 5 s: ").next());
        let counts = counts.filter_map(|words| words.rsplit(' ').next()?.parse::<u64>().ok());
        counts.sum::<u64>() + 1
    };
    // Each of those that are too many is sent twice.
    let said = crate::harness::wait_until("the count", || Some(run.stderr()).filter(|said| refused(said) == 2 * 872));
    assert!(said.matches(WHY).count() < 20, "{said}");
}

/// The same descriptor twice is kept once.
#[test]
fn one_too_many_is_refused() {
    let place = Place::new();
    let program = small(&place, "keeper", "notify names many=129");
    let run = run(&place, NOTIFY, &[text(&program)]);
    let (first, _) = serving(&run);
    run.wait_for_text("FDSTORE: 128 descriptors are kept already");
    replace(&place, first, None);
    let got = names(&run, 1);
    assert_eq!((got.len(), got[1].as_str(), got[128].as_str()), (129, "m0", "m127"));
}

//! The supervisor replaces its own program: who its processes are, and what descends from them, is known afterwards.

use super::copy::copy_program;
use super::harness::{Place, lives, text, wait_until};
use super::trees::{each_way, pair, replaceable};
use super::users::{NOBODY, serves, store, uid_of, units};
use super::{is_root, shut_down, up};
use std::fs;

fn self_upgrade(place: &Place) {
    let other = place.path("other-handoff");
    if !other.exists() {
        copy_program(env!("CARGO_BIN_EXE_handoff"), &other);
    }
    for program in [text(&other), env!("CARGO_BIN_EXE_handoff")] {
        place.output("self-upgrade", &[program]).expect(0, &[]);
    }
}

#[test]
fn a_daemon_of_another_user_is_replaced_and_goes_back_after_it() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let program = store(&place);
    let mut run = up(&place, &units(&place, &program, "nobody"));
    let first = serves(&run, 0);
    self_upgrade(&place);
    assert_eq!(serves(&run, 0), first, "{}", run.stderr());
    let other = place.path("kv-other");
    copy_program(&program, &other);
    place.output("upgrade", &["kv", "--binary", text(&other)]).expect(0, &[]);
    let second = serves(&run, first);
    assert_eq!(uid_of(second), NOBODY);
    fs::remove_file(&other).unwrap();
    self_upgrade(&place);
    place.output("rollback", &["kv"]).expect(0, &[]);
    let third = serves(&run, second);
    assert_eq!(uid_of(third), NOBODY);
    shut_down(&mut run);
}

#[test]
fn what_descends_from_them_ends_with_them_after_it() {
    each_way(|up| {
        let place = Place::new();
        let mut run = up(&place, &replaceable(&place, false));
        let (first, old) = pair(&place, 0);
        run.wait_for("running", |service| service["state"] == "running");
        place.output("upgrade", &["a"]).expect(0, &[]);
        let (second, new) = pair(&place, first);
        wait_until("the end of the first one", || (!lives(first)).then_some(()));
        run.wait_for("nobody drains", |service| service["draining"].as_array().is_some_and(Vec::is_empty));
        self_upgrade(&place);
        assert!([old, second, new].into_iter().all(lives), "{}", run.stderr());
        place.output("stop", &["a"]).expect(0, &[]);
        assert!(![old, second, new].into_iter().any(lives), "{}", run.stderr());
        place.output("start", &["a"]).expect(0, &[]);
        let (third, newest) = pair(&place, second);
        self_upgrade(&place);
        shut_down(&mut run);
        assert!(!lives(third) && !lives(newest));
    });
}

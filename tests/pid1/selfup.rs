//! PID 1 replaces its own program: it stays the init that it was.

use crate::harness::{Place, text, wait_until};
use crate::namespace::{can_unshare, children, init, run};
use crate::orphans::MAKE_ORPHANS;
use crate::support::copy::copy_program;
use std::fs;

#[test]
fn orphans_are_reaped_and_the_exit_code_is_ours_after_it() {
    if !can_unshare() {
        return;
    }
    let place = Place::new();
    let (fifo, other) = (place.path("fifo"), place.path("other-handoff"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    copy_program(env!("CARGO_BIN_EXE_handoff"), &other);
    // Orphans of before, of which some end in the midst of it; those of after; and its own end.
    let script = format!(
        "(setsid sleep 1000 &); i=0; while [ $i -lt 50 ]; do (setsid sleep 0.$((i + 10)) &); i=$((i + 1)); done
         echo ready >&2; read line < {0}; {MAKE_ORPHANS}\necho made >&2; read line < {0}; exit 7",
        text(&fifo)
    );
    let mut run = run(&place, &[], &["--restart", "never"], &script);
    run.wait_for_text("ready");
    let init = init(&run);
    for program in [text(&other), env!("CARGO_BIN_EXE_handoff"), text(&other)] {
        let said = place.output("self-upgrade", &["--json", program]);
        said.expect(0, &[]);
        assert_eq!(
            (&said.json()["pid"], fs::read_link(format!("/proc/{init}/exe")).unwrap()),
            (&1.into(), program.into())
        );
    }
    fs::write(&fifo, "go\n").unwrap();
    run.wait_for_text("made");
    // The main process, and what sleeps on.
    wait_until("all others are reaped", || (children(init).len() == 2).then_some(()));
    fs::write(&fifo, "go\n").unwrap();
    assert_eq!(run.end(), 7);
    wait_until("nothing is left in the namespace", || place.living().is_empty().then_some(()));
}

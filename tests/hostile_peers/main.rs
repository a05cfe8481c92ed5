//! Liars: processes that speak the protocol as no library does, as a successor, as a supervisor, and as a stranger. Nobody
//! who is honest panics, hangs or leaks because of them, and whoever served goes on.

#[path = "../support/mod.rs"]
mod support;

mod adopted;
mod crowded;
mod deaf;
mod lies;
mod mid_handoff;
mod strangers;
mod successor;
mod supervisor;
mod transfer;

/// The liar, when this executable is started as one.
#[test]
fn liar_main() {
    successor::run();
}

//! The supervisor's driver with real processes, real signals and a scripted peer.

mod handoff_tests;
mod peer;
mod start_tests;
mod support;

/// Not a test: what the started processes run. See [`peer::run`].
#[test]
fn peer_main() {
    peer::run();
}

//! The crash matrix: at each step of a handoff, in each of its three processes, that process is killed, or stopped for
//! longer than everybody waits for it. Somebody serves, never two, and every acknowledged write is there.
//!
//! A run without a crash is traced first: its steps are the matrix. See docs/development.md.

#[path = "../support/mod.rs"]
mod support;

mod build;
mod matrix;
mod moved;
mod run;
mod scenario;

use matrix::Matrix;
use run::Blow;

#[cfg(not(feature = "crash-points"))]
#[test]
fn an_ordinary_build_knows_of_no_point() {
    for file in [env!("CARGO_BIN_EXE_handoff").into(), support::library()] {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.windows(12).any(|bytes| bytes == b"CRASH_POINTS"));
    }
    let with_points = std::fs::read(&build::build().handoff).unwrap();
    assert!(with_points.windows(12).any(|bytes| bytes == b"CRASH_POINTS"));
}

#[test]
fn killed_at_any_step() {
    Matrix::of(Blow::Kill).run();
}

#[test]
fn supervisor_killed_at_any_step_and_started_again_at_once() {
    Matrix::of(Blow::KillAndStart).run();
}

#[test]
fn stopped_at_any_step() {
    Matrix::of(Blow::Stop).run();
}

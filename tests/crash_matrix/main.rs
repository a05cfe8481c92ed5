//! The crash matrix: at each step of a handoff, in each of its three processes, that process is killed, or stopped for
//! longer than everybody waits for it. Somebody serves, never two, and every acknowledged write is there.
//!
//! A run without a crash is traced first: its steps are the matrix. See docs/development.md.

#[path = "../support/mod.rs"]
mod support;

mod build;
mod matrix;
mod run;
mod scenario;

use matrix::Matrix;
use run::Blow;

#[test]
fn killed_at_any_step() {
    Matrix::of(Blow::Kill).run();
}

#[test]
fn stopped_at_any_step() {
    Matrix::of(Blow::Stop).run();
}

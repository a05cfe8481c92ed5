//! Whether units are well, and what follows: `handoff up`, and daemons that do what a file says.

#[path = "../program/harness.rs"]
#[allow(dead_code)] // this test uses a part of it
mod harness;
#[path = "../support/mod.rs"]
mod support;

mod answers;
mod daemon;
mod extended;
mod full;
mod handed;
mod order;
mod watched;

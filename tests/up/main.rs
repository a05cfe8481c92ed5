//! `handoff up` and the commands that act on its units, through the program only.

#[path = "../compiled/mod.rs"]
mod compiled;
#[path = "../support/mod.rs"]
mod support;

mod adopted;
mod deadline;
mod descriptors;
mod ephemeral;
mod faults;
mod handoffs;
mod instance;
mod keys;
mod many;
mod operator;
mod order;
mod place;
mod reload;
mod scene;
mod shown;
mod states;

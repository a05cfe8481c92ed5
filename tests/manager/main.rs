//! The program under something that speaks as systemd does: what it says to it, what it leaves with it, what it takes back.

#[path = "../program/daemons.rs"]
mod daemons;
#[path = "../program/harness.rs"]
#[allow(dead_code)] // this test uses a part of it
mod harness;
#[path = "../support/mod.rs"]
mod support;

mod across;
mod fake;
mod handoffs;
mod itself;
mod many;
mod says;
mod store;
mod unit_files;

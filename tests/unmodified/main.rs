//! Daemons that do not link the library, as they are, replaced under load.

#[path = "../program/harness.rs"]
#[allow(dead_code)] // this test uses a part of it
mod harness;
#[path = "../support/mod.rs"]
mod support;

mod back;
mod clients;
mod failures;
mod golang;
mod gunicorn;
mod leftovers;
mod lighttpd;
mod main_pid;
mod notify;
mod restart;
mod signs;
mod small;
mod stored;

//! What services write: `handoff logs`, and what it costs the services, which is nothing.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../bad_input/mounts.rs"]
mod mounts;
#[path = "../support/mod.rs"]
mod support;

mod bytes;
mod directories;
mod files;
mod flood;
mod harness;
mod killed;
mod lives;
mod readers;
mod units;

//! `handoff run` as PID 1, as in a container: unshare(1) makes the namespace, which needs root.

#[path = "../program/harness.rs"]
#[allow(dead_code)] // this test uses a part of it
mod harness;

mod codes;
mod container;
mod namespace;
mod orphans;
mod selfup;
#[path = "../support/mod.rs"]
mod support;

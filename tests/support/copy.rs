//! Copies of programs.

use std::path::Path;
use std::process::Command;

/// Copies a file that is to be executed. Another process does it: what this one has had open for writing, a child that it forks for
/// another test may still have, and then it can not be executed (`ETXTBSY`).
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    assert!(Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status().unwrap().success());
}

//! Overlap mode, with a web server that has no state.

use super::support::go::{build_go, have_go};
use super::support::overlapping::upgrades_stop_nobody;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A script that becomes the server of the tests with these variables.
pub fn server(dir: &Path, name: &str, variables: &str) -> PathBuf {
    let program = build_go("web-tests", "ffi-tests/go/web", ".", &["-race"]);
    let script = dir.join(name);
    fs::write(&script, format!("#!/bin/sh\n{variables} exec {}\n", program.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn upgrades_in_overlap_mode_stop_nobody() {
    if !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let [a, b] = ["a", "b"].map(|name| server(dir.path(), name, "WEB_MODE=overlap"));
    let slow = server(dir.path(), "slow", &format!("WEB_MODE=overlap WEB_INIT={}", go.display()));
    upgrades_stop_nobody([&a, &b], &slow, &go);
}

//! Programs in Python, with the binding of this tree and the library of this build.

use super::library;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The interpreter itself: `python3` may be a wrapper that takes its time.
pub fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let output = output.expect("python3 is needed");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// A program that becomes this script, with the binding of this tree, the library of this build, and these variables.
pub fn daemon(dir: &Path, name: &str, script: &str, variables: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (python, path) = (python(), root.join("bindings/python"));
    let (library, script) = (library(), root.join(script));
    let (path, library, script) = (path.display(), library.display(), script.display());
    let program = dir.join(name);
    let text =
        format!("#!/bin/sh\nPYTHONPATH={path} HANDOFF_LIBRARY={library} {variables} exec {python} {script} \"$@\"\n");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

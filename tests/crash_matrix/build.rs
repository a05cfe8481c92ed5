//! The program, the library and the stores, with the feature `crash-points`.

use crate::support::compile_with;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

#[allow(dead_code, reason = "each test uses a part of it")]
pub struct Build {
    pub handoff: PathBuf,
    pub kv_a: PathBuf,
    pub kv_b: PathBuf,
    pub faulty: PathBuf,
    pub overlap_a: PathBuf,
    pub overlap_b: PathBuf,
}

/// Builds them, once, in a target directory of their own: no test may ever meet them by accident.
pub fn build() -> &'static Build {
    static BUILD: OnceLock<Build> = OnceLock::new();
    BUILD.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("crash-points");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--lib", "--bin", "handoff", "--features", "crash-points"])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let library = target.join("debug/libhandoff.so");
        let compile =
            |name, source, build: &str| compile_with(&library, name, source, &[&format!("-DBUILD=\"{build}\"")]);
        Build {
            handoff: target.join("debug/handoff"),
            kv_a: compile("kv-a", "examples-c/kv.c", "a"),
            kv_b: compile("kv-b", "examples-c/kv.c", "b"),
            overlap_a: compile("overlap-a", "ffi-tests/c/overlap.c", "a"),
            overlap_b: compile("overlap-b", "ffi-tests/c/overlap.c", "b"),
            faulty: compile("faulty-kv", "ffi-tests/c/faulty_kv.c", "faulty"),
        }
    })
}

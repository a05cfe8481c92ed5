//! Compiles C and C++ against the header and the shared library of this build.

#![allow(dead_code)] // each test program uses a part of this

pub mod hosted;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shared library that belongs to this test: cargo builds every crate type of the library before its integration
/// tests, in `deps`, where the test itself is. (The file of the same name one directory up is only renewed by `cargo build`.)
pub fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libhandoff.so");
    assert!(library.exists(), "{} is missing: is cdylib still a crate type?", library.display());
    library
}

/// A directory of this test program, with the library under the name that programs look for.
pub fn directory() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test.file_name().unwrap());
    fs::create_dir_all(&dir).unwrap();
    let link = dir.join("libhandoff.so.0");
    if fs::read_link(&link).ok() != Some(library()) {
        let fresh = dir.join(format!("link-{:?}", std::thread::current().id()));
        std::os::unix::fs::symlink(library(), &fresh).unwrap();
        fs::rename(&fresh, &link).unwrap(); // tests of this program run side by side
    }
    dir
}

/// Compiles and links a program in C or C++; its path.
pub fn program(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    program_by(if source.ends_with(".cpp") { "c++" } else { "cc" }, name, source, flags)
}

/// The same with this compiler.
pub fn program_by(compiler: &str, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let dir = directory();
    let program = dir.join(name);
    let mut command = Command::new(compiler);
    command.args(["-O1", "-g", "-pthread"]).args(STRICT).args(flags);
    command.arg("-I").arg(root().join("include")).arg("-o").arg(&program).arg(root().join(source));
    command.arg("-L").arg(&dir).args(["-l:libhandoff.so.0", "-Wl,-rpath,$ORIGIN"]);
    expect_success(&mut command);
    program
}

/// For those who look with `--nocapture`.
pub fn passed(gate: &str) {
    println!("gate: {gate}: ok");
}

/// Runs a command that must succeed; its standard output.
pub fn expect_success(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// Whether a tool is there. Its absence is said aloud, and is an error where everything must be tested (`CI=true`).
pub fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{tool} is not installed, and CI=true");
        eprintln!("SKIPPED: {tool} is not installed");
    }
    found
}

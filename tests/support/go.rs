//! Programs in Go, built against the library of this build.

use super::library;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What bindings/go/go.mod asks for.
const MINOR_MIN: u32 = 21;

/// Whether there is a Go that is new enough. Its absence is said aloud, and is an error where everything must be
/// tested (`CI=true`).
pub fn have_go() -> bool {
    static HAVE: OnceLock<bool> = OnceLock::new();
    *HAVE.get_or_init(|| {
        let output = Command::new("go").args(["env", "GOVERSION"]).output();
        let version =
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        let minor = version.strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        let found = minor.is_some_and(|minor| minor >= MINOR_MIN);
        if !found {
            let why = format!("go 1.{MINOR_MIN} or newer is not installed, only \"{version}\"");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}, and CI=true");
            eprintln!("SKIPPED: {why}");
        }
        found
    })
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Of this test program: each has its own, since they run side by side.
fn directory() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("go").join(test.file_name().unwrap())
}

/// `go`, in `module`, which finds the library of this build and needs nothing from outside.
pub fn go(module: &Path, arguments: &[&str]) -> Command {
    static PKG_CONFIG_PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PKG_CONFIG_PATH.get_or_init(|| {
        let mut script = Command::new(root().join("bindings/go/build-tree.sh"));
        let output = script.arg(library().parent().unwrap()).arg(directory()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().into()
    });
    let mut command = Command::new("go");
    command.args(arguments).current_dir(module).env("PKG_CONFIG_PATH", path);
    command.envs([
        ("GOPROXY", "off"),
        ("GOTOOLCHAIN", "local"),
        ("GOFLAGS", "-mod=mod -buildvcs=false"),
        ("GOWORK", "off"),
    ]);
    command
}

/// Builds the program in `module`, a path in this repository, or any other.
pub fn build_go(name: &str, module: impl AsRef<Path>, package: &str, flags: &[&str]) -> PathBuf {
    let program = directory().join(name);
    let fresh = directory().join(format!("{name}.{}", std::process::id()));
    let mut command = go(&root().join(module), &["build"]);
    let output = command.args(flags).arg("-o").arg(&fresh).arg(package).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    // Put into place by a rename: the same test program may run twice at once.
    std::fs::rename(fresh, &program).unwrap();
    program
}

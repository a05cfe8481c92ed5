//! Programs in Go, built against the library of this build.

use super::library;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

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
    let mut command = Command::new("sh");
    command.args(["-c", r#"tree=$("$0" "$1" "$2") && eval "$tree" && shift 2 && exec go "$@""#]);
    command.arg(root().join("bindings/go/build-tree.sh")).arg(library().parent().unwrap()).arg(directory());
    command.args(arguments).current_dir(module);
    command.envs([
        ("GOPROXY", "off"),
        ("GOTOOLCHAIN", "local"),
        ("GOFLAGS", "-mod=mod -buildvcs=false"),
        ("GOWORK", "off"),
    ]);
    command
}

/// Builds the program in `module`, a path in this repository, or any other.
///
/// One at a time: two tests of one process that want the same program would take each other's file away.
pub fn build_go(name: &str, module: impl AsRef<Path>, package: &str, flags: &[&str]) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let (program, fresh) = (directory().join(name), directory().join(format!("{name}.{}", std::process::id())));
    let mut command = go(&root().join(module), &["build"]);
    let output = command.args(flags).arg("-o").arg(&fresh).arg(package).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let (rpath, bytes) = (format!("{}\0", directory().display()), fs::read(&fresh).unwrap());
    let links_this_build = bytes.windows(rpath.len()).any(|window| window == rpath.as_bytes());
    assert!(
        links_this_build || !bytes.windows(8).any(|window| window == b"handoff_"),
        "{name} has the library of another build"
    );
    // Put into place by a rename: this test program may run twice at once.
    fs::rename(fresh, &program).unwrap();
    program
}

//! The unit files of docs/systemd: systemd itself reads them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd");
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "service"));
    assert_eq!(found.len(), 2, "{found:?}");
    found
}

/// The values of a key, in order.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn they_say_what_is_needed() {
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        for (key, value) in [
            ("Type", "notify"),
            ("NotifyAccess", "main"),
            ("KillMode", "process"),
            ("OOMPolicy", "continue"),
            ("Restart", "on-failure"),
            ("Delegate", "yes"),
        ] {
            assert_eq!(values(&text, key), [value], "{key} in {}", unit.display());
        }
        for key in ["ExecStart", "ExecReload", "FileDescriptorStoreMax", "WatchdogSec", "TimeoutStopSec"] {
            assert_eq!(values(&text, key).len(), 1, "{key} in {}", unit.display());
        }
        // What they execute exists: each subcommand has a help text.
        for line in values(&text, "ExecStart").into_iter().chain(values(&text, "ExecReload")) {
            let subcommand = line.split_whitespace().nth(1).unwrap();
            let help = Command::new(env!("CARGO_BIN_EXE_handoff")).args([subcommand, "--help"]).output().unwrap();
            assert!(help.status.success(), "{line}");
            // There may be more than one supervisor.
            assert!(line.contains("--name ") || subcommand == "up", "{line}");
        }
    }
}

#[test]
fn systemd_understands_them() {
    let tool = Command::new("systemd-analyze").arg("--version").output();
    if !tool.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "systemd-analyze is not installed, and CI=true");
        eprintln!("SKIPPED: systemd-analyze is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let verify = |path: &Path| Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output().unwrap();
    for unit in units() {
        // As installed: the program is this one.
        let text = fs::read_to_string(&unit).unwrap();
        let text = text.replace("/usr/local/bin/handoff", env!("CARGO_BIN_EXE_handoff"));
        let name = unit.file_name().unwrap().to_str().unwrap().replace("@.", "@kv.");
        let copy = dir.path().join(name);
        fs::write(&copy, &text).unwrap();
        let output = verify(&copy);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains(copy.to_str().unwrap()), "{}: {said}", unit.display());
        // It would say if it did not.
        let broken = dir.path().join("broken.service");
        fs::write(&broken, text.replace("KillMode=process", "KillMode=everybody")).unwrap();
        let said = verify(&broken).stderr;
        assert!(String::from_utf8_lossy(&said).contains("everybody"), "{}", String::from_utf8_lossy(&said));
    }
}

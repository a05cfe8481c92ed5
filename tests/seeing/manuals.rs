//! Completions and manual pages.

use std::fs;
use std::process::{Command, Output};

use crate::text;

fn handoff(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_handoff")).args(arguments).output().unwrap()
}

#[test]
fn shells_can_read_the_completions() {
    let bash = handoff(&["completions", "bash"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("handoff.bash");
    fs::write(&file, &bash.stdout).unwrap();
    let script = r#". "$1"; COMP_WORDS=(handoff upgrade --dr); COMP_CWORD=2; _handoff handoff --dr upgrade; echo "${COMPREPLY[*]}""#;
    let said = Command::new("bash").args(["-c", script, "bash"]).arg(&file).output().unwrap();
    assert_eq!(text(&said.stdout).trim(), "--dry-run --drain-grace", "{said:?}");
    for (shell, word) in [("zsh", "#compdef handoff"), ("fish", "complete -c handoff")] {
        assert!(text(&handoff(&["completions", shell]).stdout).contains(word), "{shell}");
    }
    assert_eq!(handoff(&["completions", "none"]).status.code(), Some(2));
}

#[test]
fn there_is_a_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    assert!(handoff(&["man", dir.path().to_str().unwrap()]).status.success());
    let page = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(page("handoff.1").contains(".TH handoff 1"));
    for command in ["run", "upgrade", "rollback", "status", "events", "history", "doctor", "check", "add", "remove"] {
        let page = page(&format!("handoff-{command}.1"));
        assert!(page.contains(".SH OPTIONS") && page.contains("xit status"), "{command}:\n{page}");
    }
    assert!(!dir.path().join("handoff-demo-daemon.1").exists(), "it is hidden");
    assert_eq!(handoff(&["man", "/no/such/dir"]).status.code(), Some(1));
}

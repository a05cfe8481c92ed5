//! gunicorn, as it comes from its package.

use crate::clients::{replaced_under_load, run, upgrade};
use crate::harness::{Place, text};
use crate::small::own_address;
use crate::support::python::Python;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const VERSION: &str = "27.0.1";
const APPLICATION: &str = "
import os
def application(environ, start_response):
    body = b'%d\\n' % os.getppid()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
";

/// Installed once, beside what cargo builds. None: it can not be had, which is said aloud, and is an error where everything
/// must be tested (`CI=true`).
fn gunicorn() -> Option<PathBuf> {
    let python = Python::find()?;
    let venv = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("gunicorn-{VERSION}"));
    let program = venv.join("bin/gunicorn");
    if program.exists() {
        return Some(program);
    }
    let succeeds = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let package = format!("gunicorn=={VERSION}");
    let installed = succeeds(Command::new(python.interpreter).args(["-m", "venv", "--clear"]).arg(&venv))
        && succeeds(Command::new(venv.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            &package,
        ]));
    if !installed {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{package} can not be installed, and CI=true");
        eprintln!("SKIPPED: {package} can not be installed");
    }
    installed.then_some(program)
}

/// What the README shows, after `handoff run`.
fn readme_line() -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut lines = readme.lines().filter_map(|line| line.strip_prefix("target/release/handoff run "));
    lines.find(|line| line.contains("gunicorn")).unwrap().to_owned()
}

/// It says READY=1 before its workers have the application. So it is asked: then an application that can not be loaded is
/// undone.
#[test]
fn gunicorn_is_replaced() {
    let Some(gunicorn) = gunicorn() else { return };
    let place = Place::new();
    let application = place.file("app.py", APPLICATION, 0o644);
    let (directory, address) = (text(place.dir.path()), own_address().to_string());
    let line = readme_line().replace("/path/to/app", directory).replace("127.0.0.1:8000", &address);
    let (arguments, command) = line.split_once(" -- gunicorn ").unwrap();
    let command: Vec<&str> = std::iter::once(text(&gunicorn)).chain(command.split_whitespace()).collect();
    let run = run(&place, arguments, &command);
    replaced_under_load(&place, &run, 3, None, || {
        fs::write(&application, "raise RuntimeError('this application is broken')\n").unwrap();
        let (code, outcome) = upgrade(&place, None, "");
        let reason = outcome["reason"].as_str().unwrap();
        assert!(code == 10 && reason.contains("died before it was ready: exit status"), "{outcome}");
        outcome
    });
    assert!(run.stderr().contains("this application is broken"));
}

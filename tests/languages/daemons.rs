//! The same store in every language, each with the same two faults.

use crate::compiled::{directory, have, program, root};
use crate::support::copy::copy_program;
use crate::support::faulty_script;
use crate::support::go::{build_go, have_go};
use crate::support::python::Python;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// `unhealthy` is announced as such, `crash` exits between begin and ready.
pub const FAULTS: [&str; 2] = ["unhealthy", "crash"];

/// A daemon in one language.
pub struct Language {
    /// Its name, and what it says to PING.
    pub name: &'static str,
    /// None: what it takes to build it is not on this machine.
    programs: Option<Programs>,
}

struct Programs {
    good: PathBuf,
    /// Obeys `KV_FAULT`.
    faulty: PathBuf,
}

impl Language {
    pub fn is_there(&self) -> bool {
        self.programs.is_some()
    }

    /// The daemon as it should be.
    pub fn program(&self) -> &Path {
        &self.programs().good
    }

    /// A script that becomes the daemon with this fault.
    pub fn with_fault(&self, dir: &Path, fault: &str) -> PathBuf {
        faulty_script(dir, &self.programs().faulty, fault)
    }

    fn programs(&self) -> &Programs {
        self.programs.as_ref().unwrap_or_else(|| panic!("{} was not built", self.name))
    }
}

/// All of them, built once.
pub fn languages() -> &'static [Language] {
    static LANGUAGES: OnceLock<Vec<Language>> = OnceLock::new();
    LANGUAGES.get_or_init(|| {
        let faulty_c = c("c-faulty", "ffi-tests/c/faulty_kv.c", "c");
        vec![
            language("rust", rust(), None),
            language("c", Some(c("c", "examples-c/kv.c", "c")), Some(faulty_c)),
            language("c-loop", Some(c("c-loop", "ffi-tests/c/kv_loop.c", "c-loop")), None),
            language("c++", cpp(), None),
            language("go", go(), None),
            language("python", python("python", "ffi-tests/python/kv_blocking.py"), None),
            language("asyncio", python("asyncio", "ffi-tests/python/kv_asyncio.py"), None),
        ]
    })
}

/// Most programs have the faults in them.
fn language(name: &'static str, good: Option<PathBuf>, faulty: Option<PathBuf>) -> Language {
    let programs = good.map(|good| Programs { faulty: faulty.unwrap_or_else(|| good.clone()), good });
    Language { name, programs }
}

fn c(name: &str, source: &str, build: &str) -> PathBuf {
    program(&format!("kv-{name}"), source, &["-std=c11", &format!("-DBUILD=\"{build}\"")])
}

fn cpp() -> Option<PathBuf> {
    have("c++").then(|| program("kv-c++", "ffi-tests/cpp/kv.cpp", &["-std=c++17", "-DBUILD=\"c++\""]))
}

fn go() -> Option<PathBuf> {
    have_go().then(|| build_go("kv-go", "ffi-tests/go/kv", ".", &["-ldflags", "-X main.build=go"]))
}

fn python(build: &str, source: &str) -> Option<PathBuf> {
    let source = root().join(source);
    let line = Python::find()?.line(&source.display().to_string(), &format!("KV_BUILD={build}"));
    Some(script(&format!("kv-{build}"), &format!("exec {line}\n")))
}

/// The store of the demo, which stands on the Rust API. That has no word for "unhealthy": it comes up without the last
/// write instead, which is refused at the same moment.
fn rust() -> Option<PathBuf> {
    // A name of its own, or it would be taken for the supervisor.
    let daemon = directory().join("demo-daemon");
    let fresh = directory().join(format!("demo-daemon.{}", std::process::id()));
    let _ = fs::remove_file(&daemon); // not there the first time
    copy_program(env!("CARGO_BIN_EXE_handoff"), &fresh);
    fs::rename(&fresh, &daemon).unwrap();
    let text = "case \"$KV_FAULT\" in crash) export DEMO_FAULT=crash ;; unhealthy) export DEMO_FAULT=lost-write ;; esac\n\
        exec \"${0%/*}/demo-daemon\" demo-daemon \"$HANDOFF_DATA_DIR\" --build rust\n";
    Some(script("kv-rust", text))
}

/// Put into place by a rename: a script that is open for writing can not be executed.
fn script(name: &str, text: &str) -> PathBuf {
    let (script, fresh) = (directory().join(name), directory().join(format!("{name}.{}", std::process::id())));
    fs::write(&fresh, format!("#!/bin/sh\n{text}")).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, &script).unwrap();
    script
}

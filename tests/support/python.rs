//! Daemons in Python.

use super::library;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Python, with the binding of this tree and the library of this build.
pub struct Python {
    /// The interpreter itself: `python3` may be a wrapper that takes its time.
    pub interpreter: &'static str,
    pub dir: tempfile::TempDir,
    /// The library that it loads.
    pub library: PathBuf,
}

impl Python {
    /// None: it is not installed, which is said aloud, and is an error where everything must be tested (`CI=true`).
    pub fn find() -> Option<Self> {
        static INTERPRETER: OnceLock<Option<String>> = OnceLock::new();
        let interpreter = INTERPRETER.get_or_init(|| {
            let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
            Some(String::from_utf8(output.stdout).unwrap().trim().to_owned()).filter(|path| !path.is_empty())
        });
        let Some(interpreter) = interpreter else {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "python3 is not installed, and CI=true");
            eprintln!("SKIPPED: python3 is not installed");
            return None;
        };
        Some(Self { interpreter, dir: tempfile::tempdir().unwrap(), library: library() })
    }

    /// Any program that runs it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PYTHONPATH", binding()).env("LIBHANDOFF", &self.library);
        command
    }

    /// A program of this name that becomes a script, given as from the root of the tree, with arguments and with variables
    /// of its own ("NAME=value ...").
    pub fn daemon(&self, name: &str, script: &str, variables: &str) -> PathBuf {
        self.program(name, &self.line(script, variables))
    }

    /// The shell's line that runs it.
    pub fn line(&self, script: &str, variables: &str) -> String {
        let (path, library, interpreter) = (binding(), self.library.display(), self.interpreter);
        let path = path.display();
        format!("env PYTHONPATH={path} LIBHANDOFF={library} {variables} {interpreter} {script}")
    }

    /// A program of this name that becomes this command, in the root of the tree.
    pub fn program(&self, name: &str, command: &str) -> PathBuf {
        let program = self.dir.path().join(name);
        fs::write(&program, format!("#!/bin/sh\ncd {}\nexec {command}\n", env!("CARGO_MANIFEST_DIR"))).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }
}

/// The directory of the package's source.
pub fn binding() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bindings/python")
}

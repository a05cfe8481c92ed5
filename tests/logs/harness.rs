//! Services that write, and what of it comes out.

use crate::support::{Service, wait_until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A program of this text, in a directory.
pub fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// `handoff run` of a program that does not link the library.
pub struct Run {
    pub place: Service,
    child: Child,
}

impl Run {
    pub fn start(text: &str, arguments: &[&str]) -> Self {
        let place = Service::place();
        let stderr = fs::File::create(place.path("run.stderr")).unwrap();
        Self::start_at(place, text, arguments, stderr)
    }

    /// One whose own standard error goes elsewhere.
    pub fn start_at(place: Service, text: &str, arguments: &[&str], stderr: fs::File) -> Self {
        let program = script(place.dir.path(), "program", text);
        let mut command = place.command("run");
        command.current_dir(place.dir.path()).args(arguments).arg("--").arg(program);
        command.stdout(Stdio::null()).stderr(stderr);
        let run = Self { child: command.spawn().unwrap(), place };
        wait_until("an answer", || run.place.status());
        run
    }

    /// `handoff up` of these units, which may not have started yet.
    pub fn up(place: Service, units: &str) -> Self {
        let config = place.path("units.toml");
        fs::write(&config, units).unwrap();
        let stderr = fs::File::options().create(true).append(true).open(place.path("run.stderr")).unwrap();
        let mut command = place.command("up");
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(stderr);
        let run = Self { child: command.spawn().unwrap(), place };
        wait_until("its units", || run.services().filter(|units| !units.is_empty()));
        run
    }

    pub fn services(&self) -> Option<Vec<Value>> {
        let output = self.place.command("status").arg("--json").output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).ok()?["services"].as_array().cloned()
    }

    /// The entry of one unit in the status.
    pub fn unit(&self, name: &str) -> Value {
        let services = self.services().expect("the supervisor answers");
        services.into_iter().find(|unit| unit["name"] == name).unwrap()
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn logs(&self, arguments: &[&str]) -> Vec<u8> {
        logs(&self.place, arguments)
    }

    pub fn lines(&self) -> Vec<Value> {
        lines(&self.place, &[])
    }

    /// The lines, when there are so many.
    pub fn wait_for_lines(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} lines"), || Some(self.lines()).filter(|lines| lines.len() >= count))
    }

    pub fn status(&self) -> Value {
        self.place.status().expect("the supervisor answers")
    }
}

impl Run {
    /// After its death: what runs there goes on.
    pub fn into_place(mut self) -> Service {
        self.child.wait().unwrap();
        std::mem::replace(&mut self.place, Service::place())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read(self.place.path("run.stderr")).unwrap_or_default();
            eprintln!("---- handoff run said:\n{}", String::from_utf8_lossy(&said));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `handoff logs` writes; it must have succeeded.
pub fn logs(place: &Service, arguments: &[&str]) -> Vec<u8> {
    let output = place.command("logs").args(arguments).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    output.stdout
}

/// The same with `--json`, line by line.
pub fn lines(place: &Service, arguments: &[&str]) -> Vec<Value> {
    let text = logs(place, &[&["--json"], arguments].concat());
    text.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

pub fn text(line: &Value) -> &str {
    line["text"].as_str().unwrap_or_else(|| panic!("no text: {line}"))
}

/// `handoff logs -f`, which goes on until this is dropped.
pub struct Follower {
    child: Child,
    pub out: Option<BufReader<ChildStdout>>,
}

impl Follower {
    pub fn start(place: &Service, arguments: &[&str]) -> Self {
        let mut command: Command = place.command("logs");
        command.arg("-f").args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().map(BufReader::new);
        Self { child, out }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// None at its end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.out.as_mut().unwrap().read_line(&mut line).unwrap() > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    pub fn json(&mut self) -> Option<Value> {
        self.line().map(|line| serde_json::from_str(&line).unwrap())
    }

    pub fn end(&mut self) -> Option<i32> {
        let child = &mut self.child;
        wait_until("the end of handoff logs", || child.try_wait().unwrap()).code()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

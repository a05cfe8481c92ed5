//! A supervisor of units that are small shell scripts, and what they have done, in order.

use crate::support::{SIGTERM, Service, lives, signal, wait_until};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Child;

/// A unit that writes down when it starts, and when it has stopped, which takes it a while.
pub fn daemon(name: &str, keys: &str) -> String {
    let script = format!(
        "echo {name} starts >> \"$LOG\"; trap 'sleep 0.1; echo {name} stops >> \"$LOG\"; exit 0' TERM; echo >&3; sleep 1000 & wait"
    );
    format!("[unit.{name}]\nexec = {script:?}\nshell = true\nmode = 'none'\nready = 'fd=3'\n{keys}\n")
}

/// A oneshot that writes down when it begins, waits for a file of its name, and ends with what is in it.
pub fn task(name: &str, keys: &str) -> String {
    let script = format!(
        "echo {name} begins >> \"$LOG\"; until test -s \"$DIR/{name}\"; do sleep 0.01; done; echo {name} ends >> \"$LOG\"; exit $(cat \"$DIR/{name}\")"
    );
    format!("[unit.{name}]\nexec = {script:?}\nshell = true\noneshot = true\n{keys}\n")
}

/// What a command left.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The exit code, and these words in what it said.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "{word:?} is missing in {self:?}");
        }
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A directory with a configuration. Dropped, every process that was started from here ends.
pub struct Scene {
    up: Option<Child>,
    pub place: Service,
}

impl Scene {
    /// Nothing runs yet.
    pub fn place(units: &str) -> Self {
        let mut place = Service::place();
        place.environment = vec![("LOG", place.path("log")), ("DIR", place.path(""))];
        fs::write(place.path("units.toml"), units).unwrap();
        fs::write(place.path("log"), "").unwrap();
        Self { up: None, place }
    }

    pub fn up(units: &str) -> Self {
        let mut scene = Self::place(units);
        scene.launch();
        scene
    }

    /// Starts it, and waits until it answers.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// The same, with further arguments of `handoff up`.
    pub fn launch_with(&mut self, arguments: &[&str]) {
        self.begin_launch(arguments);
        self.wait_for_answer();
    }

    /// Until it answers, or ends.
    pub fn wait_for_answer(&self) {
        let pid = self.supervisor();
        wait_until("it answers", || (self.run("status", &["--json"]).code == 0 || !lives(pid)).then_some(()));
    }

    /// Only the first half.
    pub fn begin_launch(&mut self, arguments: &[&str]) {
        let stderr = fs::File::options().create(true).append(true).open(self.place.path("up.stderr")).unwrap();
        let mut command = self.place.command("up");
        let up = command.arg("-c").arg(self.config()).args(arguments).stderr(stderr).spawn().unwrap();
        self.up = Some(up);
    }

    pub fn config(&self) -> PathBuf {
        self.place.path("units.toml")
    }

    pub fn write(&self, units: &str) {
        fs::write(self.config(), units).unwrap();
    }

    /// Lets a task end with this status.
    pub fn end_task(&self, name: &str, status: i32) {
        fs::write(self.place.path("new"), format!("{status}\n")).unwrap();
        fs::rename(self.place.path("new"), self.place.path(name)).unwrap();
    }

    pub fn run(&self, command: &str, arguments: &[&str]) -> Said {
        let output = self.place.command(command).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// A command that goes on.
    pub fn begin(&self, command: &str, arguments: &[&str]) -> Child {
        let mut command = self.place.command(command);
        command.args(arguments).stdout(std::process::Stdio::null()).spawn().unwrap()
    }

    /// All units, as `handoff status` has them.
    pub fn status(&self) -> Vec<Value> {
        let said = self.run("status", &["--json"]);
        said.expect(0, &[]).json()["services"].as_array().unwrap().clone()
    }

    pub fn unit(&self, name: &str) -> Value {
        let all = self.status();
        all.iter().find(|unit| unit["name"] == name).unwrap_or_else(|| panic!("{name} is not in {all:?}")).clone()
    }

    #[track_caller]
    pub fn wait_for(&self, name: &str, state: &str) -> Value {
        wait_until(&format!("{name} is {state}; {}", self.stderr()), || {
            Some(self.unit(name)).filter(|unit| unit["state"] == state)
        })
    }

    #[track_caller]
    pub fn all_run(&self, names: &[&str]) {
        names.iter().for_each(|name| drop(self.wait_for(name, "running")));
    }

    pub fn pid(&self, name: &str) -> i32 {
        let unit = self.unit(name);
        unit["pid"].as_i64().unwrap_or_else(|| panic!("no pid: {unit}")) as i32
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.place.path("up.stderr")).unwrap_or_default()
    }

    /// What the units have done, in order.
    pub fn log(&self) -> Vec<String> {
        fs::read_to_string(self.place.path("log")).unwrap().lines().map(str::to_owned).collect()
    }

    /// When something was done, counted from 0.
    #[track_caller]
    pub fn when(&self, what: &str) -> usize {
        let log = self.log();
        log.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what:?} is not in {log:?}"))
    }

    pub fn supervisor(&self) -> i32 {
        self.up.as_ref().unwrap().id() as i32
    }

    /// Its exit code, when it has ended.
    pub fn end(&mut self) -> i32 {
        let mut up = self.up.take().unwrap();
        wait_until("the end of handoff up", || up.try_wait().unwrap()).code().unwrap_or(-1)
    }

    pub fn stop(&mut self) -> i32 {
        signal(self.supervisor(), SIGTERM);
        self.end()
    }

    /// kill -9 of the supervisor.
    pub fn kill(&mut self) {
        let mut up = self.up.take().unwrap();
        up.kill().unwrap();
        up.wait().unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- handoff up said:\n{}\n---- done was: {:?}", self.stderr(), self.log());
        }
        if let Some(mut up) = self.up.take() {
            let _ = up.kill();
            let _ = up.wait();
        }
    }
}

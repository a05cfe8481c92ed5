//! From a table to a unit.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use super::fault::{Place, shown};
use super::table::{Table, Value};
use super::unit::{
    Check, Command, Condition, Dependency, Health, Limit, LogBudget, Mode, Ready, StopStep, Target, Unit,
};
use crate::error::Error;
use crate::service::address::{Address, ListenSpec};
use crate::service::parse;
use crate::service::unit::restart::{Backoff, Policy, RestartLimit};
use crate::supervisor::{self, GOOD_STATUSES, check_variable};
use std::ffi::OsStr;

/// The keys of `[unit.NAME]`, in the order of docs/units.md.
pub const UNIT_KEYS: &[&str] = &[
    "exec",
    "shell",
    "dir",
    "env",
    "env_file",
    "user",
    "group",
    "umask",
    "rlimits",
    "no_new_privs",
    "oom_score_adj",
    "listen",
    "data_dir",
    "ready",
    "start_timeout",
    "autostart",
    "oneshot",
    "system",
    "requires",
    "wants",
    "after",
    "conflicts",
    "pre_start",
    "post_stop",
    "stop",
    "restart",
    "backoff",
    "restart_limit",
    "health",
    "watchdog",
    "mode",
    "probation",
    "deadline",
    "drain_grace",
    "ready_timeout",
    "hello_timeout",
    "max_draining",
    "log",
];
/// The keys of `[target.NAME]`.
pub const TARGET_KEYS: &[&str] = &["units"];
/// The keys of `health`.
pub const HEALTH_KEYS: &[&str] = &["url", "status", "exec", "interval", "timeout", "retries"];
/// The keys of `backoff`.
pub const BACKOFF_KEYS: &[&str] = &["first", "max", "reset"];
/// The keys of `restart_limit`.
pub const RESTART_LIMIT_KEYS: &[&str] = &["count", "window"];
/// The keys of `log`.
pub const LOG_KEYS: &[&str] = &["lines", "bytes", "dir", "file_bytes", "files"];
/// The keys of `rlimits`: the resources of setrlimit(2), in small letters and without their prefix.
pub const RLIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `sun_path` without its end (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What a table says, and where it says it: by key, one place for each element of a list that could be read.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub(super) value: T,
    pub(super) places: BTreeMap<String, Vec<Place>>,
}

/// A table that is being read.
struct Reader<'a> {
    table: Table<'a>,
    shell: bool,
    places: BTreeMap<String, Vec<Place>>,
}

pub(super) fn target(table: Table<'_>) -> Read<Target> {
    let mut reader = Reader { table, shell: false, places: BTreeMap::new() };
    let units = reader.list("units", "[\"NAME\", …]", |value| value.parsed("the name of a unit", name));
    if reader.table.get("units").is_none() {
        table.scope.fault(table.at, None, "there is no 'units'; write units = [\"NAME\", …]");
    }
    Read { value: Target { units }, places: reader.places }
}

pub(super) fn unit(table: Table<'_>) -> Read<Unit> {
    let shell = table.read("shell", Value::boolean);
    let mut reader = Reader { table, shell: shell.unwrap_or_default(), places: BTreeMap::new() };
    let usual = Unit::default();
    if table.get("exec").is_none() {
        table.scope.fault(table.at, None, "there is no 'exec'; write exec = [\"/path/of/program\", \"argument\", …]");
    }
    let value = Unit {
        exec: reader.command("exec").unwrap_or(usual.exec),
        listen: reader.list("listen", "[\"NAME=127.0.0.1:80\", …]", listener),
        mode: reader.value("mode", mode).unwrap_or(usual.mode),
        ready: reader.value("ready", ready).unwrap_or(usual.ready),
        data_dir: reader.value("data_dir", Value::path),
        dir: reader.value("dir", Value::path),
        env: reader.value("env", environment).unwrap_or(usual.env),
        env_file: reader.value("env_file", Value::path),
        user: reader.value("user", account),
        group: reader.value("group", account),
        umask: reader.value("umask", umask),
        rlimits: reader.value("rlimits", rlimits).unwrap_or(usual.rlimits),
        no_new_privs: reader.value("no_new_privs", Value::boolean).unwrap_or(usual.no_new_privs),
        oom_score_adj: reader.value("oom_score_adj", |value| value.integer(-1000..=1000)).map(|adj| adj as i32),
        autostart: reader.value("autostart", Value::boolean).unwrap_or(usual.autostart),
        requires: reader.dependencies("requires"),
        wants: reader.dependencies("wants"),
        after: reader.dependencies("after"),
        conflicts: reader.list("conflicts", "[\"NAME\", …]", |value| value.parsed("the name of a unit", name)),
        oneshot: reader.value("oneshot", Value::boolean).unwrap_or(usual.oneshot),
        system: reader.value("system", Value::boolean).unwrap_or(usual.system),
        pre_start: reader.command("pre_start"),
        post_stop: reader.command("post_stop"),
        stop: reader.stop().unwrap_or(usual.stop),
        restart: reader.value("restart", restart).unwrap_or(usual.restart),
        backoff: reader.value("backoff", |value| backoff(value, usual.backoff)).unwrap_or(usual.backoff),
        restart_limit: reader
            .value("restart_limit", |value| restart_limit(value, usual.restart_limit))
            .unwrap_or(usual.restart_limit),
        start_timeout: reader.value("start_timeout", Value::duration).unwrap_or(usual.start_timeout),
        health: reader.health(),
        watchdog: reader.value("watchdog", Value::duration),
        probation: reader.value("probation", Value::duration),
        log: reader.value("log", log).unwrap_or(usual.log),
        deadline: reader.value("deadline", Value::duration).unwrap_or(usual.deadline),
        drain_grace: reader.value("drain_grace", Value::duration).unwrap_or(usual.drain_grace),
        ready_timeout: reader.value("ready_timeout", Value::duration).unwrap_or(usual.ready_timeout),
        hello_timeout: reader.value("hello_timeout", Value::duration).unwrap_or(usual.hello_timeout),
        max_draining: reader
            .value("max_draining", |value| value.integer(1..=i64::MAX))
            .map_or(usual.max_draining, |number| number as usize),
    };
    reader.check_shell(shell);
    Read { value, places: reader.places }
}

impl<'a> Reader<'a> {
    fn value<T>(&mut self, key: &str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<T> {
        let value = self.table.get(key)?;
        self.places.insert(key.to_owned(), vec![value.place()]);
        read(value)
    }

    fn list<T>(&mut self, key: &str, wanted: &str, mut read: impl FnMut(Value<'a>) -> Option<T>) -> Vec<T> {
        let elements = self.table.get(key).and_then(|value| value.elements(wanted));
        let mut found = Vec::new();
        for element in elements.unwrap_or_default() {
            let place = element.place();
            if let Some(value) = read(element) {
                found.push(value);
                self.places.entry(key.to_owned()).or_default().push(place);
            }
        }
        found
    }

    fn dependencies(&mut self, key: &str) -> Vec<Dependency> {
        let wanted = "a name, like \"db\" or \"db:healthy\"";
        self.list(key, "[\"NAME\", \"NAME:CONDITION\", …]", |value| value.parsed(wanted, dependency))
    }

    fn command(&mut self, key: &str) -> Option<Command> {
        let shell = self.shell;
        self.value(key, |value| command(value, shell))
    }

    fn health(&mut self) -> Option<Health> {
        let shell = self.shell;
        self.value("health", |value| health(value.table("health", Some(HEALTH_KEYS))?, shell))
    }

    fn stop(&mut self) -> Option<Vec<StopStep>> {
        let value = self.table.get("stop")?;
        let steps = self.list("stop", "[\"TERM 10s\", \"KILL\"]", |step| {
            step.parsed("a signal and a time, like \"TERM 10s\", or \"KILL\"", stop_step)
        });
        if steps.len() < value.elements("")?.len() {
            return None;
        }
        let kills = |step: &StopStep| step.wait.is_none();
        if steps.iter().position(kills) != steps.len().checked_sub(1) {
            value.fault("nothing else surely ends a process; write \"KILL\" once, as the last step");
            return None;
        }
        Some(steps)
    }

    /// `shell = true` must mean something.
    fn check_shell(&self, shell: Option<bool>) {
        let of_health = self.table.get("health").and_then(|value| value.table("health", None)?.get("exec"));
        let commands = ["exec", "pre_start", "post_stop"].into_iter().filter_map(|key| self.table.get(key));
        let any = commands.chain(of_health).any(|value| value.is_string());
        if let (Some(true), false, Some(value)) = (shell, any, self.table.get("shell")) {
            value.fault("no command is a string for a shell; leave shell out, or write exec = \"COMMAND | COMMAND\"");
        }
    }
}

fn command(value: Value<'_>, shell: bool) -> Option<Command> {
    let wanted = "[\"/path/of/program\", \"argument\", …]";
    if value.is_string() {
        if !shell {
            value.fault(format!("a string would need a shell; write {wanted}, or add shell = true"));
            return None;
        }
        let line = value.clone().string()?;
        if line.trim().is_empty() {
            value.fault("the command is empty; write one");
            return None;
        }
        return Some(Command::Shell(line));
    }
    let elements = value.elements(wanted)?;
    let count = elements.len();
    let argv: Vec<String> = elements.into_iter().filter_map(Value::string).collect();
    if argv.first().is_none_or(String::is_empty) && argv.len() == count {
        value.fault(format!("there is no program; write {wanted}"));
        return None;
    }
    (argv.len() == count).then_some(Command::Argv(argv))
}

fn listener(value: Value<'_>) -> Option<ListenSpec> {
    value.parsed("\"NAME=127.0.0.1:80\"", |text| {
        let address = text.split_once('=').map_or(text, |(_, address)| address);
        if address.strip_prefix("unix:").is_some_and(|path| !path.starts_with(['/', '@'])) {
            return Err(format!("listener '{}': the path is not from the root; write unix:/path", shown(text)));
        }
        let listener: ListenSpec = text.parse().map_err(|error: Error| error.to_string())?;
        match &listener.address {
            Address::Unix(path) if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX => Err(format!(
                "listener '{}': a socket's path has {SOCKET_PATH_BYTES_MAX} bytes at most; write a shorter one",
                shown(text)
            )),
            _ => Ok(listener),
        }
    })
}

fn mode(value: Value<'_>) -> Option<Mode> {
    value.one_of(&[
        ("exclusive", Mode::Handoff(supervisor::Mode::Exclusive)),
        ("overlap", Mode::Handoff(supervisor::Mode::Overlap)),
        ("none", Mode::None),
    ])
}

fn ready(value: Value<'_>) -> Option<Ready> {
    let wanted = "linked, notify, fd=N, health, health=URL or delay=TIME, in quotes";
    value.parsed(wanted, |text| match text {
        "linked" => Ok(Ready::Linked),
        "health" => Ok(Ready::Health),
        _ if ["fd=", "health=", "delay="].iter().any(|sign| text.starts_with(sign)) || text == "notify" => {
            parse::readiness(text).map(Ready::Sign)
        }
        _ => Err(format!("'{}' is no sign; write {wanted}", shown(text))),
    })
}

fn restart(value: Value<'_>) -> Option<Policy> {
    value.one_of(&[("always", Policy::Always), ("on-failure", Policy::OnFailure), ("never", Policy::Never)])
}

fn environment(value: Value<'_>) -> Option<BTreeMap<String, String>> {
    let table = value.table("env", None)?;
    let mut variables = BTreeMap::new();
    for (name, value) in table.entries() {
        if let Err(error) = check_variable(OsStr::new(name)) {
            table.scope.fault(value.key_at, Some(&value.key), format!("{error}; choose another name"));
        }
        if let Some(value) = value.string() {
            variables.insert(name.to_owned(), value);
        }
    }
    Some(variables)
}

/// The name of a user or group, or its number in quotes.
fn account(value: Value<'_>) -> Option<String> {
    value.parsed("a name, or a number in quotes", |text| {
        let wrong = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',');
        if text.is_empty() || text.starts_with('-') || text.contains(wrong) {
            return Err(format!(
                "'{}' can not be the name of a user or group; write \"www-data\" or \"33\"",
                shown(text)
            ));
        }
        // The last number means nobody (setresuid(2)).
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && !text.parse().is_ok_and(|number: u32| number < u32::MAX) {
            return Err(format!(
                "{} can not be the number of a user or group; write one below {}",
                shown(text),
                u32::MAX
            ));
        }
        Ok(text.to_owned())
    })
}

fn umask(value: Value<'_>) -> Option<u32> {
    value.parsed("an octal number in quotes, like \"0027\"", |text| {
        let octal = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mask = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mask| *mask <= 0o777);
        mask.ok_or_else(|| format!("'{}' is no umask; write an octal number up to 0777, like \"0027\"", shown(text)))
    })
}

fn rlimits(value: Value<'_>) -> Option<BTreeMap<&'static str, Limit>> {
    let table = value.table("rlimits", Some(RLIMITS))?;
    let limit = |name: &&'static str| Some((*name, table.read(name, limit)?));
    Some(RLIMITS.iter().filter_map(limit).collect())
}

fn limit(value: Value<'_>) -> Option<Limit> {
    let wanted = "a number of 0 or more, \"unlimited\", or \"SOFT:HARD\"";
    if value.number().is_some() {
        let number = value.integer(0..=i64::MAX)?;
        return Some(Limit { soft: Some(number as u64), hard: Some(number as u64) });
    }
    value.parsed(wanted, |text| {
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        let wrong = || format!("'{}' is no limit; write {wanted}", shown(text));
        let one = |text: &str| match text {
            "unlimited" => Ok(None),
            _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => Err(wrong()),
            number => number.parse().map(Some).map_err(|_| wrong()),
        };
        let limit = Limit { soft: one(soft)?, hard: one(hard)? };
        match limit.soft.unwrap_or(u64::MAX) > limit.hard.unwrap_or(u64::MAX) {
            true => Err(format!("'{text}' has a soft limit above the hard one; write the smaller one first")),
            false => Ok(limit),
        }
    })
}

fn backoff(value: Value<'_>, usual: Backoff) -> Option<Backoff> {
    let table = value.table("backoff", Some(BACKOFF_KEYS))?;
    let first = table.read("first", Value::duration);
    let max = table.read("max", Value::duration);
    let reset = table.read("reset", Value::duration).unwrap_or(usual.reset);
    // The one that was not written follows the other.
    let backoff = match (first, max) {
        (Some(first), None) => Backoff { first, max: usual.max.max(first), reset },
        (None, Some(max)) => Backoff { first: usual.first.min(max), max, reset },
        (first, max) => Backoff { first: first.unwrap_or(usual.first), max: max.unwrap_or(usual.max), reset },
    };
    if let (true, Some(value)) = (backoff.first > backoff.max, table.get("first")) {
        value.fault("the first wait is longer than the longest; make 'first' smaller or 'max' larger");
    }
    Some(backoff)
}

fn restart_limit(value: Value<'_>, usual: RestartLimit) -> Option<RestartLimit> {
    let table = value.table("restart_limit", Some(RESTART_LIMIT_KEYS))?;
    Some(RestartLimit {
        count: table.read("count", |value| value.integer(1..=10_000)).map_or(usual.count, |count| count as usize),
        window: table.read("window", Value::duration).unwrap_or(usual.window),
    })
}

fn log(value: Value<'_>) -> Option<LogBudget> {
    let usual = LogBudget::default();
    let table = value.table("log", Some(LOG_KEYS))?;
    let size = |key| table.read(key, |value| value.parsed("a size in quotes, like \"64KiB\"", parse::size));
    let budget = LogBudget {
        lines: table.read("lines", |value| value.integer(1..=i64::MAX)).map_or(usual.lines, |lines| lines as usize),
        bytes: size("bytes").unwrap_or(usual.bytes),
        dir: table.read("dir", Value::path),
        file_bytes: size("file_bytes").map_or(usual.file_bytes, |bytes| bytes as u64),
        files: table.read("files", |value| value.integer(1..=1000)).map_or(usual.files, |files| files as usize),
    };
    if table.get("dir").is_none() {
        for value in ["file_bytes", "files"].iter().filter_map(|key| table.get(key)) {
            value.fault("without a 'dir' nothing is written to files; add dir = \"/var/log/app\", or leave it out");
        }
    }
    Some(budget)
}

fn health(table: Table<'_>, shell: bool) -> Option<Health> {
    let status = table.read("status", |value| value.parsed("\"200\" or \"200-299\"", statuses));
    let url = table.read("url", |value| value.parsed("\"http://127.0.0.1:80/path\"", parse::health));
    let exec = table.read("exec", |value| command(value, shell));
    let usual = Health::new(Check::Exec(Command::Argv(Vec::new())));
    let (interval, timeout) = (table.read("interval", Value::duration), table.read("timeout", Value::duration));
    let retries = table.read("retries", |value| value.integer(1..=1000));
    match (table.get("url"), table.get("exec"), table.get("status")) {
        (Some(_), Some(exec), _) => exec.fault("there is a url, too, and one thing is asked; leave one of them out"),
        (None, None, _) => table.scope.fault(table.at, Some("health"), "nothing is asked; write a url, or exec = […]"),
        (_, _, Some(status))
            if url.as_ref().is_none_or(|url| url.path.is_none()) && (exec.is_some() || url.is_some()) =>
        {
            status.fault("only http:// and http+unix:// have a status; leave it out");
        }
        _ => {}
    }
    let check = match (url, exec) {
        (Some(url), _) => Check::Socket(supervisor::Health { status: status.unwrap_or(GOOD_STATUSES), ..url }),
        (None, Some(exec)) => Check::Exec(exec),
        (None, None) => return None,
    };
    Some(Health {
        check,
        interval: interval.unwrap_or(usual.interval),
        timeout: timeout.unwrap_or(usual.timeout),
        retries: retries.map_or(usual.retries, |retries| retries as u32),
    })
}

fn statuses(text: &str) -> Result<(u16, u16), String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    match (status(least), status(most)) {
        (Some(least), Some(most)) if least <= most => Ok((least, most)),
        _ => Err(format!("'{}' is no status of HTTP; write \"200\" or \"200-299\", from 100 to 599", shown(text))),
    }
}

fn stop_step(text: &str) -> Result<StopStep, String> {
    let (signal, time) = text.split_once(' ').map_or((text, None), |(signal, time)| (signal, Some(time.trim())));
    match (signal.to_ascii_uppercase().as_str(), time) {
        ("KILL" | "SIGKILL", None) => Ok(StopStep { signal: Signal::SIGKILL, wait: None }),
        ("KILL" | "SIGKILL", Some(_)) => Err("KILL needs no time, since nothing comes after it; write \"KILL\"".into()),
        (_, None) => Err(format!("'{}' has no time; write how long it may take, like \"TERM 10s\"", shown(text))),
        (_, Some(time)) => Ok(StopStep { signal: parse::signal(signal)?, wait: Some(parse::duration(time)?) }),
    }
}

fn dependency(text: &str) -> Result<Dependency, String> {
    let (unit, condition) = text.split_once(':').map_or((text, None), |(unit, condition)| (unit, Some(condition)));
    let condition = match condition {
        None => None,
        Some("started") => Some(Condition::Started),
        Some("healthy") => Some(Condition::Healthy),
        Some("completed") => Some(Condition::Completed),
        Some(other) => {
            return Err(format!("'{}' is no condition; write started, healthy or completed", shown(other)));
        }
    };
    Ok(Dependency { unit: name(unit)?, condition })
}

/// Whether there can be a unit of this name is seen when all are known.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("the name is empty; write that of a unit".to_owned()) } else { Ok(text.to_owned()) }
}

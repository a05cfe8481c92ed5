//! The command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::demo::DemoArgs;
use crate::demo::daemon::DaemonArgs;
use clap::{Parser, Subcommand, ValueEnum};
use handoff::service::address::ListenSpec;
use handoff::service::restart::Policy;
use handoff::service::{self, Times};
use handoff::supervisor::{Health, HealthAddress, Mode, ReadySign};
use nix::sys::signal::Signal;

/// Replaces the binary of a running daemon: no connection refused, no acknowledged write lost
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a daemon in the foreground, on listeners that outlive it
    Run(RunArgs),
    /// Replace a running daemon by a new process, and wait for the outcome
    Upgrade(UpgradeArgs),
    /// Go back to the program before the present one, and wait for the outcome
    Rollback(RollbackArgs),
    /// Show what runs
    Status(StatusArgs),
    /// Replace a key-value store under load, some builds of it bad, and count what was lost
    Demo(DemoArgs),
    #[command(hide = true)]
    DemoDaemon(DaemonArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "The daemon finds its listeners by LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID, as under systemd.

Exit status: the daemon's own, 128+n if signal n killed it; 125 if handoff itself failed, 126 if the
program can not be executed, 127 if it (or its interpreter) was not found, 2 for a wrong argument.

Signals: TERM, INT and QUIT stop the daemon (TERM, after 10 s KILL; INT or QUIT again: KILL at once). HUP,
USR1, USR2 and WINCH are passed on to a daemon that handles them, and ignored otherwise; the HUP of a
terminal that closes stops the daemon.")]
pub struct RunArgs {
    /// A socket for the daemon: NAME=127.0.0.1:80, NAME=[::1]:80, NAME=unix:/path, NAME=udp:127.0.0.1:53; port 0
    /// lets the kernel choose; options: ,blocking ,backlog=N ,mode=0660 ,sockets=N
    /// (N sockets with SO_REUSEPORT, all with this name)
    #[arg(long, value_name = "NAME=ADDR")]
    pub listen: Vec<ListenSpec>,
    /// The directory that the daemon writes to (HANDOFF_DATA_DIR)
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// When a daemon that ended is started again [default: on-failure, but a first start that fails by itself is final]
    #[arg(long, value_enum)]
    pub restart: Option<Restart>,
    /// Whether a successor begins when its predecessor has stopped, or serves beside it for a while [default: exclusive];
    /// of daemons that link libhandoff their own modes decide
    #[arg(long, value_enum)]
    pub mode: Option<HandoffMode>,
    /// How a daemon that does not link libhandoff tells that it is ready: notify (READY=1 to NOTIFY_SOCKET), fd=N (a line
    /// end on that descriptor), health=tcp://IP:PORT, health=http://IP:PORT/PATH (status 200 to 399), the same over a Unix socket,
    /// health=unix:/SOCKET and health=http+unix://%2FSOCKET/PATH, delay=TIME.
    /// Needs --mode overlap; then it can be upgraded
    #[arg(long, value_name = "SIGN", value_parser = readiness)]
    pub ready: Option<ReadySign>,
    /// During a probation (--probation, here or of upgrade), ask the process that serves every second whether it is well:
    /// tcp://IP:PORT, http://IP:PORT/PATH (status 200 to 399). If it fails three times in a row, it is killed, and the one before it takes over;
    /// when the probation is over, it must answer once more
    #[arg(long, value_name = "URL", value_parser = health)]
    pub health: Option<Health>,
    /// What makes a daemon stop: when it is replaced in mode overlap, or the service ends
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal)]
    pub stop_signal: Signal,
    /// Daemons in overlap mode: how many processes that were replaced may serve their last clients at the same time, 1 or
    /// more [default: 2]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_draining: Option<usize>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub times: TimeArgs,
    /// Report events as JSON lines on standard error
    #[arg(long)]
    pub json: bool,
    /// The daemon and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD", value_parser = not_empty)]
    pub command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum HandoffMode {
    /// Only one process serves at any time
    Exclusive,
    /// The successor serves before the incumbent stops
    Overlap,
}

impl RunArgs {
    /// What is wrong with options that are good one by one.
    pub fn check_together(&self) -> Result<(), &'static str> {
        let overlap = matches!(self.mode, Some(HandoffMode::Overlap));
        if self.ready.is_some() && !overlap {
            return Err(
                "--ready is for daemons that do not link libhandoff, which can be replaced side by side only: add \
                        --mode overlap, or leave --ready out",
            );
        }
        if self.health.is_some() && overlap {
            return Err(
                "--health asks during a probation, and in --mode overlap there is no probation: leave one of them out; \
                        --ready health=URL is what tells there whether a new process is ready",
            );
        }
        if self.max_draining.is_some() && matches!(self.mode, Some(HandoffMode::Exclusive)) {
            return Err(
                "--max-draining counts processes that were replaced in overlap mode, of which there are none in \
                        --mode exclusive: leave one of them out",
            );
        }
        Ok(())
    }
}

impl From<HandoffMode> for Mode {
    fn from(mode: HandoffMode) -> Self {
        match mode {
            HandoffMode::Exclusive => Self::Exclusive,
            HandoffMode::Overlap => Self::Overlap,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Restart {
    /// Whatever it ended with
    Always,
    /// When it ended with a status other than 0, or by a signal
    OnFailure,
    /// Never
    Never,
}

impl Restart {
    pub fn policy(this: Option<Self>) -> Policy {
        match this {
            Some(Self::Always) => Policy::Always,
            Some(Self::OnFailure) => Policy::OnFailure,
            Some(Self::Never) => Policy::Never,
            None => Policy::OnceUp,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WhenDraining {
    /// Wait for the end of one, but not longer than the deadline; Ctrl-C gives it up, as nothing has begun
    Wait,
    /// Be refused
    Refuse,
    /// End the oldest
    Cut,
}

impl From<WhenDraining> for service::WhenDraining {
    fn from(this: WhenDraining) -> Self {
        match this {
            WhenDraining::Wait => Self::Wait,
            WhenDraining::Refuse => Self::Refuse,
            WhenDraining::Cut => Self::Cut,
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "SERVICE or --name: neither while only one supervisor runs. SERVICE, by hand, if several do: each has the name of
its service. --name asks the supervisor of that name and no other: for scripts, which want exit status 3 if it
does not run, whatever else does.

Exit status: 0 committed, 10 rolled back, 11 reverted, 12 started cold, 13 refused, 14 undecided;
1 another error, 2 usage, 3 not running, 4 no such service, 5 timed out."
)]
pub struct UpgradeArgs {
    /// The service; not needed if only one runs
    pub service: Option<String>,
    /// The program to execute, with the arguments of before [default: the same path again]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// If the incumbent dies before it has sealed, let the successor recover the data [default: start the incumbent's
    /// program again]
    #[arg(long)]
    pub promote: bool,
    /// Start a program also if it has failed a probation
    #[arg(long)]
    pub force: bool,
    /// When as many processes serve their last clients as may (run --max-draining)
    #[arg(long, value_enum, default_value = "wait")]
    pub when_draining: WhenDraining,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub times: TimeArgs,
    /// How long to wait for the outcome [default: the deadline and 30 s more]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Print only the outcome, as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "During a probation the process that serves is killed, and the one before it takes over, with everything that was
written; unless that one is stopped or silent: then nothing is done. After it, the present process is replaced, by an
ordinary handoff, by the file that was started before, also if its path leads to another one by now; but not to one that
was written over in place.

Exit status: 0 the process or the program before serves; otherwise as of upgrade."
)]
pub struct RollbackArgs {
    /// The service; not needed if only one runs
    pub service: Option<String>,
    /// When as many processes serve their last clients as may (run --max-draining)
    #[arg(long, value_enum, default_value = "wait")]
    pub when_draining: WhenDraining,
    #[command(flatten)]
    pub place: Place,
    /// How long to wait for the outcome
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "330s")]
    pub timeout: Duration,
    /// Print only the outcome, as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "SERVICE or --name: neither while only one supervisor runs. SERVICE, by hand, if several do: each has the name of
its service. --name asks the supervisor of that name and no other: for scripts, which want exit status 3 if it
does not run, whatever else does.

Exit status: 0 answered, 1 an error, 2 usage, 3 not running, 4 no such service, 5 timed out."
)]
pub struct StatusArgs {
    /// The service; not needed if only one runs
    pub service: Option<String>,
    #[command(flatten)]
    pub place: Place,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Where a supervisor is found.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The supervisor's control socket [default: NAME.sock in the runtime directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The supervisor's name, and its service's [default of run: the base name of CMD; else the only one that runs]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// [default: $HANDOFF_RUNTIME_DIR, else /run/handoff (root), $XDG_RUNTIME_DIR/handoff, /tmp/handoff-UID]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
}

/// How long the steps of a handoff may take: 500ms, 30s, 5m, 1h
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct TimeArgs {
    /// A whole handoff; 1 s of slack is added before it is undone [default: 300s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub deadline: Option<Duration>,
    /// From "stop accepting" until the incumbent must be done; 1 s of slack is added before the handoff is undone
    /// [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub drain_grace: Option<Duration>,
    /// From the data's release until the successor must be ready; 1 s of slack is added before the handoff is undone
    /// [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub ready_timeout: Option<Duration>,
    /// From the start of a process until it must say Hello [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub hello_timeout: Option<Duration>,
    /// How long the process that was replaced stays as a reserve, and takes over if its successor dies [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub probation: Option<Duration>,
}

impl From<TimeArgs> for Times {
    fn from(args: TimeArgs) -> Self {
        Self {
            deadline: args.deadline,
            drain_grace: args.drain_grace,
            ready: args.ready_timeout,
            hello: args.hello_timeout,
            probation: args.probation,
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("write 1 or more: with 0 the daemon could never be replaced".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("'{text}' is no number; write 1 or more")),
    }
}

fn not_empty(text: &str) -> Result<OsString, String> {
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.into()) }
}

/// `TERM`, `SIGTERM` or `15`.
fn signal(text: &str) -> Result<Signal, String> {
    let by_number = || text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let signal = name.parse().ok().or_else(by_number).ok_or("there is no such signal; write TERM or QUIT")?;
    match signal {
        Signal::SIGKILL | Signal::SIGSTOP => Err("no daemon can act on it; write TERM or QUIT".to_owned()),
        signal => Ok(signal),
    }
}

fn readiness(text: &str) -> Result<ReadySign, String> {
    let (sign, value) = text.split_once('=').unwrap_or((text, ""));
    match (sign, value) {
        ("notify", "") => Ok(ReadySign::Notify),
        ("fd", number) => match number.parse() {
            Ok(number @ 3..) => Ok(ReadySign::Descriptor(number)),
            _ => Err(format!("'{number}' is no number of a descriptor; the first one that is free is 3")),
        },
        ("health", url) => health(url).map(ReadySign::Health),
        ("delay", time) => duration(time).map(ReadySign::Delay),
        _ => Err("write notify, fd=N, health=URL or delay=TIME".to_owned()),
    }
}

fn health(url: &str) -> Result<Health, String> {
    let (scheme, host, path) = match url.split_once("://") {
        None if url.starts_with("unix:/") => ("unix", &url["unix:".len()..], None),
        Some(("tcp", host)) => ("tcp", host, None),
        Some((scheme @ ("http" | "http+unix"), rest)) => {
            let at = rest.find('/').unwrap_or(rest.len());
            let path = if rest[at..].is_empty() { "/" } else { &rest[at..] };
            (scheme, &rest[..at], Some(path.to_owned()))
        }
        _ => {
            let or_unix = "unix:/run/app.sock or http+unix://%2Frun%2Fapp.sock/path";
            return Err(format!("write tcp://127.0.0.1:80, http://127.0.0.1:80/path, {or_unix}"));
        }
    };
    if path.as_ref().is_some_and(|path| path.bytes().any(|byte| !byte.is_ascii_graphic())) {
        return Err("a path has no spaces, and nothing but ASCII: escape it".to_owned());
    }
    let address = match scheme {
        "unix" => HealthAddress::Unix(host.into()),
        "http+unix" => HealthAddress::Unix(unescaped(host)?),
        _ => HealthAddress::Tcp(
            host.parse().map_err(|_| format!("'{host}' is no address like 127.0.0.1:80 or [::1]:80"))?,
        ),
    };
    Ok(Health { address, path })
}

/// A path in the place of a host: its slashes are written as `%2F`.
fn unescaped(text: &str) -> Result<PathBuf, String> {
    let wrong = || format!("'{text}' is no path in the place of a host, like %2Frun%2Fapp.sock");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    if path.is_absolute() { Ok(path) } else { Err(wrong()) }
}

/// `30s`, `500ms`, `5m`, `1h`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    const YEAR_SECONDS: f64 = 365.0 * 86_400.0;
    if text.starts_with('-') {
        return Err("a time can not be negative; write 500ms, 30s, 5m or 1h".to_owned());
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("there is no unit '{unit}'; write 500ms, 30s, 5m or 1h")),
    };
    let number = number.parse::<f64>().map_err(|_| "write 500ms, 30s, 5m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|time| time.as_secs_f64() <= YEAR_SECONDS)
        .ok_or_else(|| "that is longer than a year".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "1d", "-1s", "1..2s", "1e9h", "99999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals_and_signs() {
        for text in ["TERM", "sigterm", "15"] {
            assert_eq!(signal(text), Ok(Signal::SIGTERM));
        }
        assert!(signal("KILL").is_err() && signal("STOP").is_err() && signal("FOO").is_err() && signal("0").is_err());
        for text in [
            "notify",
            "fd=3",
            "health=tcp://127.0.0.1:80",
            "health=http://[::1]:80/x",
            "health=unix:/run/a b",
            "health=http+unix://%2Frun%2Fa%25/x",
            "delay=200ms",
        ] {
            assert_eq!(readiness(text).unwrap().to_string(), text);
        }
        assert_eq!(readiness("health=http://127.0.0.1:80").unwrap().to_string(), "health=http://127.0.0.1:80/");
        for bad in ["health=unix:x", "health=http+unix://run/x", "health=http+unix://%2/x", "health=http+unix://%zz/x"]
        {
            assert!(readiness(bad).is_err(), "{bad}");
        }
        for bad in ["", "notify=1", "fd=2", "fd=x", "delay", "health=127.0.0.1:80", "health=tcp://localhost:80", "fd"] {
            assert!(readiness(bad).is_err(), "{bad}");
        }
        assert!(readiness("health=http://127.0.0.1:80/a b").is_err());
    }

    #[test]
    fn the_command_begins_at_the_first_word_that_is_no_option() {
        for line in [vec!["handoff", "run", "--", "kv", "--json"], vec!["handoff", "run", "kv", "--json"]] {
            let Command::Run(run) = Args::parse_from(line).command else { panic!() };
            assert_eq!(run.command, ["kv", "--json"]);
            assert!(!run.json);
        }
    }
}

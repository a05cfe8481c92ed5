//! The command line.

mod seeing;
mod units;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::demo::DemoArgs;
use crate::demo::daemon::DaemonArgs;
use crate::values::{at_least_one, metrics_address, not_empty, since};
use clap::{Parser, Subcommand, ValueEnum};
use handoff::limits::READY_TIMEOUT;
use handoff::service::address::{Address, ListenSpec, first_free};
use handoff::service::parse::{duration, health, readiness, signal, time_limit};
use handoff::service::restart::Policy;
use handoff::service::{self, Times};
use handoff::supervisor::{Health, Mode, ReadySign};
use nix::sys::signal::Signal;
pub use seeing::{CompletionsArgs, DoctorArgs, EventsArgs, HistoryArgs, ManArgs};
pub use units::{
    AddArgs, AskArgs, KillArgs, PreflightArgs, ReloadArgs, RemoveArgs, SelfUpgradeArgs, ShutdownArgs, TreeArgs,
    UnitsArgs, UpArgs, WaitArgs, WhyArgs,
};

/// Replaces the binary of a running daemon: no connection refused, no acknowledged write lost
#[derive(Debug, Parser)]
#[command(name = "handoff", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a daemon in the foreground, on listeners that outlive it
    Run(RunArgs),
    /// Run the units of a file or a directory in the foreground
    Up(UpArgs),
    /// Replace a running daemon by a new process, and wait for the outcome
    Upgrade(UpgradeArgs),
    /// Go back to the program before the present one, and wait for the outcome
    Rollback(RollbackArgs),
    /// Show what runs
    Status(StatusArgs),
    /// Show what services have written, and go on with what they write
    Logs(LogsArgs),
    /// Show what happens, as it happens
    Events(EventsArgs),
    /// Show what happened: starts, ends and handoffs
    History(HistoryArgs),
    /// Find what would make an upgrade fail or hurt
    Doctor(DoctorArgs),
    /// Start units, and whatever they need
    Start(UnitsArgs),
    /// Stop units, and those that require them first
    Stop(UnitsArgs),
    /// Restart units: by a handoff if they can, so that nobody notices
    Restart(UnitsArgs),
    /// Read the files of units again: start new ones, stop those that are gone
    Reload(ReloadArgs),
    /// Add units that are in no file, for as long as the supervisor runs
    Add(AddArgs),
    /// Stop units that were added, and forget them
    Remove(RemoveArgs),
    /// Send a signal to the main process of a unit
    Kill(KillArgs),
    /// Tell why a unit is as it is, up to the cause
    Why(WhyArgs),
    /// Show what depends on what, with states
    Tree(TreeArgs),
    /// Stop all units, dependents first, and the supervisor
    Shutdown(ShutdownArgs),
    /// Replace the program of the supervisor itself, in its process
    SelfUpgrade(SelfUpgradeArgs),
    /// Show all that is wrong with files of units
    Check(CheckArgs),
    /// Replace a key-value store under load, some builds of it bad, and count what was lost
    Demo(DemoArgs),
    /// Print what makes a shell complete command lines of handoff
    Completions(CompletionsArgs),
    #[command(hide = true)]
    Man(ManArgs),
    #[command(hide = true)]
    DemoDaemon(DaemonArgs),
    #[command(hide = true, name = "handoff-preflight")]
    Preflight(PreflightArgs),
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
    /// tcp://IP:PORT, http://IP:PORT/PATH (status 200 to 399), the same over a Unix socket, unix:/SOCKET and
    /// http+unix://%2FSOCKET/PATH. If it fails three times in a row, it is killed, and the one before it takes over;
    /// when the probation is over, it must answer once more
    #[arg(long, value_name = "URL", value_parser = health)]
    pub health: Option<Health>,
    /// What makes a daemon stop: when it is replaced in mode overlap, or the service ends
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal)]
    pub stop_signal: Signal,
    /// Daemons in overlap mode: how many processes that were replaced may serve their last clients at the same time, 1 or
    /// more [default: 2]
    #[arg(long, value_name = "N", value_parser = at_least_one, allow_hyphen_values = true)]
    pub max_draining: Option<usize>,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub times: TimeArgs,
    /// Where Prometheus may read metrics (GET /metrics): 127.0.0.1:9464, unix:/path
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub metrics: Option<Address>,
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
    pub fn check_together(&self) -> Result<(), String> {
        let overlap = matches!(self.mode, Some(HandoffMode::Overlap));
        let contradicts = |text: &str| Err(text.to_owned());
        if self.ready.is_some() && !overlap {
            return contradicts(
                "--ready is for daemons that do not link libhandoff, which can be replaced side by side only: add \
                 --mode overlap, or leave --ready out",
            );
        }
        if self.health.is_some() && overlap {
            return contradicts(
                "--health asks during a probation, and in --mode overlap there is no probation: leave one of them out; \
                 --ready health=URL is what tells there whether a new process is ready",
            );
        }
        if self.times.probation.is_some_and(|time| !time.is_zero()) && overlap {
            return contradicts(
                "--probation keeps the process that was replaced as a reserve, and in --mode overlap there is none: \
                 leave one of them out; handoff rollback goes back there, too",
            );
        }
        if self.max_draining.is_some() && matches!(self.mode, Some(HandoffMode::Exclusive)) {
            return contradicts(
                "--max-draining counts processes that were replaced in overlap mode, of which there are none in \
                 --mode exclusive: leave one of them out",
            );
        }
        self.check_sign()
    }

    /// Whether the sign can be seen at all.
    fn check_sign(&self) -> Result<(), String> {
        let limit = self.times.ready_timeout.unwrap_or(READY_TIMEOUT);
        let free = first_free(&self.listen);
        match self.ready {
            Some(ReadySign::Delay(time)) if time >= limit => Err(format!(
                "--ready delay={time:?} can never be seen within --ready-timeout {limit:?}: make the delay shorter, or \
                 the other longer"
            )),
            Some(ReadySign::Descriptor(number)) if number < free => {
                Err(format!("--ready fd={number}: that is a listener's number; the first one that is free is {free}"))
            }
            _ => Ok(()),
        }
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
    /// Only look whether it would begin: start nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub times: TimeArgs,
    /// How long to wait for the outcome [default: the deadline and 30 s more]
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
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
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, default_value = "330s")]
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
    /// Show it again whenever something changes, until Ctrl-C or the end of the supervisor
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each fault is a line, FILE:LINE:COLUMN: what is wrong; what to do. Only the files are looked at, and whether two units
write to one directory: whether a program, a directory or a user exists is seen at the start. How a unit is written is in docs/units.md.

Exit status: 0 all well, 1 a fault, or the files can not be read, 2 usage."
)]
pub struct CheckArgs {
    /// A file of units, or a directory, of which all files *.toml are read
    #[arg(short, long, value_name = "FILE|DIR", default_value = "handoff.toml")]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The lines are those that the supervisor keeps in memory, the last ten thousand of a service by default. They are
shown as they were written, byte by byte; of more services than one, or if none was named, each with the name of its service.
A reader that is too slow loses lines, and is told how many.

--json writes a line for each: service, time_ns (since 1970, when it was read), pid, generation, stream (stdout, stderr,
hook, or handoff for a remark of the supervisor), goes_on (it was too long, and its next part follows), text (an array of bytes if it is no UTF-8).

Exit status: 0 all shown, or with -f the supervisor has ended; 1 an error, 2 usage, 3 not running, 4 no such service, 5 timed out."
)]
pub struct LogsArgs {
    /// The services; all if none is named
    pub services: Vec<String>,
    /// Go on with the lines that come
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines that are not older: 10m, or a time as 2026-01-31T23:59:59Z, 2026-01-31T23:59:59+01:00 or @1700000000
    /// (seconds since 1970)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<u64>,
    /// Of those that are there, only the last ones [default: all; with -f 10]
    #[arg(short = 'n', long, value_name = "LINES")]
    pub lines: Option<usize>,
    #[command(flatten)]
    pub place: Place,
    /// How long to wait for an answer; with -f, for its beginning
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, default_value = "10s")]
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
    #[arg(long, value_name = "TIME", value_parser = time_limit, allow_hyphen_values = true)]
    pub deadline: Option<Duration>,
    /// From "stop accepting" until the incumbent must be done; 1 s of slack is added before the handoff is undone
    /// [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
    pub drain_grace: Option<Duration>,
    /// From the data's release until the successor must be ready; 1 s of slack is added before the handoff is undone
    /// [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = time_limit, allow_hyphen_values = true)]
    pub ready_timeout: Option<Duration>,
    /// From the start of a process until it must say Hello [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = time_limit, allow_hyphen_values = true)]
    pub hello_timeout: Option<Duration>,
    /// How long the process that was replaced stays as a reserve, and takes over if its successor dies [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
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

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::demo::DemoArgs;
use crate::demo::daemon::DaemonArgs;
use crate::values::{at_least_one, duration, health, not_empty, readiness, signal, time_limit};
use clap::{Parser, Subcommand, ValueEnum};
use handoff::limits::READY_TIMEOUT;
use handoff::service::address::ListenSpec;
use handoff::service::restart::Policy;
use handoff::service::{self, Times};
use handoff::supervisor::{Health, Mode, ReadySign};
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

/// The descriptor of the first listener (sd_listen_fds(3)).
const FIRST_LISTENER: usize = 3;

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
        let free = FIRST_LISTENER + self.listen.iter().map(|listen| listen.sockets).sum::<usize>();
        match self.ready {
            Some(ReadySign::Delay(time)) if time >= limit => Err(format!(
                "--ready delay={time:?} can never be seen within --ready-timeout {limit:?}: make the delay shorter, or \
                 the other longer"
            )),
            Some(ReadySign::Descriptor(number)) if usize::try_from(number).is_ok_and(|number| number < free) => {
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
    #[command(flatten)]
    pub place: Place,
    /// How long to wait for the answer
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

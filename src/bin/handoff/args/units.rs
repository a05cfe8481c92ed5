//! The command line of `handoff up`, and of what acts on its units.

use std::path::PathBuf;
use std::time::Duration;

use handoff::service::parse::{any_signal, duration};
use nix::sys::signal::Signal;

use super::Place;
use crate::values::metrics_address;
use handoff::service::address::Address;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Units that are at fault do not run, nor do those that require them; the others do, and each fault is told. What a unit is,
and how it is written, is in docs/units.md; handoff check shows all faults.

Signals: TERM, INT and QUIT stop all units, dependents first (INT or QUIT again: KILL at once); HUP reads the files again, as
handoff reload does. The HUP of a terminal that closes stops all.

Exit status: 0 all were stopped, 1 the files can not be read, or a process could not be taken over and lives on,
125 handoff itself failed, 2 usage."
)]
pub struct UpArgs {
    /// A file of units, or a directory, of which all files *.toml are read
    #[arg(short, long, value_name = "FILE|DIR", default_value = "handoff.toml")]
    pub config: PathBuf,
    /// Its control socket [default: NAME.sock in the runtime directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The supervisor's name
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub name: String,
    /// [default: $HANDOFF_RUNTIME_DIR, else /run/handoff (root), $XDG_RUNTIME_DIR/handoff, /tmp/handoff-UID]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// Where Prometheus may read metrics (GET /metrics): 127.0.0.1:9464, unix:/path
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub metrics: Option<Address>,
    /// How long all units may take together to stop when it ends; then what is left is killed
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, default_value = "90s")]
    pub shutdown_timeout: Duration,
    /// Report events as JSON lines on standard error
    #[arg(long)]
    pub json: bool,
}

/// Of a command that waits until it is so.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// How long to wait for it; what was begun goes on all the same
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, default_value = "330s")]
    pub timeout: Duration,
    #[command(flatten)]
    pub place: Place,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "start: they run, and whatever they need, also if an operator has stopped it, or it has failed. stop: they do not run, nor do those
that require them, which stop first; nothing starts them again but start or restart, or a start of what needs them.
restart: a daemon that can is replaced by a handoff to the same program, so that no request fails and no other process notices;
others are stopped, with all that require them, and started again.

Exit status: 0 done, 1 not all of them, 2 usage, 3 not running, 4 no such service, 5 timed out; of a restart by handoff as
of upgrade."
)]
pub struct UnitsArgs {
    /// The services, or targets; not needed if there is only one service
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    /// Do not wait until it is so
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "New units start if their autostart says so, others stop. A unit that runs goes on as it was configured, and handoff status names
the keys in which it is stale, until it is restarted or upgraded; what only concerns order is true at once. If anything is at fault, nothing
is changed, and all faults are told. What an operator has started or stopped stays so.

Exit status: 0 done, 1 a fault, or the files can not be read, 2 usage, 3 not running, 5 timed out."
)]
pub struct ReloadArgs {
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The units are written as in a file of units (docs/units.md), and checked the same way, also against those that are there: if
anything is at fault, nothing is added, and all faults are told. Those with autostart start, and whatever they need; then they are units like all
others, which handoff status calls ephemeral. They stay through reloads, a self-upgrade, and a supervisor that is killed, until handoff
remove, or the end of the supervisor. The file is not read again.

Exit status: 0 done, 1 a fault, or not all of them are up, 2 usage, 3 not running, 5 timed out."
)]
pub struct AddArgs {
    /// A file with units; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Do not wait until they are up
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "They stop first, after those that require them, and are forgotten. What another one needs that was added is removed only together with it.

Exit status: 0 done, 1 one of them is in a file, or needed, 2 usage, 3 not running, 4 no such service, 5 timed out."
)]
pub struct RemoveArgs {
    /// The units
    #[arg(value_name = "SERVICE", required = true)]
    pub services: Vec<String>,
    /// Do not wait until they are gone
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Only the main process gets it, and no group of processes.

Exit status: 0 sent, 1 it does not run, 2 usage, 3 not running, 4 no such service, 5 timed out.")]
pub struct KillArgs {
    /// The service, or target
    pub service: String,
    /// TERM, SIGTERM or 15
    #[arg(default_value = "TERM", allow_hyphen_values = true, value_parser = any_signal)]
    pub signal: Signal,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    /// The service; not needed if there is only one
    pub service: Option<String>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, clap::Args)]
pub struct TreeArgs {
    /// Services or targets [default: those on which nothing depends]
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 all has ended, 1 an error, or a process could not be taken over and lives on, 2 usage, 3 not running, 5 timed out."
)]
pub struct ShutdownArgs {
    /// Do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub place: Place,
    /// How long to wait for the end, which comes all the same
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, default_value = "120s")]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Of commands that are answered at once.
#[derive(Debug, clap::Args)]
pub struct AskArgs {
    #[command(flatten)]
    pub place: Place,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, default_value = "10s")]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The supervisor executes the new program in its own process: its pid, its children, its sockets and all that it remembers stay.
First the new one must show, beside it, that it understands the state; if it then does not go on in 10 s, the old one does. A start or a stop
of a unit goes on across it; a handoff is waited for, and while a unit is in its probation nothing is tried.

Exit status: 0 done, 10 rolled back (the old program runs again), 13 refused (nothing was tried), 5 timed out, 2 usage, 3 not running,
1 an error."
)]
pub struct SelfUpgradeArgs {
    /// The new program [default: what the path of the present one leads to now]
    pub binary: Option<PathBuf>,
    /// How long to wait for the end of a handoff that is under way
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true, default_value = "60s")]
    pub timeout: Duration,
    #[command(flatten)]
    pub place: Place,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct PreflightArgs {
    /// What another program has written down
    pub state: PathBuf,
}

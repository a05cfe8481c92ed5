//! Commands that show what is and what was.

use std::path::PathBuf;

use super::{AskArgs, Place};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each event is a line: time (UTC), service, what happened. It ends with the supervisor, or by Ctrl-C. Events that it
could not print in time are dropped, and it says how many.

Exit status: 0 the supervisor ended, 1 an error, 2 usage, 3 not running, 4 no such service."
)]
pub struct EventsArgs {
    /// The service [default: all]
    pub service: Option<String>,
    #[command(flatten)]
    pub place: Place,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The last 50 of each service, the oldest first, also those under a supervisor before the present one.

Exit status: 0 answered, 1 an error, 2 usage, 3 not running, 4 no such service, 5 timed out."
)]
pub struct HistoryArgs {
    /// The service [default: all]
    pub service: Option<String>,
    #[command(flatten)]
    pub ask: AskArgs,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It looks at the machine, the supervisor and its services, or, with -c, at units that need not run, and says what is well,
what may hurt (warning), and what will fail (error), and what to do about it. Nothing is changed.

Exit status: 0 no error found, 1 an error found, or it could not look, 2 usage, 3 not running, 4 no such service."
)]
pub struct DoctorArgs {
    /// The service [default: all]
    pub service: Option<String>,
    /// A file of units, or a directory of such files, instead of a supervisor that runs
    #[arg(short, long, value_name = "FILE|DIR")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "bash: handoff completions bash >/usr/share/bash-completion/completions/handoff
zsh:  handoff completions zsh >/usr/share/zsh/site-functions/_handoff
fish: handoff completions fish >/usr/share/fish/vendor_completions.d/handoff.fish")]
pub struct CompletionsArgs {
    /// Whose
    pub shell: clap_complete::Shell,
}

/// Write the manual pages
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Where to: a directory that exists
    pub dir: PathBuf,
}

//! What packages install beside the program, made of the command line itself: manual pages and completions.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::args::{Args, CompletionsArgs, ManArgs};
use crate::exit::{ERROR, Failure};

/// `handoff completions SHELL`.
pub fn completions(args: &CompletionsArgs) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "handoff", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => 0,
        Err(error) => Failure::new(ERROR, format!("cannot print: {error}")).report(false),
    }
}

/// `handoff man DIR`: handoff.1, and a page for each command, like handoff-run.1.
pub fn man(args: &ManArgs) -> u8 {
    match clap_mangen::generate_to(Args::command(), &args.dir) {
        Ok(()) => 0,
        Err(error) => Failure::new(ERROR, format!("{}: {error}", args.dir.display())).report(false),
    }
}

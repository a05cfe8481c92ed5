//! The `handoff` program: runs a daemon, and replaces its binary with nothing lost.

mod adopting;
mod args;
mod control;
mod demo;
mod exit;
mod host;
mod output;
mod run;
mod status;
mod text;
mod upgrade;
mod values;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;

fn main() -> ExitCode {
    let code = match Args::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Upgrade(args) => upgrade::upgrade(&args),
        Command::Rollback(args) => upgrade::rollback(&args),
        Command::Status(args) => status::status(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::DemoDaemon(args) => demo::daemon::run(&args),
    };
    ExitCode::from(code)
}

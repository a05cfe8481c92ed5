//! The `handoff` program: runs a daemon, and replaces its binary with nothing lost.

mod args;
mod check;
mod control;
mod demo;
mod display;
mod doctor;
mod events;
mod exit;
mod exporter;
mod history;
mod host;
mod logs;
mod manuals;
mod output;
mod preview;
mod readers;
mod run;
mod seen;
mod selfup;
mod status;
mod table;
mod text;
mod units;
mod up;
mod upgrade;
mod usage;
mod values;
mod watch;

use std::process::ExitCode;

use args::Command;
use control::Request;

fn main() -> ExitCode {
    // Before anything else: another program of this process may wait for an answer.
    if let Some(code) = selfup::restore::go_on() {
        return ExitCode::from(code);
    }
    let args = match usage::read() {
        Ok(args) => args,
        Err(code) => return ExitCode::from(code),
    };
    let code = match args.command {
        Command::Run(args) => run::run(&args),
        Command::Upgrade(args) if args.dry_run => preview::preview(&args),
        Command::Upgrade(args) => upgrade::upgrade(&args),
        Command::Rollback(args) => upgrade::rollback(&args),
        Command::Status(args) if args.watch => watch::watch(&args),
        Command::Status(args) => status::status(&args),
        Command::Logs(args) => logs::logs(&args),
        Command::Events(args) => events::events(&args),
        Command::History(args) => history::history(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Up(args) => up::up(&args),
        Command::Start(args) => units::set(&args, Request::Start),
        Command::Stop(args) => units::set(&args, Request::Stop),
        Command::Restart(args) => units::set(&args, Request::Restart),
        Command::Reload(args) => units::reload(&args),
        Command::Add(args) => units::add(&args),
        Command::Remove(args) => units::remove(&args),
        Command::Kill(args) => units::kill(&args),
        Command::Why(args) => units::why(&args),
        Command::Tree(args) => units::tree(&args),
        Command::Shutdown(args) => units::shutdown(&args),
        Command::Check(args) => check::check(&args),
        Command::Completions(args) => manuals::completions(&args),
        Command::Man(args) => manuals::man(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::DemoDaemon(args) => demo::daemon::run(&args),
        Command::SelfUpgrade(args) => selfup::client::self_upgrade(&args),
        Command::Preflight(args) => selfup::restore::preflight(&args.state),
    };
    ExitCode::from(code)
}

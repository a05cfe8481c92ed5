//! `handoff demo`: a key-value store is replaced again and again under load, three times by a bad build, and every
//! request and every acknowledged write is accounted for.

mod clients;
pub mod daemon;
mod driver;
mod live;
mod load;
#[cfg(test)]
mod load_tests;
mod report;
mod step;
mod store;
mod view;
mod words;

use self::driver::Trouble;
use self::report::Report;
use self::view::View;
use crate::exit::{self, Failure};
use crate::text::print;

/// The three bad builds need one place each, and a good one before them.
const REPLACEMENTS_MIN: i64 = 4;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Three of the replacements are bad on purpose: one crashes, one hangs, one lacks an acknowledged write.

Exit status: 0 if these were rolled back, all others committed, no request failed and no write was lost; else 1."
)]
pub struct DemoArgs {
    /// How often the store is replaced
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(REPLACEMENTS_MIN..=1000))]
    pub replacements: u32,
    /// How many clients ask it, half of them with a connection for each request
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=512))]
    pub clients: u32,
    /// Print only the result, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Exit code of the command.
pub fn demo(args: &DemoArgs) -> u8 {
    let mut view = View::new(args);
    let performed = driver::perform(args, &mut view);
    drop(view);
    let report = match performed {
        Ok(performance) => Report::new(&performance),
        Err(Trouble::Signal(signal)) => {
            eprintln!("handoff: the demo was interrupted; nothing is left of it");
            return 128 + signal;
        }
        Err(Trouble::Failed(text)) => {
            return Failure::new(exit::ERROR, format!("the demo failed: {text}")).report(args.json);
        }
    };
    print(&if args.json { report.json() } else { report.table() });
    for complaint in &report.complaints {
        eprintln!("handoff: {complaint}");
    }
    if report.complaints.is_empty() { 0 } else { exit::ERROR }
}

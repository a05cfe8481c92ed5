//! The command line as it is read, and what is said of one that has no meaning.

use std::env;
use std::ffi::OsString;

use clap::{CommandFactory, Parser};
use serde_json::json;

use crate::args::Args;
use crate::exit::{Failure, USAGE};
use crate::output::Output;
use crate::run::LAST_WORDS;
use crate::text;

/// Commands that stay, and tell with `--json` what happens on standard error.
const STAY: &[&str] = &["run", "up"];

/// What was written; or the exit code, after what was to be said.
pub fn read() -> Result<Args, u8> {
    let mut words: Vec<OsString> = env::args_os().collect();
    // It belongs to every command, and may be written before it.
    if words.get(1).is_some_and(|word| word == "--json") && words.len() > 2 {
        words.swap(1, 2);
    }
    Args::try_parse_from(&words).map_err(|error| {
        let (command, json) = asks(words.get(1..).unwrap_or_default());
        // What was asked for with --help is no error to anybody but the parser.
        if json && error.use_stderr() {
            return report(&command, &message(&error), &error);
        }
        let _ = error.print(); // nobody may read it
        error.exit_code() as u8
    })
}

/// As every other error of the command.
fn report(command: &str, message: &str, error: &clap::Error) -> u8 {
    if STAY.contains(&command) {
        let output = Output::new(true);
        output.say("error", command, message, json!({ "exit": USAGE }));
        output.finish(LAST_WORDS);
    } else {
        text::print(&Failure::new(USAGE, message).json().to_string());
        let _ = error.print();
    }
    USAGE
}

/// In a line, without what is for people at a terminal.
fn message(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let parts = text.trim_start_matches("error: ").split("\n\n");
    let parts =
        parts.take_while(|part| !["Usage:", "For more information"].iter().any(|start| part.starts_with(start)));
    let in_a_line = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    parts.map(in_a_line).collect::<Vec<_>>().join("; ")
}

/// The command, and whether it is asked for JSON. What follows the program of `run` is the program's own.
fn asks(words: &[OsString]) -> (String, bool) {
    let root = Args::command();
    let mut command = &root;
    let mut words = words.iter().map(|word| word.to_string_lossy()).take_while(|word| word != "--").peekable();
    while let Some(word) = words.next() {
        if word == "--json" || word.starts_with("--json=") {
            return (command.get_name().to_owned(), true);
        }
        if word.starts_with('-') {
            if takes_value(command, &word) {
                let _ = words.next_if(|value| value != "--json"); // that one is no value
            }
        } else if let Some(found) = command.find_subcommand(&*word) {
            command = found;
        } else if command.get_positionals().any(clap::Arg::is_trailing_var_arg_set) {
            break;
        }
    }
    (command.get_name().to_owned(), false)
}

/// Whether the next word belongs to this option.
fn takes_value(command: &clap::Command, word: &str) -> bool {
    let is_it = |arg: &&clap::Arg| {
        let long = arg.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
        long || arg.get_short().is_some_and(|short| word.strip_prefix('-').is_some_and(|it| it == short.to_string()))
    };
    command.get_arguments().find(is_it).is_some_and(|arg| arg.get_action().takes_values())
}

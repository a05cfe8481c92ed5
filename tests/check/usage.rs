//! A command line that has no meaning, and `--json`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::Said;

fn handoff(arguments: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handoff"));
    let output = command.args(arguments.split(' ')).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// As every other error: an object on standard output, and on standard error what people read.
#[test]
fn what_is_wrong_with_a_command_line_is_json_for_who_wants_that() {
    let bad = "unexpected argument '--bad' found";
    for (arguments, message) in [
        ("check --bad --json", bad),
        ("check --json --bad", bad),
        ("check -c --json --bad", "a value is required for '--config <FILE|DIR>' but none was supplied"),
        (
            "status kv --json --timeout soon",
            "invalid value 'soon' for '--timeout <TIME>': 'soon' is no unit of time; write 500ms, 30s, 5m or 1h",
        ),
        ("--json check --bad", bad),
        ("check --json=1", "unexpected value '1' for '--json' found; no more were expected"),
        ("kill --json", "the following required arguments were not provided: <SERVICE>"),
        ("frobnicate --json", "unrecognized subcommand 'frobnicate'"),
        ("completons --json", "unrecognized subcommand 'completons'; tip: a similar subcommand exists: 'completions'"),
    ] {
        let said = handoff(arguments);
        let error: Value = said.json()["error"].take();
        assert_eq!(error, json!({ "kind": "usage", "message": message, "exit": 2 }), "{arguments}");
        assert_eq!((said.code, said.stdout.lines().count()), (2, 1), "{arguments}");
        assert!(said.stderr.starts_with("error: ") && said.stderr.contains("--help"), "{}", said.stderr);
    }
}

/// Theirs is a line on standard error.
#[test]
fn of_a_supervisor_it_is_an_event() {
    for (arguments, service) in [("run --bad --json -- sleep 1", "run"), ("up --name x --json --bad", "up")] {
        let said = handoff(arguments);
        let event: Value =
            serde_json::from_str(&said.stderr).unwrap_or_else(|error| panic!("{error}: {}", said.stderr));
        let text = &event["text"];
        assert!(text.as_str().unwrap().starts_with("unexpected argument '--bad' found"), "{event}");
        assert_eq!(event, json!({ "event": "error", "service": service, "exit": 2, "text": text }));
        assert_eq!((said.code, said.stdout.as_str()), (2, ""));
    }
}

#[test]
fn for_others_it_is_text_alone() {
    for arguments in
        ["check --bad", "run --bad --name x sleep --json", "run --bad -- sleep --json", "status --bad -- --json"]
    {
        let said = handoff(arguments);
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{arguments}");
        assert!(said.stderr.starts_with("error: unexpected argument '--bad' found\n"), "{}", said.stderr);
    }
    let help = handoff("status --json --help");
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("Usage: handoff status"), "{}", help.stdout);
}

use std::fs;
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Uid;

use super::*;

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

fn shell(line: &str) -> TaskSpec {
    TaskSpec { argv: ["sh", "-c", line].map(OsString::from).into(), ..TaskSpec::default() }
}

/// Waits for its end, as a loop would.
fn run(task: &mut Task) -> (Vec<u8>, TaskEnd) {
    let until = Instant::now() + LONG;
    let mut output = Vec::new();
    while Instant::now() < until {
        let turn = task.turn();
        output.extend(turn.output);
        if let Some(end) = turn.end {
            assert!(task.turn().end.is_none() && task.due_ns().is_none(), "it ends once");
            return (output, end);
        }
        let left = task.due_ns().unwrap_or(u64::MAX).saturating_sub(monotonic_ns()) / 1_000_000 + 1;
        let left = PollTimeout::try_from(left.min(LONG.as_millis() as u64)).unwrap();
        poll(&mut [PollFd::new(task.as_fd(), PollFlags::POLLIN)], left).unwrap();
    }
    panic!("no end");
}

#[test]
fn tells_how_it_ended_and_what_it_said() {
    let mut task = Task::start(&shell("echo one; echo two >&2; exit 7"), LONG).unwrap();
    let (output, end) = run(&mut task);
    assert_eq!(output, b"one\ntwo\n");
    assert_eq!(end.to_string(), "exit status 7; its last output: one\ntwo");
    assert!(!end.success() && !end.late);
    let (_, end) = run(&mut Task::start(&shell("kill -9 $$"), LONG).unwrap());
    assert_eq!(end.status.unwrap().signal, Some(9));
    let (output, end) = run(&mut Task::start(&shell("read line || exit 0"), LONG).unwrap());
    assert!(end.success() && output.is_empty() && end.last_lines.is_empty(), "it has nothing to read: {end}");
}

#[test]
fn is_killed_with_its_children_when_it_is_late() {
    let dir = tempfile::tempdir().unwrap();
    // The file is the end of the story for a child that lives on.
    let line = format!("(sleep 1000; touch {0}/late) & echo $!; echo begun; sleep 1000", dir.path().display());
    let mut task = Task::start(&shell(&line), Duration::from_millis(300)).unwrap();
    let (output, end) = run(&mut task);
    assert_eq!(end.to_string().split(';').next(), Some("killed, since its time was over"));
    assert!(end.late && !end.success());
    let output = String::from_utf8(output).unwrap();
    let child: i32 = output.lines().next().unwrap().parse().unwrap();
    let until = Instant::now() + LONG;
    while fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "its child lives on");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_it_leaves_behind_ends_with_it() {
    let (output, end) = run(&mut Task::start(&shell("sleep 1000 & echo $!"), LONG).unwrap());
    assert!(end.success(), "a child that holds its output does not keep it: {end}");
    let child: i32 = String::from_utf8(output).unwrap().trim().parse().unwrap();
    let until = Instant::now() + LONG;
    while fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "its child lives on");
    }
}

#[test]
fn a_flood_of_output_blocks_nobody_and_the_end_is_kept() {
    let line = "i=0; while [ $i -lt 20000 ]; do echo 'a line of some length'; i=$((i+1)); done; echo last";
    let (output, end) = run(&mut Task::start(&shell(line), LONG).unwrap());
    assert_eq!(output.len(), 20_000 * 22 + 5);
    assert!(end.last_lines.ends_with("\nlast") && end.last_lines.lines().count() == REASON_LINES_MAX);
}

#[test]
fn variables_come_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("env");
    fs::write(&file, "# comment\n\nA=file\n B=\"x y\"  \nC='=#'\nD=\nE=file").unwrap();
    let mut spec = shell("echo \"$A,$B,$C,$D,$E\"");
    spec.env = vec![("E".into(), "unit".into())];
    spec.context.env_file = Some(file.clone());
    let (output, _) = run(&mut Task::start(&spec, LONG).unwrap());
    assert_eq!(String::from_utf8(output).unwrap(), "file,x y,=#,,unit\n");
    for (text, wrong) in [
        ("A=1\nB 2", ":2: there is no '='; write NAME=VALUE"),
        ("A=\"1", ":1: the value begins with a quote"),
        ("A B=1", ":1: \"A B\" can not be the name"),
        ("=1", ":1: \"\" can not be the name"),
        ("HANDOFF_ROLE=1", ":1: the variable HANDOFF_ROLE belongs to the protocol"),
        ("A=\0", ":1: the value holds a NUL byte"),
    ] {
        fs::write(&file, text).unwrap();
        let error = Task::start(&spec, LONG).map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("env_file {}{wrong}", file.display())), "{error}");
    }
    fs::remove_file(&file).unwrap();
    let error = Task::start(&spec, LONG).map(drop).unwrap_err().to_string();
    assert!(error.contains("cannot read env_file") && error.contains(file.to_str().unwrap()), "{error}");
    spec.context.env_file = Some("/dev/zero".into());
    assert!(Task::start(&spec, LONG).map(drop).unwrap_err().to_string().contains("no regular file"));
}

#[test]
fn what_can_not_be_started_says_why() {
    let failure = |change: fn(&mut TaskSpec)| {
        let mut spec = shell("true");
        change(&mut spec);
        Task::start(&spec, LONG).map(drop).unwrap_err().to_string()
    };
    let none = failure(|spec| spec.argv = vec!["/no/such/program".into()]);
    assert!(none.contains("/no/such/program: No such file or directory"), "{none}");
    let user = failure(|spec| spec.context.user = Some("no-such-user".into()));
    assert_eq!(user, "there is no user 'no-such-user' on this machine; create it, or write another one");
    let group = failure(|spec| spec.context.group = Some("no-such-group".into()));
    assert!(group.contains("there is no group 'no-such-group'"), "{group}");
    let number = failure(|spec| spec.context.user = Some("3999999".into()));
    assert!(number.contains("user 3999999 is not in the user database"), "{number}");
    let dir = failure(|spec| spec.dir = Some("/no/such/dir".into()));
    assert!(dir.contains("chdir: /no/such/dir: No such file"), "{dir}");
    assert!(failure(|spec| spec.argv.clear()).contains("the command is empty"));
}

#[test]
fn runs_as_another_user_with_its_groups() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: only root may become another user");
        return;
    }
    let mut spec = shell("id -u; id -g; id -G; echo \"$USER $LOGNAME $HOME $SHELL\"");
    spec.context.user = Some("nobody".into());
    let (output, end) = run(&mut Task::start(&spec, LONG).unwrap());
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (home, shell) = (user.dir.display(), user.shell.display());
    let wanted = format!("{}\n{1}\n{1}\nnobody nobody {home} {shell}\n", user.uid, user.gid);
    assert_eq!(String::from_utf8(output).unwrap(), wanted, "{end}");
    // A number that nobody has, and a group beside the user.
    (spec.context.user, spec.context.group) = (Some("3999999".into()), Some("3999998".into()));
    spec.env = vec![("HOME".into(), "/tmp".into())];
    let (output, end) = run(&mut Task::start(&spec, LONG).unwrap());
    let wanted = "3999999\n3999998\n3999998\n3999999 3999999 /tmp /bin/sh\n";
    assert_eq!(String::from_utf8(output).unwrap(), wanted, "{end}");
    assert!(nix::sys::prctl::get_dumpable().unwrap(), "this process is open to debuggers of its user, as before");
}

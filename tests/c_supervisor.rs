//! A supervisor inside a program in C: `ffi-tests/c/supervisor.c` does what the tests tell it, with real daemons and clients.

mod compiled;
mod support;

use compiled::have;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use support::load::{Load, LoadOptions, verify};
use support::{
    SIGKILL, SIGTERM, Service, children, compile, freeze, lives, process_state, programs, signal, thaw, wait_for_death,
    wait_until, waits,
};

// handoff.h
const OK: i32 = 0;
const COLD_START: i32 = 1;
const BUSY: i32 = -4;
const STATE: i32 = -5;
const LOCKED: i32 = -10;
const DUPLICATE: i32 = -17;
const COMMITTED: i32 = 1;
const ROLLED_BACK: i32 = 2;
const STARTED_COLD: i32 = 4;
const REFUSED: i32 = 5;
const UNDECIDED: i32 = 6;
const FAILED: i32 = 7;
const ADOPTED: i32 = 8;

const SIGHUP: i32 = 1;
const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;

fn host_program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("supervisor", "ffi-tests/c/supervisor.c", &[]))
}

/// What is shown after a failure.
fn stderr(place: &Service) -> File {
    File::options().create(true).append(true).open(place.path("run.stderr")).unwrap()
}

/// What a call of the supervisor said.
#[derive(Debug)]
struct Said {
    code: i32,
    result: i32,
    pid: i32,
    generation: i32,
    text: String,
}

/// The program, and its pipe.
struct Host {
    child: Child,
    lines: BufReader<ChildStdout>,
    stdin: ChildStdin,
    log: Vec<String>,
}

impl Host {
    fn start(place: &Service, mode: &str) -> Self {
        let mut command = place.other_command(host_program());
        command.arg(place.dir.path()).arg(mode).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr(place));
        let mut child = command.spawn().unwrap();
        let (stdin, lines) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, lines, stdin, log: Vec::new() }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// The answer to a line.
    fn answer(&mut self) -> Vec<String> {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the program has ended: {:?}", self.child.try_wait());
            match line.trim_end().strip_prefix("log: ") {
                Some(logged) => self.log.push(logged.to_owned()),
                None => return line.trim_end().splitn(6, ' ').map(str::to_owned).collect(),
            }
        }
    }

    fn said(&mut self) -> Said {
        let words = self.answer();
        let number = |index: usize| words[index].parse().unwrap();
        let text = words.get(5).cloned().unwrap_or_default();
        Said { code: number(1), result: number(2), pid: number(3), generation: number(4), text }
    }

    fn perform(&mut self, words: impl AsRef<str>) -> Said {
        self.tell(&format!("perform {}", words.as_ref()));
        self.said()
    }

    fn resume(&mut self, words: impl AsRef<str>) -> Said {
        self.tell(&format!("resume {}", words.as_ref()));
        self.said()
    }

    fn await_death(&mut self) {
        self.tell("await");
        assert_eq!(self.answer(), ["await", "dead"]);
    }

    /// As a program ends that has nothing more to do.
    fn end(mut self) {
        drop(self.stdin);
        let status = wait_until("the end of the program", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn name(program: &Path) -> &str {
    program.to_str().unwrap()
}

/// A place with a host that has bound the listener of the store.
fn place(mode: &str) -> (Service, Host) {
    let mut place = Service::place();
    place.handoff = host_program().clone();
    let mut host = Host::start(&place, mode);
    place.address = bind(&mut host);
    (place, host)
}

fn bind(host: &mut Host) -> SocketAddr {
    host.tell("bind kv 0");
    let words = host.answer();
    assert_eq!(words[..2], ["bind", "0"]);
    (Ipv4Addr::LOCALHOST, words[2].parse().unwrap()).into()
}

/// The same, with the store serving.
fn serving(mode: &str) -> (Service, Host, i32) {
    let (place, mut host) = place(mode);
    let first = host.perform(name(&programs().kv_a));
    assert_eq!((first.code, first.result, first.generation), (OK, STARTED_COLD, 1), "{first:?}");
    assert_eq!(place.ping(), Some((first.pid, "a".to_owned())));
    (place, host, first.pid)
}

/// The next upgrade commits, whatever was before.
fn commits(place: &Service, host: &mut Host) -> i32 {
    let said = host.perform(name(&programs().kv_b));
    assert_eq!((said.code, said.result, said.text.as_str()), (OK, COMMITTED, ""), "{said:?}");
    assert_eq!(place.ping(), Some((said.pid, "b".to_owned())));
    said.pid
}

#[test]
fn clients_that_connect_again_and_again_are_never_refused() {
    let (place, mut host, _) = serving("");
    let load = Load::start(LoadOptions { clients: 4, keep_alive: false, ..LoadOptions::new(place.address) });
    for round in 0..6 {
        let program = if round % 2 == 0 { &programs().kv_b } else { &programs().kv_a };
        let said = host.perform(name(program));
        assert_eq!((said.code, said.result, said.generation), (OK, COMMITTED, round + 2), "{said:?}");
    }
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
    assert!(report.acknowledged.len() > 6, "too little load to say anything: {}", report.requests);
    assert_eq!(verify(place.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
    assert!(host.log.iter().any(|line| line.starts_with("outcome ")), "{:?}", host.log);
    host.end();
    wait_until("only the last one lives", || (place.daemons().len() == 1).then_some(()));
    assert!(place.ping().is_some(), "the daemon outlives its supervisor");
}

#[test]
fn a_successor_that_is_not_well_is_undone() {
    let (place, mut host, first) = serving("");
    let said = host.perform(format!("{} KV_FAULT=unhealthy", name(&programs().faulty)));
    assert_eq!((said.code, said.result, said.pid, said.generation), (OK, ROLLED_BACK, first, 1), "{said:?}");
    assert!(said.text.contains("told to be unhealthy"), "{said:?}");
    assert_eq!(place.ping(), Some((first, "a".to_owned())));
    commits(&place, &mut host);
}

#[test]
fn an_incumbent_takes_over_from_a_successor_on_probation_while_nobody_calls() {
    let (place, mut host, first) = serving("");
    let on_probation = format!("{} probation=600000", name(&programs().kv_b));
    let said = host.perform(&on_probation);
    assert_eq!((said.code, said.result), (OK, COMMITTED), "{said:?}");
    signal(said.pid, SIGKILL);
    assert_eq!(place.wait_until_served(), first);
    assert_eq!(place.daemons(), [first]);
    // A probation that is under way is ended by the next call.
    let second = host.perform(&on_probation);
    assert_eq!((second.code, second.result), (OK, COMMITTED), "{second:?}");
    wait_until("its incumbent is parked", || (place.ping() == Some((second.pid, "b".to_owned()))).then_some(()));
    assert!(lives(first));
    commits(&place, &mut host);
    wait_for_death(first);
    host.end();
}

#[test]
fn a_program_that_can_not_be_executed_disturbs_nobody() {
    let (place, mut host) = place("");
    let said = host.perform("/nowhere/at/all");
    assert_eq!((said.code, said.result, said.pid), (OK, FAILED, 0), "{said:?}");
    assert!(said.text.contains("/nowhere/at/all"), "{said:?}");
    let said = host.perform(name(&programs().kv_a));
    assert_eq!((said.code, said.result), (OK, STARTED_COLD), "{said:?}");
    let serving = said.pid;
    for (program, why) in
        [("/nowhere/at/all", "/nowhere/at/all"), ("/dev/null", "/dev/null"), ("x LISTEN_FDS=1", "protocol")]
    {
        let said = host.perform(program);
        assert_eq!((said.code, said.result, said.pid), (OK, REFUSED, serving), "{said:?}");
        assert!(said.text.contains(why), "{said:?}");
    }
    commits(&place, &mut host);
}

/// Cancels, by a signal, a handoff whose successor hangs.
fn cancelled_by(number: i32) {
    let (place, mut host, first) = serving("");
    host.tell(&format!("perform {} KV_FAULT=hang-open", name(&programs().faulty)));
    let successor = place.successor_of(first);
    wait_until("the incumbent has sealed", || place.ping().is_none().then_some(()));
    signal(host.pid(), number);
    let said = host.said();
    assert_eq!((said.code, said.result, said.pid), (OK, ROLLED_BACK, first), "{said:?}");
    assert!(said.text.contains("cancelled by the caller"), "{said:?}");
    assert_eq!(place.ping(), Some((first, "a".to_owned())));
    wait_for_death(successor);
    commits(&place, &mut host);
}

#[test]
fn a_signal_handler_cancels() {
    cancelled_by(SIGUSR1);
}

#[test]
fn a_cancel_between_two_calls_does_nothing_to_the_next() {
    let (place, mut host) = place("");
    // The handler runs before the line can be read.
    signal(host.pid(), SIGUSR1);
    let said = host.perform(format!("{} KV_FAULT=slow-open=300", name(&programs().faulty)));
    assert_eq!((said.code, said.result), (OK, STARTED_COLD), "{said:?}");
    signal(host.pid(), SIGUSR1);
    commits(&place, &mut host);
}

#[test]
fn another_thread_cancels() {
    cancelled_by(SIGUSR2);
}

#[test]
fn a_start_that_hangs_is_not_waited_for_after_a_cancel_and_goes_on_with_the_next_call() {
    let (place, mut host) = place("");
    host.tell(&format!("perform {} KV_FAULT=open-waits", name(&programs().faulty)));
    let opening = place.path("data/opening");
    wait_until("the store opens its data", || opening.exists().then_some(()));
    signal(host.pid(), SIGUSR1);
    let said = host.said();
    assert_eq!((said.code, said.result), (OK, UNDECIDED), "{said:?}");
    let starting = said.pid;
    let busy = host.perform(format!("{} deadline=50", name(&programs().kv_a)));
    assert_eq!(busy.code, BUSY, "{busy:?}");
    std::fs::remove_file(opening).unwrap();
    let second = commits(&place, &mut host); // waits for the first, which is replaced
    assert_ne!(second, starting);
    wait_for_death(starting);
}

#[test]
fn a_program_that_was_killed_comes_back_and_goes_on() {
    let (place, host, first) = serving("");
    host.kill();
    assert_eq!(place.ping(), Some((first, "a".to_owned())));
    let mut host = Host::start(&place, "");
    let said = host.resume(name(&programs().kv_a));
    assert_eq!((said.code, said.result, said.pid, said.generation), (OK, ADOPTED, first, 1), "{said:?}");
    host.tell("bind kv 0");
    assert_eq!(host.answer()[1], DUPLICATE.to_string(), "the daemon has a listener of this name");
    let late = host.resume(name(&programs().kv_a));
    assert_eq!(late.code, STATE, "{late:?}");
    let second = commits(&place, &mut host);
    wait_for_death(first);
    // A death of what was adopted, or started after that, is seen by the pidfd.
    signal(second, SIGKILL);
    host.await_death();
    let said = host.perform(name(&programs().kv_a));
    assert_eq!((said.code, said.result), (OK, STARTED_COLD), "{said:?}");
    assert_eq!(place.ping(), Some((said.pid, "a".to_owned())), "on the same listener");
}

#[test]
fn a_handoff_that_was_open_is_ended_by_the_program_that_comes_back() {
    let (place, mut host, first) = serving("");
    host.tell(&format!("perform {} KV_FAULT=hang-open", name(&programs().faulty)));
    let successor = place.successor_of(first);
    wait_until("the incumbent has sealed", || place.ping().is_none().then_some(()));
    freeze(successor); // it can not give up by itself
    freeze(first); // nor can the incumbent
    host.kill();
    let mut host = Host::start(&place, "");
    host.tell(&format!("resume {}", name(&programs().kv_a)));
    wait_for_death(successor);
    thaw(first);
    let said = host.said();
    assert_eq!((said.code, said.result, said.pid), (OK, ROLLED_BACK, first), "{said:?}");
    assert_eq!(place.ping(), Some((first, "a".to_owned())));
    commits(&place, &mut host);
}

#[test]
fn a_forked_child_of_the_program_does_not_hide_its_death() {
    let (place, mut host, first) = serving("");
    host.tell(&format!("perform {} KV_FAULT=hang-open", name(&programs().faulty)));
    let successor = place.successor_of(first);
    wait_until("the incumbent has sealed", || place.ping().is_none().then_some(()));
    signal(host.pid(), SIGHUP); // forks
    wait_until("a child", || children(host.pid()).into_iter().find(|pid| ![first, successor].contains(pid)));
    host.kill();
    assert_eq!(place.wait_until_served(), first);
    wait_for_death(successor);
}

#[test]
fn nobody_is_left_to_resume() {
    let (mut place, host, first) = serving("");
    host.kill();
    signal(first, SIGKILL);
    wait_for_death(first);
    let mut host = Host::start(&place, "");
    let said = host.resume(name(&programs().kv_a));
    assert_eq!((said.code, said.result), (COLD_START, 0), "the outcome is as it was: {said:?}");
    place.address = bind(&mut host);
    let said = host.perform(name(&programs().kv_a));
    assert_eq!((said.code, said.result), (OK, STARTED_COLD), "{said:?}");
    commits(&place, &mut host);
}

#[test]
fn a_daemon_that_can_not_be_adopted_is_named_and_left_alone() {
    let (place, host, first) = serving("");
    host.kill();
    freeze(first);
    let mut host = Host::start(&place, "");
    host.tell(&format!("resume {} hello=60000", name(&programs().kv_a)));
    wait_until("it waits for the daemon", || waits(host.pid()).then_some(()));
    signal(host.pid(), SIGUSR1);
    let said = host.said();
    assert_eq!(said.code, LOCKED, "{said:?}");
    assert!(said.text.contains(&first.to_string()) && said.text.contains("cancelled"), "{said:?}");
    let after = host.perform(name(&programs().kv_a));
    assert_eq!(after.code, STATE, "{after:?}");
    thaw(first);
    assert_eq!(place.ping(), Some((first, "a".to_owned())));
    host.tell("free");
    assert_eq!(host.answer(), ["free", "0"]);
    let said = host.resume(name(&programs().kv_a));
    assert_eq!((said.code, said.result, said.pid), (OK, ADOPTED, first), "{said:?}");
    commits(&place, &mut host);
}

/// Whatever the program does with its children.
fn whoever_reaps(mode: &str) {
    let (place, mut host, first) = serving(mode);
    let said = host.perform(format!("{} KV_FAULT=crash-warm", name(&programs().faulty)));
    assert_eq!((said.code, said.result, said.pid), (OK, ROLLED_BACK, first), "{said:?}");
    let said = host.perform(format!("{} KV_FAULT=fork-open ready=500", name(&programs().faulty)));
    assert_eq!((said.code, said.result, said.pid), (OK, ROLLED_BACK, first), "{said:?}");
    assert_eq!(place.daemons(), [first], "not even a child of the successor is left");
    // Nor one that keeps the lock when both are dead.
    host.tell(&format!("perform {} KV_FAULT=fork-open", name(&programs().faulty)));
    let successor = place.successor_of(first);
    wait_until("a child of the successor", || (place.daemons().len() == 3).then_some(()));
    signal(first, SIGKILL);
    signal(successor, SIGKILL);
    let said = host.said();
    assert_eq!((said.code, said.result), (OK, STARTED_COLD), "{said:?}");
    let first = said.pid;
    let second = commits(&place, &mut host);
    wait_until("it is reaped by somebody", || process_state(first).is_none().then_some(()));
    signal(second, SIGKILL);
    host.await_death();
    wait_until("so is this one", || process_state(second).is_none().then_some(()));
    let said = host.perform(name(&programs().kv_a));
    assert_eq!((said.code, said.result), (OK, STARTED_COLD), "{said:?}");
    let said = host.perform("/nowhere/at/all");
    assert_eq!((said.code, said.result), (OK, REFUSED), "{said:?}");
    commits(&place, &mut host);
    host.end();
}

#[test]
fn a_program_that_ignores_sigchld() {
    whoever_reaps("ignore");
}

#[test]
fn a_program_that_leaves_no_zombies() {
    whoever_reaps("no-wait");
}

#[test]
fn a_program_that_waits_for_any_child() {
    whoever_reaps("reap");
}

#[test]
fn a_successor_that_dies_between_two_calls_is_not_undone_by_an_incumbent_that_has_retired() {
    let (place, mut host) = place("");
    let first = host.perform(format!("{} KV_FAULT=lingers", name(&programs().faulty)));
    assert_eq!((first.code, first.result), (OK, STARTED_COLD), "{first:?}");
    let second = commits(&place, &mut host);
    // What it has to do is done; the supervisor has not looked since.
    wait_until("it has heard that it is replaced, and lingers", || {
        let wchan = std::fs::read_to_string(format!("/proc/{}/wchan", first.pid)).unwrap();
        wchan.contains("pause").then_some(())
    });
    signal(second, SIGKILL);
    host.await_death();
    host.tell(&format!("perform {}", name(&programs().kv_a)));
    // As long as it is there it keeps the data, and the supervisor waits.
    wait_until("the second is reaped", || process_state(second).is_none().then_some(()));
    assert_eq!(place.daemons(), [first.pid]);
    signal(first.pid, SIGKILL);
    let said = host.said();
    assert_eq!((said.code, said.result, said.generation), (OK, STARTED_COLD, 3), "{said:?}");
    assert_eq!(place.ping(), Some((said.pid, "a".to_owned())));
}

#[test]
fn a_daemon_that_dies_between_two_calls_is_started_again() {
    let (place, mut host, first) = serving("");
    signal(first, SIGKILL);
    host.await_death();
    assert_eq!(process_state(first), Some('Z'), "nobody reaps outside of a call");
    let said = host.perform(name(&programs().kv_b));
    assert_eq!((said.code, said.result, said.generation), (OK, STARTED_COLD, 2), "{said:?}");
    assert!(process_state(first).is_none());
    assert_eq!(place.ping(), Some((said.pid, "b".to_owned())));
    // The same for one that ends properly.
    signal(said.pid, SIGTERM);
    host.await_death();
    let said = host.perform(name(&programs().kv_a));
    assert_eq!((said.code, said.result, said.generation), (OK, STARTED_COLD, 3), "{said:?}");
    host.end();
    assert!(lives(said.pid));
}

/// The command, in a place of its own: its first two arguments.
fn abuse(mut command: impl FnMut(&Service) -> Command) {
    let place = Service::place();
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| compile("supervisor_abuse", "ffi-tests/c/supervisor_abuse.c", &[]));
    // Not a pipe: the daemons inherit it, and may outlive a program that fails.
    let stderr = stderr(&place);
    let status = command(&place).arg(program).arg(place.dir.path()).arg(&programs().faulty).stderr(stderr).status();
    assert!(status.as_ref().is_ok_and(ExitStatus::success), "{status:?}");
}

#[test]
fn no_input_and_no_order_of_calls_is_worse_than_an_error_code() {
    abuse(|place| {
        let mut timeout = place.other_command("timeout");
        timeout.arg("120");
        timeout
    });
}

#[test]
fn the_same_under_valgrind() {
    if !have("valgrind") {
        return;
    }
    abuse(|place| {
        let mut valgrind = place.other_command("timeout");
        valgrind.args(["300", "valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full"]);
        valgrind.arg("--errors-for-leak-kinds=definite");
        let suppressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi-tests/valgrind.supp");
        valgrind.arg(format!("--suppressions={}", suppressions.display()));
        valgrind
    });
}

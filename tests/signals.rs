//! Signals without end: calls that are interrupted at every step, in each of the three processes. And pipes whose reader has
//! gone, in processes that would die of it.

mod support;

use handoff::supervisor::{SpawnSpec, Supervisor, Verdict};
use handoff::sys::page::DecisionPage;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::load::{Load, LoadOptions, verify};
use support::{SIGCONT, SIGSTOP, Service, programs, signal, wait_until};

const SIGWINCH: i32 = 28;

/// Does something without end, in a thread, until it is dropped.
struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn new(mut gust: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                gust();
            }
        };
        Self { stop, thread: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}

/// Upgrades that commit and upgrades that are undone, under load; every acknowledged write is there.
fn hand_off_well(service: &Service, next: impl Fn() -> std::path::PathBuf) {
    let load = Load::start(LoadOptions { clients: 4, ..LoadOptions::new(service.address) });
    wait_until("some writes", || (load.snapshot().acknowledged > 50).then_some(()));
    for round in 0..5 {
        let undone = service.upgrade(&service.faulty("unhealthy"), &[]);
        assert_eq!((undone.code, undone.result.as_str()), (10, "rolled_back"), "round {round}: {undone:?}");
        assert!(undone.reason.contains("told to be unhealthy"), "round {round}: {undone:?}");
        let done = service.upgrade(&next(), &[]);
        assert_eq!((done.code, done.result.as_str()), (0, "committed"), "round {round}: {done:?}");
    }
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()));
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
    wait_until("one daemon", || (service.daemons().len() == 1).then_some(()));
    assert!(!service.stderr().contains("panicked"), "{}", service.stderr());
}

#[test]
fn daemons_whose_calls_are_interrupted_every_200_microseconds() {
    let service = Service::start_faulty("seal-progress=200,storm");
    hand_off_well(&service, || service.faulty("seal-progress=200,storm"));
    // It was a storm: each of the incumbents says so.
    let log = service.stderr();
    let counts: Vec<u64> = log
        .lines()
        .filter_map(|line| line.strip_prefix("interrupted ")?.strip_suffix(" times")?.parse().ok())
        .collect();
    assert!(counts.len() >= 5 && counts.iter().all(|count| *count > 10), "{counts:?}");
}

#[test]
fn a_supervisor_that_is_stopped_continued_and_signalled_without_end() {
    let service = Service::start(&programs().kv_a);
    let supervisor = service.supervisor_pid();
    let _storm = Storm::new(move || {
        for number in [SIGWINCH, SIGSTOP, SIGWINCH, SIGCONT] {
            signal(supervisor, number);
        }
        std::thread::sleep(Duration::from_micros(200));
    });
    hand_off_well(&service, || programs().kv_b.clone());
}

#[test]
fn a_command_that_is_stopped_and_continued_while_it_waits() {
    let service = Service::start(&programs().kv_a);
    let upgrading = service.begin_upgrade(&service.faulty("slow-open=2000"), &[]);
    let command = upgrading.pid();
    service.wait_for_phase("opening");
    for _ in 0..50 {
        support::freeze(command);
        signal(command, SIGCONT);
        std::thread::sleep(Duration::from_millis(10));
    }
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
}

// ---- a supervisor inside a program, which has handlers of its own

static INTERRUPTIONS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: i32) {
    INTERRUPTIONS.fetch_add(1, Ordering::Relaxed);
}

/// Interrupts this thread, and no other, as often as leaves it time for anything else.
fn interrupt_this_thread() -> Storm {
    // Without SA_RESTART.
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only counts, and nobody else in this process uses the signal.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let (process, thread) = (nix::unistd::getpid().as_raw(), nix::unistd::gettid().as_raw());
    Storm::new(move || {
        // SAFETY: three numbers; the thread joins this one, so it lives.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
        assert_eq!(sent, 0);
        // Without a pause the thread only runs its handler, where another processor sends fast enough.
        std::thread::sleep(Duration::from_micros(5));
    })
}

fn spec(service: &Service, program: &Path, fault: &str) -> SpawnSpec {
    let mark = service.path("").display().to_string().trim_end_matches('/').to_owned();
    SpawnSpec::new([program])
        .env(support::MARK, mark)
        .env("KV_FAULT", fault)
        .data_dir(service.path("data"))
        .control_path(service.path("kv.control"))
        .capture_stderr(service.path(""))
}

#[test]
fn a_supervisor_in_a_program_whose_calls_are_interrupted_without_end() {
    // As in a program in C: who writes where nobody reads, dies.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action is no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }.unwrap();
    let mut service = Service::place();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    service.address = listener.local_addr().unwrap();
    // The journal and the pages are where they should be: on a tmpfs, whose calls can be interrupted.
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let supervisor = Supervisor::new().unwrap().with_name("kv").unwrap();
    let supervisor = supervisor.with_listener("kv", listener).unwrap();
    let mut supervisor = supervisor.with_journal(memory.path().join("kv.journal"));
    let storm = interrupt_this_thread();
    let faulty = &programs().faulty;
    let first = supervisor.perform_handoff(&spec(&service, faulty, "")).unwrap();
    assert_eq!(first.verdict, Verdict::StartedCold, "{}", first.reason);
    assert!(service.ask("SET before 1").unwrap().starts_with("OK "));
    for round in 0..30 {
        let faults = ["unhealthy", "exit-before-hello", "segv", "old-revision"];
        let bad = supervisor.perform_handoff(&spec(&service, faulty, faults[round % faults.len()])).unwrap();
        assert_eq!(bad.verdict, Verdict::RolledBack, "round {round}: {}", bad.reason);
        let good = supervisor.perform_handoff(&spec(&service, faulty, "")).unwrap();
        assert_eq!(good.verdict, Verdict::Committed, "round {round}: {}", good.reason);
    }
    drop(storm);
    assert_eq!(i64::from(service.wait_until_served()), i64::from(supervisor.status().pid.unwrap()));
    let interruptions = INTERRUPTIONS.load(Ordering::Relaxed);
    assert!(interruptions > 1000, "no storm: {interruptions}");
}

#[test]
fn a_decision_page_is_made_although_each_call_may_be_interrupted() {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = memory.path().join("page");
    let _storm = interrupt_this_thread();
    for round in 0..20_000 {
        DecisionPage::create(Some(&path), 1).unwrap_or_else(|error| panic!("round {round}: {error}"));
        std::fs::remove_file(&path).unwrap();
    }
}

// ---- nobody reads

#[test]
fn a_supervisor_whose_output_nobody_reads_any_more() {
    let mut service = Service::place();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = service.command("run");
    command.args(["--listen", "kv=127.0.0.1:0", "--data-dir"]).arg(service.path("data")).arg("--");
    let mut run = command.arg(&programs().kv_a).stderr(Stdio::from(writer)).spawn().unwrap();
    drop(reader);
    let serves = |status: &serde_json::Value| status["linked"] == true && status["phase"] == "idle";
    let status = wait_until("it serves", || service.status().filter(serves));
    service.address = status["listeners"][0]["address"].as_str().unwrap().parse().unwrap();
    for (program, result) in [(service.faulty("unhealthy"), "rolled_back"), (programs().kv_b.clone(), "committed")] {
        let upgrade = service.upgrade(&program, &[]);
        assert_eq!(upgrade.result, result, "{upgrade:?}");
    }
    assert_eq!(run.try_wait().unwrap(), None, "it runs");
    run.kill().unwrap();
    run.wait().unwrap();
}

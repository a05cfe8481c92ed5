//! The Python binding: its own tests, and daemons in Python under a real supervisor and live load.

#[path = "../compiled/mod.rs"]
mod compiled;
mod moving;
#[path = "../support/mod.rs"]
mod support;

use compiled::expect_success;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use support::load::{Load, LoadOptions, verify};
use support::overlapping::upgrades_stop_nobody;
use support::python::{Python, binding};
use support::{KeptAlive, SIGKILL, Service, library, newer_library, signal, wait_until};

// ---- hooks that do not behave

fn scenario(python: &Python, name: &str) -> PathBuf {
    python.daemon(name, &format!("ffi-tests/python/hooks.py {name}"), "")
}

/// Waits until a daemon has said this: its standard error comes through the supervisor, later than the outcome perhaps.
fn heard(service: &Service, text: &str) {
    wait_until(text, || service.stderr().contains(text).then_some(()));
}

/// A hook that fails: the handoff is undone, the reason says why, the traceback is in the log, and the next handoff commits.
fn a_failure_is_told(name: &str, reason: &str) {
    let Some(python) = Python::find() else { return };
    let mut service = Service::start(&scenario(&python, name));
    let before = service.daemon_pid();
    let upgrade = service.upgrade(&scenario(&python, "behaves"), &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
    assert!(upgrade.reason.contains(reason), "{upgrade:?}");
    assert_eq!(service.daemon_pid(), before);
    heard(&service, "hooks: resumes");
    let said = service.stderr();
    let traceback = said.split("Traceback (most recent call last):").nth(1).unwrap_or_default();
    assert!(traceback.contains(reason) && said.contains("ERROR handoff: the "), "{said}");
    let again = service.upgrade(&scenario(&python, "behaves-too"), &[]);
    assert_eq!(again.result, "committed", "{again:?}");
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
    assert!(service.stderr().contains("hooks: stopped"), "{}", service.stderr());
}

#[test]
fn a_drain_that_raises_has_failed() {
    a_failure_is_told("drain-raises", "RuntimeError: told to fail the drain");
}

#[test]
fn a_drain_that_serves_has_failed() {
    a_failure_is_told("drain-serves", "Busy: handoff_dispatch: a hook is running");
}

#[test]
fn a_drain_that_raises_in_a_loop_has_failed() {
    a_failure_is_told("async-raises", "RuntimeError: told to fail the drain");
}

#[test]
fn a_seal_that_raises_has_failed() {
    a_failure_is_told("seal-raises", "OSError: told to fail the seal");
}

#[test]
fn a_seal_without_a_revision_that_can_be_one_has_failed() {
    a_failure_is_told("seal-lies", "ValueError: -1 is not a revision");
}

/// The successor dies while the incumbent drains.
fn a_drain_hears_the_end(name: &str, cancelled: &str) {
    let Some(python) = Python::find() else { return };
    let mut service = Service::start(&scenario(&python, name));
    let before = service.daemon_pid();
    let upgrading = service.begin_upgrade(&scenario(&python, "behaves"), &[]);
    heard(&service, "hooks: drains");
    signal(service.successor_of(before), SIGKILL);
    let upgrade = upgrading.wait();
    assert_eq!(upgrade.result, "rolled_back", "{upgrade:?}");
    heard(&service, cancelled);
    heard(&service, "hooks: resumes");
    assert_eq!((service.daemon_pid(), service.stop()), (before, Some(0)), "{}", service.stderr());
}

#[test]
fn a_drain_hears_that_it_is_cancelled() {
    a_drain_hears_the_end("drain-waits", "hooks: cancelled: True True True True");
}

#[test]
fn a_drain_in_a_loop_is_cancelled_as_a_task() {
    a_drain_hears_the_end("async-waits", "hooks: cancelled: True");
}

/// Someone is inside the fence when the seal is answered.
fn the_seal_waits(name: &str) {
    let Some(python) = Python::find() else { return };
    let service = Service::start(&scenario(&python, name));
    let upgrade = service.upgrade(&scenario(&python, "behaves"), &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    heard(&service, "hooks: serves: True");
    let said = service.stderr();
    // By the clock that both processes share: their lines come on two ways.
    let at_ns = |text: &str| -> u64 {
        let after = said.rsplit(&format!("hooks: {text} @")).next().filter(|after| after.len() < said.len());
        let after = after.unwrap_or_else(|| panic!("no {text} in\n{said}"));
        after.split('\n').next().unwrap().parse().unwrap()
    };
    let order = ["writes", "seals", "has written", "serves: True"].map(at_ns);
    assert!(order.is_sorted(), "{said}");
}

#[test]
fn the_seal_waits_for_a_thread_that_writes() {
    the_seal_waits("writer");
}

#[test]
fn the_seal_waits_for_a_task_that_writes() {
    the_seal_waits("async-writer");
}

#[test]
fn an_event_can_be_answered_once() {
    let Some(python) = Python::find() else { return };
    let service = Service::start(&scenario(&python, "answers"));
    assert_eq!(service.upgrade(&scenario(&python, "behaves"), &[]).result, "committed");
    heard(&service, "hooks: twice: ESTALE");
}

#[test]
fn what_can_not_go_on_ends() {
    let Some(python) = Python::find() else { return };
    let behaves = scenario(&python, "behaves");
    for (name, reason) in [
        ("no-hooks", "no drain hook is registered"),
        ("drain-exits", "SystemExit: 3"),
        ("resume-raises", "OSError: told to fail the seal"),
    ] {
        let service = Service::start(&scenario(&python, name));
        let before = service.daemon_pid();
        let upgrade = service.upgrade(&behaves, &[]);
        assert_eq!(upgrade.result, "started_cold", "{name}: {upgrade:?}");
        heard(&service, reason);
        assert_ne!(service.daemon_pid(), before, "{name}");
    }
}

#[test]
fn a_bad_successor_is_undone() {
    let Some(python) = Python::find() else { return };
    let good = python.daemon("good", "ffi-tests/python/kv_asyncio.py", "KV_BUILD=good");
    let service = Service::start(&good);
    let load = Load::start(LoadOptions { clients: 4, ..LoadOptions::new(service.address) });
    for (fault, reason) in [("unhealthy", "told to be unhealthy"), ("crash", "exit status 9")] {
        for store in ["kv_blocking", "kv_asyncio"] {
            let script = format!("ffi-tests/python/{store}.py");
            let bad = python.daemon(&format!("{store}-{fault}"), &script, &format!("KV_FAULT={fault}"));
            let before = service.daemon_pid();
            let upgrade = service.upgrade(&bad, &[]);
            assert_eq!(upgrade.result, "rolled_back", "{store} {fault}: {upgrade:?}");
            assert!(upgrade.reason.contains(reason), "{store} {fault}: {upgrade:?}");
            assert_eq!(service.daemon_pid(), before, "{store} {fault}");
        }
    }
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
    assert_eq!(report.closed_connections, 0, "of {}", report.requests);
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
}

#[test]
fn upgrades_in_overlap_mode_stop_nobody() {
    let Some(python) = Python::find() else { return };
    let script = "ffi-tests/python/overlap.py";
    let go = python.dir.path().join("go");
    let [a, b] = ["a", "b"].map(|build| python.daemon(build, script, &format!("BUILD={build}")));
    let slow = python.daemon("slow", script, &format!("WEB_INIT={}", go.display()));
    upgrades_stop_nobody([&a, &b], &slow, &go);
}

/// The library knows of events that the binding does not.
#[test]
fn a_newer_library_is_no_reason_to_end() {
    let Some(mut python) = Python::find() else { return };
    python.library = newer_library();
    for store in ["kv_blocking", "kv_asyncio"] {
        let script = format!("ffi-tests/python/{store}.py");
        let [a, b] = ["a", "b"].map(|name| python.daemon(&format!("{store}-{name}"), &script, ""));
        let mut service = Service::start(&a);
        for next in [&b, &a] {
            let upgrade = service.upgrade(next, &[]);
            assert_eq!(upgrade.result, "committed", "{store}: {upgrade:?}");
        }
        heard(&service, "newer: an event of a later kind");
        assert_eq!(service.stop(), Some(0), "{store}: {}", service.stderr());
    }
}

// ---- the examples

/// Clients that ask once per connection, and count the answers that were not to the question.
struct Clients {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn start(address: SocketAddr, question: &'static str, answer: &'static str) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = || {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Relaxed) {
                    match ask(address, question) {
                        Ok(text) if text.contains(answer) => {}
                        other => failures.push(format!("{other:?}")),
                    }
                    asked.fetch_add(1, Relaxed);
                }
                failures
            })
        };
        let threads = (0..8).map(|_| client()).collect();
        Self { stop, asked, threads }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// What the server says until the first end of a line of which nothing follows at once.
fn ask(address: SocketAddr, question: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(support::PATIENCE))?;
    stream.write_all(question.as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"\n") || answer.ends_with(b"\r\n") {
        match stream.read(&mut part)? {
            0 => break,
            size => answer.extend(&part[..size]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What asks on connections that move, and expects answers of this build.
type Kept = Box<dyn FnMut(&str)>;

fn an_example_is_replaced(
    script: &str,
    listener: &str,
    question: &'static str,
    answer: &'static str,
    kept: fn(SocketAddr) -> Kept,
) {
    let Some(python) = Python::find() else { return };
    let script = format!("bindings/python/examples/{script}");
    let builds = ["build-a", "build-b"].map(|build| (build, python.daemon(build, &script, &format!("BUILD={build}"))));
    let mut service = Service::place();
    service.launch(&builds[0].1, &["--listen", &format!("{listener}=127.0.0.1:0")]);
    let status = service.status().unwrap();
    let listeners = status["listeners"].as_array().unwrap();
    let given = listeners.iter().find(|given| given["name"] == listener).unwrap();
    let address = given["address"].as_str().unwrap().parse().unwrap();
    let clients = Clients::start(address, question, answer);
    let mut kept = kept(address);
    for round in 1..=20 {
        let (build, program) = &builds[round % 2];
        let upgrade = service.upgrade(program, &[]);
        assert_eq!(upgrade.result, "committed", "round {round}: {upgrade:?}");
        assert!(ask(address, question).unwrap().contains(build), "round {round}");
        kept(build);
        let asked = clients.asked.load(Relaxed);
        wait_until("more answers", || (clients.asked.load(Relaxed) > asked + 8).then_some(()));
    }
    let bad = "-c 'import handoff; h = handoff.Handoff(); h.wait_for_begin(); h.announce_ready(healthy=False)'";
    let upgrade = service.upgrade(&python.daemon("bad", bad, ""), &[]);
    assert_eq!(upgrade.result, "rolled_back", "{upgrade:?}");
    kept(builds[0].0);
    assert!(ask(address, question).unwrap().contains(builds[0].0));
    // In a probation the clients are the successor's alone, and nobody has those of one that dies.
    let reserve = service.daemon_pid();
    let upgrade = service.upgrade(&builds[1].1, &["--probation", "60s"]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    kept(builds[1].0);
    assert_eq!(clients.stop(), Vec::<String>::new());
    signal(service.daemon_pid(), SIGKILL);
    wait_until("the reserve serves", || (service.daemon_pid() == reserve).then_some(()));
    assert!(ask(address, question).unwrap().contains(builds[0].0));
    drop(kept);
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
    assert!(!service.stderr().contains("Traceback"), "{}", service.stderr());
}

#[test]
fn the_http_server_is_replaced_under_load() {
    let question = "GET /page HTTP/1.0\r\n\r\n";
    an_example_is_replaced("http_server.py", "http", question, "\r\n\r\n/page from build-", |address| {
        let [mut idle, mut half] = [(); 2].map(|()| KeptAlive::connect(address));
        half.say("GET /ha");
        Box::new(move |build| {
            for (client, rest, path) in [(&mut idle, "GET /idle", "/idle"), (&mut half, "lf", "/half")] {
                client.say(&format!("{rest} HTTP/1.1\r\n\r\n"));
                let head = std::iter::repeat_with(|| client.hear()).find(|line| line.is_empty() || line == "\r\n");
                assert_eq!(head.unwrap(), "\r\n", "{path} of {build}");
                assert_eq!(client.hear(), format!("{path} from {build}\n"));
            }
            half.say("GET /ha");
        })
    });
}

#[test]
fn the_line_server_is_replaced_under_load() {
    an_example_is_replaced("line_server.py", "lines", "hello\n", " HELLO\n", |address| {
        let mut client = KeptAlive::connect(address);
        Box::new(move |build| assert_eq!(client.ask("again"), format!("{build} AGAIN")))
    });
}

// ---- the package

#[test]
fn the_tests_of_the_package_pass() {
    let Some(python) = Python::find() else { return };
    let mut command = python.command("timeout");
    command.arg("300").arg(python.interpreter).args([
        "-X",
        "dev",
        "-W",
        "error",
        "-m",
        "unittest",
        "discover",
        "--start-directory",
    ]);
    let output = command.arg(binding().join("tests")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("Warning"), "{said}");
    let ran: usize = said.split("Ran ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(ran >= 40 && !said.contains("skipped"), "{said}");
}

/// Everything that "pip install" does, with nothing from outside.
#[test]
fn the_wheel_brings_the_library_and_works_outside_of_the_tree() {
    let Some(python) = Python::find() else { return };
    let dir = python.dir.path();
    expect_success(Command::new(python.interpreter).args(["-m", "venv"]).arg(dir.join("venv")));
    let pip = |arguments: &[&str]| {
        let mut command = Command::new(dir.join("venv/bin/python"));
        command.args(["-m", "pip", "--disable-pip-version-check"]).args(arguments).current_dir(dir);
        command.env_remove("PYTHONPATH").env("LIBHANDOFF", library());
        expect_success(&mut command)
    };
    pip(&["wheel", "--no-index", "--no-deps", "--wheel-dir", "wheels", binding().to_str().unwrap()]);
    let wheels: Vec<_> = fs::read_dir(dir.join("wheels")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let wheel = wheels[0].to_str().unwrap();
    assert_eq!(wheels.len(), 1);
    assert_eq!(wheel, format!("handoff-0.1.0-py3-none-linux_{}.whl", std::env::consts::ARCH));
    pip(&["install", "--no-index", &format!("wheels/{wheel}")]);
    pip(&["check"]);
    let mut isolated = Command::new(dir.join("venv/bin/python"));
    isolated.args(["-I", "-c", "import handoff; print(handoff.library_path)"]).env_remove("LIBHANDOFF");
    let path = expect_success(isolated.current_dir(dir));
    let path = Path::new(path.trim());
    assert!(path.starts_with(dir) && path.ends_with("handoff/libhandoff.so.0"), "{}", path.display());
    assert_eq!(fs::read(path).unwrap(), fs::read(library()).unwrap());
    // As a daemon, too.
    let venv = dir.join("venv/bin/python");
    let command = format!("env -u PYTHONPATH -u LIBHANDOFF {} ffi-tests/python/kv_blocking.py", venv.display());
    let script = python.program("kv", &command);
    let mut service = Service::start(&script);
    assert_eq!(service.upgrade(&script, &[]).result, "committed");
    assert_eq!(service.stop(), Some(0), "{}", service.stderr());
}

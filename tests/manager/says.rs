//! What the manager hears, from the start to the end.

use crate::daemons::{refs, systemd, web};
use crate::fake::Fake;
use crate::harness::{Place, ask, signal, text, wait_until};
use nix::sys::signal::Signal;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

#[test]
fn from_ready_to_stopping() {
    let place = Place::new();
    let mut fake = Fake::new(&place);
    let mut command = fake.command(&place, &refs(&web(&place, "reload", &[])));
    command.env("WATCHDOG_USEC", "200000").env("FDSTORE", "512");
    let mut run = place.spawn(command);
    let ready = fake.wait_for_field("READY", "1", 0);
    let (pid, address) = run.running();
    assert!(fake.messages[ready].get("STATUS").unwrap().contains("running"), "{:?}", fake.messages[ready]);
    assert_eq!(ask(address, "hello").0, pid);
    // The loop gives signs of life although nothing happens.
    let alive = fake.count("WATCHDOG");
    wait_until("signs of life", || {
        fake.read();
        (fake.count("WATCHDOG") > alive + 3).then_some(())
    });

    let before = fake.messages.len();
    signal(run.pid(), Signal::SIGHUP);
    let reloading = fake.wait_for_field("RELOADING", "1", before);
    let since: u64 = fake.messages[reloading].get("MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!(since > 0);
    fake.wait_for_field("READY", "1", reloading + 1);
    run.wait_for_text("reloaded");

    // A restart of the daemon is no change of its own main process.
    let before = fake.messages.len();
    signal(pid, Signal::SIGKILL);
    fake.wait_for("another process", before, |message| {
        message.get("STATUS").is_some_and(|status| status.contains("running") && status.contains("generation 2"))
    });
    let before = fake.messages.len();
    signal(run.pid(), Signal::SIGTERM);
    let stopping = fake.wait_for_field("STOPPING", "1", before);
    assert!(fake.messages[stopping].get("EXTEND_TIMEOUT_USEC").is_some(), "a stop takes its time");
    run.end();
    fake.read();
    assert!(fake.messages.iter().all(|message| message.pid == run.pid()), "NotifyAccess=main: {:?}", fake.messages);
    assert_eq!(fake.count("MAINPID"), 0);
}

#[test]
fn not_ready_before_the_daemon_is() {
    let place = Place::new();
    let mut fake = Fake::new(&place);
    let go = place.path("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done; echo >&3; exec sleep 1000", go.display());
    let daemon = ["--name", "slow", "--mode", "overlap", "--ready", "fd=3", "--", "sh", "-c", &script];
    let mut command = fake.command(&place, &daemon);
    command.env("WATCHDOG_USEC", "100000");
    let run = place.spawn(command);
    // It is heard of, and has time to be wrong.
    wait_until("signs of life", || {
        fake.read();
        (fake.count("WATCHDOG") > 10).then_some(())
    });
    assert_eq!(fake.count("READY"), 0, "{:?}", fake.messages);
    let extended =
        fake.wait_for("an extension of the start", 0, |message| message.get("EXTEND_TIMEOUT_USEC").is_some());
    assert!(fake.messages[extended].get("EXTEND_TIMEOUT_USEC").unwrap().parse::<u64>().unwrap() >= 10_000_000);
    fs::write(go, "").unwrap();
    fake.wait_for_field("READY", "1", 0);
    drop(run);
}

#[test]
fn a_service_inherits_nothing_of_it() {
    let place = Place::new();
    let mut fake = Fake::new(&place);
    let found = place.path("found");
    let script = format!("env > {0}.new; mv {0}.new {0}; exec sleep 1000", found.display());
    let mut command = fake.command(&place, &["--name", "env", "--", "sh", "-c", &script]);
    command.env("WATCHDOG_USEC", "60000000").env("FDSTORE", "1");
    let _run = place.spawn(command);
    fake.wait_for_field("READY", "1", 0);
    let environment = wait_until("its environment", || fs::read_to_string(&found).ok());
    let value = |name: &str| environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert_ne!(value("NOTIFY_SOCKET").expect("one of its own"), text(&fake.path()));
    for name in ["WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"] {
        assert_eq!(value(name), None, "{environment}");
    }
}

#[test]
fn an_abstract_socket_and_a_watchdog_of_somebody_else() {
    let place = Place::new();
    let name = format!("handoff-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let mut command = place.handoff("run");
    command.args(web(&place, "plain", &[])).env("NOTIFY_SOCKET", format!("@{name}"));
    command.env("WATCHDOG_USEC", "10000").env("WATCHDOG_PID", "1");
    let _run = place.spawn(command);
    let mut buf = [0; 4096];
    let mut seen = String::new();
    while !seen.contains("READY=1") {
        let len = socket.recv(&mut buf).unwrap();
        seen.push_str(std::str::from_utf8(&buf[..len]).unwrap());
        seen.push('\n');
    }
    assert!(!seen.contains("WATCHDOG=1"), "that one is for process 1: {seen}");
}

#[test]
fn a_manager_that_does_not_read_or_is_gone_harms_nobody() {
    let place = Place::new();
    let fake = Fake::new(&place);
    let mut command = fake.command(&place, &refs(&web(&place, "plain", &[])));
    command.env("WATCHDOG_USEC", "2000"); // a thousand messages in a second: its queue is full soon
    let run = place.spawn(command);
    let (pid, address) = run.running();
    let until = std::time::Instant::now() + Duration::from_secs(1);
    while std::time::Instant::now() < until {
        assert_eq!(ask(address, "hello").0, pid);
        assert_eq!(place.output("status", &[]).code, 0);
    }
    drop(fake);
    assert_eq!(ask(address, "still").0, pid);
    assert_eq!(place.output("status", &[]).code, 0);

    for nobody in ["/nonexistent/notify", "relative", "@nobody-is-here", "vsock:2:1234"] {
        let place = Place::new();
        let mut command = place.handoff("run");
        let [program, script, mode] = systemd(&place, "plain");
        command.args(["--name", "web", "--listen", "web=127.0.0.1:0", "--", &program, &script, &mode]);
        let run = place.spawn({
            command.env("NOTIFY_SOCKET", nobody);
            command
        });
        let (pid, address) = run.running();
        assert_eq!(ask(address, nobody).0, pid);
    }
}

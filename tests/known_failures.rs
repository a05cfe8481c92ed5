//! Failures that are known of other implementations of such a handoff, each by its name, and what happens here instead:
//! real supervisors, daemons in C, and clients. A test has the name of the failure, and passes because it does not happen.
//! docs/guarantees.md has the whole list, with those that other files try.

mod support;

use handoff::sys::control::living_owner;
use handoff::sys::limits::raise_nofile;
use handoff::sys::seqpacket::Seqpacket;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use support::load::{Load, LoadOptions, verify};
use support::{
    KeptAlive, SIGKILL, Service, Upgrade, compile, freeze, process_state, programs, signal, thaw, wait_for_death,
    wait_until,
};

/// A store that has acknowledged a write.
fn store(program: Option<&str>) -> (Service, i32) {
    let service = match program {
        None => Service::start(&programs().kv_a),
        Some(fault) => Service::start_faulty(fault),
    };
    assert!(service.ask("SET before 1").unwrap().starts_with("OK "));
    let incumbent = service.daemon_pid();
    (service, incumbent)
}

/// Nothing is lost, one process is left, and it can be replaced.
#[track_caller]
fn goes_on(service: &Service, server: i32) {
    assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
    wait_until("one daemon", || (service.daemons() == [server]).then_some(()));
    let next = service.upgrade(&programs().kv_b, &[]);
    assert_eq!((next.code, next.result.as_str()), (0, "committed"), "{next:?}");
    assert_eq!(service.ping(), Some((service.daemon_pid(), "b".into())));
    assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
    wait_for_death(server);
}

#[track_caller]
fn rolled_back(upgrade: &Upgrade) {
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
}

// ---- who serves after a death

/// S killed while N needs longer than 2 s to open its data: O had gone already, N gave up, and nobody served.
#[test]
fn supervisor_killed_while_the_successor_opens_for_longer_than_two_seconds() {
    let (mut service, incumbent) = store(None);
    let upgrading = service.begin_upgrade(&service.faulty("slow-open=4000"), &[]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase("opening");
    service.kill_supervisor();
    drop(upgrading);
    assert_eq!(service.wait_until_served(), incumbent);
    wait_for_death(successor);
    // Also when the successor would have been through with it.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(service.wait_until_served(), incumbent);
    assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
    assert_eq!(service.daemons(), [incumbent], "exactly one");
}

/// O killed in mid-handoff, before it has sealed: nobody served, and every later trigger failed.
#[test]
fn incumbent_killed_before_the_seal() {
    let cases = [
        (None, "slow-warm=1500", "warming"),
        (Some("slow-drain=3000"), "slow-warm=0", "draining"),
        (Some("seal-progress=300000"), "slow-warm=0", "sealing"),
    ];
    for ((fault, successor, phase), promote) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let (service, incumbent) = store(fault);
        let arguments: &[&str] = if promote { &["--promote"] } else { &[] };
        let upgrading = service.begin_upgrade(&service.faulty(successor), arguments);
        service.wait_for_phase(phase);
        signal(incumbent, SIGKILL);
        wait_for_death(incumbent);
        let server = service.wait_until_served();
        assert_ne!(server, incumbent, "{phase}");
        let upgrade = upgrading.wait();
        let expected = if promote { "committed" } else { "started_cold" };
        assert_eq!(upgrade.result, expected, "{phase}: {upgrade:?}");
        goes_on(&service, server);
    }
}

/// A restarted supervisor could not bind its listeners, because the daemon still held them. (Under load, and again and
/// again: `tests/adoption.rs`.)
#[test]
fn a_restarted_supervisor_can_not_bind_the_ports_that_the_daemon_still_holds() {
    let (mut service, incumbent) = store(None);
    let fixed = addresses(&service);
    service.kill_supervisor();
    assert_eq!(service.wait_until_served(), incumbent, "without a supervisor");
    let mut again = service.command("run");
    again.arg(format!("--listen=kv={}", fixed[0])).arg(format!("--listen=echo={}", fixed[1]));
    again.arg("--data-dir").arg(service.path("data")).arg("--").arg(&programs().kv_a);
    let said = fs::File::options().append(true).open(service.path("run.stderr")).unwrap();
    let mut run = again.stderr(said).spawn().unwrap();
    let status = wait_until("it is adopted", || {
        assert_eq!(run.try_wait().unwrap(), None, "{}", service.stderr());
        service.status().filter(|status| status["state"] == "running" && status["linked"] == true)
    });
    assert_eq!(status["pid"].as_i64(), Some(incumbent.into()));
    assert_eq!(addresses(&service), fixed);
    assert_eq!(service.ping().map(|(pid, _)| pid), Some(incumbent));
    goes_on(&service, incumbent);
    run.kill().unwrap();
    run.wait().unwrap();
}

// ---- the mode of a listener

fn many(build: &str) -> PathBuf {
    compile(&format!("many-{build}"), "ffi-tests/c/many.c", &[&format!("-DBUILD=\"{build}\"")])
}

fn manies() -> &'static (PathBuf, PathBuf) {
    static PROGRAMS: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    PROGRAMS.get_or_init(|| (many("a"), many("b")))
}

/// The addresses of the service's listeners.
fn addresses(service: &Service) -> Vec<SocketAddr> {
    let status = service.status().unwrap();
    let listeners = status["listeners"].as_array().unwrap();
    listeners.iter().map(|listener| listener["address"].as_str().unwrap().parse().unwrap()).collect()
}

/// Whether the supervisor's socket with this address is `O_NONBLOCK`: the flag is that of all processes that share it.
fn is_nonblocking(supervisor: i32, address: SocketAddr) -> bool {
    const O_NONBLOCK: u32 = 0o4000;
    let table = fs::read_to_string(format!("/proc/{supervisor}/net/tcp")).unwrap();
    let port = format!(":{:04X}", address.port());
    let is_it = |fields: &Vec<&str>| fields[1].ends_with(&port) && fields[3] == "0A";
    let inode = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()).find(is_it).unwrap()[9];
    let link = format!("socket:[{inode}]");
    let fds = fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap().flatten();
    let fd = fds.map(|fd| fd.path()).find(|fd| fs::read_link(fd).is_ok_and(|to| to.as_os_str() == &*link)).unwrap();
    let info = fs::read_to_string(format!("/proc/{supervisor}/fdinfo/{}", fd.file_name().unwrap().display())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap() & O_NONBLOCK != 0
}

/// N's start cleared `O_NONBLOCK` on a listener that O still used, so an O that accepts until EAGAIN hung, although the
/// handoff was aborted. A listener that blocks is left as it is, too.
#[test]
fn the_start_of_a_successor_changes_the_mode_of_a_shared_listener() {
    let (a, b) = manies();
    let mut service = Service::place();
    service.launch(a, &[]);
    let incumbent = service.daemon_pid();
    for fault in ["unhealthy", "exit-before-hello"] {
        let upgrade = service.upgrade(&service.faulty(fault), &[]);
        rolled_back(&upgrade);
        // It answers more than one, and comes back from each: it hears of the next handoff.
        for _ in 0..3 {
            assert_eq!(service.ping(), Some((incumbent, "a".into())), "{fault}");
        }
    }
    assert_eq!(service.upgrade(b, &[]).result, "committed");
    assert_eq!(service.ping().unwrap().1, "b");

    let service = Service::start_with(&programs().kv_a, &["--listen", "slow=127.0.0.1:0,blocking"]);
    let modes = || Vec::from_iter(addresses(&service).iter().map(|at| is_nonblocking(service.supervisor_pid(), *at)));
    let wanted = [true, true, false];
    assert_eq!(modes(), wanted, "at first");
    let (fault, opening) = (service.faulty("open-waits"), service.path("data/opening"));
    let upgrading = service.begin_upgrade(&fault, &[]);
    wait_until("the successor opens", || opening.exists().then_some(()));
    assert_eq!(modes(), wanted, "while both run");
    signal(service.successor_of(service.daemon_pid()), SIGKILL);
    rolled_back(&upgrading.wait());
    assert_eq!(modes(), wanted, "after a rollback");
    assert_eq!(service.upgrade(&programs().kv_b, &[]).result, "committed");
    assert_eq!(modes(), wanted, "after a commit");
}

// ---- time

/// A correct N that initialises for 12 s was aborted by the liveness clock.
#[test]
fn a_correct_successor_that_opens_for_twelve_seconds_is_aborted() {
    let (service, incumbent) = store(None);
    let upgrade = service.upgrade(&service.faulty("slow-open=12000"), &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    wait_for_death(incumbent);
    goes_on(&service, service.daemon_pid());
}

/// A frame that a timeout cut in two left both sides at different places of the stream. Here each process is stopped
/// again and again while O sends thousands of frames. (Short frames: `tests/hostile_peers`.)
#[test]
fn a_peer_that_stalls_in_mid_frame_desynchronises_the_stream() {
    let (service, incumbent) = store(Some("seal-progress=3000000"));
    let upgrading = service.begin_upgrade(&programs().kv_b, &[]);
    service.wait_for_phase("sealing");
    let (mut stalls, supervisor) = (0, service.supervisor_pid());
    while service.status().is_some_and(|status| status["phase"] == "sealing") {
        for pid in [incumbent, supervisor] {
            freeze(pid);
            std::thread::sleep(Duration::from_millis(5));
            thaw(pid);
        }
        stalls += 1;
    }
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{stalls} stalls: {upgrade:?}");
    assert!(stalls > 3, "it was over too soon: {stalls} stalls");
    goes_on(&service, service.daemon_pid());
}

// ---- what an outcome promises

/// A supervisor that returned before N had bound the control path: the next handoff talked to the dying process.
#[test]
fn an_upgrade_right_after_another_meets_the_process_that_exits() {
    let (service, mut before) = store(None);
    let control = service.path("run/kv.control");
    for round in 0..30 {
        let upgrade = service.upgrade(if round % 2 == 0 { &programs().kv_b } else { &programs().kv_a }, &[]);
        let owner = living_owner(&control).unwrap().map(|owner| owner.pid);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        let pid = upgrade.outcome["pid"].as_i64().unwrap() as i32;
        assert_ne!(pid, before, "round {round}");
        assert_eq!(owner, Some(pid), "round {round}: who has the control path");
        before = pid;
    }
    goes_on(&service, before);
}

/// One write and one read, at once, by the process that the outcome names.
#[track_caller]
fn serves_right_now(service: &Service, upgrade: &Upgrade) {
    assert!(service.ask("SET now 1").is_some_and(|reply| reply.starts_with("OK ")), "{upgrade:?}");
    assert_eq!(service.ask("GET now").as_deref(), Some("VALUE 1"), "{upgrade:?}");
    assert_eq!(service.ping().map(|(pid, _)| i64::from(pid)), upgrade.outcome["pid"].as_i64(), "{upgrade:?}");
}

/// "Rolled back" was announced before O served again, and "committed" before N did.
#[test]
fn an_outcome_is_announced_before_its_process_serves() {
    let (service, incumbent) = store(None);
    for _ in 0..5 {
        for fault in ["unhealthy", "old-revision"] {
            let upgrade = service.upgrade(&service.faulty(fault), &[]);
            serves_right_now(&service, &upgrade);
            rolled_back(&upgrade);
            assert_eq!(service.daemon_pid(), incumbent);
        }
    }
    for _ in 0..5 {
        let upgrade = service.upgrade(&programs().kv_b, &[]);
        serves_right_now(&service, &upgrade);
        assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    }
    goes_on(&service, service.daemon_pid());
}

/// "Committed" was announced, although N then failed to bind its control path. Here that fails before the drain: a client
/// that is connected all the time is not told to hang up.
#[test]
fn a_successor_without_its_control_path_commits() {
    let (service, incumbent) = store(None);
    let mut client = KeptAlive::connect(service.address);
    assert_eq!(client.ask("GET before"), "VALUE 1");
    let script = service.path("no-control-path");
    let program = programs().kv_b.display();
    fs::write(&script, format!("#!/bin/sh\nHANDOFF_CONTROL=/nonexistent/kv.control exec {program}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let upgrade = service.upgrade(&script, &[]);
    rolled_back(&upgrade);
    assert!(upgrade.reason.contains("/nonexistent/kv.control"), "{upgrade:?}");
    assert_eq!(client.ask("GET before"), "VALUE 1", "on the same connection, and it may stay");
    drop(client);
    goes_on(&service, incumbent);
}

// ---- who is stopped

/// A store with acknowledged writes, and an upgrade to this successor that has little time.
fn upgrade_in_little_time(fault: Option<&str>, successor: &str, deadline: &str) -> (Frozen, Load) {
    let (service, incumbent) = store(fault);
    let load = Load::start(LoadOptions { clients: 4, ..LoadOptions::new(service.address) });
    wait_until("some writes", || (load.snapshot().acknowledged > 50).then_some(()));
    let upgrading = service.begin_upgrade(&service.faulty(successor), &["--deadline", deadline]);
    (Frozen { service, incumbent, upgrading }, load)
}

struct Frozen {
    service: Service,
    incumbent: i32,
    upgrading: support::Upgrading,
}

impl Frozen {
    /// The supervisor stands still: the incumbent serves at the deadline all the same. Then it wakes up.
    fn ends_at_the_deadline(self, load: Load, successor: i32) {
        let supervisor = self.service.supervisor_pid();
        assert_eq!(self.service.wait_until_served(), self.incumbent);
        assert_eq!(process_state(supervisor), Some('T'), "without the supervisor");
        wait_until("the successor is killed", || matches!(process_state(successor), None | Some('Z')).then_some(()));
        let report = load.stop();
        thaw(supervisor);
        let upgrade = self.upgrading.wait();
        assert!(["rolled_back", "undecided"].contains(&upgrade.result.as_str()), "{upgrade:?}");
        self.service.wait_for_phase("idle");
        assert_eq!(self.service.status().unwrap()["last_handoff"]["result"], "rolled_back");
        assert_eq!(self.service.wait_until_served(), self.incumbent);
        assert_eq!(verify(self.service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");
        goes_on(&self.service, self.incumbent);
    }
}

/// S stopped in mid-drain: clients waited for as long as it slept.
#[test]
fn supervisor_stopped_in_mid_drain() {
    let (scene, load) = upgrade_in_little_time(Some("slow-drain=1000"), "slow-warm=0", "4s");
    let successor = scene.service.successor_of(scene.incumbent);
    scene.service.wait_for_phase("draining");
    freeze(scene.service.supervisor_pid());
    scene.ends_at_the_deadline(load, successor);
}

/// The same with the data sealed, and nobody yet who was told to open it.
#[test]
fn supervisor_stopped_while_the_incumbent_seals() {
    let (scene, load) = upgrade_in_little_time(Some("seal-progress=300000"), "slow-warm=0", "6s");
    let successor = scene.service.successor_of(scene.incumbent);
    scene.service.wait_for_phase("sealing");
    freeze(scene.service.supervisor_pid());
    scene.ends_at_the_deadline(load, successor);
}

/// The same with N in the midst of its opening, with the lock.
#[test]
fn supervisor_stopped_while_the_successor_holds_the_lock() {
    let (scene, load) = upgrade_in_little_time(None, "open-waits", "4s");
    let successor = scene.service.successor_of(scene.incumbent);
    wait_until("it opens", || scene.service.path("data/opening").exists().then_some(()));
    freeze(scene.service.supervisor_pid());
    scene.ends_at_the_deadline(load, successor);
}

/// The same with N stopped, too. (N alone: `tests/aborts.rs`, `successor_is_frozen_after_begin`.)
#[test]
fn supervisor_and_successor_stopped_while_the_successor_holds_the_lock() {
    let (scene, load) = upgrade_in_little_time(None, "open-waits", "4s");
    let successor = scene.service.successor_of(scene.incumbent);
    wait_until("it opens", || scene.service.path("data/opening").exists().then_some(()));
    freeze(successor);
    freeze(scene.service.supervisor_pid());
    scene.ends_at_the_deadline(load, successor);
}

/// One silent connection to the control path blocked every handoff.
#[test]
fn silent_connections_to_the_control_path_block_a_handoff() {
    let (service, _) = store(None);
    let control = service.path("run/kv.control");
    let mut silent = Vec::new();
    for round in 0..3 {
        // More than its backlog; those that find it full come again.
        while silent.len() < 50 * (round + 1) {
            match Seqpacket::connect(&control) {
                Ok(connection) => silent.push(connection),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        let commands: Vec<_> =
            (0..80).filter_map(|_| std::os::unix::net::UnixStream::connect(service.path("run/kv.sock")).ok()).collect();
        let upgrade = service.upgrade(&programs().kv_b, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "round {round}: {upgrade:?}");
        drop(commands);
    }
    goes_on(&service, service.daemon_pid());
}

// ---- many

/// 600 listeners did not get through a handoff with a soft `RLIMIT_NOFILE` of 1024.
#[test]
fn six_hundred_listeners_with_a_soft_limit_of_1024_descriptors() {
    const LISTENERS: usize = 600;
    let (a, b) = manies();
    // Two are the service's own.
    let more: Vec<String> = (2..LISTENERS).map(|n| format!("--listen=l{n}=127.0.0.1:0")).collect();
    let mut service = Service::place();
    service.soft_descriptors = Some(1024);
    service.launch(a, &Vec::from_iter(more.iter().map(String::as_str)));
    let all_answer = |pid: i32, build: &str| {
        let addresses = addresses(&service);
        assert_eq!(addresses.len(), LISTENERS);
        for address in addresses {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
            stream.write_all(b"PING\n").unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert_eq!(reply, format!("PONG {pid} {build}\n"), "{address}");
        }
    };
    let incumbent = service.daemon_pid();
    all_answer(incumbent, "a");
    rolled_back(&service.upgrade(&service.faulty("unhealthy"), &[]));
    all_answer(incumbent, "a");
    let upgrade = service.upgrade(b, &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    all_answer(service.daemon_pid(), "b");
}

fn somaxconn() -> usize {
    fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap()
}

/// Clients that connect during a pause found a backlog that was too small.
#[test]
fn four_thousand_and_ninety_six_clients_connect_during_a_pause() {
    const CLIENTS: usize = 4096;
    assert!(somaxconn() >= CLIENTS, "this test needs net.core.somaxconn={CLIENTS}, it is {}", somaxconn());
    raise_nofile().unwrap();
    let (service, _) = store(None);
    let upgrading = service.begin_upgrade(&service.faulty("open-waits"), &[]);
    let opening = service.path("data/opening");
    wait_until("the pause", || opening.exists().then_some(()));
    // All are connected before anybody accepts.
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&service.address, support::PATIENCE).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        stream.write_all(b"GET before\n").unwrap();
        stream
    };
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
    assert_eq!(service.status().unwrap()["phase"], "opening");
    fs::remove_file(opening).unwrap();
    assert_eq!(upgrading.wait().result, "committed");
    for (number, client) in clients.into_iter().enumerate() {
        let mut reply = String::new();
        BufReader::new(client).read_line(&mut reply).unwrap_or_else(|error| panic!("client {number}: {error}"));
        assert_eq!(reply, "VALUE 1\n", "client {number}");
    }
    goes_on(&service, service.daemon_pid());
}

/// A backlog that the kernel cuts was cut in silence.
#[test]
fn a_backlog_that_the_kernel_cuts_is_cut_in_silence() {
    let service = Service::place();
    let said = |backlog: usize| {
        let mut command: Command = service.command("run");
        command.arg(format!("--listen=kv=127.0.0.1:0,backlog={backlog}")).args(["--", "true"]);
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let (allowed, wanted) = (somaxconn(), somaxconn() + 1);
    let text = said(wanted);
    let warning = text.lines().find(|line| line.contains("somaxconn")).unwrap_or_else(|| panic!("nothing in {text}"));
    for word in ["kv", &wanted.to_string(), &allowed.to_string(), "net.core.somaxconn"] {
        assert!(warning.contains(word), "{word} is missing in {warning}");
    }
    assert!(!said(allowed).contains("somaxconn"));
}

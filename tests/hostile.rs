//! Daemons and operators at their worst: what is left behind, what floods, what is out of descriptors, what is stopped in
//! the middle. Somebody serves again, and nobody writes beside him.

mod support;

use support::{
    SIGKILL, SIGTERM, Service, freeze, lives, open_descriptors, process_state, programs, signal, thaw, wait_for_death,
    wait_until,
};

#[test]
fn a_drain_hears_that_it_is_cancelled_although_the_successor_is_dead_already() {
    let service = Service::start_faulty("drain-hangs");
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&programs().kv_b, &["--drain-grace", "200s"]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase("draining");
    signal(successor, SIGKILL);
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
    assert_eq!(service.wait_until_served(), incumbent);
}

#[test]
fn a_seal_that_reports_without_end_loses_no_message() {
    let service = Service::start_faulty("seal-progress=300000");
    assert!(service.ask("SET before 1").unwrap().starts_with("OK "));
    let upgrade = service.upgrade(&programs().kv_b, &["--deadline", "60s"]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
}

#[test]
fn a_seal_that_reports_to_a_frozen_supervisor_loses_no_message() {
    let service = Service::start_faulty("seal-progress=300000");
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&service.faulty("slow-warm=1000"), &["--deadline", "60s"]);
    service.wait_for_phase("sealing");
    freeze(service.supervisor_pid());
    wait_until("sealed", || support::waits(incumbent).then_some(()));
    thaw(service.supervisor_pid());
    let upgrade = upgrading.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
}

#[test]
fn what_a_successor_leaves_behind_does_not_keep_the_lock() {
    let service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let arguments = ["--ready-timeout", "1s", "--deadline", "30s"];
    let upgrade = service.upgrade(&service.faulty("fork-open"), &arguments);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
    assert_eq!(service.wait_until_served(), incumbent);
    wait_until("nobody else", || (service.daemons() == [incumbent]).then_some(()));
}

#[test]
fn what_an_incumbent_leaves_behind_in_a_handoff_does_not_keep_the_lock() {
    let service = Service::start_faulty("fork-serving");
    let before = service.daemons();
    assert_eq!(before.len(), 2, "the store and its child");
    let incumbent = service.daemon_pid();
    let _upgrading = service.begin_upgrade(&service.faulty("slow-warm=600000"), &[]);
    service.wait_for_phase("warming");
    signal(incumbent, SIGKILL);
    wait_for_death(incumbent);
    let next = service.wait_until_served();
    assert!(!before.contains(&next));
    before.into_iter().for_each(wait_for_death);
}

#[test]
fn a_child_that_kept_one_seal_from_ending_keeps_the_next_from_it_too() {
    let service = Service::start_faulty("fork-serving");
    let incumbent = service.daemon_pid();
    let child = wait_until("the child", || service.daemons().into_iter().find(|pid| *pid != incumbent));
    for round in 0..2 {
        let upgrade = service.upgrade(&programs().kv_b, &["--deadline", "4s"]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "round {round}: {upgrade:?}");
        assert_eq!(service.wait_until_served(), incumbent);
        assert!(lives(child));
    }
    signal(child, SIGKILL);
    assert_eq!(service.upgrade(&programs().kv_b, &[]).result, "committed");
}

#[test]
fn an_incumbent_without_a_free_descriptor_refuses_and_can_be_replaced_later() {
    let service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let open = open_descriptors(incumbent) as u64;
    support::limit_descriptors(incumbent, open);
    let upgrade = service.upgrade(&programs().kv_b, &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (13, "refused"), "{upgrade:?}");
    assert!(upgrade.reason.contains("RLIMIT_NOFILE"), "{}", upgrade.reason);
    support::limit_descriptors(incumbent, 512);
    assert_eq!(service.wait_until_served(), incumbent);
    let next = service.upgrade(&programs().kv_b, &[]);
    assert_eq!(next.result, "committed", "{next:?}");
}

/// CPU time that a process has used, in ticks of 10 ms.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_connection_that_can_not_be_accepted_is_not_tried_without_end() {
    use handoff::sys::seqpacket::{Received, Seqpacket};
    let service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    support::limit_descriptors(incumbent, 3);
    let waiting = Seqpacket::connect(&service.path("run/kv.control")).unwrap();
    let before = ticks(incumbent);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let used = ticks(incumbent) - before;
    assert!(used < 20, "{used} ticks of 200 while nothing can be done");
    assert!(matches!(waiting.receive(&mut [0; 4096]), Ok(Received::Nothing)));
    support::limit_descriptors(incumbent, 512);
    wait_until("an answer", || matches!(waiting.receive(&mut [0; 4096]), Ok(Received::Packet(_))).then_some(()));
    let next = service.upgrade(&programs().kv_b, &[]);
    assert_eq!(next.result, "committed", "{next:?}");
}

#[test]
fn an_incumbent_without_a_thread_for_its_helper_serves_on_and_can_be_replaced_later() {
    let service = Service::start_faulty("no-threads");
    let incumbent = service.daemon_pid();
    // A client that is connected all the time: a drain would end it.
    let mut client = support::KeptAlive::connect(service.address);
    assert!(client.ask("SET before 1").starts_with("OK "));
    let none_left = service.path("data/no-threads");
    for _ in 0..2 {
        std::fs::write(&none_left, "").unwrap();
        let upgrade = service.upgrade(&programs().kv_b, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
        assert!(upgrade.reason.contains("start the helper thread"), "{}", upgrade.reason);
        assert_eq!(client.ask("GET before"), "VALUE 1");
        std::fs::remove_file(&none_left).unwrap();
    }
    assert_eq!(service.daemon_pid(), incumbent);
    drop(client);
    let next = service.upgrade(&programs().kv_b, &[]);
    assert_eq!(next.result, "committed", "{next:?}");
    assert_eq!(service.ask("GET before").as_deref(), Some("VALUE 1"));
}

#[test]
fn a_successor_without_a_thread_for_its_helper_is_not_begun_with() {
    let service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let mut client = support::KeptAlive::connect(service.address);
    assert!(client.ask("SET before 1").starts_with("OK "));
    std::fs::write(service.path("data/no-threads"), "").unwrap();
    let upgrade = service.upgrade(&service.faulty("no-threads"), &[]);
    assert_eq!((upgrade.code, upgrade.result.as_str()), (10, "rolled_back"), "{upgrade:?}");
    assert!(upgrade.reason.contains("start the helper thread"), "{}", upgrade.reason);
    assert_eq!((client.ask("GET before").as_str(), service.daemon_pid()), ("VALUE 1", incumbent));
}

#[test]
fn a_stop_starts_nothing_although_nobody_is_left_to_resume() {
    let mut service = Service::start_faulty("slow-drain=600000");
    let incumbent = service.daemon_pid();
    let _upgrading = service.begin_upgrade(&programs().kv_b, &[]);
    service.wait_for_phase("draining");
    freeze(incumbent);
    let code = service.stop();
    assert_eq!(service.daemons(), Vec::<i32>::new(), "{code:?}\n{}", service.stderr());
    assert_eq!(service.stderr().matches(" runs (generation").count(), 1, "{}", service.stderr());
}

#[test]
fn an_upgrade_that_waits_hears_of_itself_only() {
    let service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&service.faulty("slow-open=2000"), &[]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase("opening");
    freeze(incumbent);
    assert_eq!(upgrading.wait().result, "committed");
    service.wait_for_phase("retiring");
    let waiting = service.begin_upgrade(&programs().kv_b, &[]);
    std::thread::sleep(std::time::Duration::from_millis(500)); // it has no way to show that it waits
    signal(successor, SIGKILL);
    // Not only its main thread: the incumbent must see a dead process when it looks.
    wait_until("reaped", || process_state(successor).is_none().then_some(()));
    thaw(incumbent);
    let upgrade = waiting.wait();
    assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    wait_until("the last program", || service.ping().filter(|(_, build)| build == "b"));
}

#[test]
fn an_upgrade_that_waits_for_the_end_of_the_incumbent_says_so() {
    let service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&service.faulty("slow-open=2000"), &[]);
    service.wait_for_phase("opening");
    freeze(incumbent);
    assert_eq!(upgrading.wait().result, "committed");
    service.wait_for_phase("retiring");
    let said = service.path("said");
    let mut command = service.command("upgrade");
    command.arg("--binary").arg(&programs().kv_b).stdout(std::fs::File::create(&said).unwrap());
    let mut waiting = command.spawn().unwrap();
    wait_until("it is said", || {
        let said = std::fs::read_to_string(&said).unwrap();
        said.contains("kv: retiring: the process that was replaced must exit first\n").then_some(())
    });
    thaw(incumbent);
    assert!(waiting.wait().unwrap().success());
    assert_eq!(service.ping().unwrap().1, "b");
}

#[test]
fn a_hasty_stop_in_a_handoff_leaves_nobody() {
    let mut service = Service::start_faulty("slow-drain=600000");
    let incumbent = service.daemon_pid();
    let _upgrading = service.begin_upgrade(&programs().kv_b, &[]);
    service.wait_for_phase("draining");
    freeze(incumbent);
    let supervisor = service.supervisor_pid();
    signal(supervisor, SIGTERM);
    wait_until("the stop", || (service.status()?["state"] == "stopping").then_some(()));
    signal(supervisor, 2);
    wait_until("the end", || (!lives(supervisor)).then_some(()));
    assert_eq!(service.daemons(), Vec::<i32>::new(), "{}", service.stderr());
    service.kill_supervisor();
}

#[test]
fn a_crash_is_followed_by_a_start_although_the_journal_can_not_be_written() {
    let service = Service::start(&programs().kv_a);
    let before = service.daemon_pid();
    // As a full file system would.
    std::fs::create_dir(service.path("run/kv.journal.new")).unwrap();
    let refused = service.upgrade(&programs().kv_b, &[]);
    assert_eq!(refused.result, "refused", "{refused:?}");
    assert_eq!(service.ping().unwrap().0, before);
    signal(before, SIGKILL);
    wait_for_death(before);
    assert_ne!(service.wait_until_served(), before);
}

#[test]
fn a_crash_is_followed_by_a_start_although_the_runtime_directory_was_wiped() {
    let service = Service::start(&programs().kv_a);
    let before = service.daemon_pid();
    std::fs::remove_dir_all(service.path("run")).unwrap();
    signal(before, SIGKILL);
    wait_for_death(before);
    assert_ne!(service.wait_until_served(), before);
}

#[test]
fn a_command_whose_output_nobody_reads_tells_by_its_exit_code() {
    let service = Service::start(&programs().kv_a);
    let code = |subcommand: &str, arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        service.command(subcommand).args(arguments).stdout(writer).status().unwrap().code()
    };
    assert_eq!(code("status", &[]), Some(0));
    assert_eq!(code("status", &["--json"]), Some(0));
    assert_eq!(code("upgrade", &["--json"]), Some(0));
    assert_eq!(code("upgrade", &["--json", "no-such-service"]), Some(4));
}

#[test]
fn the_generation_of_a_successor_is_told_right_while_the_incumbent_retires() {
    let service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let upgrading = service.begin_upgrade(&service.faulty("slow-open=1000"), &[]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase("opening");
    freeze(incumbent);
    assert_eq!(upgrading.wait().outcome["generation"], 2);
    service.wait_for_phase("retiring");
    let status = service.status().unwrap();
    assert_eq!((&status["pid"], &status["generation"]), (&successor.into(), &2.into()), "{status}");
    thaw(incumbent);
    service.wait_for_phase("idle");
    let started = format!("process {successor} runs (generation 2)");
    assert!(service.stderr().contains(&started), "{}", service.stderr());
}

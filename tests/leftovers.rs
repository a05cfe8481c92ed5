//! What a successor leaves behind when the supervisor that could clean up after it is dead, too.

mod support;

use support::{Service, freeze, programs, wait_for_death, wait_until};

/// In 'opening', with this fault; the supervisor is killed. The service, the incumbent and the successor.
fn scene(fault: &str, processes: usize) -> (Service, i32, i32) {
    let mut service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let _upgrading = service.begin_upgrade(&service.faulty(fault), &[]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase("opening");
    wait_until("the child", || (service.daemons().len() == processes).then_some(()));
    freeze(successor); // it can not clean up by itself
    service.kill_supervisor();
    wait_for_death(successor);
    (service, incumbent, successor)
}

#[test]
fn a_child_of_the_successor_does_not_keep_the_lock_when_the_supervisor_is_started_again() {
    let (mut service, incumbent, _) = scene("fork-open", 3);
    service.launch(&programs().kv_a, &[]);
    assert_eq!(service.wait_until_served(), incumbent);
    wait_until("nobody else", || (service.daemons() == [incumbent]).then_some(()));
}

#[test]
fn a_child_of_the_successor_does_not_keep_the_lock_when_the_supervisor_stays_dead() {
    let (service, incumbent, _) = scene("fork-open", 3);
    assert_eq!(service.wait_until_served(), incumbent);
}

#[test]
fn the_temporary_control_path_of_a_successor_goes_when_the_supervisor_is_started_again() {
    let (mut service, incumbent, successor) = scene("hang-open", 2);
    service.launch(&programs().kv_a, &[]);
    assert_eq!(service.wait_until_served(), incumbent);
    let left = service.path(&format!("run/kv.control.{successor}-0"));
    assert!(!left.exists(), "{}", left.display());
}

#[test]
fn a_successor_that_hears_late_that_it_is_not_wanted_leaves_no_name_beside_the_control_path() {
    let mut service = Service::start(&programs().kv_a);
    let incumbent = service.daemon_pid();
    let _upgrading = service.begin_upgrade(&service.faulty("slow-warm=3000"), &[]);
    let successor = service.successor_of(incumbent);
    service.wait_for_phase("warming");
    service.kill_supervisor();
    wait_for_death(successor); // by itself: nobody has disturbed the incumbent
    let names = std::fs::read_dir(service.path("run")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_str().unwrap().starts_with("kv.control.")).collect();
    assert!(left.is_empty(), "{left:?}");
}

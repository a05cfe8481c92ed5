//! Daemons and operators at their worst: what is left behind, what floods, what is out of descriptors, what is stopped in
//! the middle. Somebody serves again, and nobody writes beside him.

mod support;

use support::{SIGKILL, Service, programs, signal};

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

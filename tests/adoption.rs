//! A supervisor is killed, and started again: it takes over the daemon that has served all the time.

mod support;

use support::load::{Load, LoadOptions, verify};
use support::{Service, programs, wait_until};

fn load(service: &Service) -> Load {
    let load = Load::start(LoadOptions { clients: 4, keep_alive: false, ..LoadOptions::new(service.address) });
    wait_until("some writes", || (load.snapshot().acknowledged > 100).then_some(()));
    load
}

#[test]
fn the_daemon_is_adopted_and_replaced_without_a_refused_connection() {
    let programs = programs();
    let mut service = Service::start(&programs.kv_a);
    let daemon = service.daemon_pid();
    let load = load(&service);
    for _ in 0..3 {
        let address = service.address;
        let pid = service.daemon_pid();
        service.kill_supervisor();
        service.launch(&programs.kv_a, &[]);
        assert_eq!((service.daemon_pid(), service.address), (pid, address));
        let upgrade = service.upgrade(&programs.kv_b, &[]);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
    }
    assert_ne!(service.daemon_pid(), daemon);
    let report = load.stop();
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new());
    assert_eq!(service.stop(), Some(0));
}

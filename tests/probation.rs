//! A successor serves on probation: the process before it is its reserve, and takes over if it dies.

mod support;

use support::load::{Load, LoadOptions, verify};
use support::{SIGKILL, Service, programs, signal, wait_for_death, wait_until};

/// Longer than any test.
const LONG: [&str; 2] = ["--probation", "10m"];

/// A service whose second process is on probation.
struct Trial {
    service: Service,
    incumbent: i32,
    successor: i32,
}

impl Trial {
    fn begin(arguments: &[&str]) -> Self {
        let service = Service::start(&programs().kv_a);
        let incumbent = service.daemon_pid();
        let upgrade = service.upgrade(&programs().kv_b, arguments);
        assert_eq!((upgrade.code, upgrade.result.as_str()), (0, "committed"), "{upgrade:?}");
        let successor = upgrade.outcome["pid"].as_i64().unwrap() as i32;
        assert_eq!(service.ping(), Some((successor, "b".to_owned())));
        Self { service, incumbent, successor }
    }

    fn load(&self) -> Load {
        let options = LoadOptions { clients: 4, keep_alive: false, ..LoadOptions::new(self.service.address) };
        let load = Load::start(options);
        wait_until("some writes", || (load.snapshot().acknowledged > 200).then_some(()));
        load
    }

    /// The incumbent serves, alone, with everything that anybody has acknowledged.
    fn incumbent_takes_over(&self, load: Load) {
        let pid = self.service.wait_until_served();
        assert_eq!(pid, self.incumbent);
        let before = load.snapshot().acknowledged;
        wait_until("writes to the incumbent", || (load.snapshot().acknowledged > before + 100).then_some(()));
        let report = load.stop();
        assert_eq!(verify(self.service.address, &report.acknowledged).unwrap(), Vec::<String>::new());
        assert_eq!(self.service.daemons(), [self.incumbent]);
    }
}

#[test]
fn the_incumbent_takes_over_from_a_successor_that_dies() {
    let trial = Trial::begin(&LONG);
    let status = trial.service.status().unwrap();
    assert_eq!((&status["phase"], &status["state"]), (&"probation".into(), &"running".into()), "{status}");
    assert_eq!(status["parked_pid"], trial.incumbent);
    assert!(status["probation_left_ms"].as_u64().unwrap() > 1000 * 500, "{status}");
    let load = trial.load();
    signal(trial.successor, SIGKILL);
    trial.incumbent_takes_over(load);
    trial.service.wait_for_phase("idle");
    let status = trial.service.status().unwrap();
    assert_eq!(status["last_handoff"]["result"], "reverted", "{status}");
    assert_eq!((&status["restarts"], &status["parked_pid"]), (&0.into(), &serde_json::Value::Null), "{status}");
    // It can be replaced again.
    let upgrade = trial.service.upgrade(&programs().kv_b, &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    wait_for_death(trial.incumbent);
}

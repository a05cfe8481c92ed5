//! A successor may take its time to warm up: the incumbent serves meanwhile, and no client feels it.

mod support;

use support::load::{Load, LoadOptions, stall_ms, verify};
use support::{Service, Upgrade, programs, wait_until};

const ROUNDS: usize = 3;

/// One upgrade under load, and its window on the load's own clock.
fn upgrade(service: &Service, load: &Load, binary: &std::path::Path) -> (Upgrade, (u64, u64)) {
    let start = load.now_ns();
    let upgrade = service.upgrade(binary, &[]);
    assert_eq!(upgrade.result, "committed", "{upgrade:?}");
    (upgrade, (start, load.now_ns()))
}

#[test]
fn a_successor_that_warms_for_five_seconds_adds_nothing_to_the_stall() {
    let service = Service::start(&programs().kv_a);
    let load = Load::start(LoadOptions { clients: 8, keep_alive: false, ..LoadOptions::new(service.address) });
    wait_until("load", || (load.snapshot().acknowledged > 100).then_some(()));
    let slow = service.faulty("slow-warm=5000");
    let (mut ordinary, mut warming) = (Vec::new(), Vec::new());
    // In turns, so that both meet the same machine.
    for _ in 0..ROUNDS {
        ordinary.push(upgrade(&service, &load, &programs().kv_b));
        warming.push(upgrade(&service, &load, &slow));
    }
    let report = load.stop();
    assert_eq!((report.failed_requests, &report.failures), (0, &Vec::new()), "of {}", report.requests);
    assert_eq!(verify(service.address, &report.acknowledged).unwrap(), Vec::<String>::new(), "lost writes");

    let windows = |upgrades: &[(Upgrade, (u64, u64))]| Vec::from_iter(upgrades.iter().map(|(_, window)| *window));
    let least = |stalls: &[f64]| stalls.iter().copied().fold(f64::INFINITY, f64::min);
    let stalls = stall_ms(&report.samples, &windows(&warming));
    let ordinary_stalls = stall_ms(&report.samples, &windows(&ordinary));
    let took_ms = Vec::from_iter(windows(&warming).iter().map(|(start, end)| (end - start) as f64 / 1e6));
    let told =
        format!("stalls {stalls:.1?} ms in handoffs of {took_ms:.0?} ms; ordinary ones {ordinary_stalls:.1?} ms");
    println!("{told}");
    for (upgrade, _) in &warming {
        let ns = |field: &str| upgrade.outcome[field].as_u64().unwrap();
        // The warm-up is nearly all of the handoff, and the pause is no part of it.
        assert!(ns("warm_ns") > ns("total_ns") / 2, "{upgrade:?}");
        assert!(ns("pause_ns") < ns("warm_ns") / 5, "{upgrade:?}");
    }
    // A warm-up that is felt is felt each time; a busy disk is not. So the best of each counts.
    let shortest_ms = least(&took_ms);
    assert!(least(&stalls) > 0.0, "no request while the successor warmed: {told}");
    assert!(least(&stalls) < shortest_ms / 5.0, "{told}");
    assert!(least(&stalls) - least(&ordinary_stalls) < shortest_ms / 5.0, "{told}");
}

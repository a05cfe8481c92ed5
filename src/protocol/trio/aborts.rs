//! Every way back, with the reason that the caller hears.

use super::daemons::Kind;
use super::world::Outcome::{Bad, Few, Good, Hang, Old, Stuck};
use super::world::{Outcome, SECOND, World};
use crate::protocol::message::{Hello, capability};
use crate::protocol::supervisor::{Phase, Sender, Verdict};
use crate::protocol::{incumbent, successor};

/// Runs to the end; O must serve as if nothing had been, and can be replaced again.
fn goes_back(mut world: World, verdict: Verdict, reason: &str) {
    world.run();
    world.check_end();
    assert_eq!(world.broken, None);
    let (last, text) = world.service.reports.last().expect("an outcome");
    assert_eq!(*last, verdict, "{text}");
    assert!(text.contains(reason), "{text:?} does not say {reason:?}");
    assert!(world.daemons[0].serves, "O does not serve");
    assert!(!world.service.journal && world.service.timers.is_empty() && world.daemons[0].timers.is_empty());
    assert!(world.service.violations.is_empty() && world.daemons[0].violations.is_empty());
    world.daemons[0].script.clear();
    world.service.forge = |_, _| {};
    world.handoffs = 1;
    world.run();
    assert_eq!(world.verdicts().last(), Some(&Verdict::Committed));
}

/// Nobody is left who could go on: S starts another one.
fn starts_cold(mut world: World, reason: &str) {
    world.run();
    world.check_end();
    assert_eq!(world.broken, None);
    let (last, text) = world.service.reports.last().expect("an outcome");
    assert_eq!(*last, Verdict::StartedCold, "{text}");
    assert!(text.contains(reason), "{text:?} does not say {reason:?}");
}

#[test]
fn the_successor_never_gets_ready() {
    let cases: [(Kind, Outcome, &str); 8] = [
        (Kind::Hello, Hang, "did not say Hello in time"),
        (Kind::Warm, Bad, "exit code 1"),
        (Kind::Warm, Stuck, "deadline is past"),
        (Kind::Open, Bad, "not healthy: the index is broken"),
        (Kind::Open, Stuck, "not ready in time"),
        (Kind::Open, Good(70 * SECOND), "not ready in time"),
        (Kind::Open, Old, "a write would be lost: shard 1 was sealed at revision 9, but the successor opened 8"),
        (Kind::Open, Few, "sealed 2 shards, but the successor announced 1 revisions"),
    ];
    for (kind, outcome, reason) in cases {
        goes_back(World::with(kind, outcome), Verdict::RolledBack, reason);
    }
}

#[test]
fn the_incumbent_can_not_drain_or_seal() {
    let cases: [(Kind, Outcome, &str); 8] = [
        (Kind::Drain, Bad, "could not drain: no space left"),
        (Kind::Drain, Hang, "could not drain: the drain took longer than its grace"),
        (Kind::Drain, Good(70 * SECOND), "could not drain: the drain took longer than its grace"),
        (Kind::Seal, Bad, "could not seal: no space left"),
        (Kind::Seal, Hang, "deadline is past"),
        (Kind::Seal, Good(400 * SECOND), "deadline is past"),
        (Kind::Unlock, Bad, "could not seal: the transfer socket is gone"),
        (Kind::Resume, Good(70 * SECOND), "not healthy"),
    ];
    for (kind, outcome, reason) in cases {
        let mut world = World::with(kind, outcome);
        if kind == Kind::Resume {
            world.scripts.push(vec![(Kind::Open, Bad)]);
        }
        goes_back(world, Verdict::RolledBack, reason);
    }
}

#[test]
fn nothing_was_disturbed() {
    let mut world = World::new();
    world.service.spawn_fails = true;
    goes_back(world, Verdict::Refused, "exec: not found");
    goes_back(World::with_prepare_refused(), Verdict::Refused, "cannot map the page");
    type Forge = fn(&mut Hello, &mut Sender);
    let cases: [(Forge, &str); 9] = [
        (|hello, _| (hello.version_min, hello.version_max) = (2, 3), "speaks protocol 2 to 3, the supervisor 1 to 1"),
        (|hello, _| (hello.version_min, hello.version_max) = (0, 0), "speaks protocol 0 to 0"),
        (|hello, _| hello.side = crate::protocol::message::Side::Incumbent, "was started as Successor"),
        (|hello, _| hello.pid = 1, "a wrapper must exec the daemon"),
        (|_, sender| sender.pid = 77, "process 77 said Hello"),
        (|_, sender| sender.uid = 0, "runs as user 0, the incumbent as 1000"),
        (|_, sender| sender.time_namespace = 5, "another time namespace"),
        (
            |hello, _| hello.capabilities = capability::OVERLAP,
            "the daemon offers exclusive mode, the successor overlap mode",
        ),
        (|hello, _| hello.capabilities = 0, "the successor no mode"),
    ];
    for (forge, reason) in cases {
        let mut world = World::new();
        world.service.forge = forge;
        goes_back(world, Verdict::Refused, reason);
    }
}

#[test]
fn the_successor_dies_at_each_phase() {
    use successor::Phase as At;
    for phase in [At::AwaitAck, At::Warming, At::AwaitBegin, At::Opening, At::AwaitCommitted] {
        let mut world = World::with(Kind::Warm, Good(SECOND));
        world.scripts[0].push((Kind::Open, Good(SECOND)));
        world.run_until(|world| world.daemons.get(1).is_some_and(|n| n.successor_phase() == Some(phase)));
        world.crash(1);
        goes_back(world, Verdict::RolledBack, "killed by signal 9");
    }
    // It had committed, but O has not gone yet.
    let mut world = World::with(Kind::Serve, Good(SECOND));
    world.run_until(|world| world.daemons.get(1).is_some_and(|n| n.successor_phase() == Some(At::Won)));
    world.crash(1);
    goes_back(world, Verdict::Reverted, "killed by signal 9");
    let mut world = World::with(Kind::Serve, Good(SECOND));
    world.scripts[0].push((Kind::Migrate, Bad));
    world.run_until(|world| world.daemons.get(1).is_some_and(|n| n.successor_phase() == Some(At::Won)));
    world.crash(1);
    starts_cold(world, "killed by signal 9");
}

#[test]
fn the_successor_is_stopped_at_each_phase() {
    use successor::Phase as At;
    let cases = [
        (At::AwaitAck, "say Hello in time"),
        (At::AwaitBegin, "sign of life"),
        (At::Opening, "sign of life"),
        (At::AwaitCommitted, "sign of life"),
        (At::Committing, "did not commit in time"),
    ];
    for (phase, reason) in cases {
        let mut world = World::new();
        world.run_until(|world| world.daemons.get(1).is_some_and(|n| n.successor_phase() == Some(phase)));
        world.stop(1);
        goes_back(world, Verdict::RolledBack, reason);
    }
    // It has won: nobody may kill it. The caller hears at the deadline that nobody knows; then it goes on.
    let mut world = World::new();
    world.run_until(|world| world.daemons.get(1).is_some_and(|n| n.successor_phase() == Some(At::Won)));
    world.stop(1);
    world.run();
    assert_eq!(world.verdicts(), [Verdict::Undecided]);
    assert!(world.daemons[1].alive && world.daemons[0].incumbent_phase() == Some(incumbent::Phase::AwaitServing));
    world.go_on();
    world.run();
    world.check_end();
    assert_eq!(world.broken, None);
    assert_eq!(world.verdicts(), [Verdict::Undecided, Verdict::Committed]);
}

#[test]
fn the_incumbent_is_asked_to_stop() {
    use incumbent::Phase as At;
    for (phase, verdict) in [
        (At::Draining, Verdict::RolledBack),
        (At::Drained, Verdict::RolledBack),
        (At::Sealing, Verdict::Committed),
        (At::Sealed, Verdict::Committed),
    ] {
        let mut world = World::with(Kind::Drain, Good(SECOND));
        world.daemons[0].script.push((Kind::Seal, Good(SECOND)));
        world.run_until(|world| world.daemons[0].incumbent_phase() == Some(phase));
        world.stop_incumbent();
        world.run();
        world.check_end();
        assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![verdict]), "stopped while {phase:?}");
    }
}

#[test]
fn the_incumbent_can_not_resume() {
    let mut world = World::with(Kind::Resume, Bad);
    world.scripts.push(vec![(Kind::Open, Bad)]);
    starts_cold(world, "the incumbent could not resume: no space left");
}

#[test]
fn a_sealed_incumbent_that_is_silent_is_not_waited_for() {
    let mut world = World::with(Kind::Open, Bad);
    world.run_until(|world| world.daemons[0].incumbent_phase() == Some(incumbent::Phase::Sealed));
    world.run_until(|world| world.service.machine.phase() == Phase::AwaitReady);
    world.stop(0);
    starts_cold(world, "not healthy");
}

#[test]
fn no_incumbent_is_killed_that_has_the_data() {
    let mut world = World::with(Kind::Drain, Good(SECOND));
    world.run_until(|world| world.daemons[0].incumbent_phase() == Some(incumbent::Phase::Draining));
    world.stop(0);
    world.run();
    assert_eq!(world.verdicts(), [Verdict::Undecided]);
    assert!(world.daemons[0].alive);
    world.go_on();
    goes_back(world, Verdict::RolledBack, "gave no sign of life");
}

#[test]
fn a_retired_incumbent_that_hangs_is_evicted() {
    let mut world = World::new();
    world.run_until(|world| world.service.machine.phase() == Phase::Retiring);
    world.stop(0);
    world.run();
    world.check_end();
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Committed]));
    assert_eq!(world.daemons[0].status, "evicted");
}

impl World {
    fn with_prepare_refused() -> Self {
        let mut world = Self::new();
        world.daemons[0].script.push((Kind::Prepare, Bad));
        world
    }
}

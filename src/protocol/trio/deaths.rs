//! The fixed schedule, with every fault at each of its steps.

use super::daemons::Kind;
use super::world::{Outcome, SECOND, World};
use crate::protocol::supervisor::{OnIncumbentDeath, Verdict};

pub(super) fn base(policy: OnIncumbentDeath) -> World {
    let mut world = World::new();
    world.policy = policy;
    world.heartbeats = false;
    // Not all at one instant: what happens next is decided by the clock, too.
    world.daemons[0].script = vec![(Kind::Drain, Outcome::Good(SECOND)), (Kind::Seal, Outcome::Good(SECOND))];
    world.scripts.push(vec![(Kind::Open, Outcome::Good(SECOND))]);
    world
}

/// Runs the schedule once for each of its steps, with the fault there; returns the last verdicts.
pub(super) fn at_every_step(base: &World, fault: impl Fn(&mut World)) -> Vec<Option<Verdict>> {
    let mut world = base.clone();
    let mut verdicts = Vec::new();
    for step in 0.. {
        let mut broken = world.clone();
        broken.trace = Some(Vec::new());
        fault(&mut broken);
        broken.run();
        broken.check_end();
        if let Some(what) = broken.broken {
            panic!("{}\nfault after step {step}: {what}", broken.trace.unwrap().join("\n"));
        }
        verdicts.push(broken.verdicts().last().copied());
        if !world.step() {
            break;
        }
    }
    assert!(verdicts.len() > 100, "the schedule has only {} steps", verdicts.len());
    verdicts
}

const POLICIES: [OnIncumbentDeath; 2] = [OnIncumbentDeath::Promote, OnIncumbentDeath::StartCold];

/// The daemon, if it was started yet.
fn crash(world: &mut World, i: usize) {
    if i < world.daemons.len() {
        world.crash(i);
    }
}

fn stop(world: &mut World, i: usize) {
    if i < world.daemons.len() {
        world.stop(i);
    }
}

fn stop_until(world: &mut World, seconds: u64) {
    let end = world.now + seconds * SECOND;
    while world.now < end && world.broken.is_none() && world.step() {}
    world.now = world.now.max(end);
    world.go_on();
}

#[test]
fn the_supervisor_dies_for_good() {
    for policy in POLICIES {
        at_every_step(&base(policy), World::crash_service);
    }
}

#[test]
fn the_incumbent_dies() {
    let promoted = at_every_step(&base(OnIncumbentDeath::Promote), |world| crash(world, 0));
    assert!(promoted[1..].iter().all(|verdict| *verdict == Some(Verdict::Committed)), "{promoted:?}");
    let started = at_every_step(&base(OnIncumbentDeath::StartCold), |world| crash(world, 0));
    let started = &started[1..]; // before that, S has not been asked yet
    let half = started.iter().position(|verdict| *verdict == Some(Verdict::Committed)).unwrap();
    assert!(started[..half].iter().all(|verdict| *verdict == Some(Verdict::StartedCold)), "{started:?}");
    assert!(started[half..].iter().all(|verdict| *verdict == Some(Verdict::Committed)), "{started:?}");
}

#[test]
fn the_successor_dies() {
    let verdicts = at_every_step(&base(OnIncumbentDeath::Promote), |world| crash(world, 1));
    let seen = |verdict| verdicts.contains(&Some(verdict));
    assert!(seen(Verdict::RolledBack) && seen(Verdict::Reverted) && seen(Verdict::StartedCold), "{verdicts:?}");
}

#[test]
fn two_die_one_after_the_other() {
    for policy in POLICIES {
        for (first, second) in [(0, 1), (1, 0), (0, 2), (1, 2)] {
            at_every_step(&base(policy), |world| {
                crash(world, first);
                for _ in 0..7 {
                    world.step();
                }
                crash(world, second);
            });
        }
    }
}

#[test]
fn two_die_at_any_two_steps() {
    // S and a daemon: the worst pair, because nobody starts another one.
    for i in [0, 1] {
        for later in (0..100).step_by(3) {
            at_every_step(&base(OnIncumbentDeath::Promote), |world| {
                crash(world, i);
                for _ in 0..later {
                    world.step();
                }
                world.crash_service();
            });
            at_every_step(&base(OnIncumbentDeath::Promote), |world| {
                world.crash_service();
                for _ in 0..later {
                    world.step();
                }
                crash(world, i);
            });
        }
    }
}

#[test]
fn somebody_is_stopped_and_goes_on() {
    for seconds in [1, 5, 15, 65, 400] {
        for i in [0, 1] {
            at_every_step(&base(OnIncumbentDeath::Promote), |world| {
                stop(world, i);
                stop_until(world, seconds);
            });
        }
        at_every_step(&base(OnIncumbentDeath::Promote), |world| {
            world.stop_service();
            stop_until(world, seconds);
        });
    }
}

#[test]
fn somebody_is_stopped_for_ever() {
    for i in [0, 1] {
        at_every_step(&base(OnIncumbentDeath::Promote), |world| stop(world, i));
    }
    at_every_step(&base(OnIncumbentDeath::Promote), World::stop_service);
}

#[test]
fn a_session_is_cut() {
    for i in [0, 1] {
        at_every_step(&base(OnIncumbentDeath::Promote), |world| {
            if i < world.daemons.len() {
                world.cut(i);
            }
        });
    }
}

#[test]
fn the_handoff_is_cancelled_or_the_incumbent_stopped() {
    at_every_step(&base(OnIncumbentDeath::Promote), World::cancel);
    at_every_step(&base(OnIncumbentDeath::Promote), World::stop_incumbent);
}

//! A seeded scheduler chooses among all that can happen, and breaks things.

use super::daemons::Kind;
use super::world::{Outcome, SECOND, World};
use crate::protocol::supervisor::OnIncumbentDeath;

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What may still be broken in a run.
struct Faults {
    crashes: usize,
    service_crashes: usize,
    cuts: usize,
    stops: usize,
    requests: usize,
    /// The clock may jump although something else can happen.
    jumps: usize,
}

fn script(random: &mut Random) -> Vec<(Kind, Outcome)> {
    let kinds = [
        Kind::Drain,
        Kind::Seal,
        Kind::Unlock,
        Kind::Resume,
        Kind::Warm,
        Kind::Open,
        Kind::Migrate,
        Kind::Serve,
        Kind::Prepare,
        Kind::Hello,
    ];
    let outcomes = [
        Outcome::Bad,
        Outcome::Good(5 * SECOND),
        Outcome::Good(70 * SECOND),
        Outcome::Old,
        Outcome::Few,
        Outcome::Hang,
        Outcome::Good(400 * SECOND),
        Outcome::Stuck,
    ];
    let mut script = Vec::new();
    if random.one_in(3) {
        script.push((kinds[random.below(kinds.len())], outcomes[random.below(outcomes.len())]));
    }
    script
}

fn set_up(random: &mut Random, base: &World) -> (World, Faults) {
    let mut world = base.clone();
    world.daemons[0].script = script(random);
    world.scripts = vec![script(random), script(random)];
    world.handoffs = 1 + random.below(2);
    world.policy = [OnIncumbentDeath::Promote, OnIncumbentDeath::StartCold][random.below(2)];
    let faults = Faults {
        crashes: random.below(4),
        service_crashes: random.below(4) / 3,
        cuts: random.below(6).saturating_sub(3),
        stops: random.below(4),
        requests: random.below(3),
        jumps: random.below(5),
    };
    (world, faults)
}

fn break_something(world: &mut World, faults: &mut Faults, random: &mut Random) {
    let i = random.below(world.daemons.len());
    match random.below(8) {
        0 if faults.crashes > 0 => {
            faults.crashes -= 1;
            world.crash(i);
        }
        1 if faults.service_crashes > 0 => {
            faults.service_crashes -= 1;
            world.crash_service();
        }
        2 if faults.cuts > 0 => {
            faults.cuts -= 1;
            world.cut(i);
        }
        3 if faults.stops > 0 => {
            faults.stops -= 1;
            world.stop(i);
        }
        4 if faults.stops > 0 => {
            faults.stops -= 1;
            world.stop_service();
        }
        5 => world.go_on(),
        6 if faults.requests > 0 => {
            faults.requests -= 1;
            if world.service.runs() && world.service.is_quiet() {
                world.check_busy();
                world.cancel();
            }
        }
        7 if faults.requests > 0 => {
            faults.requests -= 1;
            world.stop_incumbent();
        }
        _ => {}
    }
}

/// One run.
fn run(seed: u64, base: &World, traced: bool) -> World {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..4 {
        random.below(2);
    }
    let (mut world, mut faults) = set_up(&mut random, base);
    world.trace = traced.then(Vec::new);
    for _ in 0..400 {
        let events = world.events();
        if random.one_in(12) {
            break_something(&mut world, &mut faults, &mut random);
        } else if events.is_empty() || faults.jumps > 0 && random.one_in(20) {
            faults.jumps = faults.jumps.saturating_sub(usize::from(!events.is_empty()));
            if !world.advance() {
                break;
            }
            // For others, whoever could have gone on was silent.
            world.daemons.iter_mut().for_each(|daemon| daemon.was_silent |= !events.is_empty());
        } else {
            world.happen(events[random.below(events.len())]);
        }
        if world.broken.is_some() {
            return world;
        }
    }
    // From here on nothing is broken any more. Sometimes what is stopped stays so.
    if !random.one_in(4) {
        world.go_on();
    }
    world.run();
    world.check_end();
    world
}

#[test]
fn random_schedules_and_faults() {
    let mut base = World::new();
    base.heartbeats = false;
    let runs = std::env::var("HANDOFF_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(20_000);
    let mut verdicts = std::collections::BTreeMap::new();
    for seed in 1..=runs {
        let world = run(seed, &base, false);
        if let Some(broken) = &world.broken {
            let trace = run(seed, &base, true).trace.unwrap().join("\n");
            panic!("{trace}\nseed {seed}: {broken}");
        }
        for verdict in world.verdicts() {
            *verdicts.entry(format!("{verdict:?}")).or_insert(0) += 1;
        }
    }
    println!("{verdicts:?}");
    assert_eq!(verdicts.len(), 7, "every verdict was given: {verdicts:?}");
}

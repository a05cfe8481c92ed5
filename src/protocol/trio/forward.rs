//! When nothing goes wrong.

use super::daemons::Role;
use super::world::World;
use crate::protocol::Decision;
use crate::protocol::supervisor::{Phase, Verdict};

const HAPPY: [&str; 12] = [
    "N>S Hello",
    "S>N HelloAck",
    "N>S Warmed",
    "S>O PrepareHandoff",
    "O>S Drained",
    "S>O SealRequest",
    "O>S SealComplete",
    "S>N Begin",
    "N>S Ready",
    "S>N Committed",
    "N>S Serving",
    "S>O Commit",
];

fn is_served_by(world: &World, i: usize) {
    assert_eq!(world.broken, None);
    assert!(world.daemons[i].serves && world.lock == Some(i));
    assert_eq!(world.service.machine.phase(), Phase::Idle);
    assert_eq!(world.service.incumbent, Some(i));
    assert!(!world.service.journal, "the journal says that a handoff is open");
    assert_eq!(world.service.timers, [], "a timer is left");
    assert_eq!(world.daemons[i].timers, [], "a timer is left");
    assert!(world.service.violations.is_empty());
}

#[test]
fn a_handoff_takes_twelve_messages() {
    let mut world = World::new();
    world.run();
    assert_eq!(world.sent, HAPPY);
    assert_eq!(world.verdicts(), [Verdict::Committed]);
    assert_eq!(world.pages[0].word, Decision::Committed);
    assert!(world.pages[0].retired);
    assert_eq!(world.daemons[0].status, "replaced");
    is_served_by(&world, 1);
    assert_eq!(world.service.machine.generation(), 2);
    let Role::Incumbent(machine) = &world.daemons[1].role else { panic!("still a successor") };
    assert_eq!(machine.generation(), 2);
}

#[test]
fn many_handoffs_in_a_row() {
    let mut world = World::new();
    world.handoffs = 5;
    world.run();
    assert_eq!(world.verdicts(), [Verdict::Committed; 5]);
    is_served_by(&world, 5);
    assert!(world.service.machine.incumbent_is_linked() && world.service.machine.incumbent_serves());
}

#[test]
fn slow_is_not_late() {
    use super::daemons::Kind::{Drain, Open, Seal, Serve, Warm};
    use super::world::{Outcome::Good, SECOND};
    let mut world = World::new();
    world.daemons[0].script = vec![(Drain, Good(59 * SECOND)), (Seal, Good(100 * SECOND))];
    world.scripts.push(vec![(Warm, Good(50 * SECOND)), (Open, Good(59 * SECOND)), (Serve, Good(9 * SECOND))]);
    world.run();
    assert_eq!(world.verdicts(), [Verdict::Committed]);
    assert!(world.sent.iter().any(|message| message == "O>S Heartbeat"));
    assert!(world.sent.iter().any(|message| message == "N>S Heartbeat"));
    is_served_by(&world, 1);
}

#[test]
fn a_second_handoff_is_refused_at_once() {
    let mut world = World::new();
    while world.step() {
        world.check_busy();
    }
    is_served_by(&world, 1);
}

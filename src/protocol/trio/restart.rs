//! S is started again, or its session with a living O was cut: it adopts what runs.

use super::daemons::Kind;
use super::deaths::{at_every_step, base};
use super::service::plan;
use super::world::{Outcome, SECOND, World};
use crate::protocol::supervisor::{Input, OnIncumbentDeath, Peer, Phase, Timer, Verdict};
use crate::protocol::{incumbent, successor};

/// One more handoff is asked for, when all is quiet.
fn hand_off_again(world: &mut World) {
    world.run();
    world.check_end();
    world.handoffs = 1;
}

#[test]
fn the_supervisor_is_killed_and_comes_back() {
    for journal_lost in [false, true] {
        for later in [0, 1, 2, 5, 10, 20, 1000] {
            let verdicts = at_every_step(&base(OnIncumbentDeath::Promote), |world| {
                world.crash_service();
                for _ in 0..later {
                    world.step();
                }
                world.restart_service(journal_lost);
                hand_off_again(world);
            });
            assert!(verdicts.iter().all(|verdict| *verdict == Some(Verdict::Committed)), "{verdicts:?}");
        }
    }
}

#[test]
fn a_daemon_dies_while_nobody_watches() {
    for journal_lost in [false, true] {
        for i in [0, 1] {
            at_every_step(&base(OnIncumbentDeath::Promote), |world| {
                world.crash_service();
                if i < world.daemons.len() {
                    world.crash(i);
                }
                world.restart_service(journal_lost);
                hand_off_again(world);
            });
        }
    }
}

#[test]
fn it_is_killed_again_while_it_adopts() {
    for later in (0..30).step_by(4) {
        at_every_step(&base(OnIncumbentDeath::Promote), |world| {
            world.crash_service();
            world.restart_service(false);
            for _ in 0..later {
                world.step();
            }
            world.crash_service();
            world.restart_service(later % 8 == 0);
            hand_off_again(world);
        });
    }
}

#[test]
fn a_session_is_cut_and_comes_back() {
    for i in [0, 1] {
        let verdicts = at_every_step(&base(OnIncumbentDeath::Promote), |world| {
            if i < world.daemons.len() {
                world.cut(i);
            }
            hand_off_again(world);
        });
        assert!(verdicts.iter().all(|verdict| *verdict == Some(Verdict::Committed)), "{verdicts:?}");
    }
}

#[test]
fn a_daemon_that_ends_its_sessions_again_and_again_is_given_up() {
    let mut world = World::new();
    world.handoffs = 0;
    for _ in 0..8 {
        world.cut(0);
        world.run();
        assert!(world.service.machine.incumbent_is_linked());
    }
    world.cut(0);
    world.run();
    assert!(world.service.machine.incumbent_is_estranged() && !world.service.machine.incumbent_is_linked());
    assert!(world.daemons[0].serves);
    world.handoffs = 1;
    world.run();
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Refused]));
}

#[test]
fn a_handoff_in_between_begins_the_count_anew() {
    let mut world = World::new();
    for _ in 0..3 {
        world.handoffs = 1;
        world.run();
        let serving = world.service.incumbent.unwrap();
        for _ in 0..6 {
            world.cut(serving);
            world.run();
        }
    }
    assert!(world.service.machine.incumbent_is_linked());
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Committed; 3]));
}

/// O has lost its session in this phase, and does not answer.
fn unreachable(phase: incumbent::Phase) -> World {
    let mut world = base(OnIncumbentDeath::StartCold);
    world.run_until(|world| world.daemons[0].incumbent_phase() == Some(phase));
    world.run_until(|world| world.service.is_quiet() && world.daemons[0].is_quiet());
    world
}

#[test]
fn an_incumbent_that_can_not_be_reached_leaves_it_undecided() {
    let mut world = unreachable(incumbent::Phase::Draining);
    world.stop(0);
    world.cut(0);
    let begun = world.now;
    world.run_until(|world| !world.verdicts().is_empty());
    assert_eq!(world.verdicts(), [Verdict::Undecided]);
    assert!(world.now - begun < 20 * SECOND, "at Timer::Adoption, not at the deadline");
    world.go_on();
    world.run();
    world.check_end();
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Undecided]));
    hand_off_again(&mut world);
    world.run();
    assert_eq!(world.verdicts().last(), Some(&Verdict::Committed));
}

/// It comes back late, but before N is gone: S waits for it again, and hears that it serves.
#[test]
fn an_incumbent_that_is_reached_late_still_rolls_back() {
    let mut world = unreachable(incumbent::Phase::Draining);
    world.stop(1);
    world.cut(0);
    world.run_until(|world| world.service.machine.phase() == Phase::RollingBack && world.service.is_quiet());
    world.supervise(Input::Timer(Timer::Adoption));
    world.run_until(|world| world.service.machine.incumbent_is_linked());
    world.go_on();
    hand_off_again(&mut world);
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::RolledBack]));
    world.run();
    assert_eq!(world.verdicts().last(), Some(&Verdict::Committed));
}

/// Silence on a path that may lead nowhere says nothing: it may well serve.
#[test]
fn a_sealed_incumbent_that_can_not_be_reached_lives() {
    let mut world = unreachable(incumbent::Phase::Sealed);
    world.run_until(|world| world.service.machine.phase() == Phase::AwaitReady);
    world.stop(0);
    world.cut(0);
    world.run_until(|world| !world.verdicts().is_empty());
    assert_eq!((world.verdicts(), world.daemons[0].alive), (vec![Verdict::Undecided], true));
    world.go_on();
    hand_off_again(&mut world);
    world.run();
    assert_eq!((world.broken.clone(), world.verdicts().last()), (None, Some(&Verdict::Committed)));
}

/// N has the control path before its application serves: until N says so itself, it can not be replaced.
#[test]
fn a_successor_that_is_not_there_yet_is_adopted_but_not_replaced() {
    let mut world = base(OnIncumbentDeath::Promote);
    world.scripts[0].push((Kind::Serve, Outcome::Good(60 * SECOND)));
    world.run_until(|world| world.control == Some(1));
    world.crash_service();
    world.restart_service(true);
    world.run_until(|world| world.service.incumbent == Some(1) && world.service.machine.incumbent_is_linked());
    assert_eq!(world.daemons[1].successor_phase(), Some(successor::Phase::Won));
    assert!(!world.service.machine.incumbent_serves());
    world.forget();
    let plan = plan(world.now, OnIncumbentDeath::Promote);
    world.supervise(Input::StartHandoff(plan));
    world.run_until(|world| world.service.is_quiet());
    assert_eq!(world.verdicts().last(), Some(&Verdict::Refused));
    hand_off_again(&mut world);
    world.run();
    assert_eq!((world.broken.clone(), world.verdicts().last()), (None, Some(&Verdict::Committed)));
}

/// The same, when S has seen the page, but not yet the end of the session.
#[test]
fn a_successor_that_only_the_page_tells_of_is_adopted_first() {
    let mut world = base(OnIncumbentDeath::Promote);
    world.scripts[0].push((Kind::Serve, Outcome::Good(60 * SECOND)));
    world.run_until(|world| world.pages.first().is_some_and(|page| page.serving));
    world.cut(1);
    world.service.told_serving = true;
    world.supervise(Input::PageServing);
    world.crash(0);
    world.service.told_death.push(0);
    world.supervise(Input::Died(Peer::Incumbent, "killed by signal 9".into()));
    world.run_until(|world| world.service.is_quiet());
    assert_eq!(world.verdicts(), [Verdict::Committed]);
    assert!(world.service.machine.seeks());
    hand_off_again(&mut world);
    world.run();
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Committed; 2]));
}

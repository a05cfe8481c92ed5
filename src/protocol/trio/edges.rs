//! What falls between two phases of S.

use super::world::World;
use crate::protocol::supervisor::{Action, Input, OnIncumbentDeath, Peer, Phase, Timer, Verdict};
use crate::protocol::{Decide, Decision, supervisor};

fn revokes(actions: &[Action]) -> bool {
    actions.contains(&Action::Decide(Decide::Revoke))
}

/// S, which has asked its driver to spawn N, and has no answer yet.
fn spawning(policy: OnIncumbentDeath) -> supervisor::Supervisor {
    let mut world = World::new();
    world.policy = policy;
    world.run_until(|world| world.service.machine.phase() == Phase::Spawning);
    world.service.machine
}

#[test]
fn what_happens_while_the_successor_is_spawned_is_not_forgotten() {
    let died = Input::Died(Peer::Incumbent, "killed".into());
    let lost = Input::Timer(Timer::Lost(Peer::Incumbent));
    let cases = [
        (OnIncumbentDeath::StartCold, died.clone(), true),
        (OnIncumbentDeath::Promote, died.clone(), false),
        (OnIncumbentDeath::Promote, lost, true),
        (OnIncumbentDeath::Promote, Input::Garbage(Peer::Incumbent, "noise".into()), true),
        (OnIncumbentDeath::Promote, Input::Cancel("cancelled".into()), true),
    ];
    for (policy, input, aborts) in cases {
        let mut s = spawning(policy);
        assert!(!revokes(&s.step(input.clone())), "there is no page yet");
        assert_eq!(revokes(&s.step(Input::Spawned)), aborts, "{input:?}");
    }
    let mut s = spawning(OnIncumbentDeath::Promote);
    s.step(died);
    assert!(s.step(Input::SpawnFailed("exec: not found".into())).contains(&Action::SpawnCold), "nobody is left");
}

/// S after these timers, which finds that N has not won; and what it does.
fn revoked(timers: &[Timer]) -> (supervisor::Supervisor, Vec<Action>) {
    let mut s = spawning(OnIncumbentDeath::StartCold);
    s.step(Input::Spawned);
    let inputs = timers.iter().flat_map(|timer| [Input::Timer(*timer), Input::Decided(Decision::Revoked)]);
    let actions = inputs.flat_map(|input| s.step(input)).collect();
    (s, actions)
}

fn verdicts(actions: &[Action]) -> Vec<Verdict> {
    let verdict = |action: &Action| if let Action::Report(verdict, _) = action { Some(*verdict) } else { None };
    actions.iter().filter_map(verdict).collect()
}

/// O was not disturbed, and the word keeps N from serving: all that is open is N's end.
#[test]
fn what_is_certain_at_the_deadline_is_not_undecided() {
    let died = Input::Died(Peer::Successor, "killed".into());
    // N is silent until then, or has been told to go, and has its grace.
    for timers in [&[Timer::Deadline][..], &[Timer::Hello, Timer::Deadline]] {
        let (mut s, actions) = revoked(timers);
        assert!(actions.contains(&Action::KillSuccessor), "nobody waits for manners: {actions:?}");
        assert_eq!(verdicts(&actions), [], "{timers:?}");
        assert_eq!(verdicts(&s.step(died.clone())), [Verdict::RolledBack], "{timers:?}");
        // It outlives even that.
        let (mut s, _) = revoked(timers);
        assert_eq!(verdicts(&s.step(Input::Timer(Timer::AbortGrace))), [Verdict::Undecided], "{timers:?}");
        assert_eq!(verdicts(&s.step(died.clone())), [Verdict::RolledBack], "{timers:?}");
    }
}

#[test]
fn after_the_promotion_the_names_mean_other_processes() {
    let mut world = World::new();
    world.run_until(|world| world.service.machine.phase() == Phase::Retiring && world.service.is_quiet());
    world.service.told_gone.push(0);
    world.supervise(Input::Gone(Peer::Incumbent)); // O's session ends before its process
    world.run_until(|world| world.pages[0].retired && world.service.is_quiet());
    world.service.told_retired = true;
    world.supervise(Input::Retired); // and S sees the page before it sees the death
    world.run();
    assert!(world.service.machine.incumbent_is_linked() && world.service.timers.is_empty());
    world.handoffs = 1;
    world.run();
    assert_eq!(world.verdicts(), [Verdict::Committed; 2]);
}

#[test]
fn a_lost_successor_is_adopted_when_it_is_promoted() {
    let mut world = World::new();
    world.run_until(|world| world.service.machine.phase() == Phase::Retiring);
    world.cut(1);
    world.run_until(|world| world.service.machine.phase() == Phase::Idle);
    assert!(world.service.machine.incumbent_serves() && !world.service.machine.incumbent_is_linked());
    world.run();
    assert!(world.service.machine.incumbent_is_linked());
    world.handoffs = 1;
    world.run();
    assert_eq!(world.verdicts(), [Verdict::Committed; 2]);
}

#[test]
fn a_successor_that_promoted_itself_is_found_by_the_page() {
    let mut world = World::new();
    world.run_until(|world| world.service.machine.phase() == Phase::AwaitReady);
    world.crash(0);
    world.cut(1);
    world.run();
    world.check_end();
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Committed]));
    assert!(world.daemons[1].serves);
}

#[test]
fn a_cold_start_whose_session_is_lost_is_not_waited_for() {
    let mut world = World::new();
    world.handoffs = 0;
    world.crash(0);
    world.run_until(|world| world.service.machine.phase() == Phase::ColdStarting && world.daemons.len() == 2);
    world.cut(1);
    world.run();
    world.check_end();
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Undecided]));
    assert!(world.daemons[1].serves);
}

#[test]
fn a_refusal_is_not_a_crime() {
    use crate::protocol::message::{Message, Reject, RejectCode};
    let text = "the soft limit of descriptors is 1024, and can not be raised";
    let mut world = World::new();
    world.run_until(|world| world.service.machine.phase() == Phase::Warming);
    world.daemons[1].outbox.clear();
    world.daemons[1].outbox.push_back(Message::Reject(Reject { code: RejectCode::Unable, text: text.into() }));
    world.run();
    world.check_end();
    assert_eq!((world.broken.clone(), world.service.violations.clone()), (None, vec![]));
    let (verdict, said) = world.service.reports.last().unwrap();
    assert_eq!(*verdict, Verdict::Refused);
    assert!(said.contains(text), "{said}");
}

//! Messages that cross, that are late, and that nobody may send.

use super::daemons::{Kind, Role};
use super::world::{Outcome, SECOND, World};
use crate::protocol::message::*;
use crate::protocol::supervisor::{Input, Peer, Phase, Sender, Verdict};
use crate::protocol::transfer::Totals;
use crate::protocol::{Decision, HandoffId, incumbent, successor, supervisor};

fn has(queue: &std::collections::VecDeque<Message>, name: &str) -> bool {
    queue.iter().any(|message| message.name() == name)
}

/// Cancels the handoff while this message is on its way to S.
fn cancelled_while_on_the_way(i: usize, name: &str) -> World {
    let mut world = World::with(Kind::Open, Outcome::Good(0));
    if name == "Reject" {
        world.daemons[0].script.push((Kind::Prepare, Outcome::Bad));
    }
    world.run_until(|world| world.daemons.get(i).is_some_and(|daemon| has(&daemon.outbox, name)));
    world.cancel();
    world.run();
    world.check_end();
    assert_eq!(world.broken, None);
    assert_eq!(world.service.violations, [""; 0], "{name} is a violation");
    assert!(world.daemons.iter().all(|daemon| daemon.violations.is_empty()), "{name}");
    assert!(world.daemons[0].serves && world.service.machine.incumbent_is_linked());
    world
}

#[test]
fn answers_cross_an_abort() {
    for (i, name) in [(1, "Hello"), (1, "Warmed"), (0, "Drained"), (0, "SealComplete"), (1, "Ready")] {
        let world = cancelled_while_on_the_way(i, name);
        assert_eq!(world.verdicts(), [Verdict::RolledBack], "{name}");
        assert!(world.service.machine.dropped() > 0, "{name}");
    }
    let world = cancelled_while_on_the_way(0, "Reject");
    assert_eq!(world.verdicts(), [Verdict::Refused]);
    let mut world = World::new();
    world.run_until(|world| world.daemons.get(1).is_some_and(|daemon| has(&daemon.outbox, "Serving")));
    world.cancel();
    world.run();
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Committed]));
}

/// S gives up, but N, whose session is cut and whose O is dead, has won: what both had said before is only late.
#[test]
fn answers_cross_an_abort_that_comes_too_late() {
    for (i, name) in [(1, "Warmed"), (0, "Drained"), (0, "SealComplete"), (1, "Ready")] {
        let mut world = World::new();
        world.run_until(|world| world.daemons.get(i).is_some_and(|daemon| has(&daemon.outbox, name)));
        world.cancel();
        world.stop_service();
        world.crash(0);
        world.cut(1);
        world.run_until(|world| world.pages[0].serving);
        world.go_on();
        world.run();
        world.check_end();
        assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Committed]), "{name}");
        assert_eq!(world.service.violations, [""; 0], "{name}");
    }
}

#[test]
fn serving_arrives_while_the_word_is_asked() {
    let mut world = World::new();
    world.run_until(|world| has(&world.daemons.get(1).map(|n| n.outbox.clone()).unwrap_or_default(), "Serving"));
    world.run_until(|world| world.service.is_quiet());
    world.supervise(Input::Cancel("cancelled".into()));
    assert_eq!(world.service.machine.phase(), Phase::Revoking);
    let message = world.daemons[1].outbox.pop_front().unwrap();
    world.supervise(Input::Message(Peer::Successor, message));
    world.service.heard_serving = true;
    world.run();
    assert_eq!((world.broken.clone(), world.verdicts()), (None, vec![Verdict::Committed]));
}

/// O resumes by itself at the deadline, while S is stopped; S's ResumeAfterAbort meets an O that serves.
#[test]
fn resumed_twice() {
    let mut world = World::with(Kind::Open, Outcome::Stuck);
    world.run_until(|world| world.service.machine.phase() == Phase::AwaitReady);
    world.stop_service();
    world.run();
    assert!(world.daemons[0].serves && has(&world.daemons[0].outbox, "Resumed"));
    let id = world.service.machine.handoff().unwrap();
    world.incumbent_takes(0, incumbent::Input::Message(Message::ResumeAfterAbort(ResumeAfterAbort { id })));
    world.go_on();
    world.handoffs = 1;
    world.run();
    assert_eq!(world.broken, None);
    assert_eq!(world.verdicts(), [Verdict::RolledBack, Verdict::Committed]);
    assert_eq!(world.service.violations, [""; 0]);
    assert!(world.service.machine.dropped() > 0, "the second Resumed is dropped");
}

#[test]
fn resume_to_an_incumbent_that_serves() {
    let mut o = incumbent::Incumbent::committed(3, HandoffId(50));
    for id in [HandoffId(40), HandoffId(50), HandoffId(60)] {
        let out = o.step(incumbent::Input::Message(Message::ResumeAfterAbort(ResumeAfterAbort { id })));
        assert_eq!(out, [incumbent::Action::Send(Message::Resumed(Resumed { id, error: None }))]);
    }
    // The one that it never saw is finished, too.
    let prepare = PrepareHandoff {
        id: HandoffId(60),
        mode: Mode::Exclusive,
        deadline_ns: 1,
        drain_grace_ns: 1,
        park_ns: 0,
        transfer: None,
    };
    assert_eq!(o.step(incumbent::Input::Message(Message::PrepareHandoff(prepare))), []);
    assert_eq!(o.dropped(), 1);
}

/// O, sealed, in a handoff with this word and this N.
fn sealed() -> (incumbent::Incumbent, HandoffId) {
    let mut world = World::new();
    world.run_until(|world| world.daemons[0].incumbent_phase() == Some(incumbent::Phase::Sealed));
    let Role::Incumbent(o) = &world.daemons[0].role else { unreachable!() };
    (o.clone(), o.handoff().unwrap())
}

#[test]
fn the_fence_with_each_value_of_the_word() {
    use incumbent::Input::{
        Decided, Message as Said, SuccessorDied, SuccessorSeen, SuccessorServing, SupervisorGone, Timer,
    };
    use incumbent::{Action, Phase as At};
    let (o, id) = sealed();
    let fences = [
        SupervisorGone,
        Timer(incumbent::Timer::Deadline),
        Said(Message::ResumeAfterAbort(ResumeAfterAbort { id })),
        Said(Message::Commit(Commit { id })),
    ];
    for fence in fences {
        let committed = matches!(fence, Said(Message::Commit(_)));
        let mut fencing = o.clone();
        assert!(fencing.step(fence.clone()).contains(&Action::Decide(crate::protocol::Decide::Revoke)), "{fence:?}");
        // Again: nothing more.
        assert_eq!(fencing.step(SupervisorGone), []);

        let mut revoked = fencing.clone();
        assert_eq!(revoked.step(Decided(Decision::Revoked)), [Action::KillSuccessor]);
        assert_eq!(revoked.step(SuccessorDied), [Action::TakeLock]);
        assert_eq!(revoked.phase(), At::Locking);
        assert_eq!(
            revoked.step(incumbent::Input::LockRefused("x".into())),
            [Action::Arm(incumbent::Timer::Lock)],
            "it insists"
        );

        let mut alive = fencing.clone();
        let out = alive.step(Decided(Decision::Committed));
        assert_eq!(out, if committed { vec![Action::Look] } else { vec![] });
        if !committed {
            assert_eq!(alive.step(SuccessorServing), [Action::Look]);
        }
        assert!(alive.step(SuccessorSeen { alive: true }).ends_with(&[Action::Retire, Action::Exit(None)]));
        assert_eq!(alive.step(SupervisorGone), []);

        for (value, lost) in [(Decision::Committed, false), (Decision::CommittedIncompatible, true)] {
            let mut dead = fencing.clone();
            dead.step(SuccessorDied);
            let out = dead.step(Decided(value));
            assert_eq!(dead.phase(), if lost { At::Lost } else { At::Locking }, "{out:?}");
            // N dies between its Serving and our look.
            let mut late = fencing.clone();
            late.step(SuccessorServing);
            assert_eq!(late.step(Decided(value)), [Action::Look]);
            late.step(SuccessorSeen { alive: false });
            late.step(Decided(value));
            assert_eq!(late.phase(), if lost { At::Lost } else { At::Locking });
        }
    }
}

#[test]
fn supervisor_lost_while_the_lock_is_released() {
    use incumbent::{Action, Input};
    let mut world = World::new();
    world.run_until(|world| world.daemons[0].incumbent_phase() == Some(incumbent::Phase::Unlocking));
    let Role::Incumbent(machine) = &world.daemons[0].role else { unreachable!() };
    let fingerprint = Fingerprint { directory: (1, 2), lock: (1, 3) };
    for answer in [Input::Unlocked(fingerprint), Input::UnlockFailed("no".into())] {
        let mut o = machine.clone();
        assert_eq!(o.step(Input::SupervisorGone), [], "not before it is known whether the lock is ours");
        let out = o.step(answer);
        assert!(out.contains(&Action::Decide(crate::protocol::Decide::Revoke)), "{out:?}");
        assert!(!out.iter().any(|action| matches!(action, Action::Send(Message::SealComplete(_)))));
    }
}

#[test]
fn the_successor_promotes_itself_in_each_phase() {
    use successor::Phase as At;
    for phase in [At::Warming, At::AwaitBegin, At::Locking, At::Opening, At::AwaitCommitted, At::Committing] {
        for first in [0, 1] {
            let mut world = World::with(Kind::Warm, Outcome::Good(SECOND));
            world.scripts[0].push((Kind::Open, Outcome::Good(SECOND)));
            let there = |world: &World| world.daemons.get(1).is_some_and(|n| n.successor_phase() == Some(phase));
            world.run_until(there);
            if first == 0 {
                world.crash(0);
                world.crash_service();
            } else {
                world.crash_service();
                world.crash(0);
            }
            world.run();
            world.check_end();
            assert_eq!(world.broken, None, "{phase:?}");
            assert!(world.daemons[1].serves, "{phase:?}");
        }
    }
}

/// Alone, it refuses what S would have refused.
#[test]
fn the_last_one_does_not_serve_with_less_than_was_sealed() {
    for bad in [Outcome::Old, Outcome::Few] {
        let mut world = World::with(Kind::Open, bad);
        world.run_until(|world| world.daemons.get(1).is_some_and(|n| has(&n.outbox, "Ready")));
        world.crash(0);
        world.crash_service();
        world.run();
        assert_eq!((world.broken.clone(), world.pages[0].word), (None, Decision::Revoked));
        assert!(!world.daemons[1].alive);
    }
}

/// A driver may give answers late: what comes in between is not lost.
#[test]
fn something_comes_between_a_question_and_its_answer() {
    use successor::{Action, Input, Phase as At};
    let mut world = World::with(Kind::Warm, Outcome::Good(SECOND));
    world.run_until(|world| world.daemons.get(1).is_some_and(|n| n.successor_phase() == Some(At::Warming)));
    let Role::Successor(machine) = &world.daemons[1].role else { unreachable!() };
    let mut n = machine.clone();
    assert_eq!(n.step(Input::SupervisorGone), [Action::Look]);
    assert_eq!(n.step(Input::Warmed), []);
    assert_eq!(n.step(Input::IncumbentSeen { alive: false }), [Action::TakeLock(Sealed::Recover)]);
    // It turns out to be the last one while the word is asked, and the answer is that the deadline is past.
    n.step(Input::Locked);
    let deadline = Action::Decide(crate::protocol::Decide::Commit { incompatible: false, deadline_ns: None });
    assert_eq!(n.step(Input::Opened(Readiness::default())), [deadline]);
    assert_eq!(n.step(Input::Decided(Decision::Committed)).last(), Some(&Action::Publish));

    let mut world = World::new();
    world.run_until(|world| world.daemons.get(1).is_some_and(|n| n.successor_phase() == Some(At::Committing)));
    let Role::Successor(machine) = &world.daemons[1].role else { unreachable!() };
    let mut n = machine.clone();
    assert_eq!(n.step(Input::SupervisorGone), []);
    assert_eq!(n.step(Input::IncumbentDied), []);
    assert!(matches!(&n.step(Input::Decided(Decision::Open))[..], [Action::Decide(_)]));
}

/// The deadline is past when it reads Committed, but it is the last.
#[test]
fn the_last_one_is_never_too_late() {
    let mut world = World::new();
    world.run_until(|world| world.daemons.get(1).is_some_and(|n| has(&n.inbox, "Committed")));
    world.now += 400 * SECOND;
    let mut alone = world.clone();
    alone.crash_service();
    alone.crash(0);
    alone.run();
    alone.check_end();
    assert_eq!(alone.broken, None);
    assert!(alone.daemons[1].serves);
    // With anybody else left, late is late.
    world.run();
    world.check_end();
    assert_eq!((world.broken.clone(), world.verdicts().last()), (None, Some(&Verdict::RolledBack)));
}

/// Every message, as it would be in handoff `id`.
fn all(id: HandoffId) -> Vec<Message> {
    let fingerprint = Fingerprint { directory: (1, 2), lock: (1, 3) };
    let terms = Terms { id, mode: Mode::Exclusive, deadline_ns: 9, park_ns: 0, open_descriptors: 0 };
    let text = String::new;
    vec![
        Message::HelloAck(HelloAck { version: 1, generation: 2, terms: None }),
        Message::HelloAck(HelloAck { version: 1, generation: 2, terms: Some(terms) }),
        Message::Reject(Reject { code: RejectCode::Unable, text: text() }),
        Message::Adopt(Adopt { version_min: 1, version_max: 1 }),
        Message::Warmed(Warmed { id }),
        Message::PrepareHandoff(PrepareHandoff {
            id,
            mode: Mode::Overlap,
            deadline_ns: 1,
            drain_grace_ns: 1,
            park_ns: 0,
            transfer: None,
        }),
        Message::Drained(Drained { id, connections_open: 0, accept_stopped_ns: 0 }),
        Message::SealRequest(SealRequest { id }),
        Message::Gate(Gate { id, sent: Totals::default() }),
        Message::SealProgress(SealProgress { id, done: 1, total: 2 }),
        Message::SealComplete(SealComplete { id, revisions: Vec::new(), fingerprint }),
        Message::SealFailed(SealFailed { id, step: SealStep::Seal, error: text() }),
        Message::Begin(Begin { id, sealed: Sealed::Recover }),
        Message::Ready(Ready { id, readiness: Readiness::default(), taken: Totals::default() }),
        Message::Committed(Committed { id }),
        Message::Serving(Serving { id, committed_ns: 1, control: Ok(()) }),
        Message::Commit(Commit { id }),
        Message::Abort(Abort { id, reason: text() }),
        Message::ResumeAfterAbort(ResumeAfterAbort { id }),
        Message::Resumed(Resumed { id, error: None }),
        Message::Resumed(Resumed { id, error: Some(text()) }),
        Message::Stopping(Stopping { id }),
        Message::Heartbeat(Heartbeat { id, progress: None }),
    ]
}

/// Every state of the three machines on the way there and, after a crash, on the way back.
fn states() -> Vec<World> {
    let mut states = Vec::new();
    for crash in [false, true] {
        let mut world = World::with(Kind::Open, Outcome::Good(SECOND));
        loop {
            if crash && world.service.machine.phase() == Phase::AwaitReady {
                world.crash(1);
            }
            states.push(world.clone());
            if !world.step() {
                break;
            }
        }
    }
    states
}

#[test]
fn what_was_never_issued_ends_the_session() {
    let future = HandoffId(u64::MAX);
    for world in states() {
        for message in all(future) {
            if message.id() != future {
                continue;
            }
            let name = message.name();
            for peer in [Peer::Incumbent, Peer::Successor] {
                let mut s = world.service.machine.clone();
                let out = s.step(Input::Message(peer, message.clone()));
                let ended = out.iter().any(
                    |action| matches!(action, supervisor::Action::EndSession(p, v) if *p == peer && v.message == name),
                );
                assert!(ended, "S, {:?}: {name} of {peer:?}: {out:?}", world.service.machine.phase());
            }
            for daemon in &world.daemons {
                let serves = daemon.incumbent_phase() == Some(incumbent::Phase::Serving);
                let (ended, out) = say(&daemon.role, &message);
                let issued = serves && matches!(name, "PrepareHandoff" | "ResumeAfterAbort");
                let over = daemon.successor_phase() == Some(successor::Phase::Aborted);
                let greeted = daemon.successor_phase() == Some(successor::Phase::AwaitAck);
                let issued = issued || greeted && matches!(name, "HelloAck" | "Abort");
                let hello = serves && name == "HelloAck";
                assert!(ended || issued || over || hello, "{}: {name}: {out}", daemon.phase());
            }
        }
    }
}

fn say(role: &Role, message: &Message) -> (bool, String) {
    match role {
        Role::Incumbent(o) => {
            let out = o.clone().step(incumbent::Input::Message(message.clone()));
            (out.iter().any(|action| matches!(action, incumbent::Action::EndSession(_))), format!("{out:?}"))
        }
        Role::Successor(n) => {
            let out = n.clone().step(successor::Input::Message(message.clone()));
            (out.iter().any(|action| matches!(action, successor::Action::EndSession(_))), format!("{out:?}"))
        }
    }
}

/// Whatever S, O and N are told in whatever state, by whomever, they go on, and nobody serves twice.
#[test]
fn any_message_in_any_state() {
    for world in states().into_iter().step_by(3) {
        let current = world.service.machine.handoff().unwrap_or(HandoffId(7));
        for id in [HandoffId::COLD, HandoffId(1), current, HandoffId(u64::MAX)] {
            for message in all(id) {
                let (name, phase) = (message.name(), world.service.machine.phase());
                for i in 0..world.daemons.len() {
                    let mut told = world.clone();
                    told.heartbeats = false;
                    told.daemons[i].inbox.push_front(message.clone());
                    end(told, &format!("{name} of {id} to {i} while S is {phase:?}"));
                    let mut heard = world.clone();
                    heard.heartbeats = false;
                    heard.daemons[i].outbox.push_front(message.clone());
                    // An enemy that lies of what it did is not held to it; but S must have an outcome.
                    let lie = matches!(name, "SealComplete" | "Serving" | "Resumed" | "Drained" | "Ready" | "Reject");
                    if !(lie && id == current || name == "Reject") {
                        end(heard, &format!("{name} of {id} from {i} while S is {phase:?}"));
                    }
                }
            }
        }
        let hello = Hello {
            side: Side::Incumbent,
            pid: 1,
            version_min: 1,
            version_max: 1,
            capabilities: 1,
            generation: 0,
            open_descriptors: 0,
            descriptors_max: 0,
            time_namespace: 0,
            build_id: Vec::new(),
        };
        let sender = Sender { pid: 1, uid: 0, spawned_pid: 2, time_namespace: 0 };
        for peer in [Peer::Incumbent, Peer::Successor] {
            world.service.machine.clone().step(Input::Hello(peer, hello.clone(), sender));
        }
    }
}

fn end(mut world: World, what: &str) {
    world.run();
    world.check_end();
    assert_eq!(world.broken, None, "{what}");
}

use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const TERMS: Terms = Terms { first_ns: SECOND / 10, interval_ns: 10 * SECOND, retries: 3, grace_ns: 30 * SECOND };

fn bad(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

/// Goes to the next question, asks, and answers at once; when that was.
fn next(machine: &mut Machine, answer: Result<(), String>) -> (u64, Option<Change>) {
    let due = machine.due_ns().expect("a next question");
    assert!(!machine.ask(due - 1) && machine.ask(due) && !machine.ask(due));
    (due, machine.answer(answer, due))
}

#[test]
fn fast_at_first_then_at_the_interval_for_ever() {
    let mut machine = Machine::new(TERMS);
    assert_eq!(machine.due_ns(), None);
    machine.begin(0);
    let mut times = Vec::new();
    for _ in 0..6 {
        let (at, change) = next(&mut machine, bad("refused"));
        times.push(at * 10 / SECOND);
        assert_eq!(change, None, "it still starts");
    }
    assert_eq!(times, [1, 3, 7, 15, 31, 63], "tenths of seconds");
    assert_eq!(next(&mut machine, Ok(())).1, Some(Change::Healthy));
    let before = machine.due_ns().unwrap();
    for round in 1..100 {
        let (at, change) = next(&mut machine, Ok(()));
        assert_eq!((at, change), (before + (round - 1) * 10 * SECOND, None));
    }
}

#[test]
fn bad_ones_in_a_row_and_the_first_cause() {
    let mut machine = Machine::new(TERMS);
    machine.begin(0);
    next(&mut machine, Ok(()));
    for _ in 0..10 {
        for why in ["one", "two"] {
            assert_eq!(next(&mut machine, bad(why)).1, None);
        }
        assert_eq!(next(&mut machine, Ok(())).1, None, "it was healthy all the time");
    }
    next(&mut machine, bad("the first"));
    next(&mut machine, bad("the second"));
    assert_eq!(machine.cause(), Some("the first"));
    assert_eq!(next(&mut machine, bad("the third")).1, Some(Change::Unhealthy("the first".into())));
    assert_eq!(next(&mut machine, bad("again")).1, None, "that is no news");
    assert_eq!(next(&mut machine, Ok(())).1, Some(Change::Healthy));
    assert_eq!(machine.cause(), None);
}

#[test]
fn one_that_never_answers_well_has_its_time_to_start() {
    let mut machine = Machine::new(TERMS);
    machine.begin(5 * SECOND);
    let change = loop {
        let (at, change) = next(&mut machine, bad("refused"));
        match change {
            Some(change) => break (at, change),
            None => assert!(at < 35 * SECOND),
        }
    };
    assert!(change.0 >= 35 * SECOND);
    assert_eq!(change.1, Change::Unhealthy("refused".into()));
}

#[test]
fn a_handoff_excuses_it() {
    let mut machine = Machine::new(TERMS);
    machine.begin(0);
    next(&mut machine, Ok(()));
    next(&mut machine, bad("before"));
    next(&mut machine, bad("before"));
    machine.excuse(true, 0);
    for _ in 0..10 {
        assert_eq!(next(&mut machine, bad("nobody accepts")).1, None);
    }
    // A question of the pause that is answered after it.
    let due = machine.due_ns().unwrap();
    assert!(machine.ask(due));
    machine.excuse(false, due);
    assert_eq!(machine.answer(bad("late"), due), None);
    assert_eq!(machine.state().0, State::Healthy);
    for _ in 0..2 {
        assert_eq!(next(&mut machine, bad("after")).1, None, "those before are forgotten");
    }
    assert_eq!(next(&mut machine, bad("after")).1, Some(Change::Unhealthy("after".into())));
}

#[test]
fn nobody_is_asked_who_is_gone() {
    let mut machine = Machine::new(TERMS);
    machine.begin(0);
    next(&mut machine, Ok(()));
    assert!(machine.ask(u64::MAX));
    machine.end(11 * SECOND);
    assert_eq!((machine.answer(bad("late"), 12 * SECOND), machine.due_ns()), (None, None));
    assert_eq!(machine.state(), (State::Unknown, 11 * SECOND));
    machine.begin(20 * SECOND);
    assert_eq!(machine.due_ns(), Some(20 * SECOND + TERMS.first_ns), "the next one is asked soon");
}

#[derive(Clone, Debug)]
enum Step {
    Answer(bool, u64),
    Excuse(bool),
    Begin,
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (any::<bool>(), 0..20 * SECOND).prop_map(|(good, late)| Step::Answer(good, late)),
        2 => any::<bool>().prop_map(Step::Excuse),
        1 => Just(Step::Begin),
        1 => Just(Step::End),
    ]
}

proptest! {
    /// Whatever happens: a process is asked again and again, and never later than the interval after an answer; it is unhealthy after
    /// enough bad answers in a row that count, and only then; the cause is that of the first.
    #[test]
    fn never_stops_and_never_errs(steps in prop::collection::vec(step(), 0..60), retries in 1u32..5, interval in 1u64..40) {
        let interval_ns = interval * SECOND / 4;
        let terms = Terms { interval_ns, retries, ..TERMS };
        let mut machine = Machine::new(terms);
        // What must be known: bad answers in a row, with the first one's number; whether it has answered well, since when it runs.
        let (mut now, mut row, mut answered, mut begun, mut excused) = (0u64, Vec::<usize>::new(), false, None, false);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Begin => {
                    machine.begin(now);
                    (row, answered, begun) = (Vec::new(), false, Some(now));
                }
                Step::End => {
                    machine.end(now);
                    begun = None;
                }
                Step::Excuse(yes) => {
                    machine.excuse(yes, now);
                    if excused && !yes {
                        row.clear();
                    }
                    excused = yes;
                }
                Step::Answer(good, late) => {
                    let Some(since) = begun else {
                        prop_assert_eq!(machine.due_ns(), None);
                        continue;
                    };
                    let due = machine.due_ns().expect("there is a next question");
                    prop_assert!(due <= now.saturating_add(interval_ns));
                    now = now.max(due);
                    prop_assert!(machine.ask(now));
                    now += late;
                    let before = machine.state().0;
                    let change = machine.answer(if good { Ok(()) } else { bad(&number.to_string()) }, now);
                    if good {
                        (answered, row) = (true, Vec::new());
                        prop_assert_eq!(change, (before != State::Healthy).then_some(Change::Healthy));
                        continue;
                    }
                    if !excused {
                        row.push(number);
                    }
                    let too_bad = !excused && row.len() >= retries as usize && (answered || now >= since + terms.grace_ns);
                    let news = too_bad && (before != State::Unhealthy || row.len() == retries as usize);
                    prop_assert_eq!(change, news.then(|| Change::Unhealthy(row[0].to_string())));
                }
            }
        }
    }
}

//! All cases, side by side, and the table of what came of them.

use crate::run::{Blow, Case, Row, run, trace};
use crate::scenario::{SCENARIOS, Scenario};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Runs of a case until it comes to its step.
const ATTEMPTS: u32 = 5;

pub struct Matrix {
    blow: Blow,
    cases: Vec<Case>,
}

impl Matrix {
    /// Every step of every scenario; with the variable `ONLY`, those in whose line of the table it is.
    pub fn of(blow: Blow) -> Self {
        let only = std::env::var("ONLY").unwrap_or_default();
        let cases = SCENARIOS.iter().flat_map(|scenario| cases(scenario, blow));
        Self { blow, cases: cases.filter(|case| case.name().contains(&only)).collect() }
    }

    /// Runs them; prints the table; then fails if a case did.
    pub fn run(&self) {
        let started = Instant::now();
        // Nobody may be late because of the others. Whoever is stopped needs no processor.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = processors * if self.blow == Blow::Stop { 6 } else { 2 };
        let next = Mutex::new(0);
        let results: Mutex<Vec<Option<Result<Row, String>>>> = Mutex::new(self.cases.iter().map(|_| None).collect());
        std::thread::scope(|threads| {
            for _ in 0..workers {
                threads.spawn(|| {
                    loop {
                        let mut next_case = next.lock().unwrap();
                        let index = *next_case;
                        *next_case += 1;
                        drop(next_case);
                        let Some(case) = self.cases.get(index) else { return };
                        let result = catch_unwind(AssertUnwindSafe(|| until_struck(case))).map_err(words);
                        results.lock().unwrap()[index] = Some(result);
                    }
                });
            }
        });
        let results: Vec<_> = results.into_inner().unwrap().into_iter().flatten().collect();
        self.print(&results, started.elapsed());
        assert!(!results.is_empty(), "there is no such case");
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 0, "cases that failed; see the table");
    }

    fn print(&self, results: &[Result<Row, String>], took: Duration) {
        println!(
            "{:?}\n{:12} {:45} {:13} {:10} {:>7} {:>6} {:>7} {:>6} {:>4}",
            self.blow, "handoff", "step", "outcome", "serves", "gap ms", "acked", "failed", "closed", "lost"
        );
        let mut longest = (Duration::ZERO, "");
        for (Case { scenario, step, .. }, result) in self.cases.iter().zip(results) {
            let name = scenario.name;
            match result {
                Ok(row) => {
                    let outcome = if row.struck { &row.outcome } else { "not struck" };
                    println!(
                        "{name:12} {step:45} {outcome:13} {:10} {:7} {:6} {:7} {:6} {:4}",
                        row.serves,
                        row.gap.as_millis(),
                        row.acknowledged,
                        row.failed_requests,
                        row.closed,
                        0
                    );
                    if row.gap > longest.0 {
                        longest = (row.gap, step);
                    }
                }
                Err(why) => println!("{name:12} {step:45} FAILED: {why}"),
            }
        }
        let count = |wanted: fn(&Result<Row, String>) -> bool| results.iter().filter(|result| wanted(result)).count();
        println!(
            "{} (role, step) pairs: in {} nothing lost, never two, never nobody; {} failed; {} did not come to their step; \
             longest time without a server {} ms ({}); {} s",
            results.len(),
            count(Result::is_ok),
            count(Result::is_err),
            count(|result| result.as_ref().is_ok_and(|row| !row.struck)),
            longest.0.as_millis(),
            longest.1,
            took.as_secs()
        );
    }
}

fn cases(scenario: &'static Scenario, blow: Blow) -> Vec<Case> {
    let trace: Arc<str> = trace(scenario).into();
    let steps = scenario.own_steps(&trace, blow);
    let end = |step: &str| scenario.end(&steps, step).filter(|_| blow == Blow::Kill);
    let case = |step: &String| Case { scenario, step: step.clone(), blow, end: end(step), trace: Arc::clone(&trace) };
    steps.iter().map(case).collect()
}

/// Some steps depend on who is faster: such a case is run again, a few times, until it comes to its step. Every run must
/// end as it must.
fn until_struck(case: &Case) -> Row {
    let row = (1..ATTEMPTS).map(|_| run(case)).find(|row| row.struck).unwrap_or_else(|| run(case));
    assert!(row.struck || !case.scenario.must_have(&case.step), "it never came to its step");
    row
}

/// What a panic said.
fn words(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

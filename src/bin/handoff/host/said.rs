//! What is said of events: in the log, and to those who wait.

use handoff::HandoffOutcome;
use handoff::service::Event;
use serde_json::{Value, json};

use super::{Host, Purpose};
use crate::text;

impl Host {
    pub(super) fn on_event(&mut self, name: &str, event: Event) {
        self.seen.on_event(name, &event);
        match event {
            Event::Output { bytes, dropped } => self.echo(name, &bytes, dropped),
            Event::Log(text) => self.output.say("log", name, &text, json!({})),
            Event::Started { pid, generation } => {
                let text = format!("process {pid} runs (generation {generation})");
                self.output.say("started", name, &text, json!({ "pid": pid, "generation": generation }));
            }
            Event::Ready { pid } => {
                self.output.note("ready", name, &format!("process {pid} is ready"), json!({ "pid": pid }));
            }
            Event::Adopted { pid, generation } => {
                let text = format!("process {pid} serves already (generation {generation}): adopted");
                self.output.say("adopted", name, &text, json!({ "pid": pid, "generation": generation }));
            }
            Event::Adopting(phase, text) => self.output.say("adopting", name, &text, json!({ "phase": phase })),
            Event::Listening(listener) => {
                let text = format!("{} is {}", listener.name, listener.address);
                let details = json!({ "name": listener.name, "address": listener.address });
                self.output.say("listening", name, &text, details);
            }
            Event::Warning(text) => self.output.say("warning", name, &text, json!({})),
            Event::Stopping(why) => self.output.say("stopping", name, &format!("stops: {why}"), json!({})),
            Event::Blocked(why) => self.output.say("blocked", name, &format!("blocked: {why}"), json!({})),
            Event::Unblocked => self.output.say("unblocked", name, "not blocked any more", json!({})),
            Event::Removed => self.output.say("removed", name, "it is gone", json!({})),
            // Of the only one its command says it, and ends.
            Event::Broken(text) => {
                if let Purpose::Units(_) = self.purpose {
                    self.output.say("failed", name, &text, json!({}));
                }
            }
            Event::Phase(phase, waits) => {
                let text = waits.as_ref().map_or(phase.to_owned(), |waits| format!("{phase}: {waits}"));
                self.output.note("phase", name, &text, json!({ "phase": phase }));
                self.tell(name, "phase", &json!({ "service": name, "phase": phase, "waits_for": waits }));
            }
            Event::Progress { done, total } => {
                self.tell(name, "progress", &json!({ "service": name, "done": done, "total": total }));
            }
            Event::Corrected(what, outcome) => drop(self.say_outcome(name, what, &outcome)),
            Event::Outcome(what, outcome) => {
                let outcome = self.say_outcome(name, what, &outcome);
                self.answer_outcome_of(name, &outcome);
            }
            Event::Restarting { text, after, cause, .. } => {
                let text = format!("{text}; starts again in {}", text::nanoseconds(after.as_nanos() as u64));
                let details = json!({ "after_ms": after.as_millis() as u64, "cause": cause.word() });
                self.output.say("restarting", name, &text, details);
            }
            Event::Ending { text } => self.output.say("ending", name, &text, json!({})),
            Event::ProbationFailed { text } => self.output.say("probation_failed", name, &text, json!({})),
            Event::Ended(ended) => {
                let status = ended.status;
                let details = json!({
                    "code": status.and_then(|status| status.code),
                    "signal": status.and_then(|status| status.signal),
                });
                let what = if ended.errno.is_some() { "" } else { "ended: " };
                self.output.say("ended", name, &format!("{what}{}", ended.text), details);
            }
        }
    }

    /// For the log; the same for those who wait.
    fn say_outcome(&self, name: &str, what: &str, outcome: &HandoffOutcome) -> Value {
        let outcome = json!(outcome);
        let text = format!("{what} {}", text::outcome_line(&outcome));
        self.output.say("outcome", name, &text, json!({ "what": what, "outcome": outcome }));
        outcome
    }
}

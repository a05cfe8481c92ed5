//! A service whose daemon is not adopted yet.

use std::io;
use std::time::Duration;

use super::event::Event;
use super::past::Past;
use super::settings::Settings;
use super::status::{ServiceStatus, mode_name};
use super::{Service, State};
use crate::error::Result;
use crate::limits::{DYING_LOOK, RESUME_TIMEOUT};
use crate::supervisor::{ADOPTING, ReadySign, Resumed, end_stragglers};
use crate::sys::clock::{monotonic_ns, nanoseconds};

/// How many are named where some were ended.
const STRAGGLERS_NAMED: usize = 10;

/// The wait for another supervisor's daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Adopting {
    /// Since when, in `CLOCK_MONOTONIC` nanoseconds.
    since_ns: u64,
    /// When to look again.
    pub(super) due_ns: u64,
    /// Why the service is to be stopped.
    pub(super) unwanted: Option<String>,
    /// What was said last: the phase, and for whom it waits.
    said: Option<(&'static str, String)>,
    /// What the service was under that supervisor.
    past: Option<Box<Past>>,
}

impl Adopting {
    pub(super) fn begin(past: Option<Past>) -> Self {
        let now_ns = monotonic_ns();
        Self { since_ns: now_ns, due_ns: now_ns, past: past.map(Box::new), ..Self::default() }
    }
}

impl Service {
    /// Looks how far it is. An operator who wants it stopped is heard after a second: sooner than that the daemon is rather
    /// adopted, since whoever wants it stopped needs a supervisor.
    pub(in crate::service) fn adopt(&mut self) -> Result<()> {
        let State::Adopting(mut adopting) = std::mem::replace(&mut self.state, State::New) else { return Ok(()) };
        self.supervisor.turn_resume()?;
        let waited = Duration::from_nanos(monotonic_ns().saturating_sub(adopting.since_ns));
        if waited < RESUME_TIMEOUT && self.supervisor.is_followed() {
            adopting.due_ns = monotonic_ns().saturating_add(nanoseconds(DYING_LOOK));
            self.state = State::Adopting(adopting);
            return Ok(());
        }
        let mut news = None;
        let step = self.supervisor.step_resume(waited, &mut |awaited| {
            news = Some((awaited.phase, format!("waits: {}", awaited.text)));
            adopting.unwanted.clone()
        })?;
        if let Some((phase, text)) = news.filter(|news| Some(news) != adopting.said.as_ref()) {
            adopting.said = Some((phase, text.clone()));
            self.events.push(Event::Adopting(phase, text));
        }
        match step {
            Resumed::Waits(time) => {
                adopting.due_ns = monotonic_ns().saturating_add(nanoseconds(time));
                self.state = State::Adopting(adopting);
            }
            Resumed::Done(outcome) => {
                self.hold()?;
                if self.supervisor.pid().is_some() {
                    self.supervisor.record();
                }
                adopting.past.iter().for_each(|past| self.remember(past));
                self.take_over(outcome.map(|outcome| *outcome));
                adopting.past.iter().for_each(|past| self.remember_start(past));
                if self.supervisor.pid().is_none() {
                    adopting.past.into_iter().for_each(|past| self.go_on_from(*past));
                }
                self.again = true;
                if let Some(why) = adopting.unwanted {
                    self.stop(&why);
                }
            }
        }
        Ok(())
    }

    /// Ends what processes of these have left that died while there was no supervisor.
    ///
    /// # Errors
    /// It is to be called again: not all could be looked at.
    pub(in crate::service) fn end_stragglers<'a>(services: impl Iterator<Item = &'a mut Self>) -> io::Result<()> {
        let mut services: Vec<&mut Self> = services.collect();
        let looked = end_stragglers(services.iter_mut().map(|service| &mut service.supervisor));
        for service in services {
            let ended = service.supervisor.take_ended();
            if !ended.is_empty() {
                service.note_stragglers(&ended);
            }
        }
        looked
    }

    fn note_stragglers(&mut self, ended: &[String]) {
        let (few, more) = ended.split_at(ended.len().min(STRAGGLERS_NAMED));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let text = format!(
            "ended what was left of a process that died without a supervisor: process {}{more}",
            few.join(", ")
        );
        self.events.push(Event::Warning(text));
        let left = if ended.len() == 1 { "1 process".to_owned() } else { format!("{} processes", ended.len()) };
        let was = if ended.len() == 1 { "was" } else { "were" };
        self.note_meanwhile(&format!("{left} that it had left {was} ended"));
    }

    /// Whether another supervisor's daemon is waited for.
    pub fn is_adopting(&self) -> bool {
        matches!(self.state, State::Adopting(_))
    }
}

impl Settings {
    /// What is known while another supervisor's daemon is waited for: who serves is not.
    pub(super) fn while_adopting(&self, adopting: &Adopting) -> ServiceStatus {
        let (phase, why) =
            adopting.said.clone().unwrap_or((ADOPTING, "looks for what another supervisor has left".to_owned()));
        ServiceStatus {
            state: "starting",
            want: "running",
            why,
            phase,
            program: self.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default(),
            mode: mode_name(self.mode),
            ready: self.readiness.as_ref().map(ReadySign::to_string),
            ..ServiceStatus::bare(&self.name)
        }
    }
}

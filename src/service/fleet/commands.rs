//! What operators ask for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;

use nix::sys::signal::Signal;

use super::{Fleet, Wish};
use crate::error::{Error, Result};
use crate::service::Preview;
use crate::service::config::Fault;
use crate::service::graph::{Standing, State};
use crate::service::unit::rollback::WayBack;
use crate::service::unit::settings::{Upgrade, WhenDraining};
use crate::supervisor::HandoffOutcome;

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Goal {
    /// It runs and is ready; or is done, if it is a oneshot.
    Up,
    /// No process of it lives.
    Down,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It is so.
    Yes,
    /// It may still come.
    NotYet,
    /// It will not, unless somebody acts: why, for people.
    No(String),
}

/// How a unit is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a handoff to the same program, of which an [`Event::Outcome`](crate::service::Event::Outcome) follows.
    Handoff,
    /// It is stopped, with all that require it, and they are started again.
    Stop,
}

/// Why a command did nothing.
#[derive(Clone, Debug)]
pub enum NotDone {
    /// There is no unit or target of this name.
    NoSuch(String),
    /// For people.
    Refused(String),
    /// What would be wrong.
    Faults(Vec<Fault>),
    /// Of an upgrade or a rollback.
    Outcome(Rc<HandoffOutcome>),
}

impl Fleet {
    /// The units of these names, and of these targets.
    ///
    /// # Errors
    /// [`NotDone::NoSuch`].
    pub fn resolve(&self, names: &[String]) -> std::result::Result<BTreeSet<String>, NotDone> {
        let mut found = BTreeSet::new();
        for name in names {
            match self.graph.target(name) {
                _ if self.members.contains_key(name) => drop(found.insert(name.clone())),
                Some(units) => found.extend(units.iter().filter(|name| self.members.contains_key(*name)).cloned()),
                None => return Err(NotDone::NoSuch(name.clone())),
            }
        }
        Ok(found)
    }

    /// These shall run, and whatever they need: also what an operator has stopped, or what has failed.
    pub fn start(&mut self, names: &BTreeSet<String>) {
        for name in self.graph.started_with(names.iter().map(String::as_str)) {
            let is_named = names.contains(&name);
            if is_named {
                self.memory.set_wish(&name, Some(Wish::Run));
            } else if self.memory.of(&name).wish == Some(Wish::Stop) {
                self.memory.set_wish(&name, None);
            }
            if let Some(member) = self.members.get_mut(&name) {
                match member.state() {
                    State::Failed => member.forgive(),
                    // A daemon that has ended well shall run again; a task that is done is done.
                    State::Completed if !member.unit.oneshot => member.forgive(),
                    // It does not wait any longer for its next attempt.
                    State::Starting if is_named => member.hurry("started by an operator"),
                    _ => {}
                }
            }
            self.note(&name);
        }
        self.act();
    }

    /// These shall not run; nor can those that require them.
    pub fn stop(&mut self, names: &BTreeSet<String>) {
        for name in names {
            self.memory.set_wish(name, Some(Wish::Stop));
            let service = self.members.get_mut(name).and_then(|member| member.service.as_mut());
            if let Some(service) = service.filter(|service| !service.stage().is_alive()) {
                service.stop("stopped by an operator");
            }
            self.note(name);
        }
        self.act();
    }

    /// Replaces the process of a unit by another one, as its configuration is now: by a handoff if it can, so that nobody notices; or else it is
    /// stopped, with all that require it, and they are started again. One that does not run is started.
    ///
    /// # Errors
    /// [`NotDone::Outcome`]: the handoff was refused at once.
    pub fn restart(&mut self, name: &str) -> std::result::Result<Way, NotDone> {
        let Some(member) = self.members.get_mut(name) else { return Err(NotDone::NoSuch(name.to_owned())) };
        if member.service.as_ref().is_some_and(|service| service.can_hand_over()) && !member.bounced {
            self.upgrade(name, Upgrade::default())?;
            return Ok(Way::Handoff);
        }
        member.bounced = true;
        self.start(&BTreeSet::from([name.to_owned()]));
        Ok(Way::Stop)
    }

    /// As [`Service::upgrade`](crate::service::Service::upgrade), with the unit's configuration of now.
    ///
    /// # Errors
    /// [`NotDone`]: it was refused at once; nothing was disturbed.
    pub fn upgrade(&mut self, name: &str, upgrade: Upgrade) -> std::result::Result<(), NotDone> {
        let refused = |error: Error| NotDone::Refused(error.to_string());
        let member = self.members.get_mut(name).ok_or_else(|| NotDone::NoSuch(name.to_owned()))?;
        let before = member.applied.clone();
        member.apply(name).map_err(refused)?;
        let service = member.check_service(name).map_err(refused)?;
        let begun = service.upgrade(upgrade).map_err(NotDone::Outcome);
        match begun {
            Ok(()) => member.note_upgrade(before),
            Err(_) => member.take_back(name, before).map_err(refused)?,
        }
        self.note(name);
        begun
    }

    /// As [`Service::preview`](crate::service::Service::preview), with the program that is configured now.
    pub fn preview(&mut self, name: &str, upgrade: &Upgrade) -> Preview {
        let refused = |error: Error| Preview { reasons: vec![error.to_string()], ..Preview::default() };
        let Some(member) = self.members.get_mut(name) else { return Preview::default() };
        let mut upgrade = upgrade.clone();
        if upgrade.binary.is_none() && member.stale().contains(&"exec") {
            match member.unit.settings(name) {
                Ok(settings) => upgrade.binary = settings.argv.first().map(PathBuf::from),
                Err(error) => return refused(error),
            }
        }
        match member.check_service(name) {
            Ok(service) => service.preview(&upgrade),
            Err(error) => refused(error),
        }
    }

    /// As [`Service::rollback`](crate::service::Service::rollback).
    ///
    /// # Errors
    /// As [`Self::upgrade`].
    pub fn rollback(&mut self, name: &str, when_draining: WhenDraining) -> std::result::Result<WayBack, NotDone> {
        let member = self.members.get_mut(name).ok_or_else(|| NotDone::NoSuch(name.to_owned()))?;
        let service = member.check_service(name).map_err(|error| NotDone::Refused(error.to_string()))?;
        let begun = service.rollback(when_draining).map_err(NotDone::Outcome);
        self.note(name);
        begun
    }

    /// As [`Service::give_up`](crate::service::Service::give_up).
    pub fn give_up(&mut self, name: &str, waiting: u64) {
        if let Some(service) = self.members.get_mut(name).and_then(|member| member.service.as_mut()) {
            service.give_up(waiting);
        }
    }

    /// Sends a signal to the main process of a unit, and to no other one; its pid.
    ///
    /// # Errors
    /// [`Error::State`]: none runs. [`Error::System`]: not permitted.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<i32> {
        let nothing = || Error::State(format!("{name} does not run: there is nothing to signal"));
        self.service(name).ok_or_else(nothing)?.signal(signal)?.ok_or_else(nothing)
    }

    pub(super) fn act(&mut self) {
        self.reconsider();
        self.save();
        self.settle();
        self.save();
    }

    /// How far a unit is from what a command wants.
    pub fn reached(&self, name: &str, goal: Goal) -> Reached {
        let Some(member) = self.members.get(name) else {
            return match goal {
                Goal::Down => Reached::Yes,
                Goal::Up => Reached::No("it is no more in the configuration".to_owned()),
            };
        };
        let state = member.state();
        match goal {
            // The last word counts: who has said another one before waits for nothing any more.
            Goal::Down if state.is_alive() && !member.removed && self.ending.is_none() && !self.is_stopped(name) => {
                Reached::No("it was started again meanwhile by an operator".to_owned())
            }
            Goal::Down if state.is_alive() || self.is_preparing() => Reached::NotYet,
            Goal::Down => self.left_of(name).map_or(Reached::Yes, |left| Reached::No(left.to_string())),
            Goal::Up if member.bounced || self.unsettled => Reached::NotYet,
            Goal::Up => match (state, &member.standing) {
                (State::Started | State::Healthy, _) => Reached::Yes,
                (State::Completed, _) if member.unit.oneshot => Reached::Yes,
                (State::Completed, _) => Reached::No("it has ended with status 0".to_owned()),
                (State::Failed, _) => Reached::No(self.why_failed(name)),
                (State::Starting, _) if member.is_waiting() => {
                    Reached::No(format!("{}; it is started again by itself", self.why_failed(name)))
                }
                (State::Down, Some(Standing::Blocked(..))) => Reached::No(self.why_not_started(name)),
                (State::Down, None) => Reached::No("it is to be stopped".to_owned()),
                (State::Down, Some(Standing::Waits(..))) => {
                    self.failing_below(name).map_or(Reached::NotYet, |on| Reached::No(self.why_it_waits(on)))
                }
                _ => Reached::NotYet,
            },
        }
    }
}

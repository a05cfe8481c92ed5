//! What starts and what stops now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::slice::Slice;
use super::{Ending, Fleet, Member, Wish};
use crate::limits::SHUTDOWN_LOOK;
use crate::service::graph::{Graph, Standing, State};
use crate::service::unit::event::Event;
use crate::sys::clock::{monotonic_ns, nanoseconds};

const TIME_IS_OVER: &str = "the time for the shutdown is over; killed";

/// Why a unit is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Because {
    /// An operator has started it.
    Operator,
    /// It is started with the supervisor.
    Autostart,
    /// This one needs it.
    Dependent(String),
}

impl Because {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Operator => "an operator".to_owned(),
            Self::Autostart => "autostart".to_owned(),
            Self::Dependent(name) => name.clone(),
        }
    }
}

/// Why a unit starts that could have done so before.
const STARTED_LATER: &str = "started by autostart: nothing keeps it from that any more";

impl Fleet {
    /// Everything that follows from what is and what is wanted; what would take too long for one turn stays unsettled.
    pub(super) fn settle(&mut self) {
        let is_news = self.unsettled;
        while std::mem::take(&mut self.unsettled) {
            if !self.prepare_some(Slice::begin()) {
                return self.unsettled = true;
            }
            // With a thousand units that takes longer than to start one.
            if std::mem::take(&mut self.outdated) || self.startable.is_empty() {
                let stoppable = self.find_out();
                self.save(); // who returns is known before anybody is told to stop
                if !self.stop_some(stoppable, Slice::begin()) {
                    return self.reconsider();
                }
            }
            if !self.start_some(Slice::begin()) {
                return self.unsettled = true;
            }
        }
        if is_news && self.ending.is_none() {
            self.tell_blocked();
        }
    }

    /// Something that could start, or had to stay, may not any more.
    pub(super) fn reconsider(&mut self) {
        (self.unsettled, self.outdated) = (true, true);
    }

    /// Who may start now, and who is to be told to stop, and why.
    fn find_out(&mut self) -> Vec<(String, String)> {
        if self.forget_removed() {
            self.prepare_freed();
        }
        self.end_bounces();
        let mut because = self.wanted();
        let wanted: BTreeSet<String> = because.keys().cloned().collect();
        let mut states = self.states();
        let leaving = self.leaving(&wanted, &states);
        let stoppable = self.graph.stoppable(&leaving, &states);
        // Who is to be stopped, and still runs because of others, is nobody to start beside.
        for (name, state) in states.iter_mut().filter(|(_, state)| state.is_alive()) {
            if leaving.contains(name) {
                *state = State::Stopping;
            }
        }
        let returning = self.returning(&wanted, &states, &leaving);
        let mut standing = self.graph.standing(&wanted, &states, &returning);
        self.someone_waits = !standing.is_empty();
        self.startable.clear();
        for (name, member) in &mut self.members {
            member.standing = standing.remove(name);
            if member.standing == Some(Standing::Now)
                && let Some(because) = because.remove(name)
            {
                self.startable.push_back((name.clone(), because));
            }
        }
        let why = |name: String| (name.clone(), self.why_stopped(&name, &wanted));
        stoppable.into_iter().map(why).collect()
    }

    /// Who is blocked now and was not, and who was and is not.
    fn tell_blocked(&mut self) {
        let why = |name: &String, member: &Member| match member.standing {
            Some(Standing::Blocked(..)) => Some(self.why_not_started(name)),
            _ => None,
        };
        let all = self.members.iter().map(|(name, member)| (name, why(name, member), &member.blocked));
        let news: Vec<_> =
            all.filter(|(_, now, told)| now != *told).map(|(name, now, _)| (name.clone(), now)).collect();
        for (name, now) in news {
            if let Some(member) = self.members.get_mut(&name) {
                member.blocked.clone_from(&now);
            }
            self.events.push((name, now.map_or(Event::Unblocked, Event::Blocked)));
        }
    }

    pub(super) fn states(&self) -> BTreeMap<String, State> {
        self.members.iter().map(|(name, member)| (name.clone(), member.state())).collect()
    }

    /// All that shall run, and why: an operator's word, the configuration's, or because another one needs it. Whom an operator has
    /// stopped is not wanted, whoever needs it.
    pub(super) fn wanted(&self) -> BTreeMap<String, Because> {
        let mut wanted = BTreeMap::new();
        if self.ending.is_some() {
            return wanted;
        }
        let is_here = |name: &str| self.members.get(name).is_some_and(|member| !member.removed);
        for (name, member) in &self.members {
            if let Some(because) = self.own_reason(name, member) {
                wanted.insert(name.clone(), because);
            }
        }
        let mut queue: Vec<String> = wanted.keys().cloned().collect();
        while let Some(name) = queue.pop() {
            for needed in self.graph.needs(&name) {
                if is_here(needed) && !self.is_stopped(needed) && !wanted.contains_key(needed) {
                    wanted.insert(needed.to_owned(), Because::Dependent(name.clone()));
                    queue.push(needed.to_owned());
                }
            }
        }
        wanted
    }

    /// The same of one unit, without those that need it.
    fn own_reason(&self, name: &str, member: &Member) -> Option<Because> {
        match self.memory.of(name).wish {
            _ if member.removed || self.ending.is_some() => None,
            Some(Wish::Run) => Some(Because::Operator),
            None if member.unit.autostart => Some(Because::Autostart),
            _ => None,
        }
    }

    /// Why one unit is wanted. That another one needs it is known when all are looked at.
    pub(super) fn why_wanted(&self, name: &str) -> Option<Because> {
        let own = self.members.get(name).and_then(|member| self.own_reason(name, member));
        own.or_else(|| self.wanted().remove(name))
    }

    /// Who is not wanted, or is to be started again, with all that can not run without them.
    fn leaving(&self, wanted: &BTreeSet<String>, states: &BTreeMap<String, State>) -> BTreeSet<String> {
        let alive = |name: &str| states.get(name).is_some_and(|state| state.is_alive());
        if self.ending.is_some() {
            return self.members.keys().filter(|name| alive(name)).cloned().collect();
        }
        // Whom an operator has stopped takes along all that require it also if it had ended before.
        let goes = |(name, member): &(&String, &Member)| {
            self.is_stopped(name) || alive(name) && (member.bounced || !wanted.contains(*name))
        };
        let roots: Vec<&str> = self.members.iter().filter(goes).map(|(name, _)| name.as_str()).collect();
        self.graph.stopped_with(&roots, states)
    }

    /// Who stops now, or has, only to be started again.
    fn returning(
        &mut self,
        wanted: &BTreeSet<String>,
        states: &BTreeMap<String, State>,
        leaving: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        for (name, member) in &self.members {
            let did = self.memory.of(name).returning;
            if !did && !leaving.contains(name) {
                continue;
            }
            let state = states.get(name).copied().unwrap_or(State::Down);
            let is_down = state == State::Down && !matches!(member.standing, Some(Standing::Blocked(..)));
            let returns = leaving.contains(name) && state.is_alive() || did && is_down;
            self.memory.set_returning(name, returns && wanted.contains(name));
        }
        self.memory.returning()
    }

    fn end_bounces(&mut self) {
        for member in self.members.values_mut().filter(|member| member.bounced && !member.state().is_alive()) {
            member.bounced = false;
            member.forgive();
        }
    }

    /// Units that are no more in the configuration stay until they have stopped, in the order of before; whether one is gone now.
    pub(super) fn forget_removed(&mut self) -> bool {
        let gone = |(name, member): (&String, &Member)| {
            let has_left = member.service.as_ref().is_some_and(|service| service.left_behind().is_some());
            (member.removed && !member.state().is_alive() && !has_left).then(|| name.clone())
        };
        let gone: Vec<String> = self.members.iter().filter_map(gone).collect();
        for name in &gone {
            let Some(mut member) = self.members.remove(name) else { continue };
            let owns_files = member.owns_files();
            if let Some(service) = member.service.take() {
                let _ = self.epoll.delete(&*service);
                let heirs = self.members.values().filter(|member| !member.removed);
                service.leave_sockets(heirs.flat_map(|member| &member.unit.listen));
            }
            self.memory.forget(name);
            if owns_files {
                self.remove_kept(name);
            }
            self.events.push((name.clone(), Event::Removed));
        }
        if !gone.is_empty() {
            self.rebuild_graph();
        }
        !gone.is_empty()
    }

    /// Binds the sockets of those who have waited for the end of one that had them.
    fn prepare_freed(&mut self) {
        let waits = |(_, member): &(&String, &Member)| member.service.is_none() && member.trouble.is_none();
        let names: Vec<String> = self.members.iter().filter(waits).map(|(name, _)| name.clone()).collect();
        for name in names.iter().filter(|name| self.removed_rival(name).is_none()).cloned().collect::<Vec<_>>() {
            self.prepare(&name);
        }
    }

    /// Says whether there was time for all of them.
    fn stop_some(&mut self, stoppable: Vec<(String, String)>, slice: Slice) -> bool {
        for (name, why) in stoppable {
            self.stop_one(&name, &why);
            if slice.is_over() {
                return false;
            }
        }
        true
    }

    fn stop_one(&mut self, name: &str, why: &str) {
        let Some(member) = self.members.get_mut(name) else { return };
        let Some(service) = &mut *member.service else { return };
        if !service.is_adopting() {
            self.events.push((name.to_owned(), Event::Stopping(why.to_owned())));
        }
        service.stop(why);
        self.note(name);
    }

    fn why_stopped(&self, name: &str, wanted: &BTreeSet<String>) -> String {
        let member = self.members.get(name);
        match &self.ending {
            Some(ending) => ending.why.clone(),
            None if member.is_some_and(|member| member.bounced) => "restarted by an operator".to_owned(),
            None if member.is_some_and(|member| member.removed) => "it is no more in the configuration".to_owned(),
            None if self.memory.of(name).wish == Some(Wish::Stop) => "stopped by an operator".to_owned(),
            None if !wanted.contains(name) => "nobody needs it any more".to_owned(),
            None => "something that it requires is stopped".to_owned(),
        }
    }

    /// Says whether all were started that may start now.
    fn start_some(&mut self, slice: Slice) -> bool {
        let is_any_removed = self.members.values().any(|member| member.removed);
        while let Some((name, because)) = self.startable.pop_front() {
            let rival = is_any_removed.then(|| self.removed_rival(&name)).flatten();
            if let Some(member) = self.members.get_mut(&name) {
                member.standing = rival.clone().map(|rival| Standing::Waits(rival, None));
            }
            if rival.is_none() {
                self.start_one(&name, &because);
            }
            if slice.is_over() {
                break;
            }
        }
        self.startable.is_empty()
    }

    /// What ran beside this one when a reload said that they conflict is in its way once it has ended.
    pub(super) fn give_way(&mut self, name: &str) {
        if self.rivals_alive(&self.graph, name).next().is_some()
            && let Some(service) = self.members.get_mut(name).and_then(|member| member.service.as_mut())
        {
            service.give_way();
        }
    }

    /// Who is there, of those beside whom it must not run.
    pub(super) fn rivals_alive<'a>(&'a self, graph: &'a Graph, name: &str) -> impl Iterator<Item = &'a str> {
        let is_alive = |name: &&str| self.members.get(*name).is_some_and(|member| member.state().is_alive());
        graph.rivals(name).filter(is_alive)
    }

    /// One that is no more in the configuration, still runs, and has what this one needs.
    pub(super) fn removed_rival(&self, name: &str) -> Option<String> {
        let member = self.members.get(name)?;
        let rival = |(_, other): &(&String, &Member)| other.removed && member.rivals(other);
        self.members.iter().find(rival).map(|(name, _)| name.clone())
    }

    fn start_one(&mut self, name: &str, because: &Because) {
        self.prepare(name);
        let Some(member) = self.members.get_mut(name) else { return };
        if member.state() != State::Down {
            return self.note(name);
        }
        if let Err(error) = member.apply(name) {
            return self.break_down(name, error.to_string());
        }
        let why = match because {
            Because::Dependent(other) => format!("started because {other} needs it"),
            Because::Autostart if member.came_later => STARTED_LATER.to_owned(),
            Because::Autostart => "started with the supervisor".to_owned(),
            Because::Operator => "started by an operator".to_owned(),
        };
        member.came_later = true;
        if let Some(service) = &mut *member.service {
            service.start(&why);
        }
        self.note(name);
    }

    // ---- the end

    /// Stops all services, dependents first; nothing is started any more. Whatever is left after
    /// [`Self::shutdown_timeout`] is killed. Who asks again with `insist` does not want to wait: what is being stopped is killed now.
    pub fn shut_down(&mut self, why: &str, insist: bool) {
        if self.ending.is_some() && insist {
            self.members
                .values_mut()
                .filter_map(|member| member.service.as_mut())
                .for_each(|service| service.stop_now());
        }
        let until_ns = monotonic_ns().saturating_add(nanoseconds(self.shutdown_timeout));
        self.ending.get_or_insert_with(|| Ending { why: why.to_owned(), until_ns });
        self.reconsider();
        self.settle();
    }

    /// How long all services may take together to stop.
    pub fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout
    }

    /// Instead of [`SHUTDOWN_TIMEOUT`](crate::limits::SHUTDOWN_TIMEOUT).
    pub fn set_shutdown_timeout(&mut self, timeout: Duration) {
        self.shutdown_timeout = timeout;
    }

    /// The time of a shutdown is over.
    pub(super) fn hasten(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        if monotonic_ns() < ending.until_ns {
            return;
        }
        // What is still there then is looked at again.
        ending.until_ns = monotonic_ns().saturating_add(nanoseconds(SHUTDOWN_LOOK));
        for (name, member) in &mut self.members {
            if let Some(service) = member.service.as_mut().filter(|service| service.stage().is_alive()) {
                service.stop(TIME_IS_OVER);
                service.stop_now();
                self.events.push((name.clone(), Event::Stopping(TIME_IS_OVER.to_owned())));
            }
        }
        self.reconsider();
    }

    /// Whether all is to be stopped.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether no process of a service may live any more.
    pub fn is_down(&self) -> bool {
        !self.is_preparing() && !self.members.values().any(|member| member.state().is_alive())
    }

    /// After the end: what it remembers has no meaning for the next one.
    pub fn forget(&mut self) {
        let owned = self.members.iter().filter(|(_, member)| member.owns_files());
        owned.for_each(|(name, _)| self.remove_kept(name));
        self.memory.remove();
    }
}

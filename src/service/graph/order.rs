//! The order of starts and stops.

use std::collections::{BTreeMap, BTreeSet};

use super::{Edge, Graph, Kind};
use crate::service::config::Condition;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum State {
    /// Nothing of it runs, and nothing has gone wrong.
    Down,
    /// It is being started, or waits for its next attempt.
    Starting,
    /// It runs and is ready.
    Started,
    /// So, and its health is good.
    Healthy,
    /// It is being stopped.
    Stopping,
    /// It has ended with status 0, for good.
    Completed,
    /// It has ended otherwise, or could not be started, for good.
    Failed,
}

impl State {
    /// Whether a process of it may live.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Started | Self::Healthy | Self::Stopping)
    }

    /// Whether everything that could start before can start now, too.
    pub(in crate::service) fn comes_up_from(self, before: Self) -> bool {
        let steps = [Self::Down, Self::Starting, Self::Started, Self::Healthy];
        let step = |state: Self| steps.iter().position(|step| *step == state);
        step(self).zip(step(before)).is_some_and(|(now, before)| now > before)
    }

    fn meets(self, condition: Condition) -> bool {
        match condition {
            Condition::Started => matches!(self, Self::Started | Self::Healthy),
            Condition::Healthy => self == Self::Healthy,
            Condition::Completed => self == Self::Completed,
        }
    }
}

/// Whether a unit that is down, and shall run, may start.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Standing {
    /// At once, together with all others of which that is said.
    Now,
    /// As soon as this unit is so; none: as it is gone.
    Waits(String, Option<Condition>),
    /// Not before somebody acts. The way to the cause: each unit requires the next one, and why is true of the last.
    Blocked(Vec<String>, Why),
}

/// Why nothing comes of waiting for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Why {
    /// It has failed.
    Failed,
    /// It has ended with status 0, and should go on.
    Ended,
    /// It shall not run.
    Unwanted,
    /// It runs, or starts first, and the two can not run side by side.
    Conflicts,
}

/// What runs and what shall: a unit that is not named is down.
struct Scene<'a> {
    wanted: &'a BTreeSet<String>,
    returning: &'a BTreeSet<String>,
    states: &'a BTreeMap<String, State>,
}

impl Scene<'_> {
    fn state(&self, name: &str) -> State {
        self.states.get(name).copied().unwrap_or(State::Down)
    }

    /// Whether anything is still to come of a unit by itself.
    fn is_coming(&self, name: &str, told: &BTreeMap<String, Standing>) -> bool {
        match self.state(name) {
            State::Starting | State::Started => true,
            State::Stopping => self.wanted.contains(name),
            State::Down => !matches!(told.get(name), None | Some(Standing::Blocked(..))),
            State::Healthy | State::Completed | State::Failed => false,
        }
    }

    /// Whether one that is down starts first, of two that conflict. Of one that returns, and is not looked at yet, that is supposed.
    fn goes_before(&self, name: &str, told: &BTreeMap<String, Standing>) -> bool {
        match told.get(name) {
            Some(Standing::Now) => true,
            Some(Standing::Waits(..)) | None => self.returning.contains(name),
            Some(Standing::Blocked(..)) => false,
        }
    }
}

impl Graph {
    /// Of each unit that is wanted and down: whether it may start. Those that are `returning` ran until now, and are only down to be started
    /// again: they give way to nobody for that, unless they can not start.
    pub fn standing(
        &self,
        wanted: &BTreeSet<String>,
        states: &BTreeMap<String, State>,
        returning: &BTreeSet<String>,
    ) -> BTreeMap<String, Standing> {
        let mut returning: BTreeSet<String> = returning & wanted;
        loop {
            let told = self.stand_all(&Scene { wanted, returning: &returning, states });
            let before = returning.len();
            returning.retain(|name| !matches!(told.get(name), Some(Standing::Blocked(..))));
            if returning.len() == before {
                return told;
            }
        }
    }

    fn stand_all(&self, scene: &Scene<'_>) -> BTreeMap<String, Standing> {
        let mut told = BTreeMap::new();
        for name in self.in_order() {
            if scene.wanted.contains(name) && scene.state(name) == State::Down {
                let standing = self.stand(name, scene, &told);
                told.insert(name.to_owned(), standing);
            }
        }
        told
    }

    /// `told` has everything that is before `name`.
    fn stand(&self, name: &str, scene: &Scene<'_>, told: &BTreeMap<String, Standing>) -> Standing {
        let Some(node) = self.nodes.get(name) else { return Standing::Now };
        let mut waits = None;
        for edge in node.edges.iter().filter(|edge| !scene.state(&edge.unit).meets(edge.condition)) {
            if scene.is_coming(&edge.unit, told) {
                waits = waits.or_else(|| Some(Standing::Waits(edge.unit.clone(), Some(edge.condition))));
            } else if edge.kind == Kind::Requires {
                return blocked_by(edge, scene, told);
            }
        }
        // Before all that it waits for: nothing comes of that.
        for other in &node.conflicts {
            match scene.state(other) {
                State::Stopping => waits = waits.or_else(|| Some(Standing::Waits(other.clone(), None))),
                state if state.is_alive() => return Standing::Blocked(vec![other.clone()], Why::Conflicts),
                State::Down if scene.goes_before(other, told) => {
                    return Standing::Blocked(vec![other.clone()], Why::Conflicts);
                }
                _ => {}
            }
        }
        waits.unwrap_or(Standing::Now)
    }

    /// Every unit after all that it depends on.
    fn in_order(&self) -> Vec<&str> {
        let mut left: BTreeMap<&str, usize> = BTreeMap::new();
        let mut after: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, node) in &self.nodes {
            left.insert(name, node.edges.len());
            for edge in &node.edges {
                after.entry(&edge.unit).or_default().push(name);
            }
        }
        let mut order: Vec<&str> = left.iter().filter(|(_, edges)| **edges == 0).map(|(name, _)| *name).collect();
        let mut next = 0;
        while let Some(name) = order.get(next).copied() {
            next += 1;
            for name in after.remove(name).unwrap_or_default() {
                if let Some(edges) = left.get_mut(name) {
                    *edges -= 1;
                    if *edges == 0 {
                        order.push(name);
                    }
                }
            }
        }
        order
    }

    /// Which of the units that are to be stopped may be told so now: nobody lives who depends on them, of those that are to be
    /// stopped, too. What is being stopped already is not named again.
    pub fn stoppable(&self, leaving: &BTreeSet<String>, states: &BTreeMap<String, State>) -> Vec<String> {
        let state = |name: &str| states.get(name).copied().unwrap_or(State::Down);
        let edges = |name: &str| self.nodes.get(name).map(|node| &node.edges[..]).unwrap_or_default().iter();
        // Also by way of units that have ended: who is behind them must be gone first, too.
        let mut held = BTreeSet::new();
        let mut queue: Vec<&str> = leaving.iter().map(String::as_str).filter(|name| state(name).is_alive()).collect();
        while let Some(name) = queue.pop() {
            let new = edges(name).map(|edge| edge.unit.as_str()).filter(|on| held.insert(*on));
            queue.extend(new.filter(|on| !state(on).is_alive()));
        }
        let may =
            |name: &&String| state(name).is_alive() && state(name) != State::Stopping && !held.contains(name.as_str());
        leaving.iter().filter(may).cloned().collect()
    }
}

/// Nothing is to come of a unit that is required.
fn blocked_by(edge: &Edge, scene: &Scene<'_>, told: &BTreeMap<String, Standing>) -> Standing {
    let why = match (scene.state(&edge.unit), told.get(&edge.unit)) {
        // A conflict is with the unit that can not start, and not with those that require it.
        (State::Down, Some(Standing::Blocked(way, why))) => {
            let way = std::iter::once(&edge.unit).chain(way).cloned().collect();
            return Standing::Blocked(way, *why);
        }
        (State::Failed, _) => Why::Failed,
        (State::Completed | State::Healthy, _) => Why::Ended,
        (State::Down | State::Starting | State::Started | State::Stopping, _) => Why::Unwanted,
    };
    Standing::Blocked(vec![edge.unit.clone()], why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_way_up_leaves_what_could_start_as_it_is() {
        let up = [State::Down, State::Starting, State::Started, State::Healthy];
        for (at, before) in up.into_iter().enumerate() {
            for (now_at, now) in up.into_iter().enumerate() {
                assert_eq!(now.comes_up_from(before), now_at > at, "from {before:?} to {now:?}");
            }
        }
        let others = [State::Stopping, State::Completed, State::Failed];
        for (other, state) in others.into_iter().flat_map(|other| up.map(|state| (other, state))) {
            assert!(!other.comes_up_from(state) && !state.comes_up_from(other), "{other:?} and {state:?}");
        }
    }
}

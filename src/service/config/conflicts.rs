//! Units that can not run side by side, although they would have to.

use std::collections::BTreeSet;

use super::across::All;
use super::fault::shown;

/// One unit says that it can not run beside another.
#[derive(Clone, Copy, Debug)]
struct Conflict {
    /// Who says so, and in which element of its list.
    of: usize,
    element: usize,
    with: usize,
}

impl All {
    pub(super) fn check_conflicts(&mut self) {
        let conflicts = self.conflicts();
        if conflicts.is_empty() {
            return;
        }
        let requirers = self.requirers();
        for conflict in conflicts {
            if conflict.of == conflict.with {
                let text = "the unit can not conflict with itself; leave it out".to_owned();
                self.fault(
                    conflict.of,
                    self.place(conflict.of, "conflicts", conflict.element),
                    Some("conflicts"),
                    text,
                );
                continue;
            }
            // Who can not run without the one, and without the other.
            let (need_of, need_with) = (reach(&requirers, conflict.of), reach(&requirers, conflict.with));
            if !need_of[conflict.with] && !need_with[conflict.of] {
                self.check_start(conflict);
            }
            for at in self.named().into_iter().filter(|at| need_of[*at] && need_with[*at]) {
                self.check_required(at, conflict, &need_of, &need_with);
            }
        }
    }

    fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for of in self.named() {
            for (_, element, name) in self.references(of).into_iter().filter(|(key, ..)| *key == "conflicts") {
                let with = self.units_of(name).into_iter();
                conflicts.extend(with.map(|with| Conflict { of, element, with }));
            }
        }
        conflicts
    }

    /// Both are started automatically.
    fn check_start(&mut self, conflict: Conflict) {
        let Conflict { of, element, with } = conflict;
        let starts = |at: usize| self.unit(at).is_some_and(|unit| unit.autostart);
        if !starts(of) || !starts(with) {
            return;
        }
        let (who, place, other) = match self.gives_way(of, with) {
            true => (of, self.place(of, "conflicts", element), with),
            false => (with, self.definitions[with].place.clone(), of),
        };
        let name = shown(&self.definitions[other].name);
        let text =
            format!("'{name}' conflicts, and both are started automatically; add autostart = false to one of them");
        self.fault(who, place, (who == of).then_some("conflicts"), text);
    }

    /// A unit can not run without both. If one that it requires has the same trouble, it is told there.
    fn check_required(&mut self, at: usize, conflict: Conflict, need_of: &[bool], need_with: &[bool]) {
        let references = self.references(at).into_iter().filter(|(key, ..)| *key == "requires");
        let direct: Vec<(usize, usize)> = references
            .flat_map(|(_, element, name)| self.units_of(name).into_iter().map(move |unit| (element, unit)))
            .collect();
        if self.unit(at).is_none() || direct.iter().any(|(_, unit)| need_of[*unit] && need_with[*unit]) {
            return;
        }
        let name = |at: usize| shown(&self.definitions[at].name);
        let (of, with) = (name(conflict.of), name(conflict.with));
        if conflict.of == at {
            let text = format!("'{with}' is required as well; leave out one of the two");
            self.fault(at, self.place(at, "conflicts", conflict.element), Some("conflicts"), text);
        } else {
            let element = direct.iter().find(|(_, unit)| need_of[*unit]).map_or(0, |(element, _)| *element);
            let text =
                format!("'{of}' conflicts with '{with}', which would have to run, too; leave out one of the two");
            self.fault(at, self.place(at, "requires", element), Some("requires"), text);
        }
    }

    /// The unit of this name, or those of the target.
    fn units_of(&self, name: &str) -> BTreeSet<usize> {
        let mut found: BTreeSet<usize> = self.by_name.get(name).copied().into_iter().collect();
        let mut queue: Vec<usize> = found.iter().copied().collect();
        while let Some(at) = queue.pop() {
            for (_, _, name) in self.references(at).into_iter().filter(|(key, ..)| *key == "units") {
                queue.extend(self.by_name.get(name).copied().filter(|next| found.insert(*next)));
            }
        }
        found.into_iter().filter(|at| self.unit(*at).is_some()).collect()
    }
}

/// All nodes that edges lead to, and the one where they begin.
fn reach(edges: &[Vec<usize>], from: usize) -> Vec<bool> {
    let mut found = vec![false; edges.len()];
    found[from] = true;
    let mut queue = vec![from];
    while let Some(at) = queue.pop() {
        for next in edges[at].iter().copied() {
            if !std::mem::replace(&mut found[next], true) {
                queue.push(next);
            }
        }
    }
    found
}

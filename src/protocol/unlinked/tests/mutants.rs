//! Each rule taken back must be missed: something that must not be is found.

use super::*;

/// A rule that is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mutant {
    /// O is told to stop when N starts, and not when N is ready.
    StopsAtStart,
    /// N is in the books when it starts, and not when it is ready.
    BooksAtStart,
    /// O is told to stop before N is in the books.
    StopsBeforeBooks,
    /// "Committed" is said before N is in the books.
    CommittedBeforeBooks,
    /// N is given up for a cancel also when O is dead.
    CancelsTheLast,
    /// N is given up, but not told to stop.
    GivenUpLivesOn,
    /// "Rolled back" is said although O is dead.
    RolledBackToTheDead,
    /// The next S takes an N for ready that was only there.
    NextPromotes,
    /// The next S leaves N beside O.
    NextForgets,
    /// The next S gives up an N that is alone.
    NextEndsTheLast,
}

impl Mutant {
    /// Before anything happens.
    pub(super) fn begin(self, world: &mut World) {
        match self {
            Self::StopsAtStart => world.todo.push_back(Action::Stop(Side::Incumbent)),
            Self::BooksAtStart => world.books = Books::Successor,
            _ => {}
        }
    }

    /// What the machine gets instead.
    pub(super) fn input(self, input: Input) -> Input {
        match (self, input) {
            (Self::CancelsTheLast, Input::Cancel(why)) => Input::End(why),
            (_, input) => input,
        }
    }

    /// What the driver gets instead.
    pub(super) fn actions(self, mut actions: Vec<Action>) -> Vec<Action> {
        let stop_old = Action::Stop(Side::Incumbent);
        let committed = matches!(actions.last(), Some(Action::Report(Verdict::Committed, _)));
        match self {
            Self::StopsAtStart => actions.retain(|action| *action != stop_old),
            Self::StopsBeforeBooks if actions.contains(&stop_old) => {
                actions.retain(|action| *action != stop_old);
                actions.insert(0, stop_old);
            }
            Self::CommittedBeforeBooks if committed => actions.rotate_right(1),
            Self::GivenUpLivesOn => actions.retain(|action| *action != Action::Stop(Side::Successor)),
            Self::RolledBackToTheDead => {
                for action in &mut actions {
                    if let Action::Report(verdict @ Verdict::Failed, _) = action {
                        *verdict = Verdict::RolledBack;
                    }
                }
            }
            _ => {}
        }
        actions
    }

    /// What the next S does instead.
    pub(super) fn resume(self, incumbent_lives: bool, successor_lives: bool) -> Vec<Action> {
        let mut actions = Unlinked::resume(incumbent_lives, successor_lives);
        match (self, incumbent_lives, successor_lives) {
            (Self::NextPromotes, true, true) => Unlinked::new().step(Input::Ready),
            (Self::NextForgets, true, true) => {
                actions.retain(|action| *action != Action::Stop(Side::Successor));
                actions
            }
            (Self::NextEndsTheLast, false, true) => {
                vec![Action::Stop(Side::Successor), Action::Report(Verdict::Failed, String::new())]
            }
            _ => actions,
        }
    }
}

#[test]
fn each_rule_is_needed() {
    let expected = [
        (Mutant::StopsAtStart, NOBODY),
        (Mutant::BooksAtStart, ROLLED_BACK_TO_NOBODY),
        (Mutant::StopsBeforeBooks, MISNAMED),
        (Mutant::CommittedBeforeBooks, NOT_IN_BOOKS),
        (Mutant::CancelsTheLast, NOBODY),
        (Mutant::GivenUpLivesOn, TWO_LEFT),
        (Mutant::RolledBackToTheDead, ROLLED_BACK_TO_NOBODY),
        (Mutant::NextPromotes, NOT_READY),
        (Mutant::NextForgets, TWO_LEFT),
        (Mutant::NextEndsTheLast, NOBODY),
    ];
    for (mutant, expected) in expected {
        let (_, found) = explore(Some(mutant));
        assert!(found.contains_key(expected), "{mutant:?}: {found:?}");
    }
}

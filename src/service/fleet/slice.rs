//! How much is done at once.

use std::collections::BTreeSet;

use crate::limits::TURN_SLICE;
use crate::sys::clock::{monotonic_ns, nanoseconds};

/// A part of a turn: whoever has more to do than fits goes on in the next one, so that commands are heard in between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    end_ns: u64,
}

impl Slice {
    /// Begins now, when it is known what there is to do: whatever that took, something is done.
    pub(super) fn begin() -> Self {
        Self { end_ns: monotonic_ns().saturating_add(nanoseconds(TURN_SLICE)) }
    }

    pub(super) fn is_over(self) -> bool {
        monotonic_ns() >= self.end_ns
    }
}

/// All of these names, those behind the last one that had his turn first: who comes late in the alphabet does not starve.
pub(super) fn in_turn<'a>(ready: &'a BTreeSet<String>, last: &str) -> impl Iterator<Item = &'a String> {
    let (before, after): (Vec<_>, Vec<_>) = ready.iter().partition(|name| name.as_str() <= last);
    after.into_iter().chain(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_starves() {
        let ready: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
        for (last, order) in [("", "abc"), ("a", "bca"), ("bb", "cab"), ("c", "abc"), ("d", "abc")] {
            let found: String = in_turn(&ready, last).map(String::as_str).collect();
            assert_eq!(found, order, "after {last:?}");
        }
    }
}

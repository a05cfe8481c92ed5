//! The service of a unit, with when it is due. Of a thousand services only those are asked that somebody has had in hand since: to ask them all
//! takes longer than what most turns have to do.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use crate::service::Service;

/// A service, or none. Far from the rest of its unit, so that it is cheap to look at all units.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Timed {
    service: Option<Box<Service>>,
    /// None: that is to be asked.
    #[serde(skip)]
    due_ns: Cell<Option<Due>>,
}

/// In `CLOCK_MONOTONIC` nanoseconds; none: when its descriptor is readable.
type Due = Option<u64>;

impl Timed {
    /// [`Service::due_ns`].
    pub(super) fn due_ns(&self) -> Due {
        let due_ns = self.due_ns.get().unwrap_or_else(|| self.service.as_ref().and_then(|service| service.due_ns()));
        self.due_ns.set(Some(due_ns));
        due_ns
    }

    /// Something has changed that it has in common with others.
    pub(super) fn ask_again(&self) {
        self.due_ns.set(None);
    }
}

impl Deref for Timed {
    type Target = Option<Box<Service>>;

    fn deref(&self) -> &Self::Target {
        &self.service
    }
}

impl DerefMut for Timed {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.ask_again();
        &mut self.service
    }
}

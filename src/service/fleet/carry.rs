//! A fleet that goes on in another program of this process. It is saved by serde, and read as a copy that does nothing; with
//! [`Fleet::go_on`] it becomes the one.

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Fleet, WATCH};
use crate::error::{Error, Result};
use crate::service::Service;

impl Fleet {
    /// Why it can not go on in another program now, for people, and whether that passes soon. None: it can.
    pub fn transaction(&self) -> Option<(String, bool)> {
        let of = |(name, member): (&String, &super::Member)| {
            let (what, passes) = member.service.as_deref().and_then(Service::transaction)?;
            Some((format!("{name}: {what}"), passes))
        };
        self.members.iter().find_map(of)
    }

    /// Whether [`Fleet::turn`] has something to tell or to do at once: what is not told would be lost.
    pub fn has_news(&self) -> bool {
        let of = |member: &super::Member| member.service.as_deref().is_some_and(Service::has_news);
        self.unsettled || !self.events.is_empty() || self.members.values().any(of)
    }

    /// It was read, and is the one from now on: watches what it has.
    ///
    /// # Errors
    /// [`Error::System`]: that is not possible.
    pub fn go_on(&mut self) -> Result<()> {
        self.rebuild_graph();
        self.someone_waits = self.members.values().any(|member| member.standing.is_some());
        let watched = self.epoll.add(&self.watch, EpollEvent::new(EpollFlags::EPOLLIN, WATCH));
        watched.map_err(|errno| Error::system("cannot watch the output of services")(errno.into()))?;
        for member in self.members.values_mut() {
            member.service.as_mut().map_or(Ok(()), |service| service.watch_again(&self.watch))?;
        }
        let names: Vec<String> = self.members.keys().cloned().collect();
        names.iter().try_for_each(|name| self.watch(name))
    }
}

//! The sockets of a service.

use super::Service;
use super::event::Event;
use super::status::ListenerStatus;
use crate::error::Result;
use crate::service::address::{ListenSpec, check_all};
use crate::service::given;
use std::os::fd::BorrowedFd;

impl Service {
    /// Its listeners as our manager keeps them: by a name that no other service has, the sockets of a group together.
    pub fn listeners(&self) -> impl Iterator<Item = (String, Vec<BorrowedFd<'_>>)> {
        self.listeners.iter().map(|listener| {
            let own = self.supervisor.listeners().filter(|(name, _)| *name == listener.name);
            (given::name_of(&self.settings.name, &listener.name), own.map(|(_, fd)| fd).collect())
        })
    }

    /// It is gone: those of its sockets that another service wants wait for that one, with the connections in their queues.
    pub(in crate::service) fn leave_sockets<'a>(self, wanted: impl Iterator<Item = &'a ListenSpec>) {
        let wanted: Vec<_> = wanted.map(|spec| &spec.address).filter(|address| !address.is_any()).collect();
        for spec in self.listen.iter().filter(|spec| wanted.contains(&&spec.address)) {
            let name = given::name_of(&self.settings.name, &spec.name);
            let fds = self.held(&spec.name).into_iter().filter_map(|fd| fd.try_clone_to_owned().ok());
            given::keep(fds.map(|fd| (name.clone(), fd)).collect());
        }
    }

    /// Has the listeners that are wanted: those of the daemon that was adopted, and new ones.
    pub(super) fn hold(&mut self) -> Result<()> {
        let serves = self.supervisor.pid().is_some();
        let mut named = Vec::new();
        for spec in self.listen.clone() {
            let mut held = spec.check_all_held(&self.held(&spec.name));
            if held.is_err() && !serves {
                // Those that leave may keep it.
                self.supervisor.remove_listener(&spec.name);
                held = Ok(None);
            }
            let address = match held? {
                Some(address) => address,
                None => self.bind(&spec)?,
            };
            named.push(ListenerStatus { name: spec.name.clone(), address, sockets: spec.sockets });
        }
        let unwanted = |(name, _): (&str, _)| (!named.iter().any(|one| one.name == name)).then(|| name.to_owned());
        let unwanted: Vec<String> = self.supervisor.listeners().filter_map(unwanted).collect();
        unwanted.iter().for_each(|name| self.supervisor.remove_listener(name));
        let news = named.iter().filter(|one| !self.listeners.contains(one));
        self.events.extend(news.cloned().map(Event::Listening));
        self.listeners = named;
        Ok(())
    }

    fn held(&self, name: &str) -> Vec<BorrowedFd<'_>> {
        self.supervisor.listeners().filter(|(held, _)| *held == name).map(|(_, fd)| fd).collect()
    }

    fn bind(&mut self, spec: &ListenSpec) -> Result<String> {
        let bound = given::take(&self.settings.name, spec).map_or_else(|| spec.bind_all(), Ok)?;
        let address = bound.first().map_or_else(String::new, |listener| listener.address.clone());
        let fds = bound.into_iter().map(|listener| listener.fd).collect();
        self.supervisor.add_listener_group(&spec.name, fds)?;
        self.events.extend(spec.backlog_warning().map(Event::Warning));
        Ok(address)
    }

    /// Has these from the next process on. The one that serves keeps what it has.
    ///
    /// # Errors
    /// Those of a bind(2); then some of the old ones are gone, and another call makes it good.
    pub(super) fn listen_to(&mut self, listen: &[ListenSpec]) -> Result<()> {
        check_all(listen)?;
        for spec in listen.iter().filter(|spec| !self.listen.contains(spec)) {
            self.supervisor.remove_listener(&spec.name);
        }
        self.listen = listen.to_vec();
        self.hold()
    }
}

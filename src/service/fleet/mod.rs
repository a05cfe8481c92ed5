//! Many services: what is, what is wanted, and why. Nothing here waits.
//!
//! A [`Fleet`] asks the pure [`Graph`] in each turn what may start and what may be stopped now, and does it. A program polls its
//! descriptor, and calls [`Fleet::turn`] when it is readable, and at [`Fleet::due_ns`].

mod added;
mod carry;
mod commands;
mod kept;
mod left;
mod lost;
mod member;
mod memory;
mod order;
mod reload;
mod slice;
mod timed;
mod why;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

pub use commands::{Goal, NotDone, Reached, Way};
pub use left::Left;
pub use lost::Lost;
pub use reload::Change;
pub use why::{Branch, Link};

use self::kept::{Kept, Unkept};
use self::member::Member;
use self::memory::{Memory, Wish};
use self::order::Because;
use self::slice::{Slice, in_turn};
use super::address::ListenSpec;
use super::config::{Config, Fault, Unit};
use super::graph::{Graph, State};
use super::instance::{left_alone, was_unit_of};
use super::log::Log;
use super::paths::RuntimeDir;
use super::unit::Service;
use super::unit::event::Event;
use super::unit::settings::Settings;
use super::words::DESCRIPTORS_ADVICE;
use crate::error::{Error, Result};
use crate::limits::{SHUTDOWN_TIMEOUT, STATE_RETRY};
use crate::supervisor::OutputWatch;
use crate::sys::clock::{monotonic_ns, nanoseconds};
use crate::sys::listing::Listing;

/// Services that one turn looks at, beside those that are due; the rest is ready in the next.
const READY_MAX: usize = 256;

/// What watches output, in the epoll.
const WATCH: u64 = 0;

/// Many services.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Fleet {
    /// Of the supervisor.
    name: String,
    runtime: RuntimeDir,
    config: Config,
    /// What the files say alone, if others were added to that.
    #[serde(default)]
    of_files: Option<Config>,
    #[serde(skip)]
    graph: Graph,
    members: BTreeMap<String, Member>,
    #[serde(with = "crate::sys::inherit::epoll")]
    epoll: Epoll,
    /// Of the output of all.
    #[serde(with = "crate::supervisor::output_watch_anew")]
    watch: OutputWatch,
    next_key: u64,
    memory: Memory,
    #[serde(skip)] // it is written anew
    unkept: Unkept,
    shutdown_timeout: Duration,
    ending: Option<Ending>,
    /// What is to be done before anything is started.
    #[serde(skip)]
    preparation: Preparation,
    /// What is in the runtime directory, for all of those.
    #[serde(skip)]
    listing: Option<Arc<Listing>>,
    /// Who had his turn last.
    #[serde(skip)]
    last_turned: String,
    /// Something has changed, so that others may have to start or to stop.
    unsettled: bool,
    /// Who is next to start, and why, as it was found out last.
    #[serde(skip)]
    startable: VecDeque<(String, Because)>,
    /// It, or who can not start yet, was somebody.
    #[serde(skip)]
    someone_waits: bool,
    /// That is not true any more.
    #[serde(skip)]
    outdated: bool,
    #[serde(skip)]
    events: Vec<(String, Event)>,
    /// What was left under a supervisor before could not be looked for: when to try again, in `CLOCK_MONOTONIC` nanoseconds.
    #[serde(default)]
    blind_ns: Option<u64>,
}

/// Before anything is started. What the dead have left may have the sockets, so that is ended between the two.
#[derive(Debug, Default)]
enum Preparation {
    /// What another supervisor has left of these units is to be looked for.
    Seeks(VecDeque<String>),
    /// The daemons of these are to be taken over, or their sockets to be bound.
    Binds(VecDeque<String>),
    /// All is done.
    #[default]
    Over,
}

/// All services are to be stopped.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Ending {
    why: String,
    /// When whatever is left is killed, in `CLOCK_MONOTONIC` nanoseconds.
    until_ns: u64,
}

impl Fleet {
    /// The units of a configuration, whose files are in `runtime`, which exists. In the first turns their sockets are bound, and daemons that
    /// another supervisor of this name has left are taken over; nothing is started before that. What a unit can not have is
    /// its own failure.
    ///
    /// # Errors
    /// [`Error::System`]: no epoll instance.
    pub fn new(name: &str, runtime: RuntimeDir, config: Config) -> Result<Self> {
        let memory = Memory::read(runtime.state(name));
        let mut fleet = Self::empty(name, runtime, memory)?;
        fleet.set_config(config);
        fleet.graph = Graph::of(&fleet.config);
        for (name, unit) in fleet.config.units.clone() {
            fleet.add(&name, unit);
        }
        fleet.preparation = Preparation::Seeks(fleet.members.keys().cloned().collect());
        Ok(fleet)
    }

    /// Says whether all are prepared; the rest is in the next turns.
    fn prepare_some(&mut self, slice: Slice) -> bool {
        while self.is_preparing() && !slice.is_over() {
            match &mut self.preparation {
                Preparation::Seeks(names) => match names.pop_front() {
                    Some(name) => {
                        // Or each of a thousand would look through the files of all.
                        self.listing.get_or_insert_with(|| Arc::new(Listing::beginning_with(self.runtime.path(), b"")));
                        self.seek(&name);
                    }
                    None => {
                        self.listing = None;
                        self.find_strays();
                        self.end_stragglers();
                        self.preparation = Preparation::Binds(self.members.keys().cloned().collect());
                    }
                },
                Preparation::Binds(names) => match names.pop_front() {
                    Some(name) => self.turn_one(&name),
                    None => self.preparation = Preparation::Over,
                },
                Preparation::Over => {}
            }
        }
        !self.is_preparing()
    }

    /// Whether sockets are still to be bound, and daemons to be found.
    pub fn is_preparing(&self) -> bool {
        !matches!(self.preparation, Preparation::Over)
    }

    /// Units that a supervisor before has had, and that are no more in the configuration, are taken over to be stopped; unless something is at fault:
    /// then they may be meant to be there.
    fn find_strays(&mut self) {
        let is_unknown = |name: &String| !self.members.contains_key(name);
        let mut strays: BTreeSet<String> = self.memory.alive().into_iter().filter(is_unknown).collect();
        // Of what was started last no state may tell. A journal does, and was there before.
        let journals = self.runtime.journals().unwrap_or_default().into_iter().filter(is_unknown);
        strays.extend(journals.filter(|name| was_unit_of(&self.runtime, name, &self.name)));
        for name in strays {
            if !self.config.faults.is_empty() {
                if let Some((pid, command)) = left_alone(&self.runtime, &name) {
                    let text = format!(
                        "process {pid} ({command}) runs without a supervisor, since its unit is at fault, or is no more in the configuration"
                    );
                    self.events.push((name, Event::Warning(text)));
                }
                continue;
            }
            // Also one that has died meanwhile: it may have left something.
            self.add(&name, Unit::default());
            if let Some(member) = self.members.get_mut(&name) {
                member.removed = true;
            }
            self.seek(&name);
        }
        self.rebuild_graph();
    }

    /// The same for one service alone, without a configuration. Nothing is remembered of it.
    ///
    /// # Errors
    /// Those of a bind(2), and [`Error::Locked`]: its daemon runs already, and can not be adopted.
    pub fn of_one(runtime: RuntimeDir, settings: Settings, listen: &[ListenSpec]) -> Result<Self> {
        let name = settings.name.clone();
        let mut fleet = Self::empty(&name, runtime.clone(), Memory::default())?;
        fleet.config.units.insert(name.clone(), Unit::default());
        fleet.graph = Graph::of(&fleet.config);
        fleet.add(&name, Unit::default());
        fleet.memory.set_wish(&name, Some(Wish::Run));
        fleet.install(&name, Service::new(settings, runtime, listen, &fleet.watch, None, None)?)?;
        fleet.end_stragglers();
        fleet.members.values_mut().filter_map(|member| member.service.as_deref_mut()).try_for_each(Service::adopt)?;
        Ok(fleet)
    }

    fn empty(name: &str, runtime: RuntimeDir, memory: Memory) -> Result<Self> {
        let failed = |errno: Errno| Error::system("cannot make an epoll for the services")(errno.into());
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let watch = OutputWatch::new()?;
        epoll.add(&watch, EpollEvent::new(EpollFlags::EPOLLIN, WATCH)).map_err(failed)?;
        Ok(Self {
            name: name.to_owned(),
            runtime,
            config: Config::default(),
            of_files: None,
            graph: Graph::default(),
            members: BTreeMap::new(),
            epoll,
            watch,
            next_key: WATCH + 1,
            memory,
            unkept: Unkept::default(),
            shutdown_timeout: SHUTDOWN_TIMEOUT,
            ending: None,
            preparation: Preparation::Over,
            listing: None,
            last_turned: String::new(),
            unsettled: true,
            startable: VecDeque::new(),
            someone_waits: false,
            outdated: false,
            events: Vec::new(),
            blind_ns: None,
        })
    }

    fn add(&mut self, name: &str, unit: Unit) {
        let member = Member::new(unit, self.next_key);
        self.next_key += 1;
        self.members.insert(name.to_owned(), member);
    }

    /// A unit that comes later: ends what it has left under another supervisor, and binds its sockets.
    fn prepare(&mut self, name: &str) {
        // Or it is for each of a thousand that all are looked through.
        if self.members.get(name).is_some_and(|member| member.service.is_none()) {
            self.seek(name);
            self.end_stragglers();
            self.turn_one(name);
        }
    }

    /// What processes of a supervisor before have left, which ended while there was none.
    fn end_stragglers(&mut self) {
        let services = self.members.values_mut().filter_map(|member| member.service.as_deref_mut());
        let is_first = self.blind_ns.is_none();
        self.blind_ns = None;
        if let Err(error) = Service::end_stragglers(services) {
            self.blind_ns = Some(monotonic_ns().saturating_add(nanoseconds(STATE_RETRY)));
            if is_first {
                let text = format!(
                    "what processes have left that died without a supervisor can not be looked for: {error}; \
                     their units wait for it; {DESCRIPTORS_ADVICE}"
                );
                self.events.push((self.name.clone(), Event::Warning(text)));
            }
        }
    }

    /// Looks what another supervisor has left of a unit; what goes wrong is its own failure.
    fn seek(&mut self, name: &str) {
        let kept = self.memory.is_written().then(|| Kept::read(&self.runtime.unit(name))).flatten();
        let Some(member) = self.members.get_mut(name).filter(|member| member.service.is_none()) else { return };
        member.kept = kept;
        let listing = self.listing.as_ref();
        let made = member.prepare(name, &self.runtime, &self.watch, &self.name, listing);
        let made = made.and_then(|()| self.watch(name));
        if let Err(error) = made {
            return self.break_down(name, error.to_string());
        }
        // The supervisor before did not live to see the end of its restart.
        let is_returning = self.memory.of(name).returning;
        if let Some(member) = self.members.get_mut(name).filter(|member| is_returning && !member.removed) {
            member.bounced = member.state().is_alive();
        }
        self.note(name);
    }

    fn install(&mut self, name: &str, service: Service) -> Result<()> {
        if let Some(member) = self.members.get_mut(name) {
            *member.service = Some(Box::new(service));
        }
        self.watch(name)
    }

    fn watch(&self, name: &str) -> Result<()> {
        let Some((member, fd)) = self.members.get(name).and_then(|member| Some((member, member.fd()?))) else {
            return Ok(());
        };
        let watched = self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, member.key));
        watched.map_err(|errno| Error::system("cannot watch the service")(errno.into()))
    }

    /// It can not be what it should be until an operator acts.
    fn break_down(&mut self, name: &str, why: String) {
        let Some(member) = self.members.get_mut(name) else { return };
        member.trouble = Some(why.clone());
        self.events.push((name.to_owned(), Event::Broken(why)));
        self.note(name);
    }

    /// Its supervisor has failed.
    fn lose(&mut self, name: &str, why: String) {
        if let Some(member) = self.members.get_mut(name) {
            if let Some(fd) = member.fd() {
                let _ = self.epoll.delete(fd);
            }
            *member.service = None;
        }
        self.break_down(name, why);
    }

    /// Others may have to act on what it is now.
    fn note(&mut self, name: &str) {
        self.keep(name);
        let Some(member) = self.members.get_mut(name) else { return };
        let state = member.state();
        if state == member.seen {
            return;
        }
        if member.seen == State::Down && !member.bounced {
            self.memory.set_returning(name, false);
        }
        // Who only comes up keeps nobody from starting, and lets only those start who wait.
        let comes_up = state.comes_up_from(member.seen);
        member.seen = state;
        self.outdated |= !comes_up;
        self.unsettled |= !comes_up || self.someone_waits;
        self.memory.set_alive(name, state.is_alive());
    }

    /// Deals with what happened, without waiting: the events of each service, in their order. What would take long is left for the next
    /// turn, for which there is a reason at once.
    ///
    /// # Errors
    /// [`Error::System`]: it can not poll.
    pub fn turn(&mut self) -> Result<Vec<(String, Event)>> {
        let ready = self.ready()?;
        let slice = Slice::begin();
        for name in in_turn(&ready, &self.last_turned.clone()) {
            self.turn_one(name);
            if slice.is_over() {
                self.last_turned.clone_from(name);
                break;
            }
        }
        self.hasten();
        if self.blind_ns.is_some_and(|due_ns| monotonic_ns() >= due_ns) {
            self.end_stragglers();
        }
        self.save();
        self.settle();
        self.save();
        Ok(std::mem::take(&mut self.events))
    }

    /// Whose descriptor is readable, and who is due.
    fn ready(&mut self) -> Result<BTreeSet<String>> {
        let mut events = [EpollEvent::empty(); READY_MAX];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::system("epoll_wait")(errno.into())),
        };
        let keys: BTreeSet<u64> = events[..count].iter().map(EpollEvent::data).collect();
        if keys.contains(&WATCH) {
            self.watch.drain();
            self.members.values().for_each(|member| member.service.ask_again()); // whose it is are due now
        }
        let now_ns = monotonic_ns();
        let is_due = |member: &Member| {
            keys.contains(&member.key) || member.service.due_ns().is_some_and(|due_ns| due_ns <= now_ns)
        };
        Ok(self.members.iter().filter(|(_, member)| is_due(member)).map(|(name, _)| name.clone()).collect())
    }

    fn turn_one(&mut self, name: &str) {
        let Some(member) = self.members.get_mut(name) else { return };
        let Some(service) = &mut *member.service else { return };
        let was_adopting = service.is_adopting();
        let events = match service.turn() {
            Ok(events) => events,
            Err(error) => return self.lose(name, error.to_string()),
        };
        if was_adopting && !service.is_adopting() {
            member.forgive_what_may_be_mended();
        }
        for event in &events {
            match event {
                Event::Started { .. } => member.note_process(),
                Event::Adopted { generation, .. } => member.note_adopted(*generation),
                _ => {}
            }
        }
        for event in &events {
            if let Event::Outcome(_, outcome) | Event::Corrected(_, outcome) = event
                && let Err(error) = member.note_outcome(name, outcome.verdict)
            {
                self.events.push((name.to_owned(), Event::Warning(error.to_string())));
            }
        }
        self.events.extend(events.into_iter().map(|event| (name.to_owned(), event)));
        self.give_way(name);
        self.note(name);
    }

    fn save(&mut self) {
        let now_ns = monotonic_ns();
        self.keep_again(now_ns);
        if let Some(text) = self.memory.save(now_ns) {
            self.events.push((self.name.clone(), Event::Warning(text)));
        }
    }

    /// When [`Self::turn`] must be called at the latest, in absolute `CLOCK_MONOTONIC` nanoseconds; none: when the descriptor is readable.
    pub fn due_ns(&self) -> Option<u64> {
        if self.unsettled || !self.events.is_empty() {
            return Some(0);
        }
        let services = self.members.values().filter_map(|member| member.service.due_ns());
        let own = self.ending.as_ref().map(|ending| ending.until_ns).into_iter().chain(self.memory.due_ns());
        services.chain(own).chain(self.unkept.due_ns()).chain(self.blind_ns).min()
    }

    /// The names of the units, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// What is wrong with its configuration.
    pub fn faults(&self) -> &[Fault] {
        &self.config.faults
    }

    /// Where its files are.
    pub fn runtime(&self) -> &RuntimeDir {
        &self.runtime
    }

    /// The service of a unit, if it could be made.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.members.get(name)?.service.as_deref()
    }

    /// What the processes of each unit have written.
    pub fn logs_mut(&mut self) -> impl Iterator<Item = (&str, &mut Log)> {
        self.members.iter_mut().filter_map(|(name, member)| Some((name.as_str(), member.service.as_mut()?.log_mut())))
    }

    /// Why a unit has no service.
    pub fn trouble(&self, name: &str) -> Option<&str> {
        self.members.get(name)?.trouble.as_deref()
    }
}

impl AsFd for Fleet {
    /// Readable when [`Fleet::turn`] has work.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

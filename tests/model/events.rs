//! What can happen next.

use crate::config::Mutant;
use crate::daemon::{Machine, Timer, Work};
use crate::world::{Pid, World};
use handoff::protocol::{incumbent, successor, supervisor};

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// S carries out an action.
    Supervise,
    /// S reads a message of this daemon.
    Hear(Pid),
    /// S sees the end of this daemon's session.
    Gone(Pid),
    /// S sees that this daemon is dead.
    Died(Pid),
    /// S looks at the page: O will never serve again.
    Retired,
    /// S looks at the page: N serves.
    PageServing,
    /// A timer of S fires.
    Fire(supervisor::Timer),
    /// S is asked for a handoff.
    Start,
    /// Nobody is left: S is asked for a cold start.
    StartCold,
    /// S does not want the handoff any more.
    Cancel,
    /// An N on probation is no good.
    Condemn,
    /// S kills a retired O that does not exit.
    Evict(Pid),
    /// S is started again, and goes on where the last one stopped.
    Restart,
    /// The same, but its journal is lost.
    RestartBlank,
    /// S connects to the control path, where this daemon listens.
    Connect(Pid),
    /// A daemon reads Adopt.
    Admit(Pid),
    /// A cold start gives up: the gate is held.
    GiveUp(Pid),
    /// A daemon carries out an action.
    Act(Pid),
    /// A daemon reads a message of S.
    Read(Pid),
    /// O reads N's Serving on the transfer socket.
    ReadTransfer(Pid),
    /// A daemon sees the end of its session.
    End(Pid),
    /// A daemon sees that the other one is dead.
    PeerDied(Pid),
    /// A timer of a daemon fires.
    Ring(Pid, Timer),
    /// A daemon's application has done what it does.
    Done(Pid),
    /// It could not do it.
    DoneBadly(Pid),
    /// N's application opens less than was sealed.
    DoneOld(Pid),
    /// Something of what O sends does not come through.
    LoseTransfer(Pid),
    /// The owner's thread does what only it may do.
    Task(Pid),
    /// O is asked to stop.
    Stop(Pid),
    /// The deadline of a handoff passes.
    Late(u8),
    /// A client sees a write acknowledged.
    Write(Pid),
    CrashService,
    Crash(Pid),
    FreezeService,
    Freeze(Pid),
    Cut(Pid),
    /// Another program takes the data.
    Grab,
}

impl Event {
    /// Whether the end of everything may come without it.
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::CrashService
                | Self::Crash(_)
                | Self::FreezeService
                | Self::Freeze(_)
                | Self::Cut(_)
                | Self::Grab
                | Self::Write(_)
                | Self::Cancel
                | Self::Condemn
                | Self::Restart
                | Self::RestartBlank
                | Self::Stop(_)
                | Self::LoseTransfer(_)
        )
    }
}

impl World {
    pub fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        if self.broken().is_some() {
            return all;
        }
        self.service_events(&mut all);
        for i in self.pids() {
            self.daemon_events(i, &mut all);
        }
        let late = |page: &u8| !self.page(*page).late && self.waits_for_deadline(*page);
        all.extend((0..self.pages.len() as u8).filter(late).map(Event::Late));
        self.fault_events(&mut all);
        all
    }

    fn waits_for_deadline(&self, page: u8) -> bool {
        let deadline = supervisor::Timer::Deadline;
        let service = &self.service;
        let cold = service.machine.phase() == supervisor::Phase::ColdStarting;
        service.runs() && !cold && service.page == Some(page) && service.timers.contains(&deadline)
            || self.pids().map(|i| self.see(i)).any(|daemon| {
                let armed = |timer| daemon.timers.contains(&timer);
                let any = armed(Timer::Incumbent(incumbent::Timer::Deadline))
                    || armed(Timer::Successor(successor::Timer::Deadline));
                daemon.runs() && daemon.page == Some(page) && any
            })
    }

    fn service_events(&self, all: &mut Vec<Event>) {
        let service = &self.service;
        if !service.runs() {
            return;
        }
        if !service.todo.is_empty() {
            return all.push(Event::Supervise);
        }
        all.extend(self.pids().filter(|i| self.see(*i).is_leaving && self.see(*i).alive).map(Event::Evict));
        let mut heard = true;
        for i in [service.incumbent, service.successor, service.parked].into_iter().flatten() {
            let daemon = self.see(i);
            if !daemon.outbox.is_empty() {
                heard = false;
                all.push(Event::Hear(i));
                continue;
            }
            if !daemon.connected && !daemon.gone_told && !daemon.death_told {
                all.push(Event::Gone(i));
            }
            if !daemon.alive && !daemon.death_told {
                heard = false;
                all.push(Event::Died(i));
            }
        }
        if let Some(page) = service.page.map(|page| self.page(page)) {
            let phase = service.machine.phase();
            use supervisor::Phase;
            let may_revert = self.config.overlap && phase == Phase::Reverting;
            if page.retired && (matches!(phase, Phase::Retiring | Phase::Confirming) || may_revert) {
                all.push(Event::Retired);
            }
            let lost = service.successor.is_some_and(|i| !self.see(i).connected);
            if page.serving && phase == supervisor::Phase::AwaitServing && lost {
                all.push(Event::PageServing);
            }
        }
        if heard {
            all.extend(service.timers.iter().filter(|timer| self.may_fire(**timer)).map(|timer| Event::Fire(*timer)));
        }
        self.adoption_events(all);
        self.request_events(heard, all);
    }

    fn request_events(&self, heard: bool, all: &mut Vec<Event>) {
        let service = &self.service;
        let idle = service.machine.phase() == supervisor::Phase::Idle;
        if idle && heard {
            if service.incumbent.is_none_or(|i| self.see(i).death_told) {
                all.push(Event::StartCold);
            } else if self.asked < self.config.handoffs
                && service.machine.incumbent_is_linked()
                && service.machine.incumbent_serves()
            {
                all.push(Event::Start);
            }
        }
        if !idle && self.requests > 0 {
            all.push(Event::Cancel);
        }
        if self.verdicts > 0 && service.machine.phase() == supervisor::Phase::Probation {
            all.push(Event::Condemn);
        }
    }

    /// Whether a timer of S may fire: at any time, if that can change anything.
    fn may_fire(&self, timer: supervisor::Timer) -> bool {
        use supervisor::{Peer, Phase, Timer};
        let service = &self.service;
        let page = service.page.map(|page| self.page(page));
        match timer {
            Timer::Deadline if service.machine.phase() == Phase::ColdStarting => true,
            Timer::Deadline => page.is_some_and(|page| page.late),
            // What `Serving` does, and then every ten seconds again, with a word that is decided.
            Timer::Liveness(Peer::Successor) if service.machine.phase() == Phase::AwaitServing => false,
            // The timer of the peer that is waited for does the same.
            Timer::Drain | Timer::Ready => false,
            _ => true,
        }
    }

    fn daemon_events(&self, i: Pid, all: &mut Vec<Event>) {
        let daemon = self.see(i);
        if !daemon.runs() {
            return;
        }
        if !daemon.todo.is_empty() {
            return all.push(Event::Act(i));
        }
        if daemon.task.is_some() {
            all.push(Event::Task(i));
        }
        self.work_events(i, all);
        if self.config.bad_applications && daemon.awaits_begin() {
            all.push(Event::LoseTransfer(i));
        }
        if daemon.transfer {
            all.push(Event::ReadTransfer(i));
        }
        if daemon.asking.front().is_some_and(|asking| asking.adopt) {
            all.push(Event::Admit(i)); // whatever is unread
        }
        if !daemon.inbox.is_empty() {
            return all.push(Event::Read(i)); // before the end of the session, a death and any timer
        }
        if !daemon.connected && !daemon.end_told {
            return all.push(Event::End(i));
        }
        if daemon.transfer {
            return;
        }
        if self.finds_lock_free(i) {
            all.push(Event::PeerDied(i));
        }
        if daemon.peer.is_some_and(|peer| !daemon.peer_death_told && !self.see(peer).alive) {
            return all.push(Event::PeerDied(i));
        }
        let late = daemon.page.is_some_and(|page| self.page(page).late);
        let may_ring = |timer: &&Timer| match timer {
            Timer::Incumbent(incumbent::Timer::Deadline) | Timer::Successor(successor::Timer::Deadline) => late,
            // One that fails changes nothing.
            Timer::Incumbent(incumbent::Timer::Lock) => self.can_lock(i),
            _ => true,
        };
        all.extend(daemon.timers.iter().filter(may_ring).map(|timer| Event::Ring(i, *timer)));
    }

    fn work_events(&self, i: Pid, all: &mut Vec<Event>) {
        let daemon = self.see(i);
        let bad = self.config.bad_applications;
        match &daemon.work {
            None => {}
            Some(Work::Cold) if !self.can_lock(i) => {}
            Some(Work::Open) => {
                all.push(Event::Done(i));
                if bad {
                    all.push(Event::DoneBadly(i));
                }
                // After a crash of O nobody knows what it should have been.
                if bad && self.disk > 0 && daemon.knows_revisions {
                    all.push(Event::DoneOld(i));
                }
            }
            Some(Work::Hook(incumbent::Hook::Drain | incumbent::Hook::Seal | incumbent::Hook::Leave)) if bad => {
                all.extend([Event::Done(i), Event::DoneBadly(i)]);
            }
            Some(_) => all.push(Event::Done(i)),
        }
    }

    fn fault_events(&self, all: &mut Vec<Event>) {
        let service = &self.service;
        if service.alive && self.crashes > 0 {
            all.push(Event::CrashService);
        }
        if !service.alive && self.restarts > 0 {
            all.push(Event::Restart);
            if self.config.wipes {
                all.push(Event::RestartBlank);
            }
        }
        if service.runs() && self.freezes > 0 {
            all.push(Event::FreezeService);
        }
        for i in self.pids() {
            let daemon = self.see(i);
            if !daemon.alive {
                continue;
            }
            if self.crashes > 0 {
                all.push(Event::Crash(i));
            }
            if self.freezes > 0 && !self.config.freeze_service_only && !daemon.frozen {
                all.push(Event::Freeze(i));
            }
            if self.cuts > 0 && (daemon.connected || daemon.is_asked()) && service.alive {
                all.push(Event::Cut(i));
            }
            if self.disk < self.config.writes && daemon.serves && daemon.has_data && daemon.runs() {
                all.push(Event::Write(i));
            }
            let in_handoff = matches!(&daemon.machine, Machine::Incumbent(machine) if machine.handoff().is_some());
            if self.requests > 0 && in_handoff && daemon.runs() && daemon.todo.is_empty() {
                all.push(Event::Stop(i));
            }
        }
        if self.config.stranger && self.lock.is_none() && (self.gate == 0 || self.config.is(Mutant::NoGate)) {
            all.push(Event::Grab);
        }
    }
}

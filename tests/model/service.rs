//! The driver of S.

use crate::adopt::Journal;
use crate::config::{BASE, Mutant};
use crate::events::Event;
use crate::fingerprint::Fingerprint;
use crate::world::{Page, Pid, World};
use handoff::protocol::message::{HelloAck, Message};
use handoff::protocol::supervisor::{Action, Input, Peer, Phase, Sender, Supervisor, Timer, Verdict};
use handoff::protocol::{Decide, Decision};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Service {
    pub machine: Supervisor,
    pub alive: bool,
    pub frozen: bool,
    pub timers: Vec<Timer>,
    pub todo: VecDeque<Step>,
    pub answers: VecDeque<Input>,
    pub incumbent: Option<Pid>,
    pub successor: Option<Pid>,
    /// O in a probation.
    pub parked: Option<Pid>,
    pub page: Option<u8>,
    /// The page of the newest handoff.
    pub last_page: Option<u8>,
    /// The journal says that a handoff is open.
    pub journal: bool,
    /// It wants a session with its incumbent, and tries.
    pub adopting: bool,
    /// It takes over what another one has left.
    pub resuming: bool,
    /// Its incumbent was adopted in the midst of a handoff that it knows nothing of.
    pub may_leave: bool,
    /// The session of its cold start ended before Hello.
    pub never_greeted: bool,
    pub evictions: u8,
    /// What it has heard and said in the handoff that is under way.
    pub heard_resumed: bool,
    pub heard_serving: bool,
    pub heard_reject: bool,
    pub said_prepare: bool,
    /// The last report on the newest handoff.
    pub report: Option<Verdict>,
    /// The word that it has read, if its swap is broken in two.
    read: Option<Decision>,
}

impl Service {
    pub fn new() -> Self {
        Self {
            machine: Supervisor::new(),
            alive: true,
            frozen: false,
            timers: Vec::new(),
            todo: VecDeque::new(),
            answers: VecDeque::new(),
            incumbent: None,
            successor: None,
            parked: None,
            page: None,
            last_page: None,
            journal: false,
            adopting: false,
            resuming: false,
            may_leave: false,
            never_greeted: false,
            evictions: 0,
            heard_resumed: false,
            heard_serving: false,
            heard_reject: false,
            said_prepare: false,
            report: None,
            read: None,
        }
    }

    pub fn runs(&self) -> bool {
        self.alive && !self.frozen
    }

    /// Between two handoffs nothing of the last one is known, but that it had an outcome.
    pub fn forget(&mut self, incumbent: Option<Pid>, successor: Option<Pid>) {
        (self.heard_resumed, self.heard_serving, self.heard_reject, self.said_prepare) = (false, false, false, false);
        (self.evictions, self.last_page) = (0, None);
        (self.incumbent, self.successor) = (incumbent, successor);
        self.report = self.report.map(|_| Verdict::Committed);
    }

    pub fn identify(&self, to: &mut Fingerprint) {
        to.machine(&self.machine, self.machine.dropped());
        let timers: u32 = self.timers.iter().map(|timer| 1 << bit(*timer)).sum();
        let flags = [
            self.alive,
            self.frozen,
            self.journal,
            self.adopting,
            self.resuming,
            self.may_leave,
            self.never_greeted,
            self.heard_resumed,
            self.heard_serving,
            self.heard_reject,
            self.said_prepare,
        ];
        let flags: u32 = flags.iter().enumerate().map(|(at, flag)| u32::from(*flag) << at).sum();
        to.write_u32(timers << 16 | flags);
        (&self.todo, &self.answers, self.incumbent, self.successor, self.parked, self.page, self.last_page).hash(to);
        (self.evictions, self.report, self.read).hash(to);
    }
}

fn bit(timer: Timer) -> u32 {
    match timer {
        Timer::Hello => 0,
        Timer::Drain => 1,
        Timer::Ready => 2,
        Timer::Serving => 3,
        Timer::Deadline => 4,
        Timer::Liveness(Peer::Incumbent) => 5,
        Timer::Liveness(Peer::Successor) => 6,
        Timer::Lost(Peer::Incumbent) => 7,
        Timer::Lost(Peer::Successor) => 8,
        Timer::AbortGrace => 9,
        Timer::Retire => 10,
        Timer::Adoption => 11,
        Timer::Probation => 12,
        Timer::Liveness(Peer::Parked) | Timer::Lost(Peer::Parked) => 13, // never
    }
}

/// Whether nobody but S itself can tell when it does this.
fn is_local(action: &Action) -> bool {
    use Action as A;
    matches!(
        action,
        A::Arm(_)
            | A::Disarm(_)
            | A::OpenJournal
            | A::CloseJournal
            | A::Adopt
            | A::Promote
            | A::Park
            | A::Unpark
            | A::Dismiss
            | A::Release
            | A::Report(..)
    )
}

/// Something that S has still to do.
#[derive(Clone, Debug, Hash)]
pub enum Step {
    Act(Action),
    /// Write down what holds now.
    Journal,
}

impl World {
    pub fn serve(&mut self) -> &mut Service {
        Arc::make_mut(&mut self.service)
    }

    pub fn service_event(&mut self, event: Event) {
        match event {
            Event::Supervise => {
                if let Some(step) = self.serve().todo.pop_front() {
                    self.take_step(step);
                    self.settle_service();
                }
            }
            Event::Hear(i) => self.hear(i),
            Event::Gone(i) => {
                self.daemon(i).gone_told = true;
                let peer = self.peer_of(i);
                if self.config.is(Mutant::EndMeansDeath) {
                    self.daemon(i).death_told = true;
                    return self.supervise(Input::Died(peer, "dead".into()));
                }
                self.supervise(Input::Gone(peer));
            }
            Event::Died(i) => {
                self.daemon(i).death_told = true;
                let peer = self.peer_of(i);
                self.supervise(Input::Died(peer, "dead".into()));
                self.search_again(i);
            }
            Event::Retired => self.supervise(Input::Retired),
            Event::PageServing => {
                self.serve().heard_serving = true;
                self.supervise(Input::PageServing);
            }
            Event::Fire(timer) => {
                self.serve().timers.retain(|armed| *armed != timer);
                self.supervise(Input::Timer(timer));
            }
            Event::Restart => self.restart(self.journal),
            Event::RestartBlank => self.restart(Journal::default()),
            Event::Connect(i) => self.connect(i),
            Event::GiveUp(i) => self.give_up(i),
            Event::StartCold => self.supervise(Input::StartCold),
            Event::Condemn => self.condemn(),
            Event::Cancel => {
                self.requests -= 1;
                self.supervise(Input::Cancel("cancelled".into()));
            }
            Event::Start => {
                self.asked += 1;
                let service = self.serve();
                (service.heard_resumed, service.heard_serving, service.heard_reject) = (false, false, false);
                (service.said_prepare, service.evictions, service.last_page) = (false, 0, None);
                service.report = None;
                let plan = self.config.plan(u64::from(self.asked));
                self.supervise(Input::StartHandoff(plan));
            }
            other => unreachable!("{other:?} is not of S"),
        }
    }

    pub fn supervise(&mut self, input: Input) {
        let late = self.service.machine.dropped();
        let said = matches!(input, Input::Message(..));
        let other =
            matches!((&input, self.service.machine.handoff()), (Input::Message(_, m), Some(id)) if m.id() != id);
        let input = self.mutate_service(input);
        let service = self.serve();
        let actions = service.machine.step(input);
        service.todo.extend(actions.into_iter().map(Step::Act));
        let dropped = service.machine.dropped() > late;
        let strict = self.config.is(Mutant::LateEndsSession) && said;
        if dropped && (strict || self.config.is(Mutant::OtherIdEndsSession) && other) {
            self.fail("a session between honest processes is ended");
        }
        if self.config.is(Mutant::NoRetireRule) && self.service.machine.phase() == Phase::Retiring {
            let actions = self.serve().machine.step(Input::Retired);
            self.serve().todo.extend(actions.into_iter().map(Step::Act));
        }
        self.mutate_probation();
        self.settle_service();
    }

    fn mutate_service(&self, input: Input) -> Input {
        match input {
            Input::Message(peer, Message::Ready(mut ready)) if self.config.is(Mutant::AnyRevision) => {
                ready.readiness.revisions = vec![u64::MAX];
                Input::Message(peer, Message::Ready(ready))
            }
            other => other,
        }
    }

    fn settle_service(&mut self) {
        while let Some(step) = self.serve().todo.pop_front() {
            let alone = match &step {
                Step::Act(Action::Send(peer, _)) => !self.is_connected(*peer),
                Step::Act(action) => is_local(action),
                Step::Journal => self.restarts == 0, // nobody will read it
            };
            if !alone {
                return self.serve().todo.push_front(step);
            }
            self.take_step(step);
        }
        let service = self.serve();
        service.adopting &= service.machine.seeks(); // what is over is not tried again
        match service.answers.pop_front() {
            Some(answer) => self.supervise(answer),
            None => self.end_resume(),
        }
    }

    fn take_step(&mut self, step: Step) {
        match step {
            Step::Act(action) => self.service_acts(action),
            Step::Journal => self.write_journal(),
        }
    }

    fn is_connected(&self, peer: Peer) -> bool {
        self.peer(peer).is_some_and(|i| self.see(i).connected || self.see(i).is_asked())
    }

    fn hear(&mut self, i: Pid) {
        let Some(message) = self.daemon(i).outbox.pop_front() else { return };
        if matches!(message, Message::Announced(_)) && self.config.is(Mutant::AnnounceNotAcked) {
            return;
        }
        if let Message::AdoptAck(ack) = &message {
            self.note_adoption(ack);
        }
        let (peer, id) = (self.peer_of(i), self.service.machine.handoff());
        let service = self.serve();
        match &message {
            Message::Resumed(m) if Some(m.id) == id && m.error.is_none() => service.heard_resumed = true,
            Message::Serving(m) if Some(m.id) == id => service.heard_serving = true,
            Message::Reject(_) => service.heard_reject = true,
            _ => {}
        }
        let pid = u32::from(i);
        let input = match message {
            Message::Hello(hello) => {
                self.serve().never_greeted &= peer == Peer::Successor;
                Input::Hello(peer, hello, Sender { pid, uid: 0, spawned_pid: pid, time_namespace: 0 })
            }
            other => Input::Message(peer, other),
        };
        self.supervise(input);
    }

    fn service_acts(&mut self, action: Action) {
        match action {
            Action::SpawnCold if self.service.resuming => {
                let failed = Input::ColdSpawnFailed("none of its processes is left".into());
                self.serve().answers.push_back(failed);
            }
            Action::SpawnCold if self.journal.page().is_some() => {
                // An open handoff is closed on file before there is a process that could be taken for its O.
                let service = self.serve();
                (service.incumbent, service.successor) = (None, None);
                service.todo.push_front(Step::Act(Action::SpawnCold));
                service.todo.push_front(Step::Journal);
            }
            Action::SpawnCold => {
                let i = self.spawn(false);
                let service = self.serve();
                (service.incumbent, service.successor) = (Some(i), None);
                service.never_greeted = true;
                service.todo.push_front(Step::Journal);
            }
            Action::SpawnSuccessor => {
                let free = self.pages.iter().position(|page| page.unused).unwrap_or(self.pages.len());
                if free == self.pages.len() {
                    self.pages.push(Page::new());
                } else {
                    self.pages[free] = Page::new();
                }
                let page = free as u8;
                let i = self.spawn(true);
                let service = self.serve();
                (service.page, service.last_page, service.successor) = (Some(page), Some(page), Some(i));
                service.todo.push_front(Step::Journal);
                service.answers.push_back(Input::Spawned);
            }
            Action::Send(peer, message) => self.say(peer, message),
            // Written when N was spawned; closed by `Release`, with what holds then.
            Action::OpenJournal | Action::CloseJournal => {}
            Action::Adopt => self.serve().adopting = !self.is_connected(Peer::Incumbent),
            Action::Arm(timer) => {
                let service = self.serve();
                if !service.timers.contains(&timer) {
                    service.timers.push(timer);
                    service.timers.sort_unstable_by_key(|timer| bit(*timer));
                }
            }
            Action::Disarm(timer) => self.serve().timers.retain(|armed| *armed != timer),
            Action::Decide(decide) => self.service_decides(decide),
            Action::KillSuccessor => {
                // One that had died before S was started again is not there.
                if let Some((page, i)) = self.service.page.zip(self.service.successor) {
                    self.check_kill(page, i);
                    self.die(i);
                }
            }
            Action::KillIncumbent => {
                let i = self.service.incumbent.expect("O");
                let may = self.word() == Some(Decision::Revoked) || self.successor_is_dead();
                self.require(may || self.condemns(), "S kills O, but has not won the word");
                self.die(i);
            }
            Action::EvictIncumbent => {
                let serving = self.service.page.is_some_and(|page| self.page(page).serving);
                self.require(serving, "S evicts O although nobody serves in its place");
                let i = self.service.incumbent.expect("O");
                self.serve().evictions += 1;
                if !self.see(i).frozen || self.service.evictions > 1 {
                    self.die(i);
                }
            }
            Action::Promote => {
                if let Some(old) = self.service.incumbent.filter(|i| self.see(*i).alive) {
                    let old = self.daemon(old);
                    (old.is_leaving, old.connected) = (!old.death_told, false);
                    old.outbox.clear();
                }
                let service = self.serve();
                service.incumbent = service.successor.take();
            }
            Action::Park | Action::Unpark | Action::EvictParked | Action::Dismiss => self.probation_acts(&action),
            Action::Report(verdict, _) => self.check_report(verdict),
            Action::Release => {
                let service = self.serve();
                if service.page.take().is_some() {
                    service.todo.push_front(Step::Journal);
                }
            }
            Action::EndSession(_, violation) => self.fail(format!("S ends the session: {violation}")),
        }
    }

    fn service_decides(&mut self, decide: Decide) {
        self.require(decide == Decide::Revoke, "S commits");
        let page = self.service.page.expect("a page");
        if self.config.is(Mutant::SplitSwap) && self.service.read.is_none() {
            let read = self.page(page).word;
            let service = self.serve();
            service.read = Some(read);
            return service.todo.push_front(Step::Act(Action::Decide(decide))); // the write is a step of its own
        }
        let value = match self.serve().read.take() {
            Some(Decision::Open) => {
                let page = &mut self.pages[usize::from(page)];
                (page.word, page.decided_by) = (Decision::Revoked, None);
                Decision::Revoked
            }
            Some(read) => read,
            None if self.config.is(Mutant::KillUnasked) => Decision::Revoked,
            None if self.config.is(Mutant::PastUnasked) && self.service.resuming => Decision::Revoked,
            None => self.swap(page, Decision::Revoked, None),
        };
        let trusts_itself = self.config.is(Mutant::PastRolledBack) && self.service.resuming;
        let value = if trusts_itself { Decision::Revoked } else { value };
        if self.config.is(Mutant::EarlyRollback) && value == Decision::Revoked {
            self.check_report(Verdict::RolledBack);
        }
        self.serve().answers.push_back(Input::Decided(value));
    }

    fn say(&mut self, peer: Peer, message: Message) {
        if self.skips(peer, &message) {
            return;
        }
        match &message {
            Message::PrepareHandoff(_) => self.serve().said_prepare = true,
            Message::Committed(_) if self.config.is(Mutant::EarlyCommitted) => self.check_report(Verdict::Committed),
            Message::ResumeAfterAbort(_) => {
                let may = self.word() == Some(Decision::Revoked) || self.successor_is_dead();
                self.require(may, "ResumeAfterAbort before the word was won");
            }
            _ => {}
        }
        if matches!(message, Message::PrepareHandoff(_) | Message::Begin(_)) {
            let journal = self.service.journal;
            self.require(journal, "Prepare or Begin is sent before the journal is written");
        }
        let Some(i) = self.peer(peer).filter(|_| self.is_connected(peer)) else { return };
        if !self.see(i).connected {
            return self.ask(i, &message);
        }
        let (page, incumbent, successor) = (self.service.page, self.service.incumbent, self.service.successor);
        let daemon = self.daemon(i);
        let other = match &message {
            Message::HelloAck(HelloAck { terms: Some(_), .. }) => incumbent,
            Message::PrepareHandoff(_) => successor,
            _ => None,
        };
        if other.is_some() {
            daemon.coming = page.zip(other);
        }
        daemon.inbox.push_back(message);
    }

    pub fn successor_is_dead(&self) -> bool {
        // In a probation N is the incumbent.
        let on_trial = self.service.incumbent.filter(|_| self.service.parked.is_some());
        on_trial.or(self.service.successor).is_none_or(|i| !self.see(i).alive)
    }

    /// The word of the newest handoff.
    pub fn word(&self) -> Option<Decision> {
        self.service.last_page.map(|page| self.page(page).word)
    }

    /// A second handoff is refused at once, and changes nothing.
    pub fn check_busy(&mut self) {
        let service = &self.service;
        if !service.runs() || !service.todo.is_empty() || service.machine.phase() == Phase::Idle {
            return;
        }
        let mut machine = service.machine.clone();
        let actions = machine.step(Input::StartHandoff(BASE.plan(99)));
        let refused = matches!(&actions[..], [Action::Report(Verdict::Refused, text)] if text.starts_with("busy"));
        if !refused || machine != service.machine {
            self.fail("a second handoff is not refused at once");
        }
    }
}

//! The driver of S.

use super::daemons::Daemon;
use super::world::{Page, World};
use crate::limits;
use crate::protocol::message::{HelloAck, Message, Mode, Terms};
use crate::protocol::supervisor::{
    Action, Input, OnIncumbentDeath, Peer, Phase, Plan, Sender, Supervisor, Timer, Verdict,
};
use crate::protocol::{Decide, Decision, HandoffId, incumbent};
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) machine: Supervisor,
    pub(super) alive: bool,
    pub(super) stopped: bool,
    pub(super) timers: Vec<(Timer, u64)>,
    pub(super) todo: VecDeque<Action>,
    pub(super) answers: VecDeque<Input>,
    pub(super) incumbent: Option<usize>,
    pub(super) successor: Option<usize>,
    pub(super) page: Option<usize>,
    /// The page of the newest handoff.
    pub(super) last_page: Option<usize>,
    pub(super) plan: Option<Plan>,
    pub(super) journal: bool,
    /// It wants a session with its incumbent, and tries.
    pub(super) adopting: bool,
    /// Another one began what it goes on with: nothing can be started yet.
    pub(super) resuming: bool,
    /// Its incumbent was adopted in the midst of a handoff that it knows nothing of.
    pub(super) may_leave: bool,
    /// It was told of no handoff, so it owes no outcome.
    pub(super) owes_nothing: bool,
    pub(super) evictions: usize,
    pub(super) reports: Vec<(Verdict, String)>,
    /// Daemons of which the machine knows that their session has ended.
    pub(super) told_gone: Vec<usize>,
    /// Daemons of which the machine knows that they are dead.
    pub(super) told_death: Vec<usize>,
    pub(super) told_retired: bool,
    pub(super) told_serving: bool,
    /// What the machine has heard and said in the handoff that is under way.
    pub(super) heard_resumed: bool,
    pub(super) heard_serving: bool,
    pub(super) heard_reject: bool,
    pub(super) said_prepare: bool,
    /// The next spawn fails.
    pub(super) spawn_fails: bool,
    /// How a Hello arrives.
    pub(super) forge: fn(&mut crate::protocol::message::Hello, &mut Sender),
    pub(super) violations: Vec<String>,
}

pub(super) const GRACE: Duration = limits::DRAIN_GRACE;

pub(super) fn plan(now: u64, on_incumbent_death: OnIncumbentDeath) -> Plan {
    let deadline_ns = now + nanoseconds(limits::HANDOFF_DEADLINE);
    let terms = Terms { id: HandoffId(now), mode: Mode::Exclusive, deadline_ns, park_ns: 0, open_descriptors: 0 };
    Plan { terms, drain_grace_ns: nanoseconds(GRACE), on_incumbent_death }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

impl Service {
    pub(super) fn new() -> Self {
        Self {
            machine: Supervisor::new(),
            alive: true,
            stopped: false,
            timers: Vec::new(),
            todo: VecDeque::new(),
            answers: VecDeque::new(),
            incumbent: None,
            successor: None,
            page: None,
            last_page: None,
            plan: None,
            journal: false,
            adopting: false,
            resuming: false,
            may_leave: false,
            owes_nothing: false,
            evictions: 0,
            reports: Vec::new(),
            told_gone: Vec::new(),
            told_death: Vec::new(),
            told_retired: false,
            told_serving: false,
            heard_resumed: false,
            heard_serving: false,
            heard_reject: false,
            said_prepare: false,
            spawn_fails: false,
            forge: |_, _| {},
            violations: Vec::new(),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.alive && !self.stopped
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.todo.is_empty() && self.answers.is_empty()
    }
}

impl World {
    pub(super) fn supervise(&mut self, input: Input) {
        if let Input::StartHandoff(plan) = &input {
            self.service.plan = Some(*plan);
        }
        let actions = self.service.machine.step(input);
        self.service.todo.extend(actions);
        self.service.adopting &= self.service.machine.seeks(); // what is over is not tried again
    }

    pub(super) fn hear(&mut self, i: usize) {
        let Some(message) = self.daemons[i].outbox.pop_front() else { return };
        if let Message::AdoptAck(ack) = &message {
            self.note_adoption(ack);
        }
        let peer = self.peer_of(i);
        let id = self.service.machine.handoff();
        match &message {
            Message::Resumed(m) if Some(m.id) == id && m.error.is_none() => self.service.heard_resumed = true,
            Message::Serving(m) if Some(m.id) == id => self.service.heard_serving = true,
            Message::Reject(_) => self.service.heard_reject = true,
            _ => {}
        }
        let input = match message {
            Message::Hello(mut hello) => {
                let pid = self.daemons[i].pid;
                let mut sender = Sender { pid, uid: 1000, spawned_pid: pid, time_namespace: 4 };
                if i > 0 {
                    (self.service.forge)(&mut hello, &mut sender);
                }
                Input::Hello(peer, hello, sender)
            }
            other => Input::Message(peer, other),
        };
        self.supervise(input);
    }

    pub(super) fn service_acts(&mut self) {
        if let Some(action) = self.service.todo.pop_front() {
            return self.serve_action(action);
        }
        if let Some(answer) = self.service.answers.pop_front() {
            self.supervise(answer);
        }
    }

    fn serve_action(&mut self, action: Action) {
        match action {
            Action::SpawnCold if self.service.resuming => {
                let failed = Input::ColdSpawnFailed("none of its processes is left".into());
                self.service.answers.push_back(failed);
            }
            Action::SpawnCold => {
                let i = self.spawn(Daemon::cold);
                self.service.incumbent = Some(i);
                self.service.successor = None;
                self.write_journal();
            }
            Action::SpawnSuccessor => self.spawn_successor(),
            Action::Send(peer, message) => self.say(peer, message),
            Action::OpenJournal => self.service.journal = true,
            Action::CloseJournal => self.service.journal = false,
            Action::Adopt => self.service.adopting = true,
            Action::Arm(timer) => {
                let due = self.now + self.lasts(timer);
                self.service.timers.retain(|(armed, _)| *armed != timer);
                self.service.timers.push((timer, due));
            }
            Action::Disarm(timer) => self.service.timers.retain(|(armed, _)| *armed != timer),
            Action::Decide(Decide::Revoke) => {
                let page = self.service.page.expect("a page");
                let value = self.decide(page, Decision::Revoked, None);
                self.service.answers.push_back(Input::Decided(value));
            }
            Action::Decide(decide) => self.fail(format!("S may not {decide:?}")),
            Action::KillSuccessor => {
                // One that had died before S was started again is not there.
                let Some(i) = self.service.successor else { return };
                self.require(self.word() == Some(Decision::Revoked), "S kills N, but has not won the word");
                self.die(i, "killed by S");
            }
            Action::KillIncumbent => {
                let i = self.service.incumbent.expect("an incumbent");
                let daemon = &self.daemons[i];
                let silent = !daemon.serves || daemon.was_silent;
                let may = self.word() == Some(Decision::Revoked) || self.successor_is_dead();
                self.require(silent && may, "S kills an incumbent that serves");
                self.die(i, "killed by S");
            }
            Action::EvictIncumbent => self.evict(),
            Action::Promote => {
                if let Some(old) = self.service.incumbent {
                    self.daemons[old].connected = false;
                }
                self.service.incumbent = self.service.successor.take();
            }
            Action::Park | Action::Unpark | Action::EvictParked | Action::Dismiss => {
                self.fail("nobody asks for a probation");
            }
            Action::Report(verdict, text) => self.on_report(verdict, text),
            Action::Release => {
                self.service.page = None;
                self.write_journal();
            }
            Action::EndSession(peer, violation) => {
                self.service.violations.push(violation.to_string());
                if let Some(i) = self.peer(peer) {
                    self.daemons[i].connected = false;
                    self.daemons[i].outbox.clear();
                    self.service.told_gone.push(i);
                }
            }
        }
    }

    /// Nothing is known yet of the handoff that is asked for.
    pub(super) fn forget(&mut self) {
        let service = &mut self.service;
        (service.told_retired, service.told_serving) = (false, false);
        (service.heard_resumed, service.heard_serving, service.heard_reject) = (false, false, false);
        (service.said_prepare, service.evictions, service.last_page) = (false, 0, None);
    }

    fn evict(&mut self) {
        self.require(self.page_serves(), "S evicts an incumbent although nobody serves in its place");
        self.service.evictions += 1;
        let i = self.service.incumbent.expect("an incumbent");
        if !self.daemons[i].stopped || self.service.evictions > 1 {
            self.die(i, "evicted");
        }
    }

    fn page_serves(&self) -> bool {
        self.service.page.is_some_and(|page| self.pages[page].serving)
    }

    pub(super) fn word(&self) -> Option<Decision> {
        self.service.last_page.map(|page| self.pages[page].word)
    }

    fn spawn(&mut self, make: fn(u32) -> Daemon) -> usize {
        let i = self.daemons.len();
        let mut daemon = make(100 + u32::try_from(i).unwrap());
        daemon.script = if self.scripts.is_empty() { Vec::new() } else { self.scripts.remove(0) };
        self.daemons.push(daemon);
        self.begin_life(i);
        i
    }

    fn spawn_successor(&mut self) {
        let service = &mut self.service;
        if std::mem::take(&mut service.spawn_fails) {
            return service.answers.push_back(Input::SpawnFailed("exec: not found".into()));
        }
        service.page = Some(self.pages.len());
        service.last_page = service.page;
        self.pages.push(Page { word: Decision::Open, decided_by: None, serving: false, retired: false });
        let i = self.spawn(Daemon::successor);
        self.service.successor = Some(i);
        self.write_journal();
        self.service.answers.push_back(Input::Spawned);
    }

    fn say(&mut self, peer: Peer, message: Message) {
        if matches!(message, Message::PrepareHandoff(_)) {
            self.service.said_prepare = true;
        }
        if matches!(message, Message::PrepareHandoff(_) | Message::Begin(_)) {
            let journal = self.service.journal;
            self.require(journal, "Prepare or Begin is sent before the journal is written");
        }
        if matches!(message, Message::ResumeAfterAbort(_)) {
            let may = self.word() == Some(Decision::Revoked) || self.successor_is_dead();
            self.require(may, "ResumeAfterAbort before the word was won");
        }
        let Some(i) = self.peer(peer).filter(|i| self.daemons[*i].connected || self.daemons[*i].asked) else { return };
        if !self.daemons[i].connected {
            return self.ask(i, &message);
        }
        let to = if peer == Peer::Incumbent { "O" } else { "N" };
        self.sent.push(format!("S>{to} {}", message.name()));
        let (page, incumbent, successor) = (self.service.page, self.service.incumbent, self.service.successor);
        let daemon = &mut self.daemons[i];
        match &message {
            Message::HelloAck(HelloAck { terms: Some(_), .. }) => daemon.coming = Some((page, incumbent)),
            Message::PrepareHandoff(_) => daemon.coming = Some((page, successor)),
            _ => {}
        }
        daemon.inbox.push_back(message);
    }

    fn successor_is_dead(&self) -> bool {
        self.service.successor.is_none_or(|i| !self.daemons[i].alive)
    }

    fn lasts(&self, timer: Timer) -> u64 {
        let cold = self.service.machine.phase() == Phase::ColdStarting;
        let deadline = self.service.plan.filter(|_| !cold);
        let slack = nanoseconds(limits::SLACK);
        match timer {
            Timer::Hello => nanoseconds(limits::HELLO_TIMEOUT),
            Timer::Drain => nanoseconds(GRACE) + slack,
            Timer::Ready => nanoseconds(limits::READY_TIMEOUT),
            Timer::Serving => nanoseconds(limits::SERVING_TIMEOUT),
            Timer::Deadline => match deadline {
                Some(plan) => (plan.terms.deadline_ns + slack).saturating_sub(self.now),
                None => nanoseconds(limits::HANDOFF_DEADLINE),
            },
            Timer::Liveness(_) => nanoseconds(limits::LIVENESS),
            Timer::Lost(_) => nanoseconds(limits::DEATH_AFTER_END),
            Timer::AbortGrace => nanoseconds(limits::ABORT_GRACE),
            Timer::Retire => nanoseconds(limits::RETIRE_GRACE),
            Timer::Adoption => nanoseconds(limits::ADOPTION_TIMEOUT),
            Timer::Probation => u64::MAX, // nobody asks for it
        }
    }

    /// The caller does not want the handoff any more.
    pub(super) fn cancel(&mut self) {
        self.note(format_args!("CANCEL"));
        self.supervise(Input::Cancel("cancelled".into()));
    }

    /// O's application gets SIGTERM.
    pub(super) fn stop_incumbent(&mut self) {
        self.note(format_args!("SIGTERM to O"));
        if let Some(i) = self.service.incumbent.filter(|i| self.daemons[*i].is_incumbent()) {
            self.incumbent_takes(i, incumbent::Input::Stop);
        }
    }
}

//! Starting processes and greeting them.

use super::overlap::common_mode;
use super::{Action, Current, Linked, OnIncumbentDeath, Peer, Phase, Plan, Sender, Supervisor, Timer, Verdict};
use crate::protocol::HandoffId;
use crate::protocol::message::{
    Hello, HelloAck, Message, Mode, Reject, RejectCode, Side, Terms, VERSION_MAX, VERSION_MIN, common_version,
};
use crate::protocol::transfer::Room;

impl Supervisor {
    pub(super) fn start_cold(&mut self, out: &mut Vec<Action>) {
        if self.phase != Phase::Idle {
            return self.refuse_busy(out);
        }
        self.spawn_cold(out);
    }

    pub(super) fn spawn_cold(&mut self, out: &mut Vec<Action>) {
        self.generation += 1;
        self.incumbent = None;
        self.new_incumbent();
        self.enter(Phase::ColdStarting, out);
        out.extend([Action::Arm(Timer::Hello), Action::Arm(Timer::Deadline), Action::SpawnCold]);
    }

    /// Nothing that is known of the sessions of the one before holds for it.
    pub(super) fn new_incumbent(&mut self) {
        (self.incumbent_lost, self.estranged, self.adoptions) = (false, false, 0);
    }

    pub(super) fn on_cold_failed(&mut self, error: &str, out: &mut Vec<Action>) {
        if self.phase == Phase::ColdStarting {
            let reason = self.current.as_ref().map_or(String::new(), |current| format!("{}; then ", current.reason));
            self.settle(Verdict::Failed, format!("{reason}the daemon could not be started: {error}"), out);
        }
    }

    /// The cold start serves, or runs without ever having said Hello.
    pub(super) fn cold_is_up(&mut self, out: &mut Vec<Action>) {
        let reason = self.current.as_ref().map_or(String::new(), |current| current.reason.clone());
        self.settle(Verdict::StartedCold, reason, out);
    }

    pub(super) fn on_up(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::ColdStarting && self.incumbent.is_none() {
            self.cold_is_up(out);
        }
    }

    pub(super) fn on_unlinked(&mut self, generation: u64) {
        if self.phase == Phase::Idle && self.incumbent.is_none() {
            self.generation = generation;
            self.new_incumbent();
        }
    }

    fn refuse_busy(&mut self, out: &mut Vec<Action>) {
        let reason = format!("busy: the service is {}; try again", self.phase.name());
        out.push(Action::Report(Verdict::Refused, reason));
    }

    pub(super) fn start_handoff(&mut self, plan: Plan, out: &mut Vec<Action>) {
        let refusal = match &self.incumbent {
            _ if self.phase != Phase::Idle => return self.refuse_busy(out),
            _ if plan.terms.id <= self.newest => "its id is not newer than the last one's",
            None => "the daemon never said Hello: it does not link libhandoff, so it can not be drained and sealed",
            Some(_) if self.estranged => "the session with the daemon is lost: stop the daemon, or end it",
            Some(_) if self.incumbent_lost => {
                "busy: the session with the daemon is lost, and it is being looked for; try again"
            }
            Some(linked) if !linked.serving => "busy: the daemon does not serve yet; try again",
            Some(linked) if common_mode(linked.capabilities, u32::MAX).is_err() => {
                "the daemon has neither a data directory nor a control path, so there is nothing that it could hand over"
            }
            Some(_) => {
                self.newest = plan.terms.id;
                self.current = Some(Current::new(plan));
                self.enter(Phase::Spawning, out);
                return out.push(Action::SpawnSuccessor);
            }
        };
        out.push(Action::Report(Verdict::Refused, refusal.into()));
    }

    pub(super) fn on_spawned(&mut self, out: &mut Vec<Action>) {
        let (Phase::Spawning, Some(current)) = (self.phase, &self.current) else { return };
        let reason = current.reason.clone();
        self.enter(Phase::AwaitHello, out);
        out.extend([Action::Arm(Timer::Hello), Action::Arm(Timer::Deadline)]);
        if !reason.is_empty() {
            self.abort(reason, out);
        }
    }

    pub(super) fn on_spawn_failed(&mut self, error: String, out: &mut Vec<Action>) {
        let (Phase::Spawning, Some(current)) = (self.phase, &mut self.current) else { return };
        if !current.incumbent_dead {
            return self.settle(Verdict::Refused, error, out);
        }
        current.reason = error;
        self.spawn_cold(out);
    }

    pub(super) fn on_hello(&mut self, peer: Peer, hello: &Hello, sender: Sender, out: &mut Vec<Action>) {
        let expected = match peer {
            Peer::Incumbent => self.incumbent.is_none() || self.seeks(),
            Peer::Successor => self.phase == Phase::AwaitHello,
            Peer::Parked => false,
        };
        if !expected {
            return self.on_unexpected(peer, &Message::Hello(hello.clone()), out);
        }
        if let Err((code, text)) = self.judge(peer, hello, sender) {
            out.push(Action::Send(peer, Message::Reject(Reject { code, text: text.clone() })));
            return match peer {
                Peer::Incumbent if self.incumbent.is_some() => self.estrange(out),
                Peer::Incumbent => self.incumbent_lost = true,
                Peer::Successor => self.reject(text, out),
                Peer::Parked => {}
            };
        }
        let room = Room { descriptors_max: hello.descriptors_max, open_descriptors: hello.open_descriptors };
        let mode = self.mode_with(hello);
        let linked = Linked { uid: sender.uid, capabilities: hello.capabilities, room, serving: false };
        if peer == Peer::Incumbent && self.incumbent.is_some() {
            return self.greet_again(linked, out);
        }
        out.push(Action::Disarm(Timer::Hello));
        let version = common_version(hello.version_min, hello.version_max).unwrap_or(VERSION_MAX); // judged
        let mut ack = HelloAck { version, generation: self.generation, terms: None };
        match (peer, &mut self.current) {
            (Peer::Successor, Some(current)) => {
                current.successor = Some(linked);
                ack.generation += 1;
                current.plan.terms.mode = mode.unwrap_or_default(); // judged
                ack.terms = Some(current.plan.terms);
                self.enter(Phase::Warming, out);
            }
            _ => self.incumbent = Some(linked),
        }
        out.push(Action::Send(peer, Message::HelloAck(ack)));
    }

    /// Whether a process may take part, before anything is disturbed.
    fn judge(&self, peer: Peer, hello: &Hello, sender: Sender) -> Result<(), (RejectCode, String)> {
        let side = if peer == Peer::Successor { Side::Successor } else { Side::Incumbent };
        let other_uid = self.incumbent.map(|incumbent| incumbent.uid).filter(|uid| *uid != sender.uid);
        if common_version(hello.version_min, hello.version_max).is_none() {
            let (min, max) = (hello.version_min, hello.version_max);
            let text =
                format!("the daemon speaks protocol {min} to {max}, the supervisor {VERSION_MIN} to {VERSION_MAX}");
            return Err((RejectCode::Version, text));
        }
        if hello.side != side {
            let text = format!("the process says that it is the {:?}, but was started as {side:?}", hello.side);
            return Err((RejectCode::Role, text));
        }
        if sender.pid != sender.spawned_pid || hello.pid != sender.pid {
            let Sender { pid, spawned_pid, .. } = sender;
            let text = format!(
                "process {pid} said Hello (as {}), but {spawned_pid} was started: a wrapper must exec the daemon, not fork it",
                hello.pid
            );
            return Err((RejectCode::Pid, text));
        }
        if let (Peer::Successor, Some(uid)) = (peer, other_uid) {
            let text = format!(
                "the successor runs as user {}, the incumbent as {uid}: it could not undo the handoff",
                sender.uid
            );
            return Err((RejectCode::Uid, text));
        }
        if hello.time_namespace != 0 && sender.time_namespace != 0 && hello.time_namespace != sender.time_namespace {
            let text = "the daemon is in another time namespace, where deadlines mean other times".into();
            return Err((RejectCode::TimeNamespace, text));
        }
        if let (Peer::Successor, Err(text)) = (peer, self.mode_with(hello)) {
            return Err((RejectCode::Unable, text));
        }
        Ok(())
    }

    fn mode_with(&self, hello: &Hello) -> Result<Mode, String> {
        let own = self.incumbent.map_or(0, |incumbent| incumbent.capabilities);
        match common_mode(own, hello.capabilities)? {
            // O drains behind the commit, and can not be a reserve.
            Mode::Overlap if self.park_ns() > 0 => {
                Err("a probation is for exclusive mode, and these daemons have overlap mode: start the \
                     supervisor without --probation, or upgrade with --probation 0s"
                    .into())
            }
            mode => Ok(mode),
        }
    }

    pub(super) fn on_hello_late(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            // It may still say Hello; until then it is a daemon that does not link the library.
            Phase::ColdStarting if self.incumbent.is_none() => self.cold_is_up(out),
            Phase::AwaitHello => self.abort(
                "the successor did not say Hello in time: it hangs, or does not link libhandoff, and then it can not replace a \
                 daemon that does: stop the service, and start it with the new program"
                    .into(),
                out,
            ),
            _ => {}
        }
    }
}

impl Current {
    fn new(plan: Plan) -> Self {
        Self { plan, ..Self::of(plan.terms.id) }
    }

    /// One of which nothing but the id is known.
    pub(super) fn of(id: HandoffId) -> Self {
        let terms = Terms { id, ..Terms::default() };
        Self {
            plan: Plan { terms, drain_grace_ns: 0, on_incumbent_death: OnIncumbentDeath::StartCold },
            journalled: false,
            prepared: false,
            begun: false,
            format_changes: false,
            condemned: false,
            rejected: false,
            sealed: None,
            incumbent_dead: false,
            successor: None,
            successor_dead: false,
            successor_lost: false,
            resumed: false,
            asked: false,
            late: false,
            undecided: false,
            unreachable: false,
            reason: String::new(),
        }
    }

    pub(super) fn id(&self) -> HandoffId {
        self.plan.terms.id
    }
}

//! What must be true in every state, and at the end.

use crate::daemon::{Machine, Work};
use crate::events::Event;
use crate::world::{Holder, Pid, World};
use handoff::protocol::supervisor::{Phase, Verdict};
use handoff::protocol::{Decision, incumbent, successor};
use std::fmt::Write;

impl World {
    /// In every state.
    pub fn check(&mut self) {
        let mut servers = 0;
        for i in self.pids() {
            let daemon = self.see(i);
            if !daemon.alive {
                continue;
            }
            servers += usize::from(daemon.serves);
            if self.config.overlap {
                self.check_overlap(i);
                continue;
            }
            if (daemon.has_data || daemon.serves) && self.lock != Some(Holder::Daemon(i)) {
                self.fail("somebody uses the data without the lock");
            }
            let daemon = self.see(i);
            if daemon.serves && daemon.is_leaving {
                self.fail("O serves again although N has taken its place");
            }
            let daemon = self.see(i);
            if daemon.serves && daemon.view != self.disk {
                self.fail("an acknowledged write is lost");
            }
            self.check_word(i);
        }
        if servers > 1 && !self.config.overlap {
            self.fail("two serve at once");
        }
        if servers == 0 && !self.interrupted {
            self.fail("nobody accepts, although no server crashed");
        }
        self.check_busy();
        self.check_connection();
    }

    /// A superseded O does not serve beside its successor, and a revoked N does not serve at all.
    fn check_word(&mut self, i: Pid) {
        let daemon = self.see(i);
        let Some(word) = daemon.page.map(|page| self.page(page).word) else { return };
        let peer_lives = daemon.peer.is_some_and(|peer| self.see(peer).alive);
        match &daemon.machine {
            Machine::Incumbent(_) if daemon.serves && word.is_committed() && peer_lives => {
                self.fail("O serves beside an N that has committed");
            }
            Machine::Successor(_) if daemon.serves && !word.is_committed() => {
                self.fail("N serves without having won the word");
            }
            _ => {}
        }
    }

    /// Nobody that has committed is killed.
    pub fn check_kill(&mut self, page: u8, successor: Pid) {
        let lives = self.see(successor).alive;
        let page = self.page(page);
        let committed = page.decided_by == Some(successor) && page.word.is_committed();
        let serves = self.see(successor).serves;
        if lives && (committed || serves) {
            return self.fail("a process that has committed is killed");
        }
        let revoked = page.word == Decision::Revoked;
        self.require(revoked, "N is killed, but the word was not won");
    }

    /// A stranger gets the data only when nobody is left who had it.
    pub fn check_grab(&mut self) {
        let left = self.pids().any(|i| {
            let daemon = self.see(i);
            daemon.alive
                && match &daemon.machine {
                    Machine::Incumbent(machine) => {
                        use incumbent::Phase::{Leaving, Replaced, Starting};
                        let phase = machine.phase();
                        phase != Starting && !(self.config.overlap && matches!(phase, Leaving | Replaced))
                    }
                    Machine::Successor(machine) => {
                        use successor::Phase as N;
                        matches!(machine.phase(), N::Opening | N::AwaitCommitted | N::Committing | N::Won)
                    }
                }
        });
        self.require(!left, "a stranger has the data although its owner lives");
    }

    /// A process exits by itself. The last one that could serve does not, when S is gone.
    pub fn check_leaving(&mut self, i: Pid, reason: Option<&str>) {
        if self.service.alive {
            return;
        }
        let daemon = self.see(i);
        let may = match &daemon.machine {
            Machine::Incumbent(_) => false,
            // S or O has revoked the word, or the data is a stranger's, or it could not serve; or its deadline is past, and it
            // has not heard yet that S is dead, too.
            Machine::Successor(_) => {
                let revoked_itself = daemon.page.is_some_and(|page| self.page(page).decided_by == Some(i));
                let late = reason.is_some_and(|reason| reason.contains("deadline")) && !daemon.end_told;
                let stopped = reason.is_some_and(|reason| reason.contains("asked to stop"));
                !revoked_itself
                    || late
                    || stopped
                    || self.lock.is_some_and(|holder| holder != Holder::Daemon(i))
                    || daemon.unable
            }
        };
        let left = self.pids().any(|other| other != i && self.could_serve(other));
        self.require(may || left, "the last process that could serve exits by itself");
    }

    fn could_serve(&self, i: Pid) -> bool {
        let daemon = self.see(i);
        daemon.alive
            && match &daemon.machine {
                Machine::Incumbent(machine) => {
                    use incumbent::Phase::{Leaving, Lost, Replaced};
                    !matches!(machine.phase(), Leaving | Replaced | Lost)
                }
                Machine::Successor(machine) => {
                    let revoked = daemon.page.is_none_or(|page| self.page(page).word == Decision::Revoked);
                    !revoked && *machine.phase() != successor::Phase::Aborted
                }
            }
    }

    pub fn check_report(&mut self, verdict: Verdict) {
        let service = &self.service;
        let successor_serves = service.successor.is_some_and(|i| self.see(i).serves);
        let (word, prepared) = (self.word(), service.said_prepare);
        let resumed = service.heard_resumed || !prepared;
        let committed = word.is_some_and(Decision::is_committed);
        let lie = match verdict {
            Verdict::Committed => !service.heard_serving || !committed,
            Verdict::RolledBack => !resumed || successor_serves || committed,
            Verdict::Reverted => !service.heard_resumed || !committed,
            Verdict::Refused => prepared && !service.heard_reject,
            Verdict::StartedCold | Verdict::Undecided | Verdict::Failed => false,
        };
        self.require(!lie, &format!("{verdict:?} is reported too early"));
        self.serve().report = Some(verdict);
    }

    /// When nothing is left to happen: exactly one serves, and S, if it is there, is idle and has said how it ended. Returns
    /// whether it is another end that is excused.
    pub fn judge_end(&self) -> Result<bool, String> {
        let servers = self.pids().filter(|i| self.see(*i).serves && self.see(*i).runs()).count();
        let service = self.service.runs();
        let idle = self.service.machine.phase() == Phase::Idle;
        if servers == 1 && (!service || idle && self.service.report.is_some() && self.is_supervised()) {
            return Ok(false);
        }
        // Nobody may kill one that is stopped and has the data or has won it, or an incumbent that S waits for.
        let stopped = self.pids().any(|i| {
            let daemon = self.see(i);
            let won = self.pages.iter().any(|page| page.decided_by == Some(i) && page.word.is_committed());
            let awaited = service && self.service.incumbent == Some(i);
            daemon.alive && daemon.frozen && (won || awaited || self.lock == Some(Holder::Daemon(i)))
        });
        // S is not there, and everybody who could serve was killed or stopped, or S had revoked N.
        let nobody = !service && servers == 0 && !self.pids().any(|i| self.see(i).runs());
        if stopped || nobody || self.lock == Some(Holder::Stranger) {
            return Ok(true);
        }
        Err(format!("in the end {servers} serve, and S is {}", self.service.machine.phase().name()))
    }

    /// Whether S has a session with the one that serves, knows that it does, and nobody else is left who could take over. One that lost its session before S had read
    /// its Hello is taken for a daemon that does not link the library.
    fn is_supervised(&self) -> bool {
        let (service, machine) = (&self.service, &self.service.machine);
        if service.never_greeted {
            return true;
        }
        let linked = machine.incumbent_is_linked() && machine.incumbent_serves();
        // A cold start that waits for the gate gives up at some time.
        let waits = |other| !self.see(other).runs() || self.see(other).work == Some(Work::Cold);
        let alone = |i| self.pids().all(|other| other == i || waits(other));
        linked && service.incumbent.is_some_and(|i| self.see(i).serves && self.see(i).connected && alone(i))
    }

    pub fn describe(&self, event: Event) -> String {
        match event {
            Event::Supervise => format!("S: {:?}", self.service.todo.front()),
            Event::Hear(i) => format!("S reads of {i}: {:?}", self.see(i).outbox.front()),
            Event::Act(i) => format!("{i}: {:?}", self.see(i).todo.front()),
            Event::Read(i) => format!("{i} reads {:?}", self.see(i).inbox.front()),
            Event::Done(i) => format!("{i} done: {:?}", self.see(i).work),
            Event::Task(i) => format!("{i} task: {:?}", self.see(i).task),
            other => format!("{other:?}"),
        }
    }

    pub fn show(&self) -> String {
        let service = &self.service;
        let phase = match (service.alive, service.frozen) {
            (false, _) => "dead",
            (_, true) => "stopped",
            _ => service.machine.phase().name(),
        };
        let mut text = format!("S {phase} {:?} report {:?}", service.timers, service.report);
        for i in self.pids() {
            let daemon = self.see(i);
            let serves = if daemon.serves { " SERVES" } else { "" };
            let stopped = if daemon.frozen { " stopped" } else { "" };
            let _ = write!(text, " | {i} {}{serves}{stopped}", daemon.phase());
        }
        for page in &self.pages {
            let _ = write!(text, " | {page:?}");
        }
        let _ = write!(text, " | lock {:?} gate {:b}", self.lock, self.gate);
        if let Some(broken) = self.broken() {
            let _ = write!(text, "\n    !! {broken}");
        }
        text
    }
}

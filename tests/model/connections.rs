//! One connection of a client, in exclusive mode: who may touch it. O leaves it alone from its drain on, N has it with the
//! gate, and uses it once the word is won; O uses its own again unless N may have used it.

use crate::config::{BASE, Config, Mutant};
use crate::mutants::all_are_missed;
use crate::world::{Pid, World};

/// What a daemon has to do with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Connection {
    /// It has no descriptor of it.
    #[default]
    None,
    /// It has one, and leaves it alone.
    Kept,
    /// It reads and writes.
    Used,
}

impl World {
    /// The client is connected to the one that serves.
    pub fn connect_client(&mut self) {
        if let (Some(i), false) = (self.service.incumbent, self.config.overlap) {
            self.daemon(i).connection = Connection::Used;
            self.used_by = i;
        }
    }

    /// O's application leaves it alone from its drain on.
    pub fn leave_connection(&mut self, i: Pid) {
        if self.see(i).connection == Connection::Used {
            self.daemon(i).connection = Connection::Kept;
        }
    }

    /// The handoff was undone: O's application has it again, or closes it, if N may have used it.
    pub fn resume_connection(&mut self, i: Pid) {
        let daemon = self.see(i);
        let committed = daemon.page.is_some_and(|page| self.page(page).word.is_committed());
        if committed && !self.config.is(Mutant::KeepsAfterCommit) {
            self.daemon(i).connection = Connection::None;
        } else if daemon.connection == Connection::Kept {
            self.require(self.used_by == i, "O goes on with a connection that N has used");
            self.daemon(i).connection = Connection::Used;
        }
    }

    /// N has what O gave, with O's last word, which goes with the gate.
    pub fn give_connection(&mut self, i: Pid, successor: Pid) {
        if self.see(i).connection == Connection::Kept && !self.config.is(Mutant::GivesNothing) {
            self.daemon(successor).connection = Connection::Kept;
        }
    }

    /// N's application is shown what came.
    pub fn show_connection(&mut self, i: Pid) {
        if self.see(i).connection == Connection::Kept {
            self.daemon(i).connection = Connection::Used;
            self.used_by = i;
        }
    }

    /// In every state.
    pub fn check_connection(&mut self) {
        let used = |i: &Pid| self.see(*i).alive && self.see(*i).connection == Connection::Used;
        let users = self.pids().filter(used).count();
        self.require(users < 2, "two use one connection");
        let early = |i: Pid| {
            let daemon = self.see(i);
            let won = || daemon.page.is_some_and(|page| self.page(page).word.is_committed());
            daemon.connection == Connection::Used && !daemon.is_incumbent() && !won()
        };
        let early = self.pids().any(early);
        self.require(!early, "N uses a connection without having won the word");
    }

    /// O retires, and closes it with everything else: a successor that lives must have it.
    pub fn check_left_connection(&mut self, i: Pid) {
        let Some(peer) = self.see(i).peer.filter(|peer| self.see(*peer).alive) else { return };
        let lost = self.see(i).connection == Connection::Kept && self.see(peer).connection == Connection::None;
        self.require(!lost, "O retires with a connection that N does not have");
    }
}

/// The rule, the bounds in which it is missed, and what is found.
const MUTANTS: &[(Config, &str)] = &[
    (
        Config {
            name: "T1 O uses its connections after a commit",
            mutant: Some(Mutant::KeepsAfterCommit),
            crashes: 1,
            ..BASE
        },
        "O goes on with a connection that N has used",
    ),
    (
        Config { name: "T2 N uses them before the commit", mutant: Some(Mutant::ShowsEarly), ..BASE },
        "N uses a connection without having won the word",
    ),
    (
        Config { name: "T3 O says it has given all, and has not", mutant: Some(Mutant::GivesNothing), ..BASE },
        "O retires with a connection that N does not have",
    ),
];

#[test]
fn each_rule_of_connections_is_needed() {
    all_are_missed(MUTANTS);
}

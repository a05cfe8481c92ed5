//! Overlap mode: what is different in it, its rules, its bounds, and the rules of its that are taken back.

use crate::config::{BASE, Config, Mutant};
use crate::daemon::{Machine, Take};
use crate::mutants::all_are_missed;
use crate::world::{Pid, World};
use handoff::protocol::message::{Announced, Message, Mode, PrepareHandoff};
use handoff::protocol::supervisor::{Input, Peer};
use handoff::protocol::{Decision, HandoffId, incumbent};

impl World {
    pub fn send_gate(&mut self, i: Pid) {
        if let Some(peer) = self.see(i).peer.filter(|peer| self.see(*peer).alive) {
            self.gate |= 1 << peer;
        }
        self.daemon(i).answers.push_back(Take::Incumbent(incumbent::Input::GateSent));
    }

    /// O retires: N must live and serve, and whoever is started when N is dead must find the gate free.
    pub fn let_go(&mut self, i: Pid) {
        if !self.config.overlap {
            return;
        }
        let serves = self.see(i).peer.is_some_and(|peer| self.see(peer).alive && self.see(peer).serves);
        self.require(serves, "O retires, but nobody serves in its place");
        self.daemon(i).serves = false;
        self.gate &= !(1 << i);
    }

    /// In every state, of each that lives.
    pub fn check_overlap(&mut self, i: Pid) {
        let daemon = self.see(i);
        if !daemon.serves {
            return;
        }
        let has_gate = self.gate & 1 << i != 0;
        let word = daemon.page.map(|page| self.page(page).word);
        let unasked = !daemon.is_incumbent() && !word.is_some_and(Decision::is_committed);
        let leaving = daemon.is_leaving;
        let retired = matches!(&daemon.machine, Machine::Incumbent(machine) if !machine.serves());
        let starting =
            matches!(&daemon.machine, Machine::Incumbent(machine) if machine.phase() == incumbent::Phase::Starting);
        self.require(has_gate, "somebody serves without the gate");
        self.require(!unasked, "N serves without having won the word");
        self.require(!leaving, "O serves again although N has taken its place");
        self.require(!retired || starting, "O accepts, but its machine says that it does not");
    }

    /// With this mutant, the word alone tells O that N serves.
    pub fn note_word(&mut self, i: Pid, input: &incumbent::Input) {
        if matches!(input, incumbent::Input::Decided(Decision::Committed)) && self.config.is(Mutant::StopOnWord) {
            let serving = Take::Incumbent(incumbent::Input::SuccessorServing);
            self.daemon(i).answers.push_back(serving);
        }
    }

    /// Whether S says something else, or nothing, because a rule is taken back.
    pub fn skips(&mut self, peer: Peer, message: &Message) -> bool {
        let unheard = self.config.is(Mutant::NoAnnounce);
        if let (Message::Commit(commit), true) = (message, unheard) {
            self.announce_late(commit.id);
        }
        let Message::PrepareHandoff(prepare) = message else { return false };
        if unheard || self.config.is(Mutant::AnnounceNotAcked) {
            if let Some(successor) = self.service.successor {
                self.gate |= 1 << successor; // or it would not get so far
            }
            let announced = Message::Announced(Announced { id: prepare.id });
            self.serve().answers.push_back(Input::Message(peer, announced));
        }
        unheard
    }
}

impl World {
    /// O hears of N together with Commit.
    fn announce_late(&mut self, id: HandoffId) {
        let (page, successor) = (self.service.page, self.service.successor);
        let Some(i) = self.service.incumbent.filter(|i| self.see(*i).connected) else { return };
        let prepare =
            PrepareHandoff { id, mode: Mode::Overlap, deadline_ns: 1, drain_grace_ns: 0, park_ns: 0, transfer: None };
        let daemon = self.daemon(i);
        daemon.coming = page.zip(successor);
        daemon.inbox.push_back(Message::PrepareHandoff(prepare));
    }
}

const OVERLAP: Config = Config { name: "G0 overlap", overlap: true, ..BASE };

#[test]
fn one_handoff_in_overlap() {
    crate::holds(&OVERLAP);
}

#[test]
fn one_crash_in_overlap() {
    crate::holds(&Config { name: "G1n overlap, one crash", crashes: 1, ..OVERLAP });
    crate::holds(&Config { name: "G1 overlap, one crash, a restart", crashes: 1, restarts: 1, ..OVERLAP });
}

/// The bounds of the whole check.
pub const WHOLE: &[Config] = &[
    Config {
        name: "G1c overlap, one crash, O's death starts cold",
        crashes: 1,
        restarts: 1,
        promote: false,
        ..OVERLAP
    },
    Config { name: "G2 overlap, two crashes, restarts", crashes: 2, restarts: 2, ..OVERLAP },
    Config { name: "G2n overlap, two crashes", crashes: 2, ..OVERLAP },
    Config { name: "G3 overlap, two handoffs, one crash, a restart", handoffs: 2, crashes: 1, restarts: 1, ..OVERLAP },
    Config {
        name: "G4 overlap, two handoffs, one crash, S stops",
        handoffs: 2,
        crashes: 1,
        freezes: 1,
        freeze_service_only: true,
        ..OVERLAP
    },
    Config { name: "G5 overlap, two handoffs, one cut", handoffs: 2, cuts: 1, ..OVERLAP },
    Config { name: "G6 overlap, one crash, two cuts", crashes: 1, cuts: 2, restarts: 1, ..OVERLAP },
    Config { name: "G7 overlap, one stops for ever, one crash", freezes: 1, crashes: 1, restarts: 1, ..OVERLAP },
    Config {
        name: "G8 overlap, a cancel or a stop, bad applications, one crash",
        requests: 1,
        bad_applications: true,
        crashes: 1,
        ..OVERLAP
    },
    Config { name: "G9 overlap, a stranger, one crash", stranger: true, crashes: 1, ..OVERLAP },
];

/// The rule, the bounds in which it is missed, and what is found.
const MUTANTS: &[(Config, &str)] = &[
    (
        Config { name: "O is not told of N", mutant: Some(Mutant::NoAnnounce), crashes: 1, restarts: 1, ..OVERLAP },
        "in the end 2 serve, and S is idle",
    ),
    (
        Config {
            name: "O's answer is not waited for",
            mutant: Some(Mutant::AnnounceNotAcked),
            crashes: 1,
            restarts: 1,
            wipes: true,
            ..OVERLAP
        },
        "in the end 2 serve, and S is idle",
    ),
    (
        Config { name: "O stops on the word", mutant: Some(Mutant::StopOnWord), ..OVERLAP },
        "O retires, but nobody serves in its place",
    ),
    (
        Config {
            name: "the next handoff does not wait for O",
            mutant: Some(Mutant::NoRetireRule),
            handoffs: 2,
            crashes: 1,
            restarts: 1,
            ..OVERLAP
        },
        "O serves again although N has taken its place",
    ),
];

#[test]
fn each_rule_of_overlap_is_needed() {
    all_are_missed(MUTANTS);
}

//! What the fuzz targets share: bytes that become choices and messages, and the decision word.

use crate::protocol::message::*;
use crate::protocol::transfer::{Room, Totals};
use crate::protocol::{Decision, HandoffId, Message};

/// Inputs that one run feeds at most.
pub const STEPS_MAX: usize = 256;
/// Actions that a machine may ask for in one step.
pub const ACTIONS_MAX: usize = 24;

/// Choices from the fuzzer. When it has no more, every choice is the first one.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Small numbers, and those at the edges.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            253 => u64::from(u32::MAX),
            small => u64::from(small),
        }
    }

    pub fn text(&mut self) -> String {
        let length = usize::from(self.byte() % 4);
        (0..length).map(|_| char::from(self.byte())).collect()
    }

    pub fn id(&mut self, current: HandoffId) -> HandoffId {
        match self.byte() % 8 {
            0..=4 => current,
            5 => HandoffId::COLD,
            6 => HandoffId(self.number()),
            _ if self.yes() => HandoffId(current.0.saturating_sub(1)),
            _ => HandoffId(current.0.saturating_add(1)),
        }
    }

    pub fn revisions(&mut self) -> Vec<u64> {
        let length = self.byte() % 4;
        (0..length).map(|_| self.number()).collect()
    }

    pub fn fingerprint(&mut self) -> Fingerprint {
        Fingerprint { directory: (self.number(), 2), lock: (1, self.number()) }
    }

    pub fn readiness(&mut self) -> Readiness {
        let flags = self.byte();
        Readiness {
            unhealthy: flags & 3 == 3,
            format_changes: flags & 12 == 12,
            revisions: self.revisions(),
            detail: self.text(),
        }
    }

    pub fn terms(&mut self, current: HandoffId) -> Terms {
        let mode = if self.byte() >= 192 { Mode::Overlap } else { Mode::Exclusive };
        Terms { id: self.id(current), mode, deadline_ns: self.number(), park_ns: self.number(), open_descriptors: 0 }
    }

    pub fn hello(&mut self, side: Side, pid: u32) -> Hello {
        let mut hello = Hello {
            side,
            pid,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            capabilities: capability::EXCLUSIVE,
            generation: 0,
            open_descriptors: 3,
            descriptors_max: 0,
            time_namespace: 0,
            build_id: Vec::new(),
        };
        match self.byte() {
            1 => hello.side = if side == Side::Incumbent { Side::Successor } else { Side::Incumbent },
            2 => hello.pid = self.number() as u32,
            3 => hello.version_min = self.number() as u16,
            4 => hello.version_max = self.number() as u16,
            5 => hello.capabilities = self.number() as u32,
            6 => hello.time_namespace = self.number(),
            _ => {}
        }
        hello
    }

    pub fn adopt_ack(&mut self, id: HandoffId) -> Message {
        Message::AdoptAck(AdoptAck {
            version: 1,
            pid: 1,
            generation: self.number(),
            phase: self.byte() % 8,
            id,
            listeners: 0,
        })
    }

    pub fn error(&mut self) -> Option<String> {
        (self.byte() % 4 == 3).then(|| self.text())
    }

    /// Any message but Hello, mostly of this handoff.
    pub fn message(&mut self, current: HandoffId) -> Message {
        let id = self.id(current);
        match self.byte() % 24 {
            0 => Message::Warmed(Warmed { id }),
            1 => {
                let terms = self.terms(current);
                Message::PrepareHandoff(PrepareHandoff {
                    id,
                    mode: terms.mode,
                    deadline_ns: terms.deadline_ns,
                    drain_grace_ns: self.number(),
                    park_ns: terms.park_ns,
                    transfer: self.yes().then(|| Room { descriptors_max: self.number(), open_descriptors: 3 }),
                })
            }
            2 => Message::Drained(Drained { id, connections_open: 1, accept_stopped_ns: self.number() }),
            3 => Message::SealRequest(SealRequest { id }),
            4 => {
                Message::SealComplete(SealComplete { id, revisions: self.revisions(), fingerprint: self.fingerprint() })
            }
            5 => {
                let sealed = match self.byte() {
                    0..=127 => Sealed::Complete { revisions: self.revisions(), fingerprint: self.fingerprint() },
                    128..=223 => Sealed::Recover,
                    _ => Sealed::Beside,
                };
                Message::Begin(Begin { id, sealed })
            }
            6 => Message::Ready(Ready { id, readiness: self.readiness(), taken: Totals::default() }),
            7 => Message::Committed(Committed { id }),
            8 => {
                let control = self.error().map_or(Ok(()), Err);
                Message::Serving(Serving { id, committed_ns: self.number(), control })
            }
            9 => Message::Commit(Commit { id }),
            10 => Message::Abort(Abort { id, reason: self.text() }),
            11 => Message::ResumeAfterAbort(ResumeAfterAbort { id }),
            12 => Message::Resumed(Resumed { id, error: self.error() }),
            13 => Message::SealFailed(SealFailed {
                id,
                step: if self.yes() { SealStep::Drain } else { SealStep::Seal },
                error: self.text(),
            }),
            14 => Message::Stopping(Stopping { id }),
            15 => Message::Heartbeat(Heartbeat { id, progress: self.yes().then(|| (self.number(), self.number())) }),
            16 => Message::SealProgress(SealProgress { id, done: self.number(), total: self.number() }),
            17 => Message::Gate(Gate { id, sent: Totals::default() }),
            18 => Message::Reject(Reject { code: RejectCode::Unable, text: self.text() }),
            19 => Message::Adopt(Adopt { version_min: 1, version_max: 1 }),
            20 => self.adopt_ack(id),
            22 => Message::Announced(Announced { id }),
            23 => Message::EndProbation(EndProbation { id }),
            _ => {
                let terms = self.yes().then(|| self.terms(current));
                Message::HelloAck(HelloAck { version: 1, generation: self.number(), terms })
            }
        }
    }
}

/// The decision word, as everybody sees it.
#[derive(Clone, Copy, Debug)]
pub struct Word(Decision);

impl Default for Word {
    fn default() -> Self {
        Self(Decision::Open)
    }
}

impl Word {
    pub fn value(self) -> Decision {
        self.0
    }

    /// The swap; the value that holds afterwards.
    pub fn swap(&mut self, to: Decision) -> Decision {
        if self.0 == Decision::Open {
            self.0 = to;
        }
        self.0
    }

    pub fn is_committed(self) -> bool {
        self.0.is_committed()
    }
}

//! Golden vectors, round trips and mutations.

use super::*;
use crate::limits::{BUILD_ID_BYTES_MAX, LISTENERS_IN_MESSAGE_MAX};
use crate::protocol::HandoffId;
use crate::protocol::message::*;
use crate::protocol::transfer::{Connection, Connections, Room, State, Taken, Totals};

const ID: HandoffId = HandoffId(0x0807_0605_0403_0201);

/// One of each message, with different values everywhere; and their bytes, which never change.
fn golden() -> Vec<(Message, &'static str)> {
    let revisions = vec![1, 2];
    let fingerprint = Fingerprint { directory: (3, 4), lock: (5, 6) };
    let terms = Terms { id: ID, mode: Mode::Overlap, deadline_ns: 9, park_ns: 10, open_descriptors: 0 };
    vec![
        (
            Message::Hello(Hello {
                side: Side::Successor,
                pid: 0x0102_0304,
                version_min: 1,
                version_max: 2,
                capabilities: capability::EXCLUSIVE | capability::OVERLAP,
                generation: 5,
                open_descriptors: 6,
                descriptors_max: 0,
                time_namespace: 7,
                build_id: vec![0xab, 0xcd],
            }),
            "484f4646 0100 0100 02 04030201 0100 0200 03000000 0500000000000000 06000000 0700000000000000 0200 abcd",
        ),
        (
            Message::HelloAck(HelloAck { version: 1, generation: 2, terms: None }),
            "484f4646 0100 0200 0100 0200000000000000 00",
        ),
        (
            Message::HelloAck(HelloAck { version: 1, generation: 2, terms: Some(terms) }),
            "484f4646 0100 0200 0100 0200000000000000 01 0102030405060708 01 0900000000000000 0a00000000000000",
        ),
        (Message::Reject(Reject { code: RejectCode::Uid, text: "no".into() }), "484f4646 0100 0300 0400 0200 6e6f"),
        (Message::Adopt(Adopt { version_min: 1, version_max: 2 }), "484f4646 0100 0400 0100 0200"),
        (
            Message::AdoptAck(AdoptAck { version: 1, pid: 2, generation: 3, phase: 4, id: ID, listeners: 0x0506 }),
            "484f4646 0100 0500 0100 02000000 0300000000000000 04 0102030405060708 0605",
        ),
        (Message::Warmed(Warmed { id: ID }), "484f4646 0100 0600 0102030405060708"),
        (
            Message::PrepareHandoff(PrepareHandoff {
                id: ID,
                mode: Mode::Exclusive,
                deadline_ns: 1,
                drain_grace_ns: 2,
                park_ns: 3,
                transfer: Some(Room { descriptors_max: 4, open_descriptors: 5 }),
            }),
            "484f4646 0100 0700 0102030405060708 00000000 0100000000000000 0200000000000000 0300000000000000 01 0400000000000000 05000000",
        ),
        (
            Message::Drained(Drained { id: ID, connections_open: 1, accept_stopped_ns: 2 }),
            "484f4646 0100 0800 0102030405060708 01000000 0200000000000000",
        ),
        (Message::SealRequest(SealRequest { id: ID }), "484f4646 0100 0900 0102030405060708"),
        (
            Message::Gate(Gate { id: ID, sent: Totals { connections: 1, blobs: 2, state_bytes: 3 } }),
            "484f4646 0100 0a00 0102030405060708 0100000000000000 0200000000000000 0300000000000000",
        ),
        (
            Message::SealProgress(SealProgress { id: ID, done: 1, total: 2 }),
            "484f4646 0100 0b00 0102030405060708 0100000000000000 0200000000000000",
        ),
        (
            Message::SealComplete(SealComplete { id: ID, revisions: revisions.clone(), fingerprint }),
            "484f4646 0100 0c00 0102030405060708 020000000000000001000000000000000200000000000000 0300000000000000040000000000000005000000000000000600000000000000",
        ),
        (
            Message::SealFailed(SealFailed { id: ID, step: SealStep::Seal, error: "e".into() }),
            "484f4646 0100 0d00 0102030405060708 01000000 010000000000000065",
        ),
        (
            Message::Begin(Begin { id: ID, sealed: Sealed::Complete { revisions: revisions.clone(), fingerprint } }),
            "484f4646 0100 0e00 0102030405060708 00000000 020000000000000001000000000000000200000000000000 0300000000000000040000000000000005000000000000000600000000000000",
        ),
        (Message::Begin(Begin { id: ID, sealed: Sealed::Recover }), "484f4646 0100 0e00 0102030405060708 01000000"),
        (Message::Begin(Begin { id: ID, sealed: Sealed::Beside }), "484f4646 0100 0e00 0102030405060708 02000000"),
        (
            Message::Ready(Ready {
                id: ID,
                readiness: Readiness { unhealthy: true, format_changes: false, revisions, detail: "d".into() },
                taken: Totals { connections: 1, blobs: 2, state_bytes: 3 },
            }),
            "484f4646 0100 0f00 0102030405060708 01 00 020000000000000001000000000000000200000000000000 010000000000000064 010000000000000002000000000000000300000000000000",
        ),
        (Message::Committed(Committed { id: ID }), "484f4646 0100 1000 0102030405060708"),
        (
            Message::Serving(Serving { id: ID, committed_ns: 1, control: Ok(()) }),
            "484f4646 0100 1100 0102030405060708 0100000000000000 00000000",
        ),
        (
            Message::Serving(Serving { id: ID, committed_ns: 1, control: Err("c".into()) }),
            "484f4646 0100 1100 0102030405060708 0100000000000000 01000000 010000000000000063",
        ),
        (Message::Commit(Commit { id: ID }), "484f4646 0100 1200 0102030405060708"),
        (
            Message::Abort(Abort { id: ID, reason: "r".into() }),
            "484f4646 0100 1300 0102030405060708 010000000000000072",
        ),
        (Message::ResumeAfterAbort(ResumeAfterAbort { id: ID }), "484f4646 0100 1400 0102030405060708"),
        (Message::Resumed(Resumed { id: ID, error: None }), "484f4646 0100 1500 0102030405060708 00"),
        (
            Message::Resumed(Resumed { id: ID, error: Some("r".into()) }),
            "484f4646 0100 1500 0102030405060708 01 010000000000000072",
        ),
        (Message::Stopping(Stopping { id: ID }), "484f4646 0100 1600 0102030405060708"),
        (Message::Heartbeat(Heartbeat { id: ID, progress: None }), "484f4646 0100 1700 0102030405060708 00"),
        (
            Message::Heartbeat(Heartbeat { id: ID, progress: Some((1, 2)) }),
            "484f4646 0100 1700 0102030405060708 01 0100000000000000 0200000000000000",
        ),
        (
            Message::AdoptListeners(AdoptListeners { names: vec!["a".into(), "bc".into()] }),
            "484f4646 0100 1800 0200000000000000 010000000000000061 02000000000000006263",
        ),
        (
            Message::Connections(Connections {
                id: ID,
                batch: 1,
                connections: vec![
                    Connection { file: (3, 4), name: b"a".into(), state: b"bc".into() },
                    Connection { file: (5, 6), name: b"d".into(), state: Vec::new() },
                ],
            }),
            "484f4646 0100 1900 0102030405060708 01000000 0200000000000000 0300000000000000 0400000000000000 010000000000000061 02000000000000006263 0500000000000000 0600000000000000 010000000000000064 0000000000000000",
        ),
        (
            Message::State(State { id: ID, batch: 2, key: b"k".into(), size: 3, sealed: true }),
            "484f4646 0100 1a00 0102030405060708 02000000 01000000000000006b 0300000000000000 01",
        ),
        (Message::Taken(Taken { id: ID, batch: 2 }), "484f4646 0100 1b00 0102030405060708 02000000"),
        (Message::Announced(Announced { id: ID }), "484f4646 0100 1c00 0102030405060708"),
        (Message::EndProbation(EndProbation { id: ID }), "484f4646 0100 1d00 0102030405060708"),
    ]
}

/// The other ends: empty, largest, last variant.
fn extremes() -> Vec<Message> {
    let id = HandoffId(u64::MAX);
    let text = "ü".repeat(TEXT_BYTES_MAX / 2);
    let revisions = vec![u64::MAX; REVISIONS_MAX];
    let pair = (u64::MAX, u64::MAX);
    let fingerprint = Fingerprint { directory: pair, lock: pair };
    let terms = Terms { id, mode: Mode::Exclusive, deadline_ns: u64::MAX, park_ns: u64::MAX, open_descriptors: 0 };
    let hello = Hello {
        side: Side::Incumbent,
        pid: u32::MAX,
        version_min: u16::MAX,
        version_max: u16::MAX,
        capabilities: u32::MAX,
        generation: u64::MAX,
        open_descriptors: u32::MAX,
        descriptors_max: 0,
        time_namespace: u64::MAX,
        build_id: vec![0xff; BUILD_ID_BYTES_MAX],
    };
    let ack =
        AdoptAck { version: u16::MAX, pid: u32::MAX, generation: u64::MAX, phase: u8::MAX, id, listeners: u16::MAX };
    let codes = [
        RejectCode::Version,
        RejectCode::Role,
        RejectCode::Pid,
        RejectCode::Uid,
        RejectCode::TimeNamespace,
        RejectCode::Unable,
    ];
    let readiness =
        Readiness { unhealthy: false, format_changes: true, revisions: revisions.clone(), detail: text.clone() };
    let mut all = vec![
        Message::Hello(Hello { build_id: Vec::new(), ..hello.clone() }),
        Message::Hello(hello),
        Message::HelloAck(HelloAck { version: u16::MAX, generation: u64::MAX, terms: Some(terms) }),
        Message::Adopt(Adopt { version_min: 0, version_max: u16::MAX }),
        Message::AdoptAck(AdoptAck { listeners: 0, ..ack.clone() }),
        Message::AdoptAck(ack),
        Message::AdoptListeners(AdoptListeners { names: Vec::new() }),
        Message::AdoptListeners(AdoptListeners { names: vec!["x".repeat(255); LISTENERS_IN_MESSAGE_MAX] }),
        Message::Drained(Drained { id, connections_open: u32::MAX, accept_stopped_ns: u64::MAX }),
        Message::SealComplete(SealComplete { id, revisions: revisions.clone(), fingerprint }),
        Message::SealComplete(SealComplete { id, revisions: Vec::new(), fingerprint }),
        Message::SealFailed(SealFailed { id, step: SealStep::Drain, error: text.clone() }),
        Message::Begin(Begin { id, sealed: Sealed::Complete { revisions, fingerprint } }),
        Message::Ready(Ready { id, readiness, taken: Totals::default() }),
        Message::Ready(Ready { id, readiness: Readiness::default(), taken: Totals::default() }),
        Message::Serving(Serving { id, committed_ns: u64::MAX, control: Err(text.clone()) }),
        Message::Abort(Abort { id, reason: String::new() }),
        Message::Abort(Abort { id, reason: text.clone() }),
        Message::Resumed(Resumed { id, error: Some(text.clone()) }),
        Message::Heartbeat(Heartbeat { id, progress: Some(pair) }),
    ];
    all.extend(codes.map(|code| Message::Reject(Reject { code, text: text.clone() })));
    all
}

fn bytes(message: &Message) -> Vec<u8> {
    let mut out = vec![1, 2, 3];
    encode(message, &mut out).unwrap();
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn error(frame: &[u8]) -> String {
    decode(frame).unwrap_err().to_string()
}

/// A frozen message's header, of a version that nobody speaks yet, and a body.
fn future(number: u8, body: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &[0xff, 0xff, number, 0], body].concat()
}

#[test]
fn the_bytes_never_change() {
    let mut seen = std::collections::BTreeSet::new();
    for (message, expected) in golden() {
        assert_eq!(hex(&bytes(&message)), expected.replace(' ', ""), "{message:?}");
        seen.insert(number(&message));
    }
    assert!(seen.into_iter().eq(1..=29), "a message has no golden vector");
}

#[test]
fn what_is_written_can_be_read() {
    for message in golden().into_iter().map(|(message, _)| message).chain(extremes()) {
        let frame = bytes(&message);
        assert!(frame.len() <= FRAME_BYTES_MAX);
        assert_eq!(decode(&frame).as_ref(), Ok(&message));
    }
}

#[test]
fn texts_are_cut_between_characters() {
    let long = format!("x{}", "ü".repeat(TEXT_BYTES_MAX));
    let (id, control) = (ID, Err(long.clone()));
    let readiness = Readiness { detail: long.clone(), ..Readiness::default() };
    for message in [
        Message::Reject(Reject { code: RejectCode::Unable, text: long.clone() }),
        Message::SealFailed(SealFailed { id, step: SealStep::Seal, error: long.clone() }),
        Message::Ready(Ready { id, readiness, taken: Totals::default() }),
        Message::Serving(Serving { id, committed_ns: 1, control }),
        Message::Abort(Abort { id, reason: long.clone() }),
        Message::Resumed(Resumed { id, error: Some(long.clone()) }),
    ] {
        let decoded = decode(&bytes(&message)).unwrap();
        let cut = text(&decoded).unwrap();
        assert_eq!(cut.len(), TEXT_BYTES_MAX - 1, "{}", message.name());
        assert!(long.starts_with(cut.as_str()));
    }
    let Message::Hello(mut hello) = golden().swap_remove(0).0 else { unreachable!() };
    hello.build_id = vec![9; 1000];
    let Message::Hello(decoded) = decode(&bytes(&Message::Hello(hello))).unwrap() else { unreachable!() };
    assert_eq!(decoded.build_id, [9; BUILD_ID_BYTES_MAX]);
}

#[test]
fn too_much_is_not_written() {
    let mut out = Vec::new();
    let mut refused = |message| {
        let error = encode(&message, &mut out).unwrap_err().to_string();
        assert!(out.is_empty());
        error
    };
    let readiness = Readiness { revisions: vec![0; REVISIONS_MAX + 1], ..Readiness::default() };
    assert_eq!(
        refused(Message::Ready(Ready { id: ID, readiness, taken: Totals::default() })),
        "Ready: 4097 revisions, at most 4096 are allowed"
    );
    let listeners = |name: String, count| Message::AdoptListeners(AdoptListeners { names: vec![name; count] });
    assert_eq!(refused(listeners(String::new(), 201)), "AdoptListeners: 201 names, at most 200 are allowed");
    assert_eq!(
        refused(listeners("x".repeat(4096), 16)),
        "AdoptListeners: a frame of 65680 bytes, at most 65536 are allowed"
    );
}

#[test]
fn too_much_is_not_read() {
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let abort = Abort { id: ID, reason: long };
    let frame = [&bytes(&Message::Commit(Commit { id: ID }))[..6], &[19, 0]].concat();
    let mut abort_frame = frame.clone();
    pack(&abort, &mut abort_frame).unwrap();
    assert_eq!(error(&abort_frame), "Abort: a text of 4097 bytes, at most 4096 are allowed");
    let begin = Begin {
        id: ID,
        sealed: Sealed::Complete {
            revisions: vec![0; REVISIONS_MAX + 1],
            fingerprint: Fingerprint { directory: (0, 0), lock: (0, 0) },
        },
    };
    let mut begin_frame = [&frame[..6], &[14, 0]].concat();
    pack(&begin, &mut begin_frame).unwrap();
    assert_eq!(error(&begin_frame), "Begin: 4097 revisions, at most 4096 are allowed");
    // A length that a body can not have allocates nothing.
    let huge = [&frame[..], &[0; 8], &u64::MAX.to_le_bytes()].concat();
    assert!(error(&huge).starts_with("Abort: bad body of 16 bytes"), "{}", error(&huge));
    let padded =
        [&bytes(&Message::Adopt(Adopt { version_min: 1, version_max: 1 }))[..], &[0; FRAME_BYTES_MAX]].concat();
    assert_eq!(error(&padded), "Adopt: a frame of 65548 bytes, at most 65536 are allowed");
}

#[test]
fn errors_say_what_and_where() {
    assert_eq!(error(b"HOFF"), "a frame of 4 bytes has no room for a header of 8");
    assert_eq!(
        error(b"GET / HTTP/1.1"),
        "not a message of this protocol: it starts with [47, 45, 54, 20], not [48, 4f, 46, 46]"
    );
    assert_eq!(error(b"HOFF\x01\0\xff\0"), "unknown message id 255");
    assert_eq!(error(b"HOFF\x02\0\x06\0"), "message 6 is of protocol version 2, this library speaks 1 to 1");
    assert_eq!(error(b"HOFF\0\0\x06\0"), "message 6 is of protocol version 0, this library speaks 1 to 1");
    assert_eq!(error(&future(1, &[9])), "Hello: side at byte 8: 9 is unknown");
    assert_eq!(error(&future(1, &[1, 2])), "Hello: pid at byte 9: 4 bytes wanted, 1 left");
    assert_eq!(error(&future(2, &[0; 10])), "HelloAck: with terms at byte 18: 1 bytes wanted, 0 left");
    assert_eq!(
        error(&future(2, &[&[0; 10][..], &[2]].concat())),
        "HelloAck: with terms at byte 18: 2 is neither 0 nor 1"
    );
    assert_eq!(
        error(&future(3, &[1, 0, 1, 0, 0xff])),
        "Reject: text at byte 12: invalid utf-8 sequence of 1 bytes from index 0"
    );
    let mut frame = bytes(&Message::Commit(Commit { id: ID }));
    frame.push(0);
    assert_eq!(error(&frame), "Commit: 1 bytes left over after byte 16");
}

#[test]
fn versions_that_can_not_talk_can_say_so() {
    for (message, _) in golden().into_iter().filter(|(message, _)| number(message) <= 5) {
        let mut frame = bytes(&message);
        for version in [0u16, 2, 0x0201, u16::MAX] {
            frame[4..6].copy_from_slice(&version.to_le_bytes());
            assert_eq!(decode(&frame).as_ref(), Ok(&message));
        }
        // Extensions of a later version are skipped, also empty ones; half a one is an error.
        frame.extend_from_slice(&[7, 0, 3, 0, 1, 2, 3, 8, 0, 0, 0]);
        assert_eq!(decode(&frame).as_ref(), Ok(&message));
        for junk in [&[1][..], &[1, 0], &[1, 0, 1], &[1, 0, 1, 0]] {
            assert!(error(&[&frame[..], junk].concat()).contains("extension"));
        }
    }
    let later = decode(&future(3, &[99, 0, 2, 0, b'n', b'o'])).unwrap();
    assert_eq!(later, Message::Reject(Reject { code: RejectCode::Unable, text: "no".into() }));
}

#[test]
fn what_was_added_later_is_an_extension() {
    let plain = golden();
    let hello = plain.iter().find_map(|(message, _)| match message {
        Message::Hello(hello) => Some(Hello { descriptors_max: 0x0102, ..hello.clone() }),
        _ => None,
    });
    let hello = Message::Hello(hello.unwrap());
    let frame = bytes(&hello);
    assert!(frame.ends_with(&[1, 0, 8, 0, 2, 1, 0, 0, 0, 0, 0, 0]), "{frame:02x?}");
    assert_eq!(decode(&frame).as_ref(), Ok(&hello));
    let terms = Some(Terms { id: ID, open_descriptors: 0x0304, ..Terms::default() });
    let ack = Message::HelloAck(HelloAck { version: 1, generation: 2, terms });
    let frame = bytes(&ack);
    assert!(frame.ends_with(&[1, 0, 4, 0, 4, 3, 0, 0]), "{frame:02x?}");
    assert_eq!(decode(&frame).as_ref(), Ok(&ack));
    // Of another size it is an error, and for an answer without terms it means nothing.
    let mut longer = frame.clone();
    let at = frame.len() - 6;
    longer[at] = 5;
    longer.push(0);
    assert_eq!(error(&longer), format!("HelloAck: open descriptors at byte {}: 5 bytes, it has 4", frame.len() - 4));
    let cold = Message::HelloAck(HelloAck { version: 1, generation: 2, terms: None });
    let with_extension = [&bytes(&cold)[..], &frame[frame.len() - 8..]].concat();
    assert_eq!(decode(&with_extension), Ok(cold));
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Whatever was read can be written, and then has the length of what was read, but for extensions.
fn survives(frame: &[u8]) {
    let Ok(message) = decode(frame) else { return };
    let again = bytes(&message);
    assert_eq!(decode(&again).as_ref(), Ok(&message));
    assert!(again.len() == frame.len() || number(&message) <= 5 && again.len() < frame.len(), "{message:?}");
}

#[test]
fn no_bytes_make_it_panic() {
    let messages = || golden().into_iter().map(|(message, _)| message);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for message in messages().chain(extremes()) {
        let frame = bytes(&message);
        for length in (0..frame.len()).take(200) {
            assert!(decode(&frame[..length]).is_err(), "{message:?} cut to {length} bytes");
        }
        for bit in 0..(frame.len() * 8).min(400) {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            survives(&flipped);
        }
        for _ in 0..50 {
            let mut mutated = frame.clone();
            for _ in 0..=random.below(8) {
                let at = random.below(mutated.len().min(200));
                mutated[at] = [0, 1, 0x7f, 0xff, random.below(256) as u8][random.below(5)];
            }
            mutated.truncate(mutated.len() - random.below(mutated.len().min(4)));
            survives(&mutated);
        }
    }
    for _ in 0..20_000 {
        let length = random.below(64);
        let noise: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        survives(&noise);
        survives(&[&MAGIC[..], &[1, 0, random.below(31) as u8, 0], &noise].concat());
    }
}

#[test]
fn nothing_may_be_left_over() {
    for message in golden().into_iter().map(|(message, _)| message).chain(extremes()) {
        let mut frame = bytes(&message);
        frame.push(0);
        assert!(decode(&frame).is_err(), "{message:?}");
    }
}

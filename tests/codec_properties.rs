//! Messages and bytes at random: what is encoded decodes to the same, and no bytes make the codec panic.

use handoff::limits::{
    BUILD_ID_BYTES_MAX, CONNECTION_STATE_BYTES_MAX, CONNECTIONS_IN_BATCH_MAX, FRAME_BYTES_MAX, NAME_BYTES_MAX,
    REVISIONS_MAX, TEXT_BYTES_MAX,
};
use handoff::protocol::codec::{HEADER_BYTES, decode, encode};
use handoff::protocol::message::*;
use handoff::protocol::transfer::{Connection, Connections, Room, State, Taken, Totals};
use handoff::protocol::{HandoffId, Message};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::Config;

fn id() -> impl Strategy<Value = HandoffId> {
    any::<u64>().prop_map(HandoffId)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Exclusive), Just(Mode::Overlap)]
}

/// Texts of every length that is allowed; a character has at most four bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => vec(any::<char>(), 0..40).prop_map(|chars| chars.into_iter().collect()),
        1 => vec(any::<char>(), 0..=TEXT_BYTES_MAX / 4).prop_map(|chars| chars.into_iter().collect()),
        1 => Just("x".repeat(TEXT_BYTES_MAX)),
    ]
}

fn revisions() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![8 => vec(any::<u64>(), 0..10), 1 => vec(any::<u64>(), REVISIONS_MAX)]
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    any::<[u64; 4]>().prop_map(|[a, b, c, d]| Fingerprint { directory: (a, b), lock: (c, d) })
}

fn hello() -> impl Strategy<Value = Hello> {
    let side = prop_oneof![Just(Side::Incumbent), Just(Side::Successor)];
    let numbers = (any::<[u32; 3]>(), any::<[u16; 2]>(), any::<[u64; 3]>());
    (side, numbers, vec(any::<u8>(), 0..=BUILD_ID_BYTES_MAX)).prop_map(|(side, (small, versions, large), build_id)| {
        Hello {
            side,
            pid: small[0],
            version_min: versions[0],
            version_max: versions[1],
            capabilities: small[1],
            generation: large[0],
            open_descriptors: small[2],
            descriptors_max: large[2],
            time_namespace: large[1],
            build_id,
        }
    })
}

fn terms() -> impl Strategy<Value = Terms> {
    let numbers = (any::<[u64; 2]>(), any::<u32>());
    (id(), mode(), numbers).prop_map(|(id, mode, ([deadline_ns, park_ns], open_descriptors))| Terms {
        id,
        mode,
        deadline_ns,
        park_ns,
        open_descriptors,
    })
}

fn reject() -> impl Strategy<Value = Reject> {
    use RejectCode::{Pid, Role, TimeNamespace, Uid, Unable, Version};
    let code = proptest::sample::select(vec![Version, Role, Pid, Uid, TimeNamespace, Unable]);
    (code, text()).prop_map(|(code, text)| Reject { code, text })
}

fn adopt_ack() -> impl Strategy<Value = AdoptAck> {
    let numbers = (any::<u16>(), any::<u32>(), any::<u64>(), any::<u8>());
    (numbers, id(), any::<u16>()).prop_map(|((version, pid, generation, phase), id, listeners)| AdoptAck {
        version,
        pid,
        generation,
        phase,
        id,
        listeners,
    })
}

fn prepare() -> impl Strategy<Value = PrepareHandoff> {
    let room = any::<(u64, u32)>();
    let room = room.prop_map(|(descriptors_max, open_descriptors)| Room { descriptors_max, open_descriptors });
    (id(), mode(), any::<[u64; 3]>(), option::of(room)).prop_map(|(id, mode, times, transfer)| {
        let [deadline_ns, drain_grace_ns, park_ns] = times;
        PrepareHandoff { id, mode, deadline_ns, drain_grace_ns, park_ns, transfer }
    })
}

fn begin() -> impl Strategy<Value = Begin> {
    let complete =
        (revisions(), fingerprint()).prop_map(|(revisions, fingerprint)| Sealed::Complete { revisions, fingerprint });
    (id(), prop_oneof![complete, Just(Sealed::Recover), Just(Sealed::Beside)])
        .prop_map(|(id, sealed)| Begin { id, sealed })
}

fn ready() -> impl Strategy<Value = Ready> {
    (id(), any::<[bool; 2]>(), revisions(), text(), totals()).prop_map(|(id, flags, revisions, detail, taken)| {
        let [unhealthy, format_changes] = flags;
        Ready { id, readiness: Readiness { unhealthy, format_changes, revisions, detail }, taken }
    })
}

fn totals() -> impl Strategy<Value = Totals> {
    any::<[u64; 3]>().prop_map(|[connections, blobs, state_bytes]| Totals { connections, blobs, state_bytes })
}

/// Names and keys of every length that is allowed.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![9 => vec(any::<u8>(), 1..20), 1 => vec(any::<u8>(), 1..=NAME_BYTES_MAX)]
}

fn connections() -> impl Strategy<Value = Connections> {
    let some = |states, count| {
        vec(
            (any::<(u64, u64)>(), name(), vec(any::<u8>(), states)).prop_map(|(file, name, state)| Connection {
                file,
                name,
                state,
            }),
            count,
        )
    };
    let connections = prop_oneof![
        8 => some(0..=40, 1..=10),
        1 => some(0..=0, CONNECTIONS_IN_BATCH_MAX..=CONNECTIONS_IN_BATCH_MAX).prop_map(|mut all| {
            all.iter_mut().for_each(|connection| connection.name.truncate(20));
            all
        }),
        1 => some(CONNECTION_STATE_BYTES_MAX..=CONNECTION_STATE_BYTES_MAX, 1..=1),
    ];
    (id(), any::<u32>(), connections).prop_map(|(id, batch, connections)| Connections { id, batch, connections })
}

fn state() -> impl Strategy<Value = State> {
    (id(), any::<u32>(), name(), any::<u64>(), any::<bool>()).prop_map(|(id, batch, key, size, sealed)| State {
        id,
        batch,
        key,
        size,
        sealed,
    })
}

/// Any message that may be sent.
fn message() -> BoxedStrategy<Message> {
    let step = prop_oneof![Just(SealStep::Drain), Just(SealStep::Seal)];
    let control = option::of(text()).prop_map(|error| error.map_or(Ok(()), Err));
    let of = |make: fn(HandoffId) -> Message| id().prop_map(make).boxed();
    let frozen = prop_oneof![
        hello().prop_map(Message::Hello),
        (any::<u16>(), any::<u64>(), option::of(terms()))
            .prop_map(|(version, generation, terms)| Message::HelloAck(HelloAck { version, generation, terms })),
        reject().prop_map(Message::Reject),
        any::<[u16; 2]>().prop_map(|[version_min, version_max]| Message::Adopt(Adopt { version_min, version_max })),
        adopt_ack().prop_map(Message::AdoptAck),
        id().prop_map(|id| Message::Announced(Announced { id })),
        vec("[a-z.é]{0,40}", 0..20).prop_map(|names| Message::AdoptListeners(AdoptListeners { names })),
    ];
    let only_id = prop_oneof![
        of(|id| Message::Warmed(Warmed { id })),
        of(|id| Message::SealRequest(SealRequest { id })),
        of(|id| Message::Committed(Committed { id })),
        of(|id| Message::Commit(Commit { id })),
        of(|id| Message::ResumeAfterAbort(ResumeAfterAbort { id })),
        of(|id| Message::Stopping(Stopping { id })),
        of(|id| Message::EndProbation(EndProbation { id })),
    ];
    let others = prop_oneof![
        prepare().prop_map(Message::PrepareHandoff),
        (id(), any::<u32>(), any::<u64>()).prop_map(|(id, connections_open, accept_stopped_ns)| {
            Message::Drained(Drained { id, connections_open, accept_stopped_ns })
        }),
        (id(), any::<u64>(), any::<u64>()).prop_map(|(id, done, total)| Message::SealProgress(SealProgress {
            id,
            done,
            total
        })),
        (id(), revisions(), fingerprint()).prop_map(|(id, revisions, fingerprint)| {
            Message::SealComplete(SealComplete { id, revisions, fingerprint })
        }),
        (id(), step, text()).prop_map(|(id, step, error)| Message::SealFailed(SealFailed { id, step, error })),
        begin().prop_map(Message::Begin),
        ready().prop_map(Message::Ready),
        (id(), totals()).prop_map(|(id, sent)| Message::Gate(Gate { id, sent })),
        connections().prop_map(Message::Connections),
        state().prop_map(Message::State),
        (id(), any::<u32>()).prop_map(|(id, batch)| Message::Taken(Taken { id, batch })),
        (id(), any::<u64>(), control).prop_map(|(id, committed_ns, control)| Message::Serving(Serving {
            id,
            committed_ns,
            control
        })),
        (id(), text()).prop_map(|(id, reason)| Message::Abort(Abort { id, reason })),
        (id(), option::of(text())).prop_map(|(id, error)| Message::Resumed(Resumed { id, error })),
        (id(), option::of(any::<(u64, u64)>()))
            .prop_map(|(id, progress)| Message::Heartbeat(Heartbeat { id, progress })),
    ];
    prop_oneof![5 => frozen, 6 => only_id, 15 => others].boxed()
}

fn bytes_of(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).unwrap();
    bytes
}

fn without_extensions(mut message: Message) -> Message {
    match &mut message {
        Message::Hello(hello) => hello.descriptors_max = 0,
        Message::HelloAck(HelloAck { terms: Some(terms), .. }) => terms.open_descriptors = 0,
        _ => {}
    }
    message
}

fn cases(cases: u32) -> Config {
    // Nothing is written beside the sources; a failure prints its message.
    Config { cases, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn a_message_decodes_to_itself(message in message()) {
        let bytes = bytes_of(&message);
        prop_assert!(bytes.len() <= FRAME_BYTES_MAX);
        prop_assert_eq!(decode(&bytes), Ok(message));
    }

    #[test]
    fn a_part_of_a_message_is_no_message(message in message(), at in any::<proptest::sample::Index>()) {
        let bytes = bytes_of(&message);
        let part = &bytes[..at.index(bytes.len())];
        let plain = without_extensions(message);
        // What is cut off before its extension is the message of an older version.
        let whole = part.len() == bytes_of(&plain).len();
        prop_assert_eq!(decode(part).ok(), whole.then_some(plain), "{} of {} bytes", part.len(), bytes.len());
    }

    #[test]
    fn a_bit_that_flips_is_another_message_or_none(
        message in message(),
        bits in vec(any::<proptest::sample::Index>(), 1..4),
    ) {
        let mut bytes = bytes_of(&message);
        for bit in bits {
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if let Ok(other) = decode(&bytes) {
            prop_assert_eq!(decode(&bytes_of(&other)), Ok(other));
        }
    }

    #[test]
    fn extensions_of_the_frozen_five_are_skipped(
        message in message(),
        extensions in vec((2..u16::MAX, vec(any::<u8>(), 0..50)), 0..4),
    ) {
        let mut bytes = bytes_of(&message);
        let number = u16::from_le_bytes([bytes[6], bytes[7]]);
        for (tag, value) in &extensions {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
            bytes.extend_from_slice(value);
        }
        let decoded = decode(&bytes);
        if number <= 5 || extensions.is_empty() {
            prop_assert_eq!(decoded, Ok(message));
        } else {
            prop_assert!(decoded.is_err());
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_two_characters(
        id in id(),
        reason in vec(any::<char>(), TEXT_BYTES_MAX / 4..TEXT_BYTES_MAX / 2),
    ) {
        let reason: String = reason.into_iter().collect();
        let bytes = bytes_of(&Message::Abort(Abort { id, reason: reason.clone() }));
        let Ok(Message::Abort(abort)) = decode(&bytes) else { panic!("it does not decode") };
        prop_assert!(reason.starts_with(&abort.reason) && abort.reason.len() <= TEXT_BYTES_MAX);
        prop_assert!(abort.reason == reason || abort.reason.len() > TEXT_BYTES_MAX - 4);
    }

    #[test]
    fn any_body_of_any_number_does_not_panic(number in 0_u16..30, body in vec(any::<u8>(), 0..300)) {
        let mut bytes = bytes_of(&Message::Adopt(Adopt { version_min: 1, version_max: 1 }));
        bytes[6..HEADER_BYTES].copy_from_slice(&number.to_le_bytes());
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(&body);
        if let Ok(message) = decode(&bytes) {
            prop_assert_eq!(decode(&bytes_of(&message)), Ok(message));
        }
    }
}

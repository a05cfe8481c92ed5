use super::*;
use crate::protocol::codec::{decode, encode};

const ID: HandoffId = HandoffId(7);

fn connection(state_bytes: usize) -> Connection {
    Connection { file: (1, 2), name: b"client".into(), state: vec![1; state_bytes] }
}

/// Fills as the driver does; the frames that went out.
fn give(giver: &mut Giver, count: usize, state_bytes: usize) -> Vec<Message> {
    let mut frames = Vec::new();
    for number in 0..count {
        let connection = connection(state_bytes);
        if !giver.fits(&connection) {
            frames.push(giver.batch());
            giver.sent(frames[frames.len() - 1].clone());
        }
        giver.add(Identity::Socket(1, number as u64), connection);
    }
    frames.push(giver.batch());
    giver.sent(frames[frames.len() - 1].clone());
    frames
}

#[test]
fn every_batch_fits_into_a_frame_and_nothing_is_left_out() {
    for (count, state_bytes) in
        [(1, CONNECTION_STATE_BYTES_MAX), (3, CONNECTION_STATE_BYTES_MAX), (1000, 0), (700, 500)]
    {
        let (mut giver, mut taker, mut bytes) = (Giver::new(ID), Taker::default(), Vec::new());
        for frame in give(&mut giver, count, state_bytes) {
            encode(&frame, &mut bytes).unwrap();
            let Message::Connections(m) = decode(&bytes).unwrap() else { panic!("{frame:?}") };
            let Message::Taken(taken) = taker.connections(&m).unwrap() else { panic!() };
            giver.taken(taken.batch).unwrap();
        }
        assert!(giver.is_done());
        assert_eq!(giver.totals().connections, count as u64);
        assert_eq!(giver.totals().state_bytes, (count * state_bytes) as u64);
        taker.check(giver.totals()).unwrap();
    }
}

#[test]
fn a_batch_has_no_more_descriptors_than_a_message_may_carry() {
    let mut giver = Giver::new(ID);
    let counts: Vec<_> = give(&mut giver, 600, 0)
        .into_iter()
        .map(|frame| if let Message::Connections(m) = frame { m.connections.len() } else { 0 })
        .collect();
    assert_eq!(counts, [250, 250, 100]);
}

#[test]
fn the_largest_state_with_the_longest_name_fits_alone() {
    let mut giver = Giver::new(ID);
    let largest =
        Connection { file: (1, 2), name: vec![b'n'; NAME_BYTES_MAX], state: vec![1; CONNECTION_STATE_BYTES_MAX] };
    assert!(giver.fits(&largest));
    giver.add(Identity::Number(3), largest.clone());
    assert!(!giver.fits(&largest));
    encode(&giver.batch(), &mut Vec::new()).unwrap();
}

#[test]
fn the_window_closes_and_each_answer_opens_it_by_one() {
    let mut giver = Giver::new(ID);
    for number in 0..BATCHES_UNTAKEN_MAX {
        assert!(giver.may_send(), "{number}");
        let message = giver.state(&number.to_le_bytes(), 1, true);
        giver.sent(message);
    }
    assert!(!giver.may_send());
    giver.taken(1).unwrap();
    assert!(giver.may_send() && !giver.is_done());
    assert!(giver.taken(1).is_err(), "twice");
    assert!(giver.taken(3).is_err(), "not in order");
    for batch in 2..=BATCHES_UNTAKEN_MAX {
        giver.taken(batch).unwrap();
    }
    assert!(giver.is_done());
    assert!(giver.taken(BATCHES_UNTAKEN_MAX + 1).is_err(), "never sent");
}

#[test]
fn a_batch_that_could_not_be_sent_waits_with_everything_in_it() {
    let mut giver = Giver::new(ID);
    giver.add(Identity::Number(3), connection(5));
    let before = giver.clone();
    let message = giver.batch();
    assert_eq!(giver.pending(), 0);
    giver.unsent(message);
    assert_eq!(giver, before);
    assert_eq!(giver.totals(), Totals::default());
}

#[test]
fn what_was_given_is_known() {
    let mut giver = Giver::new(ID);
    giver.add(Identity::Number(3), connection(0));
    let message = giver.state(b"key", 1, false);
    giver.sent(message);
    assert!(giver.has_connection(Identity::Number(3)) && !giver.has_connection(Identity::Number(4)));
    assert!(giver.has_key(b"key") && !giver.has_key(b"other"));
}

#[test]
fn a_taker_refuses_what_can_not_be_next() {
    let state = |batch, key: &[u8]| State { id: ID, batch, key: key.into(), size: 3, sealed: true };
    let mut taker = Taker::default();
    taker.state(&state(1, b"a")).unwrap();
    assert_eq!(taker.state(&state(1, b"b")).unwrap_err(), "the incumbent sent batch 1 after batch 1");
    assert_eq!(taker.state(&state(2, b"a")).unwrap_err(), "the incumbent sent state 'a' twice");
    assert_eq!(
        taker.check(Totals { connections: 2, blobs: 1, state_bytes: 9 }).unwrap_err(),
        "the incumbent sent connections: 2, blobs of state: 1, bytes of it: 9; what has come: 0, 1, 3"
    );
}

#[test]
fn more_descriptors_than_the_successor_may_have_are_named() {
    let room = Room { descriptors_max: 100, open_descriptors: 10 };
    room.check(90).unwrap();
    let text = room.check(91).unwrap_err();
    assert!(text.contains("91") && text.contains("100"), "{text}");
    Room { descriptors_max: 0, open_descriptors: 10 }.check(1 << 40).unwrap();
}

#[test]
fn what_the_successor_does_not_have_is_counted() {
    let mut giver = Giver::new(HandoffId(1));
    let mut taker = Taker::default();
    for number in 0..3 {
        giver.add(Identity::Number(number), Connection { name: b"n".to_vec(), ..Connection::default() });
    }
    let message = giver.batch();
    giver.sent(message.clone());
    let blob = giver.state(b"k", 5, true);
    giver.sent(blob);
    giver.add(Identity::Number(3), Connection { name: b"n".to_vec(), ..Connection::default() });
    assert_eq!(giver.untaken(), 4);
    giver.withdraw(Identity::Number(3));
    assert_eq!((giver.untaken(), giver.has_connection(Identity::Number(3))), (3, false));
    let Message::Connections(batch) = &message else { panic!("not a batch") };
    assert!(matches!(taker.connections(batch), Ok(Message::Taken(Taken { batch: 1, .. }))));
    giver.taken(1).unwrap();
    assert_eq!((giver.untaken(), giver.is_done()), (0, false)); // a blob is on the way
    giver.taken(2).unwrap();
    assert!(giver.is_done());
}

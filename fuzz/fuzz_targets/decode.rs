//! Any bytes: what decodes encodes to bytes that decode to the same message.

#![no_main]

use handoff_fuzz::limits::FRAME_BYTES_MAX;
use handoff_fuzz::protocol::codec::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = decode(bytes) else { return };
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    let mut again = Vec::new();
    encode(&message, &mut again).unwrap();
    assert_eq!(decode(&again).as_ref(), Ok(&message));
    // Extensions are skipped, so it may become shorter, but never longer.
    assert!(again.len() <= bytes.len());
});

//! Any bytes: what decodes encodes to bytes that decode to the same message.

use crate::limits::FRAME_BYTES_MAX;
use crate::protocol::codec::{decode, encode};

/// One run.
pub fn run(bytes: &[u8]) {
    let Ok(message) = decode(bytes) else { return };
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    let mut again = Vec::new();
    encode(&message, &mut again).unwrap();
    assert_eq!(decode(&again).as_ref(), Ok(&message));
    // Extensions are skipped, so it may become shorter, but never longer.
    assert!(again.len() <= bytes.len());
}

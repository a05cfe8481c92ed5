//! A state as 64 bits.
//!
//! Two things are left out of a machine, on which nothing that it does depends: what a text for people says (only whether there is
//! one counts), and how many late messages it has dropped.

use std::hash::{Hash, Hasher};

/// Mixes what a value hashes.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint {
    state: u64,
    /// The state before the last `u64`, and that `u64`.
    before: Option<(u64, u64)>,
    /// Bytes of which is not known yet whether they are a text: length and hash.
    bytes: Option<(usize, u64)>,
}

impl Fingerprint {
    fn mix(&mut self, value: u64) {
        let x = (self.state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.state = x ^ (x >> 31);
        self.before = None;
    }

    fn flush(&mut self) {
        if let Some((_, hash)) = self.bytes.take() {
            self.mix(hash);
        }
    }

    /// A machine without its last field, the counter of dropped messages.
    pub fn machine<T: Hash>(&mut self, machine: &T, dropped: u64) {
        machine.hash(self);
        self.flush();
        let (state, last) = self.before.expect("the counter is the last field");
        assert_eq!(last, dropped, "the counter is the last field");
        self.state = state;
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.flush();
        let hash = bytes.iter().fold(1469, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        self.bytes = Some((bytes.len(), hash));
    }

    fn write_u8(&mut self, value: u8) {
        match self.bytes.take() {
            // How a `str` ends.
            Some((length, _)) if value == 0xff => self.mix(u64::from(length > 0)),
            Some((_, hash)) => {
                self.mix(hash);
                self.mix(u64::from(value));
            }
            None => self.mix(u64::from(value)),
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.flush();
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.flush();
        let before = self.state;
        self.mix(value);
        self.before = Some((before, value));
    }

    fn write_usize(&mut self, value: usize) {
        self.flush();
        self.mix(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.flush();
        self.mix(value.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        let mut end = self.clone();
        end.flush();
        end.mix(0);
        end.state
    }
}

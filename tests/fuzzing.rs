//! The fuzz targets of `fuzz/`, run briefly and without a fuzzer: over their seeds, and over inputs that are made of these by
//! chance. The chance is always the same, so a failure comes again.

// What `fuzz/src/lib.rs` compiles once more is the library here.
use handoff::{limits, protocol};

#[path = "../fuzz/src/bytes.rs"]
mod bytes;
#[path = "../fuzz/src/decode.rs"]
mod decode;
#[path = "../fuzz/src/incumbent.rs"]
mod incumbent;
#[path = "../fuzz/src/successor.rs"]
mod successor;
#[path = "../fuzz/src/supervisor.rs"]
mod supervisor;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// Inputs of each target beside its seeds: some seconds for all four.
const INPUTS: usize = 200_000;
const INPUT_BYTES_MAX: usize = 1024;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<'a>(&mut self, seeds: &'a [Vec<u8>]) -> &'a [u8] {
        &seeds[self.below(seeds.len())]
    }

    /// Small numbers are as frequent as all others: they are what the targets look at first.
    fn byte(&mut self) -> u8 {
        let byte = self.next() as u8;
        if self.next() & 1 == 0 { byte % 24 } else { byte }
    }

    /// The same seed with some changes.
    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.pick(seeds).to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 | 1 if at < bytes.len() => bytes[at] = self.byte(),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                3 => bytes.truncate(at),
                4 => {
                    let other = self.pick(seeds);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[self.below(other.len())..]);
                }
                _ => {
                    let more: Vec<u8> = (0..self.below(32)).map(|_| self.byte()).collect();
                    bytes.splice(at..at, more);
                }
            }
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }
}

fn fuzz(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("seed-"));
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty(), "no seeds");
    let mut chance = Chance(1);
    let made = (0..INPUTS).map(|_| chance.input(&seeds));
    for input in seeds.clone().into_iter().chain(made) {
        // A shared reference to bytes: nothing can be left broken.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&input))) {
            eprintln!("the input of {target}: {input:02x?}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn decode_briefly() {
    fuzz("decode", decode::run);
}

#[test]
fn supervisor_briefly() {
    fuzz("supervisor", supervisor::run);
}

#[test]
fn incumbent_briefly() {
    fuzz("incumbent", incumbent::run);
}

#[test]
fn successor_briefly() {
    fuzz("successor", successor::run);
}

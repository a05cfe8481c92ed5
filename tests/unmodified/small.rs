//! The small web server of `small.py`.

use crate::harness::{Place, text};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

/// A program that becomes the server with these options.
pub fn small(place: &Place, name: &str, options: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unmodified/small.py");
    place.file(name, format!("#!/bin/sh\nexec python3 {} {options}\n", text(&script)), 0o755)
}

/// An address that is known before anything is bound, and that nobody else has: its host is made of our pid.
pub fn own_address() -> SocketAddr {
    static NUMBER: AtomicU8 = AtomicU8::new(1);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = 20_000 + 256 * u16::from(high) + u16::from(NUMBER.fetch_add(1, Ordering::Relaxed));
    SocketAddr::from(([127, middle, low, 2], port))
}

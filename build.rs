//! Makes `handoff.h` from `src/ffi`, in `OUT_DIR`, and gives the shared library its name.

use std::env;
use std::path::{Path, PathBuf};

/// In the order of the header.
const SOURCES: [&str; 10] =
    ["enums", "structs", "handle", "library", "options", "start", "serve", "answer", "payload", "supervisor"];

fn main() {
    println!("cargo::rerun-if-changed=src/ffi");
    println!("cargo::rerun-if-changed=cbindgen.toml");
    // What a program looks for at run time; the atfork handler must stay; nothing may be left undefined.
    for argument in ["-soname,libhandoff.so.0", "-z,nodelete", "-z,defs"] {
        println!("cargo::rustc-cdylib-link-arg=-Wl,{argument}");
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let header = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("handoff.h");
    let _ = std::fs::remove_file(&header); // an old one is worse than none
    match generate(&root) {
        Ok(bindings) => drop(bindings.write_to_file(header)),
        // Most likely the source does not parse, and the compiler says that better.
        Err(error) => println!("cargo::warning=no handoff.h: {error}"),
    }
}

fn generate(root: &Path) -> Result<cbindgen::Bindings, cbindgen::Error> {
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let sources = SOURCES.map(|name| root.join("src/ffi").join(name).with_extension("rs"));
    sources.iter().fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src).generate()
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells the compiler that there is a `cfg(fuzzing)`: `cargo xtask fuzz parsers` sets it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
}

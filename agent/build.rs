// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Puts the object with the probes into the binary, when there is one.
//!
//! `MIGSCOPE_EBPF_OBJECT` names it (`cargo xtask build-ebpf` prints its path). Without it the agent is built all the same, for
//! checks and tests on machines that have no linker for BPF; it then says at its start that it carries no probes.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=MIGSCOPE_EBPF_OBJECT");
    println!("cargo:rustc-check-cfg=cfg(embedded_probes)");
    let Some(object) = env::var_os("MIGSCOPE_EBPF_OBJECT").map(PathBuf::from) else {
        return;
    };
    assert!(
        object.is_absolute(),
        "MIGSCOPE_EBPF_OBJECT must be an absolute path, it is {}",
        object.display()
    );
    println!("cargo:rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if let Err(error) = fs::copy(&object, out.join("probes.o")) {
        panic!("failed to copy MIGSCOPE_EBPF_OBJECT={}: {error}", object.display());
    }
    println!("cargo:rustc-cfg=embedded_probes");
}

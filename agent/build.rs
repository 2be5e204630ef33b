// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Puts into the binary what is not of this crate: the object with the probes, when there is one, and the runbooks.
//!
//! `MIGSCOPE_EBPF_OBJECT` names it (`cargo xtask build-ebpf` prints its path). Without it the agent is built all the same, for
//! checks and tests on machines that have no linker for BPF; it then says at its start that it carries no probes.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    probes(&out);
    runbooks(&out);
}

fn probes(out: &Path) {
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
    if let Err(error) = fs::copy(&object, out.join("probes.o")) {
        panic!("failed to copy MIGSCOPE_EBPF_OBJECT={}: {error}", object.display());
    }
    println!("cargo:rustc-cfg=embedded_probes");
}

/// Writes a table of all runbooks, by name.
fn runbooks(out: &Path) {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = PathBuf::from(manifest).join("../dashboards/runbooks");
    println!("cargo:rerun-if-changed={}", folder.display());
    let files = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("failed to list {}: {error}", folder.display()));
    let mut found = BTreeMap::new();
    for file in files {
        let path = file.expect("a folder that can be listed").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            // The folder's own index; the agent makes one of its pages.
            if name != "README" {
                found.insert(name, path);
            }
        }
    }
    let rows: String = found
        .iter()
        .map(|(name, path)| format!("({name:?}, include_str!({:?})),", path.display().to_string()))
        .collect();
    let table = format!("const RUNBOOKS: &[(&str, &str)] = &[{rows}];\n");
    fs::write(out.join("runbooks.rs"), table).expect("the build's own folder can be written");
}

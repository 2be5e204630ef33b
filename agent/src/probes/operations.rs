// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where device data moves: the functions behind the files that drivers hand out, learnt in two ways.
//!
//! ```text
//!   a driver's module is loaded ──▶ its functions, by signature ───────┐   before any data moves
//!   a file is handed out ─▶ DATA_OPS: addresses ─▶ kallsyms: names ────┴──▶ attached, each once
//! ```
//!
//! By the first way probes are in place before the first byte. The second makes up for drivers that have no type information or are
//! built into the kernel: then a driver's first file may be read from before its probes are there, and they count what they missed by the file's
//! position.

use super::kernel_types::{Candidates, KernelTypes, TypesError};
use migscope_abi::probe::FileOp;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Most functions that are attached to. A host has one or two drivers that migrate, with a handful of functions each.
const MOST: usize = 64;

/// Modules that use vfio, and those that use these, and so on: whoever migrates a device is among them.
pub fn vfio_users(sysfs: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut to_visit = vec!["vfio".to_owned(), "mdev".to_owned()];
    while let Some(module) = to_visit.pop() {
        let holders = sysfs.join("module").join(&module).join("holders");
        let entries = fs::read_dir(holders).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if found.insert(name.clone()) {
                to_visit.push(name);
            }
        }
    }
    found
}

/// Functions to attach to, and those that are attached.
#[derive(Debug, Default)]
pub struct Operations {
    /// The modules whose types were read.
    modules: BTreeSet<String>,
    wanted: Candidates,
    /// Addresses that were looked up already.
    looked_up: BTreeSet<u64>,
}

impl Operations {
    /// Whether there are modules whose types were not read yet, or no longer those that were.
    pub fn are_stale(&self, modules: &BTreeSet<String>) -> bool {
        self.modules != *modules
    }

    /// Reads the types of modules.
    ///
    /// # Errors
    ///
    /// [`TypesError::Unreadable`].
    pub fn read(
        &mut self,
        types: &KernelTypes,
        modules: BTreeSet<String>,
    ) -> Result<(), TypesError> {
        let found = types.candidates(modules.iter().map(String::as_str))?;
        self.modules = modules;
        self.want(found);
        Ok(())
    }

    /// Takes in the addresses that data files were seen to point to, and looks those up that are new.
    pub fn learn(&mut self, procfs: &Path, seen: &BTreeMap<u64, FileOp>) {
        let new: BTreeMap<_, _> =
            seen.iter().filter(|(address, _)| !self.looked_up.contains(address)).collect();
        if new.is_empty() {
            return;
        }
        self.looked_up.extend(new.keys().copied());
        let Ok(symbols) = fs::read_to_string(procfs.join("kallsyms")) else {
            return;
        };
        let mut found = Candidates::new();
        for (address, name) in symbols.lines().filter_map(symbol) {
            if let Some(op) = new.get(&address) {
                found.entry(**op).or_default().insert(name.into());
            }
        }
        self.want(found);
    }

    fn want(&mut self, found: Candidates) {
        for (op, names) in found {
            let wanted = self.wanted.entry(op).or_default();
            for name in names {
                if wanted.len() < MOST {
                    wanted.insert(name);
                }
            }
        }
    }

    /// The functions behind `op`, as far as they are known.
    pub fn functions(&self, op: FileOp) -> impl Iterator<Item = &str> {
        self.wanted.get(&op).into_iter().flatten().map(String::as_str)
    }
}

/// A function's address and name, from a line of `/proc/kallsyms`. Without CAP_SYSLOG all addresses read as 0.
fn symbol(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok().filter(|address| *address != 0)?;
    let kind = words.next()?;
    kind.eq_ignore_ascii_case("t").then_some(())?;
    Some((address, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "ffffffffc0a41000 t mtty_save_read\t[mtty]\n\
        ffffffffc0a41800 t mtty_resume_write\t[mtty]\n\
        ffffffffc0a41800 d not_a_function\t[mtty]\n\
        0000000000000000 t hidden\t[mtty]\n\
        what is this\n";

    #[test]
    fn an_address_that_a_file_pointed_to_becomes_a_name_once() {
        let proc = tempfile::tempdir().expect("a folder");
        fs::write(proc.path().join("kallsyms"), SYMBOLS).expect("written");
        let mut operations = Operations::default();
        let seen = BTreeMap::from([
            (0xffff_ffff_c0a4_1000, FileOp::Read),
            (0xffff_ffff_c0a4_1800, FileOp::Write),
            (0, FileOp::Ioctl),
        ]);
        operations.learn(proc.path(), &seen);
        let functions = |op| operations.functions(op).collect::<Vec<_>>();
        assert_eq!(functions(FileOp::Read), ["mtty_save_read"]);
        assert_eq!(functions(FileOp::Write), ["mtty_resume_write"]);
        assert_eq!(functions(FileOp::Ioctl), [""; 0]);
        fs::remove_file(proc.path().join("kallsyms")).expect("removed");
        operations.learn(proc.path(), &seen);
        assert_eq!(operations.functions(FileOp::Read).count(), 1);
    }

    #[test]
    fn whoever_uses_vfio_by_way_of_another_module_is_found() {
        let sys = tempfile::tempdir().expect("a folder");
        for path in [
            "vfio/holders/vfio_pci_core",
            "vfio_pci_core/holders/mlx5_vfio_pci",
            "mdev/holders/mtty",
        ] {
            fs::create_dir_all(sys.path().join("module").join(path)).expect("made");
        }
        let users = vfio_users(sys.path());
        assert_eq!(
            users.iter().map(String::as_str).collect::<Vec<_>>(),
            ["mlx5_vfio_pci", "mtty", "vfio_pci_core"]
        );
    }
}

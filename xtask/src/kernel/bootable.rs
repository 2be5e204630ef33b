// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest needs to know of a kernel, whoever built it.

use std::path::{Path, PathBuf};

/// A kernel that the guest can run.
pub(crate) trait Bootable {
    /// The bzImage.
    fn image(&self) -> PathBuf;
    /// What `uname -r` says in the guest.
    fn release(&self) -> &str;
    /// What belongs at `/lib/modules/RELEASE` in the guest.
    fn modules(&self) -> PathBuf;
    /// Files of modules without which the guest finds neither its root nor its host: in the order in which they
    /// can be loaded, and not compressed. None where all of that is built in.
    fn early(&self) -> &[PathBuf];
    /// Modules that modprobe loads before the command: all that there is of VFIO.
    fn vfio_modules(&self) -> &'static [&'static str];
    /// Whether the kernel watches itself (lockdep, KASAN, kmemleak).
    fn watches_itself(&self) -> bool;
    /// The build tree that `vfio_mediate` can be built against, if there is one.
    fn driver_tree(&self) -> Option<PathBuf>;
}

/// The name of a module of a file: `vfio-pci.ko.xz` is `vfio-pci`.
pub(super) fn module_name(file: &Path) -> Option<&str> {
    let name = file.file_name()?.to_str()?;
    let stem = name.strip_suffix(".xz").unwrap_or(name);
    stem.strip_suffix(".ko")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_by_its_file() {
        assert_eq!(module_name(Path::new("/a/vfio-pci.ko.xz")), Some("vfio-pci"));
        assert_eq!(module_name(Path::new("9p.ko")), Some("9p"));
        assert_eq!(module_name(Path::new("modules.dep")), None);
    }
}

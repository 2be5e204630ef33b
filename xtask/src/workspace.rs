// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where things are: the checkout, cargo's output, this very program.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cargo_metadata::MetadataCommand;

use crate::cache::Cache;

/// What every subcommand needs to know.
pub(crate) struct Workspace {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Cargo's output folder.
    pub(crate) target: PathBuf,
    /// This program. Read once at the start: a nested cargo may replace the file, and then the kernel
    /// only says "(deleted)" of it, while the path stays good.
    pub(crate) xtask: PathBuf,
    pub(crate) cache: Cache,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let xtask = std::env::current_exe().context("failed to find this program's own file")?;
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().expect("xtask is a folder of the checkout").to_owned();
        let metadata = MetadataCommand::new()
            .current_dir(&root)
            .no_deps()
            .exec()
            .with_context(|| format!("failed to read the workspace at {}", root.display()))?;
        let target = metadata.target_directory.into_std_path_buf();
        Ok(Self { root, target, xtask, cache: Cache::of_user()? })
    }

    /// A folder for what xtask itself builds.
    pub(crate) fn output(&self, name: &str) -> Result<PathBuf> {
        let path = self.target.join("xtask").join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("failed to make {}", path.display()))?;
        Ok(path)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files for parsers that open theirs themselves: in memory, where there is such a file system, for they are written a thousand times
//! a second.

use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tempfile::{Builder, TempDir};

const IN_MEMORY: &str = "/dev/shm";

/// A folder that goes when it is dropped.
pub struct Scratch(TempDir);

impl Scratch {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// No folder can be made.
    pub fn new() -> io::Result<Self> {
        let mut builder = Builder::new();
        builder.prefix("migscope-parsers-");
        builder.tempdir_in(IN_MEMORY).or_else(|_absent| builder.tempdir()).map(Self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, and makes the folders above it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.path().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, bytes)?;
        Ok(path)
    }
}

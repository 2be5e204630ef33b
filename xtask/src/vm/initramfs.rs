// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's initramfs: busybox, the init script, the job, and the modules that a kernel needs to find its root.
//!
//! Not compressed: QEMU hands a few MB over faster than the guest would unpack them.

use std::fs::{self, File};
use std::io::{Cursor, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::NewcBuilder;

use super::job::Job;

/// Of the package busybox-static.
const BUSYBOX: &str = "/bin/busybox";

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;

/// Writes the archive. The init script loads the modules by the order of their names.
pub(crate) fn write(
    path: &Path,
    init: &Path,
    xtask: &Path,
    modules: &[PathBuf],
    job: &Job,
) -> Result<()> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let job = serde_json::to_vec(job).context("failed to write the job down")?;
    let mut entries = vec![
        ("bin".to_owned(), DIRECTORY, Vec::new()),
        ("bin/busybox".to_owned(), PROGRAM, read(Path::new(BUSYBOX))?),
        ("init".to_owned(), PROGRAM, read(init)?),
        ("xtask-path".to_owned(), TEXT, xtask.as_os_str().as_bytes().to_vec()),
        ("job.json".to_owned(), TEXT, job),
        ("modules".to_owned(), DIRECTORY, Vec::new()),
    ];
    for module in modules {
        let name = module.file_name().context("a module's file has no name")?;
        entries.push((format!("modules/{}", name.display()), TEXT, read(module)?));
    }
    let inputs = entries.into_iter().zip(1_u32..).map(|((name, mode, content), inode)| {
        (NewcBuilder::new(&name).ino(inode).mode(mode).nlink(1), Cursor::new(content))
    });
    let file = File::create(path)
        .with_context(|| format!("failed to make the initramfs {}", path.display()))?;
    let mut file = cpio::write_cpio(inputs, file).context("failed to write the initramfs")?;
    file.flush().context("failed to write the initramfs")
}

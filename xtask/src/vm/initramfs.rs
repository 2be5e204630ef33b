// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's initramfs: busybox, the init script, the job.
//!
//! Not compressed: QEMU hands 2 MB over faster than the guest would unpack them.

use std::fs::{self, File};
use std::io::{Cursor, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use cpio::NewcBuilder;

use super::job::Job;

/// Of the package busybox-static.
const BUSYBOX: &str = "/bin/busybox";

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;

/// Writes the archive.
pub(crate) fn write(path: &Path, init: &Path, xtask: &Path, job: &Job) -> Result<()> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let job = serde_json::to_vec(job).context("failed to write the job down")?;
    let entries = [
        ("bin", DIRECTORY, Vec::new()),
        ("bin/busybox", PROGRAM, read(Path::new(BUSYBOX))?),
        ("init", PROGRAM, read(init)?),
        ("xtask-path", TEXT, xtask.as_os_str().as_bytes().to_vec()),
        ("job.json", TEXT, job),
    ];
    let inputs = entries.into_iter().zip(1_u32..).map(|((name, mode, content), inode)| {
        (NewcBuilder::new(name).ino(inode).mode(mode).nlink(1), Cursor::new(content))
    });
    let file = File::create(path)
        .with_context(|| format!("failed to make the initramfs {}", path.display()))?;
    let mut file = cpio::write_cpio(inputs, file).context("failed to write the initramfs")?;
    file.flush().context("failed to write the initramfs")
}

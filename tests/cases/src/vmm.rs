// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU inside the guest, as a VMM that migrates devices by the v2 protocol, and its own account of what it did.
//!
//! ```text
//!   a test ── QMP ────────▶ QEMU A ── vfio-pci ──▶ mtty device       query-migrate, VFIO_MIGRATION events
//!     │  └─── trace file ◀──   │ socket                              trace events vfio_*
//!     │                        ▼
//!     └─ QMP, trace file ──▶ QEMU B ── vfio-pci ──▶ mtty device
//! ```

pub mod machine;
pub mod qmp;
pub mod trace;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::session::PATIENCE;
pub use machine::{Accelerator, Firmware, Machine, Plan};
pub use qmp::Qmp;
pub use trace::Trace;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Connects to a socket as soon as QEMU has it.
///
/// # Errors
///
/// When QEMU ends, or does not have it in time.
pub fn connect(process: &mut Child, path: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                // So that a QEMU that hangs fails the test and does not hang it.
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("could not reach {}", path.display()));
            }
            Err(_not_yet) => {}
        }
        if let Some(status) = process.try_wait()? {
            bail!("it has ended with {status}");
        }
        std::thread::sleep(POLL);
    }
}

/// Polls until a condition holds.
///
/// # Panics
///
/// When it does not within [`PATIENCE`].
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        std::thread::sleep(POLL);
    }
}

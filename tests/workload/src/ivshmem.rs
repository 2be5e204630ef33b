// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's device `ivshmem-plain` (PCI 1af4:1110): a memory behind a BAR.
//!
//! ```text
//!  BAR 0  0x00 interrupt mask rw   0x04 interrupt status rw   0x08 position ro   0x0c doorbell wo
//!  BAR 2  the memory: a power of two of bytes
//! ```
//!
//! A plain one has no peers: its position is 0, the doorbell rings nowhere, and no interrupt comes. A read of the status clears it.
//!
//! Source: QEMU `docs/specs/ivshmem-spec.rst`, `hw/misc/ivshmem.c`.

use std::io;
use std::sync::Arc;

use crate::content::Write;
use crate::edu::Registers;
use crate::mapping::Mapping;

/// Vendor and device number.
pub const IDS: (u16, u16) = (0x1af4, 0x1110);
/// The BAR of the registers.
pub const REGISTERS_BAR: u32 = 0;
/// The BAR of the memory.
pub const MEMORY_BAR: u32 = 2;
/// Length of the registers' BAR, in bytes.
pub const REGISTERS_BYTES: u64 = 256;

/// Offset of the interrupt mask.
pub const MASK: u64 = 0x00;
/// Offset of the interrupt status.
pub const STATUS: u64 = 0x04;
/// Offset of the position.
pub const POSITION: u64 = 0x08;
/// Offset of the doorbell.
pub const DOORBELL: u64 = 0x0c;

/// How a workload reaches the memory.
pub trait Words {
    /// Writes one word.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    fn write(&self, write: Write) -> io::Result<()>;
}

/// As a guest's processor does.
impl Words for Arc<Mapping> {
    fn write(&self, write: Write) -> io::Result<()> {
        let at = usize::try_from(write.at()).map_err(io::Error::other)?;
        self.store(at, write.word);
        Ok(())
    }
}

/// As a VMM does that traps the guest's accesses: by a system call each.
#[derive(Debug)]
pub struct ByCalls<R>(pub R);

impl<R: Registers> Words for ByCalls<R> {
    fn write(&self, write: Write) -> io::Result<()> {
        self.0.write(write.at(), &write.word.to_le_bytes())
    }
}

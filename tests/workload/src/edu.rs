// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The registers of QEMU's teaching device `edu` (PCI 1234:11e8), which live in its BAR 0.
//!
//! ```text
//!  0x00 identification ro   0x04 liveness: reads as the complement of what was written
//!  0x08 factorial: write n, read n! (modulo 2^32) once the status says so
//!  0x20 status              0x24 interrupt status ro   0x60 raise wo   0x64 acknowledge wo
//!  0x80 DMA source          0x88 DMA destination       0x90 DMA count  0x98 DMA command
//! ```
//!
//! The device has a buffer at its own address 0x40000, which only DMA reaches. A transfer runs 100 ms after its command; until
//! then the DMA registers take no writes.
//!
//! Sources: QEMU `docs/specs/edu.rst`, `hw/misc/edu.c`. The latter checks `end < 0x41000`, so the buffer's last byte cannot be
//! reached and a transfer has at most 4095 bytes.

use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Where the buffer is in the device's own address space.
pub const BUFFER_ADDRESS: u64 = 0x4_0000;
/// The bytes of the buffer that a transfer can reach.
pub const BUFFER_BYTES: u32 = 4095;
/// The device drives memory addresses below this one.
pub const ADDRESS_LIMIT: u64 = 1 << 28;
/// How long a transfer takes from its command on.
pub const TRANSFER_TIME: Duration = Duration::from_millis(100);

/// Offset of the identification register.
pub const ID: u64 = 0x00;
/// Offset of the liveness register.
pub const LIVENESS: u64 = 0x04;
/// Offset of the factorial register.
pub const FACTORIAL: u64 = 0x08;
/// Offset of the status register.
pub const STATUS: u64 = 0x20;
/// Offset of the interrupt status register.
pub const IRQ_STATUS: u64 = 0x24;
/// Offset of the register that raises interrupts.
pub const IRQ_RAISE: u64 = 0x60;
/// Offset of the register that acknowledges interrupts.
pub const IRQ_ACK: u64 = 0x64;
/// Offset of the DMA source register.
pub const DMA_SRC: u64 = 0x80;
/// Offset of the DMA destination register.
pub const DMA_DST: u64 = 0x88;
/// Offset of the DMA count register.
pub const DMA_COUNT: u64 = 0x90;
/// Offset of the DMA command register.
pub const DMA_CMD: u64 = 0x98;

/// `status`: a factorial is being computed.
pub const STATUS_COMPUTING: u32 = 0x01;
/// `status`: raise an interrupt when the factorial is there.
pub const STATUS_IRQ_ON_FACTORIAL: u32 = 0x80;
/// `cmd`: a transfer is under way; writing it starts one.
pub const CMD_RUN: u64 = 0x01;
/// `cmd`: from the buffer to memory; without it from memory to the buffer.
pub const CMD_TO_MEMORY: u64 = 0x02;
/// `cmd`: raise an interrupt at the end.
pub const CMD_IRQ: u64 = 0x04;

/// How the registers are reached: a BAR behind VFIO, or a model of one in a test.
pub trait Registers {
    /// Reads `bytes.len()` bytes at `offset` in one access.
    ///
    /// # Errors
    ///
    /// What the access failed with; a short one is an error.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` at `offset` in one access.
    ///
    /// # Errors
    ///
    /// What the access failed with; a short one is an error.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// What the readable registers hold: with the buffer, all of the device that migrates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Identification.
    pub id: u32,
    /// Liveness, as it reads.
    pub liveness: u32,
    /// Factorial.
    pub factorial: u32,
    /// Status.
    pub status: u32,
    /// Interrupt status.
    pub irq_status: u32,
    /// DMA source address.
    pub dma_src: u64,
    /// DMA destination address.
    pub dma_dst: u64,
    /// DMA count, in bytes.
    pub dma_count: u64,
    /// DMA command.
    pub dma_cmd: u64,
}

/// A DMA transfer as the device's registers express it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Address in memory.
    pub memory: u64,
    /// Offset in the device's buffer.
    pub buffer_at: u32,
    /// Length, in bytes.
    pub bytes: u32,
    /// From the buffer to memory, or the other way.
    pub to_memory: bool,
}

/// The device, by its registers.
#[derive(Debug)]
pub struct Edu<R>(R);

impl<R: Registers> Edu<R> {
    /// Takes hold of the registers.
    pub fn new(registers: R) -> Self {
        Self(registers)
    }

    /// The registers themselves, for accesses that no method makes.
    pub fn registers(&self) -> &R {
        &self.0
    }

    /// Reads a register of four bytes.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    pub fn read_u32(&self, offset: u64) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.0.read(offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a register of eight bytes.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    pub fn read_u64(&self, offset: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read(offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a register of four bytes.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    pub fn write_u32(&self, offset: u64, value: u32) -> io::Result<()> {
        self.0.write(offset, &value.to_le_bytes())
    }

    /// Writes a register of eight bytes.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    pub fn write_u64(&self, offset: u64, value: u64) -> io::Result<()> {
        self.0.write(offset, &value.to_le_bytes())
    }

    /// Reads every readable register.
    ///
    /// # Errors
    ///
    /// What the first failed access failed with.
    pub fn snapshot(&self) -> io::Result<Snapshot> {
        Ok(Snapshot {
            id: self.read_u32(ID)?,
            liveness: self.read_u32(LIVENESS)?,
            factorial: self.read_u32(FACTORIAL)?,
            status: self.read_u32(STATUS)?,
            irq_status: self.read_u32(IRQ_STATUS)?,
            dma_src: self.read_u64(DMA_SRC)?,
            dma_dst: self.read_u64(DMA_DST)?,
            dma_count: self.read_u64(DMA_COUNT)?,
            dma_cmd: self.read_u64(DMA_CMD)?,
        })
    }

    /// Computes a factorial and waits for it.
    ///
    /// # Errors
    ///
    /// What an access failed with, or [`io::ErrorKind::TimedOut`].
    pub fn factorial(&self, of: u32, patience: Duration) -> io::Result<u32> {
        self.write_u32(FACTORIAL, of)?;
        wait(patience, "the factorial", || Ok(self.read_u32(STATUS)? & STATUS_COMPUTING == 0))?;
        self.read_u32(FACTORIAL)
    }

    /// Programs a transfer and gives the command, without waiting for its end.
    ///
    /// # Errors
    ///
    /// What an access failed with.
    pub fn start(&self, transfer: Transfer) -> io::Result<()> {
        let device = BUFFER_ADDRESS + u64::from(transfer.buffer_at);
        let (src, dst, direction) = if transfer.to_memory {
            (device, transfer.memory, CMD_TO_MEMORY)
        } else {
            (transfer.memory, device, 0)
        };
        self.write_u64(DMA_SRC, src)?;
        self.write_u64(DMA_DST, dst)?;
        self.write_u64(DMA_COUNT, u64::from(transfer.bytes))?;
        self.write_u64(DMA_CMD, CMD_RUN | direction)
    }

    /// Whether a transfer is under way.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    pub fn is_transferring(&self) -> io::Result<bool> {
        Ok(self.read_u64(DMA_CMD)? & CMD_RUN != 0)
    }

    /// Waits for the end of the transfer that is under way, if there is one.
    ///
    /// # Errors
    ///
    /// What an access failed with, or [`io::ErrorKind::TimedOut`].
    pub fn wait_for_transfer(&self, patience: Duration) -> io::Result<()> {
        wait(patience, "the DMA transfer", || Ok(!self.is_transferring()?))
    }

    /// Runs a transfer to its end.
    ///
    /// # Errors
    ///
    /// What an access failed with, or [`io::ErrorKind::TimedOut`].
    pub fn transfer(&self, transfer: Transfer, patience: Duration) -> io::Result<()> {
        self.start(transfer)?;
        self.wait_for_transfer(patience)
    }
}

/// Polls until `done` says so.
fn wait(patience: Duration, what: &str, done: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(2);
    let deadline = Instant::now() + patience;
    while !done()? {
        if Instant::now() >= deadline {
            let text = format!("{what} is not over after {} ms", patience.as_millis());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

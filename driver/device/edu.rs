// SPDX-License-Identifier: GPL-2.0
//! QEMU's `edu` (`docs/specs/edu.txt`, `hw/misc/edu.c`): a factorial engine, an interrupt register, and a DMA engine with a
//! buffer of 4 KiB.
//!
//! ```text
//!   0x04 liveness     stores the complement of what is written
//!   0x08 factorial    a write of n computes n! mod 2^32; reads as n meanwhile
//!   0x20 status       bit 0 computing, bit 7 raise an interrupt when done
//!   0x24 irq status   0x60 raises bits of it, 0x64 acknowledges them
//!   0x80 source       0x88 destination, 0x90 count, 0x98 command of the DMA engine
//! ```
//!
//! What makes it hard:
//!
//! - The buffer is reachable by nothing but the device's DMA, which takes 100 ms. It is moved by a transfer of the driver's
//!   own to a page of the driver's own ([`Scratch`]), when its record is staged and when the image is committed.
//! - The command register keeps the last command, and writing one starts a transfer. The driver's own transfers would show
//!   in it, and on the destination it could not be restored at all: so the user sees a virtual one.
//! - QEMU 7.2 ends the whole machine if a transfer leaves the buffer (`edu_check_range()`), and takes a transfer that ends with
//!   the buffer for one that leaves it. So the doorbell is checked, and the buffer's last byte is out of reach, for the user as
//!   for the driver.
//! - A factorial cannot be written. It is restored by computing it again, from the n that has this factorial.
//! - A large n computes for seconds. Such a computation is not waited for; it is carried as "computing n" and starts again.

use kernel::{
    num::casts::usize_as_u64,
    prelude::*,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
};
use zerocopy::byteorder::little_endian::{
    U32,
    U64, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use crate::{
    abi::{
        rule::Rule,
        trace::DmaDirection, //
    },
    device::{
        DeviceModel,
        Refusal,
        Transfer, //
    },
    image::{
        Identity,
        Kind,
        Part,
        Record, //
    },
    mediate::Leftover,
    vfio::{
        Decoding,
        Device,
        Scratch, //
    },
};

/// Vendor and device number.
pub(super) const IDS: (u16, u16) = (0x1234, 0x11e8);

const BAR: u32 = 0;

const LIVENESS: u64 = 0x04;
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;
const IRQ_STATUS: u64 = 0x24;
const IRQ_RAISE: u64 = 0x60;
const IRQ_ACKNOWLEDGE: u64 = 0x64;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;

/// [`STATUS`]: a factorial is being computed.
const COMPUTING: u32 = 0x01;
/// [`STATUS`]: raise [`FACTORIAL_IRQ`] when it is done.
const IRQ_WHEN_DONE: u32 = 0x80;
/// [`IRQ_STATUS`]: a factorial is done.
const FACTORIAL_IRQ: u32 = 0x01;

/// [`COMMAND`]: start, and under way.
const RUN: u64 = 1 << 0;
/// [`COMMAND`]: from the buffer to memory; else from memory to the buffer.
const TO_MEMORY: u64 = 1 << 1;

/// Where the DMA engine sees the buffer.
const BUFFER: u64 = 0x4_0000;
/// Bytes of the buffer that a transfer can reach.
const BUFFER_BYTES: usize = 4095;
/// The engine drives 28 address bits and drops the others.
const ADDRESS_LIMIT: u64 = 1 << 28;
/// Where a PC has its VGA adapter's memory, and so no RAM that a VMM would map for DMA.
const VGA_HOLE: u64 = 0xa_0000;

/// 34! has 32 factors of two, so it and all that follow are 0 mod 2^32.
const LAST_FACTORIAL: u32 = 34;

const POLL: Delta = Delta::from_millis(1);
/// A transfer takes 100 ms.
const DMA_DEADLINE: Delta = Delta::from_secs(2);
/// 2^32 - 1 multiplications take some seconds.
const FACTORIAL_DEADLINE: Delta = Delta::from_secs(20);

const IDENTITY: Identity = Identity::new(IDS.0, IDS.1, 1);
const REGISTERS: Kind = Kind(1);
const MEMORY: Kind = Kind(2);
const PARTS: [Part; 2] = [
    Part { kind: REGISTERS, max_bytes: size_of::<Registers>() },
    // Empty if all bytes are zero.
    Part { kind: MEMORY, max_bytes: BUFFER_BYTES },
];

/// The payload of [`REGISTERS`].
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Registers {
    liveness: U32,
    /// The result, or n while `computing`.
    factorial: U32,
    /// 0 or 1.
    computing: U32,
    /// [`IRQ_WHEN_DONE`] or 0.
    status: U32,
    irq_status: U32,
    reserved: U32,
    source: U64,
    destination: U64,
    count: U64,
    /// The user's last command, without [`RUN`].
    command: U64,
}

impl Registers {
    const POWER_ON: Self = Self {
        liveness: U32::ZERO,
        factorial: U32::ZERO,
        computing: U32::ZERO,
        status: U32::ZERO,
        irq_status: U32::ZERO,
        reserved: U32::ZERO,
        source: U64::ZERO,
        destination: U64::ZERO,
        count: U64::ZERO,
        command: U64::ZERO,
    };
}

/// The smallest n whose factorial, mod 2^32, is `result`; 0 stands for the register at power-on too, and is 34!.
fn inverse_factorial(result: u32) -> Option<u32> {
    let mut factorial: u32 = 1;
    (0..=LAST_FACTORIAL).find(|n| {
        if *n > 0 {
            factorial = factorial.wrapping_mul(*n);
        }
        factorial == result
    })
}

/// What the buffer holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Buffer {
    /// Zeros.
    Zero,
    /// Something of an earlier life, where zeros should be. Nobody can see it, for only DMA reaches the buffer, and before
    /// the user's next transfer it is made zero.
    Stale,
    /// What the user put there.
    Used,
}

/// Whether the device's own [`IRQ_WHEN_DONE`] is off although the user has it on, and why.
///
/// The engine looks at the bit some time after it has cleared [`COMPUTING`], and nothing tells when: so the bit cannot be
/// switched on just after a computation of the driver's, nor off just after one of the user's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Withheld {
    /// It is what the user has.
    No,
    /// The driver computed something last, and the engine may not have looked yet. The bit goes on with the user's next
    /// computation; until then it means nothing.
    UntilComputing,
    /// A computation of the user's goes on in a device at rest, which must not raise interrupts. When it ends, one is owed.
    Owed,
}

/// An open `edu` device.
pub(super) struct Edu {
    buffer: Buffer,
    /// The user's last command, without [`RUN`].
    command: u64,
    /// The user's transfer that has not been seen to be over.
    under_way: Option<Transfer>,
    /// The n that the user has computed last.
    n: u32,
    withheld: Withheld,
}

impl Edu {
    /// A model for a device that is being opened.
    pub(super) fn new(left: Leftover) -> Self {
        Self {
            buffer: if left == Leftover::Clean { Buffer::Zero } else { Buffer::Stale },
            command: 0,
            under_way: None,
            n: 0,
            withheld: Withheld::No,
        }
    }

    /// The transfer that the DMA registers describe, if it stays in the buffer and below the last address.
    ///
    /// The registers are read back, not remembered: what a write of four bytes does to a register of eight is the device's
    /// secret, and only this driver can write them.
    fn asked_transfer(device: &Device, command: u64) -> Result<Transfer, Refusal> {
        let [source, destination, bytes] =
            [SOURCE, DESTINATION, COUNT].map(|register| device.bar_read(BAR, register, 8));
        let (source, destination, bytes) = (source?, destination?, bytes?);
        let (direction, inside, iova) = if command & TO_MEMORY != 0 {
            (DmaDirection::ToMemory, source, destination)
        } else {
            (DmaDirection::FromMemory, destination, source)
        };
        let ends_below =
            |start: u64, limit: u64| start.checked_add(bytes).is_some_and(|end| end <= limit);
        let transfer = Transfer { direction, iova, bytes };
        let fits = bytes > 0
            && inside >= BUFFER
            && ends_below(inside, BUFFER + usize_as_u64(BUFFER_BYTES))
            && ends_below(iova, ADDRESS_LIMIT);
        if fits {
            Ok(transfer)
        } else {
            Err(Refusal { rule: Rule::DmaRange, transfer: Some(transfer) })
        }
    }

    /// The user writes a command.
    fn doorbell(&mut self, device: &Device, width: usize, command: u64) -> Result<(), Refusal> {
        // The device ignores a command that does not start anything, and any command while a transfer is under way. The
        // latter must not be left to the device: the transfer may end between our look and its own.
        if command & RUN == 0 || self.under_way.is_some() {
            return Ok(());
        }
        let transfer = Self::asked_transfer(device, command)?;
        if self.buffer == Buffer::Stale {
            let scratch = device.scratch(VGA_HOLE, ADDRESS_LIMIT)?;
            self.move_buffer(&Hardware(device.decode()), &scratch, DmaDirection::FromMemory)?;
            self.buffer = Buffer::Zero;
        }
        device.bar_write(BAR, COMMAND, width, command)?;
        if matches!(transfer.direction, DmaDirection::FromMemory) {
            self.buffer = Buffer::Used;
        }
        self.command = command & !RUN;
        self.under_way = Some(transfer);
        Ok(())
    }

    /// Moves the buffer by a transfer of the driver's own. The user's registers are put back afterwards.
    fn move_buffer(
        &self,
        hardware: &Hardware<'_>,
        scratch: &Scratch,
        direction: DmaDirection,
    ) -> Result<(), Rule> {
        let users = [SOURCE, DESTINATION, COUNT].map(|register| hardware.read64(register));
        let (source, destination, command) = match direction {
            DmaDirection::ToMemory => (BUFFER, scratch.iova(), RUN | TO_MEMORY),
            DmaDirection::FromMemory => (scratch.iova(), BUFFER, RUN),
        };
        hardware.write64(SOURCE, source)?;
        hardware.write64(DESTINATION, destination)?;
        hardware.write64(COUNT, usize_as_u64(BUFFER_BYTES))?;
        hardware.write64(COMMAND, command)?;
        // Nothing can be said of a device whose engine does not come to an end, and the user's registers are gone.
        hardware.wait_for_dma().map_err(|_| Rule::DeviceFailed)?;
        for (register, value) in [SOURCE, DESTINATION, COUNT].into_iter().zip(users) {
            hardware.write64(register, value?)?;
        }
        Ok(())
    }

    /// Brings the registers to a state. The device is at rest; it runs afterwards.
    fn write_registers(&mut self, hardware: &Hardware<'_>, to: &Registers) -> Result<(), Rule> {
        let result = if to.computing.get() != 0 { 0 } else { to.factorial.get() };
        let n = inverse_factorial(result).ok_or(Rule::DeviceFailed)?;

        // The computation that puts the factorial back raises no interrupt. It also makes sure that the engine has done with
        // the one before, so what is acknowledged afterwards stays acknowledged.
        hardware.write32(STATUS, 0)?;
        hardware.wait_for_factorial()?;
        hardware.write32(FACTORIAL, n)?;
        hardware.wait_for_factorial()?;

        hardware.write32(IRQ_ACKNOWLEDGE, u32::MAX)?;
        hardware.write32(LIVENESS, !to.liveness.get())?;
        hardware.write64(SOURCE, to.source.get())?;
        hardware.write64(DESTINATION, to.destination.get())?;
        hardware.write64(COUNT, to.count.get())?;
        self.command = to.command.get();
        self.under_way = None;
        self.n = to.factorial.get();
        self.withheld = Withheld::No;

        if to.computing.get() != 0 {
            hardware.write32(STATUS, to.status.get())?;
            hardware.write32(FACTORIAL, to.factorial.get())?;
        } else if to.status.get() != 0 {
            self.withheld = Withheld::UntilComputing;
        }
        // Last, when all that a handler may look at is there. Raising sends the interrupt again, though the guest may have
        // had it already: a spurious one is harmless, while a lost one lets the guest wait for ever.
        if to.irq_status.get() != 0 {
            hardware.write32(IRQ_RAISE, to.irq_status.get())?;
        }
        Ok(())
    }

    fn save_registers(&self, hardware: &Hardware<'_>) -> Result<Registers, Rule> {
        // While the engine computes, the register reads as n. It reads as the result a moment before COMPUTING is cleared.
        let computing = hardware.read32(STATUS)? & COMPUTING != 0
            && hardware.read32(FACTORIAL)? == self.n
            && hardware.read32(STATUS)? & COMPUTING != 0;
        let factorial = if computing {
            self.n
        } else {
            hardware.wait_for_factorial()?;
            let result = hardware.read32(FACTORIAL)?;
            inverse_factorial(result).ok_or(Rule::DeviceFailed)?;
            result
        };
        Ok(Registers {
            liveness: U32::new(hardware.read32(LIVENESS)?),
            factorial: U32::new(factorial),
            computing: U32::new(computing.into()),
            status: U32::new(self.status_as_seen(hardware.read32(STATUS)?) & IRQ_WHEN_DONE),
            irq_status: U32::new(self.irqs_as_seen(hardware.read32(IRQ_STATUS)?, computing)),
            reserved: U32::ZERO,
            source: U64::new(hardware.read64(SOURCE)?),
            destination: U64::new(hardware.read64(DESTINATION)?),
            count: U64::new(hardware.read64(COUNT)?),
            command: U64::new(self.command),
        })
    }

    /// The status register as the user knows it.
    fn status_as_seen(&self, status: u32) -> u32 {
        match self.withheld {
            Withheld::No => status,
            Withheld::UntilComputing | Withheld::Owed => status | IRQ_WHEN_DONE,
        }
    }

    /// The interrupt status as the user knows it: a computation that ended while the device was at rest owes an interrupt.
    fn irqs_as_seen(&self, irqs: u32, computing: bool) -> u32 {
        if self.withheld == Withheld::Owed && !computing {
            irqs | FACTORIAL_IRQ
        } else {
            irqs
        }
    }

    /// The user writes n.
    fn compute(&mut self, device: &Device, n: u32) -> Result<(), Rule> {
        // The engine ignores n while it computes. As with the doorbell, that is not left to it: it may be done just now, and
        // then which n it computes would not be known.
        if device.bar_read(BAR, STATUS, 4)? & u64::from(COMPUTING) != 0 {
            return Ok(());
        }
        if self.withheld == Withheld::UntilComputing {
            device.bar_write(BAR, STATUS, 4, IRQ_WHEN_DONE.into())?;
            self.withheld = Withheld::No;
        }
        device.bar_write(BAR, FACTORIAL, 4, n.into())?;
        self.n = n;
        Ok(())
    }

    /// Waits for the user's transfer and brings everything to its power-on state, but for the buffer.
    fn reset_registers(&mut self, hardware: &Hardware<'_>) -> Result<(), Rule> {
        hardware.wait_for_dma()?;
        self.write_registers(hardware, &Registers::POWER_ON).map_err(|_| Rule::DeviceFailed)?;
        if self.buffer == Buffer::Used {
            self.buffer = Buffer::Stale;
        }
        Ok(())
    }
}

impl DeviceModel for Edu {
    fn identity(&self) -> Identity {
        IDENTITY
    }

    fn parts(&self) -> &'static [Part] {
        &PARTS
    }

    fn trapped_bar(&self) -> u32 {
        BAR
    }

    fn bar_read(&mut self, device: &Device, offset: u64, width: usize) -> Result<u64, Rule> {
        let value = device.bar_read(BAR, offset, width)?;
        Ok(match (offset, width) {
            (COMMAND, 4 | 8) => {
                let seen = self.command | if self.under_way.is_some() { RUN } else { 0 };
                if width == 4 {
                    seen & u64::from(u32::MAX)
                } else {
                    seen
                }
            }
            (STATUS, 4) => self.status_as_seen(u32::try_from(value).unwrap_or(0)).into(),
            (IRQ_STATUS, 4) if self.withheld == Withheld::Owed => {
                let computing = device.bar_read(BAR, STATUS, 4)? & u64::from(COMPUTING) != 0;
                value | u64::from(self.irqs_as_seen(0, computing))
            }
            _ => value,
        })
    }

    fn bar_write(
        &mut self,
        device: &Device,
        offset: u64,
        width: usize,
        value: u64,
    ) -> Result<(), Refusal> {
        match (offset, width) {
            (COMMAND, 4 | 8) => self.doorbell(device, width, value),
            (FACTORIAL, 4) => Ok(self.compute(device, u32::try_from(value).unwrap_or(0))?),
            (STATUS, 4) => {
                device.bar_write(BAR, STATUS, 4, value)?;
                self.withheld = Withheld::No;
                Ok(())
            }
            _ => Ok(device.bar_write(BAR, offset, width, value)?),
        }
    }

    fn finished(&mut self, device: &Device) -> Option<Transfer> {
        let transfer = self.under_way?;
        // The guest may have switched memory decoding off since it rang.
        let command = device
            .bar_read(BAR, COMMAND, 8)
            .or_else(|_| Hardware(device.decode()).read64(COMMAND))
            .ok()?;
        // All ones is what a device reads as that is not there, and so it has RUN set.
        if command & RUN != 0 {
            return None;
        }
        self.under_way = None;
        Some(transfer)
    }

    fn stop(&mut self, device: &Device) -> Result<(), Rule> {
        let hardware = Hardware(device.decode());
        hardware.wait_for_dma()?;
        let wanted = COMPUTING | IRQ_WHEN_DONE;
        if hardware.read32(STATUS)? & wanted == wanted {
            // Only if it computes: else the engine may just be about to look at the bit, and the interrupt would be lost. If
            // the computation ends in this moment the interrupt may have been raised already, and will be again: see `start()`.
            hardware.write32(STATUS, 0)?;
            self.withheld = Withheld::Owed;
        }
        Ok(())
    }

    fn start(&mut self, device: &Device) -> Result<(), Rule> {
        if self.withheld != Withheld::Owed {
            return Ok(());
        }
        let hardware = Hardware(device.decode());
        hardware.write32(STATUS, IRQ_WHEN_DONE)?;
        // If it has come to its end, whether before or after the bit was back is not known: raise it, at least once.
        if hardware.read32(STATUS)? & COMPUTING == 0 {
            hardware.write32(IRQ_RAISE, FACTORIAL_IRQ)?;
        }
        self.withheld = Withheld::No;
        Ok(())
    }

    fn save(&mut self, device: &Device, kind: Kind, payload: &mut KVVec<u8>) -> Result<(), Rule> {
        let extend = |payload: &mut KVVec<u8>, bytes: &[u8]| {
            payload.extend_from_slice(bytes, GFP_KERNEL).map_err(|_| Rule::NoMemory)
        };
        if kind == REGISTERS {
            let registers = self.save_registers(&Hardware(device.decode()))?;
            return extend(payload, registers.as_bytes());
        }
        if self.buffer != Buffer::Used {
            return Ok(());
        }
        payload.resize(BUFFER_BYTES, 0, GFP_KERNEL).map_err(|_| Rule::NoMemory)?;
        let scratch = device.scratch(VGA_HOLE, ADDRESS_LIMIT)?;
        self.move_buffer(&Hardware(device.decode()), &scratch, DmaDirection::ToMemory)?;
        scratch.read(payload)?;
        if payload.iter().all(|byte| *byte == 0) {
            payload.clear();
        }
        Ok(())
    }

    fn check(&self, kind: Kind, payload: &[u8]) -> Result<(), Rule> {
        let valid = if kind == REGISTERS {
            Registers::read_from_bytes(payload).is_ok_and(|it| {
                let possible = it.computing.get() == 1
                    || it.computing.get() == 0 && inverse_factorial(it.factorial.get()).is_some();
                possible
                    && it.status.get() & !IRQ_WHEN_DONE == 0
                    && it.reserved.get() == 0
                    && it.command.get() & RUN == 0
            })
        } else {
            payload.is_empty() || payload.len() == BUFFER_BYTES
        };
        valid.then_some(()).ok_or(Rule::ImageRecord)
    }

    fn restore(&mut self, device: &Device, parts: &[Record]) -> Result<(), Rule> {
        let payload = |kind: Kind| {
            parts.iter().find(|part| part.kind == kind).map(|part| part.payload.as_slice())
        };
        let registers = payload(REGISTERS)
            .and_then(|bytes| Registers::read_from_bytes(bytes).ok())
            .ok_or(Rule::ImageIncomplete)?;
        let buffer = payload(MEMORY).ok_or(Rule::ImageIncomplete)?;

        // What can fail for reasons outside of the device comes first, while nothing is changed.
        let scratch = if buffer.is_empty() {
            None
        } else {
            let scratch = device.scratch(VGA_HOLE, ADDRESS_LIMIT)?;
            scratch.write(buffer)?;
            Some(scratch)
        };
        let hardware = Hardware(device.decode());
        hardware.wait_for_dma()?;
        match scratch {
            Some(scratch) => {
                self.move_buffer(&hardware, &scratch, DmaDirection::FromMemory)?;
                self.buffer = Buffer::Used;
            }
            None if self.buffer == Buffer::Used => self.buffer = Buffer::Stale,
            None => {}
        }
        self.write_registers(&hardware, &registers).map_err(|_| Rule::DeviceFailed)
    }

    fn reset(&mut self, device: &Device) -> Result<(), Rule> {
        self.reset_registers(&Hardware(device.decode()))
    }

    fn scrub(&mut self, device: &Device) -> Result<(), Rule> {
        self.reset_registers(&Hardware(device.decode()))?;
        if self.buffer == Buffer::Stale {
            let scratch = device.scratch(VGA_HOLE, ADDRESS_LIMIT)?;
            let hardware = Hardware(device.decode());
            self.move_buffer(&hardware, &scratch, DmaDirection::FromMemory)?;
            self.buffer = Buffer::Zero;
        }
        Ok(())
    }
}

/// The registers, as the driver itself uses them.
struct Hardware<'a>(Decoding<'a>);

impl Hardware<'_> {
    fn read32(&self, register: u64) -> Result<u32, Rule> {
        let value = self.0.read(BAR, register, 4)?;
        u32::try_from(value).map_err(|_| Rule::DeviceFailed)
    }

    fn read64(&self, register: u64) -> Result<u64, Rule> {
        self.0.read(BAR, register, 8)
    }

    fn write32(&self, register: u64, value: u32) -> Result<(), Rule> {
        self.0.write(BAR, register, 4, value.into())
    }

    fn write64(&self, register: u64, value: u64) -> Result<(), Rule> {
        self.0.write(BAR, register, 8, value)
    }

    fn wait_for_dma(&self) -> Result<(), Rule> {
        Self::wait(DMA_DEADLINE, || Ok(self.read64(COMMAND)? & RUN == 0))
    }

    fn wait_for_factorial(&self) -> Result<(), Rule> {
        Self::wait(FACTORIAL_DEADLINE, || Ok(self.read32(STATUS)? & COMPUTING == 0))
    }

    /// Sleeps until `done`, or fails with [`Rule::QuiesceTimeout`].
    fn wait(deadline: Delta, mut done: impl FnMut() -> Result<bool, Rule>) -> Result<(), Rule> {
        let start = Instant::<Monotonic>::now();
        loop {
            // The clock is read first: a deadline that passes while this sleeps does not hide an end that came in time.
            let late = start.elapsed() > deadline;
            if done()? {
                return Ok(());
            }
            if late {
                return Err(Rule::QuiesceTimeout);
            }
            fsleep(POLL);
        }
    }
}

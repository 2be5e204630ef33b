// SPDX-License-Identifier: GPL-2.0
//! QEMU's `ivshmem-plain` (`docs/specs/ivshmem-spec.txt`, `hw/misc/ivshmem.c`): a few registers, and a large memory behind
//! BAR 2.
//!
//! ```text
//!   BAR 0   0x00 interrupt mask    0x04 interrupt status    0x08 peer number (read only)    0x0c doorbell (write only)
//!   BAR 2   the memory
//! ```
//!
//! It does no DMA and, without a server, no interrupts: the registers are stored and nothing comes of it. Reading the status
//! clears it, so the driver puts it back when it has saved it.
//!
//! The memory stands for a device's own: it moves with the device. That the host may share it with others is not the
//! driver's business; what they write is not seen.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use zerocopy::byteorder::little_endian::U32;
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use crate::{
    abi::rule::Rule,
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
        BarMemory,
        Decoding,
        Device, //
    },
};

/// Vendor and device number.
pub(super) const IDS: (u16, u16) = (0x1af4, 0x1110);

const REGISTERS_BAR: u32 = 0;
const MEMORY_BAR: u32 = 2;

const MASK: u64 = 0x00;
const STATUS: u64 = 0x04;

const IDENTITY: Identity = Identity::new(IDS.0, IDS.1, 1);
const REGISTERS: Kind = Kind(1);
const PARTS: [Part; 1] = [Part { kind: REGISTERS, max_bytes: size_of::<Registers>() }];

/// The payload of [`REGISTERS`].
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Registers {
    mask: U32,
    status: U32,
}

/// An open `ivshmem-plain` device.
pub(super) struct Ivshmem {
    memory: Arc<BarMemory>,
}

impl Ivshmem {
    /// A model for a device that is being opened.
    ///
    /// # Errors
    ///
    /// `EINVAL` if its BAR 2 is no memory; `ENOMEM`.
    pub(super) fn new(device: &Device, left: Leftover) -> Result<Self> {
        Ok(Self { memory: BarMemory::new(device, MEMORY_BAR, left == Leftover::Clean)? })
    }

    /// Brings the registers to a state. The mask comes first: the device raises what is set in both.
    fn write_registers(decoding: &Decoding<'_>, to: &Registers) -> Result<(), Rule> {
        decoding.write(REGISTERS_BAR, MASK, 4, to.mask.get().into())?;
        decoding.write(REGISTERS_BAR, STATUS, 4, to.status.get().into())
    }

    /// Reads the registers, and leaves them as they were.
    fn read_registers(decoding: &Decoding<'_>) -> Result<Registers, Rule> {
        let read = |register| {
            let value = decoding.read(REGISTERS_BAR, register, 4)?;
            u32::try_from(value).map_err(|_| Rule::DeviceFailed)
        };
        let registers = Registers { mask: U32::new(read(MASK)?), status: U32::new(read(STATUS)?) };
        // Reading has cleared it.
        decoding.write(REGISTERS_BAR, STATUS, 4, registers.status.get().into())?;
        Ok(registers)
    }
}

impl DeviceModel for Ivshmem {
    fn identity(&self) -> Identity {
        IDENTITY.with_memory(self.memory.pages())
    }

    fn parts(&self) -> &'static [Part] {
        &PARTS
    }

    fn trapped_bar(&self) -> u32 {
        REGISTERS_BAR
    }

    fn memory(&self) -> Option<&Arc<BarMemory>> {
        Some(&self.memory)
    }

    fn bar_read(&mut self, device: &Device, offset: u64, width: usize) -> Result<u64, Rule> {
        device.bar_read(REGISTERS_BAR, offset, width)
    }

    fn bar_write(
        &mut self,
        device: &Device,
        offset: u64,
        width: usize,
        value: u64,
    ) -> Result<(), Refusal> {
        Ok(device.bar_write(REGISTERS_BAR, offset, width, value)?)
    }

    fn finished(&mut self, _device: &Device) -> Option<Transfer> {
        None
    }

    fn stop(&mut self, _device: &Device) -> Result<(), Rule> {
        Ok(())
    }

    fn start(&mut self, _device: &Device) -> Result<(), Rule> {
        Ok(())
    }

    fn save(&mut self, device: &Device, _kind: Kind, payload: &mut KVVec<u8>) -> Result<(), Rule> {
        let registers = Self::read_registers(&device.decode())?;
        payload.extend_from_slice(registers.as_bytes(), GFP_KERNEL).map_err(|_| Rule::NoMemory)
    }

    fn check(&self, _kind: Kind, payload: &[u8]) -> Result<(), Rule> {
        Registers::read_from_bytes(payload).map(|_| ()).map_err(|_| Rule::ImageRecord)
    }

    fn restore(&mut self, device: &Device, parts: &[Record]) -> Result<(), Rule> {
        let registers = parts
            .iter()
            .find(|part| part.kind == REGISTERS)
            .and_then(|part| Registers::read_from_bytes(&part.payload).ok())
            .ok_or(Rule::ImageIncomplete)?;
        Self::write_registers(&device.decode(), &registers).map_err(|_| Rule::DeviceFailed)
    }

    fn reset(&mut self, device: &Device) -> Result<(), Rule> {
        let zero = Registers { mask: U32::ZERO, status: U32::ZERO };
        Self::write_registers(&device.decode(), &zero).map_err(|_| Rule::DeviceFailed)
    }

    fn scrub(&mut self, device: &Device) -> Result<(), Rule> {
        self.reset(device)?;
        self.memory.scrub(device)
    }
}

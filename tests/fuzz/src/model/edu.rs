// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's `edu` behind the trap: the registers that the fuzzer uses, and the DMA engine.
//!
//! Sources: QEMU `docs/specs/edu.rst`, `hw/misc/edu.c`.

use migscope_abi::rule::Rule;

use super::{Kind, Model, Setup, Verdict, expected};
use crate::call::{Outcome, Pointer};

/// Offset of the liveness register.
pub(crate) const LIVENESS: u64 = 0x04;
/// Offsets of the DMA engine's source, destination and count.
pub(crate) const DMA: [u64; 3] = [0x80, 0x88, 0x90];
/// Offset of the DMA engine's command.
pub(crate) const DMA_COMMAND: u64 = 0x98;
/// Where the DMA engine sees the device's buffer.
pub(crate) const BUFFER: u64 = 0x4_0000;
/// Bytes of the buffer that a transfer can reach.
pub(crate) const BUFFER_BYTES: u64 = 4095;
/// The engine drives 28 address bits.
const ADDRESS_LIMIT: u64 = 1 << 28;
const RUN: u64 = 1;
/// From the buffer to memory.
pub(crate) const TO_MEMORY: u64 = 2;

/// A transfer of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    /// The pages of memory that it writes, first and last; `None` if that is not known.
    pub(super) writes: Option<Vec<u64>>,
}

/// The device, as the user knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Edu {
    /// Whether the guest has its memory decoded; `None` until it was written.
    pub(super) decodes: Option<bool>,
    liveness: Option<u64>,
    /// Source, destination, count.
    dma: [Option<u64>; 3],
    /// The last command, without its start bit.
    command: Option<u64>,
    pub(super) under_way: Option<Transfer>,
}

impl Edu {
    pub(super) fn power_on() -> Self {
        Self {
            decodes: None,
            liveness: Some(0),
            dma: [Some(0); 3],
            command: Some(0),
            under_way: None,
        }
    }

    /// Registers that nobody knows.
    pub(super) fn unknown() -> Self {
        Self { decodes: None, liveness: None, dma: [None; 3], command: None, under_way: None }
    }

    /// The same, but for the decoding, which configuration space holds.
    pub(super) fn decoding(self, decodes: Option<bool>) -> Self {
        Self { decodes, ..self }
    }

    /// As an image holds it: nothing is under way.
    pub(super) fn saved(&self) -> Self {
        Self { decodes: None, under_way: None, ..self.clone() }
    }

    /// The transfer that a command asks for: `Err` if it must be refused, `Ok(None)` if one cannot know.
    fn asked(&self, command: u64) -> Result<Option<Transfer>, Rule> {
        let [Some(source), Some(destination), Some(bytes)] = self.dma else { return Ok(None) };
        let to_memory = command & TO_MEMORY != 0;
        let (inside, memory) =
            if to_memory { (source, destination) } else { (destination, source) };
        let within = |start: u64, from: u64, to: u64| {
            start >= from && start.checked_add(bytes).is_some_and(|end| end <= to)
        };
        if bytes == 0
            || !within(inside, BUFFER, BUFFER + BUFFER_BYTES)
            || !within(memory, 0, ADDRESS_LIMIT)
        {
            return Err(Rule::DmaRange);
        }
        let pages = (memory >> 12)..=((memory + bytes - 1) >> 12);
        let writes = if to_memory { pages.collect() } else { Vec::new() };
        Ok(Some(Transfer { writes: Some(writes) }))
    }
}

/// A register that the model follows, by offset and width.
enum Register {
    Liveness,
    Dma(usize),
    Command,
}

fn find(offset: u64, width: usize) -> Option<Register> {
    match (offset, width) {
        (LIVENESS, 4) => Some(Register::Liveness),
        (DMA_COMMAND, 4 | 8) => Some(Register::Command),
        (offset, 4 | 8) => DMA.iter().position(|it| *it == offset).map(Register::Dma),
        _ => None,
    }
}

/// Whether an access of these bytes can reach a register that the model follows without being one of its own width.
fn grazes(offset: u64, bytes: usize) -> bool {
    let end = offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    let meets = |start: u64, width: u64| offset < start + width && start < end;
    meets(LIVENESS, 4) || meets(DMA[0], 0x20)
}

impl Model {
    /// The bytes of an access that lie in the BAR; `None` if none do.
    fn inside_bar(setup: &Setup, offset: u64, bytes: usize) -> Option<u64> {
        let rest = setup.bar_bytes.checked_sub(offset).filter(|rest| *rest > 0)?;
        Some(rest.min(u64::try_from(bytes).unwrap_or(u64::MAX)))
    }

    pub(super) fn bar_read(
        &self,
        setup: &Setup,
        offset: u64,
        bytes: usize,
        pointer: Pointer,
        outcome: &Outcome,
    ) -> Verdict {
        if setup.kind == Kind::Opaque {
            return self.same();
        }
        let Some(inside) = Self::inside_bar(setup, offset, bytes) else {
            return self.refuses(Rule::OutOfBounds, outcome);
        };
        let mut next = Vec::new();
        let mut why = String::new();
        for base in self.looks() {
            match base.bar_read_at(offset, bytes, inside, pointer, outcome) {
                Ok(model) => next.push(model),
                Err(text) => why = text,
            }
        }
        if next.is_empty() { Err(why) } else { Ok(next) }
    }

    fn bar_read_at(
        &self,
        offset: u64,
        bytes: usize,
        inside: u64,
        pointer: Pointer,
        outcome: &Outcome,
    ) -> Result<Self, String> {
        let mut next = self.clone();
        let (value, given) = match outcome {
            Outcome::Failed(libc::EFAULT) if pointer != Pointer::Good => return Ok(next),
            // The device does not answer while its memory is not decoded.
            Outcome::Failed(libc::EIO) if self.edu.decodes != Some(true) => {
                next.edu.decodes = Some(false);
                return Ok(next);
            }
            Outcome::Done { value, bytes } if pointer == Pointer::Good => (*value, bytes),
            _ => return Err(expected("the BAR's bytes", outcome)),
        };
        if self.edu.decodes == Some(false) {
            return Err(expected("EIO: the memory is not decoded", outcome));
        }
        next.edu.decodes = Some(true);
        if value != inside {
            return Err(expected(format_args!("{inside:#x} bytes"), outcome));
        }
        let Some(register) = find(offset, bytes) else { return Ok(next) };
        let value = crate::call::register(given).unwrap_or(0);
        let low = |known: u64| if bytes == 4 { known & u64::from(u32::MAX) } else { known };
        let run = if self.edu.under_way.is_some() { RUN } else { 0 };
        let (slot, wanted) = match register {
            Register::Liveness => (&mut next.edu.liveness, self.edu.liveness),
            Register::Dma(at) => (&mut next.edu.dma[at], self.edu.dma[at]),
            Register::Command => (&mut next.edu.command, self.edu.command),
        };
        let is_command = matches!(register, Register::Command);
        match wanted.map(|it| low(if is_command { it | run } else { it })) {
            Some(wanted) if wanted != value => Err(expected(format_args!("{wanted:#x}"), outcome)),
            Some(_) => Ok(next),
            None if is_command && value & RUN != run => Err(expected("another start bit", outcome)),
            None => {
                if bytes == 8 || !matches!(register, Register::Dma(_)) {
                    *slot = Some(if is_command { value & !RUN } else { value });
                }
                Ok(next)
            }
        }
    }

    pub(super) fn bar_write(
        &self,
        setup: &Setup,
        offset: u64,
        data: &[u8],
        pointer: Pointer,
        outcome: &Outcome,
    ) -> Verdict {
        if setup.kind == Kind::Opaque {
            return self.same();
        }
        let Some(inside) = Self::inside_bar(setup, offset, data.len()) else {
            return self.refuses(Rule::OutOfBounds, outcome);
        };
        let mut next = Vec::new();
        let mut why = String::new();
        for base in self.looks() {
            match base.bar_write_at(offset, data, inside, pointer, outcome) {
                Ok(models) => next.extend(models),
                Err(text) => why = text,
            }
        }
        if next.is_empty() { Err(why) } else { Ok(next) }
    }

    fn bar_write_at(
        &self,
        offset: u64,
        data: &[u8],
        inside: u64,
        pointer: Pointer,
        outcome: &Outcome,
    ) -> Verdict {
        if pointer != Pointer::Good {
            return match outcome {
                Outcome::Failed(libc::EFAULT) => self.same(),
                _ => Err(expected("EFAULT", outcome)),
            };
        }
        if !self.state.is_running() {
            return self.refuses(Rule::DeviceStopped, outcome);
        }
        let register = find(offset, data.len());
        let value = crate::call::register(data).unwrap_or(0);
        if let Some(Register::Command) = register
            && (value & RUN == 0 || self.edu.under_way.is_some())
        {
            // Starts nothing, so the device is not asked.
            return self.gives(inside, outcome);
        }
        let mut next = self.clone();
        match outcome {
            Outcome::Failed(libc::EIO) if self.edu.decodes != Some(true) => {
                next.edu.decodes = Some(false);
                return Ok(vec![next]);
            }
            _ if self.edu.decodes == Some(false) => {
                return Err(expected("EIO: the memory is not decoded", outcome));
            }
            _ => next.edu.decodes = Some(true),
        }
        let refused = |model: &Self| model.refuses(Rule::DmaRange, outcome);
        match register {
            Some(Register::Command) => {
                let transfer = match self.edu.asked(value) {
                    Err(_) => return refused(&next),
                    Ok(None) if matches!(outcome, Outcome::Failed(_)) => return refused(&next),
                    Ok(None) => Transfer { writes: None },
                    Ok(Some(transfer)) => transfer,
                };
                next.gives(inside, outcome)?;
                next.edu.command = Some(value & !RUN);
                next.edu.under_way = Some(transfer);
                Ok(vec![next])
            }
            Some(Register::Liveness) => {
                next.gives(inside, outcome)?;
                next.edu.liveness = Some(!value & u64::from(u32::MAX));
                Ok(vec![next])
            }
            Some(Register::Dma(at)) => {
                next.gives(inside, outcome)?;
                let mut written = next.clone();
                written.edu.dma[at] = Some(value);
                // The engine ignores the write while it runs, and whether it still runs nobody has seen.
                if self.edu.under_way.is_some() && written != next {
                    return Ok(vec![next, written]);
                }
                Ok(vec![written])
            }
            None => {
                next.gives(inside, outcome)?;
                if grazes(offset, data.len()) {
                    next.edu = Edu {
                        decodes: Some(true),
                        under_way: next.edu.under_way,
                        ..Edu::unknown()
                    };
                }
                Ok(vec![next])
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0
//! Device memory during a migration: between the data window and the memory behind the BAR.

use kernel::prelude::*;

use super::{
    Migration,
    Refused,
    Session,
    Staged, //
};
use crate::{
    abi::{
        region::Field,
        rule::Rule,
        state::State, //
    },
    device::DeviceModel,
    image::{
        Kind,
        Taker, //
    },
    memory::{
        Copier,
        PageSet,
        Receiver, //
    },
    vfio::{
        Access,
        BarMemory,
        Decoding,
        Device,
        Mode,
        Window, //
    },
};

/// Copies from the memory to the data window.
struct ToWindow<'a> {
    device: &'a Device,
    memory: &'a BarMemory,
    window: &'a Window,
    /// There from the first copy on; not while pages are collected, which takes the same lock.
    decoding: Option<Decoding<'a>>,
}

impl Copier for ToWindow<'_> {
    fn collect(&mut self, into: &mut PageSet) {
        self.decoding = None;
        self.memory.collect(into);
    }

    fn copy_page(&mut self, page: u64, at: usize) -> Result<Option<u64>, Rule> {
        let decoding = self.decoding.get_or_insert_with(|| self.device.decode());
        self.memory.copy_page(decoding, page, self.window, at)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), Rule> {
        self.window.put(at, bytes)
    }

    fn crc(&self, seed: u32, at: usize, bytes: usize) -> u32 {
        self.window.crc32(seed, at, bytes)
    }
}

/// What comes in the stream goes to the device.
pub(super) struct Intake<'a> {
    pub(super) device: &'a Device,
    pub(super) model: &'a dyn DeviceModel,
    pub(super) receiver: &'a mut Option<Receiver>,
}

impl Taker for Intake<'_> {
    fn check(&self, kind: Kind, payload: &[u8]) -> Result<(), Rule> {
        self.model.check(kind, payload)
    }

    fn begin_anew(&mut self) -> Result<(), Rule> {
        match self.receiver {
            Some(receiver) => receiver.begin_anew(),
            None => Ok(()),
        }
    }

    fn settle(&mut self, taken: bool) {
        if let Some(receiver) = self.receiver {
            receiver.settle(taken);
        }
    }

    fn memory(&mut self, payload: &[u8]) -> Result<(), Rule> {
        let (Some(receiver), Some(memory)) = (&mut *self.receiver, self.model.memory()) else {
            return Err(Rule::ImageRecord);
        };
        receiver.take(payload, |first, pages, content| {
            memory.write(&self.device.decode(), first, pages, &content)
        })
    }

    fn all_memory_is_here(&self) -> Result<(), Rule> {
        match &*self.receiver {
            Some(receiver) if !receiver.is_complete() => Err(Rule::ImageIncomplete),
            _ => Ok(()),
        }
    }
}

impl Migration {
    /// Fills the data window with device memory that is to be sent.
    pub(super) fn stage_memory(&mut self, device: &Device) -> Result<Option<Staged>, Rule> {
        let Session::Saving(saving) = &mut self.session else { return Ok(None) };
        let (Some(sender), Some(memory)) = (&mut saving.memory, self.model.memory()) else {
            return Ok(None);
        };
        let window = &self.windows.data;
        let mut copier = ToWindow { device, memory, window, decoding: None };
        let stands_still = !self.state.is_running();
        let bytes = sender.stage(&mut saving.stream, window.bytes(), stands_still, &mut copier)?;
        Ok((bytes > 0).then_some(Staged { bytes, duration_ns: 0, of_writer: false }))
    }

    /// The state has changed: what user space may do with the device's memory changes with it, before anybody is told. With
    /// `all_written`, all of it is to be sent.
    pub(crate) fn settle_memory(&self, all_written: bool) {
        let Some(memory) = self.model.memory() else { return };
        let mode = match self.state {
            State::Running => Mode::Free,
            State::PreCopy => Mode::Tracked,
            _ => Mode::Frozen,
        };
        memory.set_mode(mode, all_written);
    }

    /// A write to the device's memory by a system call. It is done under the device lock, so that no pass begins between the
    /// write and its note.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the device does not run; those of vfio-pci-core.
    pub(crate) fn memory_write(&mut self, device: &Device, access: &Access) -> Result<usize> {
        if !self.state.is_running() {
            let refused = Refused { field: Field::Nothing, value: 0, rule: Rule::DeviceStopped };
            return Err(self.refuse(access.offset, access.bytes, access.op, &refused));
        }
        match self.model.memory() {
            Some(memory) => memory.pass_write(device, access),
            None => Err(EINVAL),
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What must happen: the protocol as a machine that is given a call and its outcome, and says in which states the device may
//! be afterwards, or why the outcome is wrong.
//!
//! Sources: the RFC's text, and where that is silent the text that followed it in `include/uapi/linux/vfio.h` (5.8 to 5.17). The
//! tables of `migscope_abi` (which states follow which, what an access hits, the errno of a rule) are shared with the
//! driver; what happens when is not.
//!
//! What the driver is free to choose is a bound here (how much is pending, how a device image is cut) or a branch: a transfer
//! that is under way may be over at any look, so one state becomes two. What the model cannot know yet it learns from the first
//! answer, and holds the driver to that.

mod dirty;
pub(crate) mod edu;
mod image;
mod region;
mod saving;

use std::fmt;
use std::sync::Arc;

use migscope_abi::region::{Layout, Op};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;

use crate::call::{Call, Outcome, PAGES, Pointer, Region, SLOTS};
use edu::Edu;
use image::{Image, Resuming};
use saving::Saving;

/// The kinds of devices that the model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// QEMU's `edu`: its registers and its DMA are followed.
    Edu,
    /// Any other: whatever its BARs do is right, and what it says to be dirty is not looked into.
    Opaque,
}

/// What does not change while the fuzzer runs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The kind of the device.
    pub kind: Kind,
    /// The windows of the migration region.
    pub layout: Layout,
    /// The parts of the migration region that may be mapped: offset and length, in bytes.
    pub areas: Vec<(u64, u64)>,
    /// Length of BAR 0, in bytes.
    pub bar_bytes: u64,
    /// Whether BAR 0 may be mapped.
    pub bar_mappable: bool,
    /// Number of regions.
    pub regions: u64,
    /// First and last byte of the memory that the device may do DMA to.
    pub memory: (u64, u64),
}

/// What goes on beside the state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Session {
    Idle,
    Saving(Box<Saving>),
    Resuming(Resuming),
}

/// A state in which device, container and descriptors may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    open: [bool; SLOTS],
    mapped: [bool; PAGES],
    /// Whether some of the bitmap window was mapped since the device was opened.
    bitmap_mapped: bool,
    state: State,
    session: Session,
    edu: Edu,
    /// The last images that were saved to their end.
    images: Vec<Arc<Image>>,
}

/// What an outcome leads to: the states that are possible then, or what should have been.
pub type Verdict = Result<Vec<Model>, String>;

/// How an outcome differs from the only one that is right.
fn expected(what: impl std::fmt::Display, outcome: &Outcome) -> String {
    format!("expected {what}, got {outcome}")
}

fn errno(rule: Rule) -> i32 {
    rule.errno()
}

/// How many images are kept to be loaded again.
const IMAGES: usize = 2;

impl Model {
    /// A device that has been opened by slot 0 for the first time.
    pub fn opened() -> Self {
        let mut open = [false; SLOTS];
        open[0] = true;
        Self {
            open,
            mapped: [false; PAGES],
            bitmap_mapped: false,
            state: State::Running,
            session: Session::Idle,
            edu: Edu::power_on(),
            images: Vec::new(),
        }
    }

    /// In which states the device may be if `call` had `outcome`.
    ///
    /// # Errors
    ///
    /// Why it cannot have had it.
    pub fn step(&self, setup: &Setup, call: &Call, outcome: &Outcome) -> Verdict {
        let is_open = |slot: usize| self.open.get(slot).copied().unwrap_or(false);
        if let Some(slot) = call.needs() {
            match (is_open(slot), outcome) {
                (false, Outcome::NotMade) => return self.same(),
                (false, _) => return Err(format!("descriptor {slot} is closed, yet: {outcome}")),
                (true, Outcome::NotMade) => return Err(format!("descriptor {slot} is open")),
                (true, _) => {}
            }
        }
        match call {
            // The kernel looks at such an address before it asks anybody.
            Call::Read { pointer: Pointer::Kernel, .. }
            | Call::Write { pointer: Pointer::Kernel, .. } => self.fails(libc::EFAULT, outcome),
            // An access of no bytes reaches nothing, not even a region that is not there.
            Call::Read { bytes: 0, .. } => self.gives(0, outcome),
            Call::Write { data, .. } if data.is_empty() => self.gives(0, outcome),
            Call::Read { region: Region::Migration, offset, bytes, pointer, .. } => {
                self.migration(setup, Op::Read, *offset, *bytes, &[], *pointer, outcome)
            }
            Call::Write { region: Region::Migration, offset, data, pointer, .. } => {
                self.migration(setup, Op::Write, *offset, data.len(), data, *pointer, outcome)
            }
            Call::Read { region: Region::Bar0, offset, bytes, pointer, .. } => {
                self.bar_read(setup, *offset, *bytes, *pointer, outcome)
            }
            Call::Write { region: Region::Bar0, offset, data, pointer, .. } => {
                self.bar_write(setup, *offset, data, *pointer, outcome)
            }
            Call::Read { region: Region::Config, bytes, pointer, .. } => {
                self.config(*bytes, *pointer, outcome)
            }
            Call::Write { region: Region::Config, offset, data, pointer, .. } => {
                let mut next = self.clone();
                if *offset == COMMAND && *pointer == Pointer::Good {
                    let decodes = data.first().is_some_and(|byte| byte & COMMAND_MEMORY != 0);
                    next.edu.decodes = Some(decodes);
                }
                next.config(data.len(), *pointer, outcome)
            }
            Call::Read { region: Region::Beyond, .. }
            | Call::Write { region: Region::Beyond, .. } => self.fails(libc::EINVAL, outcome),
            Call::Reset { .. } => self.reset(outcome),
            Call::DeviceInfo { pointer, .. } => match pointer {
                Pointer::Good => self.gives(setup.regions, outcome),
                _ => self.fails(libc::EFAULT, outcome),
            },
            Call::RegionInfo { region, short, .. } => match (region, short) {
                (Region::Beyond, _) | (_, true) => self.fails(libc::EINVAL, outcome),
                (Region::Migration, false) => self.gives(setup.layout.region_bytes(), outcome),
                (Region::Bar0, false) => self.gives(setup.bar_bytes, outcome),
                (Region::Config, false) => self.gives(CONFIG_BYTES, outcome),
            },
            Call::Feature { .. } | Call::NoIoctl { .. } => self.fails(libc::ENOTTY, outcome),
            Call::Map { region, offset, bytes, .. } => {
                self.map(setup, *region, *offset, *bytes, outcome)
            }
            Call::Open { slot } => self.opens(*slot, outcome),
            Call::Close { slot } => self.closes(*slot, outcome),
            Call::DmaMap { page } => self.dma(*page, true, outcome),
            Call::DmaUnmap { page } => self.dma(*page, false, outcome),
        }
    }

    /// The same without the images, of which two states may remember different ones.
    ///
    /// Right only while nothing is being taken in: what is no part of an image that is known is not judged.
    #[must_use]
    pub fn forgetful(&self) -> Self {
        Self { images: Vec::new(), ..self.clone() }
    }

    fn same(&self) -> Verdict {
        Ok(vec![self.clone()])
    }

    fn fails(&self, code: i32, outcome: &Outcome) -> Verdict {
        match outcome {
            Outcome::Failed(got) if *got == code => self.same(),
            _ => Err(expected(Outcome::Failed(code), outcome)),
        }
    }

    fn refuses(&self, rule: Rule, outcome: &Outcome) -> Verdict {
        self.fails(errno(rule), outcome).map_err(|text| format!("{text}; rule {}", rule.name()))
    }

    fn gives(&self, wanted: u64, outcome: &Outcome) -> Verdict {
        match outcome {
            Outcome::Done { value, .. } if *value == wanted => self.same(),
            _ => Err(expected(format_args!("{wanted:#x}"), outcome)),
        }
    }

    fn config(&self, bytes: usize, pointer: Pointer, outcome: &Outcome) -> Verdict {
        match pointer {
            Pointer::Good => self.gives(u64::try_from(bytes).unwrap_or(u64::MAX), outcome),
            _ => self.fails(libc::EFAULT, outcome),
        }
    }

    /// To the power-on state, running.
    fn restart(&self) -> Self {
        let mut next = self.clone();
        next.state = State::Running;
        next.session = Session::Idle;
        next.edu = Edu::power_on().decoding(self.edu.decodes);
        next
    }

    fn reset(&self, outcome: &Outcome) -> Verdict {
        self.gives(0, outcome)?;
        Ok(vec![self.restart()])
    }

    fn opens(&self, slot: usize, outcome: &Outcome) -> Verdict {
        let mut next = self.clone();
        match (self.open.get(slot).copied().unwrap_or(true), outcome) {
            (true, Outcome::NotMade) => self.same(),
            (false, Outcome::Done { .. }) => {
                // What closed the device has cleaned it up; a second descriptor changes nothing.
                next.open[slot] = true;
                Ok(vec![next])
            }
            (is_open, _) => Err(format!("descriptor {slot} is open: {is_open}, yet: {outcome}")),
        }
    }

    fn closes(&self, slot: usize, outcome: &Outcome) -> Verdict {
        match (self.open.get(slot).copied().unwrap_or(false), outcome) {
            (false, Outcome::NotMade) => self.same(),
            (true, Outcome::Done { .. }) => {
                let mut next = self.clone();
                next.open[slot] = false;
                if next.open.iter().any(|open| *open) {
                    return Ok(vec![next]);
                }
                let mut next = next.restart();
                next.edu.decodes = None;
                next.bitmap_mapped = false;
                Ok(vec![next])
            }
            (is_open, _) => Err(format!("descriptor {slot} is open: {is_open}, yet: {outcome}")),
        }
    }

    fn dma(&self, page: usize, map: bool, outcome: &Outcome) -> Verdict {
        let mapped = self.mapped.get(page).copied().unwrap_or(false);
        match (map, mapped) {
            (true, true) => return self.fails(libc::EEXIST, outcome),
            (true, false) => self.gives(0, outcome)?,
            (false, true) => self.gives(migscope_abi::dirty::MIN_PAGE_BYTES, outcome)?,
            (false, false) => return self.gives(0, outcome),
        };
        let mut next = self.clone();
        next.mapped[page] = map;
        Ok(vec![next])
    }

    fn map(
        &self,
        setup: &Setup,
        region: Region,
        offset: u64,
        bytes: usize,
        outcome: &Outcome,
    ) -> Verdict {
        let end = offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let offered = match region {
            Region::Migration => setup
                .areas
                .iter()
                .any(|(start, length)| offset >= *start && end <= start.saturating_add(*length)),
            Region::Bar0 => setup.bar_mappable && end <= setup.bar_bytes,
            Region::Config | Region::Beyond => false,
        };
        match (offered, outcome) {
            (true, Outcome::Done { .. }) => {
                let mut next = self.clone();
                if region == Region::Migration && end > setup.layout.bitmap_offset() {
                    next.bitmap_mapped = true;
                }
                Ok(vec![next])
            }
            _ => self.fails(libc::EINVAL, outcome),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { open, mapped, bitmap_mapped, state, session, edu, images } = self;
        write!(f, "{}, open {open:?}, mapped {mapped:?}, ", state.name())?;
        write!(f, "bitmap window mapped: {bitmap_mapped}, ")?;
        let lengths: Vec<usize> = images.iter().map(|image| image.bytes.len()).collect();
        write!(f, "images of {lengths:?} bytes, {edu:x?}, {session}")
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => write!(f, "idle"),
            Self::Saving(saving) => write!(f, "{saving}"),
            Self::Resuming(resuming) => write!(f, "{resuming}"),
        }
    }
}

/// Configuration space: the command register and its memory bit (`include/uapi/linux/pci_regs.h`).
pub(crate) const COMMAND: u64 = 0x04;
pub(crate) const COMMAND_MEMORY: u8 = 0x02;
/// Length of the configuration space of a conventional PCI device, which both kinds are.
const CONFIG_BYTES: u64 = 256;

#[cfg(test)]
pub(crate) mod tests;

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `VFIO_DEVICE_GET_REGION_INFO` says of a region: `struct vfio_region_info` and the chain of capabilities behind it
//! (`include/uapi/linux/vfio.h`).
//!
//! ```text
//!   0 argsz 4 │ 4 flags 4 │ 8 index 4 │ 12 cap_offset 4 ──┐ │ 16 size 8 │ 24 offset 8
//!   ┌─────────────────────────────────────────────────────┘
//!   ▼ id 2 │ version 2 │ next 4 ──▶ …      id 1: nr_areas 4, reserved 4, { offset 8, size 8 } …     id 2: type 4, subtype 4
//! ```
//!
//! It is asked for twice: once for its length, once whole. The chain comes from the kernel, but a driver of another make built
//! it; so it is walked with every offset checked, forwards only, and what it says of areas is checked before anything is mapped.

use std::io;
use std::os::fd::BorrowedFd;

use migscope_abi::region::STRUCT_BYTES;
use vfio_bindings::bindings::vfio::{
    VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_CAP_TYPE, VFIO_REGION_INFO_FLAG_CAPS,
    VFIO_REGION_INFO_FLAG_MMAP,
};

use crate::device::Placed;
use crate::{PAGE_BYTES, sys};

/// Length of `struct vfio_region_info`, in bytes.
const FIXED_BYTES: usize = 32;
/// More capabilities than this are taken for a mistake, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Why a region could not be described.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// The kernel refused.
    #[error("VFIO_DEVICE_GET_REGION_INFO failed")]
    Refused(#[from] io::Error),
    /// More than can be meant.
    #[error("the description is {0} bytes long")]
    TooLong(usize),
    /// A capability that does not lie in what came.
    #[error("a capability at {at:#x} does not lie in the {bytes} bytes that describe the region")]
    Outside {
        /// Offset of the capability.
        at: usize,
        /// Bytes that came.
        bytes: usize,
    },
    /// A capability that is said to follow and comes earlier: the chain would not end.
    #[error("the capability at {at:#x} is followed by one at {next:#x}")]
    Backwards {
        /// Offset of the capability.
        at: usize,
        /// Offset of the next one.
        next: usize,
    },
    /// An area that cannot be mapped, or must not be.
    #[error("the area of {bytes:#x} bytes at {offset:#x} {why}")]
    Area {
        /// Offset in the region.
        offset: u64,
        /// Length.
        bytes: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// A region, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Where it lies in the device's file.
    pub placed: Placed,
    /// Its flags.
    pub flags: u32,
    /// Type and subtype, of a region that is none of PCI's own.
    pub kind: Option<(u32, u32)>,
    /// The parts that may be mapped, if the region names them.
    pub areas: Option<Vec<Placed>>,
}

impl RegionInfo {
    /// Asks for the description of a region.
    ///
    /// # Errors
    ///
    /// [`InfoError`]; [`InfoError::Refused`] with `EINVAL` means that there is no region of this number.
    pub fn ask(device: BorrowedFd<'_>, index: u32) -> Result<Self, InfoError> {
        let mut bytes = vec![0; FIXED_BYTES];
        loop {
            sys::region_info(device, index, &mut bytes)?;
            let needed = usize::try_from(u32_at(&bytes, 0)?).unwrap_or(usize::MAX);
            if needed <= bytes.len() {
                return Self::parse(&bytes);
            }
            if needed > MAX_BYTES {
                return Err(InfoError::TooLong(needed));
            }
            bytes = vec![0; needed];
        }
    }

    /// Takes the description apart.
    ///
    /// # Errors
    ///
    /// [`InfoError`], but for [`InfoError::Refused`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InfoError> {
        let flags = u32_at(bytes, 4)?;
        let placed = Placed { offset: u64_at(bytes, 24)?, bytes: u64_at(bytes, 16)? };
        let mut info = Self { placed, flags, kind: None, areas: None };
        let mut at =
            if flags & VFIO_REGION_INFO_FLAG_CAPS == 0 { 0 } else { offset_at(bytes, 12)? };
        while at != 0 {
            let (id, next) = (u16_at(bytes, at)?, offset_at(bytes, at + 4)?);
            match u32::from(id) {
                VFIO_REGION_INFO_CAP_TYPE => {
                    info.kind = Some((u32_at(bytes, at + 8)?, u32_at(bytes, at + 12)?));
                }
                VFIO_REGION_INFO_CAP_SPARSE_MMAP => info.areas = Some(areas(bytes, at)?),
                _ => {}
            }
            if next != 0 && next <= at {
                return Err(InfoError::Backwards { at, next });
            }
            at = next;
        }
        Ok(info)
    }

    /// The parts of a migration region that may be mapped, in the order of their offsets.
    ///
    /// # Errors
    ///
    /// [`InfoError::Area`]: not whole pages, past the region's end, over another one or over the struct, each access to which
    /// must be seen by the driver.
    pub fn mappable_areas(&self) -> Result<Vec<Placed>, InfoError> {
        if self.flags & VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return Ok(Vec::new());
        }
        // A region that can be mapped and names no areas can be mapped whole.
        let whole = Placed { offset: 0, bytes: self.placed.bytes };
        let mut areas = self.areas.clone().unwrap_or_else(|| vec![whole]);
        // QEMU (`vfio_setup_region_sparse_mmaps()`) leaves these out, too.
        areas.retain(|area| area.bytes > 0);
        areas.sort_unstable_by_key(|area| area.offset);
        let mut free_from = STRUCT_BYTES;
        for Placed { offset, bytes } in areas.iter().copied() {
            let wrong = |why| Err(InfoError::Area { offset, bytes, why });
            let end = offset.checked_add(bytes).filter(|end| *end <= self.placed.bytes);
            if offset % PAGE_BYTES != 0 || bytes % PAGE_BYTES != 0 {
                return wrong("is not made of whole pages");
            }
            if offset < STRUCT_BYTES {
                return wrong("lies over the registers");
            }
            if offset < free_from {
                return wrong("lies over another one");
            }
            match end {
                Some(end) => free_from = end,
                None => return wrong("ends past the region"),
            }
        }
        Ok(areas)
    }
}

fn areas(bytes: &[u8], at: usize) -> Result<Vec<Placed>, InfoError> {
    let count = usize::try_from(u32_at(bytes, at + 8)?).unwrap_or(usize::MAX);
    // Each takes 16 bytes, so what came bounds the count before anything is allocated.
    let outside = InfoError::Outside { at, bytes: bytes.len() };
    let list = bytes.get(at + 16..).and_then(|rest| rest.get(..count.checked_mul(16)?));
    let list = list.ok_or(outside)?;
    list.chunks_exact(16)
        .map(|area| Ok(Placed { offset: u64_at(area, 0)?, bytes: u64_at(area, 8)? }))
        .collect()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], InfoError> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.copied().ok_or(InfoError::Outside { at, bytes: bytes.len() })
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, InfoError> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, InfoError> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, InfoError> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}

fn offset_at(bytes: &[u8], at: usize) -> Result<usize, InfoError> {
    u32_at(bytes, at).map(|offset| usize::try_from(offset).unwrap_or(usize::MAX / 2))
}

#[cfg(test)]
mod tests;

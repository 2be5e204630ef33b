// SPDX-License-Identifier: GPL-2.0
//! The two windows of the migration region, and how user space gets at them.
//!
//! ```text
//!   data_section    0 ┌───────────────┐
//!                     │ struct        │  always trapped
//!             4096    ├───────────────┤  data_offset
//!                     │ device data   │  0 trapped: read() and write() only
//!                     │               │  1 mapped: a sparse-mmap area
//!                     │               │  2 partitioned: trapped for the first page, then a sparse-mmap area
//!                     ├───────────────┤
//!                     │ dirty bitmap  │  a sparse-mmap area, but not with 0
//!                     └───────────────┘
//! ```
//!
//! "Data section can be trapped or mapped or partitioned, depending on how kernel driver defines data section" (RFC, the
//! comment at `struct vfio_device_migration_info`). What is mapped can be read and written by system calls as well, with the
//! same effect.

use kernel::{
    num::casts::usize_as_u64,
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::{
    abi::region::{
        Layout,
        HEADER_BYTES, //
    },
    module_parameters,
    vfio::{
        Area,
        Mapping,
        RegionInfo,
        Window, //
    },
};

// The data window begins with a page: what is mapped is mapped in pages, and the struct's is none of them.
const _: () = assert!(HEADER_BYTES % usize_as_u64(PAGE_SIZE) == 0);

/// The largest window, in bytes: both are allocated at each open.
const MAX_WINDOW_BYTES: u32 = 16 << 20;

/// How user space gets at the device data: the module's parameter `data_section`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DataSection {
    Trapped,
    Mapped,
    Partitioned,
}

/// What the module's parameters ask for.
struct Parameters {
    layout: Layout,
    data_section: DataSection,
}

impl Parameters {
    fn read() -> Result<Self> {
        let window = |bytes: u32| {
            let whole = usize::try_from(bytes).is_ok_and(|it| it % PAGE_SIZE == 0);
            (whole && bytes > 0 && bytes <= MAX_WINDOW_BYTES).then_some(bytes).ok_or(EINVAL)
        };
        let data_section = match *module_parameters::data_section.value_ref() {
            0 => DataSection::Trapped,
            1 => DataSection::Mapped,
            2 => DataSection::Partitioned,
            _ => return Err(EINVAL),
        };
        let data_bytes = window(*module_parameters::data_window.value_ref())?;
        // The first page is trapped, so there must be a second.
        let one_page = usize::try_from(data_bytes).is_ok_and(|bytes| bytes == PAGE_SIZE);
        if data_section == DataSection::Partitioned && one_page {
            return Err(EINVAL);
        }
        let bitmap_bytes = window(*module_parameters::bitmap_window.value_ref())?;
        Ok(Self { layout: Layout { data_bytes, bitmap_bytes }, data_section })
    }
}

/// Says in the log what is wrong with the module's parameters, if anything is.
///
/// # Errors
///
/// `EINVAL`.
pub(crate) fn check_parameters() -> Result {
    Parameters::read().map(|_| ()).inspect_err(|_| {
        pr_err!("data_window and bitmap_window must be multiples of the page size, at most 16 MiB; data_section must be 0 (trapped), 1 (mapped) or 2 (partitioned, with a data_window of two pages or more)\n")
    })
}

/// The windows of an open device.
pub(crate) struct Windows {
    layout: Layout,
    data_section: DataSection,
    /// Device data.
    pub(crate) data: Window,
    /// The dirty bitmap.
    pub(crate) bitmap: Window,
}

impl Windows {
    /// The windows that the module's parameters ask for, full of zeros.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let Parameters { layout, data_section } = Parameters::read()?;
        let window = |bytes: u32| Window::new(usize::try_from(bytes).map_err(|_| EINVAL)?);
        Ok(Self {
            layout,
            data_section,
            data: window(layout.data_bytes)?,
            bitmap: window(layout.bitmap_bytes)?,
        })
    }

    /// Where they lie in the region.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The parts that can be mapped: of the device data, and of the bitmap.
    fn areas(&self) -> Option<[Area; 2]> {
        let trapped_bytes = match self.data_section {
            DataSection::Trapped => return None,
            DataSection::Mapped => 0,
            DataSection::Partitioned => usize_as_u64(PAGE_SIZE),
        };
        Some([
            Area {
                offset: self.layout.data_offset() + trapped_bytes,
                bytes: u64::from(self.layout.data_bytes) - trapped_bytes,
            },
            Area { offset: self.layout.bitmap_offset(), bytes: self.layout.bitmap_bytes.into() },
        ])
    }

    /// Gives the region its length and what can be mapped of it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn describe(&self, info: &mut RegionInfo<'_>) -> Result {
        info.set_bytes(self.layout.region_bytes());
        match self.areas() {
            Some(areas) => info.offer_mmap_of(&areas),
            None => Ok(()),
        }
    }

    /// Maps a part of the region.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the mapping does not lie in one area, or is private.
    pub(crate) fn map(&self, mapping: &Mapping) -> Result {
        let [data, bitmap] = self.areas().ok_or(EINVAL)?;
        let (window, start) = if data.contains(mapping) {
            (&self.data, self.layout.data_offset())
        } else if bitmap.contains(mapping) {
            (&self.bitmap, self.layout.bitmap_offset())
        } else {
            return Err(EINVAL);
        };
        let at = usize::try_from(mapping.offset - start).map_err(|_| EINVAL)?;
        window.map(at, mapping)
    }
}

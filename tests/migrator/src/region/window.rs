// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The two windows of the region: bytes that go through them, by a mapping or by system calls.
//!
//! ```text
//!   data_offset                                    data_offset + data_size
//!        │ not mapped: read(), write() │ mapped: copied from and to memory │ …
//! ```
//!
//! What is mapped is copied, the rest goes by system calls, in the order of the offsets; so a buffer of a partitioned window
//! goes in both ways. It is what QEMU 7.2 does (`hw/vfio/migration.c`: `get_data_section_size()`, `vfio_save_buffer()`,
//! `vfio_load_buffer()`).

use migscope_abi::region::Field;

use super::{Region, RegionError, RegionIo};
use crate::account::Way;

/// How the client reaches the windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DataAccess {
    /// Through a mapping where the region offers one, by system calls where it does not.
    #[default]
    Auto,
    /// By system calls alone.
    Trapped,
}

/// One way, and for how many bytes.
enum Stretch {
    /// By the mapping of this number.
    Mapped(usize, usize),
    /// By system calls.
    Trapped(usize),
}

impl<Io: RegionIo> Region<Io> {
    /// Says how the windows are accessed from now on; by system calls alone, unless told otherwise.
    ///
    /// # Errors
    ///
    /// [`RegionError::Map`]: the driver offers a mapping and does not make it.
    pub fn set_data_access(&mut self, access: DataAccess) -> Result<(), RegionError> {
        if access == DataAccess::Auto {
            self.io.map().map_err(RegionError::Map)?;
        }
        self.data_access = access;
        Ok(())
    }

    /// How the bytes from `offset` on are reached, and how many of `bytes` in that way.
    fn stretch(&self, offset: u64, bytes: usize) -> Stretch {
        let at_most = |end: u64| usize::try_from(end - offset).map_or(bytes, |it| it.min(bytes));
        let areas = match self.data_access {
            DataAccess::Auto => self.io.mapped_areas(),
            DataAccess::Trapped => &[],
        };
        // The first that is not over yet.
        match areas.iter().enumerate().find(|(_, area)| area.end() > offset) {
            Some((at, area)) if area.offset() <= offset => Stretch::Mapped(at, at_most(area.end())),
            Some((_, area)) => Stretch::Trapped(at_most(area.offset())),
            None => Stretch::Trapped(bytes),
        }
    }

    /// Reads a window from `offset` on.
    pub(crate) fn read_window(
        &mut self,
        field: Field,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), RegionError> {
        let (wanted, mut offset, mut rest) = (into.len(), offset, into);
        while !rest.is_empty() {
            let done = match self.stretch(offset, rest.len()) {
                Stretch::Mapped(at, bytes) => {
                    self.io.mapped_areas()[at].read(offset, &mut rest[..bytes]);
                    self.tally.moved(field, bytes, Way::Mapped);
                    bytes
                }
                Stretch::Trapped(bytes) => {
                    let bytes = bytes.min(self.chunk_bytes);
                    let done = self.read(field, offset, &mut rest[..bytes])?.min(bytes);
                    self.tally.moved(field, done, Way::Trapped);
                    done
                }
            };
            if done == 0 {
                return Err(RegionError::Short { field, wanted, done: wanted - rest.len() });
            }
            rest = &mut rest[done..];
            offset += u64::try_from(done).expect("a length fits");
        }
        Ok(())
    }

    /// Writes a window from `offset` on.
    pub(crate) fn write_window(
        &mut self,
        field: Field,
        offset: u64,
        from: &[u8],
    ) -> Result<(), RegionError> {
        let (wanted, mut offset, mut rest) = (from.len(), offset, from);
        while !rest.is_empty() {
            let done = match self.stretch(offset, rest.len()) {
                Stretch::Mapped(at, bytes) => {
                    self.io.mapped_areas()[at].write(offset, &rest[..bytes]);
                    self.tally.moved(field, bytes, Way::Mapped);
                    bytes
                }
                Stretch::Trapped(bytes) => {
                    let bytes = bytes.min(self.chunk_bytes);
                    let done = self.write(field, offset, &rest[..bytes])?.min(bytes);
                    self.tally.moved(field, done, Way::Trapped);
                    done
                }
            };
            if done == 0 {
                return Err(RegionError::Short { field, wanted, done: wanted - rest.len() });
            }
            rest = &rest[done..];
            offset += u64::try_from(done).expect("a length fits");
        }
        Ok(())
    }
}

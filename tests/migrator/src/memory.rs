// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that a device reads and writes.
//!
//! While it is mapped for DMA the device may write any of it at any moment. So there is no `&[u8]` over it, ever: it is copied
//! out of and into, by volatile accesses, through this type alone. What is copied out while the device writes may be half old
//! and half new; the dirty report that follows tells which pages to copy again.

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use crate::PAGE_BYTES;

/// Why memory could not be had or reached.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The memory must consist of pages.
    #[error(
        "{bytes} bytes at {iova:#x} are no whole number of pages of {PAGE_BYTES} bytes, at least one"
    )]
    NoPages {
        /// Where it was to start.
        iova: u64,
        /// How long it was to be.
        bytes: u64,
    },
    /// No such memory on this machine.
    #[error("could not get {bytes} bytes of memory for the device")]
    Unavailable {
        /// How much was asked for.
        bytes: u64,
        /// Why.
        #[source]
        source: vm_memory::mmap::FromRangesError,
    },
    /// An address that is not in it.
    #[error("no {bytes} bytes of the device's memory are at {iova:#x}")]
    Outside {
        /// First address.
        iova: u64,
        /// Length.
        bytes: usize,
        /// Why.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// Anonymous memory at an I/O address.
#[derive(Debug)]
pub struct DmaMemory {
    memory: GuestMemoryMmap,
    iova: u64,
    bytes: u64,
}

impl DmaMemory {
    /// Where the memory starts unless told otherwise.
    pub const DEFAULT_IOVA: u64 = 0x10_0000;
    /// How long it is unless told otherwise, in bytes: enough for a working set, and small beside the 256 MiB that edu drives.
    pub const DEFAULT_BYTES: u64 = 4 << 20;

    /// Gets zeroed memory; it is in no device's reach yet.
    ///
    /// # Errors
    ///
    /// [`MemoryError`].
    pub fn new(iova: u64, bytes: u64) -> Result<Self, MemoryError> {
        let pages = bytes.is_multiple_of(PAGE_BYTES) && iova.is_multiple_of(PAGE_BYTES);
        let no_pages = MemoryError::NoPages { iova, bytes };
        let (Ok(length), true, true) = (usize::try_from(bytes), pages, bytes > 0) else {
            return Err(no_pages);
        };
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(iova), length)])
            .map_err(|source| MemoryError::Unavailable { bytes, source })?;
        Ok(Self { memory, iova, bytes })
    }

    pub(crate) fn guest_memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// First I/O address.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Length, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// First page frame number.
    pub fn first_pfn(&self) -> u64 {
        self.iova / PAGE_BYTES
    }

    /// Number of pages.
    pub fn pages(&self) -> u64 {
        self.bytes / PAGE_BYTES
    }

    /// Copies out what stands at `iova`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Outside`].
    pub fn read(&self, iova: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let bytes = into.len();
        self.memory.read_slice(into, GuestAddress(iova)).map_err(|source| MemoryError::Outside {
            iova,
            bytes,
            source,
        })
    }

    /// Copies `from` to `iova`.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Outside`].
    pub fn write(&self, iova: u64, from: &[u8]) -> Result<(), MemoryError> {
        let bytes = from.len();
        self.memory.write_slice(from, GuestAddress(iova)).map_err(|source| MemoryError::Outside {
            iova,
            bytes,
            source,
        })
    }

    /// Copies all of it out.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Outside`], which cannot happen.
    pub fn contents(&self) -> Result<Vec<u8>, MemoryError> {
        let mut contents = vec![0; usize::try_from(self.bytes).expect("it is mapped, so it fits")];
        self.read(self.iova, &mut contents)?;
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_whole_pages_and_nothing_else_is_reached() {
        assert!(matches!(DmaMemory::new(0x1000, 0), Err(MemoryError::NoPages { .. })));
        assert!(matches!(DmaMemory::new(0x1001, 0x1000), Err(MemoryError::NoPages { .. })));
        let memory = DmaMemory::new(0x1000, 0x2000).unwrap();
        memory.write(0x1fff, b"ab").unwrap();
        let mut two = [0; 2];
        memory.read(0x1fff, &mut two).unwrap();
        assert_eq!(&two, b"ab");
        assert!(memory.read(0x2fff, &mut two).is_err());
        assert!(memory.write(0xfff, &two).is_err());
    }
}

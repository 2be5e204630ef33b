// SPDX-License-Identifier: GPL-2.0
//! Device memory behind a BAR that user space maps, and of which the driver knows what was written.
//!
//! ```text
//!   mode      when                         a read through a mapping    a write through a mapping
//!   Free      running, not saving          maps for reading, writing   maps for writing
//!   Tracked   running, saving              maps for reading            notes the page, maps for writing
//!   Frozen    not running                  maps for reading            SIGBUS
//! ```
//!
//! vfio-pci-core's own mapping cannot tell who writes what, so this has its own: pages are mapped one by one, by their faults.
//! A page that is to be watched is mapped for reading only; the first write to it faults, is noted, and from then on goes at
//! full speed until [`BarMemory::collect`] or [`BarMemory::set_mode`] takes the mapping away again.
//!
//! # Why no write is missed
//!
//! A fault notes the page and makes the page table entry with `memory_lock` held for reading, both by itself: it never leaves
//! the entry to the memory manager, which would make it after the lock is gone. (For a write to a page that is mapped for
//! reading, `pfn_mkwrite` therefore takes that entry away and makes the new one.) Collecting takes the notes and takes all entries
//! away with the lock held for writing. So at any moment a page that somebody can write to without a fault has a note, or was
//! noted in a collection whose pages are copied after the entries are gone; `unmap_mapping_range()` comes back when no CPU has
//! an entry cached.
//!
//! That is also the synchronous revoke that the review of the RFC asked for: when [`BarMemory::set_mode`] is back, nobody writes
//! through an old mapping.
//!
//! # What is not seen
//!
//! Writes of another device, by DMA to this BAR, for which user space maps the BAR in an IOMMU: type 1 does so with what it
//! finds mapped. Such a mapping notes all pages when it is made, and none afterwards. It cannot be made while the device does
//! not run: pinning faults for writing. QEMU 7.2 says so when it starts a destination ("VFIO_MAP_DMA failed: Bad address") and
//! goes on, without DMA between devices.

#![expect(unsafe_code, reason = "page tables, and memory behind a BAR")]

use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicU32,
        AtomicU64,
        Ordering, //
    },
};

use kernel::{
    num::casts::usize_as_u64,
    prelude::*,
    sync::Arc, //
};

use super::{
    Access,
    Decoding,
    Device,
    Mapping,
    Table,
    Window,
    OFFSET_BITS, //
};
use crate::{
    abi::rule::Rule,
    ffi::bindings,
    memory::{
        Content,
        PageSet,
        PAGE_BYTES,
        PAGE_LENGTH, //
    },
};

// A fault maps a page of the machine's, which is noted as one of the image's.
const _: () = assert!(kernel::page::PAGE_SIZE == PAGE_LENGTH);

/// What user space may do with the memory.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Mode {
    /// Anything, unwatched.
    Free = 0,
    /// Anything, and writes are noted.
    Tracked = 1,
    /// Read.
    Frozen = 2,
}

/// A set of pages that faults add to.
struct Notes(KVVec<AtomicU64>);

impl Notes {
    fn new(pages: u64, all: bool) -> Result<Self> {
        let words = usize::try_from(pages.div_ceil(64)).map_err(|_| EINVAL)?;
        let mut notes = KVVec::with_capacity(words, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..words {
            notes.push(AtomicU64::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        let notes = Self(notes);
        if all {
            notes.add_all(pages);
        }
        Ok(notes)
    }

    fn add(&self, page: u64) {
        if let Some(word) = usize::try_from(page / 64).ok().and_then(|at| self.0.get(at)) {
            word.fetch_or(1 << (page % 64), Ordering::Relaxed);
        }
    }

    fn add_all(&self, pages: u64) {
        for (word, first) in self.0.iter().zip((0..).step_by(64)) {
            let rest = pages.saturating_sub(first).min(64);
            let bits = if rest == 64 { u64::MAX } else { (1 << rest) - 1 };
            word.store(bits, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// Device memory behind a BAR of an open device.
pub(crate) struct BarMemory {
    core: NonNull<bindings::vfio_pci_core_device>,
    bar: u32,
    pages: u64,
    /// A [`Mode`]; changed with `memory_lock` held for writing.
    mode: AtomicU32,
    /// Written since the last collection. Orderings are relaxed: `memory_lock` and the device lock order them.
    written: Notes,
    /// May hold what a user put there.
    used: Notes,
}

// SAFETY: The device outlives the value (see `new()`), and its lock guards what is changed through the pointer.
unsafe impl Send for BarMemory {}
// SAFETY: As above; all else is atomic.
unsafe impl Sync for BarMemory {}

impl BarMemory {
    /// The memory behind `bar` of a device that is being opened. It must go before the device is closed, but not before all
    /// mappings are gone, which the file behind each sees to.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EINVAL` if the BAR is no memory of whole pages.
    pub(crate) fn new(device: &Device, bar: u32, is_clean: bool) -> Result<Arc<Self>> {
        let bytes = device.bar_bytes(bar);
        // SAFETY: The device is enabled, so its BARs are mapped or marked as not mapped.
        let io = unsafe { bindings::vfio_mediate_bar(device.core(), bar) };
        if bytes == 0 || bytes % PAGE_BYTES != 0 || io.is_null() {
            return Err(EINVAL);
        }
        let pages = bytes / PAGE_BYTES;
        let memory = Self {
            core: NonNull::new(device.core()).ok_or(EINVAL)?,
            bar,
            pages,
            mode: AtomicU32::new(Mode::Free as u32),
            written: Notes::new(pages, false)?,
            used: Notes::new(pages, !is_clean)?,
        };
        Ok(Arc::new(memory, GFP_KERNEL)?)
    }

    /// Which BAR it is.
    pub(crate) fn bar(&self) -> u32 {
        self.bar
    }

    /// Its length, in pages.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Changes the mode. Before it is back, every mapping is taken away that allows more than the new mode does. With
    /// `all_written`, all pages count as written.
    pub(crate) fn set_mode(&self, mode: Mode, all_written: bool) {
        // SAFETY: The device is open, so its lock is there; it is given back below.
        unsafe { bindings::vfio_mediate_memory_lock(self.core.as_ptr()) };
        self.mode.store(mode as u32, Ordering::Relaxed);
        if all_written {
            self.written.add_all(self.pages);
        }
        if mode != Mode::Free {
            self.revoke();
        }
        // SAFETY: Taken above.
        unsafe { bindings::vfio_mediate_memory_unlock(self.core.as_ptr()) };
    }

    /// Takes all mappings away. `memory_lock` is held for writing.
    fn revoke(&self) {
        let start = u64::from(self.bar) << OFFSET_BITS;
        // SAFETY: The device is open, so it has an inode; both arguments are of its own range.
        unsafe {
            bindings::vfio_mediate_memory_revoke(self.core.as_ptr(), start, self.pages * PAGE_BYTES)
        };
    }

    /// Moves what was written since the last time into `into`, and watches all of it anew.
    pub(crate) fn collect(&self, into: &mut PageSet) {
        let mut any = 0;
        // SAFETY: The device is open, so its lock is there; it is given back below.
        unsafe { bindings::vfio_mediate_memory_lock(self.core.as_ptr()) };
        for (word, written) in into.words_mut().iter_mut().zip(&self.written.0) {
            let written = written.swap(0, Ordering::Relaxed);
            *word |= written;
            any |= written;
        }
        if any != 0 {
            self.revoke();
        }
        // SAFETY: Taken above.
        unsafe { bindings::vfio_mediate_memory_unlock(self.core.as_ptr()) };
    }

    /// How many pages were written since the last collection.
    pub(crate) fn count_written(&self) -> u64 {
        let words = self.written.0.iter().map(|word| word.load(Ordering::Relaxed));
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// Notes that user space has written `bytes` bytes at `offset` in the BAR, otherwise than through a mapping.
    pub(crate) fn note(&self, offset: u64, bytes: u64) {
        let Some(last) = bytes.checked_sub(1).and_then(|it| offset.checked_add(it)) else { return };
        for page in offset / PAGE_BYTES..=last / PAGE_BYTES {
            self.used.add(page);
            if self.mode.load(Ordering::Relaxed) == Mode::Tracked as u32 {
                self.written.add(page);
            }
        }
    }

    /// The address of pages in the BAR.
    fn place(&self, page: u64, pages: u64) -> Result<*mut c_void, Rule> {
        let inside = page.checked_add(pages).is_some_and(|end| end <= self.pages);
        // SAFETY: The device is open, so its BARs are mapped; this one's is, as `new()` saw.
        let base = unsafe { bindings::vfio_mediate_bar(self.core.as_ptr(), self.bar) };
        let offset = usize::try_from(page * PAGE_BYTES).map_err(|_| Rule::OutOfBounds)?;
        if !inside || base.is_null() {
            return Err(Rule::OutOfBounds);
        }
        Ok(base.cast::<u8>().wrapping_add(offset).cast())
    }

    /// Copies a page to `at` in a window. Gives the word if all its words are the same.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`].
    pub(crate) fn copy_page(
        &self,
        _decoding: &Decoding<'_>,
        page: u64,
        window: &Window,
        at: usize,
    ) -> Result<Option<u64>, Rule> {
        let (from, to) = (self.place(page, 1)?, window.place(at, PAGE_LENGTH)?);
        let mut word = 0;
        // SAFETY: Both have room for a page, and the BAR is decoded while the guard is there.
        let same = unsafe { bindings::vfio_mediate_copy_page(to.cast(), from, &mut word) };
        Ok(same.then_some(word))
    }

    /// Writes pages, from `first` on.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`]; nothing was written then.
    pub(crate) fn write(
        &self,
        _decoding: &Decoding<'_>,
        first: u64,
        pages: u64,
        content: &Content<'_>,
    ) -> Result<(), Rule> {
        let to = self.place(first, pages)?;
        let bytes = usize::try_from(pages * PAGE_BYTES).map_err(|_| Rule::OutOfBounds)?;
        let is_zero = matches!(content, Content::Fill(0));
        for page in first..first + pages {
            if !is_zero {
                self.used.add(page);
            }
        }
        match content {
            Content::Data(data) if data.len() == bytes => {
                // SAFETY: The BAR has this many bytes there, and is decoded while the guard is there; so has the slice.
                unsafe { bindings::vfio_mediate_write_pages(to, data.as_ptr().cast(), bytes) };
            }
            Content::Data(_) => return Err(Rule::OutOfBounds),
            Content::Fill(word) => {
                // SAFETY: As above.
                unsafe { bindings::vfio_mediate_fill_pages(to, *word, bytes) };
            }
        }
        Ok(())
    }

    /// Makes all pages zero that may hold what a user put there.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`], which cannot be.
    pub(crate) fn scrub(&self, device: &Device) -> Result<(), Rule> {
        for (word, first) in self.used.0.iter().zip((0..).step_by(64)) {
            let mut rest = word.load(Ordering::Relaxed);
            if rest == 0 {
                continue;
            }
            // The guard keeps page faults waiting, so it is let go between the words.
            let decoding = device.decode();
            while rest != 0 {
                let page = first + u64::from(rest.trailing_zeros());
                rest &= rest - 1;
                self.write(&decoding, page, 1, &Content::Fill(0))?;
            }
        }
        self.used.clear();
        Ok(())
    }

    /// Sets up a mapping of the BAR. Nothing is mapped until it is touched.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it reaches past the BAR or is private.
    pub(crate) fn map(&self, mapping: &Mapping) -> Result {
        let end = mapping.offset.checked_add(mapping.bytes).ok_or(EINVAL)?;
        if !mapping.is_shared() || end > self.pages * PAGE_BYTES {
            return Err(EINVAL);
        }
        // SAFETY: The mapping is being set up by its caller. The pointer in it is good as long as the mapping: its file keeps
        // the device open, and the device this value.
        unsafe {
            bindings::vfio_mediate_memory_map(
                mapping.vma(),
                &FAULTS.0,
                core::ptr::from_ref(self).cast_mut().cast(),
            )
        };
        Ok(())
    }

    /// Writes the user's bytes to the BAR as vfio-pci-core would, and notes it.
    ///
    /// # Errors
    ///
    /// Those of vfio-pci-core.
    pub(crate) fn pass_write(&self, device: &Device, access: &Access) -> Result<usize> {
        let result = device.core_write(self.bar, access);
        // It may have been done in part.
        self.note(access.offset, usize_as_u64(access.bytes));
        result
    }

    /// A fault at `vmf`.
    fn fault(&self, vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        let core = self.core.as_ptr();
        // SAFETY: The memory manager passes a fault in a mapping of ours.
        let (page, is_write) = unsafe {
            let in_bar =
                (*vmf).__bindgen_anon_1.pgoff & ((1 << (OFFSET_BITS - bindings::PAGE_SHIFT)) - 1);
            (usize_as_u64(in_bar), (*vmf).flags & bindings::fault_flag_FAULT_FLAG_WRITE != 0)
        };
        if page >= self.pages {
            return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
        }
        // SAFETY: The device is open as long as it is mapped. The lock is given back below.
        unsafe { bindings::vfio_mediate_memory_lock_shared(core) };
        let mode = self.mode.load(Ordering::Relaxed);
        let answer = if is_write && mode == Mode::Frozen as u32 {
            bindings::vm_fault_reason_VM_FAULT_SIGBUS
        } else {
            let writable = is_write || mode == Mode::Free as u32;
            // Before there is an entry, so that there is none without a note.
            if writable {
                self.used.add(page);
            }
            if is_write && mode == Mode::Tracked as u32 {
                self.written.add(page);
            }
            // SAFETY: As above; the lock is held.
            unsafe { bindings::vfio_mediate_memory_insert(core, vmf, self.bar, page, writable) }
        };
        // SAFETY: Taken above.
        unsafe { bindings::vfio_mediate_memory_unlock_shared(core) };
        answer
    }
}

static FAULTS: Table<bindings::vm_operations_struct> = Table(bindings::vm_operations_struct {
    fault: Some(fault),
    pfn_mkwrite: Some(fault),
    ..pin_init::zeroed()
});

/// `vm_operations_struct.fault` and `pfn_mkwrite`.
///
/// # Safety
///
/// `vmf` is a fault in a mapping that [`BarMemory::map`] has set up.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: `map()` has put the pointer there, which is good as long as the mapping.
    let memory = unsafe { &*(*(*vmf).__bindgen_anon_1.vma).vm_private_data.cast::<BarMemory>() };
    memory.fault(vmf)
}

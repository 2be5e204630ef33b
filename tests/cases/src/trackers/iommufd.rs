// SPDX-License-Identifier: Apache-2.0 OR MIT
//! iommufd with the test device that the kernel brings along (`CONFIG_IOMMUFD_TEST`, `drivers/iommu/iommufd/iommufd_test.h`): a page
//! table in memory, whose dirty bits are set by hand.
#![expect(unsafe_code, reason = "ioctl")]

use std::ffi::c_ulong;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use super::memory::{Memory, PAGE_BYTES};

// `_IO(';', 0x80 + n)`, include/uapi/linux/iommufd.h.
const IOAS_ALLOC: c_ulong = 0x3b81;
const IOAS_MAP: c_ulong = 0x3b85;
const IOAS_UNMAP: c_ulong = 0x3b86;
const OPTION: c_ulong = 0x3b87;
const HWPT_ALLOC: c_ulong = 0x3b89;
const SET_DIRTY_TRACKING: c_ulong = 0x3b8b;
const GET_DIRTY_BITMAP: c_ulong = 0x3b8c;
const TEST: c_ulong = 0x3ba0;

// `IOMMU_TEST_OP_*`
const MOCK_DOMAIN_REPLACE: u32 = 10;
const MOCK_DOMAIN_FLAGS: u32 = 12;
const DIRTY: u32 = 13;

/// `IOMMU_OPTION_HUGE_PAGES`; the operation 0 sets it.
const HUGE_PAGES: u32 = 1;
/// `IOMMU_HWPT_ALLOC_DIRTY_TRACKING`
const WITH_TRACKING: u32 = 1 << 1;
/// `IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE`
const MAP_FLAGS: u32 = 0b111;
/// Length of `struct iommu_test_cmd`, in words of 32 bits.
const TEST_WORDS: usize = 18;

/// A test device with a page table that keeps account of dirty pages.
#[derive(Debug)]
pub struct TestDevice {
    file: File,
    ioas: u32,
    hwpt: u32,
}

impl TestDevice {
    /// Makes one. The module has to be loaded.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn new() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/iommu")?;
        let mut ioas = [12, 0, 0];
        ioctl(&file, IOAS_ALLOC, &mut ioas)?;
        let [_, _, ioas] = ioas;
        // Pages that lie side by side would share an entry of the page table, and its dirty bit.
        ioctl(&file, OPTION, &mut [24, HUGE_PAGES, 0, ioas, 0, 0])?;
        let mut device = test(MOCK_DOMAIN_FLAGS, ioas);
        ioctl(&file, TEST, &mut device)?;
        let (device, bound) = (device[4], device[6]);
        let mut hwpt = [48, WITH_TRACKING, bound, ioas, 0, 0, 0, 0, 0, 0, 0, 0];
        ioctl(&file, HWPT_ALLOC, &mut hwpt)?;
        let hwpt = hwpt[4];
        let mut replace = test(MOCK_DOMAIN_REPLACE, device);
        replace[4] = hwpt;
        ioctl(&file, TEST, &mut replace)?;
        Ok(Self { file, ioas, hwpt })
    }

    /// Maps all of `memory` at `iova`.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn map(&self, memory: &Memory, iova: u64) -> io::Result<()> {
        let mut words = vec![40, MAP_FLAGS, self.ioas, 0];
        for number in [memory.address(), memory.bytes(), iova] {
            words.extend(halves(number));
        }
        ioctl(&self.file, IOAS_MAP, &mut words)
    }

    /// Takes `pages` pages from `iova` on away.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn unmap(&self, iova: u64, pages: u64) -> io::Result<()> {
        let mut words = vec![24, self.ioas];
        words.extend(halves(iova));
        words.extend(halves(pages * PAGE_BYTES));
        ioctl(&self.file, IOAS_UNMAP, &mut words)
    }

    /// Switches tracking on or off.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn track(&self, on: bool) -> io::Result<()> {
        ioctl(&self.file, SET_DIRTY_TRACKING, &mut [16, u32::from(on), self.hwpt, 0])
    }

    /// Makes pages dirty, counted from `iova`.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn write(&self, iova: u64, pages: &[u64], of: u64) -> io::Result<()> {
        let words = super::bitmap(pages, of);
        let mut asked = test(DIRTY, self.hwpt);
        let bitmap = words.as_ptr().expose_provenance() as u64;
        let numbers = [iova, of * PAGE_BYTES, PAGE_BYTES, bitmap];
        for (place, half) in (6..).zip(numbers.into_iter().flat_map(halves)) {
            asked[place] = half;
        }
        ioctl(&self.file, TEST, &mut asked)
    }

    /// Which of `of` pages from `iova` on are dirty, added to what is set in `words`; they stay dirty with `no_clear`.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn dirty(&self, iova: u64, of: u64, no_clear: bool, words: &mut [u64]) -> io::Result<()> {
        assert!(words.len() as u64 * 64 >= of);
        self.ask(self.hwpt, iova, of, no_clear, words)
    }

    /// Asks a page table that is none.
    ///
    /// # Errors
    ///
    /// What the kernel refuses with.
    pub fn ask_nobody(&self) -> io::Result<()> {
        self.ask(u32::MAX, 1 << 24, 64, false, &mut [0])
    }

    fn ask(
        &self,
        hwpt: u32,
        iova: u64,
        of: u64,
        no_clear: bool,
        words: &mut [u64],
    ) -> io::Result<()> {
        let bitmap = words.as_mut_ptr().expose_provenance() as u64;
        let mut asked = vec![48, hwpt, u32::from(no_clear), 0];
        for number in [iova, of * PAGE_BYTES, PAGE_BYTES, bitmap] {
            asked.extend(halves(number));
        }
        ioctl(&self.file, GET_DIRTY_BITMAP, &mut asked)
    }
}

fn test(op: u32, id: u32) -> [u32; TEST_WORDS] {
    let mut words = [0; TEST_WORDS];
    let bytes = u32::try_from(size_of_val(&words)).expect("a small length");
    words[..3].copy_from_slice(&[bytes, op, id]);
    words
}

fn halves(number: u64) -> [u32; 2] {
    let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).expect("it is cut");
    [half(number), half(number >> 32)]
}

fn ioctl(file: &File, request: c_ulong, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: Each caller passes the structure that its request asks for, as long as its first word says; what addresses are in it
    // are of memory that lives for the time of the call, or longer than the mapping that is made of it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, words.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine of one processor in real mode, whose code writes to chosen pages of its one slot of memory and halts.
#![expect(
    unsafe_code,
    reason = "KVM maps memory of this process, and two of its ioctls are in no crate"
)]

use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{
    KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_DIRTY_LOG_PAGE_OFFSET, KVM_MEM_LOG_DIRTY_PAGES,
    kvm_clear_dirty_log, kvm_dirty_gfn, kvm_enable_cap, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use migscope_abi::tracking::{KVM_CLEAR_DIRTY_LOG, KVM_RESET_DIRTY_RINGS};

use super::memory::{Memory, PAGE_BYTES};

/// Pages of its memory: what real mode reaches.
pub const PAGES: u64 = 256;
/// Where its code lies. It only reads it, but KVM makes it writable as it first comes there, and so calls it dirty once.
pub const CODE: u64 = 1;
/// `KVM_DIRTY_GFN_F_DIRTY` and `KVM_DIRTY_GFN_F_RESET`: whose an entry of the ring is.
const DIRTY: u32 = 1 << 0;
const RESET: u32 = 1 << 1;
/// Entries of its ring.
const RING: usize = 1024;
const SLOT: u32 = 0;

/// How dirty pages are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// `KVM_GET_DIRTY_LOG` forgets what it tells.
    Log,
    /// `KVM_CLEAR_DIRTY_LOG` does.
    LogUntilCleared,
    /// The processor's ring.
    Ring,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    processor: VcpuFd,
    ring: *mut kvm_dirty_gfn,
    harvested: usize,
    vm: VmFd,
    // It goes after the machine that uses it.
    memory: Memory,
}

impl Machine {
    /// Makes one. The module has to be loaded.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When the memory of a machine is none that can be mapped.
    pub fn new(tells: Tells) -> io::Result<Self> {
        let vm = Kvm::new()?.create_vm()?;
        let ring_bytes = RING * size_of::<kvm_dirty_gfn>();
        let enable = match tells {
            Tells::Log => None,
            Tells::LogUntilCleared => Some((
                KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                u64::from(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE),
            )),
            Tells::Ring => Some((KVM_CAP_DIRTY_LOG_RING_ACQ_REL, ring_bytes as u64)),
        };
        if let Some((cap, argument)) = enable {
            let args = [argument, 0, 0, 0];
            vm.enable_cap(&kvm_enable_cap { cap, args, ..kvm_enable_cap::default() })?;
        }
        let memory = Memory::new(PAGES)?;
        let region = kvm_userspace_memory_region {
            slot: SLOT,
            flags: KVM_MEM_LOG_DIRTY_PAGES,
            guest_phys_addr: 0,
            memory_size: memory.bytes(),
            userspace_addr: memory.address(),
        };
        // SAFETY: The memory lives as long as the machine, and is nobody else's.
        unsafe { vm.set_user_memory_region(region) }?;
        let processor = vm.create_vcpu(0)?;
        let mut sregs = processor.get_sregs()?;
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
        processor.set_sregs(&sregs)?;
        let mut ring = ptr::null_mut();
        if tells == Tells::Ring {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let at = i64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * PAGE_BYTES.cast_signed();
            let (descriptor, shared) = (processor.as_raw_fd(), libc::MAP_SHARED);
            // SAFETY: A mapping at an address of the kernel's choice touches no memory that is in use.
            let base = unsafe {
                libc::mmap(ptr::null_mut(), ring_bytes, protection, shared, descriptor, at)
            };
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            ring = base.cast();
        }
        Ok(Self { processor, ring, harvested: 0, vm, memory })
    }

    /// Lets it write to these pages.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When it does something else.
    pub fn write(&mut self, pages: &[u64]) -> io::Result<()> {
        let mut code = Vec::new();
        for page in pages {
            assert!(*page < PAGES && *page != CODE);
            let segment = u16::try_from(page << 8).expect("a page of real mode");
            let [low, high] = segment.to_le_bytes();
            // mov ax, segment; mov ds, ax; mov byte [0], 1
            code.extend([0xb8, low, high, 0x8e, 0xd8, 0xc6, 0x06, 0, 0, 1]);
        }
        code.push(0xf4); // hlt
        assert!(code.len() as u64 <= PAGE_BYTES);
        let at = usize::try_from(CODE * PAGE_BYTES).expect("a small number");
        self.memory.write(at, &code);
        self.run()
    }

    /// Lets it go through the code that it has once more.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When it does something else than to halt.
    pub fn run(&mut self) -> io::Result<()> {
        let mut regs = self.processor.get_regs()?;
        regs.rip = CODE * PAGE_BYTES;
        regs.rflags = 2;
        self.processor.set_regs(&regs)?;
        match self.processor.run()? {
            VcpuExit::Hlt => Ok(()),
            other => panic!("the machine did not halt: {other:?}"),
        }
    }

    /// Which pages the log tells.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn log(&self) -> io::Result<Vec<u64>> {
        let bytes = usize::try_from(self.memory.bytes()).expect("it is mapped");
        Ok(super::bits(&self.vm.get_dirty_log(SLOT, bytes)?))
    }

    /// Asks for the log of a slot that is none.
    ///
    /// # Errors
    ///
    /// What the kernel refuses with.
    pub fn log_of_nothing(&self) -> io::Result<()> {
        Ok(self.vm.get_dirty_log(7, 4096).map(drop)?)
    }

    /// Lets the log forget these of the `of` pages from `first` on; both are multiples of 64.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When a page lies before the first.
    pub fn clear(&self, first: u64, of: u64, pages: &[u64]) -> io::Result<()> {
        let from_first: Vec<_> = pages.iter().map(|page| page - first).collect();
        let mut words = super::bitmap(&from_first, of);
        let mut asked = kvm_clear_dirty_log {
            slot: SLOT,
            num_pages: u32::try_from(of).expect("fewer than a slot has"),
            first_page: first,
            ..kvm_clear_dirty_log::default()
        };
        asked.__bindgen_anon_1.dirty_bitmap = words.as_mut_ptr().cast();
        // SAFETY: The structure and the bitmap in it live for the time of the call, and the bitmap has as many bits as it says.
        let result =
            unsafe { libc::ioctl(self.vm.as_raw_fd(), KVM_CLEAR_DIRTY_LOG.into(), &raw mut asked) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes what is in the ring, and says which pages it is.
    ///
    /// # Panics
    ///
    /// When the machine has none.
    pub fn harvest(&mut self) -> Vec<u64> {
        assert!(!self.ring.is_null(), "the machine has no ring");
        let mut pages = Vec::new();
        loop {
            // SAFETY: An entry of the ring, which the kernel and this thread share: its flags say whose it is now.
            let (flags, entry) = unsafe {
                let entry = self.ring.add(self.harvested % RING);
                (AtomicU32::from_ptr(&raw mut (*entry).flags), entry)
            };
            if flags.load(Ordering::Acquire) != DIRTY {
                return pages;
            }
            // SAFETY: It is this thread's until it says otherwise.
            pages.push(unsafe { (*entry).offset });
            flags.store(RESET, Ordering::Release);
            self.harvested += 1;
        }
    }

    /// Gives the places of what was taken back. Says how many that were.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When it says a number that is none.
    pub fn reset_rings(&self) -> io::Result<u64> {
        // SAFETY: It takes no argument.
        let result = unsafe { libc::ioctl(self.vm.as_raw_fd(), KVM_RESET_DIRTY_RINGS.into(), 0) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(u64::try_from(result).expect("it is no error"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.ring.is_null() {
            // SAFETY: The mapping is this value's own, of this length, and nothing points into it any more.
            unsafe { libc::munmap(self.ring.cast(), RING * size_of::<kvm_dirty_gfn>()) };
        }
    }
}

// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Who tells which pages of a whole machine are dirty: what of `vfio.h`, `iommufd.h` and `kvm.h` (`include/uapi/linux`) is looked at.
//!
//! ```text
//!   ioctl(container, VFIO_IOMMU_DIRTY_PAGES, START | STOP | GET_BITMAP {iova, size, bitmap})     type1
//!   ioctl(container, VFIO_IOMMU_UNMAP_DMA, GET_DIRTY_BITMAP {iova, size, bitmap})
//!   ioctl(/dev/iommu, IOMMU_HWPT_SET_DIRTY_TRACKING, {flags})                                    iommufd
//!   ioctl(/dev/iommu, IOMMU_HWPT_GET_DIRTY_BITMAP, {flags, iova, length, page_size, data})
//!   ioctl(vm, KVM_GET_DIRTY_LOG, {slot, bitmap})                                                 KVM
//!   ioctl(vm, KVM_CLEAR_DIRTY_LOG, {slot, num_pages, first_page, bitmap})
//!   ioctl(vm, KVM_SET_USER_MEMORY_REGION, {slot, …})
//!   ioctl(vm, KVM_RESET_DIRTY_RINGS) = pages
//! ```
//!
//! All of it is what a process claims in its own memory: it is looked at, never believed in.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// All ioctls of a container's IOMMU (`drivers/vfio/vfio_iommu_type1.c`).
pub const TYPE1_IOCTL: &str = "vfio_iommu_type1_ioctl";
/// `IOMMU_HWPT_GET_DIRTY_BITMAP` (`drivers/iommu/iommufd/hw_pagetable.c`).
pub const HWPT_BITMAP: &str = "iommufd_hwpt_get_dirty_bitmap";
/// `IOMMU_HWPT_SET_DIRTY_TRACKING`.
pub const HWPT_TRACKING: &str = "iommufd_hwpt_set_dirty_tracking";
/// `IOMMU_IOAS_UNMAP` (`drivers/iommu/iommufd/ioas.c`).
pub const IOAS_UNMAP: &str = "iommufd_ioas_unmap";
/// All ioctls of a virtual machine (`virt/kvm/kvm_main.c`); those of its processors, `KVM_RUN` among them, go elsewhere.
pub const KVM_IOCTL: &str = "kvm_vm_ioctl";
/// What `KVM_GET_DIRTY_LOG` and `KVM_CLEAR_DIRTY_LOG` call with the slot that they have found.
pub const KVM_SLOT: &str = "kvm_arch_sync_dirty_log";

/// The modules that these functions are in, where they are not built in.
pub const TYPE1_MODULE: &str = "vfio_iommu_type1";
/// The same of iommufd.
pub const IOMMUFD_MODULE: &str = "iommufd";
/// The same of KVM.
pub const KVM_MODULE: &str = "kvm";

/// `_IO(';', 114)`.
pub const VFIO_IOMMU_UNMAP_DMA: u32 = 0x3b72;
/// `_IO(';', 117)`.
pub const VFIO_IOMMU_DIRTY_PAGES: u32 = 0x3b75;
/// `VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP`.
pub const UNMAP_GET_BITMAP: u32 = 1 << 0;
/// `VFIO_IOMMU_DIRTY_PAGES_FLAG_START`.
pub const DIRTY_PAGES_START: u32 = 1 << 0;
/// `VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP`.
pub const DIRTY_PAGES_STOP: u32 = 1 << 1;
/// `VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP`.
pub const DIRTY_PAGES_GET_BITMAP: u32 = 1 << 2;

/// `IOMMU_HWPT_DIRTY_TRACKING_ENABLE`.
pub const TRACKING_ENABLE: u32 = 1;
/// `IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR`: what is told stays dirty.
pub const BITMAP_NO_CLEAR: u32 = 1;

/// `_IOW(0xae, 0x42, struct kvm_dirty_log)`.
pub const KVM_GET_DIRTY_LOG: u32 = 0x4010_ae42;
/// `_IOWR(0xae, 0xc0, struct kvm_clear_dirty_log)`.
pub const KVM_CLEAR_DIRTY_LOG: u32 = 0xc018_aec0;
/// `_IOW(0xae, 0x46, struct kvm_userspace_memory_region)`.
pub const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
/// `_IOW(0xae, 0x49, struct kvm_userspace_memory_region2)`.
pub const KVM_SET_USER_MEMORY_REGION2: u32 = 0x40a0_ae49;
/// `_IO(0xae, 0xc7)`.
pub const KVM_RESET_DIRTY_RINGS: u32 = 0xaec7;

/// `struct vfio_iommu_type1_dirty_bitmap` with the `struct vfio_iommu_type1_dirty_bitmap_get` behind it. `struct
/// vfio_iommu_type1_dma_unmap` with the `struct vfio_bitmap` behind it is the same.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Type1Bitmap {
    /// Length of all of it.
    pub argsz: u32,
    /// What is asked.
    pub flags: u32,
    /// First address asked for.
    pub iova: u64,
    /// Bytes asked for.
    pub size: u64,
    /// Bytes that a bit stands for.
    pub page_size: u64,
    /// Length of the bitmap, in bytes.
    pub bitmap_bytes: u64,
    /// Address of the bitmap in the process.
    pub bitmap: u64,
}

/// `struct iommu_hwpt_get_dirty_bitmap`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct HwptBitmap {
    /// Length of it.
    pub size: u32,
    /// Which page table.
    pub hwpt_id: u32,
    /// [`BITMAP_NO_CLEAR`].
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// First address asked for.
    pub iova: u64,
    /// Bytes asked for.
    pub length: u64,
    /// Bytes that a bit stands for.
    pub page_size: u64,
    /// Address of the bitmap in the process.
    pub data: u64,
}

/// `struct iommu_hwpt_set_dirty_tracking`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct HwptTracking {
    /// Length of it.
    pub size: u32,
    /// [`TRACKING_ENABLE`].
    pub flags: u32,
    /// Which page table.
    pub hwpt_id: u32,
    /// 0.
    pub reserved: u32,
}

/// `struct kvm_dirty_log`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct KvmDirtyLog {
    /// Which slot of memory.
    pub slot: u32,
    /// Nothing.
    pub padding: u32,
    /// Address of the bitmap in the process.
    pub bitmap: u64,
}

/// `struct kvm_clear_dirty_log`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct KvmClearDirtyLog {
    /// Which slot of memory.
    pub slot: u32,
    /// Pages that the bitmap is of.
    pub pages: u32,
    /// The first of them, from the beginning of the slot.
    pub first_page: u64,
    /// Address of the bitmap in the process.
    pub bitmap: u64,
}

/// Where the fields of the structures of iommufd and KVM are, in bytes, as the kernel's type information (BTF) says. The agent finds them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct TrackingOffsets {
    /// `struct iommufd_ucmd`: `cmd`.
    pub ucmd_cmd: u32,
    /// 1 once that is known.
    pub iommufd_known: u32,
    /// `struct kvm_memory_slot`: `base_gfn`.
    pub slot_base_gfn: u32,
    /// `struct kvm_memory_slot`: `npages`.
    pub slot_pages: u32,
    /// `struct kvm`: `manual_dirty_log_protect`.
    pub kvm_manual_protect: u32,
    /// Bytes of a page of the host, in which KVM counts.
    pub page_bytes: u32,
    /// `struct file`: `private_data`.
    pub file_private_data: u32,
    /// 1 once the last five are known.
    pub kvm_known: u32,
}

const _: () = {
    assert!(size_of::<Type1Bitmap>() == 48);
    assert!(size_of::<HwptBitmap>() == 48);
    assert!(size_of::<HwptTracking>() == 16);
    assert!(size_of::<KvmDirtyLog>() == 16);
    assert!(size_of::<KvmClearDirtyLog>() == 24);
    assert!(size_of::<TrackingOffsets>() == 32);
};

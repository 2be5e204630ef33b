/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What Rust calls in C and cannot reach by itself: macros and static inlines.
 * bindgen reads this file; ffi.rs gives the calls their safe form.
 */
#ifndef _VFIO_MEDIATE_SHIM_H
#define _VFIO_MEDIATE_SHIM_H

#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/pci.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

#include "include/vfio_mediate.h"
#include "records.h"

/* The ioctls that the driver answers itself; bindgen does not evaluate _IO(). */
enum vfio_mediate_ioctl {
	VFIO_MEDIATE_DEVICE_RESET = VFIO_DEVICE_RESET,
	VFIO_MEDIATE_DEVICE_PCI_HOT_RESET = VFIO_DEVICE_PCI_HOT_RESET,
	VFIO_MEDIATE_DEVICE_IOEVENTFD = VFIO_DEVICE_IOEVENTFD,
};

/* Defined in vfio.rs, called by the PCI core through the driver's table. */
int vfio_mediate_probe(struct pci_dev *pdev, const struct pci_device_id *id);
void vfio_mediate_remove(struct pci_dev *pdev);

/* Defined in vendor.rs, called by the exported functions of the same purpose. */
int vfio_mediate_register(const struct vfio_mediate_ops *ops);
void vfio_mediate_unregister(const struct vfio_mediate_ops *ops);

int vfio_mediate_register_driver(void);
void vfio_mediate_unregister_driver(void);

void vfio_mediate_set_drvdata(struct pci_dev *pdev, struct vfio_pci_core_device *core);
struct vfio_pci_core_device *vfio_mediate_drvdata(struct pci_dev *pdev);
void vfio_mediate_put_device(struct vfio_device *vdev);

bool vfio_mediate_module_get(struct module *module);
void vfio_mediate_module_put(struct module *module);

u64 vfio_mediate_device_key(struct pci_dev *pdev);
int vfio_mediate_wake(struct pci_dev *pdev);
void vfio_mediate_rest(struct pci_dev *pdev);

u64 vfio_mediate_bar_bytes(struct vfio_pci_core_device *core, unsigned int bar);
void __iomem *vfio_mediate_bar(struct vfio_pci_core_device *core, unsigned int bar);
u16 vfio_mediate_decode_on(struct vfio_pci_core_device *core);
void vfio_mediate_decode_restore(struct vfio_pci_core_device *core, u16 command);
void vfio_mediate_offer_reset(struct vfio_pci_core_device *core);

struct iommu_domain *vfio_mediate_domain(struct pci_dev *pdev);
int vfio_mediate_map_page(struct iommu_domain *domain, unsigned long iova, struct page *page);

void *vfio_mediate_window_alloc(size_t bytes);
void vfio_mediate_window_free(void *base);
int vfio_mediate_window_map(struct vm_area_struct *vma, void *base, size_t at);
int vfio_mediate_add_sparse_mmap(struct vfio_info_cap *caps,
				 const struct vfio_region_sparse_mmap_area *areas, u32 count);

void vfio_mediate_memory_lock(struct vfio_pci_core_device *core);
void vfio_mediate_memory_unlock(struct vfio_pci_core_device *core);
void vfio_mediate_memory_lock_shared(struct vfio_pci_core_device *core);
void vfio_mediate_memory_unlock_shared(struct vfio_pci_core_device *core);
void vfio_mediate_memory_revoke(struct vfio_pci_core_device *core, u64 start, u64 bytes);
void vfio_mediate_memory_map(struct vm_area_struct *vma, const struct vm_operations_struct *ops,
			     void *memory);
vm_fault_t vfio_mediate_memory_insert(struct vfio_pci_core_device *core, struct vm_fault *vmf,
				      unsigned int bar, u64 page, bool writable);
bool vfio_mediate_copy_page(void *to, const void __iomem *from, u64 *word);
void vfio_mediate_write_pages(void __iomem *to, const void *from, size_t bytes);
void vfio_mediate_fill_pages(void __iomem *to, u64 word, size_t bytes);

u32 vfio_mediate_crc32(u32 seed, const void *bytes, size_t length);

bool vfio_mediate_state_enabled(void);
bool vfio_mediate_region_access_enabled(void);
bool vfio_mediate_data_enabled(void);
bool vfio_mediate_dirty_query_enabled(void);
bool vfio_mediate_dma_enabled(void);
bool vfio_mediate_error_enabled(void);
void vfio_mediate_trace_state(const struct vfio_mediate_state *record);
void vfio_mediate_trace_region_access(const struct vfio_mediate_region_access *record);
void vfio_mediate_trace_data(const struct vfio_mediate_data *record);
void vfio_mediate_trace_dirty_query(const struct vfio_mediate_dirty_query *record);
void vfio_mediate_trace_dma(const struct vfio_mediate_dma *record);
void vfio_mediate_trace_error(const struct vfio_mediate_error *record);

#endif /* _VFIO_MEDIATE_SHIM_H */

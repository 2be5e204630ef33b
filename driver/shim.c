// SPDX-License-Identifier: GPL-2.0
/*
 * The part of the driver that only C can say: the PCI table and driver, whose macros have no
 * Rust form, and thin functions around static inlines. No decision is taken here.
 */
#include <linux/crc32.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/pm_runtime.h>
#include <linux/unaligned.h>
#include <linux/vmalloc.h>

#include "shim.h"

/*
 * Override only: the driver takes a device when the administrator writes its name into the
 * device's driver_override, and never by itself. The override alone is enough, for any device
 * (pci_match_device() makes up an id then), so devices of vendors' modules need no entry; the
 * table says which devices the driver can migrate by itself.
 */
static const struct pci_device_id vfio_mediate_ids[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(0x1234, 0x11e8) }, /* QEMU edu */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(0x1af4, 0x1110) }, /* QEMU ivshmem */
	{}
};
MODULE_DEVICE_TABLE(pci, vfio_mediate_ids);

static struct pci_driver vfio_mediate_driver = {
	.name = "vfio_mediate",
	.id_table = vfio_mediate_ids,
	.probe = vfio_mediate_probe,
	.remove = vfio_mediate_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};

int vfio_mediate_register_driver(void)
{
	return pci_register_driver(&vfio_mediate_driver);
}

void vfio_mediate_unregister_driver(void)
{
	pci_unregister_driver(&vfio_mediate_driver);
}

void vfio_mediate_set_drvdata(struct pci_dev *pdev, struct vfio_pci_core_device *core)
{
	dev_set_drvdata(&pdev->dev, core);
}

struct vfio_pci_core_device *vfio_mediate_drvdata(struct pci_dev *pdev)
{
	return dev_get_drvdata(&pdev->dev);
}

void vfio_mediate_put_device(struct vfio_device *vdev)
{
	vfio_put_device(vdev);
}

/* Inline functions in a kernel whose modules cannot be unloaded. */
bool vfio_mediate_module_get(struct module *module)
{
	return try_module_get(module);
}

void vfio_mediate_module_put(struct module *module)
{
	module_put(module);
}

/* Rust has no EXPORT_SYMBOL_GPL() for modules. */
int vfio_mediate_register_ops(const struct vfio_mediate_ops *ops)
{
	return vfio_mediate_register(ops);
}
EXPORT_SYMBOL_GPL(vfio_mediate_register_ops);

void vfio_mediate_unregister_ops(const struct vfio_mediate_ops *ops)
{
	vfio_mediate_unregister(ops);
}
EXPORT_SYMBOL_GPL(vfio_mediate_unregister_ops);

u64 vfio_mediate_device_key(struct pci_dev *pdev)
{
	return (u64)pci_domain_nr(pdev->bus) << 16 | pdev->bus->number << 8 | pdev->devfn;
}

int vfio_mediate_wake(struct pci_dev *pdev)
{
	return pm_runtime_resume_and_get(&pdev->dev);
}

void vfio_mediate_rest(struct pci_dev *pdev)
{
	pm_runtime_put(&pdev->dev);
}

u64 vfio_mediate_bar_bytes(struct vfio_pci_core_device *core, unsigned int bar)
{
	return pci_resource_len(core->pdev, bar);
}

/* The BAR's mapping, or NULL: not a memory BAR, or vfio-pci-core could not map it. */
void __iomem *vfio_mediate_bar(struct vfio_pci_core_device *core, unsigned int bar)
{
	void __iomem *io;

	if (!(pci_resource_flags(core->pdev, bar) & IORESOURCE_MEM))
		return NULL;
	io = vfio_pci_core_get_iomap(core, bar);
	return IS_ERR(io) ? NULL : io;
}

#define VFIO_MEDIATE_DECODE (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

/* Gives the physical command register as it was; memory_lock stays taken. */
u16 vfio_mediate_decode_on(struct vfio_pci_core_device *core)
{
	u16 command;

	down_write(&core->memory_lock);
	pci_read_config_word(core->pdev, PCI_COMMAND, &command);
	if (~command & VFIO_MEDIATE_DECODE)
		pci_write_config_word(core->pdev, PCI_COMMAND, command | VFIO_MEDIATE_DECODE);
	return command;
}

/*
 * Takes away only what was added: meanwhile an interrupt may have been masked by another bit of
 * the register, without memory_lock.
 */
void vfio_mediate_decode_restore(struct vfio_pci_core_device *core, u16 command)
{
	u16 now;

	if (~command & VFIO_MEDIATE_DECODE) {
		pci_read_config_word(core->pdev, PCI_COMMAND, &now);
		now &= command | ~VFIO_MEDIATE_DECODE;
		pci_write_config_word(core->pdev, PCI_COMMAND, now);
	}
	up_write(&core->memory_lock);
}

/* Makes VFIO_DEVICE_GET_INFO say VFIO_DEVICE_FLAGS_RESET. */
void vfio_mediate_offer_reset(struct vfio_pci_core_device *core)
{
	core->reset_works = true;
}

static int vfio_mediate_count_device(struct device *dev, void *count)
{
	++*(unsigned int *)count;
	return 0;
}

/*
 * The domain that translates for the device, or NULL: not attached, attached to something that
 * has no page table of the host's, or in a group with other devices.
 *
 * iommu_get_domain_for_dev() is no call for a driver with driver_managed_dma, as the domain may
 * go away under it. Here it cannot: a container keeps its domain until the device is closed,
 * iommufd's attach and detach go through the driver's device lock, and a second device of the
 * group, through which the domain could be changed, is refused.
 */
struct iommu_domain *vfio_mediate_domain(struct pci_dev *pdev)
{
	struct iommu_group *group = iommu_group_get(&pdev->dev);
	struct iommu_domain *domain;
	unsigned int count = 0;

	if (!group)
		return NULL;
	iommu_group_for_each_dev(group, &count, vfio_mediate_count_device);
	iommu_group_put(group);
	if (count != 1)
		return NULL;
	domain = iommu_get_domain_for_dev(&pdev->dev);
	return domain && domain->type & __IOMMU_DOMAIN_PAGING ? domain : NULL;
}

int vfio_mediate_map_page(struct iommu_domain *domain, unsigned long iova, struct page *page)
{
	return iommu_map(domain, iova, page_to_phys(page), PAGE_SIZE,
			 IOMMU_READ | IOMMU_WRITE | IOMMU_CACHE, GFP_KERNEL_ACCOUNT);
}

/* Zeroed, and marked as fit for user space. */
void *vfio_mediate_window_alloc(size_t bytes)
{
	return vmalloc_user(bytes);
}

void vfio_mediate_window_free(void *base)
{
	vfree(base);
}

int vfio_mediate_window_map(struct vm_area_struct *vma, void *base, size_t at)
{
	return remap_vmalloc_range(vma, base, at >> PAGE_SHIFT);
}

int vfio_mediate_add_sparse_mmap(struct vfio_info_cap *caps,
				 const struct vfio_region_sparse_mmap_area *areas, u32 count)
{
	struct vfio_region_info_cap_sparse_mmap *sparse;
	int ret;

	sparse = kzalloc(struct_size(sparse, areas, count), GFP_KERNEL);
	if (!sparse)
		return -ENOMEM;
	sparse->header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	sparse->header.version = 1;
	sparse->nr_areas = count;
	memcpy(sparse->areas, areas, array_size(count, sizeof(*areas)));
	ret = vfio_info_add_capability(caps, &sparse->header, struct_size(sparse, areas, count));
	kfree(sparse);
	return ret;
}

void vfio_mediate_memory_lock(struct vfio_pci_core_device *core)
{
	down_write(&core->memory_lock);
}

void vfio_mediate_memory_unlock(struct vfio_pci_core_device *core)
{
	up_write(&core->memory_lock);
}

void vfio_mediate_memory_lock_shared(struct vfio_pci_core_device *core)
{
	down_read(&core->memory_lock);
}

void vfio_mediate_memory_unlock_shared(struct vfio_pci_core_device *core)
{
	up_read(&core->memory_lock);
}

void vfio_mediate_memory_revoke(struct vfio_pci_core_device *core, u64 start, u64 bytes)
{
	lockdep_assert_held_write(&core->memory_lock);
	unmap_mapping_range(core->vdev.inode->i_mapping, start, bytes, true);
}

/* The flags and the protection are those of vfio_pci_core_mmap(). */
void vfio_mediate_memory_map(struct vm_area_struct *vma, const struct vm_operations_struct *ops,
			     void *memory)
{
	vma->vm_page_prot = pgprot_decrypted(pgprot_noncached(vma->vm_page_prot));
	vm_flags_set(vma, VM_ALLOW_ANY_UNCACHED | VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = ops;
	vma->vm_private_data = memory;
}

/*
 * Maps a page where the fault was. An entry that is there already, for reading, is taken away
 * first: vmf_insert_pfn_prot() leaves an entry alone.
 */
vm_fault_t vfio_mediate_memory_insert(struct vfio_pci_core_device *core, struct vm_fault *vmf,
				      unsigned int bar, u64 page, bool writable)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long pfn = (pci_resource_start(core->pdev, bar) >> PAGE_SHIFT) + page;
	unsigned long address = vmf->address & PAGE_MASK;
	vm_flags_t flags = vma->vm_flags;
	pgprot_t prot;

	lockdep_assert_held(&core->memory_lock);
	if (core->pm_runtime_engaged || !__vfio_pci_memory_enabled(core))
		return VM_FAULT_SIGBUS;
	/* A mapping that is not shared is never writable: that is how one gets such a protection. */
	if (!writable)
		flags &= ~VM_SHARED;
	prot = pgprot_decrypted(pgprot_noncached(vm_get_page_prot(flags)));
	if (vmf->flags & FAULT_FLAG_MKWRITE)
		zap_special_vma_range(vma, address, PAGE_SIZE);
	return vmf_insert_pfn_prot(vma, address, pfn, prot);
}

/* Copies a page of device memory, and says whether all its words are the same, and which. */
bool vfio_mediate_copy_page(void *to, const void __iomem *from, u64 *word)
{
	const u64 first = __raw_readq(from);
	u64 *out = to, differ = 0;
	size_t i;

	for (i = 0; i < PAGE_SIZE / sizeof(u64); i += 4) {
		const u64 a = __raw_readq(from + i * 8);
		const u64 b = __raw_readq(from + i * 8 + 8);
		const u64 c = __raw_readq(from + i * 8 + 16);
		const u64 d = __raw_readq(from + i * 8 + 24);

		out[i] = a;
		out[i + 1] = b;
		out[i + 2] = c;
		out[i + 3] = d;
		differ |= (a ^ first) | (b ^ first) | (c ^ first) | (d ^ first);
	}
	*word = le64_to_cpu((__force __le64)first);
	return !differ;
}

/* The length is a multiple of eight; so is what the addresses are aligned to, but for @from. */
void vfio_mediate_write_pages(void __iomem *to, const void *from, size_t bytes)
{
	size_t i;

	for (i = 0; i < bytes; i += sizeof(u64))
		__raw_writeq(get_unaligned((const u64 *)(from + i)), to + i);
}

void vfio_mediate_fill_pages(void __iomem *to, u64 word, size_t bytes)
{
	const u64 raw = (__force u64)cpu_to_le64(word);
	size_t i;

	for (i = 0; i < bytes; i += sizeof(u64))
		__raw_writeq(raw, to + i);
}

u32 vfio_mediate_crc32(u32 seed, const void *bytes, size_t length)
{
	return crc32_le(seed, bytes, length);
}

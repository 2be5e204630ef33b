// SPDX-License-Identifier: GPL-2.0
/*
 * The part of the driver that only C can say: the PCI table and driver, whose macros have no
 * Rust form, and thin functions around static inlines. No decision is taken here.
 */
#include <linux/crc32.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/pm_runtime.h>

#include "shim.h"

/*
 * Override only: the driver takes a device when the administrator writes its name into the
 * device's driver_override, and never by itself.
 */
static const struct pci_device_id vfio_mediate_ids[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(0x1234, 0x11e8) }, /* QEMU edu */
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

u32 vfio_mediate_crc32(u32 seed, const void *bytes, size_t length)
{
	return crc32_le(seed, bytes, length);
}

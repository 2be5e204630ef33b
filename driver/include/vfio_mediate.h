/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mediate ops: how a vendor's module stands between user space and vfio-pci-core for devices that
 * are bound to the driver vfio_mediate.
 *
 * After the RFC "vfio/pci: introduce mediate ops to intercept vfio-pci ops" (Yan Zhao, 2019). A
 * provider registers; at each first open of a device the providers are asked, the one registered
 * last at first, until one takes the device. That one then sees region information, accesses and
 * mappings before vfio-pci-core does, and handles each or passes it through.
 *
 * Any PCI device can be given to vfio_mediate by its driver_override. A device that no provider
 * takes cannot be opened: ENODEV.
 *
 * Contexts and locks
 *
 *   All calls come from process context and may sleep. Between open() and release() of a device,
 *   get_region_info(), rw() and mmap() may come from several threads at once, and none of them
 *   holds a lock of vfio_mediate's: what of the handle needs protection, the provider protects. No
 *   call for the handle comes before open() has returned 0 or after release() was called.
 *
 *   open(), release()	under vfio's dev_set->lock.
 *   get_region_info()	no lock.
 *   rw()		no lock. The device is awake.
 *   mmap()		mmap_lock is held for writing: do not touch user memory, and take no
 *			lock under which rw() touches it.
 *
 * Lifetimes
 *
 *   The ops and the name stay as they are until vfio_mediate_unregister_ops() has returned.
 *   The owner's module has a reference that is taken before open() is called, and given back after
 *   open() has failed or release() has returned; a provider whose module is going is passed over.
 *   So a module is not unloaded while a device is open with it, and holds nothing by hand.
 *   The pci_dev lives from open() to release().
 *   The handle is the provider's own; vfio_mediate never looks at it.
 */
#ifndef _VFIO_MEDIATE_H
#define _VFIO_MEDIATE_H

#include <linux/module.h>
#include <linux/pci.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

/*
 * Set by open() in *caps: the device gets the default migration region, of this type, subtype and
 * index, with length 0, READ and WRITE, and no handlers: any access to it that is passed through
 * fails with EINVAL. get_region_info(), rw() and mmap() give it its length, flags and meaning.
 */
#define VFIO_MEDIATE_CAP_MIGRATION		0x1
#define VFIO_MEDIATE_MIGRATION_INDEX		VFIO_PCI_NUM_REGIONS
#define VFIO_MEDIATE_REGION_TYPE_MIGRATION	VFIO_REGION_TYPE_MIGRATION_DEPRECATED
#define VFIO_MEDIATE_REGION_SUBTYPE_MIGRATION	VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED

/**
 * struct vfio_mediate_ops - what a provider does for its devices
 * @name: Tells the provider from the others; not empty, and nobody else's.
 * @owner: THIS_MODULE, or NULL for code that cannot go.
 * @open: A device is opened, any that is bound to vfio_mediate. Returns 0 to take it, -ENODEV to
 *	say that it is not the provider's, or another error. Then the next provider is asked; if
 *	none takes the device, the first error that was not -ENODEV is user space's. When it fails
 *	the device must be as it was. *caps is 0 and *handle NULL before the call. A bit in *caps
 *	that is no VFIO_MEDIATE_CAP_* is answered with release(), and counts as a failure with
 *	-EINVAL.
 * @release: The device is being closed; vfio-pci-core has not reset it yet. It may be asleep, if it
 *	could not be woken.
 * @get_region_info: vfio-pci-core has filled in info and caps for one of the device's regions. Of
 *	info, only size and flags are taken over. cap_type has type and subtype of a region that is
 *	none of PCI's, such as the migration region, and is NULL else; the capability itself is in
 *	caps already, and more can be added (vfio_info_add_capability()). An error is user space's.
 * @rw: User space reads or writes a region that there is. *ppos is a position in the device's file:
 *	VFIO_PCI_OFFSET_TO_INDEX(*ppos) is the region, as in info->index, and
 *	*ppos & VFIO_PCI_OFFSET_MASK the offset in it. It is a copy; the file's position is advanced
 *	by the result. count is not 0; offset and count are user space's claims, and may lie outside
 *	of the region. *pt ("pass through") is true before the call. If it is left so, the result is
 *	ignored and vfio-pci-core does the access. If it is set to false, the result is user
 *	space's: the bytes moved or an error. More than count is answered with EIO.
 * @mmap: User space maps a part of a region that there is. vma->vm_pgoff << PAGE_SHIFT is the
 *	position, as in rw(). Nothing has been checked, neither length nor flags. *pt as in rw();
 *	where it is left true, vma must be left alone, too. If it is set to false, the result is 0
 *	or an error.
 *
 * All but @name and @open can be NULL: nothing to release, or everything is passed through. A
 * positive result where 0 is success is answered with EIO.
 *
 * A reset by user space is passed through, and the provider is not told.
 */
struct vfio_mediate_ops {
	const char *name;
	struct module *owner;
	int (*open)(struct pci_dev *pdev, u64 *caps, void **handle);
	void (*release)(void *handle);
	int (*get_region_info)(void *handle, struct vfio_region_info *info,
			       struct vfio_info_cap *caps,
			       const struct vfio_region_info_cap_type *cap_type);
	ssize_t (*rw)(void *handle, char __user *buf, size_t count, loff_t *ppos, bool iswrite,
		      bool *pt);
	int (*mmap)(void *handle, struct vm_area_struct *vma, bool *pt);
};

/*
 * Devices that are open are not affected: they come to the provider when they are opened again.
 *
 * Returns 0; -EINVAL: no name or no open(); -EEXIST: these ops, or others of that name, are
 * registered; -ENOMEM. (A module's init function must not return -EEXIST: the loader has a meaning
 * of its own for it, and makes it -EBUSY.)
 */
int vfio_mediate_register_ops(const struct vfio_mediate_ops *ops);

/*
 * No device comes to the provider any more. Waits, and cannot be interrupted, until no device is
 * open with it; after that nothing points to the ops. Does nothing for ops that are not registered,
 * also if vfio_mediate_register_ops() refused them.
 *
 * Deadlocks if called from one of the ops, or with a lock that they or the close of a device take.
 */
void vfio_mediate_unregister_ops(const struct vfio_mediate_ops *ops);

#endif /* _VFIO_MEDIATE_H */

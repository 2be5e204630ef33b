// SPDX-License-Identifier: GPL-2.0
/*
 * A vendor's module for the tests of mediate ops: it mediates QEMU's pci-testdev
 * (docs/specs/pci-testdev.rst), and misbehaves on request.
 *
 * The device's migration region, which is no protocol but something to look at:
 *
 *	0x0000	taker		RO	which of the registrations took the device: 0 or 1
 *	0x0004	accesses	RO	to BARs, which were seen and passed through
 *	0x0008	scratch		RW
 *	0x000c	fail		WO	a write of n fails with errno n
 *	0x1000	page		RW	one page; it can also be mapped
 *
 * Registers are of four bytes and are accessed as a whole. All other regions are passed through.
 */
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <vfio_mediate.h>

#define TESTDEV_VENDOR		0x1b36
#define TESTDEV_DEVICE		0x0005

#define TESTDEV_TAKER		0x00
#define TESTDEV_ACCESSES	0x04
#define TESTDEV_SCRATCH		0x08
#define TESTDEV_FAIL		0x0c
#define TESTDEV_PAGE		PAGE_SIZE
#define TESTDEV_BYTES		(2 * PAGE_SIZE)

#define TESTDEV_REGISTRATIONS	2

static char *name = "testdev";
module_param(name, charp, 0444);
MODULE_PARM_DESC(name, "Name to register by");

static char *second;
module_param(second, charp, 0444);
MODULE_PARM_DESC(second, "Name to register by once more");

static bool lazy;
module_param(lazy, bool, 0444);
MODULE_PARM_DESC(lazy, "Do not register when loaded; the loader makes EBUSY of an EEXIST");

static char *omit[8];
static int omitted;
module_param_array(omit, charp, &omitted, 0444);
MODULE_PARM_DESC(omit, "Members of the ops that are NULL");

static int open_error[TESTDEV_REGISTRATIONS];
module_param_array(open_error, int, NULL, 0644);
MODULE_PARM_DESC(open_error, "For each registration: open() of any device fails with this errno");

static unsigned long long caps = VFIO_MEDIATE_CAP_MIGRATION;
module_param(caps, ullong, 0644);
MODULE_PARM_DESC(caps, "Capabilities that open() gives");

static bool lie;
module_param(lie, bool, 0644);
MODULE_PARM_DESC(lie, "Say that more was written than was, and misdirect the user to other regions");

static unsigned int opens;
module_param(opens, uint, 0444);
MODULE_PARM_DESC(opens, "Devices that were taken");

static unsigned int releases;
module_param(releases, uint, 0444);
MODULE_PARM_DESC(releases, "Devices that were released");

struct testdev {
	struct list_head list;
	u32 taker;
	atomic_t accesses;
	u32 scratch;
	void *page;
};

/* All handles, so that nothing is lost when there is no release(); and the two counts. */
static LIST_HEAD(testdevs);
static DEFINE_MUTEX(testdevs_lock);

static int testdev_open(struct pci_dev *pdev, u64 *capabilities, void **handle, u32 taker)
{
	struct testdev *testdev;

	if (open_error[taker])
		return -open_error[taker];
	if (pdev->vendor != TESTDEV_VENDOR || pdev->device != TESTDEV_DEVICE)
		return -ENODEV;
	testdev = kzalloc_obj(*testdev);
	if (!testdev)
		return -ENOMEM;
	testdev->taker = taker;
	/* Counts its pages one by one: a mapping keeps them. */
	testdev->page = vmalloc_user(PAGE_SIZE);
	if (!testdev->page) {
		kfree(testdev);
		return -ENOMEM;
	}
	mutex_lock(&testdevs_lock);
	list_add(&testdev->list, &testdevs);
	opens++;
	mutex_unlock(&testdevs_lock);
	*capabilities = caps;
	*handle = testdev;
	return 0;
}

static int testdev_open_0(struct pci_dev *pdev, u64 *capabilities, void **handle)
{
	return testdev_open(pdev, capabilities, handle, 0);
}

static int testdev_open_1(struct pci_dev *pdev, u64 *capabilities, void **handle)
{
	return testdev_open(pdev, capabilities, handle, 1);
}

static void testdev_free(struct testdev *testdev)
{
	list_del(&testdev->list);
	vfree(testdev->page);
	kfree(testdev);
}

static void testdev_release(void *handle)
{
	mutex_lock(&testdevs_lock);
	testdev_free(handle);
	releases++;
	mutex_unlock(&testdevs_lock);
}

static int testdev_get_region_info(void *handle, struct vfio_region_info *info,
				   struct vfio_info_cap *info_caps,
				   const struct vfio_region_info_cap_type *cap_type)
{
	struct vfio_region_info_cap_sparse_mmap *sparse;
	int ret;

	if (lie) {
		info->argsz = 0;
		info->index = VFIO_PCI_CONFIG_REGION_INDEX;
		info->offset = VFIO_PCI_INDEX_TO_OFFSET(VFIO_PCI_CONFIG_REGION_INDEX);
	}
	if (!cap_type || cap_type->type != VFIO_MEDIATE_REGION_TYPE_MIGRATION ||
	    cap_type->subtype != VFIO_MEDIATE_REGION_SUBTYPE_MIGRATION)
		return 0;

	sparse = kzalloc(struct_size(sparse, areas, 1), GFP_KERNEL);
	if (!sparse)
		return -ENOMEM;
	sparse->header.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP;
	sparse->header.version = 1;
	sparse->nr_areas = 1;
	sparse->areas[0].offset = TESTDEV_PAGE;
	sparse->areas[0].size = PAGE_SIZE;
	ret = vfio_info_add_capability(info_caps, &sparse->header, struct_size(sparse, areas, 1));
	kfree(sparse);
	if (ret)
		return ret;
	info->size = TESTDEV_BYTES;
	info->flags |= VFIO_REGION_INFO_FLAG_MMAP;
	return 0;
}

static ssize_t testdev_page(struct testdev *testdev, char __user *buf, size_t count, u64 at,
			    bool iswrite)
{
	void *place = testdev->page + at;

	count = min_t(u64, count, PAGE_SIZE - at);
	if (iswrite ? copy_from_user(place, buf, count) : copy_to_user(buf, place, count))
		return -EFAULT;
	return count;
}

static ssize_t testdev_read(struct testdev *testdev, char __user *buf, u64 at)
{
	u32 value;

	switch (at) {
	case TESTDEV_TAKER:
		value = testdev->taker;
		break;
	case TESTDEV_ACCESSES:
		value = atomic_read(&testdev->accesses);
		break;
	case TESTDEV_SCRATCH:
		value = READ_ONCE(testdev->scratch);
		break;
	default:
		return -EINVAL;
	}
	return copy_to_user(buf, &value, sizeof(value)) ? -EFAULT : sizeof(value);
}

static ssize_t testdev_write(struct testdev *testdev, const char __user *buf, u64 at)
{
	u32 value;

	if (copy_from_user(&value, buf, sizeof(value)))
		return -EFAULT;
	switch (at) {
	case TESTDEV_SCRATCH:
		WRITE_ONCE(testdev->scratch, value);
		return lie ? sizeof(value) + 1 : sizeof(value);
	case TESTDEV_FAIL:
		return -(ssize_t)value;
	default:
		return -EINVAL;
	}
}

static ssize_t testdev_rw(void *handle, char __user *buf, size_t count, loff_t *ppos, bool iswrite,
			  bool *pt)
{
	u64 index = VFIO_PCI_OFFSET_TO_INDEX(*ppos);
	u64 at = *ppos & VFIO_PCI_OFFSET_MASK;
	struct testdev *testdev = handle;

	if (index <= VFIO_PCI_BAR5_REGION_INDEX)
		atomic_inc(&testdev->accesses);
	if (index != VFIO_MEDIATE_MIGRATION_INDEX)
		return 0;

	*pt = false;
	if (at >= TESTDEV_BYTES)
		return -EINVAL;
	if (at >= TESTDEV_PAGE)
		return testdev_page(testdev, buf, count, at - TESTDEV_PAGE, iswrite);
	if (count != sizeof(u32))
		return -EINVAL;
	return iswrite ? testdev_write(testdev, buf, at) : testdev_read(testdev, buf, at);
}

static int testdev_mmap(void *handle, struct vm_area_struct *vma, bool *pt)
{
	u64 position = (u64)vma->vm_pgoff << PAGE_SHIFT;
	struct testdev *testdev = handle;

	if (VFIO_PCI_OFFSET_TO_INDEX(position) != VFIO_MEDIATE_MIGRATION_INDEX)
		return 0;

	*pt = false;
	if ((position & VFIO_PCI_OFFSET_MASK) != TESTDEV_PAGE || !(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	/* Refuses a mapping that is longer than the page. */
	return remap_vmalloc_range(vma, testdev->page, 0);
}

static struct vfio_mediate_ops testdev_ops[TESTDEV_REGISTRATIONS] = {
	{
		.owner = THIS_MODULE,
		.open = testdev_open_0,
		.release = testdev_release,
		.get_region_info = testdev_get_region_info,
		.rw = testdev_rw,
		.mmap = testdev_mmap,
	},
	{
		.owner = THIS_MODULE,
		.open = testdev_open_1,
		.release = testdev_release,
		.get_region_info = testdev_get_region_info,
		.rw = testdev_rw,
		.mmap = testdev_mmap,
	},
};

static unsigned int registered;

/* Registers the first ones and unregisters the others, the last one first. */
static int testdev_register(unsigned int wanted)
{
	int ret;

	while (registered > wanted)
		vfio_mediate_unregister_ops(&testdev_ops[--registered]);
	while (registered < wanted) {
		ret = vfio_mediate_register_ops(&testdev_ops[registered]);
		if (ret) {
			/* Ops that were refused are not registered, and this must do no harm. */
			vfio_mediate_unregister_ops(&testdev_ops[registered]);
			return ret;
		}
		registered++;
	}
	return 0;
}

static int testdev_set_registered(const char *text, const struct kernel_param *param)
{
	unsigned int wanted;
	int ret = kstrtouint(text, 0, &wanted);

	if (ret)
		return ret;
	/* Not as a parameter of the loading: the names are not there yet. */
	if (THIS_MODULE->state != MODULE_STATE_LIVE)
		return -EINVAL;
	return wanted <= TESTDEV_REGISTRATIONS ? testdev_register(wanted) : -EINVAL;
}

static const struct kernel_param_ops registered_ops = {
	.set = testdev_set_registered,
	.get = param_get_uint,
};

module_param_cb(registered, &registered_ops, &registered, 0644);
MODULE_PARM_DESC(registered, "How many of the ops are; to lower it waits until no device is open");

static int testdev_omit(const char *member)
{
	struct vfio_mediate_ops *ops;

	for (ops = testdev_ops; ops < testdev_ops + TESTDEV_REGISTRATIONS; ops++) {
		if (!strcmp(member, "name"))
			ops->name = NULL;
		else if (!strcmp(member, "owner"))
			ops->owner = NULL;
		else if (!strcmp(member, "open"))
			ops->open = NULL;
		else if (!strcmp(member, "release"))
			ops->release = NULL;
		else if (!strcmp(member, "get_region_info"))
			ops->get_region_info = NULL;
		else if (!strcmp(member, "rw"))
			ops->rw = NULL;
		else if (!strcmp(member, "mmap"))
			ops->mmap = NULL;
		else
			return -EINVAL;
	}
	return 0;
}

static int __init testdev_init(void)
{
	int ret, i;

	testdev_ops[0].name = name;
	testdev_ops[1].name = second;
	for (i = 0; i < omitted; i++) {
		ret = testdev_omit(omit[i]);
		if (ret)
			return ret;
	}
	if (lazy)
		return 0;
	ret = testdev_register(second ? 2 : 1);
	if (ret)
		testdev_register(0);
	return ret;
}
module_init(testdev_init);

static void __exit testdev_exit(void)
{
	struct testdev *testdev, *next;

	testdev_register(0);
	list_for_each_entry_safe(testdev, next, &testdevs, list)
		testdev_free(testdev);
}
module_exit(testdev_exit);

MODULE_AUTHOR("The migscope authors");
MODULE_DESCRIPTION("Mediates QEMU's pci-testdev, for tests");
MODULE_LICENSE("GPL");

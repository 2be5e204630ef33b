// SPDX-License-Identifier: GPL-2.0
/*
 * A driver on vfio-pci-core that logs the DMA of QEMU's edu device (docs/specs/edu.rst): VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
 * _STOP and _REPORT, as mlx5 and pds have them, for a device that every machine can have. It knows nothing of migscope.
 *
 * edu says nowhere which memory it wrote, so the driver looks at what it is told to do: a write to its command register that begins
 * a transfer to memory makes the pages of its destination dirty. Only what comes through write() is seen; a client that maps BAR 0
 * gets no page told.
 */
#include <linux/bitmap.h>
#include <linux/interval_tree.h>
#include <linux/io.h>
#include <linux/iova_bitmap.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

#define EDU_VENDOR		0x1234
#define EDU_DEVICE		0x11e8
#define EDU_DMA_DESTINATION	0x88
#define EDU_DMA_BYTES		0x90
#define EDU_DMA_COMMAND		0x98
#define EDU_DMA_START		BIT(0)
#define EDU_DMA_TO_MEMORY	BIT(1)
#define EDU_REGISTERS		0xa0

/* edu's DMA reaches 28 bits far, unless it is told otherwise. */
#define LOGGED_BYTES		BIT(28)
#define LOGGED_PAGES		(LOGGED_BYTES >> PAGE_SHIFT)

struct testdev {
	struct vfio_pci_core_device core;
	/* Guards the log. */
	struct mutex lock;
	/* A bit a page; NULL while nothing is logged. */
	unsigned long *log;
};

static struct testdev *testdev_of(struct vfio_device *vdev)
{
	return container_of(vdev, struct testdev, core.vdev);
}

static int testdev_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes,
			     u64 *page_size)
{
	struct testdev *testdev = testdev_of(vdev);
	int ret = 0;

	/* One range or many: all that the device can reach is logged. */
	if (interval_tree_iter_first(ranges, LOGGED_BYTES, ULONG_MAX))
		return -EINVAL;
	mutex_lock(&testdev->lock);
	if (testdev->log) {
		ret = -EBUSY;
	} else {
		testdev->log = bitmap_zalloc(LOGGED_PAGES, GFP_KERNEL_ACCOUNT);
		if (!testdev->log)
			ret = -ENOMEM;
	}
	mutex_unlock(&testdev->lock);
	if (!ret)
		*page_size = PAGE_SIZE;
	return ret;
}

static int testdev_log_stop(struct vfio_device *vdev)
{
	struct testdev *testdev = testdev_of(vdev);

	mutex_lock(&testdev->lock);
	bitmap_free(testdev->log);
	testdev->log = NULL;
	mutex_unlock(&testdev->lock);
	return 0;
}

static int testdev_log_read_and_clear(struct vfio_device *vdev, unsigned long iova,
				      unsigned long length, struct iova_bitmap *dirty)
{
	struct testdev *testdev = testdev_of(vdev);
	unsigned long page = iova >> PAGE_SHIFT;
	unsigned long end;
	int ret = 0;

	if (!length || iova >= LOGGED_BYTES || length > LOGGED_BYTES - iova)
		return -EINVAL;
	end = (iova + length - 1) >> PAGE_SHIFT;
	mutex_lock(&testdev->lock);
	if (!testdev->log) {
		ret = -EINVAL;
		goto unlock;
	}
	for_each_set_bit_from(page, testdev->log, end + 1) {
		iova_bitmap_set(dirty, page << PAGE_SHIFT, PAGE_SIZE);
		clear_bit(page, testdev->log);
	}
unlock:
	mutex_unlock(&testdev->lock);
	return ret;
}

static const struct vfio_log_ops testdev_log_ops = {
	.log_start = testdev_log_start,
	.log_stop = testdev_log_stop,
	.log_read_and_clear = testdev_log_read_and_clear,
};

/* Before the transfer begins, so that no report comes between the two. */
static void testdev_note_transfer(struct testdev *testdev)
{
	u64 first, bytes;
	void __iomem *bar;

	bar = pci_iomap(testdev->core.pdev, 0, EDU_REGISTERS);
	if (!bar)
		return;
	first = ioread32(bar + EDU_DMA_DESTINATION);
	bytes = ioread32(bar + EDU_DMA_BYTES);
	pci_iounmap(testdev->core.pdev, bar);
	if (!bytes || first >= LOGGED_BYTES || bytes > LOGGED_BYTES - first)
		return;
	mutex_lock(&testdev->lock);
	if (testdev->log)
		bitmap_set(testdev->log, first >> PAGE_SHIFT,
			   ((first + bytes - 1) >> PAGE_SHIFT) - (first >> PAGE_SHIFT) + 1);
	mutex_unlock(&testdev->lock);
}

static ssize_t testdev_write(struct vfio_device *vdev, const char __user *buf, size_t count,
			     loff_t *ppos)
{
	u64 begins = EDU_DMA_START | EDU_DMA_TO_MEMORY;
	u32 command;

	if (*ppos >> VFIO_PCI_OFFSET_SHIFT == VFIO_PCI_BAR0_REGION_INDEX &&
	    (*ppos & VFIO_PCI_OFFSET_MASK) == EDU_DMA_COMMAND && count >= sizeof(command)) {
		if (copy_from_user(&command, buf, sizeof(command)))
			return -EFAULT;
		if ((command & begins) == begins)
			testdev_note_transfer(testdev_of(vdev));
	}
	return vfio_pci_core_write(vdev, buf, count, ppos);
}

static int testdev_open(struct vfio_device *vdev)
{
	struct vfio_pci_core_device *core = &testdev_of(vdev)->core;
	int ret;

	ret = vfio_pci_core_enable(core);
	if (!ret)
		vfio_pci_core_finish_enable(core);
	return ret;
}

static void testdev_close(struct vfio_device *vdev)
{
	testdev_log_stop(vdev);
	vfio_pci_core_close_device(vdev);
}

static int testdev_init(struct vfio_device *vdev)
{
	mutex_init(&testdev_of(vdev)->lock);
	vdev->log_ops = &testdev_log_ops;
	return vfio_pci_core_init_dev(vdev);
}

static const struct vfio_device_ops testdev_ops = {
	.name = "logging-testdev",
	.init = testdev_init,
	.release = vfio_pci_core_release_dev,
	.open_device = testdev_open,
	.close_device = testdev_close,
	.ioctl = vfio_pci_core_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = testdev_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
	.match_token_uuid = vfio_pci_core_match_token_uuid,
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
#endif
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
};

static int testdev_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct testdev *testdev;
	int ret;

	testdev = vfio_alloc_device(testdev, core.vdev, &pdev->dev, &testdev_ops);
	if (IS_ERR(testdev))
		return PTR_ERR(testdev);
	dev_set_drvdata(&pdev->dev, &testdev->core);
	ret = vfio_pci_core_register_device(&testdev->core);
	if (ret)
		vfio_put_device(&testdev->core.vdev);
	return ret;
}

static void testdev_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

static const struct pci_device_id testdev_table[] = {
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(EDU_VENDOR, EDU_DEVICE) },
	{}
};
MODULE_DEVICE_TABLE(pci, testdev_table);

static struct pci_driver testdev_driver = {
	.name = "logging_testdev",
	.id_table = testdev_table,
	.probe = testdev_probe,
	.remove = testdev_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};
module_pci_driver(testdev_driver);

MODULE_AUTHOR("The migscope authors");
MODULE_DESCRIPTION("Logs the DMA of QEMU's edu device, for tests");
MODULE_LICENSE("GPL");
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS("IOMMUFD");
#else
MODULE_IMPORT_NS(IOMMUFD);
#endif

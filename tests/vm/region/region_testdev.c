// SPDX-License-Identifier: GPL-2.0
/*
 * A driver on vfio-pci-core that gives QEMU's edu device (docs/specs/edu.rst) the migration region of Linux 5.8 to 5.17
 * (struct vfio_device_migration_info): what was written out of tree in those years, for the kernels of today's distributions,
 * 6.1 to 7.3. It knows nothing of migscope, has no tracepoints, and keeps no dirty pages.
 *
 * An image is the device's configuration space, which pre-copy gives away already, and one record that only a device that
 * stands has:
 *
 *	0x00	magic, the bytes before this record, their checksum
 *	0x0c	edu's liveness register
 *
 * The region is the struct in a page of its own and one page for data, both reached by system calls. data_offset stages, the
 * next pending_bytes takes what was staged for moved.
 */
#include <linux/crc32.h>
#include <linux/io.h>
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
/* A write is read back inverted. */
#define EDU_LIVENESS		0x04

#define REGION_TYPE_MIGRATION		3
#define REGION_SUBTYPE_MIGRATION	1

#define STATE_RUNNING		BIT(0)
#define STATE_SAVING		BIT(1)
#define STATE_RESUMING		BIT(2)

#define MIG_STATE		0x00
#define MIG_PENDING		0x08
#define MIG_OFFSET		0x10
#define MIG_SIZE		0x18
#define MIG_DATA		0x1000
#define MIG_DATA_BYTES		0x1000
#define MIG_REGION_BYTES	(MIG_DATA + MIG_DATA_BYTES)

/* So that pre-copy takes more than one buffer. */
#define CHUNK_BYTES		100

#define RECORD_MAGIC		0x65647531

struct testdev_record {
	__le32 magic;
	__le32 bytes;
	__le32 crc;
	__le32 liveness;
};

#define IMAGE_BYTES		(PCI_CFG_SPACE_SIZE + sizeof(struct testdev_record))

struct testdev {
	struct vfio_pci_core_device core;
	/* Guards all that follows. */
	struct mutex lock;
	u32 state;
	/* The image: how much of it was moved, and how much more is in the data page. */
	u8 image[IMAGE_BYTES];
	u32 moved;
	u32 staged;
	u8 data[MIG_DATA_BYTES];
};

static struct testdev *testdev_of(struct vfio_pci_core_device *core)
{
	return container_of(core, struct testdev, core);
}

/* The register answers only while memory accesses are decoded, which is up to the guest. */
static int testdev_liveness(struct testdev *testdev, u32 *value, bool write)
{
	struct pci_dev *pdev = testdev->core.pdev;
	void __iomem *bar;
	u16 command;

	/* A mapping of our own: how vfio-pci-core keeps its differs from kernel to kernel. */
	bar = pci_iomap(pdev, 0, EDU_LIVENESS + sizeof(u32));
	if (!bar)
		return -ENOMEM;
	down_write(&testdev->core.memory_lock);
	pci_read_config_word(pdev, PCI_COMMAND, &command);
	pci_write_config_word(pdev, PCI_COMMAND, command | PCI_COMMAND_MEMORY);
	if (write)
		iowrite32(~*value, bar + EDU_LIVENESS);
	else
		*value = ioread32(bar + EDU_LIVENESS);
	pci_write_config_word(pdev, PCI_COMMAND, command);
	up_write(&testdev->core.memory_lock);
	pci_iounmap(pdev, bar);
	return 0;
}

static void testdev_save_config(struct testdev *testdev)
{
	int at;

	for (at = 0; at < PCI_CFG_SPACE_SIZE; at++)
		pci_read_config_byte(testdev->core.pdev, at, &testdev->image[at]);
}

static int testdev_save_record(struct testdev *testdev)
{
	struct testdev_record record = {
		.magic = cpu_to_le32(RECORD_MAGIC),
		.bytes = cpu_to_le32(PCI_CFG_SPACE_SIZE),
		.crc = cpu_to_le32(crc32_le(~0, testdev->image, PCI_CFG_SPACE_SIZE)),
	};
	u32 liveness;
	int ret;

	ret = testdev_liveness(testdev, &liveness, false);
	if (ret)
		return ret;
	record.liveness = cpu_to_le32(liveness);
	memcpy(testdev->image + PCI_CFG_SPACE_SIZE, &record, sizeof(record));
	return 0;
}

static int testdev_load(struct testdev *testdev)
{
	struct testdev_record record;
	u32 liveness;

	if (testdev->moved != IMAGE_BYTES)
		return -EINVAL;
	memcpy(&record, testdev->image + PCI_CFG_SPACE_SIZE, sizeof(record));
	if (le32_to_cpu(record.magic) != RECORD_MAGIC ||
	    le32_to_cpu(record.bytes) != PCI_CFG_SPACE_SIZE ||
	    le32_to_cpu(record.crc) != crc32_le(~0, testdev->image, PCI_CFG_SPACE_SIZE))
		return -EINVAL;
	liveness = le32_to_cpu(record.liveness);
	return testdev_liveness(testdev, &liveness, true);
}

/* How much of the image can be had in this state. */
static u32 testdev_ready(struct testdev *testdev)
{
	return testdev->state & STATE_RUNNING ? PCI_CFG_SPACE_SIZE : IMAGE_BYTES;
}

static int testdev_set_state(struct testdev *testdev, u32 state)
{
	u32 from = testdev->state;
	int ret = 0;

	if (state & ~(STATE_RUNNING | STATE_SAVING | STATE_RESUMING) ||
	    (state & STATE_RESUMING && state != STATE_RESUMING))
		return -EINVAL;
	if (state == from)
		return 0;
	if (state == STATE_RESUMING && from & STATE_SAVING)
		return -EINVAL;
	if (from == STATE_RESUMING && state & STATE_SAVING)
		return -EINVAL;

	if (from == STATE_RESUMING && state == STATE_RUNNING)
		ret = testdev_load(testdev);
	else if (state & STATE_SAVING && !(state & STATE_RUNNING))
		ret = testdev_save_record(testdev);
	if (ret)
		return ret;
	if (state & STATE_SAVING && !(from & STATE_SAVING)) {
		testdev_save_config(testdev);
		testdev->moved = 0;
		testdev->staged = 0;
		if (!(state & STATE_RUNNING))
			ret = testdev_save_record(testdev);
	} else if (state == STATE_RESUMING) {
		testdev->moved = 0;
	}
	if (!ret)
		testdev->state = state;
	return ret;
}

static u64 testdev_pending(struct testdev *testdev)
{
	if (!(testdev->state & STATE_SAVING))
		return 0;
	testdev->moved += testdev->staged;
	testdev->staged = 0;
	/* What only comes once it stands is pending all the same. */
	return IMAGE_BYTES - testdev->moved;
}

static u64 testdev_stage(struct testdev *testdev)
{
	u32 left;

	if (testdev->state & STATE_SAVING && !testdev->staged) {
		left = testdev_ready(testdev) - min_t(u32, testdev->moved, testdev_ready(testdev));
		testdev->staged = min_t(u32, left, CHUNK_BYTES);
		memcpy(testdev->data, testdev->image + testdev->moved, testdev->staged);
	}
	return MIG_DATA;
}

static int testdev_take(struct testdev *testdev, u64 bytes)
{
	if (testdev->state != STATE_RESUMING || bytes > MIG_DATA_BYTES ||
	    bytes > IMAGE_BYTES - testdev->moved)
		return -EINVAL;
	memcpy(testdev->image + testdev->moved, testdev->data, bytes);
	testdev->moved += bytes;
	return 0;
}

static ssize_t testdev_data(struct testdev *testdev, char __user *buf, size_t count, u64 at,
			    bool iswrite)
{
	if (count > MIG_DATA_BYTES - at)
		return -EINVAL;
	if (iswrite ? copy_from_user(testdev->data + at, buf, count) :
		      copy_to_user(buf, testdev->data + at, count))
		return -EFAULT;
	return count;
}

static int testdev_write(struct testdev *testdev, u64 at, u64 value)
{
	switch (at) {
	case MIG_STATE:
		return testdev_set_state(testdev, value);
	case MIG_SIZE:
		return testdev_take(testdev, value);
	default:
		return -EINVAL;
	}
}

static int testdev_read(struct testdev *testdev, u64 at, u64 *value)
{
	switch (at) {
	case MIG_STATE:
		*value = testdev->state;
		return 0;
	case MIG_PENDING:
		*value = testdev_pending(testdev);
		return 0;
	case MIG_OFFSET:
		*value = testdev_stage(testdev);
		return 0;
	case MIG_SIZE:
		*value = testdev->staged;
		return 0;
	default:
		return -EINVAL;
	}
}

static ssize_t testdev_register(struct testdev *testdev, char __user *buf, size_t count, u64 at,
				bool iswrite)
{
	u64 value = 0;
	u32 low;
	int ret;

	if (count != (at == MIG_STATE ? sizeof(u32) : sizeof(u64)))
		return -EINVAL;
	if (iswrite) {
		if (copy_from_user(count == sizeof(low) ? (void *)&low : (void *)&value, buf, count))
			return -EFAULT;
		ret = testdev_write(testdev, at, count == sizeof(low) ? low : value);
		return ret ? ret : count;
	}
	ret = testdev_read(testdev, at, &value);
	if (ret)
		return ret;
	low = value;
	if (copy_to_user(buf, count == sizeof(low) ? (void *)&low : (void *)&value, count))
		return -EFAULT;
	return count;
}

static ssize_t testdev_rw(struct vfio_pci_core_device *core, char __user *buf, size_t count,
			  loff_t *ppos, bool iswrite)
{
	struct testdev *testdev = testdev_of(core);
	u64 at = *ppos & VFIO_PCI_OFFSET_MASK;
	ssize_t done;

	if (at >= MIG_REGION_BYTES)
		return -EINVAL;
	mutex_lock(&testdev->lock);
	if (at >= MIG_DATA)
		done = testdev_data(testdev, buf, count, at - MIG_DATA, iswrite);
	else
		done = testdev_register(testdev, buf, count, at, iswrite);
	mutex_unlock(&testdev->lock);
	return done;
}

static void testdev_region_release(struct vfio_pci_core_device *core,
				   struct vfio_pci_region *region)
{
}

static const struct vfio_pci_regops testdev_regops = {
	.rw = testdev_rw,
	.release = testdev_region_release,
};

static int testdev_open(struct vfio_device *vdev)
{
	struct vfio_pci_core_device *core =
		container_of(vdev, struct vfio_pci_core_device, vdev);
	struct testdev *testdev = testdev_of(core);
	int ret;

	ret = vfio_pci_core_enable(core);
	if (ret)
		return ret;
	testdev->state = STATE_RUNNING;
	testdev->moved = 0;
	testdev->staged = 0;
	ret = vfio_pci_core_register_dev_region(core, REGION_TYPE_MIGRATION,
						REGION_SUBTYPE_MIGRATION, &testdev_regops,
						MIG_REGION_BYTES,
						VFIO_REGION_INFO_FLAG_READ |
						VFIO_REGION_INFO_FLAG_WRITE, NULL);
	if (ret) {
		vfio_pci_core_disable(core);
		return ret;
	}
	vfio_pci_core_finish_enable(core);
	return 0;
}

static int testdev_init(struct vfio_device *vdev)
{
	struct vfio_pci_core_device *core =
		container_of(vdev, struct vfio_pci_core_device, vdev);

	mutex_init(&testdev_of(core)->lock);
	return vfio_pci_core_init_dev(vdev);
}

static const struct vfio_device_ops testdev_ops = {
	.name = "region-testdev",
	.init = testdev_init,
	.release = vfio_pci_core_release_dev,
	.open_device = testdev_open,
	.close_device = vfio_pci_core_close_device,
	.ioctl = vfio_pci_core_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
	.match_token_uuid = vfio_pci_core_match_token_uuid,
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
#endif
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
	.name = "region_testdev",
	.id_table = testdev_table,
	.probe = testdev_probe,
	.remove = testdev_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};
module_pci_driver(testdev_driver);

MODULE_AUTHOR("The migscope authors");
MODULE_DESCRIPTION("Gives QEMU's edu device a migration region of Linux 5.8 to 5.17, for tests");
MODULE_LICENSE("GPL");

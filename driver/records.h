/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints' records as C sees them. The definition is abi/src/trace.rs, which also says
 * what each field means; trace.rs asserts at compile time that size and offsets are the same.
 */
#ifndef _VFIO_MEDIATE_RECORDS_H
#define _VFIO_MEDIATE_RECORDS_H

#include <linux/types.h>

struct vfio_mediate_state {
	u64 device;
	u64 duration_ns;
	u32 from;
	u32 requested;
	u32 now;
	u32 cause;
	s32 result;
	u32 reserved;
};

struct vfio_mediate_region_access {
	u64 device;
	u64 offset;
	u64 bytes;
	u64 value;
	u64 duration_ns;
	s64 result;
	u32 field;
	u32 op;
	u32 state;
	u32 reserved;
};

struct vfio_mediate_data {
	u64 device;
	u64 bytes;
	u64 iteration;
	u64 pending_bytes;
	u64 duration_ns;
	u32 direction;
	u32 state;
};

struct vfio_mediate_dirty_query {
	u64 device;
	u64 start_pfn;
	u64 page_bytes;
	u64 total_pfns;
	u64 copied_pfns;
	u64 dirty_pages;
	u64 duration_ns;
	u32 outcome;
	s32 result;
};

struct vfio_mediate_dma {
	u64 device;
	u64 iova;
	u64 bytes;
	u64 logged_pages;
	u32 direction;
	u32 state;
	s32 result;
	u32 reserved;
};

struct vfio_mediate_error {
	u64 device;
	u64 offset;
	u64 bytes;
	u64 value;
	u32 rule;
	s32 errno;
	u32 field;
	u32 op;
	u32 state;
	u32 reserved;
};

#endif /* _VFIO_MEDIATE_RECORDS_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints of vfio_mediate. Each takes one pointer to its record: a probe on the raw
 * tracepoint reads one block of memory, and tracefs shows the same fields by name.
 *
 * The events carry the driver's name because raw tracepoints share one name space in the
 * kernel, and a bare "error" would collide.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vfio_mediate

#if !defined(_VFIO_MEDIATE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _VFIO_MEDIATE_TRACE_H

#include <linux/tracepoint.h>

#include "records.h"

#define vfio_mediate_show_state(state)						\
	__print_symbolic(state, { 0, "stopped" }, { 1, "running" },		\
			 { 2, "stop_and_copy" }, { 3, "pre_copy" },		\
			 { 4, "resuming" }, { 6, "error" })

#define vfio_mediate_show_field(field)						\
	__print_symbolic(field, { 0, "device_state" }, { 1, "reserved" },	\
			 { 2, "pending_bytes" }, { 3, "data_offset" },		\
			 { 4, "data_size" }, { 5, "start_pfn" },		\
			 { 6, "page_size" }, { 7, "total_pfns" },		\
			 { 8, "copied_pfns" }, { 9, "data" },			\
			 { 10, "bitmap" }, { 11, "none" })

#define vfio_mediate_show_op(op)						\
	__print_symbolic(op, { 0, "read" }, { 1, "write" })

#define VFIO_MEDIATE_PCI_FMT "%04llx:%02llx:%02llx.%llx "
#define VFIO_MEDIATE_PCI_ARGS(key)						\
	(key) >> 16, (key) >> 8 & 0xff, (key) >> 3 & 0x1f, (key) & 7

TRACE_EVENT(vfio_mediate_state,
	TP_PROTO(const struct vfio_mediate_state *record),
	TP_ARGS(record),
	TP_STRUCT__entry(
		__field(u64, device)
		__field(u64, duration_ns)
		__field(u32, from)
		__field(u32, requested)
		__field(u32, now)
		__field(u32, cause)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->device = record->device;
		__entry->duration_ns = record->duration_ns;
		__entry->from = record->from;
		__entry->requested = record->requested;
		__entry->now = record->now;
		__entry->cause = record->cause;
		__entry->result = record->result;
	),
	TP_printk(VFIO_MEDIATE_PCI_FMT "%s -> %s by %s requested=%#x result=%d duration=%lluns",
		  VFIO_MEDIATE_PCI_ARGS(__entry->device),
		  vfio_mediate_show_state(__entry->from),
		  vfio_mediate_show_state(__entry->now),
		  __print_symbolic(__entry->cause, { 0, "write" }, { 1, "open" }, { 2, "close" },
				   { 3, "reset" }, { 4, "failure" }),
		  __entry->requested, __entry->result, __entry->duration_ns)
);

TRACE_EVENT(vfio_mediate_region_access,
	TP_PROTO(const struct vfio_mediate_region_access *record),
	TP_ARGS(record),
	TP_STRUCT__entry(
		__field(u64, device)
		__field(u64, offset)
		__field(u64, bytes)
		__field(u64, value)
		__field(u64, duration_ns)
		__field(s64, result)
		__field(u32, field)
		__field(u32, op)
		__field(u32, state)
	),
	TP_fast_assign(
		__entry->device = record->device;
		__entry->offset = record->offset;
		__entry->bytes = record->bytes;
		__entry->value = record->value;
		__entry->duration_ns = record->duration_ns;
		__entry->result = record->result;
		__entry->field = record->field;
		__entry->op = record->op;
		__entry->state = record->state;
	),
	TP_printk(VFIO_MEDIATE_PCI_FMT
		  "%s %s offset=%#llx bytes=%llu value=%#llx result=%lld state=%s duration=%lluns",
		  VFIO_MEDIATE_PCI_ARGS(__entry->device),
		  vfio_mediate_show_op(__entry->op), vfio_mediate_show_field(__entry->field),
		  __entry->offset, __entry->bytes, __entry->value, __entry->result,
		  vfio_mediate_show_state(__entry->state), __entry->duration_ns)
);

TRACE_EVENT(vfio_mediate_data,
	TP_PROTO(const struct vfio_mediate_data *record),
	TP_ARGS(record),
	TP_STRUCT__entry(
		__field(u64, device)
		__field(u64, bytes)
		__field(u64, iteration)
		__field(u64, pending_bytes)
		__field(u64, duration_ns)
		__field(u32, direction)
		__field(u32, state)
	),
	TP_fast_assign(
		__entry->device = record->device;
		__entry->bytes = record->bytes;
		__entry->iteration = record->iteration;
		__entry->pending_bytes = record->pending_bytes;
		__entry->duration_ns = record->duration_ns;
		__entry->direction = record->direction;
		__entry->state = record->state;
	),
	TP_printk(VFIO_MEDIATE_PCI_FMT
		  "%s iteration=%llu bytes=%llu pending_bytes=%llu state=%s duration=%lluns",
		  VFIO_MEDIATE_PCI_ARGS(__entry->device),
		  __print_symbolic(__entry->direction, { 0, "save" }, { 1, "resume" }),
		  __entry->iteration, __entry->bytes, __entry->pending_bytes,
		  vfio_mediate_show_state(__entry->state), __entry->duration_ns)
);

TRACE_EVENT(vfio_mediate_dirty_query,
	TP_PROTO(const struct vfio_mediate_dirty_query *record),
	TP_ARGS(record),
	TP_STRUCT__entry(
		__field(u64, device)
		__field(u64, start_pfn)
		__field(u64, page_bytes)
		__field(u64, total_pfns)
		__field(u64, copied_pfns)
		__field(u64, dirty_pages)
		__field(u64, duration_ns)
		__field(u32, outcome)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->device = record->device;
		__entry->start_pfn = record->start_pfn;
		__entry->page_bytes = record->page_bytes;
		__entry->total_pfns = record->total_pfns;
		__entry->copied_pfns = record->copied_pfns;
		__entry->dirty_pages = record->dirty_pages;
		__entry->duration_ns = record->duration_ns;
		__entry->outcome = record->outcome;
		__entry->result = record->result;
	),
	TP_printk(VFIO_MEDIATE_PCI_FMT
		  "%s start_pfn=%#llx page_bytes=%llu total_pfns=%llu copied_pfns=%#llx dirty_pages=%llu result=%d duration=%lluns",
		  VFIO_MEDIATE_PCI_ARGS(__entry->device),
		  __print_symbolic(__entry->outcome, { 0, "none" }, { 1, "all" }, { 2, "bitmap" },
				   { 3, "error" }),
		  __entry->start_pfn, __entry->page_bytes, __entry->total_pfns,
		  __entry->copied_pfns, __entry->dirty_pages, __entry->result,
		  __entry->duration_ns)
);

TRACE_EVENT(vfio_mediate_dma,
	TP_PROTO(const struct vfio_mediate_dma *record),
	TP_ARGS(record),
	TP_STRUCT__entry(
		__field(u64, device)
		__field(u64, iova)
		__field(u64, bytes)
		__field(u64, logged_pages)
		__field(u32, direction)
		__field(u32, state)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->device = record->device;
		__entry->iova = record->iova;
		__entry->bytes = record->bytes;
		__entry->logged_pages = record->logged_pages;
		__entry->direction = record->direction;
		__entry->state = record->state;
		__entry->result = record->result;
	),
	TP_printk(VFIO_MEDIATE_PCI_FMT
		  "%s iova=%#llx bytes=%llu logged_pages=%llu state=%s result=%d",
		  VFIO_MEDIATE_PCI_ARGS(__entry->device),
		  __print_symbolic(__entry->direction, { 0, "to_memory" }, { 1, "from_memory" }),
		  __entry->iova, __entry->bytes, __entry->logged_pages,
		  vfio_mediate_show_state(__entry->state), __entry->result)
);

TRACE_EVENT(vfio_mediate_error,
	TP_PROTO(const struct vfio_mediate_error *record),
	TP_ARGS(record),
	TP_STRUCT__entry(
		__field(u64, device)
		__field(u64, offset)
		__field(u64, bytes)
		__field(u64, value)
		__field(u32, rule)
		__field(s32, errno)
		__field(u32, field)
		__field(u32, op)
		__field(u32, state)
	),
	TP_fast_assign(
		__entry->device = record->device;
		__entry->offset = record->offset;
		__entry->bytes = record->bytes;
		__entry->value = record->value;
		__entry->rule = record->rule;
		__entry->errno = record->errno;
		__entry->field = record->field;
		__entry->op = record->op;
		__entry->state = record->state;
	),
	TP_printk(VFIO_MEDIATE_PCI_FMT
		  "rule=%u errno=%d %s %s offset=%#llx bytes=%llu value=%#llx state=%s",
		  VFIO_MEDIATE_PCI_ARGS(__entry->device), __entry->rule, __entry->errno,
		  vfio_mediate_show_op(__entry->op), vfio_mediate_show_field(__entry->field),
		  __entry->offset, __entry->bytes, __entry->value,
		  vfio_mediate_show_state(__entry->state))
);

#endif /* _VFIO_MEDIATE_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace

/* This part must be outside protection */
#include <trace/define_trace.h>

// SPDX-License-Identifier: GPL-2.0
/*
 * Where the tracepoints live. They are in C because a Rust module can only declare tracepoints
 * that the kernel's own bindings know. The wrappers are functions because the emitters are
 * static inlines around a static key.
 */
#include <linux/module.h>

#include "shim.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

#define VFIO_MEDIATE_EMITTER(event)						\
bool vfio_mediate_##event##_enabled(void)					\
{										\
	return trace_vfio_mediate_##event##_enabled();				\
}										\
										\
void vfio_mediate_trace_##event(const struct vfio_mediate_##event *record)	\
{										\
	trace_vfio_mediate_##event(record);					\
}

VFIO_MEDIATE_EMITTER(state)
VFIO_MEDIATE_EMITTER(region_access)
VFIO_MEDIATE_EMITTER(data)
VFIO_MEDIATE_EMITTER(dirty_query)
VFIO_MEDIATE_EMITTER(dma)
VFIO_MEDIATE_EMITTER(error)

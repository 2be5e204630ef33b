// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the probes have to say about themselves, for who looks for a fault in them: by aya-log, to the agent's own log.
//!
//! Only in an object that is not for release. The macros become functions of their own, for what is logged is taken for cold; and before
//! Linux 6.2 the verifier follows every number of a program with functions as if it mattered, so that no two ways through it are alike:
//! `region_return` was refused by Debian's 6.1 after a million instructions, and is now 20 thousand of them.

use aya_log_ebpf::debug;
use migscope_abi::{probe::Probe, ring::Lost};

/// Something that `probe` saw will not reach the agent.
#[inline(always)]
pub(crate) fn lost(probe: Probe, reason: Lost) {
    debug!((), "{}: something is lost: {}", probe.name(), reason.name());
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The probes, seen from user space: loaded, attached, read.
//!
//! ```text
//!   object ──load──▶ programs + maps in the kernel ──attach──▶ tracepoints, functions
//!                        │        └── ring ──▶ records          (Reader)
//!                        └── sums ──────────▶ Sample           (Maps)
//! ```
//!
//! Each step can fail for itself and is tried again: the module that has the tracepoints may be loaded later than the agent is
//! started. Until then the agent says which probe is missing, why, and what would mend it.

pub mod attach;
pub mod kernel_types;
pub mod load;
pub mod logs;
pub mod maps;
pub mod object;
pub mod operations;
pub mod regions;
pub mod ring;
pub mod stats;

use attach::Missing;
use migscope_abi::probe::Probe;
use std::collections::BTreeMap;

/// How each probe stands: attached, or missing for a reason.
pub type Standing = BTreeMap<Probe, Result<(), Missing>>;

/// The standing of probes that all miss the same thing.
pub fn all_missing(missing: &Missing) -> Standing {
    Probe::ALL.into_iter().map(|probe| (probe, Err(missing.clone()))).collect()
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes have to say about themselves (aya-log), passed on to the agent's own log. Those of a release say nothing: see
//! `ebpf/src/log.rs`.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tracing::{level_filters::LevelFilter, warn};

/// Reader of the probes' log.
pub type Logs = EbpfLogger<&'static dyn log::Log>;

/// The map that an object has whose probes log.
const RING: &str = "AYA_LOGS";

/// The level down to which the probes log at all, as aya-log numbers them: what nobody reads is not formatted.
pub(super) fn level() -> u8 {
    match LevelFilter::current().into_level() {
        None => 0,
        Some(tracing::Level::ERROR) => 1,
        Some(tracing::Level::WARN) => 2,
        Some(tracing::Level::INFO) => 3,
        Some(tracing::Level::DEBUG) => 4,
        Some(tracing::Level::TRACE) => 5,
    }
}

/// Takes the log's ring, if there is one. Without it the probes work all the same.
pub(super) fn take(ebpf: &mut Ebpf) -> Option<Logs> {
    ebpf.map(RING)?;
    EbpfLogger::init(ebpf)
        .inspect_err(|error| warn!(%error, "the probes' own log cannot be read"))
        .ok()
}

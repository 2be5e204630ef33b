// SPDX-License-Identifier: Apache-2.0 OR MIT
//! prometheus-node-exporter, which the agent is held against.
//!
//! Debian's own: what is on a host beside the agent is rarely another one.

use std::path::PathBuf;

use anyhow::Result;

use super::unpacked;
use crate::workspace::Workspace;

/// The program in the cache.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    unpacked::ensure(workspace, "prometheus-node-exporter", "prometheus-node-exporter")
}

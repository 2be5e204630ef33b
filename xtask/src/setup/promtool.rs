// SPDX-License-Identifier: Apache-2.0 OR MIT
//! promtool, which checks and tests rules, and lints an exposition.
//!
//! It comes in Debian's package `prometheus`.

use std::path::PathBuf;

use anyhow::Result;

use super::unpacked;
use crate::workspace::Workspace;

/// The package that has it.
const PACKAGE: &str = "prometheus";

/// The major version: the one of Debian 12, and of most Prometheus servers.
const VERSION: &str = "2";

/// The program: the one in PATH if it has the right version, else one in the cache.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    match super::in_path("promtool", VERSION) {
        Some(path) => Ok(path),
        None => unpacked::ensure(workspace, PACKAGE, "promtool"),
    }
}

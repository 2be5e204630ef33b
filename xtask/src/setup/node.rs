// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Node.js with npm, which get and run the TypeScript compiler that reads the dashboards.

use std::process::Command;

use anyhow::Result;

use super::packages::{self, Group};
use crate::child;

/// Whether both are there, whoever installed them. Debian's package npm does not go with a nodejs that is not Debian's, so
/// nothing is installed then.
pub(crate) fn in_path() -> bool {
    let works = |program: &str| child::capture(Command::new(program).arg("--version")).is_ok();
    works("node") && works("npm")
}

/// Installs Debian's where they are missing.
pub(crate) fn ensure() -> Result<()> {
    if in_path() { Ok(()) } else { packages::ensure(&[Group::Node]) }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `demo --monitoring` finds, as a step: each number that is compared, each expression and each alert is a test.

use anyhow::Context as _;

use super::report::{Counts, Report};
use crate::demo::monitoring::{self, Options};
use crate::workspace::Workspace;

/// The step.
pub(super) fn step(workspace: &Workspace, report: &mut Report) {
    report.step("every panel and rule against a real Prometheus", || {
        let show = |found: &monitoring::Report| {
            eprint!("{found}");
            Ok(())
        };
        let found = monitoring::watch(workspace, Options::default(), show)?;
        let (passed, wrong) = found.verdict();
        let number = |count: usize| u64::try_from(count).context("too many tests to be counted");
        Ok(Counts { passed: number(passed)?, failed: number(wrong.len())?, ignored: 0 })
    });
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The package on a machine with systemd, in the guest (tests/vm/systemd.sh): with the unit's sandbox around it, the agent attaches what it
//! attaches without.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::demo;
use crate::kernel::{Choice, Series};
use crate::setup::debian_root;
use crate::vm::{self, Machine, Outcome, Streams, Task};
use crate::workspace::Workspace;

const SCRIPT: &str = "tests/vm/systemd.sh";
/// The newest kernel of Debian 12. It has seccomp, Landlock and control groups, and refuses perf_event_open without CAP_SYS_ADMIN.
const KERNEL: Choice = Choice::Stock(Series::V6_12);
const TIMEOUT: Duration = Duration::from_secs(400);

/// What it said of a part that passed.
const PASSED: &str = "ok   ";
const PARTS: u64 = 6;

/// How many parts passed, and what was measured.
pub(super) fn check(workspace: &Workspace, package: &Path) -> Result<(u64, Vec<String>)> {
    let kernel = KERNEL.ensure(workspace)?;
    let argv = vec![
        "bash".into(),
        workspace.root.join(SCRIPT).into(),
        debian_root::ensure(workspace)?.into(),
        package.into(),
    ];
    let mut passed = 0;
    let mut measured = Vec::new();
    let streams = Streams::Separate {
        stdout: Box::new(demo::Lines::new(|line| {
            passed += u64::from(line.starts_with(PASSED));
            measured.extend(line.strip_prefix("measured: ").map(str::to_owned));
            writeln!(io::stderr(), "{line}")
        })),
        stderr: Box::new(io::stderr()),
    };
    let machine = Machine { devices: Vec::new(), ..Machine::default() };
    let task = Task { argv, environment: Vec::new(), driver: None, timeout: Some(TIMEOUT) };
    match vm::boot(workspace, kernel.as_ref(), &machine, task, streams)? {
        Outcome::Ended { status, .. } => {
            ensure!(status.code() == 0, "it ended with {}; what it said is above", status.code());
        }
        Outcome::TimedOut { limit } => bail!("it did not end within {} s", limit.as_secs()),
        Outcome::GuestFailed { reason } => bail!("{reason}"),
    }
    ensure!(passed == PARTS, "{passed} parts passed, and not {PARTS}");
    Ok((passed, measured))
}

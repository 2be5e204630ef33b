// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The exposition in the middle of a migration, as Prometheus' own tool finds it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use super::server;
use crate::child;

/// Whatever the device, this is what one in a migration looks like.
const MIGRATING: &str = "state=\"pre_copy\"} 1";

/// Fetches it and has it checked; gives the number of its samples.
pub(crate) fn check(promtool: &Path, agent: &str) -> Result<usize> {
    let text = server::get(&format!("http://{agent}/metrics"), &[])?;
    ensure!(
        text.lines().any(|line| line.ends_with(MIGRATING)),
        "no device was migrating just then"
    );
    let mut file = tempfile::NamedTempFile::new().context("failed to make a scratch file")?;
    file.write_all(text.as_bytes()).context("failed to write the exposition down")?;
    let stdin = File::open(file.path()).context("failed to open the exposition")?;
    let mut command = child::bound(promtool);
    command.args(["check", "metrics"]).stdin(Stdio::from(stdin));
    let output = command.output().context("failed to start promtool check metrics")?;
    // It may find fault and still exit with 0.
    if !output.status.success() || !output.stderr.is_empty() {
        bail!("promtool: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(text.lines().filter(|line| !line.starts_with('#')).count())
}

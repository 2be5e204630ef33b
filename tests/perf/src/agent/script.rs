// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes are held against: `same.bt`, run by bpftrace.
//!
//! bpftrace 0.17, which Debian 12 has, knows no raw tracepoints, so the script takes the ordinary ones. It reads their fields from
//! tracefs and their types from BTF. Where a kernel's build tree is there, it takes the kernel's headers instead, and fails in one
//! that was built outside of its source, as the guest's is: so the link to that tree goes, in the guest's throw-away files.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

const SCRIPT: &str = include_str!("same.bt");
/// The first line that the script prints, once it is attached.
const ATTACHED: &str = "attached";

/// A running script; ended when dropped.
pub(super) struct Script {
    child: Child,
    /// Reads its lines, as somebody who wants them would; gives how many bytes there were.
    reader: Option<JoinHandle<u64>>,
}

impl Script {
    /// Starts it and waits until it is attached.
    pub(super) fn start() -> Result<Self> {
        use_btf()?;
        let mut command = Command::new("bpftrace");
        command.args(["-e", SCRIPT]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start bpftrace")?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?);
        loop {
            let mut line = String::new();
            ensure!(
                lines.read_line(&mut line).context("failed to hear bpftrace")? > 0,
                "bpftrace ended before it was attached; what it said is above"
            );
            if line.trim_end() == ATTACHED {
                break;
            }
        }
        let reader = std::thread::spawn(move || {
            let mut sink = std::io::sink();
            std::io::copy(&mut lines.by_ref(), &mut sink).unwrap_or_default()
        });
        Ok(Self { child, reader: Some(reader) })
    }

    /// Ends it; gives how many bytes it printed after it was attached.
    pub(super) fn stop(mut self) -> Result<u64> {
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .context("failed to end bpftrace")?;
        let status = self.child.wait().context("failed to wait for bpftrace")?;
        ensure!(status.success(), "bpftrace ended with {status}");
        let reader = self.reader.take().context("its reader is gone")?;
        reader.join().map_err(|_panic| anyhow::anyhow!("the reader of bpftrace's lines died"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Already ended and reaped in the good case, when both do nothing.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Makes bpftrace take types from BTF; see above.
fn use_btf() -> Result<()> {
    ensure!(
        std::env::var("MIGSCOPE_GUEST").is_ok_and(|value| value == "1"),
        "this is not the guest (MIGSCOPE_GUEST is not 1)"
    );
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    for name in ["build", "source"] {
        match fs::remove_file(format!("/lib/modules/{release}/{name}")) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("failed to hide the kernel's headers"),
        }
    }
    Ok(())
}

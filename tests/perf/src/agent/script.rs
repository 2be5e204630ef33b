// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes are held against: `same.bt`, run by bpftrace.
//!
//! bpftrace 0.17, which Debian 12 has, knows no raw tracepoints, so the script takes the ordinary ones. It reads their fields from
//! tracefs and their types from BTF. Where a kernel's build tree is there, it takes the kernel's headers instead, and fails in one
//! that was built outside of its source, as the guest's is: so the link to that tree goes, in the guest's throw-away files.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

const SCRIPT: &str = include_str!("same.bt");
/// The first line that the script prints, once it is attached.
const ATTACHED: &str = "attached";
/// How long that may take, with a compiler on an emulated CPU; and how long it may take to end.
const PATIENCE: Duration = Duration::from_secs(180);

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
        let lines = BufReader::new(child.stdout.take().context("no stdout")?);
        let (sender, attached) = channel();
        let reader = std::thread::spawn(move || {
            let mut bytes = 0;
            for line in lines.split(b'\n').map_while(Result::ok) {
                if line == ATTACHED.as_bytes() {
                    // Whoever gave up waiting has no use for it.
                    let _sent = sender.send(());
                    continue;
                }
                bytes += u64::try_from(line.len()).unwrap_or_default() + 1;
            }
            bytes
        });
        let script = Self { child, reader: Some(reader) };
        attached
            .recv_timeout(PATIENCE)
            .context("bpftrace did not attach; what it said is above")?;
        Ok(script)
    }

    /// Ends it; gives how many bytes it printed.
    pub(super) fn stop(mut self) -> Result<u64> {
        kill_process(Pid::from_child(&self.child), Signal::INT)
            .context("failed to end bpftrace")?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("failed to wait for bpftrace")? {
                break status;
            }
            ensure!(Instant::now() < deadline, "bpftrace does not end");
            sleep(Duration::from_millis(50));
        };
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

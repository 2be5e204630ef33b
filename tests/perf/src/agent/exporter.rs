// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process that is scraped: the agent, or Debian's prometheus-node-exporter beside it. One client asks both.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long it may take to start.
const START: Duration = Duration::from_secs(60);
/// A scrape that takes longer fails, as it would in Prometheus.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(30);
/// More than any exposition here has, in bytes.
const MOST_BYTES: u64 = 64 << 20;

/// What is asked for, as Prometheus asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

/// One answer.
pub(super) struct Scrape {
    /// From the request to the last byte.
    pub(super) took: Duration,
    /// The body as it came, compressed or not.
    pub(super) body: Vec<u8>,
}

impl Scrape {
    /// How many samples a plain answer has.
    pub(super) fn series(&self) -> Result<u32> {
        let text = str::from_utf8(&self.body).context("an exposition that is no text")?;
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        u32::try_from(samples.count()).context("too many series")
    }
}

/// A running exporter; ended when dropped.
pub(super) struct Exporter {
    child: Child,
    url: String,
    client: ureq::Agent,
}

impl Exporter {
    /// Starts it and waits until it answers.
    pub(super) fn start(command: &mut Command, listen: SocketAddr, ready: &str) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(std::io::stderr());
        let child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        let config = ureq::Agent::config_builder().timeout_global(Some(SCRAPE_TIMEOUT)).build();
        let client = ureq::Agent::new_with_config(config);
        let mut exporter = Self { child, url: format!("http://{listen}/metrics"), client };
        let ready = format!("http://{listen}{ready}");
        let deadline = Instant::now() + START;
        while exporter.client.get(&ready).call().is_err() {
            if let Some(status) = exporter.child.try_wait().context("failed to look at it")? {
                bail!("{command:?} ended with {status} before it was ready");
            }
            ensure!(Instant::now() < deadline, "{command:?} does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(exporter)
    }

    /// The agent that `$MIGSCOPE_AGENT` names, on a host whose devices are in `sysfs`.
    pub(super) fn agent(listen: SocketAddr, sysfs: &Path) -> Result<Self> {
        let program = std::env::var_os("MIGSCOPE_AGENT")
            .context("MIGSCOPE_AGENT must name a program; `cargo xtask bench` sets it")?;
        let mut command = Command::new(program);
        command.args(["--log.level", "warn", "--path.sysfs"]).arg(sysfs);
        command.args(["agent", "--web.listen-address", &listen.to_string()]);
        Self::start(&mut command, listen, "/readyz")
    }

    /// prometheus-node-exporter, as Debian starts it.
    pub(super) fn node(program: &Path, listen: SocketAddr) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address={listen}"));
        // What it misses in this guest (D-Bus, a folder of its own) it says again with each scrape.
        command.stderr(Stdio::null());
        Self::start(&mut command, listen, "/")
    }

    /// One scrape, on a connection that is kept.
    pub(super) fn scrape(&self, encoding: Encoding) -> Result<Scrape> {
        let accepted = match encoding {
            Encoding::Plain => "identity",
            Encoding::Gzip => "gzip",
        };
        let began = Instant::now();
        let mut response = self
            .client
            .get(&self.url)
            .header("accept-encoding", accepted)
            .call()
            .with_context(|| format!("failed to get {}", self.url))?;
        let compressed = response.headers().get("content-encoding").is_some_and(|it| it == "gzip");
        ensure!(compressed == (encoding == Encoding::Gzip), "{} is not {accepted}", self.url);
        let body = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec();
        let body = body.with_context(|| format!("failed to read {}", self.url))?;
        Ok(Scrape { took: began.elapsed(), body })
    }

    /// CPU time that it has used so far, in user space and in the kernel (proc_pid_stat(5)).
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name may have anything in it, a parenthesis as well. After it, utime and stime are the 12th and 13th field.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>().context("no times")?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_nanos(ticks * (1_000_000_000 / per_second)))
    }

    /// Memory that is resident, in bytes: its own, and what it shares with others (proc_pid_smaps_rollup(5)).
    pub(super) fn resident_bytes(&self) -> Result<u64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no Rss")?;
        Ok(kib.parse::<u64>().context("Rss is no number")? * 1024)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // One that has ended already needs no signal, and its status is of no interest then.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _sent = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _status = self.child.wait();
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent as a process of its own, as an operator runs it.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::exposition::Exposition;

/// How long loading and attaching may take; the verifier is slow on an emulated CPU.
const START: Duration = Duration::from_secs(60);
/// How long the agent may take to end.
const STOP: Duration = Duration::from_secs(10);
/// A scrape that takes longer fails, as it would in Prometheus.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    url: String,
}

impl Agent {
    /// Starts `$MIGSCOPE_AGENT` and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not start, ends early, or is not ready in time.
    pub fn start(listen: SocketAddr) -> Result<Self> {
        Self::start_with(listen, &[])
    }

    /// The same, with these words on its command line.
    ///
    /// # Errors
    ///
    /// As for [`Self::start`].
    pub fn start_with(listen: SocketAddr, words: &[&str]) -> Result<Self> {
        let mut command = Command::new(super::program("MIGSCOPE_AGENT")?);
        command.args(["agent", "--web.listen-address", &listen.to_string()]).args(words);
        // Its log goes to our stderr; stdout is for the demo's one object.
        command.stdout(std::io::stderr());
        let child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        // An agent that listens on every address is asked on this machine's own.
        let host = if listen.ip().is_unspecified() {
            SocketAddr::from(([127, 0, 0, 1], listen.port()))
        } else {
            listen
        };
        let mut agent = Self { child, url: format!("http://{host}") };
        let deadline = Instant::now() + START;
        while agent.get("/readyz").is_err() {
            if let Some(status) = agent.child.try_wait().context("failed to look at the agent")? {
                bail!("the agent ended with {status} before it was ready");
            }
            if Instant::now() >= deadline {
                bail!("the agent was not ready after {} seconds", START.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(agent)
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One scrape of `/metrics`.
    ///
    /// # Errors
    ///
    /// When the agent does not answer or not in the text format.
    pub fn scrape(&self) -> Result<Exposition> {
        Exposition::parse(&self.get("/metrics")?)
    }

    /// The body of one page.
    ///
    /// # Errors
    ///
    /// When the agent does not answer with success.
    pub fn get(&self, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.url);
        let config = ureq::Agent::config_builder().timeout_global(Some(SCRAPE_TIMEOUT)).build();
        ureq::Agent::new_with_config(config)
            .get(&url)
            .call()
            .and_then(|mut response| response.body_mut().read_to_string())
            .with_context(|| format!("failed to get {url}"))
    }

    /// Ends the agent with SIGTERM, which must make it exit with 0.
    ///
    /// # Errors
    ///
    /// When it does not end in time or ends in another way.
    pub fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .context("failed to send SIGTERM to the agent")?;
        let deadline = Instant::now() + STOP;
        loop {
            match self.child.try_wait().context("failed to wait for the agent")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the agent ended with {status} on SIGTERM, not with 0"),
                None if Instant::now() >= deadline => bail!("the agent did not end on SIGTERM"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Waits until the agent ends; a terminal's or a supervisor's signal reaches it as it reaches us.
    ///
    /// # Errors
    ///
    /// When waiting fails.
    pub fn wait(mut self) -> Result<()> {
        self.child.wait().map(drop).context("failed to wait for the agent")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already ended and reaped in the good case, when both do nothing.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the view's data comes from.
//!
//! ```text
//!   an agent that runs ── /api/v1/snapshot ──▶ [`Agent`] ──┐
//!                                                          ├──▶ [`Source`] ──▶ snapshots
//!   the kernel ────────── own probes ────────▶ [`Probes`] ─┘
//! ```
//!
//! An agent is asked first: it has seen more than a program that has just begun, it may run on another host, and it needs no privilege
//! to be asked. Only where nobody listens on this host, and none was named, this process tries its own probes.

pub mod agent;
pub mod probes;

use crate::{host::Paths, session::timeline::Point, snapshot::Snapshot};
pub use agent::{Agent, AgentAddress};
pub use probes::Probes;
use std::{io, path::PathBuf};

/// One that can be asked.
pub trait Source: Send {
    /// What it is, for the header.
    fn name(&self) -> String;

    /// Everything that is known now. May take seconds.
    ///
    /// # Errors
    ///
    /// [`SourceError`]; it can be asked again.
    fn snapshot(&mut self) -> Result<Snapshot, SourceError>;

    /// The points of a session; empty where it is not known any more.
    ///
    /// # Errors
    ///
    /// [`SourceError`]; it can be asked again.
    fn timeline(&mut self, session: u64) -> Result<Vec<Point>, SourceError>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody listens there.
    #[error("no agent listens at {0}")]
    Nobody(String, #[source] ureq::Error),
    /// It could not be asked, or did not answer in time.
    #[error("failed to ask {0}")]
    Ask(String, #[source] ureq::Error),
    /// It wants to know who asks.
    #[error(
        "{0} wants another user or password; give them with --agent.user and --agent.password-file"
    )]
    Unauthorized(String),
    /// There is no such page.
    #[error("{0} does not exist: no migscope agent, or one that is older than this program")]
    NotFound(String),
    /// Another status than 200.
    #[error("{0} answered with status {1}")]
    Status(String, u16),
    /// The answer cannot be read.
    #[error("the answer of {0} is cut off or too long")]
    Read(String, #[source] io::Error),
    /// The answer is none of an agent.
    #[error("{0} did not answer as a migscope agent does: another program, or another version")]
    Answer(String, #[source] serde_json::Error),
    /// The own probes were not tried in time.
    #[error("the probes were not loaded within {0} seconds")]
    Slow(u64),
}

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum NoSource {
    /// What was typed is no address.
    #[error("{0:?} is no address of an agent: write it as http://HOST:PORT or https://HOST:PORT")]
    Url(String),
    /// A file cannot be read.
    #[error("failed to read {0:?}")]
    File(PathBuf, #[source] io::Error),
    /// A file has no certificates in it.
    #[error("{0:?} holds no certificate that can be read; it is to be PEM")]
    Certificates(PathBuf),
    /// Nobody listens, and this process cannot look itself.
    #[error(
        "no agent listens at {url}, and this process cannot watch by itself: {why}; start an agent (`migscope agent`, as root), name \
         one that runs elsewhere (--agent URL), or run this as root"
    )]
    Nobody {
        /// Where the agent would be.
        url: String,
        /// Why there are no probes.
        why: &'static str,
    },
    /// The agent that was named does not answer.
    #[error("the agent cannot be used")]
    Agent(#[source] SourceError),
    /// This process could not start its own probes.
    #[error("failed to start the probes")]
    Probes(#[source] io::Error),
}

/// Finds out who can be asked: the agent at `address`, or, unless the user named it, this process's own probes.
///
/// # Errors
///
/// [`NoSource`], which says what to do.
pub fn choose(
    address: &AgentAddress,
    named: bool,
    paths: Paths,
) -> Result<Box<dyn Source>, NoSource> {
    let mut agent = Agent::new(address)?;
    match agent.snapshot() {
        Ok(_) => Ok(Box::new(agent)),
        Err(SourceError::Nobody(..)) if !named => match probes::why_not(&paths) {
            None => Ok(Box::new(Probes::start(paths).map_err(NoSource::Probes)?)),
            Some(why) => Err(NoSource::Nobody { url: address.url.clone(), why }),
        },
        Err(error) => Err(NoSource::Agent(error)),
    }
}

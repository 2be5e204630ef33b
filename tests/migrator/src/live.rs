// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Both ends of a live migration in one process, each in a thread of its own, with a real stream between them.

use std::io;

use serde::{Deserialize, Serialize};
use workload::{Model, Plan, Spec, Worker};

use crate::account::Account;
use crate::address;
use crate::destination::Destination;
use crate::device::Migratable;
use crate::phase::{MigrationError, PhaseError};
use crate::region::{DataAccess, RegionError};
use crate::source::{self, PreCopy, Source};

/// What goes between the ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// A pair of UNIX stream sockets.
    #[default]
    Unix,
    /// A TCP connection over the loopback interface.
    Tcp,
}

/// How to migrate.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How long pre-copy lasts.
    pub pre_copy: PreCopy,
    /// What the device does meanwhile.
    pub workload: Spec,
    /// What goes between the ends.
    pub transport: Transport,
    /// The largest system call on a window, in bytes; nothing for the client's own choice.
    pub chunk_bytes: Option<usize>,
    /// How the windows are reached.
    pub data_access: DataAccess,
}

/// Both accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The source's.
    pub source: Account,
    /// The destination's.
    pub destination: Account,
    /// Whether everything that was checked holds.
    pub verified: bool,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// No stream.
    #[error("could not make a stream between the two ends")]
    Stream(#[source] io::Error),
    /// The memory is too small to work in.
    #[error(
        "a memory of {pages} pages is too small for a workload; it takes {} at least",
        Plan::MIN_PAGES
    )]
    Memory {
        /// How many pages it has.
        pages: u64,
    },
    /// The device could not be brought to a known state before the migration.
    #[error("could not prepare the source device")]
    Prepare(#[source] PhaseError),
    /// A region could not be mapped.
    #[error("could not prepare the access to the migration region")]
    Map(#[source] RegionError),
    /// The source failed. What the destination says is then a consequence, or the cause that the source quotes.
    #[error("the source failed")]
    Source(#[source] MigrationError),
    /// The destination failed.
    #[error("the destination failed")]
    Destination(#[source] MigrationError),
    /// A bug in this client.
    #[error("the destination's thread panicked")]
    Panicked,
}

/// Migrates `from` to `to` while a workload drives `from`.
///
/// # Errors
///
/// [`LiveError`].
pub fn migrate<S, D>(from: &S, to: &D, options: &Options) -> Result<Outcome, LiveError>
where
    S: Migratable,
    S::Registers: Send + 'static,
    D: Migratable + Sync,
    D::Io: Send,
{
    let memory = from.memory();
    let too_small = LiveError::Memory { pages: memory.pages() };
    let pages = usize::try_from(memory.pages()).expect("the memory is mapped");
    let Some(plan) = Plan::new(options.workload.clone(), memory.iova(), memory.pages()) else {
        return Err(too_small);
    };
    let mut model = Model::new(options.workload.seed, memory.iova(), pages);
    source::prepare(from, &mut model).map_err(LiveError::Prepare)?;
    let (here, there) = match options.transport {
        Transport::Unix => address::unix_pair(),
        Transport::Tcp => address::tcp_pair(),
    }
    .map_err(LiveError::Stream)?;
    let mut source = Source::new(from, here, Some(options.pre_copy));
    let mut destination = Destination::new(to, there);
    source.region().set_data_access(options.data_access).map_err(LiveError::Map)?;
    destination.region().set_data_access(options.data_access).map_err(LiveError::Map)?;
    if let Some(bytes) = options.chunk_bytes {
        source.region().set_chunk_bytes(bytes);
        destination.region().set_chunk_bytes(bytes);
    }
    let (sent, received) = std::thread::scope(|scope| {
        let receiver = scope.spawn(move || destination.run());
        let worker = Worker::spawn(from.edu(), plan, model);
        (source.with_workload(worker).run(), receiver.join())
    });
    let source = sent.map_err(LiveError::Source)?;
    let destination =
        received.map_err(|_panic| LiveError::Panicked)?.map_err(LiveError::Destination)?;
    let verified = source.verification.holds() && destination.verification.holds();
    Ok(Outcome { source, destination, verified })
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

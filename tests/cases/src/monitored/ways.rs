// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One migration: how it goes, and what its client did.
//!
//! What comes to its end is the migrator's own (`migrator::live`). The others are the same sequences by hand, since a client that fails
//! keeps no account.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use migrator::account::{Account, Role};
use migrator::device::Device;
use migrator::live::{self, Options};
use migrator::memory::DmaMemory;
use migrator::source::{self, PreCopy};
use migscope_abi::state::State;
use workload::content::Ground;
use workload::pattern::{Load, Pattern, Strokes};
use workload::{Model, Plan, Spec, Worker, Writer};

use super::told::{End, Ending};
use crate::guest;
use crate::ivshmem::Ivshmem;
use crate::session::Session;

/// How long pre-copy lasts before something ends it: some scrapes, whatever the interval.
const PRE_COPY: Duration = Duration::from_secs(3);
/// Between two questions for dirty pages.
const ASK: Duration = Duration::from_millis(500);
/// Before a device is asked again that had nothing to give, as often as QEMU asks.
const NAP: Duration = Duration::from_millis(70);
/// Memory of the device whose migration does not converge, in bytes.
const MEMORY_BYTES: u64 = 4 << 20;
/// What goes over the link, in bytes a second: so little that what this machine can do plays no part.
const LINK: u32 = 512 << 10;
/// What the workload of that migration writes: half of the memory, at once, and again before the link has taken as much. Bursts, so
/// that there are passes: what is pending falls, and rises.
const WRITES: Pattern = Pattern::Bursts { pages: 500, pause: Duration::from_millis(1500) };

/// How a migration goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Way {
    /// It comes to its end.
    Converging,
    /// Memory is dirtied faster than it is moved, until the operator gives up and cancels it.
    NotConverging,
    /// It is cancelled in pre-copy.
    Cancelled,
    /// The destination refuses what came, which was changed on its way; the source runs on.
    Refused,
    /// The process of both ends dies in pre-copy. It is one that asks the container for dirty pages, too, which cannot tell them apart.
    Died,
}

impl Way {
    /// Its name, on the command line and for the host.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Converging => "converging",
            Self::NotConverging => "not-converging",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Died => "died",
        }
    }

    /// Name and UUID of the machine that has the devices.
    pub(super) fn machine(self) -> (&'static str, &'static str) {
        match self {
            Self::NotConverging => ("db-1", "7d1f4c52-0b0e-4f0c-9d53-5a6b8e3f0c01"),
            Self::Converging | Self::Cancelled | Self::Refused | Self::Died => {
                ("web-1", "2c9b8a4e-6f1d-4b7a-8a55-1e0d7c6b9f02")
            }
        }
    }

    /// Migrates; gives the accounts of both ends.
    pub(super) fn run(self) -> Result<Vec<End>> {
        match self {
            Self::Converging => converging(),
            Self::NotConverging => not_converging(),
            Self::Cancelled => {
                let mut pair = Pair::open()?;
                pair.pre_copy_with(None)?;
                pair.cancel()
            }
            Self::Refused => {
                let mut pair = Pair::open()?;
                pair.pre_copy_with(None)?;
                pair.refuse()?;
                pair.cancel()
            }
            Self::Died => {
                let mut pair = Pair::open()?;
                let container = Container::watch(&pair.from.device)?;
                pair.pre_copy_with(Some(container))?;
                // The devices are closed as they are.
                Ok(pair.ends(Ending::Failed))
            }
        }
    }
}

fn converging() -> Result<Vec<End>> {
    let open = |key| -> Result<Arc<Device>> {
        let memory = DmaMemory::new(DmaMemory::DEFAULT_IOVA, DmaMemory::DEFAULT_BYTES)?;
        Ok(Device::open(key, memory)?)
    };
    let [from, to] = guest::devices();
    let pre_copy = PreCopy { min_time: PRE_COPY, ..PreCopy::default() };
    let options = Options { pre_copy, ..Options::default() };
    let outcome = live::migrate(&open(from)?, &open(to)?, &options)?;
    ensure!(outcome.verified, "the migration lost something: {outcome:?}");
    let end = |account: Account| {
        let Account { device, role, region, downtime, .. } = account;
        let ending = Ending::Completed;
        End { device, role, ending, region, downtime, container_pages: None }
    };
    Ok(vec![end(outcome.source), end(outcome.destination)])
}

fn not_converging() -> Result<Vec<End>> {
    let (mut from, mut to) = (Ivshmem::open(MEMORY_BYTES, 0), Ivshmem::open(MEMORY_BYTES, 1));
    let load = Load { pattern: WRITES, range: 0..from.pages(), per_second: 0, seed: 3 };
    // Pages that are all alike would take no time.
    let content = from.fill(Ground::Noise { seed: 4 });
    let writer = Writer::spawn(from.map(), Strokes::new(load), content);
    let over = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            // Its end, or an error, is what is waited for.
            let _end = std::io::stdin().read_to_end(&mut Vec::new());
            over.store(true, Ordering::Release);
        }
    });
    pre_copy(&mut from.session, &mut to.session, None, || over.load(Ordering::Acquire))?;
    writer.pause().context("the workload failed")?;
    from.session.region.set_state(State::Running)?;
    to.session.region.reset()?;
    Ok(vec![
        end(&from.session, Role::Source, Ending::Cancelled, None),
        end(&to.session, Role::Destination, Ending::Failed, None),
    ])
}

/// A container's log, and how many pages it told.
struct Container {
    device: Arc<Device>,
    pages: u64,
}

impl Container {
    fn watch(device: &Arc<Device>) -> Result<Self> {
        device.log_in_container(true).context("the container keeps no log")?;
        Ok(Self { device: Arc::clone(device), pages: 0 })
    }

    fn ask(&mut self) -> Result<()> {
        self.pages +=
            self.device.dirty_in_container().context("the container does not tell")?.len();
        Ok(())
    }
}

/// The devices that do DMA, and what makes the source do it.
struct Pair {
    from: Session,
    to: Session,
    worker: Option<Worker>,
    container_pages: Option<u64>,
}

impl Pair {
    fn open() -> Result<Self> {
        let (from, to) = (Session::open(0), Session::open(1));
        let (spec, memory) = (Spec::default(), from.device.memory());
        let (seed, pages) = (spec.seed, memory.pages());
        let plan = Plan::new(spec, memory.iova(), pages).context("the memory is too small")?;
        let mut model = Model::new(seed, memory.iova(), usize::try_from(pages)?);
        source::prepare(&from.device, &mut model)?;
        let worker = Some(Worker::spawn(from.device.edu(), plan, model));
        Ok(Self { from, to, worker, container_pages: None })
    }

    /// Pre-copy for a while; the processor stands after it, so that the device can be stopped or closed.
    fn pre_copy_with(&mut self, mut container: Option<Container>) -> Result<()> {
        let began = Instant::now();
        let over = || began.elapsed() >= PRE_COPY;
        pre_copy(&mut self.from, &mut self.to, container.as_mut(), over)?;
        self.container_pages = container.map(|container| container.pages);
        if let Some(worker) = self.worker.take() {
            worker.pause().context("the workload failed")?;
        }
        Ok(())
    }

    /// Stops the source and saves it; a bit of the image is lost on the way, and the destination must see that.
    fn refuse(&mut self) -> Result<()> {
        self.from.region.set_state(State::StopAndCopy)?;
        let mut buffers = Vec::new();
        while let Some(buffer) = self.from.region.next_buffer(State::StopAndCopy)? {
            buffers.push(buffer);
        }
        // The end of the image is its checksum.
        *buffers.last_mut().and_then(|buffer| buffer.last_mut()).context("an empty image")? ^= 1;
        let loaded = buffers.iter().try_for_each(|buffer| self.to.region.load_buffer(buffer));
        let started = loaded.and_then(|()| self.to.region.set_state(State::Running).map(drop));
        ensure!(started.is_err(), "the destination took an image that was changed");
        Ok(())
    }

    /// The source runs on, and the destination's device becomes a new one.
    fn cancel(mut self) -> Result<Vec<End>> {
        self.from.region.set_state(State::Running)?;
        self.to.region.reset()?;
        Ok(self.ends(Ending::Cancelled))
    }

    /// What both did; a destination whose source did not come to its end has failed.
    fn ends(self, source: Ending) -> Vec<End> {
        vec![
            end(&self.from, Role::Source, source, self.container_pages),
            end(&self.to, Role::Destination, Ending::Failed, None),
        ]
    }
}

fn end(session: &Session, role: Role, ending: Ending, container_pages: Option<u64>) -> End {
    End {
        device: session.device.key().to_string(),
        role,
        ending,
        region: session.region.account(),
        downtime: None,
        container_pages,
    }
}

/// Pre-copy until it is over: what the source has goes over the link to the destination, and the memory is asked for its dirty pages.
fn pre_copy(
    from: &mut Session,
    to: &mut Session,
    mut container: Option<&mut Container>,
    over: impl Fn() -> bool,
) -> Result<()> {
    to.region.set_state(State::Resuming)?;
    from.region.set_state(State::PreCopy)?;
    let mut asked = Instant::now();
    while !over() {
        match from.region.next_buffer(State::PreCopy)? {
            Some(buffer) => {
                let bytes = u32::try_from(buffer.len()).context("a buffer is too long")?;
                sleep(Duration::from_secs_f64(f64::from(bytes) / f64::from(LINK)));
                to.region.load_buffer(&buffer)?;
            }
            None => sleep(NAP),
        }
        if asked.elapsed() >= ASK {
            asked = Instant::now();
            from.region.dirty_pages(from.everything())?;
            container.as_deref_mut().map(Container::ask).transpose()?;
        }
    }
    Ok(())
}

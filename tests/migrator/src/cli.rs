// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use migscope_abi::device::DeviceKey;
use migscope_abi::dirty::Query;
use migscope_abi::state::State;
use serde::Serialize;
use workload::{Model, Plan, Spec, Worker};

use crate::account::{Account, RegionAccount};
use crate::address::Address;
use crate::destination::Destination;
use crate::device::{Device, DeviceError, Placed};
use crate::live::{self, Options, Transport};
use crate::memory::DmaMemory;
use crate::region::DataAccess;
use crate::source::{self, PreCopy, Source};
use crate::stream::Stream;

mod text;

const EXAMPLES: &str = "\
Examples:
  migrator show --device 0000:00:10.0
  migrator live --source 0000:00:10.0 --destination 0000:00:11.0 --seconds 5 --workload hot=64
  migrator receive --device 0000:00:11.0 --at tcp:127.0.0.1:4444 &
  migrator send --device 0000:00:10.0 --to tcp:127.0.0.1:4444
  migrator save --device 0000:00:10.0 -o edu.image; migrator load --device 0000:00:11.0 -i edu.image

Exit status: 0 when everything that was checked holds, 1 when not or when the command failed.
RUST_LOG=debug says more on standard error.";

/// Migrates VFIO devices through their migration region.
///
/// Each command opens the device through its IOMMU group and a container of its own, so the device must be bound to
/// vfio_mediate and no other program may have it open. Needs root. The device's memory is anonymous memory of this process, mapped at
/// --iova; both ends of a migration must give the same --iova and --memory.
///
/// Try `migrator show` first. `migrator live` is the whole path in one command.
#[derive(Debug, Parser)]
#[command(name = "migrator", version, max_term_width = 110, after_long_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print exactly one JSON object on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// I/O address of the device's memory (decimal or 0x…); edu drives the lowest 256 MiB.
    #[arg(long, global = true, value_parser = number, default_value_t = DmaMemory::DEFAULT_IOVA)]
    iova: u64,
    /// Length of the device's memory in bytes, whole pages of 4096.
    #[arg(long, global = true, value_parser = number, default_value_t = DmaMemory::DEFAULT_BYTES)]
    memory: u64,
    /// How device data and bitmaps are read and written: through a mapping where the region offers one (auto), or by system
    /// calls alone (trapped).
    #[arg(long, global = true, value_enum, default_value_t)]
    data_access: DataAccess,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a device's migration region: where it is, its windows, its fields.
    Show {
        #[command(flatten)]
        device: DeviceArgument,
    },
    /// Let a workload drive a device for a while, then stop it and save it and its memory to a file.
    Save {
        #[command(flatten)]
        device: DeviceArgument,
        #[command(flatten)]
        workload: WorkloadArgument,
        /// How long the workload drives the device, in seconds.
        #[arg(long, value_parser = seconds, default_value = "1")]
        seconds: Duration,
        /// The file to write.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Load a device and its memory from a file, let it run, and check it.
    Load {
        #[command(flatten)]
        device: DeviceArgument,
        /// The file to read.
        #[arg(short, long)]
        input: PathBuf,
    },
    /// Migrate one device to another while a workload makes it do DMA, both ends in this process, and check the result.
    Live {
        /// PCI address of the device to migrate from.
        #[arg(long, value_parser = device_key)]
        source: DeviceKey,
        /// PCI address of the device to migrate to.
        #[arg(long, value_parser = device_key)]
        destination: DeviceKey,
        #[command(flatten)]
        live: LiveArguments,
        /// What goes between the two ends.
        #[arg(long, value_enum, default_value_t)]
        transport: Transport,
    },
    /// Migrate a device to an end that waits elsewhere (`migrator receive`).
    Send {
        #[command(flatten)]
        device: DeviceArgument,
        /// Where the other end waits: unix:PATH or tcp:HOST:PORT.
        #[arg(long)]
        to: Address,
        #[command(flatten)]
        live: LiveArguments,
    },
    /// Wait for a device to come (`migrator send`), let it run, and check it.
    Receive {
        #[command(flatten)]
        device: DeviceArgument,
        /// Where to wait: unix:PATH or tcp:HOST:PORT.
        #[arg(long)]
        at: Address,
    },
    /// Log the device's dirty pages for a while under a workload, then ask for them.
    Dirty {
        #[command(flatten)]
        device: DeviceArgument,
        #[command(flatten)]
        workload: WorkloadArgument,
        /// How long to log, in seconds.
        #[arg(long, value_parser = seconds, default_value = "2")]
        seconds: Duration,
        /// Page size to ask with, in bytes.
        #[arg(long, value_parser = number, default_value = "4096")]
        page_size: u64,
    },
}

#[derive(Debug, Args)]
struct DeviceArgument {
    /// PCI address, such as 0000:00:03.0.
    #[arg(long, value_parser = device_key)]
    device: DeviceKey,
}

#[derive(Debug, Args)]
struct WorkloadArgument {
    /// What the device does meanwhile: hot=PAGES,reload=STORES,bytes=MAX,rate=PER_SECOND,seed=NUMBER; what is left out has its
    /// default. An edu device finishes ten transfers a second.
    #[arg(long, default_value_t)]
    workload: Spec,
}

#[derive(Debug, Args)]
struct LiveArguments {
    #[command(flatten)]
    workload: WorkloadArgument,
    /// How long pre-copy lasts at least, in seconds.
    #[arg(long, value_parser = seconds, default_value = "2")]
    seconds: Duration,
    /// How many passes over dirty pages pre-copy makes at least.
    #[arg(long, default_value_t = PreCopy::default().min_passes)]
    passes: u32,
    /// Pause between two passes, in seconds.
    #[arg(long, value_parser = seconds, default_value = "0.2")]
    interval: Duration,
    /// Read and write device data by system calls of at most so many bytes; what is mapped takes none.
    #[arg(long)]
    chunk: Option<usize>,
}

impl LiveArguments {
    fn pre_copy(&self) -> PreCopy {
        PreCopy { min_passes: self.passes, min_time: self.seconds, interval: self.interval }
    }
}

/// `show`.
#[derive(Debug, Serialize)]
struct Shown {
    device: String,
    file_offset: u64,
    region_bytes: u64,
    mappable_areas: Vec<Area>,
    device_state: &'static str,
    pending_bytes: u64,
    data_offset: u64,
    pci_command: u16,
}

#[derive(Debug, Serialize)]
struct Area {
    offset: u64,
    bytes: u64,
}

/// `dirty`.
#[derive(Debug, Serialize)]
struct DirtyShown {
    device: String,
    page_bytes: u64,
    pages: u64,
    runs: Vec<Run>,
    written_but_not_reported: Vec<u64>,
    region: RegionAccount,
}

#[derive(Debug, Serialize)]
struct Run {
    first_pfn: u64,
    pages: u64,
}

/// Parses the arguments, runs the command, and prints what went wrong.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = if arguments.json { "warn" } else { "info" };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new(level)),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("migrator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let open = |key| -> Result<Arc<Device>> {
        let memory = DmaMemory::new(arguments.iova, arguments.memory)?;
        Ok(Device::open(key, memory)?)
    };
    match &arguments.command {
        Command::Show { device } => {
            let shown = show(&open(device.device)?)?;
            print(arguments.json, &shown)
        }
        Command::Save { device, workload, seconds, output } => {
            let device = open(device.device)?;
            let file = File::create(output)
                .with_context(|| format!("could not create {}", output.display()))?;
            let (plan, model) = prepared(&device, &workload.workload)?;
            let worker = Worker::spawn(device.edu(), plan, model);
            std::thread::sleep(*seconds);
            let stream = Stream::to_file(BufWriter::new(file));
            let mut source = Source::new(&device, stream, None).with_workload(worker);
            source.region().set_data_access(arguments.data_access)?;
            let account = source.run()?;
            print_account(arguments.json, &account)
        }
        Command::Load { device, input } => {
            let file =
                File::open(input).with_context(|| format!("could not open {}", input.display()))?;
            let device = open(device.device)?;
            let mut destination =
                Destination::new(&device, Stream::from_file(BufReader::new(file)));
            destination.region().set_data_access(arguments.data_access)?;
            let account = destination.run()?;
            print_account(arguments.json, &account)
        }
        Command::Live { source, destination, live, transport } => {
            let (source, destination) = (open(*source)?, open(*destination)?);
            let options = Options {
                pre_copy: live.pre_copy(),
                workload: live.workload.workload.clone(),
                transport: *transport,
                chunk_bytes: live.chunk,
                data_access: arguments.data_access,
            };
            let outcome = live::migrate(&source, &destination, &options)?;
            print(arguments.json, &outcome)?;
            Ok(verdict(outcome.verified))
        }
        Command::Send { device, to, live } => {
            let account = send(&open(device.device)?, to, live, arguments.data_access)?;
            print_account(arguments.json, &account)
        }
        Command::Receive { device, at } => {
            let device = open(device.device)?;
            tracing::info!(%at, "waiting for the source");
            let mut destination = Destination::new(&device, at.accept()?);
            destination.region().set_data_access(arguments.data_access)?;
            let account = destination.run()?;
            print_account(arguments.json, &account)
        }
        Command::Dirty { device, workload, seconds, page_size } => {
            let device = open(device.device)?;
            let shown =
                dirty(&device, &workload.workload, *seconds, *page_size, arguments.data_access)?;
            print(arguments.json, &shown)?;
            Ok(verdict(shown.written_but_not_reported.is_empty()))
        }
    }
}

fn show(device: &Arc<Device>) -> Result<Shown> {
    let mut region = device.region();
    let Placed { offset, bytes } = device.migration_region();
    let area = |area: &Placed| Area { offset: area.offset, bytes: area.bytes };
    Ok(Shown {
        device: device.key().to_string(),
        file_offset: offset,
        region_bytes: bytes,
        mappable_areas: device.mappable_areas().iter().map(area).collect(),
        device_state: region.state()?.name(),
        pending_bytes: region.pending_bytes()?,
        data_offset: region.data_offset()?,
        pci_command: device.command().context("could not read the PCI command register")?,
    })
}

/// The memory's plan and its model, with the device brought to the model's start.
fn prepared(device: &Arc<Device>, spec: &Spec) -> Result<(Plan, Model)> {
    let memory = device.memory();
    let pages = usize::try_from(memory.pages()).context("the memory is too large")?;
    let plan = Plan::new(spec.clone(), memory.iova(), memory.pages()).ok_or_else(|| {
        anyhow!("--memory must be {} pages at least for a workload", Plan::MIN_PAGES)
    })?;
    let mut model = Model::new(spec.seed, memory.iova(), pages);
    source::prepare(device, &mut model).context("could not prepare the device")?;
    Ok((plan, model))
}

fn send(
    device: &Arc<Device>,
    to: &Address,
    live: &LiveArguments,
    data_access: DataAccess,
) -> Result<Account> {
    let stream = to.connect()?;
    let (plan, model) = prepared(device, &live.workload.workload)?;
    let worker = Worker::spawn(device.edu(), plan, model);
    let mut source = Source::new(device, stream, Some(live.pre_copy())).with_workload(worker);
    source.region().set_data_access(data_access)?;
    if let Some(bytes) = live.chunk {
        source.region().set_chunk_bytes(bytes);
    }
    Ok(source.run()?)
}

fn dirty(
    device: &Arc<Device>,
    spec: &Spec,
    seconds: Duration,
    page_bytes: u64,
    data_access: DataAccess,
) -> Result<DirtyShown> {
    let memory = device.memory();
    let pages = memory.bytes().checked_div(page_bytes).unwrap_or(0);
    let start_pfn = memory.iova().checked_div(page_bytes).unwrap_or(0);
    let query = Query::new(start_pfn, page_bytes, pages).map_err(|rule| {
        let wanted = "--page-size takes a power of two from 4096 to the length of the memory";
        anyhow!("{wanted}; {page_bytes} breaks the rule {}", rule.name())
    })?;
    let (plan, model) = prepared(device, spec)?;
    let mut region = device.region();
    region.set_data_access(data_access)?;
    region.set_state(State::PreCopy)?;
    let since = std::time::Instant::now();
    let worker = Worker::spawn(device.edu(), plan, model);
    std::thread::sleep(seconds);
    let mut finished = worker.pause()?;
    region.set_state(State::StopAndCopy)?;
    finished.settle();
    let dirty = region.dirty_pages(query)?;
    region.set_state(State::Running)?;
    let per_page = page_bytes / crate::PAGE_BYTES;
    let unreported = |pfn: &u64| !dirty.contains(pfn / per_page);
    Ok(DirtyShown {
        device: device.key().to_string(),
        page_bytes,
        pages: dirty.len(),
        runs: dirty
            .runs()
            .iter()
            .map(|run| Run { first_pfn: run.start, pages: run.end - run.start })
            .collect(),
        written_but_not_reported: finished.model.dirtied_since(since).filter(unreported).collect(),
        region: region.account(),
    })
}

fn verdict(holds: bool) -> ExitCode {
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(json: bool, what: &(impl Serialize + Display)) -> Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(what).context("could not write JSON")?);
    } else {
        print!("{what}");
    }
    Ok(ExitCode::SUCCESS)
}

fn print_account(json: bool, account: &Account) -> Result<ExitCode> {
    print(json, account)?;
    Ok(verdict(account.verification.holds()))
}

fn device_key(text: &str) -> Result<DeviceKey, DeviceError> {
    DeviceKey::parse(text).ok_or_else(|| DeviceError::Address(text.to_owned()))
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_not| format!("`{text}` is no number"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number("4096"), Ok(4096));
        assert_eq!(number("0x1000"), Ok(4096));
        assert!(number("4k").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reports of a device's own log of its DMA (`VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`), by a driver that has one (`tests/vm/logging`):
//! the agent counts the pages that a real device wrote and its driver reported.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::binding;
use cases::demo::agent::Agent;
use cases::guest;
use cases::session::PATIENCE;
use cases::trackers::memory::{Memory, PAGE_BYTES};
use cases::trackers::{bitmap, bits, type1};
use cases::vfio::{CONFIG_REGION, OFFSET_BITS, Vfio};
use migscope_abi::v2::{
    DMA_LOGGING_REPORT, DMA_LOGGING_START, DMA_LOGGING_STOP, FEATURE_GET, FEATURE_SET,
};
use workload::edu::{ADDRESS_LIMIT, Edu, Registers, Transfer};

fn main() -> ExitCode {
    guest::run(&[("what_a_device_reports_of_its_dma_is_counted_page_by_page", reported)])
}

const DRIVER: &str = "logging_testdev";
/// Set by xtask: the module's file.
const FILE: &str = "MIGSCOPE_LOGGING_DRIVER";
/// `PCI_COMMAND`, with `PCI_COMMAND_MEMORY` and `PCI_COMMAND_MASTER`.
const COMMAND: (u64, u16) = (0x04, 0x0006);
/// Where memory is mapped, in a page that no word of a bitmap begins with.
const IOVA: u64 = (1 << 24) + 5 * PAGE_BYTES;
const PAGES: u64 = 128;

/// BAR 0, by system calls.
struct Bar<'a>(&'a Vfio);

impl Registers for Bar<'_> {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        whole(bytes.len(), self.0.read(offset, bytes)?)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        whole(bytes.len(), self.0.write(offset, bytes)?)
    }
}

fn whole(wanted: usize, done: usize) -> io::Result<()> {
    if done == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What it is told, and what the agent has to tell of it.
struct Client {
    vfio: Vfio,
    /// Mapped for the device's DMA.
    _memory: Memory,
    /// Pages written since the last report of them, from [`IOVA`] on.
    written: BTreeSet<u64>,
    pages: u64,
    bytes: u64,
    none: u64,
    bitmaps: u64,
    errors: u64,
}

impl Client {
    fn start(&self) -> io::Result<()> {
        let range = [IOVA, PAGES * PAGE_BYTES];
        let control = [PAGE_BYTES, 1, range.as_ptr().expose_provenance() as u64];
        self.vfio.feature(FEATURE_SET | DMA_LOGGING_START, &mut words::<3, 6>(control))
    }

    fn stop(&self) -> io::Result<()> {
        self.vfio.feature(FEATURE_SET | DMA_LOGGING_STOP, &mut [])
    }

    /// Has the device write `bytes` at `at` in the memory, which makes every page of them dirty.
    fn write(&mut self, at: u64, bytes: u32) {
        let transfer = Transfer { memory: IOVA + at, buffer_at: 0, bytes, to_memory: true };
        Edu::new(Bar(&self.vfio)).transfer(transfer, PATIENCE).expect("the device's DMA");
        self.written.extend(at / PAGE_BYTES..=(at + u64::from(bytes) - 1) / PAGE_BYTES);
    }

    /// Asks for the memory, or part of it, in pages of `page_bytes`; `before` are bits that the client has set already.
    fn report(&mut self, (first, pages): (u64, u64), page_bytes: u64, before: &[u64]) -> Vec<u64> {
        let bits_asked = (pages * PAGE_BYTES).div_ceil(page_bytes);
        let told = self.ask(IOVA + first * PAGE_BYTES, pages, page_bytes, bits_asked, before);
        let told = told.expect("it is reported");
        let asked = first..first + pages;
        let (here, elsewhere) = self.written.iter().partition(|page| asked.contains(page));
        self.written = elsewhere;
        let here: BTreeSet<u64> = here;
        let expected: BTreeSet<_> =
            here.iter().map(|page| (page - first) * PAGE_BYTES / page_bytes).collect();
        let expected: Vec<_> = expected.into_iter().filter(|bit| !before.contains(bit)).collect();
        let new: Vec<u64> = told.into_iter().filter(|bit| !before.contains(bit)).collect();
        assert_eq!(new, expected, "the driver's own account");
        self.count(&new, page_bytes);
        new
    }

    fn count(&mut self, new: &[u64], page_bytes: u64) {
        self.pages += new.len() as u64;
        self.bytes += new.len() as u64 * page_bytes;
        *if new.is_empty() { &mut self.none } else { &mut self.bitmaps } += 1;
    }

    fn ask(
        &self,
        iova: u64,
        pages: u64,
        page_bytes: u64,
        of: u64,
        before: &[u64],
    ) -> io::Result<Vec<u64>> {
        let mut map = bitmap(before, of);
        let address = map.as_mut_ptr().expose_provenance() as u64;
        let report = [iova, pages * PAGE_BYTES, page_bytes, address];
        self.vfio.feature(FEATURE_GET | DMA_LOGGING_REPORT, &mut words::<4, 8>(report))?;
        Ok(bits(&map))
    }
}

/// Long words as the short ones that [`Vfio::feature`] takes.
fn words<const LONG: usize, const SHORT: usize>(long: [u64; LONG]) -> [u32; SHORT] {
    let halves = |word: u64| {
        [word & 0xffff_ffff, word >> 32].map(|half| u32::try_from(half).expect("half a word"))
    };
    let all: Vec<u32> = long.into_iter().flat_map(halves).collect();
    all.try_into().expect("two to each")
}

fn attached(agent: &Agent, line: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = agent.get("/readyz").expect("the agent answers");
        if ready.contains(line) {
            return;
        }
        assert!(Instant::now() < deadline, "not {line}: {ready}");
        sleep(Duration::from_millis(50));
    }
}

fn settles(agent: &Agent, metric: &str, labels: &[(&str, &str)], expected: u64) {
    let deadline = Instant::now() + PATIENCE;
    let expected: f64 = expected.to_string().parse().expect("a number");
    loop {
        let told = agent.scrape().expect("the agent answers").sum(metric, labels);
        if told == Some(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{metric} {labels:?}: {told:?}, not {expected}");
        sleep(Duration::from_millis(50));
    }
}

fn reported() {
    let device = binding::give(DRIVER, FILE)[0];
    let agent = Agent::start(SocketAddr::from(([127, 0, 0, 1], 10486))).expect("the agent starts");
    for probe in ["device_ioctl", "device_ioctl_return"] {
        attached(&agent, &format!("probe {probe}: attached"));
    }
    let vfio = Vfio::open(device).expect("it is opened");
    let (at, command) = COMMAND;
    let position = u64::from(CONFIG_REGION) << OFFSET_BITS | at;
    vfio.write(position, &command.to_le_bytes()).expect("it may do DMA");
    let memory = Memory::new(PAGES).expect("memory");
    type1::map(vfio.container(), &memory, IOVA).expect("it is mapped");
    let (pages, bytes, none, bitmaps, errors) = Default::default();
    let written = BTreeSet::new();
    let mut client = Client { vfio, _memory: memory, written, pages, bytes, none, bitmaps, errors };
    let all = (0, PAGES);

    // Nobody has started it.
    client.ask(IOVA, PAGES, PAGE_BYTES, PAGES, &[]).expect_err("nothing is logged");
    client.errors += 1;
    client.start().expect("it is started");
    assert_eq!(client.report(all, PAGE_BYTES, &[]), Vec::<u64>::new());

    // Two pages of one transfer, one page twice, and the last one.
    client.write(3 * PAGE_BYTES - 8, 16);
    client.write(70 * PAGE_BYTES, 4);
    client.write(70 * PAGE_BYTES + 100, 4);
    client.write(PAGES * PAGE_BYTES - 4, 4);
    assert_eq!(client.report(all, PAGE_BYTES, &[]), [2, 3, 70, PAGES - 1]);
    assert_eq!(client.report(all, PAGE_BYTES, &[]), Vec::<u64>::new(), "it was told");

    // Bits that the client had set are nobody's report.
    client.write(9 * PAGE_BYTES, 4);
    assert_eq!(client.report(all, PAGE_BYTES, &[1, 9, 77]), Vec::<u64>::new());
    // That one was dirty, and its bit was set: it is told, and cannot be counted.
    client.write(10 * PAGE_BYTES, 4);
    assert_eq!(client.report(all, PAGE_BYTES, &[1, 9, 77]), [10]);

    // A part, and the rest; and pages that are larger than the device's.
    client.write(20 * PAGE_BYTES, 4);
    client.write(100 * PAGE_BYTES, 4);
    assert_eq!(client.report((0, 64), PAGE_BYTES, &[]), [20]);
    assert_eq!(client.report((64, 64), PAGE_BYTES, &[]), [36]);
    client.write(40 * PAGE_BYTES, 4);
    client.write(41 * PAGE_BYTES, 4);
    assert_eq!(client.report(all, 2 * PAGE_BYTES, &[]), [20]);

    // All that the device can reach: a bitmap of 65,536 bits.
    client.write(5 * PAGE_BYTES, 4);
    client.written.clear();
    let reach = ADDRESS_LIMIT / PAGE_BYTES;
    let told = client.ask(0, reach, PAGE_BYTES, reach, &[]).expect("it is reported");
    assert_eq!(told, [IOVA / PAGE_BYTES + 5]);
    client.count(&told, PAGE_BYTES);

    client.stop().expect("it is stopped");
    client.ask(IOVA, PAGES, PAGE_BYTES, PAGES, &[]).expect_err("nothing is logged");
    client.errors += 1;

    let name = device.to_string();
    let source = [("device", name.as_str()), ("source", "dma_logging")];
    settles(&agent, "vfio_migration_dirty_pages_total", &source, client.pages);
    settles(&agent, "vfio_migration_dirty_bytes_total", &source, client.bytes);
    for (outcome, expected) in
        [("none", client.none), ("bitmap", client.bitmaps), ("error", client.errors), ("all", 0)]
    {
        let labels = [source[0], source[1], ("outcome", outcome)];
        settles(&agent, "vfio_migration_dirty_queries_total", &labels, expected);
    }
    settles(&agent, "migscope_events_lost_total", &[], 0);
    drop(client);
    agent.stop().expect("it ends");
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The end that a device leaves.
//!
//! ```text
//!   running ─▶ pre_copy ─▶ stop_and_copy ─▶ stopped          live
//!   running ──────────────▶ stop_and_copy ─▶ stopped          to a file
//!          ◀─────────────── cancel, until End was sent
//! ```
//!
//! When the cancel is no longer possible: once `End` is out the destination's device may run at any moment, and two devices that
//! run with the same state are worse than none. So a failure after that leaves the source's device stopped, and says so.

use std::io;
use std::time::{Duration, Instant};

use migscope_abi::dirty::Query;
use migscope_abi::state::State;
use workload::edu::Edu;
use workload::{Finished, Worker};
use zerocopy::little_endian::U64;

use crate::account::{Account, Downtime, Memory, Role, Workload};
use crate::clock;
use crate::device::Migratable;
use crate::dirty::PageSet;
use crate::phase::{MigrationError, Phase, PhaseError, UnderWay};
use crate::region::Region;
use crate::stream::{Frame, Hello, MAX_PAGES, Pages, Running, Stream};
use crate::verify::{self, Expected, Verification};
use crate::{PAGE_BYTES, account};

/// How long pre-copy lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreCopy {
    /// Passes over dirty pages that are made at least.
    pub min_passes: u32,
    /// Time that is spent at least.
    pub min_time: Duration,
    /// Pause between two passes.
    pub interval: Duration,
}

impl Default for PreCopy {
    fn default() -> Self {
        Self {
            min_passes: 3,
            min_time: Duration::from_secs(2),
            interval: Duration::from_millis(200),
        }
    }
}

/// Buffers that one pass of pre-copy takes at most: a device that dirties its state faster than it is read must not hold the
/// memory's passes up.
const MAX_BUFFERS_PER_PASS: u32 = 64;

/// Whether what a pass sends becomes what later reports are judged by. The last report is judged by what was sent before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remember {
    Yes,
    No,
}

/// The source while it migrates.
pub struct Source<'a, M: Migratable> {
    device: &'a M,
    region: Region<M::Io>,
    stream: Stream,
    pre_copy: Option<PreCopy>,
    worker: Option<Worker>,
    finished: Option<Finished>,
    saving_since: Option<Instant>,
    stopped_with_transfer: bool,
    /// Memory as the destination has it, until the last pass; empty before the first.
    sent: Vec<u8>,
    reported: Vec<PageSet>,
    last_report: PageSet,
    memory: Memory,
    verification: Verification,
    downtime: Downtime,
    end_at_ns: u64,
    phases: Vec<account::Phase>,
}

impl<'a, M: Migratable> Source<'a, M> {
    /// Prepares a migration over `stream`, with a pre-copy phase or, for a file, without.
    pub fn new(device: &'a M, stream: Stream, pre_copy: Option<PreCopy>) -> Self {
        let memory = device.memory();
        let memory = Memory { pages: memory.pages(), page_bytes: PAGE_BYTES, ..Memory::default() };
        Self {
            device,
            region: device.region(),
            stream,
            pre_copy,
            worker: None,
            finished: None,
            saving_since: None,
            stopped_with_transfer: false,
            sent: Vec::new(),
            reported: Vec::new(),
            last_report: PageSet::default(),
            memory,
            verification: Verification::default(),
            downtime: Downtime::default(),
            end_at_ns: 0,
            phases: Vec::new(),
        }
    }

    /// A workload that already drives the device; it is paused just before the device is stopped.
    #[must_use]
    pub fn with_workload(mut self, worker: Worker) -> Self {
        self.worker = Some(worker);
        self
    }

    /// The region, to set how it is accessed.
    pub fn region(&mut self) -> &mut Region<M::Io> {
        &mut self.region
    }

    /// Migrates.
    ///
    /// # Errors
    ///
    /// [`MigrationError`]: the phase, the cause, and what became of the device.
    pub fn run(mut self) -> Result<Account, MigrationError> {
        let started_ns = clock::monotonic_ns();
        self.phase(Phase::Hello, Self::hello)?;
        if let Some(pre_copy) = self.pre_copy {
            self.phase(Phase::PreCopy, |source| source.run_pre_copy(pre_copy))?;
        }
        self.phase(Phase::Stop, Self::stop)?;
        self.phase(Phase::FinalData, Self::final_data)?;
        self.phase(Phase::FinalDirty, Self::final_dirty)?;
        self.phase(Phase::HandOver, Self::hand_over)?;
        self.phase(Phase::GiveUp, Self::give_up)?;
        self.phase(Phase::Verify, Self::verify)?;
        Ok(self.account(clock::monotonic_ns().saturating_sub(started_ns)))
    }

    /// The choke point: every phase is timed, logged and, when it fails, undone here.
    fn phase(
        &mut self,
        phase: Phase,
        run: impl FnOnce(&mut Self) -> Result<(), PhaseError>,
    ) -> Result<(), MigrationError> {
        let under_way = UnderWay::begin(phase, "source", &self.device.name());
        let result = run(self);
        self.phases.push(under_way.end());
        result.map_err(|source| {
            let aftermath = self.undo();
            MigrationError { phase, aftermath, source }
        })
    }

    /// Brings the device back to where it was, as far as that is still right.
    fn undo(&mut self) -> &'static str {
        if let Some(worker) = self.worker.take() {
            // Its own failure, if any, is not what the user must hear of.
            let _paused = worker.pause();
        }
        if self.end_at_ns != 0 {
            return "the source device stays as it is, since the destination device may run";
        }
        // The other end may be what failed.
        let _sent = self.stream.send(&Frame::Failed("the source failed".to_owned()));
        let _sent = self.stream.flush();
        match self.region.set_state(State::Running) {
            Ok(_) => "the source device runs on",
            Err(_) if self.region.reset().is_ok() => "the source device was reset",
            Err(_) => "the source device could not be brought back to running",
        }
    }

    fn hello(&mut self) -> Result<(), PhaseError> {
        let memory = self.device.memory();
        self.stream.send(&Frame::Hello(Hello {
            iova: U64::new(memory.iova()),
            memory_bytes: U64::new(memory.bytes()),
            page_bytes: U64::new(PAGE_BYTES),
        }))?;
        self.stream.flush()?;
        if self.stream.is_two_way() {
            match self.stream.receive()? {
                Frame::Ready => {}
                other => return Err(PhaseError::unexpected("ready", &other)),
            }
        }
        Ok(())
    }

    fn run_pre_copy(&mut self, pre_copy: PreCopy) -> Result<(), PhaseError> {
        let PreCopy { min_passes, min_time, interval } = pre_copy;
        let began = Instant::now();
        self.region.set_state(State::PreCopy)?;
        self.saving_since = Some(Instant::now());
        // From here on every page that the device writes is logged, so what the first pass reads too early is sent again.
        self.send_everything()?;
        let mut passes = 0;
        while passes < min_passes || began.elapsed() < min_time {
            std::thread::sleep(interval);
            for _ in 0..MAX_BUFFERS_PER_PASS {
                match self.region.next_buffer(State::PreCopy)? {
                    Some(buffer) => self.stream.send(&Frame::DeviceData(buffer))?,
                    None => break,
                }
            }
            let dirty = self.region.dirty_pages(self.whole_memory())?;
            tracing::info!(pass = passes + 1, dirty_pages = dirty.len(), "pre-copy");
            self.send_pages(&dirty, Remember::Yes)?;
            self.reported.push(dirty);
            passes += 1;
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), PhaseError> {
        // The processor stops before its devices do, as in a VMM.
        let finished = self.worker.take().map(Worker::pause).transpose()?;
        self.downtime.stop_at_monotonic_ns = clock::monotonic_ns();
        self.region.set_state(State::StopAndCopy)?;
        self.downtime.stop_ns =
            clock::monotonic_ns().saturating_sub(self.downtime.stop_at_monotonic_ns);
        if self.registers(|edu| edu.is_transferring())? {
            return Err(PhaseError::NotQuiescent);
        }
        if let Some(mut finished) = finished {
            self.stopped_with_transfer = finished.in_flight.is_some();
            finished.settle();
            self.finished = Some(finished);
        }
        Ok(())
    }

    fn final_data(&mut self) -> Result<(), PhaseError> {
        let began_ns = clock::monotonic_ns();
        while let Some(buffer) = self.region.next_buffer(State::StopAndCopy)? {
            self.stream.send(&Frame::DeviceData(buffer))?;
        }
        self.downtime.final_data_ns = clock::monotonic_ns().saturating_sub(began_ns);
        Ok(())
    }

    fn final_dirty(&mut self) -> Result<(), PhaseError> {
        let began_ns = clock::monotonic_ns();
        if self.pre_copy.is_some() {
            self.last_report = self.region.dirty_pages(self.whole_memory())?;
            self.downtime.final_query_ns = clock::monotonic_ns().saturating_sub(began_ns);
            self.send_pages(&self.last_report.clone(), Remember::No)?;
        } else {
            self.send_everything()?;
        }
        self.downtime.final_dirty_ns = clock::monotonic_ns().saturating_sub(began_ns);
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), PhaseError> {
        self.end_at_ns = clock::monotonic_ns();
        self.stream.send(&Frame::End)?;
        self.stream.flush()?;
        if !self.stream.is_two_way() {
            return Ok(());
        }
        let running = match self.stream.receive()? {
            Frame::Running(running) => running,
            other => return Err(PhaseError::unexpected("running", &other)),
        };
        self.account_downtime(&running);
        Ok(())
    }

    fn account_downtime(&mut self, running: &Running) {
        let downtime = &mut self.downtime;
        let same_clock = running.boot_id.is_some() && running.boot_id == clock::boot_id();
        let until = if same_clock { running.running_at_ns } else { clock::monotonic_ns() };
        downtime.total_ns = until.saturating_sub(downtime.stop_at_monotonic_ns);
        downtime.transfer_ns = same_clock.then(|| running.end_at_ns.saturating_sub(self.end_at_ns));
        downtime.load_ns = running.load_ns;
        downtime.start_ns = running.start_ns;
        downtime.running_at_monotonic_ns = running.running_at_ns;
    }

    fn give_up(&mut self) -> Result<(), PhaseError> {
        self.region.set_state(State::Stopped)?;
        Ok(())
    }

    fn verify(&mut self) -> Result<(), PhaseError> {
        let memory = self.device.memory().contents()?;
        let first_pfn = self.device.memory().first_pfn();
        if self.pre_copy.is_some() {
            let changed = verify::differing_pages(&memory, &self.sent, first_pfn);
            let missed = changed.into_iter().filter(|page| !self.last_report.contains(*page));
            self.verification.missed = missed.collect();
            self.verification.reports_checked = true;
        }
        if let Some(Finished { model, .. }) = &self.finished {
            let wrong = verify::differing_pages(&memory, model.memory(), first_pfn);
            self.verification.memory = Some(wrong.is_empty());
            self.verification.wrong_pages = wrong;
            if let Some(since) = self.saving_since {
                let was_reported = |page: &u64| {
                    let mut reports = self.reported.iter().chain([&self.last_report]);
                    reports.any(|report| report.contains(*page))
                };
                let written = model.dirtied_since(since);
                self.verification.written_but_not_reported =
                    written.filter(|page| !was_reported(page)).collect();
            }
        }
        let expected = Expected {
            memory_sha256: verify::digest(&memory),
            page_crc32: verify::page_checksums(&memory),
            registers: self.registers(|edu| edu.snapshot())?,
            buffer: self.finished.as_ref().map(|finished| finished.model.buffer().to_vec()),
        };
        self.stream.send(&Frame::Expected(Box::new(expected)))?;
        self.stream.flush()?;
        if self.stream.is_two_way() {
            match self.stream.receive()? {
                Frame::Report(_) => {}
                other => return Err(PhaseError::unexpected("report", &other)),
            }
        }
        Ok(())
    }

    fn registers<T>(
        &self,
        read: impl FnOnce(Edu<M::Registers>) -> io::Result<T>,
    ) -> Result<T, PhaseError> {
        let doing = "read the device's registers";
        read(self.device.edu()).map_err(|source| PhaseError::Device { doing, source })
    }

    fn whole_memory(&self) -> Query {
        let memory = self.device.memory();
        Query {
            start_pfn: memory.first_pfn(),
            page_shift: PAGE_BYTES.trailing_zeros(),
            pages: memory.pages(),
        }
    }

    fn send_everything(&mut self) -> Result<(), PhaseError> {
        let memory = self.device.memory();
        self.sent = vec![0; usize::try_from(memory.bytes()).expect("the memory is mapped")];
        let first = memory.first_pfn();
        let everything = (first..first + self.memory.pages).collect();
        self.send_pages(&everything, Remember::Yes)
    }

    /// Sends pages as they are now, and ends the pass.
    fn send_pages(&mut self, pages: &PageSet, remember: Remember) -> Result<(), PhaseError> {
        let page_bytes = usize::try_from(PAGE_BYTES).expect("a page fits");
        let is_first_pass = self.memory.pages_by_pass.is_empty();
        let first_pfn = self.device.memory().first_pfn();
        for run in pages.runs() {
            let mut pfn = run.start;
            while pfn < run.end {
                let count = usize::try_from(run.end - pfn).unwrap_or(MAX_PAGES).min(MAX_PAGES);
                let mut content = vec![0; count * page_bytes];
                self.device.memory().read(pfn * PAGE_BYTES, &mut content)?;
                let at = usize::try_from(pfn - first_pfn).expect("a page of the memory");
                let known = &mut self.sent[at * page_bytes..(at + count) * page_bytes];
                if !is_first_pass {
                    let pairs = known.chunks(page_bytes).zip(content.chunks(page_bytes));
                    let same = pairs.filter(|(known, now)| known == now).count();
                    self.verification.unchanged_but_reported +=
                        u64::try_from(same).expect("a count fits");
                }
                if remember == Remember::Yes {
                    known.copy_from_slice(&content);
                }
                self.stream.send(&Frame::Pages(Pages { first_pfn: pfn, content }))?;
                pfn += u64::try_from(count).expect("a count fits");
            }
        }
        self.stream.send(&Frame::PassEnd)?;
        // Not only for the pages' sake: an end that hears nothing for a minute gives up.
        self.stream.flush()?;
        self.memory.pages_by_pass.push(pages.len());
        if !is_first_pass {
            self.memory.resent_pages += pages.len();
        }
        Ok(())
    }

    fn account(self, total_ns: u64) -> Account {
        let workload = self.finished.as_ref().map(|finished| Workload {
            spec: finished.plan.spec().to_string(),
            counts: finished.counts,
            pages_dirtied: u64::try_from(finished.model.dirtied().count()).expect("a count fits"),
            in_flight_at_stop: self.stopped_with_transfer,
        });
        Account {
            device: self.device.name(),
            role: Role::Source,
            region: self.region.account(),
            memory: self.memory,
            phases: self.phases,
            downtime: self.stream.is_two_way().then_some(self.downtime),
            total_ns,
            workload,
            verification: self.verification,
        }
    }
}

/// Fills the device's memory and buffer with what the model says, so that nothing about them is unknown.
///
/// # Errors
///
/// [`PhaseError`].
pub fn prepare<M: Migratable>(device: &M, model: &mut workload::Model) -> Result<(), PhaseError> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let memory = device.memory();
    memory.write(memory.iova(), model.memory())?;
    let load = model.first_load();
    device
        .edu()
        .transfer(load.transfer(), PATIENCE)
        .map_err(|source| PhaseError::Device { doing: "load the device's buffer", source })?;
    model.apply(load, Instant::now());
    Ok(())
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The end that a device comes to.
//!
//! ```text
//!   running ─▶ resuming ─▶ running
//!                  └─────▶ reset, when anything fails before the device runs
//! ```
//!
//! What comes in may be a lie: lengths and places are checked against this end's own memory and region before they are used,
//! and the driver judges the device data.

use std::time::Duration;

use migscope_abi::state::State;
use workload::edu::{BUFFER_BYTES, Transfer};

use crate::PAGE_BYTES;
use crate::account::{self, Account, Memory, Role};
use crate::clock;
use crate::device::Migratable;
use crate::phase::{MigrationError, Phase, PhaseError, UnderWay};
use crate::region::Region;
use crate::stream::{Frame, Hello, Pages, Running, Stream};
use crate::verify::{self, Expected, Verification};

/// How long a DMA transfer of the verification may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The destination while it migrates.
pub struct Destination<'a, M: Migratable> {
    device: &'a M,
    region: Region<M::Io>,
    stream: Stream,
    memory: Memory,
    received: Vec<bool>,
    pass_pages: u64,
    end_at_ns: u64,
    runs: bool,
    verification: Verification,
    phases: Vec<account::Phase>,
}

impl<'a, M: Migratable> Destination<'a, M> {
    /// Prepares to receive over `stream`.
    pub fn new(device: &'a M, stream: Stream) -> Self {
        let pages = device.memory().pages();
        let received = vec![false; usize::try_from(pages).expect("the memory is mapped")];
        Self {
            device,
            region: device.region(),
            stream,
            memory: Memory { pages, page_bytes: PAGE_BYTES, ..Memory::default() },
            received,
            pass_pages: 0,
            end_at_ns: 0,
            runs: false,
            verification: Verification::default(),
            phases: Vec::new(),
        }
    }

    /// The region, to set how it is accessed.
    pub fn region(&mut self) -> &mut Region<M::Io> {
        &mut self.region
    }

    /// Receives a device.
    ///
    /// # Errors
    ///
    /// [`MigrationError`]: the phase, the cause, and what became of the device.
    pub fn run(mut self) -> Result<Account, MigrationError> {
        let started_ns = clock::monotonic_ns();
        self.phase(Phase::Hello, Self::hello)?;
        self.phase(Phase::Receive, Self::receive)?;
        self.phase(Phase::Start, Self::start)?;
        self.phase(Phase::Verify, Self::verify)?;
        Ok(Account {
            device: self.device.name(),
            role: Role::Destination,
            region: self.region.account(),
            memory: self.memory,
            phases: self.phases,
            downtime: None,
            total_ns: clock::monotonic_ns().saturating_sub(started_ns),
            workload: None,
            verification: self.verification,
        })
    }

    /// The choke point: every phase is timed, logged and, when it fails, undone here.
    fn phase(
        &mut self,
        phase: Phase,
        run: impl FnOnce(&mut Self) -> Result<(), PhaseError>,
    ) -> Result<(), MigrationError> {
        let under_way = UnderWay::begin(phase, "destination", &self.device.name());
        let result = run(self);
        self.phases.push(under_way.end());
        result.map_err(|source| {
            let aftermath = self.undo(&source);
            MigrationError { phase, aftermath, source }
        })
    }

    /// A device that does not run yet has half a state at best: a reset makes it a new one.
    fn undo(&mut self, why: &PhaseError) -> &'static str {
        // The other end may be what failed.
        let _sent = self.stream.send(&Frame::Failed(chain(why)));
        let _sent = self.stream.flush();
        if self.runs {
            "the destination device runs"
        } else if self.region.reset().is_ok() {
            "the destination device was reset"
        } else {
            "the destination device could not be reset"
        }
    }

    fn hello(&mut self) -> Result<(), PhaseError> {
        let Hello { iova, memory_bytes, page_bytes } = match self.stream.receive()? {
            Frame::Hello(hello) => hello,
            other => return Err(PhaseError::unexpected("hello", &other)),
        };
        let memory = self.device.memory();
        for (what, theirs, ours) in [
            ("I/O address of the memory", iova.get(), memory.iova()),
            ("length of the memory", memory_bytes.get(), memory.bytes()),
            ("length of a page", page_bytes.get(), PAGE_BYTES),
        ] {
            if theirs != ours {
                return Err(PhaseError::Mismatch { what, theirs, ours });
            }
        }
        self.region.set_state(State::Resuming)?;
        self.stream.send(&Frame::Ready)?;
        Ok(self.stream.flush()?)
    }

    fn receive(&mut self) -> Result<(), PhaseError> {
        loop {
            match self.stream.receive()? {
                Frame::Pages(pages) => self.take_pages(&pages)?,
                // In the order and in the lengths in which the source's driver gave them.
                Frame::DeviceData(buffer) => self.region.load_buffer(&buffer)?,
                Frame::PassEnd => {
                    self.memory.pages_by_pass.push(std::mem::take(&mut self.pass_pages));
                }
                Frame::End => break,
                other => {
                    return Err(PhaseError::unexpected(
                        "pages, device data, pass end or end",
                        &other,
                    ));
                }
            }
        }
        self.end_at_ns = clock::monotonic_ns();
        Ok(())
    }

    fn take_pages(&mut self, pages: &Pages) -> Result<(), PhaseError> {
        let iova = pages.first_pfn.saturating_mul(PAGE_BYTES);
        self.device.memory().write(iova, &pages.content)?;
        let first = self.device.memory().first_pfn();
        let page_bytes = usize::try_from(PAGE_BYTES).expect("a page fits");
        // The write above has proved that the pages are in the memory.
        let at = usize::try_from(pages.first_pfn - first).expect("a page of the memory");
        let count = pages.content.len() / page_bytes;
        for received in &mut self.received[at..at + count] {
            self.memory.resent_pages += u64::from(*received);
            *received = true;
        }
        self.pass_pages += u64::try_from(count).expect("a count fits");
        Ok(())
    }

    fn start(&mut self) -> Result<(), PhaseError> {
        // Configuration space after the device data, as a VMM restores it.
        self.device.enable().map_err(|source| PhaseError::Device {
            doing: "enable memory and DMA of the device",
            source,
        })?;
        let ready_ns = clock::monotonic_ns();
        self.region.set_state(State::Running)?;
        self.runs = true;
        let running_at_ns = clock::monotonic_ns();
        self.stream.send(&Frame::Running(Running {
            boot_id: clock::boot_id(),
            end_at_ns: self.end_at_ns,
            load_ns: ready_ns.saturating_sub(self.end_at_ns),
            start_ns: running_at_ns.saturating_sub(ready_ns),
            running_at_ns,
        }))?;
        Ok(self.stream.flush()?)
    }

    fn verify(&mut self) -> Result<(), PhaseError> {
        let expected = match self.stream.receive()? {
            Frame::Expected(expected) => expected,
            other => return Err(PhaseError::unexpected("expected", &other)),
        };
        self.verify_memory(&expected)?;
        let doing = "read the device's registers";
        let registers = self.device.edu().snapshot();
        let registers = registers.map_err(|source| PhaseError::Device { doing, source })?;
        if registers != expected.registers {
            tracing::error!(got = ?registers, expected = ?expected.registers, "registers differ");
        }
        self.verification.registers = Some(registers == expected.registers);
        if let Some(expected) = &expected.buffer {
            self.verification.buffer = Some(self.buffer()? == *expected);
        }
        self.stream.send(&Frame::Report(Box::new(self.verification.clone())))?;
        Ok(self.stream.flush()?)
    }

    fn verify_memory(&mut self, expected: &Expected) -> Result<(), PhaseError> {
        let memory = self.device.memory().contents()?;
        let same = verify::digest(&memory) == expected.memory_sha256;
        self.verification.memory = Some(same);
        if !same {
            let first_pfn = self.device.memory().first_pfn();
            self.verification.wrong_pages =
                verify::wrong_pages(&memory, &expected.page_crc32, first_pfn);
        }
        Ok(())
    }

    /// The device's buffer, which only the device itself can bring out: it writes it to the last page of memory, whose content is
    /// put back afterwards.
    fn buffer(&self) -> Result<Vec<u8>, PhaseError> {
        let memory = self.device.memory();
        let iova = memory.iova() + memory.bytes() - PAGE_BYTES;
        let mut buffer = vec![0; usize::try_from(BUFFER_BYTES).expect("the buffer fits")];
        let mut borrowed = buffer.clone();
        memory.read(iova, &mut borrowed)?;
        let transfer =
            Transfer { memory: iova, buffer_at: 0, bytes: BUFFER_BYTES, to_memory: true };
        let doing = "let the device write its buffer to memory";
        let transferred = self.device.edu().transfer(transfer, PATIENCE);
        transferred.map_err(|source| PhaseError::Device { doing, source })?;
        memory.read(iova, &mut buffer)?;
        memory.write(iova, &borrowed)?;
        Ok(buffer)
    }
}

/// An error with all its causes in one line, for the other end.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

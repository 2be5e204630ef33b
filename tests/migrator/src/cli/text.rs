// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the commands print for people.

use std::fmt::{self, Display, Formatter};

use super::{DirtyShown, Run, Shown};
use crate::account::{Account, Downtime, Moved};
use crate::live::Outcome;

/// Nanoseconds as people read them.
struct Milliseconds(u64);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let microseconds = self.0 / 1000;
        f.pad(&format!("{}.{:03} ms", microseconds / 1000, microseconds % 1000))
    }
}

impl Display for Shown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "device          {}", self.device)?;
        let (bytes, offset) = (self.region_bytes, self.file_offset);
        writeln!(f, "region          {bytes} bytes at {offset:#x} of the device's file")?;
        for area in &self.mappable_areas {
            writeln!(f, "may be mapped   {} bytes at {:#x}", area.bytes, area.offset)?;
        }
        writeln!(f, "device_state    {}", self.device_state)?;
        writeln!(f, "pending_bytes   {}", self.pending_bytes)?;
        writeln!(f, "data_offset     {:#x}", self.data_offset)?;
        writeln!(f, "PCI command     {:#06x}", self.pci_command)
    }
}

impl Display for DirtyShown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { device, pages, page_bytes, .. } = self;
        writeln!(f, "{device}: {pages} pages of {page_bytes} bytes were written")?;
        for Run { first_pfn, pages } in &self.runs {
            writeln!(f, "  {:#012x}  {pages} pages", first_pfn * page_bytes)?;
        }
        if !self.written_but_not_reported.is_empty() {
            writeln!(f, "LOST: written and not reported: {:x?}", self.written_but_not_reported)?;
        }
        Ok(())
    }
}

impl Display for Account {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { device, role, region, memory, downtime, total_ns, workload, .. } = self;
        writeln!(f, "{device} ({role:?})")?;
        for change in &region.transitions {
            let took = Milliseconds(change.duration_ns);
            writeln!(f, "  {:>13} -> {:<13} {took:>12}", change.from, change.to)?;
        }
        let (bytes, iterations) = (region.data_bytes, region.iterations);
        writeln!(f, "  device data   {bytes} bytes in {iterations} iterations")?;
        let Moved { mapped_bytes, trapped_bytes } = region.data_window;
        writeln!(f, "                {mapped_bytes} mapped, {trapped_bytes} by system calls")?;
        let passes: Vec<String> = memory.pages_by_pass.iter().map(u64::to_string).collect();
        writeln!(f, "  memory        pages by pass: {}", passes.join(" + "))?;
        let made = region.dirty.queries.iter().filter(|(_, count)| **count > 0);
        let made: Vec<String> = made.map(|(outcome, count)| format!("{count} {outcome}")).collect();
        if !made.is_empty() {
            let pages = region.dirty.pages;
            writeln!(f, "  dirty pages   {pages} in queries: {}", made.join(", "))?;
        }
        if let Some(workload) = workload {
            let counts = workload.counts;
            let (stores, loads, pages) = (counts.stores, counts.loads, workload.pages_dirtied);
            let last = if workload.in_flight_at_stop { ", the last one as it stopped" } else { "" };
            writeln!(f, "  workload      {stores} stores to {pages} pages, {loads} loads{last}")?;
        }
        if let Some(downtime) = downtime {
            writeln!(f, "  downtime      {downtime}")?;
        }
        writeln!(f, "  total         {}", Milliseconds(*total_ns))?;
        let checks = &self.verification;
        for (name, check) in
            [("memory", checks.memory), ("registers", checks.registers), ("buffer", checks.buffer)]
        {
            if let Some(same) = check {
                writeln!(f, "  {name:<13} {}", if same { "verified" } else { "WRONG" })?;
            }
        }
        if checks.reports_checked {
            let missed = checks.missed.len() + checks.written_but_not_reported.len();
            let unchanged = checks.unchanged_but_reported;
            writeln!(f, "  dirty reports {missed} missed, {unchanged} reported and unchanged")?;
        }
        Ok(())
    }
}

impl Display for Downtime {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { stop_ns, final_data_ns, final_dirty_ns, transfer_ns, load_ns, start_ns, .. } =
            self;
        write!(f, "{} = stop {}", Milliseconds(self.total_ns), Milliseconds(*stop_ns))?;
        write!(f, " + data {}", Milliseconds(*final_data_ns))?;
        write!(f, " + dirty {}", Milliseconds(*final_dirty_ns))?;
        match transfer_ns {
            Some(transfer_ns) => write!(f, " + transfer {}", Milliseconds(*transfer_ns))?,
            None => write!(f, " + transfer unknown")?,
        }
        write!(f, " + load {} + start {}", Milliseconds(*load_ns), Milliseconds(*start_ns))
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.source, self.destination)?;
        writeln!(f, "{}", if self.verified { "verified" } else { "NOT VERIFIED" })
    }
}

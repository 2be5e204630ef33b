// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long a scrape takes for each series that it gives, and how long it is; beside node_exporter, which is asked in turn.

use anyhow::Result;

use super::exporter::{Encoding, Exporter};
use super::fleet;
use crate::result::{Report, Runs, Unit};

/// Scrapes of each in a run.
const SCRAPES: u32 = 5;

/// What is measured of one exporter.
#[derive(Default)]
struct Of {
    time: Runs,
    bytes: Runs,
}

impl Of {
    fn scrape(&mut self, exporter: &Exporter, encoding: Encoding, series: u32) -> Result<()> {
        let scrape = exporter.scrape(encoding)?;
        self.time.add_times(series, scrape.took);
        self.bytes.add_each(u64::try_from(scrape.body.len())?, u64::from(series));
        Ok(())
    }
}

pub(super) fn run(
    (agent, node): (&Exporter, &Exporter),
    devices: usize,
    runs: u32,
    report: &mut Report,
) -> Result<()> {
    for encoding in [Encoding::Plain, Encoding::Gzip] {
        let (mut ours, mut theirs) = (Of::default(), Of::default());
        for _ in 0..runs * SCRAPES {
            // What is there changes little in between, so a plain one tells of both.
            let plain = agent.scrape(Encoding::Plain)?;
            fleet::check(str::from_utf8(&plain.body)?)?;
            ours.scrape(agent, encoding, plain.series()?)?;
            let plain = node.scrape(Encoding::Plain)?;
            theirs.scrape(node, encoding, plain.series()?)?;
        }
        let suffix = match encoding {
            Encoding::Plain => "",
            Encoding::Gzip => "_gzip",
        };
        let name = format!("scrape_series_{devices}_devices{suffix}");
        report.add(&name, Unit::Nanoseconds, &ours.time, Some(("node_exporter", &theirs.time)));
        let name = format!("series_bytes_{devices}_devices{suffix}");
        report.add(&name, Unit::Bytes, &ours.bytes, Some(("node_exporter", &theirs.bytes)));
    }
    let series = |exporter: &Exporter| -> Result<Runs> {
        let mut runs = Runs::default();
        runs.add_each(u64::from(exporter.scrape(Encoding::Plain)?.series()?), 1);
        Ok(runs)
    };
    let (ours, theirs) = (series(agent)?, series(node)?);
    let name = format!("series_{devices}_devices");
    report.add(&name, Unit::Series, &ours, Some(("node_exporter", &theirs)));
    Ok(())
}

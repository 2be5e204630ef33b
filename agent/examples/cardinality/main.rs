// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many series agents have, and how many come and go with migrations: `cargo xtask bench cardinality`.
//!
//! ```text
//!   fleet: who migrates when and where to ──▶ host: what probes would tell ──▶ Observer ──▶ Metrics ──▶ exposition ──▶ count
//! ```
//!
//! Nothing is guessed from names of families: each number is a count of lines of an exposition, as a Prometheus would scrape it, that the
//! agent's own code made of the records and readings of migrations.

mod fleet;
mod host;

use clap::Parser;
use fleet::{Fleet, Shape};
use host::{Host, Protocol};
use serde::Serialize;
use std::{fmt::Write as _, process::ExitCode};

/// Of the migrations of one host, whose length changes no number.
const MIGRATION_SECONDS: u64 = 60;

/// How many series agents have, and how many come and go with migrations
#[derive(Parser)]
struct Arguments {
    /// Hosts to simulate for the fleet; what is told of it is scaled to 1,000
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(2..=1000))]
    hosts: u32,
    /// Devices that machines have open on each host
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    devices: u32,
    /// Migrations a day, of 1,000 hosts
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    migrations: u32,
    /// How long a migration takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..))]
    migration_seconds: u32,
    /// Time between scrapes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    scrape_seconds: u32,
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    results: Vec<Measured>,
}

/// In the form of the other benchmarks. It is a count, so it is the same each time.
#[derive(Serialize)]
struct Measured {
    name: String,
    value: f64,
    unit: &'static str,
    min: f64,
    max: f64,
    runs: usize,
    vs: Option<()>,
}

impl Report {
    fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        self.results.push(Measured {
            name,
            value,
            unit,
            min: value,
            max: value,
            runs: 1,
            vs: None,
        });
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for Measured { name, value, unit, .. } in &self.results {
            let value = if *value < 10.0 && value.fract() != 0.0 {
                format!("{value:.1}")
            } else {
                grouped(*value)
            };
            let _infallible = writeln!(text, "{name:66} {value:>9} {unit}");
        }
        text
    }
}

/// `1234567` as `1,234,567`.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report { results: Vec::new() };
    one_host(&mut report);
    whole_fleet(&arguments, &mut report);
    if arguments.json {
        match serde_json::to_string(&report) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        print!("{}", report.table());
    }
    ExitCode::SUCCESS
}

/// What one agent exposes, step by step. The first migration brings what is not of one device: histograms, and counts of sessions.
fn one_host(report: &mut Report) {
    let count = |host: &Host| host.series().len() as f64;
    for protocol in [Protocol::V2, Protocol::Region] {
        let mut add = |what: &str, value: f64| {
            report.add(format!("one host, {}: {what}", protocol.name()), value, "series");
        };
        let mut host = Host::new(protocol);
        let idle = count(&host);
        add("no device is open", idle);
        host.open(9, 9);
        host.sample();
        let one = count(&host);
        add("the first device that is open adds", one - idle);
        host.open(0, 1);
        host.sample();
        let open = count(&host);
        add("each further device that is open adds", open - one);
        let mut steps = host.source(0, 1, MIGRATION_SECONDS);
        host.play_until(&mut steps, MIGRATION_SECONDS / 2);
        add("the first source, in pre-copy, adds", count(&host) - open);
        host.play_to_end(&mut steps);
        add("the first source, closed, has added", count(&host) - open);
        host.age_out();
        add("of these stay once it has aged out", count(&host) - one);

        let mut base = count(&host);
        for which in ["the first", "each later"] {
            let mut steps = host.destination(1, 2, MIGRATION_SECONDS);
            host.play_until(&mut steps, MIGRATION_SECONDS / 2);
            add(&format!("{which} destination, in resuming, adds"), count(&host) - base);
            host.play_to_end(&mut steps);
            add(&format!("{which} destination, running, has added"), count(&host) - base);
            host.close(1, 2);
            host.age_out();
            base = count(&host);
        }
        host.open(2, 3);
        host.sample();
        let mut steps = host.source(2, 3, MIGRATION_SECONDS);
        host.play_until(&mut steps, MIGRATION_SECONDS / 2);
        add("each later source, in pre-copy, with its device", count(&host) - base);
        host.play_to_end(&mut steps);
        add("each later source, closed, until it ages out", count(&host) - base);
    }
}

/// What 1,000 of them make a Prometheus keep.
fn whole_fleet(arguments: &Arguments, report: &mut Report) {
    let Arguments { hosts, devices, migrations, migration_seconds, scrape_seconds, json: _ } =
        *arguments;
    let mut host = Host::new(Protocol::V2);
    for slot in 0..devices {
        host.open(u8::try_from(slot).unwrap_or(u8::MAX), slot + 1);
    }
    host.sample();
    let count = |host: &Host| host.series().len() as f64 * 1000.0;
    report.add("1,000 hosts: active before the first migration", count(&host), "series");
    host.warm_up(0, 1);
    report.add("1,000 hosts: active once each has had one each way", count(&host), "series");
    for keep_seconds in [600, 3600] {
        let shape = Shape {
            hosts,
            devices,
            migrations_a_day: migrations * hosts / 1000,
            migration_seconds,
            scrape_seconds,
            keep_seconds,
        };
        let scale = 1000.0 / f64::from(hosts);
        let Fleet { mean, most, created, samples, moved } = Fleet::a_day(&shape);
        let of = |what: &str| format!("1,000 hosts, series.keep {} min: {what}", keep_seconds / 60);
        report.add(of("active, mean of a later day"), mean * scale, "series");
        report.add(of("active, most at a time in it"), most * scale, "series");
        report.add(of("samples"), samples * scale / 86_400.0, "samples/s");
        report.add(of("created in the day, by migrations"), created * scale, "series");
        report.add(of("created, for each migration"), created / f64::from(moved), "series");
    }
}

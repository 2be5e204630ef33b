// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prints METRICS.md from the registry: `cargo xtask metrics-doc` writes it, `cargo xtask lint` compares it.

use migscope::metrics::{DEVICES, Description, Kind, LABEL_BYTES, Label, Values, describe};
use prometheus::{core::Collector as _, process_collector::ProcessCollector};
use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write as _},
};

const INTRODUCTION: &str = "\
<!-- SPDX-License-Identifier: Apache-2.0 OR MIT -->
<!-- Written by `cargo xtask metrics-doc` from the families in agent/src/metrics; change those. -->
# Metrics

`migscope agent` serves these on `/metrics`: in the text format 0.0.4, or as OpenMetrics 1.0.0 when `Accept` asks for it, compressed with
gzip when `Accept-Encoding` does.

Names and labels are a contract. Units are seconds and bytes. What is not known has no sample: each table says when. Nothing is
asked of a device or a map during a scrape, and nothing waits for one.";

fn main() -> Result<(), fmt::Error> {
    print!("{}", document(&describe())?);
    Ok(())
}

fn document(families: &[Description]) -> Result<String, fmt::Error> {
    let mut text = format!("{INTRODUCTION}\n\n{}\n", bounds_of_series());
    let mut areas: Vec<&str> = families.iter().map(|family| family.area).collect();
    // What the agent tells of itself comes last, wherever it is registered first.
    areas.sort_by_key(|area| *area == "The agent itself");
    areas.dedup();
    for area in areas {
        let families: Vec<_> = families.iter().filter(|family| family.area == area).collect();
        write_area(&mut text, area, &families)?;
    }
    write_process(&mut text)?;
    write_exemplars(&mut text)?;
    Ok(text)
}

fn bounds_of_series() -> String {
    format!(
        "Series are bounded. A label `device` has {DEVICES} values at most, a label with a closed set those that are listed here, and \
         any other follows\nfrom the rest of the labels; values are cut at {LABEL_BYTES} bytes. A series past the bound is refused and \
         counted\n(`migscope_series_refused_total`). The series of a device end when it was closed for `--series.keep`."
    )
}

fn write_area(text: &mut String, area: &str, families: &[&Description]) -> fmt::Result {
    write!(text, "\n## {area}\n\n")?;
    writeln!(text, "| Metric | Type | Unit | What it tells | Absent | Series |")?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- |")?;
    for family in families {
        let Description { name, help, absent, .. } = family;
        let names: Vec<_> = family.labels.iter().map(|label| label.name).collect();
        let labels =
            if names.is_empty() { String::new() } else { format!("{{{}}}", names.join(",")) };
        let kind = match family.kind {
            Kind::Info => "gauge; OpenMetrics: info",
            other => other.name(),
        };
        let unit = family.unit().map_or("", |unit| unit_name(unit));
        let most = family.most_series();
        let (help, absent) = (Cell(help), Cell(absent));
        writeln!(text, "| `{name}{labels}` | {kind} | {unit} | {help} | {absent} | {most} |")?;
    }
    write_values(text, families)?;
    write_buckets(text, families)
}

/// The values of a closed set.
type Set<'a> = &'a [&'static str];
/// The names of families that have something in common.
type Families<'a> = Vec<&'a str>;

/// The closed sets of the labels. A label that has several in one area is named with its families.
fn write_values(text: &mut String, families: &[&Description]) -> fmt::Result {
    let mut sets: BTreeMap<&str, Vec<(Set<'_>, Families<'_>)>> = BTreeMap::new();
    for family in families {
        for Label { name, values } in &family.labels {
            let Values::OneOf(values) = values else { continue };
            let of_label = sets.entry(name).or_default();
            match of_label.iter_mut().find(|(known, _)| known == values) {
                Some((_, families)) => families.push(family.name),
                None => of_label.push((values, vec![family.name])),
            }
        }
    }
    if !sets.is_empty() {
        text.push('\n');
    }
    for (label, of_label) in sets {
        let several = of_label.len() > 1;
        for (values, families) in of_label {
            let of = if several { format!(" of {}", code(&families)) } else { String::new() };
            writeln!(text, "- `{label}`{of}: {}", code(values))?;
        }
    }
    Ok(())
}

fn write_buckets(text: &mut String, families: &[&Description]) -> fmt::Result {
    let mut buckets: Vec<(Vec<u64>, Vec<&str>)> = Vec::new();
    for family in families {
        let Kind::Histogram(bounds) = family.kind else { continue };
        let bounds: Vec<_> = bounds.ns().collect();
        match buckets.iter_mut().find(|(known, _)| *known == bounds) {
            Some((_, families)) => families.push(family.name),
            None => buckets.push((bounds, vec![family.name])),
        }
    }
    for (bounds, families) in buckets {
        let seconds = |ns: &u64| (*ns as f64 / 1e9).to_string();
        let bounds: Vec<_> = bounds.iter().map(seconds).collect();
        write!(text, "\nBuckets of {}, in seconds: {}.\n", code(&families), bounds.join(", "))?;
    }
    Ok(())
}

fn write_process(text: &mut String) -> fmt::Result {
    write!(text, "\n## The process\n\nOf the agent, as the kernel tells in `/proc/self`.\n\n")?;
    write!(text, "| Metric | Type | What it tells |\n| --- | --- | --- |\n")?;
    let process = ProcessCollector::for_self();
    let mut families = process.desc();
    families.sort_by(|a, b| a.fq_name.cmp(&b.fq_name));
    for family in families {
        let kind = if family.fq_name.ends_with("_total") { "counter" } else { "gauge" };
        writeln!(text, "| `{}` | {kind} | {} |", family.fq_name, Cell(&family.help))?;
    }
    Ok(())
}

fn write_exemplars(text: &mut String) -> fmt::Result {
    text.push_str(
        "\n## In OpenMetrics only\n\n\
         - `# UNIT` where a name ends in its unit, and `# EOF`.\n\
         - Exemplars `{session=\"N\"}` in the buckets of `vfio_migration_session_duration_seconds` and `vfio_migration_downtime_seconds`: the\n  \
           last session that fell into the bucket, by its number in `/api/v1/sessions`.\n",
    );
    Ok(())
}

fn unit_name(unit: &str) -> &str {
    if unit == "bytes_per_second" { "bytes per second" } else { unit }
}

fn code(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Text in a table.
struct Cell<'a>(&'a str);

impl Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace('|', "\\|").replace('\n', " "))
    }
}

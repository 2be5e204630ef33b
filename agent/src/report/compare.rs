// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two migrations, figure by figure.
//!
//! What differs by less than [`TOLERANCE`], or for latencies by less than both errors together, is the same: two migrations of one
//! machine are never equal to the nanosecond, and what is marked should be worth a look. A figure that one side does not know is
//! not judged.

use super::{
    model::{Detail, Document, Move, Tone, Verdict},
    units::{self, UNKNOWN},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Share by which a figure may differ and still be the same.
const TOLERANCE: f64 = 0.05;
/// Rows that the verdict names.
const NAMED: usize = 4;

/// Two migrations side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What got worse and better, in a sentence.
    pub verdict: Verdict,
    /// The first.
    pub a: Side,
    /// The second.
    pub b: Side,
    /// The figures.
    pub groups: Vec<Group>,
    /// When a figure counts as worse.
    pub rule: String,
}

/// One of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// The recording's file name.
    pub file: String,
    /// Session of the source.
    pub source: Option<u64>,
    /// Session of the destination.
    pub destination: Option<u64>,
    /// What came of it.
    pub headline: String,
    /// Whether every record of it was seen.
    pub exact: bool,
}

/// Figures that belong together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What they are about.
    pub name: &'static str,
    /// The figures.
    pub rows: Vec<Row>,
}

/// One figure of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// What it is counted in.
    pub unit: Unit,
    /// The first's.
    pub a: Option<u64>,
    /// The second's.
    pub b: Option<u64>,
    /// Second minus first.
    pub difference: Option<i128>,
    /// Second over first; `null` where the first is 0.
    pub ratio: Option<f64>,
    /// What that means.
    pub judgement: Judgement,
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Pieces.
    Count,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The second is worse.
    Worse,
    /// The second is better.
    Better,
    /// They are as good as equal.
    Same,
    /// It is neither good nor bad to be larger.
    Neutral,
    /// One side does not know it.
    Unknown,
}

/// Which way is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worse {
    More,
    Less,
    Neither,
}

/// Why two recordings cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} has no migration in it that could be compared")]
pub struct NothingToCompare {
    /// The recording without one.
    pub file: String,
}

/// Compares the first migration of `a` with the first of `b`.
///
/// # Errors
///
/// [`NothingToCompare`] names the recording that has none.
pub fn compare(a: &Document, b: &Document) -> Result<Comparison, NothingToCompare> {
    let (a, b) = (Ends::first(a)?, Ends::first(b)?);
    let groups = vec![whole(&a, &b), downtime(&a, &b), data(&a, &b), latencies(&a, &b)];
    let percent = TOLERANCE * 100.0;
    Ok(Comparison {
        verdict: verdict(&groups),
        a: a.side(),
        b: b.side(),
        groups,
        rule: format!(
            "worse or better: differs by more than {percent:.0} %, and for latencies by more than the errors of both quantiles"
        ),
    })
}

impl Unit {
    /// The figure for people.
    pub fn show(self, value: Option<u64>) -> String {
        let Some(value) = value else { return UNKNOWN.to_owned() };
        match self {
            Self::Ns => units::time(value),
            Self::Bytes => units::bytes(value),
            Self::BytesPerSecond => units::rate(value),
            Self::Count => units::count(value),
        }
    }
}

impl Row {
    /// The difference for people, with its sign.
    pub fn shown_difference(&self) -> String {
        let Some(difference) = self.difference else { return "-".to_owned() };
        let size = u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX);
        let sign = match difference {
            0 => "",
            1.. => "+",
            _ => "-",
        };
        format!("{sign}{}", self.unit.show(Some(size)))
    }

    /// The ratio for people.
    pub fn shown_ratio(&self) -> String {
        self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
    }

    fn new(name: impl Into<String>, unit: Unit, worse: Worse, pair: [Option<u64>; 2]) -> Self {
        Self::within(TOLERANCE, name.into(), unit, worse, pair)
    }

    fn within(
        tolerance: f64,
        name: String,
        unit: Unit,
        worse: Worse,
        [a, b]: [Option<u64>; 2],
    ) -> Self {
        let both = a.zip(b);
        let differs = |(a, b): (u64, u64)| a.abs_diff(b) as f64 > tolerance * a.min(b) as f64;
        let judgement = match (both, worse) {
            (None, _) => Judgement::Unknown,
            (_, Worse::Neither) => Judgement::Neutral,
            (Some(pair), _) if !differs(pair) => Judgement::Same,
            (Some((a, b)), _) if (b > a) == (worse == Worse::More) => Judgement::Worse,
            (Some(_), _) => Judgement::Better,
        };
        Self {
            name,
            unit,
            a,
            b,
            difference: both.map(|(a, b)| i128::from(b) - i128::from(a)),
            ratio: both.filter(|(a, _)| *a > 0).map(|(a, b)| b as f64 / a as f64),
            judgement,
        }
    }
}

/// A move and its sessions.
struct Ends<'a> {
    file: &'a str,
    this: &'a Move,
    source: Option<&'a Detail>,
    destination: Option<&'a Detail>,
}

impl<'a> Ends<'a> {
    fn first(document: &'a Document) -> Result<Self, NothingToCompare> {
        let file = document.recording.file.as_str();
        let this =
            document.moves.first().ok_or_else(|| NothingToCompare { file: file.to_owned() })?;
        let find = |id: Option<u64>| id.and_then(|id| document.session(id));
        Ok(Self { file, this, source: find(this.source), destination: find(this.destination) })
    }

    /// The end that tells most.
    fn end(&self) -> Option<&'a Detail> {
        self.source.or(self.destination)
    }

    fn side(&self) -> Side {
        let mut ends = [self.source, self.destination].into_iter().flatten();
        Side {
            file: self.file.to_owned(),
            source: self.this.source,
            destination: self.this.destination,
            headline: self.this.verdict.headline.clone(),
            exact: ends.all(|end| end.report.exact),
        }
    }

    fn in_state(&self, state: &str) -> Option<u64> {
        self.end()?.report.states_ns.get(state).copied()
    }
}

/// A figure: its name, its unit, which way is worse, and how a side tells it.
type Figure<'a> = (&'a str, Unit, Worse, &'a dyn Fn(&Ends) -> Option<u64>);

/// Rows of figures that both sides make in the same way.
fn rows<const N: usize>(pair: [&Ends; 2], figures: [Figure; N]) -> Vec<Row> {
    let row = |(name, unit, worse, of): Figure| Row::new(name, unit, worse, pair.map(of));
    // What neither side knows is no figure.
    figures.into_iter().map(row).filter(|row| row.a.is_some() || row.b.is_some()).collect()
}

fn whole(a: &Ends, b: &Ends) -> Group {
    use {Unit::Ns, Worse::More};
    let rows = rows(
        [a, b],
        [
            ("whole migration", Ns, More, &|ends| ends.this.duration_ns),
            ("in pre_copy", Ns, More, &|ends| ends.in_state("pre_copy")),
            ("in stop_and_copy", Ns, More, &|ends| ends.in_state("stop_and_copy")),
            ("in resuming", Ns, More, &|ends| {
                ends.destination?.report.states_ns.get("resuming").copied()
            }),
            ("protocol violations", Unit::Count, More, &|ends| ends.end()?.report.broken_rules()),
        ],
    );
    Group { name: "Time", rows }
}

fn downtime(a: &Ends, b: &Ends) -> Group {
    use {Unit::Ns, Worse::More};
    let rows = rows(
        [a, b],
        [
            ("total", Ns, More, &|ends| ends.this.downtime.total_ns),
            ("stop", Ns, More, &|ends| ends.this.downtime.stop_ns),
            ("final dirty pages", Ns, More, &|ends| ends.this.downtime.final_dirty_ns),
            ("final data", Ns, More, &|ends| ends.this.downtime.final_data_ns),
            ("source, all of it", Ns, More, &|ends| ends.this.downtime.source_ns),
            ("transfer gap", Ns, More, &|ends| ends.this.downtime.transfer_gap_ns),
            ("load", Ns, More, &|ends| ends.this.downtime.load_ns),
            ("start", Ns, More, &|ends| ends.this.downtime.start_ns),
            ("none of these", Ns, More, &|ends| ends.this.waterfall.as_ref()?.other_ns),
        ],
    );
    Group { name: "Downtime", rows }
}

fn data(a: &Ends, b: &Ends) -> Group {
    use {
        Unit::{Bytes, BytesPerSecond, Count},
        Worse::{Less, More, Neither},
    };
    let rows = rows(
        [a, b],
        [
            ("device data", Bytes, Neither, &|ends| ends.end()?.report.figures.data_bytes),
            ("buffers", Count, Neither, &|ends| ends.end()?.report.figures.iterations),
            ("throughput, mean", BytesPerSecond, Less, &|ends| {
                let report = &ends.end()?.report;
                units::per_second(report.figures.data_bytes?, report.duration_ns)
            }),
            ("dirty bytes", Bytes, More, &|ends| Some(ends.end()?.report.figures.dirty?.bytes)),
            ("dirty rate, highest", BytesPerSecond, More, &|ends| {
                let windows = &ends.end()?.rates.windows;
                windows.iter().filter_map(|window| window.dirty_bytes_per_second).max()
            }),
            ("queries answered \"all\"", Count, More, &|ends| {
                Some(ends.end()?.report.figures.dirty?.queries.all)
            }),
            ("queries that failed", Count, More, &|ends| {
                Some(ends.end()?.report.figures.dirty?.queries.error)
            }),
        ],
    );
    Group { name: "Data", rows }
}

fn latencies(a: &Ends, b: &Ends) -> Group {
    let mut pairs: BTreeMap<&str, [Option<&super::model::Latency>; 2]> = BTreeMap::new();
    for (place, ends) in [a, b].into_iter().enumerate() {
        for series in ends.end().into_iter().flat_map(|detail| &detail.latencies.series) {
            if let Some(slot) = pairs.entry(&series.what).or_default().get_mut(place) {
                *slot = Some(series);
            }
        }
    }
    let mut rows = Vec::new();
    for (what, pair) in pairs {
        let error: f64 = pair.iter().flatten().map(|series| series.relative_error).sum();
        for (quantile, of) in [
            ("p50", (|of| Some(of.p50_ns)) as fn(&super::model::Quantiles) -> Option<u64>),
            ("p99", |of| of.p99_ns),
            ("max", |of| Some(of.max_ns)),
        ] {
            let values = pair.map(|series| of(&series?.quantiles));
            if values == [None, None] {
                continue; // too few on both sides
            }
            rows.push(Row::within(
                TOLERANCE + error,
                format!("{what}, {quantile}"),
                Unit::Ns,
                Worse::More,
                values,
            ));
        }
    }
    Group { name: "Latencies", rows }
}

/// The rows that moved most are named.
fn verdict(groups: &[Group]) -> Verdict {
    let all = || groups.iter().flat_map(|group| group.rows.iter().map(move |row| (group, row)));
    let told = |judgement: Judgement| {
        let mut rows: Vec<_> = all().filter(|(_, row)| row.judgement == judgement).collect();
        // By how many times one side is the other, whichever way.
        let times = |row: &Row| row.ratio.map_or(f64::INFINITY, |ratio| ratio.ln().abs());
        rows.sort_by(|(_, a), (_, b)| times(b).total_cmp(&times(a)));
        let names: Vec<_> = rows
            .iter()
            .take(NAMED)
            .map(|(group, row)| {
                let area = group.name.to_lowercase();
                format!("{area}: {} {}", row.name, row.shown_difference())
            })
            .collect();
        (rows.len(), names.join("; "))
    };
    let ((worse, worst), (better, best)) = (told(Judgement::Worse), told(Judgement::Better));
    let mut why = Vec::new();
    for (what, names) in [("worse", worst), ("better", best)] {
        if !names.is_empty() {
            why.push(format!("{what} in B: {names}"));
        }
    }
    let headline = match (worse, better) {
        (0, 0) => "the two migrations are as good as equal".to_owned(),
        _ => format!(
            "against A, B is worse in {} and better in {better}",
            units::counted(u64::try_from(worse).unwrap_or(u64::MAX), "figure", "figures")
        ),
    };
    let tone = match (worse, better) {
        (0, _) => Tone::Good,
        (_, 0) => Tone::Bad,
        _ => Tone::Open,
    };
    Verdict { tone, headline, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(worse: Worse, a: Option<u64>, b: Option<u64>) -> Judgement {
        Row::new("x", Unit::Ns, worse, [a, b]).judgement
    }

    #[test]
    fn what_is_worse_depends_on_the_figure() {
        assert_eq!(judged(Worse::More, Some(100), Some(106)), Judgement::Worse);
        assert_eq!(judged(Worse::Less, Some(100), Some(106)), Judgement::Better);
        assert_eq!(judged(Worse::More, Some(106), Some(100)), Judgement::Better);
        assert_eq!(judged(Worse::Less, Some(106), Some(100)), Judgement::Worse);
        assert_eq!(judged(Worse::Neither, Some(1), Some(100)), Judgement::Neutral);
        assert_eq!(judged(Worse::More, Some(100), Some(105)), Judgement::Same);
        assert_eq!(judged(Worse::More, Some(0), Some(1)), Judgement::Worse);
        assert_eq!(judged(Worse::More, None, Some(1)), Judgement::Unknown);
    }

    #[test]
    fn differences_and_ratios_are_those_of_b_to_a() {
        let row = Row::new("x", Unit::Ns, Worse::More, [Some(4_000_000), Some(1_000_000)]);
        assert_eq!((row.difference, row.ratio), (Some(-3_000_000), Some(0.25)));
        assert_eq!((row.shown_difference(), row.shown_ratio()), ("-3.00 ms".into(), "0.25".into()));
        let row = Row::new("x", Unit::Bytes, Worse::More, [Some(0), Some(u64::MAX)]);
        assert_eq!((row.shown_difference(), row.shown_ratio()), ("+16.0 EiB".into(), "-".into()));
    }
}

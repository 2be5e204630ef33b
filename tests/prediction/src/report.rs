// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The scores, as a table for people and as JSON.

use crate::replay::{MOMENTS, Predictor};
use crate::score::{Numbers, Score};
use crate::simulate::Knows;
use serde::Serialize;
use std::fmt::Write as _;

/// All results of a run, in the form of all benchmarks.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    results: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    value: f64,
    unit: &'static str,
    min: f64,
    max: f64,
    /// How many numbers `value` is the mean of.
    runs: usize,
    vs: Option<Versus>,
}

/// The best of the others.
#[derive(Debug, Serialize)]
struct Versus {
    name: String,
    value: f64,
    /// How many times as good: above 1, migscope's error is the smaller one.
    ratio: f64,
}

impl Results {
    pub(crate) fn of(scores: &[Score]) -> Self {
        let mut results = Self::default();
        for score in scores {
            for (at, share) in MOMENTS.into_iter().enumerate() {
                let name = format!("total_time_at_{:.0}_percent", share * 100.0);
                results.compare(&score.name, &name, |who| score.total(at, who));
                let name = format!("remaining_time_at_{:.0}_percent", share * 100.0);
                results.compare(&score.name, &name, |who| score.remaining(at, who));
            }
            for (who, oracle) in Knows::ALL.into_iter().enumerate() {
                let name = format!("total_time_at_50_percent/{}", oracle.label());
                results.add(&score.name, &name, "%", 100.0, &score.oracle(who), None);
            }
            results.compare(&score.name, "downtime", |who| score.downtime(who));
            results.add(&score.name, "band_coverage", "%", 100.0, &score.coverage_of_all(), None);
            let coverage = score.downtime_coverage();
            results.add(&score.name, "downtime_band_coverage", "%", 100.0, &coverage, None);
            for (name, number) in
                [("false_alarms", score.false_alarms()), ("missed", score.missed())]
            {
                let number = f64::from(u32::try_from(number).unwrap_or(u32::MAX));
                let one = Numbers::of(std::iter::once(Some(number)));
                results.add(&score.name, name, "migrations", 1.0, &one, None);
            }
            results.add(&score.name, "time_to_not_converging", "s", 1.0, &score.gave_up(), None);
        }
        if let Some(score) = scores.last() {
            let [observe, whole] = score.speed();
            results.add("speed", "observe", "ns", 1.0, &observe, None);
            results.add("speed", "observe_and_assess", "ns", 1.0, &whole, None);
        }
        results
    }

    /// Errors of all predictors; migscope's beside the best of the others.
    fn compare(&mut self, family: &str, what: &str, errors: impl Fn(usize) -> Numbers) {
        let all: Vec<_> = (0..Predictor::ALL.len()).map(errors).collect();
        let others = Predictor::ALL.into_iter().zip(&all).skip(1);
        let best = others
            .filter_map(|(predictor, numbers)| Some((predictor, numbers.mean()?)))
            .min_by(|(_, one), (_, other)| one.total_cmp(other));
        for (predictor, numbers) in Predictor::ALL.into_iter().zip(&all) {
            let name = format!("{what}/{}", predictor.name());
            let best = best.filter(|_| predictor == Predictor::Migscope);
            self.add(family, &name, "%", 100.0, numbers, best);
        }
    }

    fn add(
        &mut self,
        family: &str,
        name: &str,
        unit: &'static str,
        factor: f64,
        numbers: &Numbers,
        best: Option<(Predictor, f64)>,
    ) {
        let (Some(mean), Some(min), Some(max)) = (numbers.mean(), numbers.least(), numbers.most())
        else {
            return;
        };
        self.results.push(Measured {
            name: format!("{family}/{name}"),
            value: mean * factor,
            unit,
            min: min * factor,
            max: max * factor,
            runs: numbers.count(),
            vs: best.map(|(predictor, value)| Versus {
                name: predictor.name().to_owned(),
                value: value * factor,
                ratio: value / mean,
            }),
        });
    }
}

/// A cell: a percentage, and in brackets the share that was answered, if that is not all.
fn cell(numbers: &Numbers, factor: f64) -> String {
    let Some(mean) = numbers.mean() else { return "-".to_owned() };
    let mean = format!("{:.1}", mean * factor);
    match numbers.answered() {
        Some(share) if share < 0.9995 => format!("{mean} ({:.0}%)", share * 100.0),
        _ => mean,
    }
}

/// The table.
pub(crate) fn table(scores: &[Score]) -> String {
    let mut text = String::new();
    let mut section = |title: &str, errors: &dyn Fn(&Score, usize) -> Numbers, factor: f64| {
        let _ = write!(text, "{title:46} {:>5}", "n");
        for predictor in Predictor::ALL {
            let _ = write!(text, " {:>14}", predictor.name());
        }
        text.push('\n');
        for score in scores.iter().filter(|score| errors(score, 0).count() > 0) {
            let _ = write!(text, "  {:44} {:>5}", score.name, errors(score, 0).count());
            for who in 0..Predictor::ALL.len() {
                let _ = write!(text, " {:>14}", cell(&errors(score, who), factor));
            }
            text.push('\n');
        }
        text.push('\n');
    };
    for (at, share) in MOMENTS.into_iter().enumerate() {
        let title = format!("total time at {:.0} %, mean error in %", share * 100.0);
        section(&title, &|score, who| score.total(at, who), 100.0);
    }
    section(
        "remaining time at 50 %, mean error in %",
        &|score, who| score.remaining(1, who),
        100.0,
    );
    section("downtime before the stop, mean error in %", &|score, who| score.downtime(who), 100.0);
    section(
        "downtime before the stop, mean error in ms",
        &|score, who| score.downtime_ms(who),
        1.0,
    );
    ratios(&mut text, scores);
    bounds(&mut text, scores);
    verdicts(&mut text, scores);
    text
}

/// How many times as wrong as migscope the others are about the downtime.
fn ratios(text: &mut String, scores: &[Score]) {
    let _ = write!(text, "{:52}", "downtime, error of others over migscope's");
    for predictor in Predictor::ALL.into_iter().skip(1) {
        let _ = write!(text, " {:>14}", predictor.name());
    }
    text.push('\n');
    let (mut lower, mut families) = (0, 0);
    for score in scores {
        let ratios: Vec<_> =
            (1..Predictor::ALL.len()).filter_map(|who| score.downtime_ratio(who)).collect();
        if ratios.is_empty() {
            continue;
        }
        families += 1;
        lower += u32::from(ratios.iter().all(|ratio| *ratio > 1.0));
        let _ = write!(text, "  {:50}", score.name);
        for ratio in ratios {
            let _ = write!(text, " {ratio:>14.2}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "  migscope's is below every other's in {lower} of {families} rows\n");
}

/// What those who know the simulation would be wrong by, and how much more migscope is.
fn bounds(text: &mut String, scores: &[Score]) {
    if scores.iter().all(|score| score.oracle(0).count() == 0) {
        return;
    }
    let _ = write!(text, "{:46} {:>5}", "total time at 50 %, what can be known", "n");
    for title in Knows::ALL.map(Knows::name).into_iter().chain(["migscope", "above told"]) {
        let _ = write!(text, " {title:>14}");
    }
    text.push('\n');
    for score in scores.iter().filter(|score| score.oracle(0).count() > 0) {
        let (told, ours) = (score.oracle(0), score.total(1, 0));
        let _ = write!(text, "  {:44} {:>5}", score.name, told.count());
        let above = ours.mean().zip(told.mean()).map(|(ours, told)| (ours - told) * 100.0);
        let above = above.map_or_else(|| "-".to_owned(), |above| format!("{above:.1}"));
        for cell in [cell(&told, 100.0), cell(&score.oracle(1), 100.0), cell(&ours, 100.0), above] {
            let _ = write!(text, " {cell:>14}");
        }
        text.push('\n');
    }
    text.push('\n');
}

fn verdicts(text: &mut String, scores: &[Score]) {
    let _ = writeln!(
        text,
        "{:40} {:>5} {:>6} {:>6} {:>8} {:>8} {:>17} {:>9}",
        "verdicts, and truth in the band",
        "n",
        "false",
        "missed",
        "after s",
        "at most",
        "band 25/50/75 %",
        "downtime"
    );
    for score in scores {
        let gave_up = score.gave_up();
        let percent = |numbers: &Numbers| {
            numbers.mean().map_or_else(|| "-".to_owned(), |mean| format!("{:.0}", mean * 100.0))
        };
        let seconds = |number: Option<f64>| {
            number.map_or_else(|| "-".to_owned(), |number| format!("{number:.1}"))
        };
        let bands = [0, 1, 2].map(|at| percent(&score.coverage(at))).join("/");
        let _ = writeln!(
            text,
            "  {:38} {:>5} {:>6} {:>6} {:>8} {:>8} {bands:>17} {:>9}",
            score.name,
            score.count(),
            score.false_alarms(),
            score.missed(),
            seconds(gave_up.median()),
            seconds(gave_up.most()),
            percent(&score.downtime_coverage()),
        );
    }
    if let Some(score) = scores.last() {
        let [observe, whole] = score.speed().map(|numbers| numbers.median().unwrap_or(f64::NAN));
        let _ = writeln!(
            text,
            "\none reading: {observe:.0} ns to observe, {whole:.0} ns with an assessment (medians of migrations, a clock's \
             reading of each included)"
        );
    }
}

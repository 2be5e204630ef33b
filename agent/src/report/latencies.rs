// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long accesses and queries took while a session lasted.

use super::{
    model::{Latencies, Latency, Quantiles},
    play::{Beside, Durations},
};
use crate::{event::DirtyQuery, latency, sample::LatencySeries};
use migscope_abi::region::{Field, Op};

/// Steps of the curve: each halves what is left above. 2^20 accesses make twenty.
const STEPS: u32 = 24;

/// The distributions of accesses between the two readings, and of `queries`.
pub(super) fn latencies<'a>(
    beside: &Beside,
    queries: impl Iterator<Item = &'a DirtyQuery>,
) -> Latencies {
    let before = beside.before.as_ref();
    let mut told = Latencies {
        from_ns: before.map(|reading| reading.at_ns),
        to_ns: beside.after.as_ref().map(|reading| reading.at_ns),
        series: Vec::new(),
    };
    if let Some(after) = &beside.after {
        for (series, (buckets, sum_ns)) in after.durations.iter() {
            let earlier = before.and_then(|reading| Durations::get(&reading.durations, series));
            let new = match earlier {
                Some((earlier, earlier_ns)) => since(buckets, *sum_ns, earlier, *earlier_ns),
                None => Some((buckets.clone(), *sum_ns)),
            };
            // Counts that went back: the probes were loaded anew in between, and this difference means nothing.
            let Some((buckets, sum_ns)) = new else { continue };
            let mut distribution = latency::Latency::default();
            distribution.fold(&buckets, sum_ns);
            told.series.extend(tell(name(*series), &distribution));
        }
    }
    let mut distribution = latency::Latency::default();
    for query in queries {
        distribution.record(query.duration_ns);
    }
    told.series.extend(tell("dirty query".to_owned(), &distribution));
    told
}

fn since(
    buckets: &[u64],
    sum_ns: u64,
    earlier: &[u64],
    earlier_ns: u64,
) -> Option<(Vec<u64>, u64)> {
    let earlier = earlier.iter().chain(std::iter::repeat(&0));
    let new: Option<Vec<_>> =
        buckets.iter().zip(earlier).map(|(now, then)| now.checked_sub(*then)).collect();
    new.zip(sum_ns.checked_sub(earlier_ns))
}

/// `read pending_bytes`.
fn name((field, op): LatencySeries) -> String {
    let field = Field::try_from(field).map_or("field of another version", Field::name);
    let op = Op::try_from(op).map_or("access", Op::name);
    format!("{op} {field}")
}

fn tell(what: String, distribution: &latency::Latency) -> Option<Latency> {
    let at = |quantile| distribution.quantile_ns(quantile);
    let count = distribution.count();
    // Of four durations the 99th percentile is the longest, by another name: it would claim what nobody has measured.
    let among = |least: u64, quantile| at(quantile).filter(|_| count >= least);
    let quantiles = Quantiles {
        p50_ns: at(0.5)?,
        p90_ns: among(10, 0.9),
        p99_ns: among(100, 0.99),
        p999_ns: among(1000, 0.999),
        max_ns: at(1.0)?,
    };
    let mut curve = Vec::new();
    for step in 0..STEPS {
        let above = 0.5_f64.powi(i32::try_from(step).unwrap_or(i32::MAX));
        // Beyond one of all there is nothing between this quantile and the longest.
        if above * (count as f64) < 1.0 {
            break;
        }
        curve.extend(at(1.0 - above).map(|ns| (1.0 - above, ns)));
    }
    curve.push((1.0, quantiles.max_ns));
    Some(Latency { what, count, quantiles, relative_error: distribution.relative_error(), curve })
}

#[cfg(test)]
mod tests {
    use super::{super::play::Reading, *};
    use migscope_abi::latency::{BUCKETS, bucket};
    use std::sync::Arc;

    const READS: LatencySeries = (Field::PendingBytes as u32, Op::Read as u32);

    fn reading(at_ns: u64, durations: &[u64]) -> Reading {
        let mut buckets = vec![0; BUCKETS];
        for ns in durations {
            buckets[usize::try_from(bucket(*ns)).expect("small")] += 1;
        }
        let all = Durations::from([(READS, (buckets, durations.iter().sum()))]);
        Reading { at_ns, durations: Arc::new(all) }
    }

    fn told(before: Option<Reading>, after: Reading) -> Latencies {
        let beside = Beside { before, after: Some(after), ..Beside::default() };
        latencies(&beside, std::iter::empty())
    }

    #[test]
    fn only_what_came_between_the_readings_counts() {
        let told =
            told(Some(reading(5, &[900; 50])), reading(9, &[&[900; 50][..], &[7; 3]].concat()));
        let [series] = &told.series[..] else { panic!("one series: {told:?}") };
        assert_eq!((told.from_ns, told.to_ns), (Some(5), Some(9)));
        assert_eq!((&*series.what, series.count), ("read pending_bytes", 3));
        // Below 8 ns the probes' buckets are exact.
        assert_eq!(series.quantiles.max_ns, 7);
        assert!(series.relative_error > 0.0625 && series.relative_error < 0.08);
    }

    #[test]
    fn a_quantile_is_told_from_as_many_durations_on_as_tell_it_from_the_longest() {
        let of = |count| told(None, reading(9, &vec![7; count])).series[0].quantiles;
        let known = |count| {
            let Quantiles { p90_ns, p99_ns, p999_ns, .. } = of(count);
            [p90_ns, p99_ns, p999_ns].iter().flatten().count()
        };
        let counts = [1, 9, 10, 99, 100, 999, 1000];
        assert_eq!(counts.map(known), [0, 0, 1, 1, 2, 2, 3]);
        assert_eq!((of(1).p50_ns, of(1).max_ns), (7, 7));
    }

    #[test]
    fn probes_that_were_loaded_anew_leave_no_difference() {
        assert_eq!(told(Some(reading(5, &[900; 50])), reading(9, &[7; 3])).series, []);
    }

    #[test]
    fn the_curve_goes_as_far_as_there_are_durations() {
        let series = &told(None, reading(9, &[7; 1000])).series[0];
        let last_two = &series.curve[series.curve.len() - 2..];
        // 1 - 2^-9 is 998 of 1000; the next step would be less than one of them.
        assert_eq!(last_two, [(1.0 - 1.0 / 512.0, 7), (1.0, 7)]);
        assert!(series.curve.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn queries_are_told_by_themselves_and_exactly() {
        let query = |duration_ns| DirtyQuery {
            device: crate::device_key::DeviceKey(1),
            source: crate::dirty::Source::Region,
            at_ns: 1,
            start_bytes: 0,
            range_bytes: 4096,
            dirty_bytes: 0,
            outcome: migscope_abi::dirty::Outcome::None,
            duration_ns,
        };
        let queries = [query(100), query(120)];
        let told = latencies(&Beside::default(), queries.iter());
        assert_eq!(told.to_ns, None);
        assert_eq!(told.series[0].quantiles.p50_ns, 100);
        assert!(told.series[0].relative_error < 0.01);
    }
}

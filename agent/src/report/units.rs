// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers for people: three digits that count, and a unit. The one edge at which a report leaves nanoseconds and bytes.

use std::time::{Duration, UNIX_EPOCH};

/// What stands where a number is not known.
pub(crate) const UNKNOWN: &str = "unknown";

const NS_PER_S: u128 = 1_000_000_000;

/// A length of time.
pub(crate) fn time(ns: u64) -> String {
    const MINUTE_S: u64 = 60;
    const HOUR_S: u64 = 3600;
    let seconds = ns / 1_000_000_000;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", three_digits(ns, 1_000)),
        1_000_000..1_000_000_000 => format!("{} ms", three_digits(ns, 1_000_000)),
        _ if seconds < 2 * MINUTE_S => format!("{} s", three_digits(ns, 1_000_000_000)),
        _ if seconds < 2 * HOUR_S => format!("{} min {} s", seconds / MINUTE_S, seconds % MINUTE_S),
        _ => format!("{} h {} min", seconds / HOUR_S, seconds % HOUR_S / MINUTE_S),
    }
}

/// An amount of data.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 5] =
        [("EiB", 1 << 60), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{} {name}", three_digits(bytes, unit)),
        None => format!("{bytes} B"),
    }
}

/// Data over time.
pub(crate) fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

/// A count, with commas between thousands.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count with what is counted, in the singular where it is one.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// What part `part` is of `whole`, in percent.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    match tenths {
        0 if part > 0 => "< 0.1 %".to_owned(),
        0..100 => format!("{}.{} %", tenths / 10, tenths % 10),
        _ => format!("{} %", (tenths + 5) / 10),
    }
}

/// A moment, from nanoseconds since 1970.
pub(crate) fn moment(unix_ns: u64) -> String {
    // 2^64 ns end in the year 2554, well before humantime's last one.
    let rfc3339 = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_nanos(unix_ns));
    rfc3339.to_string().replace('T', " ").replace('Z', " UTC")
}

/// Bytes over a length of time, in bytes a second; `None` over none.
pub(crate) fn per_second(bytes: u64, ns: u64) -> Option<u64> {
    let rate = (u128::from(bytes) * NS_PER_S).checked_div(u128::from(ns))?;
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}

/// `value / unit`, with three digits that count, or all before the point.
fn three_digits(value: u64, unit: u64) -> String {
    let decimals = |places: u32| {
        let scale = 10_u128.pow(places);
        let (value, unit) = (u128::from(value), u128::from(unit));
        let rounded = (value * scale + unit / 2) / unit;
        (rounded, rounded / scale, rounded % scale)
    };
    for places in [2, 1] {
        let (rounded, whole, rest) = decimals(places);
        if rounded < 1000 {
            return format!("{whole}.{rest:0width$}", width = places as usize);
        }
    }
    decimals(0).1.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_digits_count() {
        for (ns, shown) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_345, "12.3 µs"),
            (34_407_000, "34.4 ms"),
            (256_614_000, "257 ms"),
            (999_999_999, "1000 ms"),
            (3_024_100_000, "3.02 s"),
            (119_000_000_000, "119 s"),
            (125_000_000_000, "2 min 5 s"),
            (7_260_000_000_000, "2 h 1 min"),
        ] {
            assert_eq!(time(ns), shown);
        }
        for (amount, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (4279, "4.18 KiB"),
            (94_208, "92.0 KiB"),
            (1 << 30, "1.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(amount), shown);
        }
    }

    #[test]
    fn counts_shares_and_moments() {
        assert_eq!([0, 12, 1234, 1_234_567].map(count), ["0", "12", "1,234", "1,234,567"]);
        assert_eq!(percent(1, 3), "33 %");
        assert_eq!(percent(1, 16), "6.2 %");
        assert_eq!(percent(1, 1_000_000), "< 0.1 %");
        assert_eq!(percent(0, 0), "0.0 %");
        assert_eq!(moment(1_500), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(counted(1, "buffer", "buffers"), "1 buffer");
        assert_eq!(counted(0, "buffer", "buffers"), "0 buffers");
    }

    #[test]
    fn a_rate_over_no_time_is_none() {
        assert_eq!(per_second(10, 0), None);
        assert_eq!(per_second(10, 500_000_000), Some(20));
        assert_eq!(per_second(u64::MAX, 1), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn no_number_is_too_much(any in any::<u64>(), other in any::<u64>()) {
            let _ = (time(any), bytes(any), rate(any), count(any), moment(any));
            let _ = (percent(any, other), per_second(any, other));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Amounts as a column shows them: bytes in at most five cells, durations in at most six. K is 1024 bytes.

/// Prefixes of bytes, each 1024 times the one before.
const PREFIXES: [&str; 6] = ["K", "M", "G", "T", "P", "E"];

/// `1023B`, `4.18K`, `41.8K`, `418K`, `1023K`: at most five cells.
pub fn bytes(amount: u64) -> String {
    match scaled(amount) {
        (amount, None) => format!("{amount}B"),
        (amount, Some(prefix)) => format!("{}{prefix}", three_digits(amount)),
    }
}

/// `1023 B`, `4.18 KiB`: for a sentence.
pub fn bytes_in_words(amount: u64) -> String {
    match scaled(amount) {
        (amount, None) => format!("{amount} B"),
        (amount, Some(prefix)) => format!("{} {prefix}iB", three_digits(amount)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn scaled(amount: u64) -> (f64, Option<&'static str>) {
    let mut scaled = amount as f64;
    let mut prefix = None;
    for next in PREFIXES {
        // What would be rounded up to 1024 has the next prefix.
        if scaled < 1023.5 {
            break;
        }
        scaled /= 1024.0;
        prefix = Some(next);
    }
    (scaled, prefix)
}

/// A number below 1024 in at most four cells.
fn three_digits(number: f64) -> String {
    if number < 9.995 {
        format!("{number:.2}")
    } else if number < 99.95 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

/// `820ns`, `12.3µs`, `1.23s`, `3m04s`, `1h02m`, `12d03h`: at most six cells up to 273 years.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn duration(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let seconds = ns / SECOND;
    let pair =
        |large: u64, unit: char, small: u64, name: char| format!("{large}{unit}{small:02}{name}");
    match ns {
        0 => "0s".into(),
        1..1_000 => format!("{ns}ns"),
        1_000..999_500 => format!("{}µs", three_digits(ns as f64 / 1e3)),
        999_500..999_500_000 => format!("{}ms", three_digits(ns as f64 / 1e6)),
        999_500_000..9_995_000_000 => format!("{}s", three_digits(ns as f64 / 1e9)),
        _ if seconds < 60 => format!("{seconds}.{}s", ns % SECOND / 100_000_000),
        _ if seconds < 3_600 => pair(seconds / 60, 'm', seconds % 60, 's'),
        _ if seconds < 100 * 3_600 => pair(seconds / 3_600, 'h', seconds / 60 % 60, 'm'),
        _ if seconds < 1_000 * 86_400 => pair(seconds / 86_400, 'd', seconds / 3_600 % 24, 'h'),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes in a second from a rate, for [`bytes`].
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` takes what is no number for 0 and what is too large for the largest; three digits are shown"
)]
pub fn whole(bytes_per_second: f64) -> u64 {
    bytes_per_second.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_have_three_digits_and_a_prefix() {
        for (amount, short, long) in [
            (0, "0B", "0 B"),
            (1_023, "1023B", "1023 B"),
            (1_024, "1.00K", "1.00 KiB"),
            (4_279, "4.18K", "4.18 KiB"),
            (94_208, "92.0K", "92.0 KiB"),
            (1_048_575, "1.00M", "1.00 MiB"),
            (1_023 << 20, "1023M", "1023 MiB"),
            (u64::MAX, "16.0E", "16.0 EiB"),
        ] {
            assert_eq!(bytes(amount), short);
            assert_eq!(bytes_in_words(amount), long);
        }
    }

    #[test]
    fn durations_change_their_unit_where_they_would_grow() {
        for (ns, text) in [
            (0, "0s"),
            (820, "820ns"),
            (12_340, "12.3µs"),
            (999_499, "999µs"),
            (999_500, "1.00ms"),
            (261_200_000, "261ms"),
            (3_024_100_000, "3.02s"),
            (59_999_999_999, "59.9s"),
            (60_000_000_000, "1m00s"),
            (184_000_000_000, "3m04s"),
            (3_723_000_000_000, "1h02m"),
            (1_047_600_000_000_000, "12d03h"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    proptest! {
        #[test]
        fn no_amount_is_wider_than_its_column(amount in any::<u64>(), shift in 0_u32..64) {
            prop_assert!(bytes(amount >> shift).chars().count() <= 5);
            let ns = amount >> shift;
            prop_assert!(duration(ns).chars().count() <= 7, "{}", duration(ns));
        }
    }
}

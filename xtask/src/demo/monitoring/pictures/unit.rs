// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers in Grafana's units (`fieldConfig.defaults.unit`).

/// Names of thousands of something, and how many of it the next one has.
struct Scale {
    names: &'static [&'static str],
    step: f64,
}

const BINARY: Scale = Scale { names: &["B", "KiB", "MiB", "GiB", "TiB"], step: 1024.0 };
const DECIMAL: Scale = Scale { names: &["B", "kB", "MB", "GB", "TB"], step: 1000.0 };
const PLAIN: Scale = Scale { names: &["", "k", "M", "G", "T"], step: 1000.0 };

/// Below a second: a part of it, and its name.
const SECONDS: [(f64, &str); 4] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];

/// How numbers of about one size are written: what they are divided by, and what stands behind them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    pub(super) divisor: f64,
    pub(super) suffix: String,
}

impl Written {
    /// For numbers of this unit that are at most so large.
    pub(super) fn of(unit: &str, most: f64) -> Self {
        let most = most.abs();
        let scaled = |scale: &Scale, per: &str| {
            let (mut divisor, mut at) = (1.0, 0);
            while most >= divisor * scale.step && at + 1 < scale.names.len() {
                (divisor, at) = (divisor * scale.step, at + 1);
            }
            Self { divisor, suffix: format!(" {}{per}", scale.names[at]).trim_end().to_owned() }
        };
        let seconds = |factor: f64| {
            let fits = |part: &&(f64, &str)| most / factor >= part.0;
            let (part, name) = SECONDS.iter().find(fits).unwrap_or(&SECONDS[0]);
            Self { divisor: part * factor, suffix: format!(" {name}") }
        };
        match unit {
            "bytes" => scaled(&BINARY, ""),
            "decbytes" => scaled(&DECIMAL, ""),
            "binBps" => scaled(&BINARY, "/s"),
            "Bps" => scaled(&DECIMAL, "/s"),
            "s" | "dtdurations" => seconds(1.0),
            "ms" => seconds(1e3),
            "percentunit" => Self { divisor: 0.01, suffix: " %".to_owned() },
            "percent" => Self { divisor: 1.0, suffix: " %".to_owned() },
            "ops" | "reqps" | "cps" | "iops" | "rps" | "wps" => {
                let word = if unit == "reqps" { " req/s" } else { "/s" };
                let Self { divisor, suffix } = scaled(&PLAIN, "");
                Self { divisor, suffix: format!("{suffix}{word}") }
            }
            "" | "none" | "short" | "bool" | "bool_yes_no" | "bool_on_off" => scaled(&PLAIN, ""),
            other => {
                let word = other.strip_prefix("suffix:").unwrap_or(other);
                let Self { divisor, suffix } = scaled(&PLAIN, "");
                Self { divisor, suffix: format!("{suffix} {}", word.trim()) }
            }
        }
    }

    /// One of them.
    pub(super) fn show(&self, value: f64) -> String {
        format!("{}{}", short(value / self.divisor), self.suffix)
    }
}

/// One number by itself.
pub(super) fn show(unit: &str, value: f64) -> String {
    match unit {
        _ if value.is_nan() => "–".to_owned(),
        _ if value.is_infinite() => if value > 0.0 { "∞" } else { "−∞" }.to_owned(),
        "bool" => if value == 0.0 { "false" } else { "true" }.to_owned(),
        "bool_yes_no" => if value == 0.0 { "no" } else { "yes" }.to_owned(),
        "bool_on_off" => if value == 0.0 { "off" } else { "on" }.to_owned(),
        _ => Written::of(unit, value).show(value),
    }
}

/// Three digits, and no zeros behind the point.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.001.. => 3,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    if !text.contains('.') {
        return text;
    }
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_units() {
        for (unit, value, expected) in [
            ("bytes", 4279.0, "4.18 KiB"),
            ("Bps", 2_500_000.0, "2.5 MB/s"),
            ("binBps", 2_097_152.0, "2 MiB/s"),
            ("s", 0.0025, "2.5 ms"),
            ("s", 0.0, "0 s"),
            ("s", 12.0, "12 s"),
            ("dtdurations", 0.000_45, "450 µs"),
            ("percentunit", 0.255, "25.5 %"),
            ("short", 12_345.0, "12.3 k"),
            ("none", 3.0, "3"),
            ("ops", 20.0, "20/s"),
            ("bool_yes_no", 1.0, "yes"),
            ("suffix: pages", 7.0, "7 pages"),
            ("none", f64::NAN, "–"),
        ] {
            assert_eq!(show(unit, value), expected, "{value} in {unit}");
        }
    }

    #[test]
    fn numbers_of_one_axis_are_written_alike() {
        let axis = Written::of("bytes", 3.0 * 1024.0);
        assert_eq!(
            [0.0, 512.0, 2048.0].map(|value| axis.show(value)),
            ["0 KiB", "0.5 KiB", "2 KiB"]
        );
    }
}

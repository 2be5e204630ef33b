// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Amounts as marks: bars and sparklines of one line.

use crate::top::rate::Rate;

/// A bar of `width` cells, filled by `share` (0 to 1); dots where that is unknown.
pub(super) fn bar(share: Option<f64>, width: usize) -> String {
    let Some(share) = share else {
        return "·".repeat(width);
    };
    let filled = filled(share, width);
    "█".repeat(filled) + &"░".repeat(width - filled)
}

/// How many of `width` cells `share` fills. Something is never shown as nothing, nor less than all as all.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a screen has few columns, and `as` takes what is out of range for the end of the range"
)]
fn filled(share: f64, width: usize) -> usize {
    let cells = (share * width as f64).round() as usize;
    let least = usize::from(share > 0.0).min(width);
    let most = if share < 1.0 { width.saturating_sub(1).max(least) } else { width };
    cells.clamp(least, most)
}

/// ` 73%`: four cells; ` 99%` until all has moved, `   ?` while unknown.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` takes what is out of range for the end of the range"
)]
pub(super) fn percent(share: Option<f64>) -> String {
    match share {
        Some(share) => format!("{:>3}%", (share * 100.0).floor().min(100.0) as u8),
        None => "   ?".into(),
    }
}

/// The last `width` rates as a line of columns, the newest at the right; `·` where one is unknown. Scaled to the largest that is
/// known.
pub(super) fn sparkline(history: &[Option<Rate>], width: usize) -> String {
    const COLUMNS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let speed = |rate: &Option<Rate>| rate.map(|rate| rate.bytes_per_second);
    let largest = history.iter().filter_map(speed).fold(0.0, f64::max);
    let column = |rate: &Option<Rate>| match speed(rate) {
        None => '·',
        Some(speed) if largest > 0.0 => {
            let height = filled(speed / largest, COLUMNS.len() - 1);
            COLUMNS.get(height).copied().unwrap_or('█')
        }
        Some(_) => '▁',
    };
    let shown = history.len().min(width);
    let recent = history.iter().skip(history.len() - shown);
    " ".repeat(width - shown) + &recent.map(column).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(speeds: &[Option<f64>]) -> Vec<Option<Rate>> {
        let rate = |speed: &Option<f64>| {
            speed.map(|bytes_per_second| Rate { bytes_per_second, window_ns: 1 })
        };
        speeds.iter().map(rate).collect()
    }

    #[test]
    fn a_bar_is_full_only_when_all_is_there_and_empty_only_when_nothing_is() {
        assert_eq!(bar(Some(0.0), 4), "░░░░");
        assert_eq!(bar(Some(0.001), 4), "█░░░");
        assert_eq!(bar(Some(0.999), 4), "███░");
        assert_eq!(bar(Some(1.0), 4), "████");
        assert_eq!(bar(None, 4), "····");
        assert_eq!(bar(Some(0.5), 0), "");
        assert_eq!(bar(Some(0.5), 1), "█");
    }

    #[test]
    fn a_share_is_rounded_down_and_unknown_is_no_number() {
        assert_eq!(percent(Some(0.9999)), " 99%");
        assert_eq!(percent(Some(1.0)), "100%");
        assert_eq!(percent(Some(0.0)), "  0%");
        assert_eq!(percent(None), "   ?");
    }

    #[test]
    fn a_sparkline_ends_with_the_newest_and_tells_unknown_from_zero() {
        let history = rates(&[Some(8.0), None, Some(0.0), Some(4.0), Some(8.0)]);
        assert_eq!(sparkline(&history, 5), "█·▁▅█");
        assert_eq!(sparkline(&history, 2), "▅█");
        assert_eq!(sparkline(&history, 7), "  █·▁▅█");
        assert_eq!(sparkline(&rates(&[Some(0.0)]), 1), "▁");
        assert_eq!(sparkline(&[], 3), "   ");
    }
}

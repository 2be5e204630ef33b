// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes as people type them.

use std::fmt;

/// A size in bytes: a whole number, with K, M or G behind it for powers of 1024.
///
/// # Errors
///
/// What to type.
pub fn size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) if text.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| "write it as a whole number of bytes, or with K, M or G: 100M".into())
}

/// A size in bytes, written so that [`size`] reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(
    /// Bytes.
    pub u64,
);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let units = [(30, "G"), (20, "M"), (10, "K")];
        let whole = |shift: u32| bytes > 0 && bytes.trailing_zeros() >= shift;
        match units.into_iter().find(|(shift, _)| whole(*shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", bytes >> shift),
            None => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (text, bytes) in
            [("0", 0), ("4097", 4097), ("3K", 3 << 10), ("100M", 100 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(Size(bytes).to_string(), text);
        }
        for wrong in ["", "M", "1.5M", "-1", "1 M", "1MM", "1m", "99999999999G"] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers and texts in a recording: varints (LEB128), differences (zigzag), strings with their length.

/// Longest text, in bytes. A command line, from which names of machines come, is read up to this length.
pub(super) const TEXT_BYTES: usize = 64 * 1024;

/// Why bytes make no sense as a record, or a value cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// It ends too early.
    #[error("it ends too early")]
    Short,
    /// A number has more than 64 bits.
    #[error("a number has more than 64 bits")]
    Long,
    /// A text is no UTF-8.
    #[error("a text is no UTF-8")]
    Text,
    /// A number names nothing that this migscope knows.
    #[error("{1} is no {0}")]
    Name(&'static str, u64),
    /// There are more than a recording may have.
    #[error("there are more {0} than a recording may have")]
    TooMany(&'static str),
    /// An entry is changed that is not there.
    #[error("an entry is changed that is not there")]
    Place,
}

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends how a number differs from the one before; any two numbers have a difference, since it wraps.
pub(super) fn put_difference(out: &mut Vec<u8>, now: u64, before: u64) {
    put_signed(out, now.wrapping_sub(before).cast_signed());
}

/// Appends a number with its sign.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends how many there are.
pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    put(out, length as u64);
}

/// Appends bytes with their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a text with its length.
///
/// # Errors
///
/// One that is too long.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), Bad> {
    if text.len() > TEXT_BYTES {
        return Err(Bad::TooMany("bytes of a text"));
    }
    put_bytes(out, text.as_bytes());
    Ok(())
}

/// Bytes that are read from their beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// Whether all were read.
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], Bad> {
        let length = usize::try_from(length).ok();
        let split = length.and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = split.ok_or(Bad::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number.
    pub(super) fn number(&mut self) -> Result<u64, Bad> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Bad::Short)?;
            self.0 = rest;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(Bad::Long);
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Bad::Long)
    }

    /// A number with its sign.
    pub(super) fn signed(&mut self) -> Result<i64, Bad> {
        let coded = self.number()?;
        Ok((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    /// A number, by its difference from the one before.
    pub(super) fn after(&mut self, before: u64) -> Result<u64, Bad> {
        Ok(before.wrapping_add(self.signed()?.cast_unsigned()))
    }

    /// A number of 32 bits.
    pub(super) fn small(&mut self, what: &'static str) -> Result<u32, Bad> {
        let number = self.number()?;
        number.try_into().map_err(|_large| Bad::Name(what, number))
    }

    /// How many `what` there are, which are no more than `most`.
    pub(super) fn length(&mut self, what: &'static str, most: usize) -> Result<usize, Bad> {
        let length = usize::try_from(self.number()?).ok();
        length.filter(|length| *length <= most).ok_or(Bad::TooMany(what))
    }

    /// A text.
    pub(super) fn text(&mut self) -> Result<String, Bad> {
        let length = self.number()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_invalid| Bad::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_and_difference_comes_back(now: u64, before: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, now);
            put_difference(&mut out, now, before);
            put_signed(&mut out, signed);
            let mut bytes = Bytes(&out);
            prop_assert_eq!(bytes.number(), Ok(now));
            prop_assert_eq!(bytes.after(before), Ok(now));
            prop_assert_eq!(bytes.signed(), Ok(signed));
            prop_assert!(bytes.is_empty());
        }
    }

    #[test]
    fn small_differences_are_short_in_either_direction() {
        for (now, before) in [(1_000_063, 1_000_000), (1_000_000, 1_000_063)] {
            let mut out = Vec::new();
            put_difference(&mut out, now, before);
            assert_eq!(out.len(), 1);
        }
    }

    #[test]
    fn a_number_that_goes_on_or_ends_early_is_none() {
        assert_eq!(Bytes(&[0xff; 9]).number(), Err(Bad::Short));
        assert_eq!(Bytes(&[0xff; 11]).number(), Err(Bad::Long));
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(Bytes(&most).number(), Ok(u64::MAX));
        most[9] = 2;
        assert_eq!(Bytes(&most).number(), Err(Bad::Long));
    }

    #[test]
    fn a_length_is_not_believed() {
        let mut out = Vec::new();
        put(&mut out, u64::MAX);
        assert_eq!(Bytes(&out).text(), Err(Bad::Short));
        assert_eq!(Bytes(&out).length("things", 5), Err(Bad::TooMany("things")));
    }
}

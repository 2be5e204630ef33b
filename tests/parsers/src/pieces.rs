// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bytes taken apart from their beginning, where a target needs numbers and parts. Past the end all is zero and empty, so every input
//! is one of the target.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a>(pub &'a [u8]);

impl<'a> Pieces<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes, `length` of them or all that there are.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next bytes, exactly `N` of them.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        for (to, from) in array.iter_mut().zip(taken) {
            *to = *from;
        }
        array
    }

    /// A number of one byte.
    pub fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// A little-endian number of two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// A little-endian number of four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// A little-endian number of eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Bytes behind their length, which is a number of two bytes.
    pub fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16());
        self.bytes(length)
    }

    /// The same as text; what is none of UTF-8 becomes U+FFFD.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.part()).into_owned()
    }
}

/// Writes what [`Pieces::part`] reads.
///
/// # Panics
///
/// For more bytes than its length can say.
pub fn put_part(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("a part of a seed is short");
    out.extend(length.to_le_bytes());
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_comes_back_and_past_the_end_all_is_empty() {
        let mut out = vec![7];
        put_part(&mut out, b"abc");
        let mut pieces = Pieces(&out);
        assert_eq!((pieces.u8(), pieces.part()), (7, &b"abc"[..]));
        assert!(pieces.is_empty());
        assert_eq!((pieces.u64(), pieces.part(), pieces.text()), (0, &b""[..], String::new()));
        assert_eq!(Pieces(&[9, 0, 1]).part(), [1], "a length is not believed");
    }
}

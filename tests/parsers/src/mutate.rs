// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mutations for the plain test: of a seed, decided by a number alone, so that a failure comes again.

use fastrand::Rng;

/// Numbers at which parsers change their minds.
const NUMBERS: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];
/// Bytes that mean something in texts.
const LETTERS: &[u8] = b"\0\n\r\t \"'\\/%=,:;[]{}<>&#*-.x0\xc3\xff";

/// One mutation of one of `inputs`, the one with this number.
pub fn mutation(inputs: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Rng::with_seed(number);
    let Some(input) = random.choice(inputs) else { return Vec::new() };
    let mut bytes = input.clone();
    for _ in 0..=random.u8(..4) {
        change(&mut bytes, inputs, &mut random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut Rng) {
    let at = random.usize(..=bytes.len());
    let length = random.usize(..=(bytes.len() - at).min(64));
    match random.u8(..8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..at + length)),
        2 => {
            let again = bytes.get(at..at + length).unwrap_or_default().to_vec();
            bytes.splice(at..at, again);
        }
        3 => bytes.insert(at, random.choice(LETTERS).copied().unwrap_or_default()),
        4 => {
            let number = random.choice(NUMBERS).unwrap_or_default().to_le_bytes();
            let width = 1_usize << random.u8(..4);
            for (to, from) in bytes.iter_mut().skip(at).zip(number.into_iter().take(width)) {
                *to = from;
            }
        }
        5 => {
            // The rest of another one.
            let other = random.choice(inputs).map_or(&[][..], Vec::as_slice);
            let from = random.usize(..=other.len());
            bytes.truncate(at);
            bytes.extend(other.get(from..).unwrap_or_default());
        }
        6 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.u8(..);
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutation_is_told_by_its_number_and_most_are_something_else() {
        let inputs = [b"one and one".to_vec(), b"two".to_vec()];
        let mutations = || (0..200).map(|number| mutation(&inputs, number));
        assert!(mutations().eq(mutations()));
        let other = mutations().filter(|bytes| !inputs.contains(bytes)).count();
        assert!(other > 150, "{other}");
    }
}

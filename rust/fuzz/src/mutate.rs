//! What is done to valid bytes: what a disk, a network or a wrong length in the middle of them would.

use aurora_sim::rng::Rng;

/// Numbers at which code goes wrong.
const ODD: [u64; 12] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// Inputs grow no longer than their sample by more than this.
const GROWS_MAX: u64 = 64;

/// One to four changes of a sample. Some take a part of another one.
pub fn mutate(rng: &mut Rng, mut bytes: Vec<u8>, others: &[Vec<u8>]) -> Vec<u8> {
    for _ in 0..rng.between(1, 4) {
        match rng.below(9) {
            0 | 1 => flip_bit(rng, &mut bytes),
            2 => set_byte(rng, &mut bytes),
            3 | 4 => set_number(rng, &mut bytes),
            5 => {
                let len = place(rng, bytes.len());
                bytes.truncate(len);
            }
            6 => insert(rng, &mut bytes),
            7 => repeat(rng, &mut bytes),
            _ => splice(rng, &mut bytes, others),
        }
    }
    bytes
}

/// A place in the bytes: mostly near their beginning, where formats say what follows.
fn place(rng: &mut Rng, len: usize) -> usize {
    match rng.chance(500) {
        true => rng.index(len.min(96)),
        false => rng.index(len),
    }
}

fn flip_bit(rng: &mut Rng, bytes: &mut [u8]) {
    let at = place(rng, bytes.len());
    let mask = 1 << rng.below(8);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask;
    }
}

fn set_byte(rng: &mut Rng, bytes: &mut [u8]) {
    let at = place(rng, bytes.len());
    let to = rng.bits() as u8;
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to;
    }
}

/// A number of one, two, four or eight bytes becomes an odd one, or a little more or less.
fn set_number(rng: &mut Rng, bytes: &mut [u8]) {
    let width = 1 << rng.below(4);
    let at = place(rng, bytes.len());
    let near = rng.chance(300);
    let odd = *rng.pick(&ODD);
    let by = rng.below(9);
    let Some(place) = bytes.get_mut(at..at + width) else {
        return;
    };
    let mut number = [0; 8];
    number[..width].copy_from_slice(place);
    let to = match near {
        true => u64::from_le_bytes(number).wrapping_add(by).wrapping_sub(4),
        false => odd,
    };
    place.copy_from_slice(&to.to_le_bytes()[..width]);
}

fn insert(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let at = place(rng, bytes.len());
    let new: Vec<u8> = (0..rng.between(1, GROWS_MAX))
        .map(|_| rng.bits() as u8)
        .collect();
    bytes.splice(at..at, new);
}

fn repeat(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let from = place(rng, bytes.len());
    let end = bytes.len().min(from + rng.between(1, GROWS_MAX) as usize);
    let again = bytes[from.min(end)..end].to_vec();
    bytes.splice(from..from, again);
}

fn splice(rng: &mut Rng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    let other = rng.pick(others);
    let at = place(rng, bytes.len());
    let from = place(rng, other.len());
    bytes.truncate(at);
    bytes.extend_from_slice(&other[from.min(other.len())..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_every_mutation_changes_something_and_empty_inputs_do_no_harm() {
        let mut rng = Rng::new(1);
        let samples = vec![(0..200).collect::<Vec<u8>>(), vec![7; 3]];
        let changed =
            (0..1000).filter(|_| mutate(&mut rng, samples[0].clone(), &samples) != samples[0]);
        assert!(changed.count() > 950);
        (0..1000).for_each(|_| drop(mutate(&mut rng, Vec::new(), &[Vec::new()])));
    }
}

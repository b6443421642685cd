//! The decoders, each with valid inputs to begin from.

mod page;
mod proto;
mod redo;
mod samples;
mod scan;
mod store;

/// Makes the checksums of an input right.
pub type Stamp = fn(&mut [u8]);
/// Decodes an input. It panics, or it does not.
pub type Decode = dyn Fn(&[u8]) + Send + Sync;

/// Reads an input with one decoder, and then everything that the decoder lets through.
pub struct Target {
    /// Its name for a command line.
    pub name: &'static str,
    /// How many inputs it gets, beside the others.
    pub weight: u64,
    /// Valid inputs.
    pub samples: Vec<Vec<u8>>,
    /// Makes its checksums right.
    pub stamp: Option<Stamp>,
    /// Memory that it may take for an input of no bytes.
    pub allowed_bytes: usize,
    /// The decoder.
    pub run: Box<Decode>,
}

impl Target {
    fn new(
        name: &'static str,
        samples: Vec<Vec<u8>>,
        run: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> Target {
        Target {
            name,
            weight: 100,
            samples,
            stamp: None,
            allowed_bytes: 1 << 20,
            run: Box::new(run),
        }
    }

    /// With checksums that are made right.
    fn stamped(self, stamp: Stamp) -> Target {
        Target {
            stamp: Some(stamp),
            ..self
        }
    }

    fn weighing(self, weight: u64) -> Target {
        Target { weight, ..self }
    }

    fn allowed(self, allowed_bytes: usize) -> Target {
        Target {
            allowed_bytes,
            ..self
        }
    }
}

/// All of them.
pub fn all() -> Vec<Target> {
    let mut all = page::targets();
    all.extend(redo::targets());
    all.extend(proto::targets());
    all.extend(store::targets());
    all.extend(scan::targets());
    all
}

/// Writes the CRC-32C of two ranges, one after the other, at a place; bytes that are too short stay as they are.
fn put_crc(bytes: &mut [u8], at: usize, first: std::ops::Range<usize>, second_from: usize) {
    let (Some(a), Some(b)) = (bytes.get(first), bytes.get(second_from..)) else {
        return;
    };
    let crc = aurora_page::crc32c_append(aurora_page::crc32c(a), b);
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// A number of four bytes, 0 where there are fewer.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes
        .get(at..at + 8)
        .and_then(|eight| eight.try_into().ok());
    eight.map_or(0, u64::from_le_bytes)
}

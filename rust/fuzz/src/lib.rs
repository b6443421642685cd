//! Wrong bytes for every decoder that reads disk or network: no panic, no allocation that the input does not justify.
//!
//! ```text
//!   seed, number ──> target ──> sample, mutated  or  random bytes ──> checksum made right, mostly ──> decode, read all of it
//! ```
//! A checksum finds nearly every wrong byte, so what lies behind it would never be reached: most inputs get a right one. Where
//! one cannot be made from outside - blocks of layers, fragments of the log - the mistakes that leave it out are built in
//! ([`aurora_page::planted`]). The same seed and number give the same input on every machine.
//!
//! | module | part |
//! |---|---|
//! | [`targets`] | the decoders, with valid inputs for each |
//! | [`mutate`] | what is done to a valid input |
//! | [`alloc`] | how much memory an input took |

pub mod alloc;
pub mod mutate;
pub mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use aurora_sim::rng::Rng;

pub use targets::{Target, all};

/// Of a thousand inputs so many are random bytes.
const RANDOM: u32 = 60;
/// Of a thousand mutated inputs so many keep the checksum that they had.
const UNSTAMPED: u32 = 200;
/// Bytes of random inputs.
const RANDOM_BYTES_MAX: u64 = 600;
/// An input may take so many times its own length, beside what its target is allowed.
const TIMES_LENGTH: usize = 64;

/// An input and the target that it is for.
#[derive(Clone, Debug)]
pub struct Input {
    /// Index of the target.
    pub target: usize,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The input of a number, for one of the targets or for the one that is asked for.
pub fn input(targets: &[Target], seed: u64, number: u64, only: Option<usize>) -> Input {
    let mut rng = Rng::new(seed.rotate_left(32) ^ number);
    let target = only.unwrap_or_else(|| {
        let weights: u64 = targets.iter().map(|target| target.weight).sum();
        let mut left = rng.below(weights);
        let place = targets.iter().position(|target| {
            let here = left < target.weight;
            left = left.saturating_sub(target.weight);
            here
        });
        place.unwrap_or(0)
    });
    let chosen = &targets[target];
    let mut bytes = match rng.chance(RANDOM) || chosen.samples.is_empty() {
        true => {
            let len = rng.below(RANDOM_BYTES_MAX);
            (0..len).map(|_| rng.bits() as u8).collect()
        }
        false => {
            let sample = rng.pick(&chosen.samples).clone();
            mutate::mutate(&mut rng, sample, &chosen.samples)
        }
    };
    if let Some(stamp) = chosen.stamp
        && !rng.chance(UNSTAMPED)
    {
        stamp(&mut bytes);
    }
    Input { target, bytes }
}

/// Gives an input to its target. What is wrong, if it panicked or took too much memory.
pub fn run(target: &Target, bytes: &[u8]) -> Result<(), String> {
    let allowed = target.allowed_bytes + TIMES_LENGTH * bytes.len();
    let decode = AssertUnwindSafe(|| alloc::peak_of(|| (target.run)(bytes)));
    let ran = catch_unwind(decode);
    aurora_page::planted::set(None);
    match ran {
        Ok(peak) if peak <= allowed => Ok(()),
        Ok(peak) => Err(format!(
            "took {peak} bytes of memory, {allowed} are allowed"
        )),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

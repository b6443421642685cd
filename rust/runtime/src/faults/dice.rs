//! Dice that fall the same way for the same seed (SplitMix64).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Seeded dice that threads share.
#[derive(Debug, Default)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    /// Begins anew from a seed.
    pub(crate) fn seed(&self, seed: u64) {
        self.0.store(seed, Ordering::Relaxed);
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&self, percent: u8) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// A time between two.
    pub(crate) fn between(&self, (least, most): (Duration, Duration)) -> Duration {
        let span = most.saturating_sub(least).as_micros() as u64;
        least + Duration::from_micros(self.below(span + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (a, b) = (Dice::default(), Dice::default());
        a.seed(7);
        b.seed(7);
        let draw = |dice: &Dice| (0..100).map(|_| dice.below(1000)).collect::<Vec<_>>();
        assert_eq!(draw(&a), draw(&b));
        assert_ne!(draw(&a), {
            b.seed(8);
            draw(&b)
        });
    }

    #[test]
    fn percent_is_a_share() {
        let dice = Dice::default();
        let hits = (0..10_000).filter(|_| dice.percent(30)).count();
        assert!((2_700..3_300).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| dice.percent(100) && !dice.percent(0)));
    }
}

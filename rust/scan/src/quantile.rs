//! Quantiles, and what is told of many values by a sketch of them. A sketch is the same in whatever order values come and parts are
//! merged, so that one answer comes back from any number of nodes: registers of maxima for different values, counts by size for
//! quantiles. (Sketches of samples, KLL and t-digest, are not.)

use datasketches::hll::{HllSketch, HllType, HllUnion};
use sketches_ddsketch::{Config, DDSketch};

use crate::expr::compare_floats;
use crate::plan::{Interpolation, Share};

/// 2^12 registers: a standard error of 1.6 %.
const SKETCH_LG: u8 = 12;
/// Relative error of a quantile.
const SIZE_ERROR: f64 = 0.01;
/// Sizes that are told apart, all that floats have at that error: none are ever thrown together.
const SIZES_MAX: u32 = 1 << 17;
/// What is nearer to zero counts as zero.
const SIZE_MIN: f64 = 1e-300;

/// The quantile of some values; none of none. NaN comes after infinity.
pub(crate) fn quantile(mut values: Vec<f64>, share: Share, between: Interpolation) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let at = share.get() * last as f64;
    let lower = (at.floor() as usize).min(last);
    let (_, low, above) = values.select_nth_unstable_by(lower, |a, b| compare_floats(*a, *b));
    let low = *low;
    let next = || {
        let least = above.iter().copied().min_by(|a, b| compare_floats(*a, *b));
        least.unwrap_or(low)
    };
    let beyond = at - lower as f64;
    Some(match between {
        _ if beyond == 0.0 => low,
        Interpolation::Lower => low,
        Interpolation::Higher => next(),
        Interpolation::Nearest if beyond < 0.5 => low,
        Interpolation::Nearest => next(),
        Interpolation::Midpoint => between_values(low, next(), 0.5),
        Interpolation::Linear => between_values(low, next(), beyond),
    })
}

/// A share of the way from one value to another, also where they are equal infinities or their distance is none of a float.
fn between_values(low: f64, high: f64, share: f64) -> f64 {
    let distance = high - low;
    match low == high {
        true => low,
        false if distance.is_finite() => low + distance * share,
        false => low * (1.0 - share) + high * share,
    }
}

/// How many different values there are, roughly; exactly as long as they are few.
#[derive(Clone, Debug, Default)]
pub(crate) struct DistinctSketch(Option<HllSketch>);

impl DistinctSketch {
    /// Adds a value, encoded.
    pub(crate) fn add(&mut self, encoded: &[u8]) {
        if self.0.is_none() {
            self.0 = HllSketch::new(SKETCH_LG, HllType::Hll8).ok();
        }
        if let Some(sketch) = &mut self.0 {
            sketch.update(encoded);
        }
    }

    pub(crate) fn merge(&mut self, other: DistinctSketch) {
        self.0 = match (self.0.take(), other.0) {
            (Some(a), Some(b)) => HllUnion::new(SKETCH_LG).ok().map(|mut union| {
                union.update(&a);
                union.update(&b);
                union.to_sketch(HllType::Hll8)
            }),
            (one, other) => one.or(other),
        };
    }

    /// By the registers alone: the other estimate of the sketch is better and depends on the order in which values came.
    pub(crate) fn estimate(&self) -> i64 {
        let estimate = self.0.as_ref().map_or(0.0, HllSketch::composite_estimate);
        estimate.round() as i64
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(8, HllSketch::estimated_size)
    }
}

/// How many values there are of about each size.
#[derive(Clone)]
pub(crate) struct SizeSketch(DDSketch);

impl std::fmt::Debug for SizeSketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SizeSketch({} values)", self.0.count())
    }
}

impl Default for SizeSketch {
    fn default() -> SizeSketch {
        let config = Config::new(SIZE_ERROR, SIZES_MAX, SIZE_MIN);
        SizeSketch(DDSketch::new(config))
    }
}

impl SizeSketch {
    /// Adds a value. Infinity counts as the largest float, and NaN too.
    pub(crate) fn add(&mut self, value: f64) {
        let value = if value.is_nan() { f64::MAX } else { value };
        self.0.add(value.clamp(-f64::MAX, f64::MAX));
    }

    pub(crate) fn merge(&mut self, other: SizeSketch) {
        // Refused between sketches of different errors only.
        let _ = self.0.merge(&other.0);
    }

    pub(crate) fn quantile(&self, share: Share) -> Option<f64> {
        self.0.quantile(share.get()).ok().flatten()
    }

    pub(crate) fn bytes(&self) -> usize {
        128 + self.0.length() * 8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(share: f64) -> Share {
        Share::new(share).unwrap()
    }

    #[test]
    fn quantiles_between_values() {
        use Interpolation::{Higher, Linear, Lower, Midpoint, Nearest};
        let values = || vec![40.0, 10.0, 20.0, 30.0];
        for (at, between, expected) in [
            (0.0, Linear, 10.0),
            (1.0, Linear, 40.0),
            (0.5, Linear, 25.0),
            (0.5, Lower, 20.0),
            (0.5, Higher, 30.0),
            (0.5, Midpoint, 25.0),
            (0.5, Nearest, 30.0),
            (0.4, Nearest, 20.0),
            (0.1, Linear, 13.0),
        ] {
            assert_eq!(quantile(values(), share(at), between), Some(expected));
        }
        assert_eq!(quantile(Vec::new(), share(0.5), Linear), None);
        let far = vec![-1e308, 1e308];
        assert_eq!(quantile(far, share(0.5), Linear), Some(0.0));
        let infinite = vec![f64::INFINITY; 2];
        assert_eq!(
            quantile(infinite, share(0.5), Midpoint),
            Some(f64::INFINITY)
        );
        let with_nan = vec![f64::NAN, 1.0, f64::INFINITY];
        assert_eq!(quantile(with_nan, share(0.5), Nearest), Some(f64::INFINITY));
        assert!(Share::new(1.1).is_none() && Share::new(f64::NAN).is_none());
    }

    proptest! {
        /// Cut anywhere and merged in either order, what is told is the same, and near what is.
        #[test]
        fn one_answer_whatever_the_parts(
            values in prop::collection::vec(-1000i32..100_000, 0..20_000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            at in 0.0..=1.0f64,
            back in any::<bool>(),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(values.len() + 1)).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let fold = |part: &[i32]| {
                let (mut distinct, mut sizes) = (DistinctSketch::default(), SizeSketch::default());
                for value in part {
                    distinct.add(&value.to_be_bytes());
                    sizes.add(f64::from(*value));
                }
                (distinct, sizes)
            };
            let mut parts: Vec<_> = cuts.windows(2).map(|cut| fold(&values[cut[0]..cut[1]])).collect();
            if back {
                parts.reverse();
            }
            let (mut distinct, mut sizes) = Default::default();
            for (more, bigger) in parts {
                DistinctSketch::merge(&mut distinct, more);
                SizeSketch::merge(&mut sizes, bigger);
            }
            let whole = fold(&values);
            prop_assert_eq!(distinct.estimate(), whole.0.estimate());
            prop_assert_eq!(sizes.quantile(share(at)), whole.1.quantile(share(at)));
            let different = values.iter().collect::<std::collections::BTreeSet<_>>().len() as f64;
            prop_assert!((distinct.estimate() as f64 - different).abs() <= different * 0.08);
            let lower = quantile(values.iter().map(|v| f64::from(*v)).collect(), share(at), Interpolation::Lower);
            let higher = quantile(values.iter().map(|v| f64::from(*v)).collect(), share(at), Interpolation::Higher);
            match (lower, higher, sizes.quantile(share(at))) {
                (Some(lower), Some(higher), Some(told)) => {
                    prop_assert!(told >= lower - lower.abs() * 0.0101 && told <= higher + higher.abs() * 0.0101,
                        "{} of {}..{}", told, lower, higher);
                }
                (lower, _, told) => prop_assert_eq!(lower, told),
            }
        }
    }
}

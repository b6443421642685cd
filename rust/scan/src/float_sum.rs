//! Exact sums of floats: the same answer in any order, on any processor and any number of nodes.
//!
//! A sum is an integer of some 2,200 bits whose unit is the smallest float, in limbs of 32 bits kept in 64, so that carries
//! wait. It is rounded once, at the end.

/// Bits of a limb.
const LIMB: u32 = 32;
/// Limbs: 2,046 exponents, 53 bits of mantissa, 2^63 values.
const LIMBS: usize = 68;
/// Additions until carries must be carried.
const CARRY_EVERY: u32 = 1 << 30;

/// The exact sum of floats.
#[derive(Clone, Debug)]
pub(crate) struct FloatSum {
    limbs: Box<[i64; LIMBS]>,
    added: u32,
    nan: bool,
    up: bool,
    down: bool,
}

impl Default for FloatSum {
    fn default() -> FloatSum {
        FloatSum {
            limbs: Box::new([0; LIMBS]),
            added: 0,
            nan: false,
            up: false,
            down: false,
        }
    }
}

impl FloatSum {
    /// Adds a value.
    pub(crate) fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7FF) as u32;
        let fraction = bits & ((1 << 52) - 1);
        if exponent == 0x7FF {
            self.nan |= fraction != 0;
            self.up |= fraction == 0 && value > 0.0;
            self.down |= fraction == 0 && value < 0.0;
            return;
        }
        let (mantissa, shift) = if exponent == 0 {
            (fraction, 0)
        } else {
            (fraction | 1 << 52, exponent - 1)
        };
        let wide = u128::from(mantissa) << (shift % LIMB);
        let at = (shift / LIMB) as usize;
        let sign = if bits >> 63 == 1 { -1 } else { 1 };
        for (limb, part) in self.limbs[at..at + 3].iter_mut().zip(0..) {
            *limb += sign * ((wide >> (LIMB * part)) as u32 as i64);
        }
        self.added += 1;
        if self.added >= CARRY_EVERY {
            self.carry();
        }
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &FloatSum) {
        self.carry();
        let mut other = other.clone();
        other.carry();
        for (limb, more) in self.limbs.iter_mut().zip(other.limbs.iter()) {
            *limb += more;
        }
        self.carry();
        self.nan |= other.nan;
        self.up |= other.up;
        self.down |= other.down;
    }

    /// Brings every limb but the last into 0..2^32.
    fn carry(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let value = *limb + carry;
            *limb = value & ((1 << LIMB) - 1);
            carry = value >> LIMB;
        }
        self.limbs[LIMBS - 1] += carry;
        self.added = 0;
    }

    /// The sum, rounded to the nearest float, halves to the even one.
    pub(crate) fn value(&self) -> f64 {
        if self.nan || self.up && self.down {
            return f64::NAN;
        }
        if self.up || self.down {
            return if self.up {
                f64::INFINITY
            } else {
                f64::NEG_INFINITY
            };
        }
        let mut sum = self.clone();
        sum.carry();
        let negative = sum.limbs[LIMBS - 1] < 0;
        if negative {
            sum.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            sum.carry();
        }
        let magnitude = round(&sum.limbs);
        if negative { -magnitude } else { magnitude }
    }
}

/// The float nearest to limbs that are not negative.
fn round(limbs: &[i64; LIMBS]) -> f64 {
    let Some(top) = limbs.iter().rposition(|limb| *limb != 0) else {
        return 0.0;
    };
    let bit = |at: u64| limbs[(at / 32) as usize] >> (at % 32) & 1 == 1;
    let high = top as u64 * 32 + u64::from(63 - (limbs[top] as u64).leading_zeros());
    if high < 53 {
        // A float as it stands: below 2^53 units nothing is cut off.
        let units = limbs[0] as u64 | (limbs[1] as u64) << 32;
        return from_units(units, 0);
    }
    let cut = high - 52;
    let mut mantissa = (cut..=high)
        .rev()
        .fold(0u64, |m, at| m << 1 | u64::from(bit(at)));
    let half = bit(cut - 1);
    let below = (0..cut - 1).any(bit);
    if half && (below || mantissa & 1 == 1) {
        mantissa += 1;
    }
    from_units(mantissa, cut)
}

/// `mantissa * 2^shift` smallest floats, with at most 54 bits of mantissa of which the last may be dropped.
fn from_units(mantissa: u64, shift: u64) -> f64 {
    let (mantissa, shift) = if mantissa >> 53 == 1 {
        (mantissa >> 1, shift + 1)
    } else {
        (mantissa, shift)
    };
    if mantissa >> 52 == 0 {
        // Below the normal floats; there shift is 0.
        return f64::from_bits(mantissa);
    }
    let exponent = shift + 1;
    if exponent >= 0x7FF {
        return f64::INFINITY;
    }
    f64::from_bits(exponent << 52 | (mantissa & ((1 << 52) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = FloatSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum.value()
    }

    #[test]
    fn single_values_come_back() {
        for value in [
            0.0,
            1.0,
            -1.5,
            f64::MIN_POSITIVE,
            f64::from_bits(1),
            f64::from_bits((1 << 52) - 1),
            f64::MAX,
            f64::MIN,
            std::f64::consts::PI,
            1e-310,
            4_503_599_627_370_497.5,
        ] {
            assert_eq!(sum(&[value]), value, "{value:?}");
        }
    }

    #[test]
    fn sums_are_exact_and_rounded_once() {
        assert_eq!(sum(&[1e300, 1.0, -1e300]), 1.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[1.0, 1e-17, 1e-17]), 1.0);
        assert_eq!(
            sum(&[9_007_199_254_740_992.0, 1.0]),
            9_007_199_254_740_992.0
        );
        assert_eq!(
            sum(&[9_007_199_254_740_992.0, 1.0, f64::from_bits(1)]),
            9_007_199_254_740_994.0
        );
        assert_eq!(
            sum(&[9_007_199_254_740_994.0, 1.0]),
            9_007_199_254_740_996.0
        );
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(sum(&[f64::MAX, f64::MAX, f64::MIN]), f64::MAX);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum(&[f64::NAN, 1.0]).is_nan());
        assert_eq!(sum(&[-1e308, -1e308, 1e308, 1e308, 3.5]), 3.5);
    }

    #[test]
    fn the_order_does_not_matter() {
        let mut seed = 7u64;
        let mut values: Vec<f64> = (0..1000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let value = f64::from_bits(seed);
                if value.is_finite() { value } else { 1.0 }
            })
            .collect();
        let forward = sum(&values);
        values.reverse();
        assert_eq!(sum(&values).to_bits(), forward.to_bits());
        let (left, right) = values.split_at(300);
        let (mut a, mut b) = (FloatSum::default(), FloatSum::default());
        left.iter().for_each(|value| a.add(*value));
        right.iter().for_each(|value| b.add(*value));
        a.merge(&b);
        assert_eq!(a.value().to_bits(), forward.to_bits());
    }
}

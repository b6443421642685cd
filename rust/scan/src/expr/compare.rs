//! The order of values.

use std::cmp::Ordering;

use super::Comparison;
use super::datum::Datum;
use super::number::pow10;

/// Two exact numbers of these scales, whatever their size.
pub fn compare_exact((a, s): (i128, u8), (b, t): (i128, u8)) -> Ordering {
    if s == t {
        return a.cmp(&b);
    }
    // A number that does not fit at the larger scale is farther from zero than any that does.
    let up = |n: i128, by: u8| pow10(by).and_then(|power| n.checked_mul(power));
    if s < t {
        up(a, t - s).map_or(a.cmp(&0), |a| a.cmp(&b))
    } else {
        up(b, s - t).map_or(0.cmp(&b), |b| a.cmp(&b))
    }
}

/// Floats in the order of keys: -0 is 0, NaN is one value after infinity.
#[inline]
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

impl Datum<'_> {
    /// The order of two values of one kind and scale; nulls come first, values of different kinds by their kinds.
    pub fn order(&self, other: &Datum<'_>) -> Ordering {
        match (self, other) {
            (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
            (Datum::Exact(a), Datum::Exact(b)) => a.cmp(b),
            (Datum::Float(a), Datum::Float(b)) => compare_floats(*a, *b),
            (Datum::Date(a), Datum::Date(b)) => a.cmp(b),
            (Datum::Time(a), Datum::Time(b)) | (Datum::Timestamp(a), Datum::Timestamp(b)) => {
                a.cmp(b)
            }
            (Datum::Text(a), Datum::Text(b)) => a.cmp(b),
            (Datum::Bytes(a), Datum::Bytes(b)) => a.cmp(b),
            (Datum::Uuid(a), Datum::Uuid(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Datum::Null => 0,
            Datum::Bool(_) => 1,
            Datum::Exact(_) => 2,
            Datum::Float(_) => 3,
            Datum::Date(_) => 4,
            Datum::Time(_) => 5,
            Datum::Timestamp(_) => 6,
            Datum::Text(_) => 7,
            Datum::Bytes(_) => 8,
            Datum::Uuid(_) => 9,
        }
    }
}

impl Comparison {
    /// Whether two values in this order pass.
    #[inline]
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Eq => order.is_eq(),
            Comparison::Ne => order.is_ne(),
            Comparison::Lt => order.is_lt(),
            Comparison::Le => order.is_le(),
            Comparison::Gt => order.is_gt(),
            Comparison::Ge => order.is_ge(),
        }
    }

    /// The comparison with its sides exchanged.
    pub fn mirrored(self) -> Comparison {
        match self {
            Comparison::Lt => Comparison::Gt,
            Comparison::Le => Comparison::Ge,
            Comparison::Gt => Comparison::Lt,
            Comparison::Ge => Comparison::Le,
            same => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_do_not_change_the_order() {
        use Ordering::{Equal, Greater, Less};
        for (a, b, expected) in [
            ((10, 1), (1, 0), Equal),
            ((11, 1), (1, 0), Greater),
            ((1, 0), (11, 1), Less),
            ((i128::MAX, 0), (i128::MAX, 38), Greater),
            ((i128::MIN, 0), (i128::MIN, 38), Less),
            ((5, 38), (i128::MAX, 0), Less),
        ] {
            assert_eq!(compare_exact(a, b), expected, "{a:?} {b:?}");
            assert_eq!(compare_exact(b, a), expected.reverse(), "{b:?} {a:?}");
        }
    }

    #[test]
    fn floats_have_a_total_order() {
        let ordered = [f64::NEG_INFINITY, -1.0, 0.0, 1.0, f64::INFINITY, f64::NAN];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(compare_floats(*a, *b), i.cmp(&j));
            }
        }
        assert_eq!(compare_floats(-0.0, 0.0), Ordering::Equal);
    }
}

//! Exact numbers: integers with a scale.

use super::Arithmetic;
use super::error::EvalError;

/// Largest power of ten in 128 bits.
pub const POW10_MAX: u8 = 38;

const POW10: [i128; POW10_MAX as usize + 1] = {
    let mut powers = [1; POW10_MAX as usize + 1];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// 10^by, if it fits.
#[inline]
pub fn pow10(by: u8) -> Option<i128> {
    POW10.get(usize::from(by)).copied()
}

/// 10^by as a float: exact up to 22, and the same on every machine beyond.
pub(crate) fn pow10_float(by: u8) -> f64 {
    (0..by).fold(1.0, |power, _| power * 10.0)
}

/// With `by` more digits after the point.
#[inline]
pub(super) fn rescale(unscaled: i128, by: u8) -> Result<i128, EvalError> {
    if by == 0 {
        return Ok(unscaled);
    }
    pow10(by)
        .and_then(|power| unscaled.checked_mul(power))
        .ok_or_else(EvalError::digits)
}

/// An unscaled number without its last digits, rounded to the even neighbour where it is half way.
pub fn round_half_even(unscaled: i128, digits: u8) -> i128 {
    let Some(power) = pow10(digits) else {
        return 0;
    };
    let (quotient, rest) = (unscaled.div_euclid(power), unscaled.rem_euclid(power));
    let half = power / 2;
    if digits > 0 && (rest > half || rest == half && quotient % 2 != 0) {
        quotient + 1
    } else {
        quotient
    }
}

/// Two exact numbers of these scales joined, at the scale that the operator gives.
pub(super) fn exact(
    operator: Arithmetic,
    (a, s): (i128, u8),
    (b, t): (i128, u8),
) -> Result<i128, EvalError> {
    let scale = s.max(t);
    let result = match operator {
        Arithmetic::Add => rescale(a, scale - s)?.checked_add(rescale(b, scale - t)?),
        Arithmetic::Sub => rescale(a, scale - s)?.checked_sub(rescale(b, scale - t)?),
        Arithmetic::Mul => a.checked_mul(b),
        Arithmetic::Div | Arithmetic::FloorDiv | Arithmetic::Mod if b == 0 => {
            return Err(EvalError::DivisionByZero);
        }
        Arithmetic::Div | Arithmetic::FloorDiv => {
            let floor = a.checked_div(b).map(|quotient| {
                let uneven = a.checked_rem(b).is_some_and(|rest| rest != 0);
                quotient - i128::from(uneven && (a < 0) != (b < 0))
            });
            floor.filter(|_| operator == Arithmetic::FloorDiv)
        }
        Arithmetic::Mod => a.checked_rem(b).map(|rest| {
            if rest != 0 && (rest < 0) != (b < 0) {
                rest + b
            } else {
                rest
            }
        }),
    };
    result.ok_or_else(EvalError::digits)
}

/// Two floats joined.
pub(super) fn float(operator: Arithmetic, a: f64, b: f64) -> Result<f64, EvalError> {
    Ok(match operator {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div | Arithmetic::FloorDiv | Arithmetic::Mod if b == 0.0 => {
            return Err(EvalError::DivisionByZero);
        }
        Arithmetic::Div => a / b,
        Arithmetic::FloorDiv => (a / b).floor(),
        Arithmetic::Mod => a - b * (a / b).floor(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (unscaled, expected) in [
            (125, 12),
            (135, 14),
            (-125, -12),
            (-135, -14),
            (126, 13),
            (-126, -13),
        ] {
            assert_eq!(round_half_even(unscaled, 1), expected);
        }
        assert_eq!(round_half_even(7, 0), 7);
    }

    #[test]
    fn integers_divide_as_in_python() {
        for (a, b, quotient, rest) in [
            (7, 2, 3, 1),
            (-7, 2, -4, 1),
            (7, -2, -4, -1),
            (-7, -2, 3, -1),
        ] {
            assert_eq!(exact(Arithmetic::FloorDiv, (a, 0), (b, 0)), Ok(quotient));
            assert_eq!(exact(Arithmetic::Mod, (a, 0), (b, 0)), Ok(rest));
        }
        assert_eq!(
            exact(Arithmetic::Mod, (1, 0), (0, 0)),
            Err(EvalError::DivisionByZero)
        );
        assert!(exact(Arithmetic::FloorDiv, (i128::MIN, 0), (-1, 0)).is_err());
    }

    #[test]
    fn scales_are_joined_exactly() {
        assert_eq!(exact(Arithmetic::Add, (1, 1), (25, 2)), Ok(35));
        assert_eq!(exact(Arithmetic::Mul, (105, 2), (2, 0)), Ok(210));
        assert!(exact(Arithmetic::Add, (i128::MAX, 0), (1, 1)).is_err());
    }
}

//! Decimals as text and as unscaled integers.

/// Why a decimal's text is not a value of its column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecimalError {
    /// NaN or an infinity.
    NotFinite,
    /// More digits after the point than the column keeps.
    Scale,
    /// More digits in all than fit.
    Precision,
}

/// The unscaled integer of a decimal's text at this scale, exactly. `digits` bounds its digits.
pub fn parse_decimal(text: &str, digits: u8, scale: u8) -> Result<i128, DecimalError> {
    let (mantissa, exponent) = split_exponent(text)?;
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut unscaled: i128 = 0;
    let places = fraction.len() as i64 - exponent;
    // Digits beyond the scale must be zeros.
    let surplus = (places - i64::from(scale)).max(0);
    let total = (whole.len() + fraction.len()) as i64;
    for (index, byte) in (0..).zip(whole.bytes().chain(fraction.bytes())) {
        if !byte.is_ascii_digit() {
            return Err(DecimalError::NotFinite);
        }
        if index >= total - surplus {
            if byte != b'0' {
                return Err(DecimalError::Scale);
            }
        } else {
            unscaled = push_digit(unscaled, byte - b'0')?;
        }
    }
    if unscaled != 0 {
        for _ in 0..(i64::from(scale) - places).max(0) {
            unscaled = push_digit(unscaled, 0)?;
        }
    }
    if unscaled > aurora_page::decimal_max(digits) {
        return Err(DecimalError::Precision);
    }
    Ok(if negative { -unscaled } else { unscaled })
}

fn push_digit(unscaled: i128, digit: u8) -> Result<i128, DecimalError> {
    unscaled
        .checked_mul(10)
        .and_then(|n| n.checked_add(i128::from(digit)))
        .ok_or(DecimalError::Precision)
}

fn split_exponent(text: &str) -> Result<(&str, i64), DecimalError> {
    match text.split_once(['E', 'e']) {
        None => Ok((text, 0)),
        Some((mantissa, exponent)) => {
            // Decimal's own exponents fit; anything else is the E of a word such as "NaN" or "Infinity".
            let exponent = exponent.parse().map_err(|_| DecimalError::NotFinite)?;
            Ok((mantissa, exponent))
        }
    }
}

/// The text of an unscaled integer, with exactly `scale` digits after the point.
pub fn format_decimal(unscaled: i128, scale: u8) -> String {
    let digits = unscaled.unsigned_abs().to_string();
    let sign = if unscaled < 0 { "-" } else { "" };
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_to_unscaled() {
        for (text, scale, expected) in [
            ("10", 2, Ok(1000)),
            ("-0.5", 2, Ok(-50)),
            ("1.50", 1, Ok(15)),
            ("1E+3", 2, Ok(100_000)),
            ("12E-4", 4, Ok(12)),
            ("0E-10", 2, Ok(0)),
            ("0E+900000", 2, Ok(0)),
            ("0.005", 2, Err(DecimalError::Scale)),
            ("1E-400", 2, Err(DecimalError::Scale)),
            ("NaN", 2, Err(DecimalError::NotFinite)),
            ("-Infinity", 2, Err(DecimalError::NotFinite)),
            ("1E+400000", 2, Err(DecimalError::Precision)),
            ("12345678901234567", 2, Err(DecimalError::Precision)),
        ] {
            assert_eq!(parse_decimal(text, 18, scale), expected, "{text}");
        }
    }

    #[test]
    fn unscaled_to_text_and_back() {
        for unscaled in [
            0,
            1,
            -1,
            99,
            -100,
            123_456,
            i128::MAX / 10,
            -aurora_page::decimal_max(38),
        ] {
            for scale in [0, 1, 2, 37] {
                assert_eq!(
                    parse_decimal(&format_decimal(unscaled, scale), 38, scale),
                    Ok(unscaled)
                );
            }
        }
        assert_eq!(format_decimal(-5, 2), "-0.05");
    }
}

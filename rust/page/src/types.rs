//! The data types of columns, and their codes on disk.
//!
//! A type is stored as a code (one byte) and a parameter (two bytes). Codes are never reused: a new type takes
//! the next free code.
//!
//! | code | type | parameter |
//! |---|---|---|
//! | 1 | bool | 0 |
//! | 2-5 | int8, int16, int32, int64 | 0 |
//! | 6, 7 | float32, float64 | 0 |
//! | 8 | decimal | precision in the low byte, scale in the high byte |
//! | 9 | date | 0 |
//! | 10 | time | 0 |
//! | 11 | timestamp | 1 with a zone, 0 without |
//! | 12-15 | text, bytes, uuid, json | 0 |

use std::fmt;

/// Most digits a decimal may have: what a signed 128-bit integer holds.
pub const DECIMAL_PRECISION_MAX: u8 = 38;

/// Microseconds of a day: a [`DataType::Time`] is below it.
pub const TIME_US_END: i64 = 24 * 60 * 60 * 1_000_000;

/// The type of a column.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DataType {
    /// True or false.
    Bool,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754, 32 bits.
    Float32,
    /// IEEE 754, 64 bits.
    Float64,
    /// An exact number: an integer of at most `precision` digits, divided by ten to the `scale`.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since midnight, below a day.
    Time,
    /// Microseconds since 1970-01-01 00:00.
    Timestamp {
        /// Whether the value is an instant (in UTC) and not the reading of some local clock.
        zoned: bool,
    },
    /// UTF-8.
    Text,
    /// Any bytes.
    Bytes,
    /// 16 bytes.
    Uuid,
    /// UTF-8 that holds a JSON document, kept as it was given.
    Json,
}

impl DataType {
    /// Bytes of one value in a page, or `None` where the length varies.
    pub const fn fixed_width(self) -> Option<usize> {
        match self {
            DataType::Bool | DataType::Int8 => Some(1),
            DataType::Int16 => Some(2),
            DataType::Int32 | DataType::Float32 | DataType::Date => Some(4),
            DataType::Int64 | DataType::Float64 | DataType::Time | DataType::Timestamp { .. } => {
                Some(8)
            }
            DataType::Decimal { .. } | DataType::Uuid => Some(16),
            DataType::Text | DataType::Bytes | DataType::Json => None,
        }
    }

    /// The code on disk.
    pub const fn code(self) -> u8 {
        match self {
            DataType::Bool => 1,
            DataType::Int8 => 2,
            DataType::Int16 => 3,
            DataType::Int32 => 4,
            DataType::Int64 => 5,
            DataType::Float32 => 6,
            DataType::Float64 => 7,
            DataType::Decimal { .. } => 8,
            DataType::Date => 9,
            DataType::Time => 10,
            DataType::Timestamp { .. } => 11,
            DataType::Text => 12,
            DataType::Bytes => 13,
            DataType::Uuid => 14,
            DataType::Json => 15,
        }
    }

    /// The parameter on disk.
    pub const fn param(self) -> u16 {
        match self {
            DataType::Decimal { precision, scale } => u16::from_le_bytes([precision, scale]),
            DataType::Timestamp { zoned } => zoned as u16,
            _ => 0,
        }
    }

    /// The type of a code and its parameter; `None` if there is no such type.
    pub const fn from_code(code: u8, param: u16) -> Option<DataType> {
        let data_type = match code {
            1 => DataType::Bool,
            2 => DataType::Int8,
            3 => DataType::Int16,
            4 => DataType::Int32,
            5 => DataType::Int64,
            6 => DataType::Float32,
            7 => DataType::Float64,
            8 => {
                let [precision, scale] = param.to_le_bytes();
                DataType::Decimal { precision, scale }
            }
            9 => DataType::Date,
            10 => DataType::Time,
            11 => DataType::Timestamp { zoned: param == 1 },
            12 => DataType::Text,
            13 => DataType::Bytes,
            14 => DataType::Uuid,
            15 => DataType::Json,
            _ => return None,
        };
        if data_type.param() == param && data_type.is_valid() {
            Some(data_type)
        } else {
            None
        }
    }

    /// Whether the parameters are within their limits.
    pub const fn is_valid(self) -> bool {
        match self {
            DataType::Decimal { precision, scale } => {
                1 <= precision && precision <= DECIMAL_PRECISION_MAX && scale <= precision
            }
            _ => true,
        }
    }

    /// Smallest and largest value of an integer type.
    pub const fn int_range(self) -> Option<(i64, i64)> {
        match self {
            DataType::Int8 => Some((i8::MIN as i64, i8::MAX as i64)),
            DataType::Int16 => Some((i16::MIN as i64, i16::MAX as i64)),
            DataType::Int32 => Some((i32::MIN as i64, i32::MAX as i64)),
            DataType::Int64 => Some((i64::MIN, i64::MAX)),
            _ => None,
        }
    }
}

/// The largest unscaled value of a decimal of this precision: 10^precision - 1.
pub const fn decimal_max(precision: u8) -> i128 {
    let digits = if precision > DECIMAL_PRECISION_MAX {
        DECIMAL_PRECISION_MAX
    } else {
        precision
    };
    DECIMAL_MAX[digits as usize]
}

/// By precision; every decimal that is stored is held against it.
const DECIMAL_MAX: [i128; DECIMAL_PRECISION_MAX as usize + 1] = {
    let mut max = [0; DECIMAL_PRECISION_MAX as usize + 1];
    let mut digits = 1;
    while digits < max.len() {
        max[digits] = max[digits - 1] * 10 + 9;
        digits += 1;
    }
    max
};

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            DataType::Bool => "bool",
            DataType::Int8 => "int8",
            DataType::Int16 => "int16",
            DataType::Int32 => "int32",
            DataType::Int64 => "int64",
            DataType::Float32 => "float32",
            DataType::Float64 => "float64",
            DataType::Decimal { precision, scale } => {
                return write!(f, "decimal({precision}, {scale})");
            }
            DataType::Date => "date",
            DataType::Time => "time",
            DataType::Timestamp { zoned: false } => "timestamp",
            DataType::Timestamp { zoned: true } => "timestamp with zone",
            DataType::Text => "text",
            DataType::Bytes => "bytes",
            DataType::Uuid => "uuid",
            DataType::Json => "json",
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_others_are_refused() {
        let mut known = 0;
        for code in 0..=u8::MAX {
            for param in 0..=u16::MAX {
                if let Some(data_type) = DataType::from_code(code, param) {
                    assert_eq!((data_type.code(), data_type.param()), (code, param));
                    assert!(data_type.is_valid());
                    known += 1;
                }
            }
        }
        // 13 types without a parameter, two timestamps, and every scale 0..=p of every precision p.
        let decimals: usize = (1..=38).map(|precision| precision + 1).sum();
        assert_eq!(known, 13 + 2 + decimals);
    }

    #[test]
    fn limits() {
        assert_eq!(decimal_max(2), 99);
        assert_eq!(
            decimal_max(38),
            99_999_999_999_999_999_999_999_999_999_999_999_999
        );
        assert_eq!(DataType::Int8.int_range(), Some((-128, 127)));
        assert_eq!(
            DataType::Decimal {
                precision: 18,
                scale: 2
            }
            .to_string(),
            "decimal(18, 2)"
        );
    }
}

//! Keys as bytes whose order is the order of the typed values.
//!
//! `memcmp` of two encoded keys answers what comparing the key columns one after the other would answer, so a
//! tree compares keys without knowing their types. Each part is:
//!
//! | type | bytes |
//! |---|---|
//! | any, if the column is nullable | first a marker: 0 null (and nothing more), 1 a value follows |
//! | bool | 0 or 1 |
//! | int8-int64, date, time, timestamp, decimal | big-endian, sign bit flipped; 1, 2, 4, 8 or 16 bytes by type |
//! | float32, float64 | big-endian; negative: all bits inverted, else the sign bit flipped |
//! | text, bytes, json | the bytes with 00 written as 00 FF, then 00 00 |
//! | uuid | 16 bytes |
//!
//! Null is before every value. Floats have a total order: -0 is 0, and NaN is one value, after infinity. The
//! bytes of a descending part, marker included, are inverted. No encoded part is a prefix of another of the
//! same column, so the bytes of the first values of a key are a prefix of exactly those keys that begin with
//! these values: that is what a bound of a range is made of.

use smallvec::SmallVec;
use thiserror::Error;

use crate::schema::{Column, Schema, ValueError};
use crate::types::DataType;
use crate::value::{Value, ValueRef};

/// Most bytes of an encoded key: four of the largest keys fit into the smallest inner page many times over.
pub const KEY_BYTES_MAX: usize = 1024;

/// An encoded key; short ones live on the stack.
pub type KeyBuf = SmallVec<[u8; 32]>;

/// Follows an escaped 00 of a varying-length part; the terminator has 00 there, which sorts first.
const ESCAPED: u8 = 0xFF;

/// Why there is no key.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum KeyError {
    /// The encoded key is longer than a page can index.
    #[error("expected a key of at most {KEY_BYTES_MAX} bytes when encoded, got {got}")]
    TooLong {
        /// Its bytes.
        got: usize,
    },
    /// A value that its key column does not take, or a row of the wrong length.
    #[error("key: {0}")]
    Value(#[from] ValueError),
    /// A value in an overflow chain cannot be compared.
    #[error(
        "key column {column:?}: expected a value within the row, got one of {bytes} bytes in an overflow chain"
    )]
    Overflow {
        /// The column's name.
        column: String,
        /// Bytes of the value.
        bytes: u64,
    },
    /// More values than the key has columns.
    #[error("expected at most {expected} key values, got {got}")]
    Count {
        /// Columns of the key.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// Bytes that are no encoded key of the schema.
    #[error("encoded key, byte {offset} (column {column:?}): expected {expected}, got {got}")]
    Encoding {
        /// Where in the key.
        offset: usize,
        /// The column being read.
        column: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        got: String,
    },
}

/// The key of a full row.
pub fn encode_key(schema: &Schema, row: &[Value]) -> Result<KeyBuf, KeyError> {
    encode_key_of(schema, row.len(), |column| row[column].as_ref())
}

/// The key of a full row of borrowed values.
pub fn encode_key_from(schema: &Schema, row: &[ValueRef<'_>]) -> Result<KeyBuf, KeyError> {
    encode_key_of(schema, row.len(), |column| row[column])
}

fn encode_key_of<'v>(
    schema: &Schema,
    row_len: usize,
    value: impl Fn(usize) -> ValueRef<'v>,
) -> Result<KeyBuf, KeyError> {
    if row_len != schema.columns().len() {
        let count = ValueError::Count {
            expected: schema.columns().len(),
            got: row_len,
        };
        return Err(count.into());
    }
    let mut key = KeyBuf::new();
    for part in schema.key() {
        let value = value(usize::from(part.column));
        encode_checked(&mut key, schema.key_column(*part), value, part.descending)?;
    }
    check_length(key)
}

/// A key of the values of its first columns, in the order of the key: all of them for a whole key, fewer for
/// the bound of a range.
pub fn encode_key_values(schema: &Schema, values: &[Value]) -> Result<KeyBuf, KeyError> {
    if values.len() > schema.key().len() {
        return Err(KeyError::Count {
            expected: schema.key().len(),
            got: values.len(),
        });
    }
    let mut key = KeyBuf::new();
    for (part, value) in schema.key().iter().zip(values) {
        encode_checked(
            &mut key,
            schema.key_column(*part),
            value.as_ref(),
            part.descending,
        )?;
    }
    check_length(key)
}

/// What a bound of a range of keys says, which need be no whole key.
#[derive(Clone, PartialEq, Debug)]
pub struct KeyBound {
    /// The values of the first parts.
    pub values: Vec<Value>,
    /// Of the next part, which is a text, bytes or json, the beginning.
    pub begun: Option<String>,
}

/// What a bound of a range of keys says, for a message: keys begin with these values. Numbers that were cut are those of the
/// smallest key that begins so.
pub fn decode_bound(schema: &Schema, key: &[u8]) -> KeyBound {
    let mut bound = KeyBound {
        values: Vec::new(),
        begun: None,
    };
    // A part of fixed width that was cut: nothing sorts before its beginning with zeros behind it.
    const WIDTH_MAX: usize = 17;
    let mut padded = key.to_vec();
    padded.extend_from_slice(&[0; WIDTH_MAX]);
    let mut offset = 0;
    for part in schema.key() {
        if offset >= key.len() {
            break;
        }
        let column = schema.key_column(*part);
        let is_var = column.data_type.fixed_width().is_none();
        let mut reader = PartReader {
            key: if is_var { key } else { &padded },
            offset,
            mask: mask(part.descending),
            column,
        };
        match reader.value() {
            Ok(value) => bound.values.push(value),
            Err(_) if is_var => {
                let start = offset + usize::from(column.nullable);
                let bytes = key[start.min(key.len())..].iter();
                let begun = bytes.map(|byte| byte ^ mask(part.descending));
                let begun: Vec<u8> = begun.take_while(|byte| *byte != 0).collect();
                bound.begun = Some(String::from_utf8_lossy(&begun).into_owned());
                break;
            }
            Err(_) => break,
        }
        offset = reader.offset;
    }
    bound
}

/// The values of a whole encoded key, in the order of the key. Inverse of [`encode_key_values`], except that
/// -0 comes back as 0 and every NaN as the canonical one.
pub fn decode_key(schema: &Schema, key: &[u8]) -> Result<Vec<Value>, KeyError> {
    let mut offset = 0;
    let mut values = Vec::with_capacity(schema.key().len());
    for part in schema.key() {
        let column = schema.key_column(*part);
        let mut reader = PartReader {
            key,
            offset,
            mask: mask(part.descending),
            column,
        };
        let value = reader.value()?;
        column.check(value.as_ref())?;
        values.push(value);
        offset = reader.offset;
    }
    if offset != key.len() {
        return Err(KeyError::Encoding {
            offset,
            column: schema
                .key()
                .last()
                .map_or_else(String::new, |part| schema.key_column(*part).name.clone()),
            expected: "the end",
            got: format!("{} bytes more", key.len() - offset),
        });
    }
    Ok(values)
}

/// The smallest byte string after every key that begins with `prefix`; `None` if no such string exists (the
/// range has no upper end).
pub fn prefix_end(prefix: &[u8]) -> Option<KeyBuf> {
    let last = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = KeyBuf::from_slice(&prefix[..=last]);
    end[last] += 1;
    Some(end)
}

/// Appends one part. The value must be one of the type, and null only if the part is nullable: callers that
/// have not read it from a page check it first.
pub fn encode_part(
    out: &mut KeyBuf,
    data_type: DataType,
    value: ValueRef<'_>,
    nullable: bool,
    descending: bool,
) {
    let start = out.len();
    let is_null = matches!(value, ValueRef::Null);
    debug_assert!(
        nullable || !is_null,
        "null in a key part that is not nullable"
    );
    if nullable {
        out.push(u8::from(!is_null));
    }
    encode_value(out, data_type, value);
    if descending {
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

fn encode_checked(
    out: &mut KeyBuf,
    column: &Column,
    value: ValueRef<'_>,
    descending: bool,
) -> Result<(), KeyError> {
    column.check(value)?;
    if let ValueRef::Overflow(overflow) = value {
        return Err(KeyError::Overflow {
            column: column.name.clone(),
            bytes: overflow.len,
        });
    }
    encode_part(out, column.data_type, value, column.nullable, descending);
    Ok(())
}

fn check_length(key: KeyBuf) -> Result<KeyBuf, KeyError> {
    if key.len() > KEY_BYTES_MAX {
        Err(KeyError::TooLong { got: key.len() })
    } else {
        Ok(key)
    }
}

fn encode_value(out: &mut KeyBuf, data_type: DataType, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => {}
        ValueRef::Bool(value) => out.push(u8::from(value)),
        ValueRef::Int(value) => encode_int(out, data_type, value),
        ValueRef::Float32(value) => out.extend_from_slice(&float32_to_ordered(value).to_be_bytes()),
        ValueRef::Float64(value) => out.extend_from_slice(&float64_to_ordered(value).to_be_bytes()),
        ValueRef::Decimal(value) => out.extend_from_slice(&(value ^ i128::MIN).to_be_bytes()),
        ValueRef::Date(value) => out.extend_from_slice(&(value ^ i32::MIN).to_be_bytes()),
        ValueRef::Time(value) | ValueRef::Timestamp(value) => {
            out.extend_from_slice(&(value ^ i64::MIN).to_be_bytes());
        }
        ValueRef::Text(value) | ValueRef::Json(value) => encode_escaped(out, value.as_bytes()),
        ValueRef::Bytes(value) => encode_escaped(out, value),
        ValueRef::Uuid(value) => out.extend_from_slice(&value),
        ValueRef::Overflow(_) => debug_assert!(false, "an overflow value in a key"),
    }
}

fn encode_int(out: &mut KeyBuf, data_type: DataType, value: i64) {
    let width = data_type.fixed_width().unwrap_or(size_of::<i64>());
    debug_assert!(
        data_type
            .int_range()
            .is_some_and(|(min, max)| (min..=max).contains(&value))
    );
    let mut bytes = value.to_be_bytes();
    let start = bytes.len() - width;
    bytes[start] ^= 0x80;
    out.extend_from_slice(&bytes[start..]);
}

fn encode_escaped(out: &mut KeyBuf, bytes: &[u8]) {
    let mut runs = bytes.split(|byte| *byte == 0);
    out.extend_from_slice(runs.next().unwrap_or_default());
    for run in runs {
        out.extend_from_slice(&[0, ESCAPED]);
        out.extend_from_slice(run);
    }
    out.extend_from_slice(&[0, 0]);
}

const SIGN32: u32 = 1 << 31;
const SIGN64: u64 = 1 << 63;

/// Unsigned order of the result is the key order of the floats.
fn float32_to_ordered(value: f32) -> u32 {
    let canonical = if value.is_nan() {
        f32::NAN.to_bits() & !SIGN32
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    if canonical & SIGN32 != 0 {
        !canonical
    } else {
        canonical | SIGN32
    }
}

/// Unsigned order of the result is the key order of the floats.
pub(crate) fn float64_to_ordered(value: f64) -> u64 {
    let canonical = if value.is_nan() {
        f64::NAN.to_bits() & !SIGN64
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    if canonical & SIGN64 != 0 {
        !canonical
    } else {
        canonical | SIGN64
    }
}

fn float32_from_ordered(ordered: u32) -> f32 {
    f32::from_bits(if ordered & SIGN32 != 0 {
        ordered & !SIGN32
    } else {
        !ordered
    })
}

fn float64_from_ordered(ordered: u64) -> f64 {
    f64::from_bits(if ordered & SIGN64 != 0 {
        ordered & !SIGN64
    } else {
        !ordered
    })
}

const fn mask(descending: bool) -> u8 {
    if descending { 0xFF } else { 0 }
}

/// Reads one part; every byte is inverted by the mask first.
struct PartReader<'a> {
    key: &'a [u8],
    offset: usize,
    mask: u8,
    column: &'a Column,
}

impl PartReader<'_> {
    fn value(&mut self) -> Result<Value, KeyError> {
        if self.column.nullable && !self.flag("a null marker, 0 or 1")? {
            return Ok(Value::Null);
        }
        Ok(match self.column.data_type {
            DataType::Bool => Value::Bool(self.flag("a bool, 0 or 1")?),
            DataType::Int8 => Value::Int(i64::from(i8::from_be_bytes(self.array()?) ^ i8::MIN)),
            DataType::Int16 => Value::Int(i64::from(i16::from_be_bytes(self.array()?) ^ i16::MIN)),
            DataType::Int32 => Value::Int(i64::from(i32::from_be_bytes(self.array()?) ^ i32::MIN)),
            DataType::Int64 => Value::Int(self.int64()?),
            DataType::Float32 => {
                Value::Float32(float32_from_ordered(u32::from_be_bytes(self.array()?)))
            }
            DataType::Float64 => {
                Value::Float64(float64_from_ordered(u64::from_be_bytes(self.array()?)))
            }
            DataType::Decimal { .. } => {
                Value::Decimal(i128::from_be_bytes(self.array()?) ^ i128::MIN)
            }
            DataType::Date => Value::Date(i32::from_be_bytes(self.array()?) ^ i32::MIN),
            DataType::Time => Value::Time(self.int64()?),
            DataType::Timestamp { .. } => Value::Timestamp(self.int64()?),
            DataType::Text => Value::Text(self.text()?),
            DataType::Bytes => Value::Bytes(self.escaped()?),
            DataType::Uuid => Value::Uuid(self.array()?),
            DataType::Json => Value::Json(self.text()?),
        })
    }

    fn int64(&mut self) -> Result<i64, KeyError> {
        Ok(i64::from_be_bytes(self.array()?) ^ i64::MIN)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], KeyError> {
        let Some(bytes) = self.key.get(self.offset..self.offset + N) else {
            return Err(self.wrong("a value of its type", self.end()));
        };
        self.offset += N;
        let mut array = [0; N];
        array
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = from ^ self.mask);
        Ok(array)
    }

    fn flag(&mut self, expected: &'static str) -> Result<bool, KeyError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => {
                self.offset -= 1;
                Err(self.wrong(expected, other.to_string()))
            }
        }
    }

    fn escaped(&mut self) -> Result<Vec<u8>, KeyError> {
        let mut out = Vec::new();
        loop {
            let rest = &self.key[self.offset..];
            let Some(run) = rest.iter().position(|byte| byte ^ self.mask == 0) else {
                return Err(self.wrong("a terminator", self.end()));
            };
            out.extend(rest[..run].iter().map(|byte| byte ^ self.mask));
            self.offset += run;
            match self.array()? {
                [0, 0] => return Ok(out),
                [0, ESCAPED] => out.push(0),
                [_, other] => {
                    self.offset -= 1;
                    return Err(self.wrong("00 or FF after 00", format!("{other:02X}")));
                }
            }
        }
    }

    fn text(&mut self) -> Result<String, KeyError> {
        let start = self.offset;
        String::from_utf8(self.escaped()?).map_err(|error| {
            self.offset = start;
            self.wrong("UTF-8", error.utf8_error().to_string())
        })
    }

    fn end(&self) -> String {
        format!(
            "the end after {} bytes",
            self.key.len().saturating_sub(self.offset)
        )
    }

    fn wrong(&self, expected: &'static str, got: String) -> KeyError {
        KeyError::Encoding {
            offset: self.offset,
            column: self.column.name.clone(),
            expected,
            got,
        }
    }
}

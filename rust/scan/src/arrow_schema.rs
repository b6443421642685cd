//! Our schemas as Arrow schemas, and Arrow's as ours.
//!
//! What we give:
//!
//! | ours | Arrow |
//! |---|---|
//! | bool, int8-int64, float32, float64 | the same |
//! | decimal(p, s) | Decimal128(p, s) |
//! | date | Date32 |
//! | time | Time64(us) |
//! | timestamp, with a zone | Timestamp(us), Timestamp(us, "UTC") |
//! | text, bytes | Utf8, Binary |
//! | uuid | FixedSizeBinary(16) with the extension arrow.uuid |
//! | json | Utf8 with the extension arrow.json |
//!
//! What we take is wider: every type whose values all have a place in one of ours, and those where each value is
//! checked (nanoseconds must be whole microseconds, Date64 whole days).

use std::collections::HashMap;

use arrow_schema::{DataType as Arrow, Field, TimeUnit};
use aurora_page::{Column, DECIMAL_PRECISION_MAX, DataType, KeyPart, Schema, SchemaError};
use thiserror::Error;

const EXTENSION_NAME: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
const UUID_EXTENSION: &str = "arrow.uuid";
const JSON_EXTENSION: &str = "arrow.json";

/// Decimal digits that hold every unsigned 64-bit integer.
const UINT64_DIGITS: u8 = 20;

/// The zone of the timestamps that we give.
pub const TIMESTAMP_ZONE: &str = "UTC";

/// Why an Arrow schema is none of ours.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum ArrowSchemaError {
    /// A type that no type of ours can hold.
    #[error("column {column:?}: expected {TAKEN}, got {got}")]
    Type {
        /// The field's name.
        column: String,
        /// Its type.
        got: Arrow,
    },
    /// A key names a column that is not there.
    #[error("expected key columns among {columns:?}, got {got:?}")]
    KeyColumn {
        /// The names there are.
        columns: Vec<String>,
        /// The name that is not there.
        got: String,
    },
    /// More fields than a table can have columns.
    #[error("expected at most 65535 fields, got {got}")]
    FieldCount {
        /// How many there are.
        got: usize,
    },
    /// The columns do not make a table.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

const TAKEN: &str = "bool, an integer, a float, a decimal of at most 38 digits, date, time, timestamp, utf8, binary, \
                     or a dictionary of one of these";

/// The Arrow schema of a table.
pub fn to_arrow_schema(schema: &Schema) -> arrow_schema::Schema {
    arrow_schema::Schema::new(
        schema
            .columns()
            .iter()
            .map(to_arrow_field)
            .collect::<Vec<_>>(),
    )
}

/// The Arrow field of a column.
pub fn to_arrow_field(column: &Column) -> Field {
    let field = Field::new(
        &column.name,
        to_arrow_type(column.data_type),
        column.nullable,
    );
    match column.data_type {
        DataType::Uuid => field.with_metadata(extension(UUID_EXTENSION)),
        DataType::Json => field.with_metadata(extension(JSON_EXTENSION)),
        _ => field,
    }
}

/// The Arrow type of the values of a column.
pub fn to_arrow_type(data_type: DataType) -> Arrow {
    match data_type {
        DataType::Bool => Arrow::Boolean,
        DataType::Int8 => Arrow::Int8,
        DataType::Int16 => Arrow::Int16,
        DataType::Int32 => Arrow::Int32,
        DataType::Int64 => Arrow::Int64,
        DataType::Float32 => Arrow::Float32,
        DataType::Float64 => Arrow::Float64,
        DataType::Decimal { precision, scale } => Arrow::Decimal128(precision, scale as i8),
        DataType::Date => Arrow::Date32,
        DataType::Time => Arrow::Time64(TimeUnit::Microsecond),
        DataType::Timestamp { zoned } => {
            Arrow::Timestamp(TimeUnit::Microsecond, zoned.then(|| TIMESTAMP_ZONE.into()))
        }
        DataType::Text | DataType::Json => Arrow::Utf8,
        DataType::Bytes => Arrow::Binary,
        DataType::Uuid => Arrow::FixedSizeBinary(16),
    }
}

fn extension(name: &str) -> HashMap<String, String> {
    HashMap::from([
        (EXTENSION_NAME.to_owned(), name.to_owned()),
        (EXTENSION_METADATA.to_owned(), String::new()),
    ])
}

/// Our schema for an Arrow one. The key is given by column names, each with whether it descends; column ids
/// count from 0.
///
/// A key column is never nullable here unless its field is.
pub fn from_arrow_schema(
    arrow: &arrow_schema::Schema,
    version: u32,
    key: &[(&str, bool)],
) -> Result<Schema, ArrowSchemaError> {
    let fields = arrow.fields();
    if fields.len() > usize::from(u16::MAX) {
        return Err(ArrowSchemaError::FieldCount { got: fields.len() });
    }
    let columns = (0..)
        .zip(fields)
        .map(|(id, field)| column(id, field))
        .collect::<Result<Vec<_>, _>>()?;
    let parts = key
        .iter()
        .map(|part| key_part(&columns, *part))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Schema::new(version, columns, parts)?)
}

fn column(id: u16, field: &Field) -> Result<Column, ArrowSchemaError> {
    let data_type = from_arrow_field(field)?;
    Ok(Column {
        id,
        name: field.name().clone(),
        data_type,
        nullable: field.is_nullable(),
    })
}

fn key_part(
    columns: &[Column],
    (name, descending): (&str, bool),
) -> Result<KeyPart, ArrowSchemaError> {
    let index = columns
        .iter()
        .position(|column| column.name == name)
        .ok_or_else(|| {
            let columns = columns.iter().map(|column| column.name.clone()).collect();
            ArrowSchemaError::KeyColumn {
                columns,
                got: name.to_owned(),
            }
        })?;
    Ok(KeyPart {
        column: index as u16,
        descending,
    })
}

/// Our type for the values of an Arrow field.
pub fn from_arrow_field(field: &Field) -> Result<DataType, ArrowSchemaError> {
    let extension = field.metadata().get(EXTENSION_NAME).map(String::as_str);
    from_arrow_type(field.data_type(), extension).ok_or_else(|| ArrowSchemaError::Type {
        column: field.name().clone(),
        got: field.data_type().clone(),
    })
}

fn from_arrow_type(arrow: &Arrow, extension: Option<&str>) -> Option<DataType> {
    Some(match arrow {
        Arrow::Boolean => DataType::Bool,
        Arrow::Int8 => DataType::Int8,
        Arrow::Int16 | Arrow::UInt8 => DataType::Int16,
        Arrow::Int32 | Arrow::UInt16 => DataType::Int32,
        Arrow::Int64 | Arrow::UInt32 => DataType::Int64,
        Arrow::UInt64 => DataType::Decimal {
            precision: UINT64_DIGITS,
            scale: 0,
        },
        Arrow::Float16 | Arrow::Float32 => DataType::Float32,
        Arrow::Float64 => DataType::Float64,
        Arrow::Decimal32(precision, scale)
        | Arrow::Decimal64(precision, scale)
        | Arrow::Decimal128(precision, scale)
        | Arrow::Decimal256(precision, scale) => decimal(*precision, *scale)?,
        Arrow::Date32 | Arrow::Date64 => DataType::Date,
        Arrow::Time32(_) | Arrow::Time64(_) => DataType::Time,
        Arrow::Timestamp(_, zone) => DataType::Timestamp {
            zoned: zone.is_some(),
        },
        Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => {
            if extension == Some(JSON_EXTENSION) {
                DataType::Json
            } else {
                DataType::Text
            }
        }
        Arrow::FixedSizeBinary(16) if extension == Some(UUID_EXTENSION) => DataType::Uuid,
        Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => {
            DataType::Bytes
        }
        Arrow::Dictionary(_, values) => from_arrow_type(values, extension)?,
        _ => return None,
    })
}

/// A negative scale means zeros before the point, which become digits.
fn decimal(precision: u8, scale: i8) -> Option<DataType> {
    let zeros = u8::try_from(-i16::from(scale)).unwrap_or(0);
    let digits = precision.checked_add(zeros)?;
    let scale = u8::try_from(scale).unwrap_or(0);
    // Arrow allows more digits after the point than there are digits.
    let precision = digits.max(scale);
    (precision <= DECIMAL_PRECISION_MAX).then_some(DataType::Decimal { precision, scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_types() -> Vec<DataType> {
        let decimals = [(1, 0), (18, 2), (38, 38)];
        let decimals = decimals.map(|(precision, scale)| DataType::Decimal { precision, scale });
        (1..=15)
            .flat_map(|code| [0, 1].map(|param| DataType::from_code(code, param)))
            .flatten()
            .filter(|data_type| !matches!(data_type, DataType::Decimal { .. }))
            .chain(decimals)
            .collect()
    }

    #[test]
    fn every_type_comes_back() {
        let columns: Vec<Column> = (0..)
            .zip(all_types())
            .map(|(id, data_type)| Column {
                id,
                name: format!("c{id}"),
                data_type,
                nullable: id % 2 == 1,
            })
            .collect();
        assert_eq!(columns.len(), 18);
        let key = vec![
            KeyPart {
                column: 4,
                descending: true,
            },
            KeyPart {
                column: 0,
                descending: false,
            },
        ];
        let schema = Schema::new(3, columns, key).unwrap();
        let arrow = to_arrow_schema(&schema);
        assert_eq!(
            from_arrow_schema(&arrow, 3, &[("c4", true), ("c0", false)]),
            Ok(schema)
        );
    }

    #[test]
    fn wider_types_are_taken() {
        let dictionary = |values| Arrow::Dictionary(Box::new(Arrow::Int32), Box::new(values));
        let cases = [
            (Arrow::UInt8, "int16"),
            (Arrow::UInt32, "int64"),
            (Arrow::UInt64, "decimal(20, 0)"),
            (Arrow::Float16, "float32"),
            (Arrow::Decimal32(9, 2), "decimal(9, 2)"),
            (Arrow::Decimal128(5, -3), "decimal(8, 0)"),
            (Arrow::Decimal128(2, 5), "decimal(5, 5)"),
            (Arrow::Decimal256(38, 0), "decimal(38, 0)"),
            (Arrow::Date64, "date"),
            (Arrow::Time32(TimeUnit::Second), "time"),
            (Arrow::Timestamp(TimeUnit::Nanosecond, None), "timestamp"),
            (
                Arrow::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())),
                "timestamp with zone",
            ),
            (Arrow::LargeUtf8, "text"),
            (Arrow::Utf8View, "text"),
            (Arrow::BinaryView, "bytes"),
            (Arrow::FixedSizeBinary(16), "bytes"),
            (dictionary(Arrow::LargeUtf8), "text"),
            (dictionary(Arrow::Int8), "int8"),
        ];
        for (arrow, expected) in cases {
            let field = Field::new("c", arrow, true);
            assert_eq!(
                from_arrow_field(&field).unwrap().to_string(),
                expected,
                "{field:?}"
            );
        }
    }

    #[test]
    fn others_are_refused() {
        for arrow in [
            Arrow::Null,
            Arrow::Decimal256(39, 0),
            Arrow::Duration(TimeUnit::Second),
        ] {
            let error = from_arrow_field(&Field::new("c", arrow.clone(), true)).unwrap_err();
            assert_eq!(
                error,
                ArrowSchemaError::Type {
                    column: "c".into(),
                    got: arrow
                }
            );
            assert!(
                error
                    .to_string()
                    .starts_with("column \"c\": expected bool, an integer"),
                "{error}"
            );
        }
        let arrow = arrow_schema::Schema::new(vec![Field::new("a", Arrow::Int8, false)]);
        let error = from_arrow_schema(&arrow, 1, &[("b", false)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected key columns among [\"a\"], got \"b\""
        );
        let error = from_arrow_schema(&arrow, 1, &[]).unwrap_err();
        assert_eq!(error, ArrowSchemaError::Schema(SchemaError::NoKey));
    }
}

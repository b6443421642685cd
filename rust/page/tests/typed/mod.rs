//! Random schemas and rows of every type, and the order of typed values written down without the key encoding.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::cmp::Ordering;

use aurora_page::{Column, DataType, KeyPart, Schema, TIME_US_END, Value, decimal_max};
use proptest::prelude::*;

/// Any type.
pub fn data_type() -> impl Strategy<Value = DataType> {
    prop_oneof![
        Just(DataType::Bool),
        Just(DataType::Int8),
        Just(DataType::Int16),
        Just(DataType::Int32),
        Just(DataType::Int64),
        Just(DataType::Float32),
        Just(DataType::Float64),
        (1u8..=38).prop_flat_map(|precision| {
            (0..=precision).prop_map(move |scale| DataType::Decimal { precision, scale })
        }),
        Just(DataType::Date),
        Just(DataType::Time),
        any::<bool>().prop_map(|zoned| DataType::Timestamp { zoned }),
        Just(DataType::Text),
        Just(DataType::Bytes),
        Just(DataType::Uuid),
        Just(DataType::Json),
    ]
}

/// An integer of the range: its ends, near zero, or any.
fn int(min: i64, max: i64) -> impl Strategy<Value = i64> {
    prop_oneof![Just(min), Just(max), -2i64..=2, min..=max]
}

fn float64() -> impl Strategy<Value = f64> {
    let special = [
        0.0,
        -0.0,
        1.5,
        -1.5,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
    ];
    prop_oneof![
        prop::sample::select(special.to_vec()),
        any::<f64>(),
        any::<u64>().prop_map(f64::from_bits)
    ]
}

/// Short strings over few characters, so that prefixes, equal values and 00 are frequent.
fn text() -> impl Strategy<Value = String> {
    let short = prop::collection::vec(
        prop::sample::select(vec!['\0', '\u{1}', 'a', 'é', '\u{10FFFF}']),
        0..5,
    );
    prop_oneof![short.prop_map(String::from_iter), "\\PC{0,40}"]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, 0x61, 0xFE, 0xFF]), 0..6)
}

/// A value of the type, never null.
pub fn value_of(data_type: DataType) -> BoxedStrategy<Value> {
    match data_type {
        DataType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        DataType::Float32 => float64()
            .prop_map(|value| Value::Float32(value as f32))
            .boxed(),
        DataType::Float64 => float64().prop_map(Value::Float64).boxed(),
        DataType::Decimal { precision, .. } => {
            let max = decimal_max(precision);
            let near = max.min(2);
            prop_oneof![Just(-max), Just(max), -near..=near, -max..=max]
                .prop_map(Value::Decimal)
                .boxed()
        }
        DataType::Date => int(i32::MIN.into(), i32::MAX.into())
            .prop_map(|days| Value::Date(days as i32))
            .boxed(),
        DataType::Time => (0..TIME_US_END).prop_map(Value::Time).boxed(),
        DataType::Timestamp { .. } => int(i64::MIN, i64::MAX).prop_map(Value::Timestamp).boxed(),
        DataType::Text => text().prop_map(Value::Text).boxed(),
        DataType::Bytes => bytes().prop_map(Value::Bytes).boxed(),
        DataType::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        DataType::Json => text()
            .prop_map(|text| Value::Json(format!("{text:?}")))
            .boxed(),
        _ => {
            let (min, max) = data_type.int_range().expect("only integers are left");
            int(min, max).prop_map(Value::Int).boxed()
        }
    }
}

/// A value of the column.
pub fn value(column: &Column) -> BoxedStrategy<Value> {
    if column.nullable {
        prop_oneof![1 => Just(Value::Null), 3 => value_of(column.data_type)].boxed()
    } else {
        value_of(column.data_type)
    }
}

/// A row of the schema.
pub fn row(schema: &Schema) -> impl Strategy<Value = Vec<Value>> + use<> {
    schema.columns().iter().map(value).collect::<Vec<_>>()
}

/// A schema of up to `columns_max` columns with a key of some of them, in any order and direction.
pub fn schema(columns_max: usize) -> impl Strategy<Value = Schema> {
    prop::collection::vec((data_type(), any::<bool>()), 1..=columns_max).prop_flat_map(|types| {
        let columns: Vec<Column> = types
            .into_iter()
            .enumerate()
            .map(|(index, (data_type, nullable))| Column {
                id: index as u16 * 3 + 1,
                name: format!("c{index}"),
                data_type,
                nullable,
            })
            .collect();
        let indexes: Vec<u16> = (0..columns.len() as u16).collect();
        let order = Just(indexes).prop_shuffle();
        let parts_max = columns.len().min(4);
        (
            Just(columns),
            order,
            prop::collection::vec(any::<bool>(), 1..=parts_max),
        )
            .prop_map(|(columns, order, descending)| {
                let key = order
                    .into_iter()
                    .zip(descending)
                    .map(|(column, descending)| KeyPart { column, descending })
                    .collect();
                Schema::new(1, columns, key).expect("a valid schema")
            })
    })
}

/// The order of two values of one column, ascending.
pub fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Float32(left), Value::Float32(right)) => {
            compare_floats((*left).into(), (*right).into())
        }
        (Value::Float64(left), Value::Float64(right)) => compare_floats(*left, *right),
        (Value::Decimal(left), Value::Decimal(right)) => left.cmp(right),
        (Value::Date(left), Value::Date(right)) => left.cmp(right),
        (Value::Time(left), Value::Time(right)) => left.cmp(right),
        (Value::Timestamp(left), Value::Timestamp(right)) => left.cmp(right),
        (Value::Text(left), Value::Text(right)) | (Value::Json(left), Value::Json(right)) => {
            left.as_bytes().cmp(right.as_bytes())
        }
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        (Value::Uuid(left), Value::Uuid(right)) => left.cmp(right),
        _ => panic!("{left:?} and {right:?} are of two types"),
    }
}

fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right)
        .unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

/// The order of two lists of key values, which may be prefixes of a whole key.
pub fn compare_keys(schema: &Schema, left: &[Value], right: &[Value]) -> Ordering {
    for (part, (left, right)) in schema.key().iter().zip(left.iter().zip(right)) {
        let order = compare(left, right);
        let order = if part.descending {
            order.reverse()
        } else {
            order
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// The key values of a row.
pub fn key_values(schema: &Schema, row: &[Value]) -> Vec<Value> {
    schema
        .key()
        .iter()
        .map(|part| row[usize::from(part.column)].clone())
        .collect()
}

/// Equal, where -0 is not 0 and a NaN is itself: what a page must give back.
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Float32(left), Value::Float32(right)) => left.to_bits() == right.to_bits(),
        (Value::Float64(left), Value::Float64(right)) => left.to_bits() == right.to_bits(),
        _ => left == right,
    }
}

//! Schemas and rows that several test files use.
#![allow(dead_code, reason = "each test file uses a part of it")]

use aurora_page::*;
use proptest::prelude::*;

pub fn column(id: u16, name: &str, data_type: DataType, nullable: bool) -> Column {
    Column {
        id,
        name: name.into(),
        data_type,
        nullable,
    }
}

pub fn key(column: u16) -> KeyPart {
    KeyPart {
        column,
        descending: false,
    }
}

/// One column of every type; the key is the int64 in front.
pub fn wide_schema() -> Schema {
    let types = [
        DataType::Bool,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal {
            precision: 38,
            scale: 4,
        },
        DataType::Date,
        DataType::Time,
        DataType::Timestamp { zoned: true },
        DataType::Uuid,
        DataType::Text,
        DataType::Bytes,
        DataType::Json,
    ];
    let mut columns = vec![column(1, "id", DataType::Int64, false)];
    for (index, data_type) in types.into_iter().enumerate() {
        let id = index as u16 + 2;
        columns.push(column(id, &format!("c{id}"), data_type, index % 2 == 0));
    }
    Schema::new(7, columns, vec![key(0)]).unwrap()
}

/// A table with texts, a descending and a nullable key part.
pub fn compound_schema() -> Schema {
    let columns = vec![
        column(10, "note", DataType::Text, true),
        column(11, "name", DataType::Text, false),
        column(12, "rank", DataType::Int16, true),
        column(13, "score", DataType::Float64, true),
    ];
    let parts = vec![
        key(1),
        KeyPart {
            column: 2,
            descending: true,
        },
    ];
    Schema::new(1, columns, parts).unwrap()
}

pub fn leaf(schema: &Schema, page_bytes: usize, capacity: u16) -> Page {
    let mut page = Page::empty(PageId(42), page_bytes);
    format_leaf(&mut page, ObjectId(5), &leaf_layout(schema, capacity)).unwrap();
    page
}

/// Any value that a column may hold. Texts are short, and sometimes hold zero bytes.
pub fn value_for(column: &Column) -> BoxedStrategy<Value> {
    let some = match column.data_type {
        DataType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        DataType::Int8 => any::<i8>().prop_map(|v| Value::Int(v.into())).boxed(),
        DataType::Int16 => any::<i16>().prop_map(|v| Value::Int(v.into())).boxed(),
        DataType::Int32 => any::<i32>().prop_map(|v| Value::Int(v.into())).boxed(),
        DataType::Int64 => any::<i64>().prop_map(Value::Int).boxed(),
        // NaN is left out: the model compares rows with `==`.
        DataType::Float32 => any::<f32>().prop_map(Value::Float32).boxed(),
        DataType::Float64 => any::<f64>().prop_map(Value::Float64).boxed(),
        DataType::Decimal { precision, .. } => {
            let max = decimal_max(precision);
            (-max..=max).prop_map(Value::Decimal).boxed()
        }
        DataType::Date => any::<i32>().prop_map(Value::Date).boxed(),
        DataType::Time => (0..TIME_US_END).prop_map(Value::Time).boxed(),
        DataType::Timestamp { .. } => any::<i64>().prop_map(Value::Timestamp).boxed(),
        DataType::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        DataType::Text => "[a-c\\x00é]{0,24}".prop_map(Value::Text).boxed(),
        DataType::Json => "\\{\"k\": [0-9]{1,20}\\}".prop_map(Value::Json).boxed(),
        DataType::Bytes => prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
            1 => any::<(u64, u64)>().prop_map(|(first, len)| {
                Value::Overflow(OverflowRef { first: PageId(first), len })
            }),
        ]
        .boxed(),
    };
    if column.nullable {
        prop_oneof![3 => some, 1 => Just(Value::Null)].boxed()
    } else {
        some
    }
}

pub fn row_for(schema: &Schema) -> BoxedStrategy<Vec<Value>> {
    schema
        .columns()
        .iter()
        .map(value_for)
        .collect::<Vec<_>>()
        .boxed()
}

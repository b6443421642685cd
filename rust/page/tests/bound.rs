//! Bounds of ranges for messages: whole keys, first values, separators that were cut, and ends of what begins with a prefix.

use aurora_page::{
    Column, DataType, KeyPart, Schema, Value, decode_bound, encode_key_values, prefix_end,
};

fn schema() -> Schema {
    let column = |id: u16, name: &str, data_type, nullable| Column {
        id,
        name: name.to_owned(),
        data_type,
        nullable,
    };
    let columns = vec![
        column(0, "name", DataType::Text, true),
        column(1, "number", DataType::Int64, false),
        column(2, "down", DataType::Text, false),
    ];
    let part = |column: u16, descending| KeyPart { column, descending };
    Schema::new(
        1,
        columns,
        vec![part(0, false), part(1, false), part(2, true)],
    )
    .unwrap()
}

fn values() -> Vec<Value> {
    vec![
        Value::Text("bob".into()),
        Value::Int(7),
        Value::Text("x".into()),
    ]
}

#[test]
fn first_values_come_back() {
    let schema = schema();
    for count in 0..=3 {
        let key = encode_key_values(&schema, &values()[..count]).unwrap();
        let bound = decode_bound(&schema, &key);
        assert_eq!(
            (bound.values, bound.begun),
            (values()[..count].to_vec(), None)
        );
    }
}

#[test]
fn the_end_of_a_prefix_is_the_next_number_or_a_text_that_begins_so() {
    let schema = schema();
    let end = |count: usize| {
        let key = encode_key_values(&schema, &values()[..count]).unwrap();
        decode_bound(&schema, &prefix_end(&key).unwrap())
    };
    let bound = end(1);
    assert_eq!(
        (bound.values.len(), bound.begun.as_deref()),
        (0, Some("bob"))
    );
    let bound = end(2);
    assert_eq!(bound.values, [Value::Text("bob".into()), Value::Int(8)]);
}

/// However a key is cut, what is shown are values that it begins with, or the smallest ones that may follow.
#[test]
fn a_key_that_was_cut_anywhere_is_shown() {
    let schema = schema();
    let key = encode_key_values(&schema, &values()).unwrap();
    for len in 0..key.len() {
        let bound = decode_bound(&schema, &key[..len]);
        assert!(bound.values.len() <= 3);
        let (whole, shown) = (values(), bound.values.clone());
        let exact = shown.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        // Only the last number may be another: that of the smallest key.
        assert!(shown.len() - exact <= 1, "cut at {len}: {bound:?}");
        if let Some(begun) = &bound.begun {
            assert!("bob".starts_with(begun.as_str()) || "x".starts_with(begun.as_str()));
        }
    }
}

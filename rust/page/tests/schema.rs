//! Schemas: what is refused, the form on disk, the check of rows.

mod typed;

use aurora_page::{Column, DataType, KeyPart, Schema, SchemaError, TIME_US_END, Value};
use proptest::prelude::*;

fn column(id: u16, name: &str, data_type: DataType, nullable: bool) -> Column {
    Column {
        id,
        name: name.into(),
        data_type,
        nullable,
    }
}

const FIRST: KeyPart = KeyPart {
    column: 0,
    descending: false,
};

fn accounts() -> Schema {
    let columns = vec![
        column(1, "id", DataType::Int32, false),
        column(2, "owner", DataType::Text, true),
        column(
            3,
            "balance",
            DataType::Decimal {
                precision: 5,
                scale: 2,
            },
            false,
        ),
        column(4, "opened", DataType::Time, true),
    ];
    Schema::new(
        7,
        columns,
        vec![
            FIRST,
            KeyPart {
                column: 2,
                descending: true,
            },
        ],
    )
    .unwrap()
}

#[test]
fn the_form_on_disk_stays() {
    let expected = [
        &[1, 7, 0, 0, 0, 4, 0, 2, 0][..],
        &[1, 0, 4, 0, 0, 0, 2, b'i', b'd'],
        &[2, 0, 12, 0, 0, 1, 5, b'o', b'w', b'n', b'e', b'r'],
        &[
            3, 0, 8, 5, 2, 0, 7, b'b', b'a', b'l', b'a', b'n', b'c', b'e',
        ],
        &[4, 0, 10, 0, 0, 1, 6, b'o', b'p', b'e', b'n', b'e', b'd'],
        &[0, 0, 0, 2, 0, 1],
    ]
    .concat();
    assert_eq!(accounts().encode(), expected);
    assert_eq!(Schema::decode(&expected), Ok(accounts()));
}

#[test]
fn what_is_no_schema() {
    let int = |id, name| column(id, name, DataType::Int8, false);
    let new = |columns, key| Schema::new(1, columns, key).unwrap_err();
    assert_eq!(
        new(vec![], vec![FIRST]),
        SchemaError::ColumnCount { got: 0 }
    );
    assert_eq!(
        new(vec![int(1, "a"), int(2, "a")], vec![FIRST]),
        SchemaError::DuplicateColumn { name: "a".into() }
    );
    assert_eq!(
        new(vec![int(1, "a"), int(1, "b")], vec![FIRST]),
        SchemaError::DuplicateId { id: 1 }
    );
    assert_eq!(
        new(vec![int(1, "")], vec![FIRST]),
        SchemaError::ColumnName {
            name: String::new(),
            got: 0
        }
    );
    assert_eq!(new(vec![int(1, "a")], vec![]), SchemaError::NoKey);
    let other = KeyPart {
        column: 1,
        descending: false,
    };
    assert_eq!(
        new(vec![int(1, "a")], vec![FIRST, other]),
        SchemaError::BadKey {
            part: 1,
            column: 1,
            columns: 1
        }
    );
    assert_eq!(
        new(vec![int(1, "a")], vec![FIRST, FIRST]),
        SchemaError::BadKey {
            part: 1,
            column: 0,
            columns: 1
        }
    );
    let decimal = DataType::Decimal {
        precision: 4,
        scale: 5,
    };
    let error = new(vec![column(1, "d", decimal, false)], vec![FIRST]);
    assert_eq!(
        error,
        SchemaError::BadType {
            column: "d".into(),
            got: decimal
        }
    );
}

#[test]
fn rows_are_checked() {
    let schema = accounts();
    let good = [
        Value::Int(-5),
        Value::Null,
        Value::Decimal(-99_999),
        Value::Time(0),
    ];
    assert_eq!(schema.check_row(&good), Ok(()));
    let with = |index: usize, value: Value| {
        let mut row = good.clone();
        row[index] = value;
        schema.check_row(&row).unwrap_err().to_string()
    };
    assert_eq!(
        with(0, Value::Null),
        "column \"id\": expected int32 (-2147483648 to 2147483647), got null"
    );
    assert_eq!(
        with(0, Value::Int(1 << 31)),
        "column \"id\": expected int32 (-2147483648 to 2147483647), got int 2147483648"
    );
    assert_eq!(
        with(1, Value::Bytes(vec![1])),
        "column \"owner\": expected text or null, got bytes, 1 of them"
    );
    assert_eq!(
        with(2, Value::Decimal(100_000)),
        "column \"balance\": expected decimal(5, 2) (at most 5 digits), got decimal with digits 100000"
    );
    assert!(with(2, Value::Decimal(i128::MIN)).contains("at most 5 digits"));
    assert!(with(3, Value::Time(TIME_US_END)).contains("below 24 hours"));
    assert!(with(3, Value::Time(-1)).contains("below 24 hours"));
    let short = schema.check_row(&good[1..]).unwrap_err().to_string();
    assert_eq!(short, "expected a row of 4 values, got 3");
}

proptest! {
    #[test]
    fn schemas_round_trip(schema in typed::schema(12)) {
        prop_assert_eq!(Schema::decode(&schema.encode()), Ok(schema));
    }

    #[test]
    fn damaged_schemas_never_panic(schema in typed::schema(5), at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut bytes = schema.encode();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
            prop_assert!(Schema::decode(&bytes).is_err());
        } else {
            bytes[at] = byte;
            if let Ok(other) = Schema::decode(&bytes) {
                prop_assert_eq!(other.encode(), bytes);
            }
        }
    }

    #[test]
    fn rows_of_a_schema_pass((schema, row) in typed::schema(8).prop_flat_map(|schema| (typed::row(&schema), Just(schema)).prop_map(|(row, schema)| (schema, row)))) {
        prop_assert_eq!(schema.check_row(&row), Ok(()));
    }
}

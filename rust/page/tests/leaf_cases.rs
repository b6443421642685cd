//! Leaves: layouts, capacities, zones, and errors, case by case.

mod common;

use aurora_page::*;
use common::*;

fn int_schema(data_type: DataType, descending: bool) -> Schema {
    let columns = vec![
        column(1, "k", data_type, false),
        column(2, "v", DataType::Text, true),
    ];
    Schema::new(
        1,
        columns,
        vec![KeyPart {
            column: 0,
            descending,
        }],
    )
    .unwrap()
}

/// Every type whose keys are compared as numbers, and two whose are not, both ways round.
#[test]
fn search_finds_what_the_encoded_keys_say() {
    let ints = |values: &[i64]| values.iter().map(|v| Value::Int(*v)).collect::<Vec<_>>();
    let cases = [
        (DataType::Bool, vec![Value::Bool(false), Value::Bool(true)]),
        (DataType::Int8, ints(&[-128, -1, 0, 1, 127])),
        (DataType::Int16, ints(&[-32768, -300, 0, 1, 32767])),
        (DataType::Int32, ints(&[i64::from(i32::MIN), -70000, 0, 9])),
        (DataType::Int64, ints(&[i64::MIN, -1, 0, 1, i64::MAX])),
        (
            DataType::Date,
            vec![Value::Date(-5), Value::Date(0), Value::Date(i32::MAX)],
        ),
        (DataType::Time, vec![Value::Time(0), Value::Time(7)]),
        (
            DataType::Timestamp { zoned: false },
            vec![Value::Timestamp(i64::MIN), Value::Timestamp(3)],
        ),
        (
            DataType::Decimal {
                precision: 38,
                scale: 2,
            },
            vec![
                Value::Decimal(-(10i128.pow(30))),
                Value::Decimal(-1),
                Value::Decimal(10i128.pow(37)),
            ],
        ),
        (
            DataType::Uuid,
            vec![
                Value::Uuid([0; 16]),
                Value::Uuid([1; 16]),
                Value::Uuid([255; 16]),
            ],
        ),
        (
            DataType::Float64,
            vec![
                Value::Float64(f64::NEG_INFINITY),
                Value::Float64(-0.5),
                Value::Float64(2.0),
            ],
        ),
        (
            DataType::Text,
            vec![
                Value::Text("".into()),
                Value::Text("a\0".into()),
                Value::Text("b".into()),
            ],
        ),
    ];
    for (data_type, ascending) in cases {
        for descending in [false, true] {
            let schema = int_schema(data_type, descending);
            let mut values = ascending.clone();
            if descending {
                values.reverse();
            }
            check_search(&schema, &values);
        }
    }
}

fn check_search(schema: &Schema, values: &[Value]) {
    let mut page = leaf(schema, 1024, 9);
    let keys: Vec<KeyBuf> = values
        .iter()
        .map(|value| encode_key_values(schema, std::slice::from_ref(value)).unwrap())
        .collect();
    // Only every second value is in the page, inserted from the back so that slots and ranks differ.
    let present: Vec<usize> = (0..values.len()).step_by(2).collect();
    for index in present.iter().rev() {
        let row = encode_row(schema, &[values[*index].clone(), Value::Null]);
        LeafMut::new(&mut page).unwrap().insert(0, &row).unwrap();
    }
    let leaf = LeafRef::new(&page).unwrap();
    leaf.verify().unwrap();
    for (index, key) in keys.iter().enumerate() {
        let rank = index.div_ceil(2);
        let expected = if index % 2 == 0 { Ok(rank) } else { Err(rank) };
        assert_eq!(
            leaf.search(key),
            expected,
            "{:?} in {schema:?}",
            values[index]
        );
        assert_eq!(leaf.lower_bound(key), rank);
    }
    assert_eq!(leaf.lower_bound(&[]), 0);
    let beyond = prefix_end(keys.last().unwrap()).unwrap_or_else(|| KeyBuf::from_slice(&[255; 17]));
    assert_eq!(leaf.lower_bound(&beyond), present.len());
}

#[test]
fn capacity_leaves_room_for_the_heap() {
    let schema = wide_schema();
    for page_bytes in [16 * 1024, 32 * 1024, 64 * 1024] {
        let mut before = usize::from(u16::MAX);
        for mean in [0, 10, 100, 1000, 100_000] {
            let capacity = leaf_capacity(&schema, page_bytes, mean).unwrap();
            let heap = leaf_heap_bytes(&schema, capacity, page_bytes);
            assert!(capacity >= 2 && usize::from(capacity) <= before);
            assert!(heap >= 2 * row_heap_max(page_bytes), "{heap}");
            assert!(capacity == 2 || heap >= mean * usize::from(capacity));
            before = capacity.into();
            let page = leaf(&schema, page_bytes, capacity);
            assert_eq!(LeafRef::new(&page).unwrap().heap_capacity(), heap);
        }
    }
    // One slot more would not fit where nothing goes to the heap.
    let fixed = Schema::new(
        1,
        vec![column(1, "k", DataType::Int64, false)],
        vec![key(0)],
    )
    .unwrap();
    let capacity = leaf_capacity(&fixed, 16 * 1024, 0).unwrap();
    let mut page = Page::empty(PageId(1), 16 * 1024);
    format_leaf(&mut page, ObjectId(1), &leaf_layout(&fixed, capacity)).unwrap();
    assert!(format_leaf(&mut page, ObjectId(1), &leaf_layout(&fixed, capacity + 1)).is_err());
}

#[test]
fn rows_too_wide_for_a_page_are_refused() {
    let columns = (0..900)
        .map(|n| column(n, &format!("c{n}"), DataType::Int64, true))
        .collect();
    let schema = Schema::new(1, columns, vec![key(0)]).unwrap();
    let error = leaf_capacity(&schema, 16 * 1024, 0).unwrap_err();
    assert_eq!(error.got, 16 * 1024);
    assert!(error.expected > error.got, "{error}");
    assert!(leaf_capacity(&schema, 64 * 1024, 0).is_ok());
}

#[test]
fn zones_widen_and_start_anew_with_an_empty_leaf() {
    let schema = int_schema(DataType::Int64, false);
    let mut page = leaf(&schema, 1024, 9);
    let zone = |page: &Page, column| LeafRef::new(page).unwrap().zone(column);
    let (none_low, none_high) = zone(&page, 0);
    assert!(none_low > none_high);
    for (rank, k) in [-5, 9].into_iter().enumerate() {
        let row = encode_row(&schema, &[Value::Int(k), Value::Text(format!("v{k}"))]);
        LeafMut::new(&mut page).unwrap().insert(rank, &row).unwrap();
    }
    let prefix = |value: Value| zone_prefix(value.as_ref()).unwrap();
    assert_eq!(
        zone(&page, 0),
        (prefix(Value::Int(-5)), prefix(Value::Int(9)))
    );
    assert_eq!(
        zone(&page, 1),
        (
            prefix(Value::Text("v-5".into())),
            prefix(Value::Text("v9".into()))
        )
    );
    let changes = encode_changes(&schema, &[(1, Value::Text("zz".into()))]);
    LeafMut::new(&mut page)
        .unwrap()
        .update(0, &changes)
        .unwrap();
    assert_eq!(zone(&page, 1).1, prefix(Value::Text("zz".into())));
    let reference = Value::Overflow(OverflowRef {
        first: PageId(1),
        len: 1 << 20,
    });
    LeafMut::new(&mut page)
        .unwrap()
        .update(1, &encode_changes(&schema, &[(1, reference)]))
        .unwrap();
    assert_eq!(zone(&page, 1), (0, u64::MAX));
    LeafMut::new(&mut page).unwrap().truncate(0).unwrap();
    assert_eq!(zone(&page, 1), (none_low, none_high));
}

#[test]
fn columns_can_be_read_whole() {
    let schema = compound_schema();
    let mut page = leaf(&schema, 1024, 9);
    for (rank, rank_value) in [Value::Int(3), Value::Null].into_iter().enumerate() {
        let row = [
            Value::Null,
            Value::Text("n".into()),
            rank_value,
            Value::Float64(rank as f64),
        ];
        LeafMut::new(&mut page)
            .unwrap()
            .insert(rank, &encode_row(&schema, &row))
            .unwrap();
    }
    let leaf = LeafRef::new(&page).unwrap();
    assert_eq!(leaf.fixed_column(2).len(), 9 * 2);
    assert_eq!(leaf.fixed_column(2)[..2], 3i16.to_le_bytes());
    assert_eq!(leaf.fixed_column(3)[8..16], 1f64.to_le_bytes());
    assert!(leaf.fixed_column(0).is_empty());
    assert_eq!(leaf.null_bitmap(2), Some(&[0b10, 0][..]));
    assert_eq!(leaf.null_bitmap(1), None);
    assert_eq!(leaf.live_bitmap(), [0b11, 0]);
    assert_eq!(leaf.column_id(3), 13);
    assert_eq!(
        leaf.key_parts().collect::<Vec<_>>(),
        [(1, false), (2, true)]
    );
}

#[test]
fn wrong_changes_are_refused_and_change_nothing() {
    let schema = int_schema(DataType::Int64, false);
    let mut page = leaf(&schema, 1024, 2);
    let row = |k| encode_row(&schema, &[Value::Int(k), Value::Null]);
    LeafMut::new(&mut page)
        .unwrap()
        .append_rows([row(1).as_slice(), &row(2)])
        .unwrap();
    let before = page.clone();
    let mut leaf = LeafMut::new(&mut page).unwrap();
    let text = |result: Result<(), PageError>| result.unwrap_err().to_string();
    assert_eq!(
        text(leaf.insert(2, &row(3))),
        "page 42: expected room for 1 rows, got 0"
    );
    assert_eq!(
        text(leaf.insert(3, &row(3))),
        "page 42: expected a rank up to 2, got 3"
    );
    assert_eq!(
        text(leaf.delete(2)),
        "page 42: expected a rank up to 1, got 2"
    );
    assert_eq!(
        text(leaf.truncate(3)),
        "page 42: expected a rank up to 2, got 3"
    );
    let key_change = encode_changes(&schema, &[(0, Value::Int(7))]);
    assert_eq!(
        text(leaf.update(0, &key_change)),
        "page 42: column 0 is part of the key: expected its value unchanged, got another"
    );
    let other = int_schema(DataType::Text, false);
    let wrong_type = encode_changes(&other, &[(0, Value::Text("x".into()))]);
    assert_eq!(
        text(leaf.update(0, &wrong_type)),
        "page 42: column 0: expected type code 5, got 12"
    );
    let long = encode_changes(&schema, &[(1, Value::Text("x".repeat(1000)))]);
    assert!(text(leaf.update(0, &long)).starts_with("page 42: expected room for 1000 bytes, got "));
    let mut cut = row(3);
    cut.pop();
    assert_eq!(
        text(leaf.insert(0, &cut)),
        "page 42: row ends early: expected 8 more bytes at 1, got 7"
    );
    assert_eq!(
        text(leaf.append_rows([cut.as_slice()])),
        "page 42: row ends early: expected 8 more bytes at 1, got 7"
    );
    leaf.update(0, &encode_changes(&schema, &[(0, Value::Int(1))]))
        .unwrap();
    assert!(page == before);
}

#[test]
fn changes_come_back_in_order_and_the_last_of_a_column_counts() {
    let schema = wide_schema();
    let changes = [
        (12, Value::Text("new".into())),
        (2, Value::Int(4)),
        (2, Value::Int(5)),
        (
            13,
            Value::Overflow(OverflowRef {
                first: PageId(8),
                len: 9,
            }),
        ),
        (1, Value::Null),
    ];
    let bytes = encode_changes(&schema, &changes);
    let read: Vec<(usize, Value)> = read_changes(&bytes)
        .map(|change| change.unwrap())
        .map(|change| (change.column, change.value().unwrap().to_owned()))
        .collect();
    let expected = [
        (1, changes[4].1.clone()),
        (2, Value::Int(5)),
        (12, changes[0].1.clone()),
        (13, changes[3].1.clone()),
    ];
    assert_eq!(read, expected);
    let one = encode_changes(&schema, &[(0, Value::Int(1))]);
    assert_eq!(one.len(), 10, "a changed int64 is small in the log");
}

#[test]
fn append_is_all_or_nothing() {
    let schema = int_schema(DataType::Int64, false);
    let mut page = leaf(&schema, 1024, 3);
    let row = |k| encode_row(&schema, &[Value::Int(k), Value::Text("some".into())]);
    let rows = [row(1), row(2), row(3)];
    let mut leaf = LeafMut::new(&mut page).unwrap();
    leaf.insert(0, &row(0)).unwrap();
    assert!(leaf.append_rows(rows.iter().map(Vec::as_slice)).is_err());
    assert_eq!(
        leaf.view().row(0),
        [Value::Int(0), Value::Text("some".into())]
    );
    assert_eq!(leaf.view().len(), 1);
    leaf.view().verify().unwrap();
    leaf.append_rows(rows[..2].iter().map(Vec::as_slice))
        .unwrap();
    assert_eq!(leaf.view().len(), 3);
}

/// The heap is full to the last byte with holes in it, and the row that grows is the one whose old value makes room.
#[test]
fn an_update_may_use_the_room_of_what_it_replaces() {
    let schema = int_schema(DataType::Int64, false);
    let mut page = leaf(&schema, 1024, 3);
    let heap = LeafRef::new(&page).unwrap().heap_capacity();
    let text = |c: char, len: usize| Value::Text(c.to_string().repeat(len));
    let rows = [
        encode_row(&schema, &[Value::Int(1), text('a', heap / 2)]),
        encode_row(&schema, &[Value::Int(2), text('b', heap - heap / 2)]),
    ];
    let mut leaf = LeafMut::new(&mut page).unwrap();
    leaf.append_rows(rows.iter().map(Vec::as_slice)).unwrap();
    let change = |value: &Value| encode_changes(&schema, &[(1, value.clone())]);
    // A shorter value leaves a hole of one byte; the other row may grow by that byte, and by no more.
    leaf.update(0, &change(&text('c', heap / 2 - 1))).unwrap();
    let grown = text('d', heap - heap / 2 + 1);
    assert!(
        !leaf
            .view()
            .fits_changes(1, &change(&text('d', heap - heap / 2 + 2)))
    );
    leaf.update(1, &change(&grown)).unwrap();
    leaf.view().verify().unwrap();
    assert_eq!(
        leaf.view().value_at(0, 1).to_owned(),
        text('c', heap / 2 - 1)
    );
    assert_eq!(leaf.view().value_at(1, 1).to_owned(), grown);
}

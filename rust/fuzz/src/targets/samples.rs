//! Valid pages, rows and schemas.

use aurora_page::{
    Column, DataType, KeyPart, LeafMut, LeafRef, ObjectId, Page, PageId, Schema, Value, encode_row,
    format_leaf, leaf_capacity, leaf_layout,
};

pub const PAGE_BYTES: usize = 4096;
pub const ID: PageId = PageId(9);

/// A column of every width, with values that may be missing.
pub fn schema() -> Schema {
    let decimal = DataType::Decimal {
        precision: 20,
        scale: 2,
    };
    let types = [
        ("id", DataType::Int64, false),
        ("small", DataType::Int16, true),
        ("flag", DataType::Bool, false),
        ("price", decimal, true),
        ("share", DataType::Float64, false),
        ("day", DataType::Date, true),
        ("name", DataType::Text, true),
        ("body", DataType::Bytes, false),
    ];
    let columns = types
        .iter()
        .enumerate()
        .map(|(id, (name, data_type, nullable))| Column {
            id: id as u16,
            name: (*name).to_owned(),
            data_type: *data_type,
            nullable: *nullable,
        });
    let key = vec![KeyPart {
        column: 0,
        descending: false,
    }];
    Schema::new(3, columns.collect(), key).expect("a valid schema")
}

pub fn row(n: i64) -> Vec<Value> {
    let or_null = |value: Value| if n % 5 == 3 { Value::Null } else { value };
    vec![
        Value::Int(n),
        or_null(Value::Int(n % 7)),
        Value::Bool(n % 2 == 0),
        or_null(Value::Decimal(i128::from(n) * 1_000_003)),
        Value::Float64(n as f64 / 3.0),
        or_null(Value::Date(n as i32 + 20_000)),
        or_null(Value::Text(format!("name {}", n % 4))),
        Value::Bytes(vec![n as u8; (n % 30) as usize]),
    ]
}

/// A leaf with some rows, of which some were deleted.
pub fn leaf() -> Page {
    let schema = schema();
    let mut page = Page::empty(ID, PAGE_BYTES);
    let capacity = leaf_capacity(&schema, PAGE_BYTES, 24).expect("rows fit");
    format_leaf(&mut page, ObjectId(5), &leaf_layout(&schema, capacity)).expect("a leaf");
    let mut leaf = LeafMut::new(&mut page).expect("a leaf");
    for n in 0..40 {
        let bytes = encode_row(&schema, &row(n));
        let rank = leaf.view().len();
        if leaf.view().fits(&bytes) {
            leaf.insert(rank, &bytes).expect("it fits");
        }
    }
    let mut leaf = LeafMut::new(&mut page).expect("a leaf");
    leaf.delete(3).expect("a row");
    leaf.delete(7).expect("a row");
    let leaf = LeafRef::new(&page).expect("a leaf");
    assert!(leaf.len() > 10 && leaf.verify().is_ok(), "a good sample");
    page
}

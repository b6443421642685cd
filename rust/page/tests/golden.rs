//! The bytes of pages, as files: a change of the format must be meant. `AURORA_BLESS=1` writes them anew.
//!
//! `tests/test_page_golden.py` reads the same files with another CRC implementation.

mod common;

use std::path::PathBuf;

use aurora_page::*;
use common::*;

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads its golden files and the variable that renews them"
)]
fn check_golden(name: &str, page: &Page) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let bytes = page.to_disk();
    if std::env::var_os("AURORA_BLESS").is_some() {
        std::fs::write(&path, &bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let differs = golden.iter().zip(&bytes).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{name}: first byte that differs");
    assert_eq!(golden.len(), bytes.len(), "{name}: bytes");
    let read = Page::from_disk(golden.into(), page.id()).unwrap();
    assert_eq!(read.bytes()[..60], page.bytes()[..60]);
    assert_eq!(read.bytes()[64..], page.bytes()[64..]);
}

fn stamped(mut page: Page) -> Page {
    page.stamp(VolumeId(0x0A0B), Lsn(1000));
    page.stamp(VolumeId(0x0A0B), Lsn(1234));
    page
}

fn row(schema: &Schema, id: i64, text: &str, some: bool) -> Vec<u8> {
    let or_null = |value: Value| if some { value } else { Value::Null };
    let values = [
        Value::Int(id),
        or_null(Value::Bool(true)),
        Value::Int(-8),
        or_null(Value::Int(-1600)),
        Value::Int(320_000),
        or_null(Value::Float32(0.5)),
        Value::Float64(-0.25),
        or_null(Value::Decimal(-123_456_789_012_345_678_901_234)),
        Value::Date(20_000),
        or_null(Value::Time(3_600_000_000)),
        Value::Timestamp(1_700_000_000_000_000),
        or_null(Value::Uuid([0x11; 16])),
        Value::Text(text.into()),
        or_null(Value::Overflow(OverflowRef {
            first: PageId(99),
            len: 1 << 20,
        })),
        Value::Json("{\"a\": 1}".into()),
    ];
    schema.check_row(&values).unwrap();
    encode_row(schema, &values)
}

#[test]
fn leaf_v1() {
    let schema = wide_schema();
    let mut page = leaf(&schema, 4096, 16);
    let mut leaf = LeafMut::new(&mut page).unwrap();
    leaf.insert(0, &row(&schema, 30, "thirty", true)).unwrap();
    leaf.insert(0, &row(&schema, 10, "ten", false)).unwrap();
    leaf.insert(1, &row(&schema, 20, "zwanzig é", true))
        .unwrap();
    leaf.delete(2).unwrap();
    leaf.insert(2, &row(&schema, 40, "forty", true)).unwrap();
    leaf.update(
        1,
        &encode_changes(
            &schema,
            &[(12, Value::Text("twenty, longer than it was".into()))],
        ),
    )
    .unwrap();
    leaf.view().verify().unwrap();
    check_golden("leaf-v1.bin", &stamped(page));
}

#[test]
fn inner_v1() {
    let mut page = Page::empty(PageId(7), 1024);
    format_inner(&mut page, ObjectId(5), 1, PageId(100));
    let mut inner = InnerMut::new(&mut page).unwrap();
    inner
        .append([(&b"delta"[..], PageId(101)), (b"golf", PageId(102))])
        .unwrap();
    inner.insert(1, b"echo", PageId(103)).unwrap();
    inner.remove(0).unwrap();
    inner.view().verify().unwrap();
    check_golden("inner-v1.bin", &stamped(page));
}

#[test]
fn overflow_v1() {
    let mut page = Page::empty(PageId(99), 1024);
    let chunk: Vec<u8> = (0..600u32).map(|n| (n % 251) as u8).collect();
    format_overflow(&mut page, ObjectId(5), PageId(98), &chunk).unwrap();
    check_golden("overflow-v1.bin", &stamped(page));
}

#[test]
fn extent_map_v1() {
    let mut page = Page::empty(PageId(0), 1024);
    format_extent_map(&mut page, 0, 20).unwrap();
    let mut map = ExtentMut::new(&mut page).unwrap();
    let entry = ExtentEntry {
        owner: ObjectId(5),
        load: 0,
        state: ExtentState::Linked,
        used: 0b1011,
    };
    map.set(0, entry).unwrap();
    map.set(
        3,
        ExtentEntry {
            owner: ObjectId(6),
            load: 2,
            state: ExtentState::Loading,
            used: u64::MAX,
        },
    )
    .unwrap();
    check_golden("extent-map-v1.bin", &stamped(page));
}

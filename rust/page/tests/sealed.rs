//! Sealing keeps what a page means, and the packed columns read as the plain ones.

mod typed;

use aurora_page::{
    Compression, HEADER_BYTES, InnerMut, LeafMut, LeafRef, Lsn, ObjectId, OverflowRef, Page,
    PageError, PageId, PageKind, SEALED_HEADER_BYTES, Schema, SealedRef, Value, VolumeId,
    canonical, encode_changes, encode_key, encode_row, format_inner, format_leaf, format_overflow,
    leaf_capacity, leaf_layout, seal, seal_with, sealed_header, unseal,
};
use proptest::prelude::*;

use typed::{row, same, schema};

const PAGE_BYTES: usize = 16 * 1024;
const ID: PageId = PageId(77);

/// An empty leaf for the schema.
fn leaf(schema: &Schema) -> Page {
    let mut page = Page::empty(ID, PAGE_BYTES);
    let capacity = leaf_capacity(schema, PAGE_BYTES, 40)
        .expect("a few columns fit")
        .min(300);
    format_leaf(&mut page, ObjectId(5), &leaf_layout(schema, capacity)).expect("a valid layout");
    page.stamp(VolumeId(3), Lsn(100));
    page.stamp(VolumeId(3), Lsn(140));
    page
}

/// Inserts what fits and is not there yet; the rows that now are.
fn insert_all(page: &mut Page, schema: &Schema, rows: &[Vec<Value>]) {
    for row in rows {
        let Ok(key) = encode_key(schema, row) else {
            continue;
        };
        let mut leaf = LeafMut::new(page).unwrap();
        let bytes = encode_row(schema, row);
        if let Err(rank) = leaf.view().search(&key)
            && leaf.view().fits(&bytes)
        {
            leaf.insert(rank, &bytes).unwrap();
        }
    }
}

/// Deletes and changes some rows, so that there are free slots and holes.
fn disturb(page: &mut Page, schema: &Schema, picks: &[(prop::sample::Index, bool, Vec<Value>)]) {
    for (pick, delete, other) in picks {
        let mut leaf = LeafMut::new(page).unwrap();
        if leaf.view().is_empty() {
            return;
        }
        let rank = pick.index(leaf.view().len());
        if *delete {
            leaf.delete(rank).unwrap();
            continue;
        }
        let is_key = |column: u16| schema.key().iter().any(|part| part.column == column);
        let changes: Vec<_> = (0..)
            .zip(other.clone())
            .filter(|(column, _)| !is_key(*column))
            .collect();
        let changes = encode_changes(schema, &changes);
        if leaf.view().fits_changes(rank, &changes) {
            leaf.update(rank, &changes).unwrap();
        }
    }
}

type Picks = Vec<(prop::sample::Index, bool, Vec<Value>)>;

/// A leaf with a history, and a row that may be inserted into it.
fn leaf_with_history() -> impl Strategy<Value = (Schema, Page, Vec<Value>)> {
    schema(6).prop_flat_map(|schema| {
        let few = prop::collection::vec(row(&schema), 1..6);
        let rows = (
            few,
            prop::collection::vec((row(&schema), any::<prop::sample::Index>(), 0..6u8), 0..120),
        );
        // Columns repeat the values of a few rows, so that dictionaries and constants occur.
        let rows = rows.prop_map(|(few, rows)| {
            let mut all = few.clone();
            for (mut row, pick, kept) in rows {
                let source = pick.get(&few);
                let kept = row.len().min(kept.into());
                row[..kept].clone_from_slice(&source[..kept]);
                all.push(row);
            }
            all
        });
        let picks = prop::collection::vec(
            (any::<prop::sample::Index>(), any::<bool>(), row(&schema)),
            0..20,
        );
        (rows, picks, row(&schema), Just(schema)).prop_map(
            |(rows, picks, extra, schema): (_, Picks, _, _)| {
                let mut page = leaf(&schema);
                insert_all(&mut page, &schema, &rows);
                disturb(&mut page, &schema, &picks);
                (schema, page, extra)
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn sealing_keeps_the_content((schema, page, extra) in leaf_with_history()) {
        let sealed = seal(&page);
        let back = unseal(&sealed, ID, PAGE_BYTES).unwrap();
        LeafRef::new(&back).unwrap().verify().unwrap();
        prop_assert_eq!(canonical(&back), canonical(&page));
        prop_assert_eq!(back.prev_lsn(), Lsn(100));

        // A change does the same to both, or fits neither.
        let (mut plain, mut back) = (page.clone(), back);
        insert_all(&mut plain, &schema, std::slice::from_ref(&extra));
        insert_all(&mut back, &schema, &[extra]);
        prop_assert_eq!(canonical(&back), canonical(&plain));
        prop_assert_eq!(seal(&back), seal(&plain));
    }

    #[test]
    fn packed_columns_read_as_plain_ones((_, page, _) in leaf_with_history()) {
        let leaf = LeafRef::new(&page).unwrap();
        for compression in [Compression::Never, Compression::Lz4] {
            let bytes = seal_with(&page, compression);
            let sealed = SealedRef::new(&bytes, ID).unwrap();
            prop_assert_eq!((sealed.len(), sealed.column_count()), (leaf.len(), leaf.column_count()));
            prop_assert_eq!(sealed.layout(), leaf.layout());
            for index in 0..leaf.column_count() {
                let column = sealed.column(index);
                prop_assert_eq!((column.id, column.data_type), (leaf.column_id(index), leaf.column_type(index)));
                let (low, high) = leaf.zone(index);
                prop_assert!(leaf.is_empty() || (low <= column.zone.0 && column.zone.1 <= high));
                for rank in 0..leaf.len() {
                    let (plain, packed) = (leaf.value_at(rank, index).to_owned(), column.value(rank).to_owned());
                    prop_assert!(same(&plain, &packed), "{plain:?} became {packed:?} in {:?}", column.data);
                }
            }
        }
    }

    #[test]
    fn damage_is_an_error((_, page, _) in leaf_with_history(), at in any::<prop::sample::Index>(), bit in 0..8u8, cut: bool) {
        let mut bytes = seal(&page);
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        prop_assert!(unseal(&bytes, ID, PAGE_BYTES).is_err());
        prop_assert!(SealedRef::new(&bytes, ID).is_err());
    }

    #[test]
    fn wrong_bytes_with_a_good_crc_never_panic(
        (_, page, _) in leaf_with_history(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = seal_with(&page, Compression::Never);
        // Mostly where the structure is: the first bytes of the body.
        let body_bytes = bytes.len() - SEALED_HEADER_BYTES;
        for (at, byte) in edits {
            bytes[SEALED_HEADER_BYTES + at.index(body_bytes.min(600))] = byte;
        }
        stamp_crc(&mut bytes);
        if let Ok(sealed) = SealedRef::new(&bytes, ID) {
            for column in 0..sealed.column_count() {
                for rank in 0..sealed.len() {
                    let _ = sealed.value(rank, column);
                }
            }
        }
        let _ = unseal(&bytes, ID, PAGE_BYTES);
    }
}

fn stamp_crc(bytes: &mut [u8]) {
    let at = SEALED_HEADER_BYTES - 4;
    let crc = aurora_page::crc32c_append(
        aurora_page::crc32c(&bytes[..at]),
        &bytes[SEALED_HEADER_BYTES..],
    );
    bytes[at..SEALED_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn other_kinds_keep_their_body() {
    let mut inner = Page::empty(ID, PAGE_BYTES);
    format_inner(&mut inner, ObjectId(1), 2, PageId(10));
    let mut view = InnerMut::new(&mut inner).unwrap();
    view.insert(0, b"m", PageId(11)).unwrap();
    view.insert(1, b"t", PageId(12)).unwrap();
    let mut overflow = Page::empty(ID, PAGE_BYTES);
    format_overflow(&mut overflow, ObjectId(1), PageId(0), b"abc").unwrap();
    for page in [inner, overflow, Page::empty(ID, PAGE_BYTES)] {
        let back = unseal(&seal(&page), ID, PAGE_BYTES).unwrap();
        assert_eq!(back.bytes()[HEADER_BYTES..], page.bytes()[HEADER_BYTES..]);
        assert_eq!(canonical(&back), canonical(&page));
        let error = SealedRef::new(&seal(&page), ID).unwrap_err();
        assert_eq!(
            error,
            PageError::Kind {
                page: ID,
                expected: PageKind::Leaf,
                got: page.kind()
            }
        );
    }
}

#[test]
fn canonical_ignores_the_heap_of_inner_pages() {
    let pages = [["m", "t"], ["t", "m"]].map(|order| {
        let mut page = Page::empty(ID, PAGE_BYTES);
        format_inner(&mut page, ObjectId(1), 1, PageId(10));
        let mut inner = InnerMut::new(&mut page).unwrap();
        for key in order {
            let pos = (0..inner.view().len())
                .filter(|pos| inner.view().key(*pos) < key.as_bytes())
                .count();
            inner
                .insert(pos, key.as_bytes(), PageId(key.as_bytes()[0].into()))
                .unwrap();
        }
        page
    });
    assert_ne!(pages[0].bytes(), pages[1].bytes());
    assert_eq!(canonical(&pages[0]), canonical(&pages[1]));
}

#[test]
fn errors_say_expected_and_got() {
    let page = golden_leaf();
    let sealed = seal(&page);
    let error =
        |bytes: &[u8], id, page_bytes| unseal(bytes, id, page_bytes).unwrap_err().to_string();
    assert_eq!(
        error(&sealed, PageId(8), PAGE_BYTES),
        "page 8: expected page id 8, got 77"
    );
    assert_eq!(
        error(&sealed, ID, 32 * 1024),
        "page 77: expected 32768 bytes, got 16384"
    );
    assert_eq!(
        error(&sealed[..10], ID, PAGE_BYTES),
        "page 77: expected 64 bytes, got 10"
    );
    let mut newer = sealed.clone();
    newer[4] = 9;
    assert_eq!(
        error(&newer, ID, PAGE_BYTES),
        "page 77: expected format version 1, got 9"
    );
    let header = sealed_header(&sealed, ID).unwrap();
    assert_eq!(
        (header.lsn, header.prev_lsn, header.origin),
        (Lsn(140), Lsn(100), VolumeId(3))
    );
}

fn golden_schema() -> Schema {
    use aurora_page::{Column, DataType, KeyPart};
    let types = [
        DataType::Int32,
        DataType::Int64,
        DataType::Decimal {
            precision: 38,
            scale: 2,
        },
        DataType::Bool,
        DataType::Float64,
        DataType::Date,
        DataType::Timestamp { zoned: true },
        DataType::Text,
        DataType::Text,
        DataType::Bytes,
        DataType::Uuid,
        DataType::Json,
    ];
    let column = |(id, data_type)| Column {
        id,
        name: format!("c{id}"),
        data_type,
        nullable: id > 0,
    };
    let key = vec![KeyPart {
        column: 0,
        descending: false,
    }];
    Schema::new(4, (0..).zip(types).map(column).collect(), key).unwrap()
}

/// Constants, one, two and eight bytes of offset, dictionaries, nulls, an overflow reference: everything once.
fn golden_leaf() -> Page {
    let schema = golden_schema();
    let mut page = leaf(&schema);
    let rows: Vec<Vec<Value>> = (0..40i32)
        .map(|row| {
            let n = i64::from(row);
            let text = if row == 7 {
                Value::Overflow(OverflowRef {
                    first: PageId(900),
                    len: 1 << 20,
                })
            } else {
                Value::Text(format!("row {row}"))
            };
            vec![
                Value::Int(n - 5),
                Value::Int(n * n * 1_000_000_000),
                Value::Decimal(i128::from(n) << 90),
                if row % 3 == 0 {
                    Value::Null
                } else {
                    Value::Bool(row % 2 == 0)
                },
                Value::Float64(f64::from(row % 4) / 3.0),
                Value::Date(20_000),
                Value::Timestamp(1_700_000_000_000_000 + n * 300),
                Value::Text(["small", "", "large"][row as usize % 3].into()),
                text,
                if row % 5 == 0 {
                    Value::Null
                } else {
                    Value::Bytes(vec![row as u8; row as usize % 4])
                },
                Value::Uuid([row as u8; 16]),
                Value::Null,
            ]
        })
        .collect();
    insert_all(&mut page, &schema, &rows);
    assert_eq!(LeafRef::new(&page).unwrap().len(), rows.len());
    page
}

/// Files of format version 1, byte for byte; `AURORA_BLESS=1` writes them anew.
#[expect(
    clippy::disallowed_methods,
    reason = "a test reads its golden files and the variable that renews them"
)]
fn assert_golden(name: &str, bytes: &[u8]) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("AURORA_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(
        golden == bytes,
        "{name} has changed: that is a new format version"
    );
}

#[test]
fn golden_files() {
    let page = golden_leaf();
    assert_golden("sealed-leaf-v1.bin", &seal_with(&page, Compression::Never));
    assert_golden("sealed-leaf-lz4-v1.bin", &seal(&page));
    assert_golden("sealed-free-v1.bin", &seal(&Page::empty(ID, PAGE_BYTES)));
    for compression in [Compression::Never, Compression::Lz4] {
        let back = unseal(&seal_with(&page, compression), ID, PAGE_BYTES).unwrap();
        assert_eq!(canonical(&back), canonical(&page));
    }
}

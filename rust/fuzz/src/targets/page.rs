//! Pages in plain and sealed form, rows, keys, schemas.

use aurora_page::{Compression, DataType, ValueRef, decode_value, encode_changes};
use aurora_page::{
    ExtentRef, InnerRef, LeafRef, OverflowView, Page, PageId, PageKind, Schema, SealedRef,
    canonical, decode_key, decode_row, encode_key, encode_row, encode_value, is_page_bytes,
    read_changes, row_heap_bytes, seal, seal_with, sealed_header, unseal,
};

use super::samples::{leaf, row, schema};
use super::{Target, put_crc, u32_at, u64_at};

const LEAF: &[u8] = include_bytes!("../../../page/tests/golden/leaf-v1.bin");
const INNER: &[u8] = include_bytes!("../../../page/tests/golden/inner-v1.bin");
const OVERFLOW: &[u8] = include_bytes!("../../../page/tests/golden/overflow-v1.bin");
const EXTENTS: &[u8] = include_bytes!("../../../page/tests/golden/extent-map-v1.bin");
const SEALED: &[u8] = include_bytes!("../../../page/tests/golden/sealed-leaf-v1.bin");
const SEALED_LZ4: &[u8] = include_bytes!("../../../page/tests/golden/sealed-leaf-lz4-v1.bin");
const SEALED_FREE: &[u8] = include_bytes!("../../../page/tests/golden/sealed-free-v1.bin");

pub fn targets() -> Vec<Target> {
    let plain = [LEAF, INNER, OVERFLOW, EXTENTS].map(<[u8]>::to_vec);
    let plain = plain.into_iter().chain([leaf().to_disk().to_vec()]);
    let sealed = [SEALED, SEALED_LZ4, SEALED_FREE].map(<[u8]>::to_vec);
    let own = [seal(&leaf()), seal_with(&leaf(), Compression::Never)];
    let rows = (0..8).map(|n| encode_row(&schema(), &row(n))).collect();
    let keys = (0..8).filter_map(|n| encode_key(&schema(), &row(n)).ok());
    let changes = (0..8usize).map(|n| {
        let column = n as u16;
        encode_changes(&schema(), &[(column, row(6)[n].clone())])
    });
    let values = row(6);
    let values = values
        .iter()
        .zip(schema().columns())
        .map(|(value, column)| encode_value(column.data_type, value.as_ref()))
        .collect();
    vec![
        Target::new("page", plain.collect(), read_page).stamped(stamp),
        Target::new(
            "sealed",
            sealed.into_iter().chain(own).collect(),
            read_sealed,
        )
        .stamped(stamp)
        .weighing(200),
        Target::new("row", rows, read_row),
        Target::new("key", keys.map(|key| key.to_vec()).collect(), |bytes| {
            drop(decode_key(&schema(), bytes));
        }),
        Target::new("changes", changes.collect(), |bytes| {
            read_changes(bytes)
                .take_while(|change| change.is_ok())
                .flatten()
                .for_each(|change| drop(change.value().map(ValueRef::to_owned)));
        }),
        Target::new("value", values, read_value),
        Target::new("schema", vec![schema().encode()], read_schema),
    ]
}

/// Plain and sealed pages have their CRC at the same place, of all but itself.
pub fn stamp(bytes: &mut [u8]) {
    put_crc(bytes, 60, 0..60, 64);
}

/// What the CRC vouches for is read after `verify` has looked at it, as the checks of a volume do.
fn read_page(bytes: &[u8]) {
    let id = PageId(u64_at(bytes, 8));
    let Ok(page) = Page::from_disk(bytes.into(), id) else {
        return;
    };
    match page.kind() {
        PageKind::Leaf => {
            let Ok(leaf) = LeafRef::new(&page) else {
                return;
            };
            if leaf.verify().is_err() {
                return;
            }
            for rank in 0..leaf.len() {
                drop((leaf.row(rank), leaf.key_at(rank)));
            }
        }
        PageKind::Inner => {
            let Ok(inner) = InnerRef::new(&page) else {
                return;
            };
            if inner.verify().is_err() {
                return;
            }
            inner.entries().for_each(|entry| {
                std::hint::black_box(entry);
            });
        }
        PageKind::Overflow => {
            let Ok(view) = OverflowView::new(&page) else {
                return;
            };
            std::hint::black_box((view.chunk(), view.next()));
        }
        PageKind::ExtentMap => {
            let Ok(map) = ExtentRef::new(&page) else {
                return;
            };
            map.entries().for_each(drop);
        }
        PageKind::Free => {}
    }
    std::hint::black_box(canonical(&page));
    let _ = unseal(&seal(&page), id, page.bytes().len());
}

/// Nothing has to be verified first: a sealed page is read as it comes.
fn read_sealed(bytes: &[u8]) {
    let id = PageId(u64_at(bytes, 8));
    let _ = sealed_header(bytes, id);
    if let Ok(sealed) = SealedRef::new(bytes, id) {
        for column in 0..sealed.column_count() {
            for rank in 0..sealed.len() {
                std::hint::black_box(sealed.value(rank, column));
            }
        }
        let _ = sealed.unseal();
    }
    let page_bytes = u32_at(bytes, 52) as usize;
    if is_page_bytes(page_bytes) {
        let _ = unseal(bytes, id, page_bytes);
    }
}

fn read_row(bytes: &[u8]) {
    let schema = schema();
    let _ = row_heap_bytes(&schema, bytes);
    if let Ok(values) = decode_row(&schema, bytes) {
        // It may have been spelled another way, but it means the same.
        let again = decode_row(&schema, &encode_row(&schema, &values));
        assert_eq!(format!("{:?}", again), format!("{:?}", Ok::<_, ()>(values)));
    }
}

fn read_value(bytes: &[u8]) {
    for column in schema().columns() {
        let _ = decode_value(column.data_type, bytes);
    }
    let _ = decode_value(DataType::Uuid, bytes);
    let _ = decode_value(DataType::Timestamp { zoned: true }, bytes);
}

fn read_schema(bytes: &[u8]) {
    if let Ok(schema) = Schema::decode(bytes) {
        assert_eq!(Schema::decode(&schema.encode()).ok(), Some(schema));
    }
}

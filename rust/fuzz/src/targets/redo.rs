//! Records, operations, batches and histories; and what operations do to pages.

use aurora_page::{LeafRef, Lsn, ObjectId, Page, PageKind, VolumeId};
use aurora_redo::{EntriesRef, History, Op, PgBatch, Record, RowsRef, apply, apply_op};
use bytes::Bytes;

use super::Target;
use super::samples::{ID, PAGE_BYTES, leaf, row, schema};

#[path = "../../../redo/tests/samples/mod.rs"]
mod samples;

pub fn targets() -> Vec<Target> {
    let lists = samples::Lists::new();
    let mut ops: Vec<Vec<u8>> = samples::every_op(&lists)
        .iter()
        .map(|op| op.encode().to_vec())
        .collect();
    let encoded = aurora_page::encode_row(&schema(), &row(90));
    let changes =
        aurora_page::encode_changes(&schema(), &[(6, aurora_page::Value::Text("new".into()))]);
    let fitting = [
        Op::LeafInsert {
            rank: 4,
            row: &encoded,
        },
        Op::LeafUpdate {
            rank: 2,
            changes: &changes,
        },
    ];
    ops.extend(fitting.iter().map(|op| op.encode().to_vec()));
    let batch = samples::sample_batch();
    let records = batch.records.iter().map(|record| {
        let mut out = Vec::new();
        record.encode_into(&mut out);
        out
    });
    let histories = [
        History::new(VolumeId(1)),
        History::new(VolumeId(1)).branch(Lsn(100), VolumeId(1), 50),
        History::new(VolumeId(1))
            .branch(Lsn(100), VolumeId(1), 50)
            .branch(Lsn(300), VolumeId(2), 10),
    ];
    let pages = pages();
    vec![
        Target::new("op", ops.clone(), read_op),
        Target::new("apply", ops, move |bytes| change(&pages, bytes)).weighing(200),
        Target::new("record", records.collect(), |bytes| {
            let mut bytes = Bytes::copy_from_slice(bytes);
            while let Ok(record) = Record::decode(&mut bytes) {
                read_op(&record.op);
            }
        }),
        Target::new("batch", vec![batch.encode().to_vec()], |bytes| {
            if let Ok(batch) = PgBatch::decode(Bytes::copy_from_slice(bytes)) {
                batch.records.iter().for_each(|record| read_op(&record.op));
                assert_eq!(PgBatch::decode(batch.encode()).ok(), Some(batch));
            }
        }),
        Target::new(
            "history",
            histories.iter().map(History::encode).collect(),
            |bytes| {
                if let Ok(history) = History::decode(bytes) {
                    assert_eq!(History::decode(&history.encode()).ok(), Some(history));
                }
            },
        ),
        Target::new("lists", vec![lists.rows, lists.entries], |bytes| {
            let rows = RowsRef::parse(bytes).map_or(0, |rows| rows.iter().count());
            let entries = EntriesRef::parse(bytes).map_or(0, |entries| entries.iter().count());
            std::hint::black_box((rows, entries));
        }),
    ]
}

fn read_op(bytes: &[u8]) {
    std::hint::black_box(Op::bytes_start_life(bytes));
    match Op::parse(bytes) {
        Ok(Op::LeafAppend { rows }) => drop(rows.iter().count()),
        Ok(Op::InnerAppend { entries }) => drop(entries.iter().count()),
        Ok(op) => assert_eq!(Op::parse(&op.encode()), Ok(op)),
        Err(_) => {}
    }
}

/// A page of each kind.
fn pages() -> Vec<Page> {
    let object = ObjectId(5);
    let mut pages = vec![leaf(), Page::empty(ID, PAGE_BYTES)];
    let leftmost = aurora_page::PageId(1);
    let formats = [
        Op::FormatInner {
            object,
            level: 1,
            leftmost,
        },
        Op::FormatExtentMap {
            first_extent: 0,
            count: 9,
        },
        Op::FormatOverflow {
            object,
            next: leftmost,
            bytes: b"chunk",
        },
    ];
    for format in formats {
        let mut page = Page::empty(ID, PAGE_BYTES);
        apply_op(&mut page, &format).expect("a page of its kind");
        pages.push(page);
    }
    for (n, key) in [b"b", b"k", b"t"].into_iter().enumerate() {
        let insert = Op::InnerInsert {
            pos: n as u16,
            key,
            child: aurora_page::PageId(n as u64 + 2),
        };
        apply_op(&mut pages[2], &insert).expect("room");
    }
    pages
}

/// Applies an operation to each page: it is refused and nothing has changed, or the page can be read.
fn change(pages: &[Page], op: &[u8]) {
    for before in pages {
        let mut page = before.clone();
        let record = Record {
            lsn: Lsn(700),
            origin: VolumeId(1),
            prev_pg: Lsn::NONE,
            prev_page: before.lsn(),
            page: ID,
            cpl: None,
            op: Bytes::copy_from_slice(op),
        };
        match apply(&mut page, &record) {
            Err(_) => assert!(&page == before, "it was refused, and the page has changed"),
            Ok(()) if page.kind() == PageKind::Leaf => {
                if let Ok(leaf) = LeafRef::new(&page)
                    && leaf.verify().is_ok()
                {
                    (0..leaf.len()).for_each(|rank| drop(leaf.row(rank)));
                }
            }
            Ok(()) => {}
        }
    }
}

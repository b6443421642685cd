//! One of everything, with fixed numbers: shared by the codec tests and the golden files.

use aurora_page::{ExtentState, Lsn, ObjectId, PageId, VolumeId};
use aurora_redo::{BlobId, EntriesRef, Op, PgBatch, PgId, Record, RowsRef};

/// Bytes of the lists that ops borrow.
pub struct Lists {
    pub rows: Vec<u8>,
    pub entries: Vec<u8>,
}

impl Lists {
    pub fn new() -> Self {
        let rows = RowsRef::encode([&b"first"[..], b"", b"third"]);
        let entries = EntriesRef::encode([(&b"k1"[..], PageId(7)), (b"k22", PageId(1 << 40))]);
        Lists { rows, entries }
    }
}

/// Every op once.
pub fn every_op(lists: &Lists) -> Vec<Op<'_>> {
    let object = ObjectId(300);
    vec![
        Op::FormatLeaf {
            object,
            schema_version: 2,
            layout: b"layout",
        },
        Op::FormatInner {
            object,
            level: 1,
            leftmost: PageId(70_000),
        },
        Op::FormatOverflow {
            object,
            next: PageId(0),
            bytes: b"chunk",
        },
        Op::FormatExtentMap {
            first_extent: 128,
            count: 64,
        },
        Op::Reference {
            object,
            blob: BlobId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            index: 17,
        },
        Op::LeafInsert {
            rank: 3,
            row: b"row",
        },
        Op::LeafUpdate {
            rank: 300,
            changes: &[3, 5, 1, 2, 3, 4, 5, 6, 7, 8],
        },
        Op::LeafDelete { rank: u16::MAX },
        Op::LeafTruncate { rank: 0 },
        Op::LeafAppend {
            rows: RowsRef::parse(&lists.rows).expect("own bytes"),
        },
        Op::InnerInsert {
            pos: 4,
            key: b"key",
            child: PageId(99),
        },
        Op::InnerRemove { pos: 4 },
        Op::InnerTruncate { pos: 200 },
        Op::InnerAppend {
            entries: EntriesRef::parse(&lists.entries).expect("own bytes"),
        },
        Op::InnerSetChild {
            pos: 0,
            child: PageId(100),
        },
        Op::ExtentSet {
            first: 1,
            count: 3,
            owner: object,
            load: 9,
            state: ExtentState::Loading,
        },
        Op::ExtentUse { extent: 1, bit: 63 },
        Op::ExtentRelease { extent: 1, bit: 0 },
        Op::Free,
        Op::LeafUpgrade {
            content: b"a layout and a row",
        },
    ]
}

/// A batch that uses every way of packing a record.
pub fn sample_batch() -> PgBatch {
    let (a, b) = (VolumeId(0xa), VolumeId(0xb));
    let lists = Lists::new();
    let ops: Vec<_> = every_op(&lists).iter().map(Op::encode).collect();
    let record = |lsn, origin, prev_pg, prev_page, page, cpl, op: usize| Record {
        lsn: Lsn(lsn),
        origin,
        prev_pg: Lsn(prev_pg),
        prev_page: Lsn(prev_page),
        page: PageId(page),
        cpl,
        op: ops[op].clone(),
    };
    PgBatch {
        pg: PgId(3),
        epoch: 5,
        vdl: Lsn(104),
        records: vec![
            record(205, a, 103, 0, 12_288, None, 0),
            record(206, a, 205, 205, 12_288, Some(1_790_000_000_000_000), 5),
            record(208, a, 206, 95, 12_300, None, 6),
            record(209, a, 208, 208, 12_300, Some(1_790_000_000_000_420), 7),
            record(300, b, 209, 206, 12_288, None, 18),
            record(301, b, 0, 0, 12_289, Some(1_790_000_000_000_400), 4),
        ],
    }
}

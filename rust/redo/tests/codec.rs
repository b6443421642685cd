//! Ops, records and batches as bytes: what is written comes back, what is damaged is an error, and it is all small.

use aurora_page::{Lsn, ObjectId, PageId, VolumeId};
use aurora_redo::{EntriesRef, Mtr, Op, PgBatch, PgId, Prev, Record, RedoError, RowsRef};
use bytes::Bytes;
use proptest::prelude::*;

mod samples;
use samples::{every_op, sample_batch};

#[test]
fn every_op_comes_back() {
    let lists = samples::Lists::new();
    for op in every_op(&lists) {
        let bytes = op.encode();
        assert_eq!(Op::parse(&bytes).as_ref(), Ok(&op));
        assert_eq!(Op::bytes_start_life(&bytes), op.starts_life(), "{op:?}");
    }
}

#[test]
fn lists_come_back() {
    let lists = samples::Lists::new();
    let rows = RowsRef::parse(&lists.rows).expect("rows");
    assert_eq!(
        rows.iter().collect::<Vec<_>>(),
        [&b"first"[..], b"", b"third"]
    );
    let entries = EntriesRef::parse(&lists.entries).expect("entries");
    assert_eq!(
        entries.iter().collect::<Vec<_>>(),
        [(&b"k1"[..], PageId(7)), (b"k22", PageId(1 << 40))]
    );
    assert!(matches!(
        RowsRef::parse(&[3, 1, 2]),
        Err(RedoError::Truncated { .. })
    ));
    assert!(matches!(
        EntriesRef::parse(&[1, 65]),
        Err(RedoError::Truncated { .. })
    ));
}

#[test]
fn cut_ops_are_errors_and_so_are_unknown_tags() {
    for tag in (0..=255u8).filter(|t| !matches!(t, 1..=5 | 16..=21 | 32..=36 | 48..=50 | 64)) {
        let parsed = Op::parse(&[tag, 1, 1, 1]).map(|op| format!("{op:?}"));
        assert!(
            matches!(parsed, Err(RedoError::Unknown { .. })),
            "tag {tag}: {parsed:?}"
        );
    }
    assert!(matches!(Op::parse(&[]), Err(RedoError::Truncated { .. })));
    assert!(matches!(
        Op::parse(&[64, 0]),
        Err(RedoError::TrailingBytes { .. })
    ));
    assert!(matches!(
        Op::parse(&[18, 0x80, 0x80, 0x04]),
        Err(RedoError::OutOfRange { .. })
    ));
}

/// The changes of one `int64` column are a column index, a type code and eight bytes.
const ONE_COLUMN: &[u8] = &[3, 5, 1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn a_one_column_update_is_small() {
    let op = Op::LeafUpdate {
        rank: 300,
        changes: ONE_COLUMN,
    }
    .encode();
    assert!(op.len() <= 14, "{} bytes", op.len());
}

/// The budget is 120 bytes in the hot log, of which the store's frame takes about 40.
#[test]
fn a_one_column_commit_fits_the_budget_of_the_hot_log() {
    let lsn = 3_000_000_000;
    let record = Record {
        lsn: Lsn(lsn),
        origin: VolumeId(0x0123_4567_89ab_cdef),
        prev_pg: Lsn(lsn - 40),
        prev_page: Lsn(lsn - 1_000_000),
        page: PageId(9_000_000),
        cpl: Some(1_790_000_000_000_000),
        op: Op::LeafUpdate {
            rank: 300,
            changes: ONE_COLUMN,
        }
        .encode(),
    };
    let batch = PgBatch {
        pg: PgId(27),
        epoch: 12,
        vdl: Lsn(lsn - 1),
        records: vec![record],
    };
    let bytes = batch.encode();
    assert!(bytes.len() <= 64, "{} bytes", bytes.len());
    // Four neighbours in a group commit share what they have in common.
    let mut four = batch.clone();
    for n in 1..4u64 {
        let mut next = four.records[0].clone();
        next.lsn = Lsn(lsn + n);
        next.prev_pg = Lsn(lsn + n - 1);
        next.page = PageId(9_000_000 + 3 * n);
        next.cpl = next.cpl.map(|t| t + 17 * n as i64);
        four.records.push(next);
    }
    let each = (four.encode().len() - bytes.len()) / 3;
    assert!(each <= 14 + 13, "{each} bytes a record");
}

#[test]
fn a_batch_comes_back_and_shares_its_memory() {
    let batch = sample_batch();
    let bytes = batch.encode();
    let read = PgBatch::decode(bytes.clone()).expect("own bytes");
    assert_eq!(read, batch);
    let within = bytes.as_ptr_range();
    for record in read.records.iter().filter(|r| !r.op.is_empty()) {
        assert!(
            within.contains(&record.op.as_ptr()),
            "the op is a slice of the batch"
        );
    }
}

#[test]
fn every_cut_of_a_batch_is_an_error() {
    let bytes = sample_batch().encode();
    for len in 0..bytes.len() {
        assert!(PgBatch::decode(bytes.slice(..len)).is_err(), "cut at {len}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(matches!(
        PgBatch::decode(longer.into()),
        Err(RedoError::TrailingBytes { got: 1, .. })
    ));
}

#[test]
fn a_forged_count_allocates_nothing() {
    let forged = [
        1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ];
    assert!(matches!(
        PgBatch::decode(Bytes::copy_from_slice(&forged)),
        Err(RedoError::Truncated { .. })
    ));
}

#[test]
fn an_mtr_links_only_backwards_and_within_a_page() {
    let op = Op::Free.encode();
    let mut mtr = Mtr::new(5);
    let first = mtr.push(PageId(1), Prev::Lsn(Lsn(90)), op.clone());
    mtr.push(PageId(1), Prev::InMtr(first), op.clone());
    assert_eq!(mtr.check(), Ok(()));
    assert_eq!(
        (mtr.prev_page(0, Lsn(101)), mtr.prev_page(1, Lsn(101))),
        (Lsn(90), Lsn(101))
    );
    mtr.push(PageId(2), Prev::InMtr(first), op);
    assert!(matches!(mtr.check(), Err(RedoError::Order { .. })));
}

fn any_record() -> impl Strategy<Value = Record> {
    let links = (0u64..6, 0u64..4, 0u64..40, 0u64..40);
    let rest = (
        0u64..4,
        any::<Option<i64>>(),
        prop::collection::vec(any::<u8>(), 0..20),
    );
    (links, rest).prop_map(
        |((gap, origin, back_page, back_pg), (page, cpl, op))| Record {
            lsn: Lsn(gap),
            origin: VolumeId(origin / 2),
            prev_pg: Lsn(back_pg),
            prev_page: Lsn(back_page),
            page: PageId(if page == 3 { u64::MAX - gap } else { page }),
            cpl,
            op: op.into(),
        },
    )
}

/// Records as generated have distances in place of LSNs; this makes them ascend and link below themselves.
fn any_batch() -> impl Strategy<Value = PgBatch> {
    let head = (any::<u32>(), any::<u64>(), any::<u64>(), 1u64..1 << 50);
    (head, prop::collection::vec(any_record(), 0..12)).prop_map(
        |((pg, epoch, vdl, start), mut records)| {
            let mut lsn = start;
            for record in &mut records {
                let last = lsn;
                lsn += record.lsn.0 + 1;
                record.lsn = Lsn(lsn);
                let back = |distance: u64| {
                    Lsn(if distance > 20 {
                        last
                    } else {
                        lsn.saturating_sub(distance + 1)
                    })
                };
                record.prev_pg = if record.prev_pg.0 == 0 {
                    Lsn::NONE
                } else {
                    back(record.prev_pg.0)
                };
                record.prev_page = if record.prev_page.0 == 0 {
                    Lsn::NONE
                } else {
                    back(record.prev_page.0)
                };
            }
            PgBatch {
                pg: PgId(pg),
                epoch,
                vdl: Lsn(vdl),
                records,
            }
        },
    )
}

proptest! {
    #[test]
    fn any_batch_comes_back(batch in any_batch()) {
        prop_assert_eq!(PgBatch::decode(batch.encode()).expect("own bytes"), batch);
    }

    #[test]
    fn any_record_comes_back_alone(batch in any_batch()) {
        let mut out = Vec::new();
        batch.records.iter().for_each(|r| r.encode_into(&mut out));
        let mut bytes = Bytes::from(out);
        for record in &batch.records {
            let read = Record::decode(&mut bytes).expect("own bytes");
            prop_assert_eq!(&read, record);
        }
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn mutated_batches_are_errors_or_other_batches(batch in any_batch(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = batch.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(read) = PgBatch::decode(bytes.into()) {
            prop_assert!(read.records.is_sorted_by(|a, b| a.lsn < b.lsn));
            prop_assert!(read.records.iter().all(|r| r.prev_pg < r.lsn && r.prev_page < r.lsn));
            prop_assert_eq!(PgBatch::decode(read.encode()).expect("own bytes"), read);
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Op::parse(&bytes);
        let _ = RowsRef::parse(&bytes);
        let _ = EntriesRef::parse(&bytes);
        let _ = Record::decode(&mut Bytes::from(bytes.clone()));
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        let _ = PgBatch::decode(bytes.into());
    }

    #[test]
    fn mutated_ops_are_errors_or_other_ops(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let lists = samples::Lists::new();
        let ops = every_op(&lists);
        let mut bytes = which.get(&ops).encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(op) = Op::parse(&bytes) {
            prop_assert_eq!(op.encode(), bytes, "one op has one form");
        }
    }
}

#[test]
fn an_object_is_kept_whole() {
    let op = Op::FormatInner {
        object: ObjectId(u64::MAX),
        level: 255,
        leftmost: PageId(u64::MAX),
    };
    assert_eq!(Op::parse(&op.encode()), Ok(op));
}

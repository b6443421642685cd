//! Records make pages: the same ones from the same records, and nothing but an error from records that do not fit.

use aurora_page::{
    Column, DataType, ExtentRef, ExtentState, InnerRef, KeyPart, LeafRef, Lsn, ObjectId,
    OverflowView, Page, PageId, PageKind, Schema, Value, VolumeId, encode_changes, encode_row,
    leaf_layout, leaf_upgrade,
};
use aurora_redo::{
    BlobId, EntriesRef, Op, Record, RedoError, RowsRef, apply, apply_op, apply_reference,
};
use bytes::Bytes;
use proptest::prelude::*;

const PAGE: PageId = PageId(9);
const OBJECT: ObjectId = ObjectId(300);
const BYTES: usize = 4096;
const A: VolumeId = VolumeId(0xa);

fn schema() -> Schema {
    let column = |id, name: &str, data_type| Column {
        id,
        name: name.into(),
        data_type,
        nullable: id == 1,
    };
    let columns = vec![
        column(0, "id", DataType::Int64),
        column(1, "name", DataType::Text),
    ];
    Schema::new(
        2,
        columns,
        vec![KeyPart {
            column: 0,
            descending: false,
        }],
    )
    .expect("valid")
}

fn row(id: i64, name: &str) -> Vec<u8> {
    encode_row(&schema(), &[Value::Int(id), Value::Text(name.into())])
}

fn record(lsn: u64, prev: u64, op: Op<'_>) -> Record {
    Record {
        lsn: Lsn(lsn),
        origin: A,
        prev_pg: Lsn::NONE,
        prev_page: Lsn(prev),
        page: PAGE,
        cpl: None,
        op: op.encode(),
    }
}

fn leaf_at_205() -> Page {
    let mut page = Page::empty(PAGE, BYTES);
    let layout = leaf_layout(&schema(), 20);
    apply(
        &mut page,
        &record(
            205,
            0,
            Op::FormatLeaf {
                object: OBJECT,
                schema_version: 2,
                layout: &layout,
            },
        ),
    )
    .expect("format");
    page
}

#[test]
fn a_life_of_a_leaf() {
    let mut page = leaf_at_205();
    assert_eq!(
        (page.kind(), page.object(), page.lsn(), page.prev_lsn()),
        (PageKind::Leaf, OBJECT, Lsn(205), Lsn::NONE)
    );
    let rows = RowsRef::encode([row(10, "ann"), row(20, "bob"), row(30, "cy")]);
    apply(
        &mut page,
        &record(
            206,
            205,
            Op::LeafAppend {
                rows: RowsRef::parse(&rows).expect("rows"),
            },
        ),
    )
    .expect("append");
    apply(
        &mut page,
        &record(
            207,
            206,
            Op::LeafInsert {
                rank: 1,
                row: &row(15, "dee"),
            },
        ),
    )
    .expect("insert");
    let changes = encode_changes(&schema(), &[(1, Value::Text("eve".into()))]);
    apply(
        &mut page,
        &record(
            208,
            207,
            Op::LeafUpdate {
                rank: 0,
                changes: &changes,
            },
        ),
    )
    .expect("update");
    apply(&mut page, &record(300, 208, Op::LeafDelete { rank: 2 })).expect("delete");
    let leaf = LeafRef::new(&page).expect("leaf");
    let rows: Vec<_> = (0..leaf.len()).map(|rank| leaf.row_bytes(rank)).collect();
    assert_eq!(rows, [row(10, "eve"), row(15, "dee"), row(30, "cy")]);
    assert_eq!(
        (page.origin(), page.lsn(), page.prev_lsn()),
        (A, Lsn(300), Lsn(208))
    );
    apply(&mut page, &record(310, 300, Op::LeafTruncate { rank: 1 })).expect("truncate");
    assert_eq!(LeafRef::new(&page).expect("leaf").len(), 1);
    apply(&mut page, &record(400, 310, Op::Free)).expect("free");
    assert_eq!(
        (page.kind(), page.lsn(), page.prev_lsn()),
        (PageKind::Free, Lsn(400), Lsn(310))
    );
}

/// Whatever the page was before, a new life makes the same page: one copy may have seen the old one, another not.
#[test]
fn a_new_life_forgets_the_old_one() {
    let mut lived = leaf_at_205();
    apply(
        &mut lived,
        &record(
            206,
            205,
            Op::LeafInsert {
                rank: 0,
                row: &row(1, "old"),
            },
        ),
    )
    .expect("insert");
    let mut fresh = Page::empty(PAGE, BYTES);
    let layout = leaf_layout(&schema(), 20);
    let lives = [
        Op::FormatLeaf {
            object: OBJECT,
            schema_version: 2,
            layout: &layout,
        },
        Op::FormatInner {
            object: OBJECT,
            level: 1,
            leftmost: PageId(70),
        },
        Op::FormatOverflow {
            object: OBJECT,
            next: PageId(11),
            bytes: b"chunk",
        },
        Op::FormatExtentMap {
            first_extent: 64,
            count: 8,
        },
    ];
    for (n, op) in lives.into_iter().enumerate() {
        let life = record(500 + n as u64, 0, op);
        apply(&mut lived, &life).expect("on an old page");
        apply(&mut fresh, &life).expect("on a fresh page");
        assert_eq!(lived.bytes(), fresh.bytes(), "{op:?}");
        assert_eq!(lived.prev_lsn(), Lsn::NONE);
    }
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let insert = Op::LeafInsert {
        rank: 0,
        row: &row(1, "x"),
    };
    let wrong_prev = RedoError::WrongPrev {
        page: PAGE,
        lsn: Lsn(206),
        expected: Lsn(204),
        got: Lsn(205),
    };
    let life = RedoError::LifeHasPrev {
        page: PAGE,
        lsn: Lsn(206),
        got: Lsn(205),
    };
    let other_page = Record {
        page: PageId(8),
        ..record(206, 205, insert)
    };
    let wrong_page = RedoError::WrongPage {
        lsn: Lsn(206),
        expected: PageId(8),
        got: PAGE,
    };
    let rows = [
        (record(206, 204, insert), wrong_prev),
        (
            record(
                206,
                205,
                Op::FormatInner {
                    object: OBJECT,
                    level: 1,
                    leftmost: PageId(1),
                },
            ),
            life,
        ),
        (other_page, wrong_page),
    ];
    for (record, expected) in rows {
        let mut page = leaf_at_205();
        assert_eq!(apply(&mut page, &record), Err(expected));
        assert_eq!(page, leaf_at_205());
    }
    let mut twice = leaf_at_205();
    apply(&mut twice, &record(206, 205, insert)).expect("once");
    assert!(matches!(
        apply(&mut twice, &record(206, 205, insert)),
        Err(RedoError::WrongPrev { .. })
    ));
}

#[test]
fn a_change_that_does_not_fit_the_page_is_an_error() {
    let empty_list = RowsRef::default();
    let ops = [
        Op::LeafDelete { rank: 0 },
        Op::LeafUpdate {
            rank: 0,
            changes: &[],
        },
        Op::LeafInsert {
            rank: 1,
            row: &row(1, "x"),
        },
        Op::LeafInsert {
            rank: 0,
            row: b"no row",
        },
        Op::LeafTruncate { rank: 1 },
        Op::InnerRemove { pos: 0 },
        Op::InnerAppend {
            entries: EntriesRef::default(),
        },
        Op::ExtentUse { extent: 0, bit: 0 },
        Op::FormatLeaf {
            object: OBJECT,
            schema_version: 2,
            layout: b"bad",
        },
        Op::FormatLeaf {
            object: OBJECT,
            schema_version: 7,
            layout: &leaf_layout(&schema(), 20),
        },
        Op::FormatOverflow {
            object: OBJECT,
            next: PageId(0),
            bytes: &[0; BYTES],
        },
        Op::FormatExtentMap {
            first_extent: 0,
            count: u32::MAX,
        },
    ];
    for op in ops {
        let mut page = leaf_at_205();
        let refused = apply_op(&mut page, &op);
        assert!(
            matches!(refused, Err(RedoError::Page(_))),
            "{op:?}: {refused:?}"
        );
        assert_eq!(page, leaf_at_205(), "{op:?}");
    }
    assert_eq!(
        apply_op(&mut leaf_at_205(), &Op::LeafAppend { rows: empty_list }),
        Ok(())
    );
}

#[test]
fn inner_pages() {
    let mut page = Page::empty(PAGE, BYTES);
    let entries = EntriesRef::encode([(&b"m"[..], PageId(2)), (b"t", PageId(3))]);
    let ops = [
        Op::FormatInner {
            object: OBJECT,
            level: 2,
            leftmost: PageId(1),
        },
        Op::InnerAppend {
            entries: EntriesRef::parse(&entries).expect("entries"),
        },
        Op::InnerInsert {
            pos: 0,
            key: b"c",
            child: PageId(4),
        },
        Op::InnerSetChild {
            pos: 0,
            child: PageId(5),
        },
        Op::InnerRemove { pos: 1 },
        Op::InnerInsert {
            pos: 2,
            key: b"x",
            child: PageId(6),
        },
        Op::InnerTruncate { pos: 2 },
    ];
    for op in ops {
        apply_op(&mut page, &op).unwrap_or_else(|e| panic!("{op:?}: {e}"));
    }
    let inner = InnerRef::new(&page).expect("inner");
    assert_eq!((inner.level(), inner.child(0)), (2, PageId(5)));
    assert_eq!(
        inner.entries().collect::<Vec<_>>(),
        [(&b"c"[..], PageId(4)), (b"t", PageId(3))]
    );
}

#[test]
fn extents_change_together_and_forget_their_pages_with_their_owner() {
    let mut page = Page::empty(PAGE, BYTES);
    let set = |first, count, owner, state| Op::ExtentSet {
        first,
        count,
        owner: ObjectId(owner),
        load: 9,
        state,
    };
    let ops = [
        Op::FormatExtentMap {
            first_extent: 64,
            count: 8,
        },
        set(1, 3, 300, ExtentState::Loading),
        Op::ExtentUse { extent: 2, bit: 5 },
        Op::ExtentUse { extent: 3, bit: 1 },
        Op::ExtentUse { extent: 3, bit: 0 },
        Op::ExtentRelease { extent: 3, bit: 1 },
        set(2, 2, 300, ExtentState::Linked),
    ];
    for op in ops {
        apply_op(&mut page, &op).unwrap_or_else(|e| panic!("{op:?}: {e}"));
    }
    let used = |page: &Page| {
        ExtentRef::new(page)
            .expect("map")
            .entries()
            .map(|e| e.expect("entry").used)
            .collect::<Vec<_>>()
    };
    assert_eq!(used(&page), [0, 0, 1 << 5, 1, 0, 0, 0, 0]);
    apply_op(&mut page, &set(2, 1, 0, ExtentState::Free)).expect("free");
    apply_op(&mut page, &set(3, 1, 301, ExtentState::Linked)).expect("given to another");
    assert_eq!(used(&page), [0; 8]);
    let before = page.clone();
    assert!(apply_op(&mut page, &set(7, 2, 300, ExtentState::Linked)).is_err());
    assert_eq!(page, before, "none of a range that does not fit");
}

#[test]
fn a_reference_takes_the_page_of_the_blob() {
    let reference = Op::Reference {
        object: OBJECT,
        blob: BlobId(7),
        index: 3,
    };
    let mut page = leaf_at_205();
    let needs = RedoError::NeedsBlob {
        blob: BlobId(7),
        index: 3,
    };
    assert_eq!(apply(&mut page, &record(600, 0, reference)), Err(needs));
    let mut content = Page::empty(PAGE, BYTES);
    apply_op(
        &mut content,
        &Op::FormatOverflow {
            object: OBJECT,
            next: PageId(0),
            bytes: b"loaded",
        },
    )
    .expect("content");
    apply_reference(&mut page, &record(600, 0, reference), content.clone()).expect("reference");
    assert_eq!((page.lsn(), page.prev_lsn()), (Lsn(600), Lsn::NONE));
    assert_eq!(
        OverflowView::new(&page).expect("overflow").chunk(),
        b"loaded"
    );

    let refused =
        |content| apply_reference(&mut leaf_at_205(), &record(600, 0, reference), content);
    assert!(matches!(
        refused(Page::empty(PageId(8), BYTES)),
        Err(RedoError::WrongPage { .. })
    ));
    assert!(
        matches!(refused(Page::empty(PAGE, BYTES)), Err(RedoError::Page(_))),
        "of another owner"
    );
    let mut stamped = content.clone();
    stamped.stamp(A, Lsn(3));
    assert!(
        matches!(refused(stamped), Err(RedoError::Page(_))),
        "it has an LSN already"
    );
    assert!(matches!(
        apply_reference(&mut page, &record(601, 600, Op::Free), content),
        Err(RedoError::Unknown { .. })
    ));
}

proptest! {
    /// Bytes that parse as an op may do anything to a page but panic, and a page that refused is as it was.
    #[test]
    fn no_op_panics(tag in prop::sample::select(vec![1u8, 2, 3, 4, 5, 16, 17, 18, 19, 20, 32, 33, 34, 35, 36, 48, 49, 50, 64]),
                    mut bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 1..60)) {
        bytes[0] = tag;
        let mut pages = [leaf_at_205(), Page::empty(PAGE, BYTES), Page::empty(PAGE, BYTES)];
        apply_op(&mut pages[1], &Op::FormatInner { object: OBJECT, level: 1, leftmost: PageId(1) }).expect("inner");
        apply_op(&mut pages[2], &Op::FormatExtentMap { first_extent: 0, count: 9 }).expect("map");
        for page in &mut pages {
            let before = page.clone();
            let record = Record { op: Bytes::copy_from_slice(&bytes), ..record(700, before.lsn().0, Op::Free) };
            if apply(page, &record).is_err() {
                prop_assert_eq!(&before, &*page);
            }
        }
    }
}

#[test]
fn an_upgrade_goes_on_with_the_life_of_its_leaf() {
    let mut page = leaf_at_205();
    let insert = Op::LeafInsert {
        rank: 0,
        row: &row(10, "ann"),
    };
    apply(&mut page, &record(206, 205, insert)).expect("insert");
    let later = schema()
        .with_column("age", DataType::Int16, false, &Value::Int(30))
        .and_then(|schema| schema.without_column("name"))
        .expect("a schema");
    let content = leaf_upgrade(&later, 40);
    let upgrade = |prev| record(207, prev, Op::LeafUpgrade { content: &content });
    let before = page.clone();
    let error = apply(&mut page, &upgrade(205)).unwrap_err();
    assert!(matches!(error, RedoError::WrongPrev { .. }), "{error}");
    assert!(page == before);
    apply(&mut page, &upgrade(206)).expect("upgrade");
    assert_eq!(
        (
            page.object(),
            page.lsn(),
            page.prev_lsn(),
            page.schema_version()
        ),
        (OBJECT, Lsn(207), Lsn(206), 4)
    );
    let leaf = LeafRef::new(&page).expect("a leaf");
    assert_eq!(leaf.row(0), [Value::Int(10), Value::Int(30)]);
    // The next record is of the new schema.
    let more = encode_row(&later, &[Value::Int(11), Value::Int(31)]);
    let insert = Op::LeafInsert {
        rank: 1,
        row: &more,
    };
    apply(&mut page, &record(208, 207, insert)).expect("insert");
    assert_eq!(LeafRef::new(&page).expect("a leaf").len(), 2);
}

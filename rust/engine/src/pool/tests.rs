//! The stories behind the pool's rules.

use std::sync::Arc;

use aurora_page::{Lsn, Page, PageId, VolumeId};
use aurora_redo::{Op, Record, apply};

use super::{PAGES_MIN, Pool};
use crate::error::Stop;

const BYTES: usize = 1024;
const ID: PageId = PageId(9);

fn record(page: PageId, lsn: u64, prev: u64, op: &Op<'_>) -> Record {
    Record {
        lsn: Lsn(lsn),
        origin: VolumeId(1),
        prev_pg: Lsn::NONE,
        prev_page: Lsn(prev),
        page,
        cpl: None,
        op: op.encode(),
    }
}

/// The page's history: formatted at 10, then a bit set at 20, 30, 40, 50.
fn history(page: PageId) -> Vec<Record> {
    let format = record(
        page,
        10,
        0,
        &Op::FormatExtentMap {
            first_extent: 0,
            count: 4,
        },
    );
    let used = |n: u64| {
        record(
            page,
            10 + n * 10,
            n * 10,
            &Op::ExtentUse {
                extent: 0,
                bit: n as u8,
            },
        )
    };
    std::iter::once(format).chain((1..=4).map(used)).collect()
}

fn version(page: PageId, at: u64) -> Page {
    let mut version = Page::empty(page, BYTES);
    for record in history(page).iter().filter(|record| record.lsn.0 <= at) {
        apply(&mut version, record).unwrap();
    }
    version
}

fn pool() -> Pool {
    Pool::new(0, BYTES, Lsn(0))
}

/// Commits the change at `lsn`, which the log above has.
fn commit(pool: &Pool, page: PageId, lsn: u64, vdl: u64) {
    let (before, mut draft) = pool.draft(page, Lsn(vdl)).unwrap();
    let record = history(page)
        .into_iter()
        .find(|record| record.lsn.0 == lsn)
        .unwrap();
    apply(&mut draft, &record).unwrap();
    pool.publish(Some(before), Arc::new(draft), vec![record], Lsn(vdl));
}

fn is_missing(pool: &Pool, at: u64, vdl: u64) -> bool {
    let missing = Stop::NeedPage {
        page: ID,
        at: Lsn(at.min(vdl)),
    };
    matches!(pool.at(ID, Lsn(at), Lsn(vdl)), Err(stop) if stop == missing)
}

#[test]
fn an_answer_from_before_a_change_is_not_taken_for_the_newest() {
    let pool = pool();
    pool.install(ID, version(ID, 25), Lsn(25), Lsn(25), 0)
        .unwrap();
    commit(&pool, ID, 30, 25);
    pool.evict_all(Lsn(35));
    assert_eq!(pool.stats().pages, 0);
    // Asked for at 25, before the change, and slow to come.
    pool.install(ID, version(ID, 25), Lsn(25), Lsn(35), 0)
        .unwrap();
    assert!(pool.head(ID, Lsn(35)).is_err());
    assert!(is_missing(&pool, 30, 35));
    assert_eq!(*pool.at(ID, Lsn(25), Lsn(35)).unwrap(), version(ID, 25));
    pool.install(ID, version(ID, 35), Lsn(35), Lsn(35), 0)
        .unwrap();
    assert_eq!(*pool.head(ID, Lsn(35)).unwrap(), version(ID, 35));
}

#[test]
fn every_read_point_between_base_and_head_is_served_from_memory() {
    let pool = pool();
    pool.install(ID, version(ID, 10), Lsn(15), Lsn(15), 0)
        .unwrap();
    for lsn in [20, 30, 40] {
        commit(&pool, ID, lsn, 15);
    }
    for at in 10..60 {
        assert_eq!(
            *pool.at(ID, Lsn(at), Lsn(15)).unwrap(),
            version(ID, at.min(40)),
            "at {at}"
        );
    }
    // The next change after they have become durable starts from a new base; what lies before is asked of storage.
    commit(&pool, ID, 50, 45);
    pool.evict_all(Lsn(45));
    assert_eq!(*pool.at(ID, Lsn(49), Lsn(45)).unwrap(), version(ID, 49));
    assert_eq!(*pool.at(ID, Lsn(50), Lsn(45)).unwrap(), version(ID, 50));
}

#[test]
fn a_draft_made_of_the_base_equals_a_copy_of_the_head() {
    let pool = pool();
    pool.install(ID, version(ID, 10), Lsn(15), Lsn(15), 0)
        .unwrap();
    commit(&pool, ID, 20, 15);
    // Held by a reader, the base stays what it is.
    let held = pool.at(ID, Lsn(15), Lsn(25)).unwrap();
    assert_eq!(pool.draft(ID, Lsn(25)).unwrap().1, version(ID, 20));
    assert_eq!(*held, version(ID, 10));
    drop(held);
    assert_eq!(pool.draft(ID, Lsn(25)).unwrap().1, version(ID, 20));
    // Taken: the head is still there, older read points are not.
    assert_eq!(*pool.at(ID, Lsn(25), Lsn(25)).unwrap(), version(ID, 20));
    assert!(is_missing(&pool, 15, 25));
    commit(&pool, ID, 30, 25);
    assert_eq!(*pool.at(ID, Lsn(25), Lsn(25)).unwrap(), version(ID, 20));
}

#[test]
fn what_is_not_durable_stays_and_leaves_room_for_a_path() {
    let pool = pool();
    for id in 0..3 * PAGES_MIN as u64 {
        pool.install(PageId(id), version(PageId(id), 15), Lsn(15), Lsn(15), 0)
            .unwrap();
        commit(&pool, PageId(id), 20, 15);
    }
    assert!((0..3 * PAGES_MIN as u64).all(|id| pool.head(PageId(id), Lsn(15)).is_ok()));
    let path = 1000..1008;
    for _ in 0..2 {
        for id in path.clone() {
            pool.install(PageId(id), version(PageId(id), 15), Lsn(15), Lsn(15), 0)
                .unwrap();
        }
        assert!(
            path.clone()
                .all(|id| pool.head(PageId(id), Lsn(15)).is_ok())
        );
    }
    pool.evict_all(Lsn(25));
    assert_eq!((pool.stats().pages, pool.stats().bytes), (0, 0));
}

#[test]
fn pinned_pages_stay_also_those_that_are_yet_to_come() {
    let pool = pool();
    pool.pin(ID);
    pool.install(ID, version(ID, 15), Lsn(15), Lsn(15), 0)
        .unwrap();
    for id in 1000..1000 + 4 * PAGES_MIN as u64 {
        pool.install(PageId(id), version(PageId(id), 15), Lsn(15), Lsn(15), 0)
            .unwrap();
    }
    assert!(pool.head(ID, Lsn(15)).is_ok());
    let stats = pool.stats();
    assert!(stats.bytes <= stats.bytes_max, "{stats:?}");
    pool.unpin(ID);
    pool.evict_all(Lsn(15));
    assert!(pool.head(ID, Lsn(15)).is_err());
}

#[test]
fn a_page_whose_content_came_by_a_blob_is_fetched_once_that_is_durable() {
    let pool = pool();
    pool.install(ID, version(ID, 10), Lsn(15), Lsn(15), 0)
        .unwrap();
    pool.supersede(ID, Lsn(20), Lsn(15));
    pool.install(ID, version(ID, 10), Lsn(15), Lsn(15), 0)
        .unwrap();
    assert!(
        pool.head(ID, Lsn(15)).is_err(),
        "the reference at 20 is newer"
    );
    pool.install(ID, version(ID, 20), Lsn(20), Lsn(20), 0)
        .unwrap();
    assert_eq!(*pool.head(ID, Lsn(20)).unwrap(), version(ID, 20));
}

#[test]
fn a_page_that_is_not_what_was_asked_for_is_refused() {
    let pool = pool();
    let error = pool
        .install(ID, version(ID, 30), Lsn(25), Lsn(25), 0)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "page 9 at LSN 25: expected page 9 of 1024 bytes, no newer than 25, got page 9 of 1024 bytes, LSN 30"
    );
    assert!(
        pool.install(PageId(8), version(ID, 10), Lsn(25), Lsn(25), 0)
            .is_err()
    );
}

//! Random MTRs that make sense for the pages as the writer sees them.

use std::collections::BTreeMap;

use aurora_page::{Lsn, PageId};
use aurora_redo::{Mtr, Prev};

use crate::model::{Change, Content, NOTE_BYTES_MAX, Row, Table};
use crate::rng::Rng;

/// The newest state of every page, as the writer has numbered it.
pub type Heads = BTreeMap<PageId, (Lsn, Content)>;

/// An MTR before it is numbered, and what it will do.
#[derive(Debug)]
pub struct Draft {
    /// For the writer.
    pub mtr: Mtr,
    /// For the model, record by record.
    pub changes: Vec<(PageId, Change)>,
    /// The pages it changes, as they will be.
    pub after: BTreeMap<PageId, Content>,
}

/// Draws an MTR on some of `pages` pages.
pub fn draft(rng: &mut Rng, table: &Table, heads: &Heads, pages: u64, time_us: i64) -> Draft {
    let mut draft = Draft {
        mtr: Mtr::new(time_us),
        changes: Vec::new(),
        after: BTreeMap::new(),
    };
    let mut last: BTreeMap<PageId, u32> = BTreeMap::new();
    // Mostly one record, as a one-row commit has; sometimes as many as a split has.
    let records = if rng.chance(600) {
        1
    } else {
        rng.between(2, 8)
    };
    for _ in 0..records {
        let page = PageId(hot_or_cold(rng, pages));
        let (lsn, numbered) = heads.get(&page).cloned().unwrap_or_default();
        let content = draft.after.entry(page).or_insert(numbered);
        let change = draw(rng, table, content);
        let prev = match last.get(&page) {
            _ if change.starts_life() => Prev::Lsn(Lsn::NONE),
            Some(index) => Prev::InMtr(*index),
            None => Prev::Lsn(lsn),
        };
        change.apply(content);
        last.insert(page, draft.mtr.push(page, prev, table.op(&change)));
        draft.changes.push((page, change));
    }
    draft
}

/// A few pages get most of the changes, so that chains grow long.
fn hot_or_cold(rng: &mut Rng, pages: u64) -> u64 {
    if rng.chance(500) {
        rng.below(pages.min(3))
    } else {
        rng.below(pages)
    }
}

fn draw(rng: &mut Rng, table: &Table, content: &Content) -> Change {
    match content {
        Content::Free if rng.chance(250) => Change::FormatOverflow(chunk(rng)),
        Content::Free => Change::FormatLeaf,
        Content::Overflow(_) if rng.chance(500) => Change::Free,
        Content::Overflow(_) => Change::FormatOverflow(chunk(rng)),
        Content::Leaf(rows) => draw_leaf(rng, table, rows),
        Content::Replayed(_) => Change::Free,
    }
}

fn draw_leaf(rng: &mut Rng, table: &Table, rows: &[Row]) -> Change {
    if rng.chance(4) {
        return Change::Free;
    }
    let room = table.rows_max - rows.len();
    let dice = rng.below(100);
    if rows.is_empty() || (dice < 40 && room > 0) {
        if dice.is_multiple_of(8) && room >= 4 {
            let above = rows.last().map_or(0, |row| row.key);
            let rows = (1..=4).map(|n| Row {
                key: above + n,
                number: n,
                note: note(rng),
            });
            return Change::Append(rows.collect());
        }
        let key = rng.below(1 << 40) as i64;
        let rank = rows.partition_point(|row| row.key < key);
        if rows.get(rank).is_some_and(|row| row.key == key) {
            return Change::SetNumber(rank, rng.bits() as i64);
        }
        return Change::Insert(
            rank,
            Row {
                key,
                number: rng.bits() as i64,
                note: note(rng),
            },
        );
    }
    let rank = rng.index(rows.len());
    match dice {
        ..75 => Change::SetNumber(rank, rng.bits() as i64),
        75..85 => Change::SetNote(rank, note(rng)),
        85..97 => Change::Delete(rank),
        _ => Change::Truncate(rank),
    }
}

fn note(rng: &mut Rng) -> Option<String> {
    let len = rng.index(NOTE_BYTES_MAX + 1);
    (!rng.chance(200)).then(|| {
        (0..len)
            .map(|_| char::from(b'a' + rng.below(26) as u8))
            .collect()
    })
}

fn chunk(rng: &mut Rng) -> Vec<u8> {
    (0..rng.between(1, 60)).map(|_| rng.bits() as u8).collect()
}

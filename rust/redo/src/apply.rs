//! The one function that changes pages [5]: the same for the writer's cache, replicas, storage nodes and restore.
//!
//! ```text
//!   record --- names another page? ---> WrongPage
//!     |
//!     +------- starts a life? --- yes --> prev must be NONE; whatever the page was is forgotten
//!     |             no
//!     +------- prev_page == page LSN? -- no --> WrongPrev: something between was lost, or comes twice
//!     |             yes
//!   apply_op, stamp(origin, lsn)
//! ```

use aurora_page::{
    ExtentEntry, ExtentMut, ExtentState, InnerMut, LeafMut, Lsn, ObjectId, Page, PageError,
    PageKind, format_extent_map, format_inner, format_leaf, format_overflow, upgrade_leaf,
};

use crate::{Op, Record, RedoError};

/// Does `op` to `page`: no LSN check and no stamp. An op that starts a life forgets the page's LSN;
/// [`Op::Reference`] answers [`RedoError::NeedsBlob`]. An op that fails leaves the page as it was.
pub fn apply_op(page: &mut Page, op: &Op<'_>) -> Result<(), RedoError> {
    match *op {
        Op::FormatLeaf {
            object,
            schema_version,
            layout,
        } => apply_format_leaf(page, object, schema_version, layout)?,
        Op::FormatInner {
            object,
            level,
            leftmost,
        } => format_inner(page, object, level, leftmost),
        Op::FormatOverflow {
            object,
            next,
            bytes,
        } => format_overflow(page, object, next, bytes)?,
        Op::FormatExtentMap {
            first_extent,
            count,
        } => format_extent_map(page, first_extent, count)?,
        Op::Reference { blob, index, .. } => return Err(RedoError::NeedsBlob { blob, index }),
        Op::LeafInsert { rank, row } => LeafMut::new(page)?.insert(rank.into(), row)?,
        Op::LeafUpdate { rank, changes } => LeafMut::new(page)?.update(rank.into(), changes)?,
        Op::LeafDelete { rank } => LeafMut::new(page)?.delete(rank.into())?,
        Op::LeafTruncate { rank } => LeafMut::new(page)?.truncate(rank.into())?,
        Op::LeafAppend { rows } => LeafMut::new(page)?.append_rows(rows.iter())?,
        Op::LeafUpgrade { content } => upgrade_leaf(page, content)?,
        Op::InnerInsert { pos, key, child } => {
            InnerMut::new(page)?.insert(pos.into(), key, child)?
        }
        Op::InnerRemove { pos } => InnerMut::new(page)?.remove(pos.into())?,
        Op::InnerTruncate { pos } => InnerMut::new(page)?.truncate(pos.into())?,
        Op::InnerAppend { entries } => InnerMut::new(page)?.append(entries.iter())?,
        Op::InnerSetChild { pos, child } => InnerMut::new(page)?.set_child(pos.into(), child)?,
        Op::ExtentSet {
            first,
            count,
            owner,
            load,
            state,
        } => {
            let entry = ExtentEntry {
                owner,
                load,
                state,
                used: 0,
            };
            set_extents(page, first, count, entry)?;
        }
        Op::ExtentUse { extent, bit } => ExtentMut::new(page)?.mark_used(extent as usize, bit)?,
        Op::ExtentRelease { extent, bit } => {
            ExtentMut::new(page)?.mark_free(extent as usize, bit)?
        }
        Op::Free => page.reset(PageKind::Free, ObjectId(0), 0),
    }
    Ok(())
}

/// Applies `record` to `page`: checks that it follows the page's newest change [5], changes the page and stamps it.
pub fn apply(page: &mut Page, record: &Record) -> Result<(), RedoError> {
    let op = Op::parse(&record.op)?;
    check_place(page, record, op.starts_life())?;
    let before = page.lsn();
    apply_op(page, &op)?;
    if matches!(op, Op::Free) {
        // Freeing clears the header too; the chain of one life goes through to its last record.
        page.stamp(record.origin, before);
    }
    page.stamp(record.origin, record.lsn);
    Ok(())
}

/// Applies a record whose op is [`Op::Reference`], with the page of the blob that the caller has fetched.
pub fn apply_reference(page: &mut Page, record: &Record, content: Page) -> Result<(), RedoError> {
    let op = Op::parse(&record.op)?;
    let Op::Reference { object, .. } = op else {
        let (expected, got) = ("a reference", u64::from(record.op[0]));
        return Err(RedoError::Unknown {
            what: "record with a blob page",
            field: "op",
            expected,
            got,
        });
    };
    check_place(page, record, true)?;
    check_content(page, object, &content, record)?;
    *page = content;
    page.stamp(record.origin, record.lsn);
    Ok(())
}

fn check_place(page: &Page, record: &Record, starts_life: bool) -> Result<(), RedoError> {
    let lsn = record.lsn;
    if page.id() != record.page {
        return Err(RedoError::WrongPage {
            lsn,
            expected: record.page,
            got: page.id(),
        });
    }
    if starts_life {
        return match record.prev_page {
            Lsn::NONE => Ok(()),
            got => Err(RedoError::LifeHasPrev {
                page: page.id(),
                lsn,
                got,
            }),
        };
    }
    if page.lsn() != record.prev_page {
        return Err(RedoError::WrongPrev {
            page: page.id(),
            lsn,
            expected: record.prev_page,
            got: page.lsn(),
        });
    }
    Ok(())
}

/// The page of a blob was sealed before it had an LSN, for this page and this owner.
fn check_content(
    page: &Page,
    object: ObjectId,
    content: &Page,
    record: &Record,
) -> Result<(), RedoError> {
    if content.id() != page.id() {
        return Err(RedoError::WrongPage {
            lsn: record.lsn,
            expected: page.id(),
            got: content.id(),
        });
    }
    let corrupt = |what, expected, got| {
        Err(PageError::Corrupt {
            page: page.id(),
            what,
            expected,
            got,
        }
        .into())
    };
    if content.object() != object {
        return corrupt("owner of a blob's page", object.0, content.object().0);
    }
    if content.bytes().len() != page.bytes().len() {
        return corrupt(
            "bytes of a blob's page",
            page.bytes().len() as u64,
            content.bytes().len() as u64,
        );
    }
    if content.lsn() != Lsn::NONE {
        return corrupt("LSN of a blob's page", Lsn::NONE.0, content.lsn().0);
    }
    Ok(())
}

fn apply_format_leaf(
    page: &mut Page,
    object: ObjectId,
    version: u32,
    layout: &[u8],
) -> Result<(), RedoError> {
    let mut fresh = Page::empty(page.id(), page.bytes().len());
    format_leaf(&mut fresh, object, layout)?;
    if fresh.schema_version() != version {
        let (what, expected, got) = (
            "schema version of a layout",
            version.into(),
            fresh.schema_version().into(),
        );
        return Err(PageError::Corrupt {
            page: page.id(),
            what,
            expected,
            got,
        }
        .into());
    }
    *page = fresh;
    Ok(())
}

/// All of the extents change, or none: a range that ends outside the map is found before the first is set.
fn set_extents(
    page: &mut Page,
    first: u32,
    count: u32,
    entry: ExtentEntry,
) -> Result<(), RedoError> {
    let (id, mut map) = (page.id(), ExtentMut::new(page)?);
    let (first, end) = (first as usize, first as usize + count as usize);
    let len = map.view().len();
    if end > len {
        return Err(PageError::OutOfRange {
            page: id,
            what: "extents",
            max: len,
            got: end,
        }
        .into());
    }
    for index in first..end {
        let before = map.view().get(index)?;
        let stays = before.owner == entry.owner && entry.state != ExtentState::Free;
        let used = if stays { before.used } else { 0 };
        map.set(index, ExtentEntry { used, ..entry })?;
    }
    Ok(())
}

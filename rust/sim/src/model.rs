//! What must be there: every MTR that a writer was given numbers for, and what its changes mean.
//!
//! The model shares no code with pages and `apply`: a leaf is a `Vec` of rows, a change edits it. What storage
//! materialises is compared with it row by row.

use std::collections::BTreeMap;

use aurora_page::{
    Column, DataType, KeyPart, LeafRef, Lsn, ObjectId, OverflowView, Page, PageId, PageKind,
    Schema, Value, VolumeId,
};
use aurora_page::{encode_changes, encode_row, leaf_capacity, leaf_layout};
use aurora_redo::{History, Op, Record, RowsRef, apply};
use bytes::Bytes;

/// A row of the one table there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: i64,
    /// A number that updates change.
    pub number: i64,
    /// A text that is sometimes null.
    pub note: Option<String>,
}

/// What a page holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    #[default]
    Free,
    /// Rows in key order.
    Leaf(Vec<Row>),
    /// A chunk of a large value.
    Overflow(Vec<u8>),
    /// What the records of an engine lead to.
    Replayed(Box<Page>),
}

/// A change of a page, as the model understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Starts a leaf's life.
    FormatLeaf,
    /// Starts an overflow page's life.
    FormatOverflow(Vec<u8>),
    /// A row comes in.
    Insert(usize, Row),
    /// A row's number changes.
    SetNumber(usize, i64),
    /// A row's text changes.
    SetNote(usize, Option<String>),
    /// A row goes.
    Delete(usize),
    /// The rows from here on go.
    Truncate(usize),
    /// Rows follow the last one.
    Append(Vec<Row>),
    /// The page's life ends.
    Free,
    /// A record of an engine, of a page of so many bytes. What it means is checked by clients; here, that every copy has it.
    Logged(Box<Record>, usize),
    /// A reference of an engine's, and the page that its blob has for it.
    Loaded(Box<Record>, Box<Page>),
}

impl Change {
    /// Does it start a page's life?
    pub fn starts_life(&self) -> bool {
        match self {
            Change::Logged(record, _) | Change::Loaded(record, _) => record.starts_life(),
            other => matches!(other, Change::FormatLeaf | Change::FormatOverflow(_)),
        }
    }

    /// Makes the change in the model. A change of a page that it does not fit is a bug of the workload.
    pub fn apply(&self, content: &mut Content) {
        match (self, content) {
            (Change::FormatLeaf, content) => *content = Content::Leaf(Vec::new()),
            (Change::FormatOverflow(bytes), content) => *content = Content::Overflow(bytes.clone()),
            (Change::Free, content) => *content = Content::Free,
            (Change::Loaded(record, loaded), content) => {
                let mut page = loaded.clone();
                page.stamp(record.origin, record.lsn);
                *content = Content::Replayed(page);
            }
            (Change::Logged(record, page_bytes), content) => {
                if !matches!(content, Content::Replayed(_)) {
                    *content = Content::Replayed(Box::new(Page::empty(record.page, *page_bytes)));
                }
                if let Content::Replayed(page) = content
                    && apply(page, record).is_err()
                {
                    // Records that do not follow each other were seen when they were numbered; no copy has such a page.
                    page.stamp(record.origin, Lsn::MAX);
                }
            }
            (Change::Insert(rank, row), Content::Leaf(rows)) => rows.insert(*rank, row.clone()),
            (Change::SetNumber(rank, number), Content::Leaf(rows)) => rows[*rank].number = *number,
            (Change::SetNote(rank, note), Content::Leaf(rows)) => rows[*rank].note.clone_from(note),
            (Change::Delete(rank), Content::Leaf(rows)) => drop(rows.remove(*rank)),
            (Change::Truncate(rank), Content::Leaf(rows)) => rows.truncate(*rank),
            (Change::Append(more), Content::Leaf(rows)) => rows.extend(more.iter().cloned()),
            (change, content) => panic!("the workload makes no sense: {change:?} of {content:?}"),
        }
    }
}

/// The table's shape, and how its changes are spelled in the log.
#[derive(Debug)]
pub struct Table {
    schema: Schema,
    layout: Vec<u8>,
    /// Rows that fit a leaf whatever they hold.
    pub rows_max: usize,
}

/// The longest text, so that every row fits.
pub const NOTE_BYTES_MAX: usize = 24;

impl Table {
    /// The table for pages of this size.
    pub fn new(page_bytes: usize) -> Table {
        let column = |id, name: &str, data_type, nullable| Column {
            id,
            name: name.to_owned(),
            data_type,
            nullable,
        };
        let columns = vec![
            column(0, "key", DataType::Int64, false),
            column(1, "number", DataType::Int64, false),
            column(2, "note", DataType::Text, true),
        ];
        let key = vec![KeyPart {
            column: 0,
            descending: false,
        }];
        let schema = Schema::new(1, columns, key).expect("a valid schema");
        let capacity = leaf_capacity(&schema, page_bytes, NOTE_BYTES_MAX).expect("rows fit");
        let layout = leaf_layout(&schema, capacity);
        Table {
            schema,
            layout,
            rows_max: usize::from(capacity),
        }
    }

    /// The change as a log record carries it.
    pub fn op(&self, change: &Change) -> Bytes {
        let object = ObjectId(1);
        let rank16 = |rank: &usize| *rank as u16;
        match change {
            Change::FormatLeaf => Op::FormatLeaf {
                object,
                schema_version: 1,
                layout: &self.layout,
            }
            .encode(),
            Change::FormatOverflow(bytes) => Op::FormatOverflow {
                object,
                next: PageId(0),
                bytes,
            }
            .encode(),
            Change::Insert(rank, row) => Op::LeafInsert {
                rank: rank16(rank),
                row: &self.row(row),
            }
            .encode(),
            Change::SetNumber(rank, n) => self.update(*rank, 1, Value::Int(*n)),
            Change::SetNote(rank, note) => self.update(*rank, 2, text(note)),
            Change::Delete(rank) => Op::LeafDelete { rank: rank16(rank) }.encode(),
            Change::Truncate(rank) => Op::LeafTruncate { rank: rank16(rank) }.encode(),
            Change::Append(rows) => {
                let list = RowsRef::encode(rows.iter().map(|row| self.row(row)));
                Op::LeafAppend {
                    rows: RowsRef::parse(&list).expect("own bytes"),
                }
                .encode()
            }
            Change::Free => Op::Free.encode(),
            Change::Logged(record, _) | Change::Loaded(record, _) => record.op.clone(),
        }
    }

    fn update(&self, rank: usize, column: u16, value: Value) -> Bytes {
        let changes = encode_changes(&self.schema, &[(column, value)]);
        Op::LeafUpdate {
            rank: rank as u16,
            changes: &changes,
        }
        .encode()
    }

    fn row(&self, row: &Row) -> Vec<u8> {
        encode_row(
            &self.schema,
            &[Value::Int(row.key), Value::Int(row.number), text(&row.note)],
        )
    }
}

fn text(note: &Option<String>) -> Value {
    note.clone().map_or(Value::Null, Value::Text)
}

/// What a materialised page holds, in the model's terms.
pub fn read(page: &Page) -> Result<Content, String> {
    match page.kind() {
        PageKind::Free => Ok(Content::Free),
        PageKind::Leaf => {
            let leaf = LeafRef::new(page).map_err(|e| e.to_string())?;
            leaf.verify().map_err(|e| e.to_string())?;
            (0..leaf.len())
                .map(|rank| read_row(leaf.row(rank)))
                .collect::<Result<_, _>>()
                .map(Content::Leaf)
        }
        PageKind::Overflow => {
            let view = OverflowView::new(page).map_err(|e| e.to_string())?;
            Ok(Content::Overflow(view.chunk().to_vec()))
        }
        other => Err(format!("a page of kind {other}, which nobody writes here")),
    }
}

fn read_row(values: Vec<Value>) -> Result<Row, String> {
    match <[Value; 3]>::try_from(values) {
        Ok([Value::Int(key), Value::Int(number), Value::Null]) => Ok(Row {
            key,
            number,
            note: None,
        }),
        Ok([Value::Int(key), Value::Int(number), Value::Text(note)]) => Ok(Row {
            key,
            number,
            note: Some(note),
        }),
        other => Err(format!("not a row of the table: {other:?}")),
    }
}

/// One MTR that was numbered.
#[derive(Clone, Debug)]
pub struct Numbered {
    /// Whose number it is.
    pub origin: VolumeId,
    /// LSN of its first record.
    pub base: Lsn,
    /// LSN of its last record.
    pub last: Lsn,
    /// Commit time.
    pub time_us: i64,
    /// Epoch of the writer.
    pub epoch: u64,
    /// Was its commit acknowledged to the client?
    pub acknowledged: bool,
}

/// All that was ever numbered.
#[derive(Debug, Default)]
pub struct Model {
    /// By the LSN of the last record. The simulator has one origin, and no LSN is ever given twice [3].
    mtrs: BTreeMap<Lsn, Numbered>,
    changes: BTreeMap<PageId, BTreeMap<Lsn, (VolumeId, Change)>>,
}

impl Model {
    /// Notes an MTR; complains if one of its LSNs was given before.
    pub fn numbered(&mut self, mtr: Numbered, changes: &[(PageId, Change)]) -> Result<(), String> {
        if let Some((_, later)) = self.mtrs.range(mtr.base..).next()
            && later.base <= mtr.last
        {
            return Err(format!(
                "[3] LSNs {}..{} are given again: {later:?}",
                mtr.base, mtr.last
            ));
        }
        for (index, (page, change)) in changes.iter().enumerate() {
            let entries = self.changes.entry(*page).or_default();
            entries.insert(mtr.base.offset(index as u64), (mtr.origin, change.clone()));
        }
        self.mtrs.insert(mtr.last, mtr);
        Ok(())
    }

    /// The newest change of a page in a History below an LSN. What another writer has numbered above it is nothing to this one.
    pub fn newest_change(&self, page: PageId, below: Lsn, history: &History) -> Lsn {
        let changes = self.changes.get(&page).into_iter();
        let changes = changes.flat_map(|changes| changes.range(..below)).rev();
        let mut counted = changes.filter(|(lsn, (origin, _))| history.contains(*origin, **lsn));
        counted.next().map_or(Lsn::NONE, |(lsn, _)| *lsn)
    }

    /// The time of the newest MTR of an epoch below an LSN.
    pub fn newest_time(&self, epoch: u64, below: Lsn) -> Option<i64> {
        let (_, newest) = self.mtrs.range(..below).next_back()?;
        (newest.epoch == epoch).then_some(newest.time_us)
    }

    /// Notes that the MTRs of `epoch` up to `vdl` are acknowledged; gives how many are newly so.
    pub fn acknowledge(&mut self, epoch: u64, from: Lsn, vdl: Lsn) -> usize {
        let newly = self
            .mtrs
            .range_mut(from.next()..=vdl)
            .filter(|(_, m)| m.epoch == epoch && !m.acknowledged);
        newly.map(|(_, m)| m.acknowledged = true).count()
    }

    /// All MTRs.
    pub fn mtrs(&self) -> impl Iterator<Item = &Numbered> {
        self.mtrs.values()
    }

    /// Pages that were ever written.
    pub fn pages(&self) -> impl Iterator<Item = PageId> + '_ {
        self.changes.keys().copied()
    }

    /// Every reference to a blob that was ever numbered, with its page.
    pub fn references(&self) -> impl Iterator<Item = (Lsn, PageId)> + '_ {
        let of = |(lsn, (_, change)): (&Lsn, &(VolumeId, Change))| {
            matches!(change, Change::Loaded(..)).then_some(*lsn)
        };
        self.changes.iter().flat_map(move |(page, changes)| {
            changes.iter().filter_map(of).map(move |lsn| (lsn, *page))
        })
    }

    /// What a page must hold at a read point, and the LSN it must have.
    pub fn content(&self, page: PageId, at: Lsn, history: &History) -> (Lsn, Content) {
        let mut out = (Lsn::NONE, Content::Free);
        let Some(changes) = self.changes.get(&page) else {
            return out;
        };
        for (lsn, (origin, change)) in changes.range(..=at) {
            if history.contains(*origin, *lsn) {
                change.apply(&mut out.1);
                out.0 = *lsn;
            }
        }
        out
    }

    /// Newest LSN of the group's pages at or below `at` in the History.
    pub fn tail(&self, pages: std::ops::Range<u64>, at: Lsn, history: &History) -> Lsn {
        let groups = self.changes.range(PageId(pages.start)..PageId(pages.end));
        let newest = groups.filter_map(|(_, changes)| {
            changes
                .range(..=at)
                .rev()
                .find(|(lsn, (origin, _))| history.contains(*origin, **lsn))
                .map(|(lsn, _)| *lsn)
        });
        newest.max().unwrap_or(Lsn::NONE)
    }
}

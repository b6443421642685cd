//! Loading rows in any order into any table, all of them or none.
//!
//! | the table | the rows | what is done |
//! |---|---|---|
//! | empty | in key order, as far as the first of them tell | built as they come ([`BulkLoad`]) |
//! | empty | in any order | sorted, then built |
//! | has rows | few | sorted, then written by one transaction |
//! | has rows | many | sorted, merged with the rows that are there, built anew, and swapped |
//!
//! Indexes are built in the same pass, and foreign keys checked, by what each row brings with it (`load_follow`).
//!
//! Merging reads the table as of one LSN. Commits meanwhile go on; what they changed is carried over where the load has nothing
//! to say of it, otherwise the rows are merged once more, a few times at the most.

use std::sync::Arc;

use aurora_engine::{Commit, Engine, EngineError, ErrorClass, Mode, Table};
use aurora_page::{KeyBuf, Value};

use crate::Error;
use crate::clock::wall_us;
use crate::cluster::Cluster;
use crate::load::BulkLoad;
use crate::sort::{Merge, SortedRow, Sorter};
use crate::stored::Stored;
use crate::volume::EmbeddedVolume;

/// Rows that are looked at before it is taken that they come in order.
const LOOK_ROWS: u64 = 50_000;
/// And bytes, where rows are long.
const LOOK_BYTES: u64 = 8 << 20;
/// A load of at most so many rows and bytes goes into a table with rows by one transaction.
const FEW_ROWS: u64 = 100_000;
const FEW_BYTES: u64 = 32 << 20;
/// Rows and entries of indexes that are written by one transaction.
const FEW_CHANGES: u64 = 500_000;
/// How often a merge or a transaction that met others is made again.
const TRIES: usize = 5;
/// Rows between two reports.
const TELL_ROWS: u64 = 4096;

/// What becomes of a row whose key is taken, by a row of the table or an earlier one of the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnConflict {
    /// The load fails.
    #[default]
    Error,
    /// It takes the other's place.
    Replace,
    /// It is left out.
    Skip,
}

/// How a load is done.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Whether rows are sorted; `None` to see for itself by the first of them.
    pub sort: Option<bool>,
    /// What becomes of a row whose key is taken.
    pub on_conflict: OnConflict,
    /// Memory for sorting.
    pub memory_bytes: usize,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            sort: None,
            on_conflict: OnConflict::Error,
            memory_bytes: 64 << 20,
        }
    }
}

/// What a load is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadPhase {
    /// Taking rows.
    Reading,
    /// Writing sorted rows.
    Writing,
}

/// What a load did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Rows that were put into the table.
    pub rows: u64,
    /// Those of them that took another's place.
    pub replaced: u64,
    /// Rows that were left out.
    pub skipped: u64,
    /// The commit that made them visible.
    pub commit: Commit,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    rows: u64,
    replaced: u64,
    skipped: u64,
}

/// A load under way. Dropping it leaves nothing.
pub struct Ingest {
    cluster: Cluster,
    table: Arc<Table>,
    options: LoadOptions,
    state: State,
    rows: u64,
    bytes: u64,
    counts: Counts,
    /// Memory for sorting what rows bring with them.
    following_bytes: usize,
}

enum State {
    /// The first rows of a load into an empty table.
    Looking(Sorter),
    Sorting(Sorter),
    Building(Box<Building>),
    /// An error has ended it.
    Ended,
}

/// Rows go straight into pages. The last one waits where the next may take its place.
struct Building {
    load: BulkLoad,
    last: Option<SortedRow>,
}

/// Told how far it has come: what is done, rows, bytes. True ends the load.
pub type Tell<'a> = &'a dyn Fn(LoadPhase, u64, u64) -> bool;

impl Cluster {
    /// Begins a load.
    ///
    /// # Errors
    /// Whatever keeps the cluster from writing.
    pub fn ingest(
        &self,
        table: &Arc<Table>,
        options: LoadOptions,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Ingest, Error> {
        self.check_writable()?;
        let shared = self.shared();
        let empty = self.run(interrupt, |engine| engine.is_empty(table))?;
        let head = self.run(interrupt, |engine| engine.head_table(table))?;
        // Rows wait sorted while entries of indexes are being sorted.
        let following_bytes = match head.indexes.len() {
            0 => 0,
            _ => options.memory_bytes / 2,
        };
        let memory_bytes = options.memory_bytes - following_bytes;
        let sorter = || Sorter::new(shared.disk.clone(), &shared.dir, memory_bytes);
        let state = match (empty, options.sort) {
            (true, Some(false)) => State::Building(Box::new(Building {
                load: self.bulk_load(table, following_bytes, interrupt)?,
                last: None,
            })),
            (true, None) => State::Looking(sorter()),
            _ => State::Sorting(sorter()),
        };
        Ok(Ingest {
            cluster: self.clone(),
            table: table.clone(),
            options,
            state,
            rows: 0,
            bytes: 0,
            counts: Counts::default(),
            following_bytes,
        })
    }
}

impl Ingest {
    /// Rows that came so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of keys and rows so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Numbers a row of a table with an auto-increment column, as an insert does.
    ///
    /// # Errors
    /// Whatever keeps the cluster from writing, or no number being left.
    pub fn number(&self, row: &mut [Value], interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        let number =
            |engine: &Engine<EmbeddedVolume>| engine.number_row(&self.table, row, wall_us());
        self.cluster.run(interrupt, number)
    }

    /// Takes a row, encoded, with its key.
    ///
    /// # Errors
    /// `LoadOrder` or `LoadDuplicate`, or what the disks answered. The load cannot go on after one.
    pub fn push(
        &mut self,
        key: &KeyBuf,
        row: &[u8],
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let number = self.rows;
        self.rows += 1;
        self.bytes += (key.len() + row.len()) as u64;
        match &mut self.state {
            State::Ended => Err(Error::Closed),
            State::Sorting(sorter) => sorter.push(key, row),
            State::Building(building) => building.push(
                self.options.on_conflict,
                &mut self.counts,
                key,
                row,
                number,
                interrupt,
            ),
            State::Looking(sorter) => {
                sorter.push(key, row)?;
                if sorter.rows() < LOOK_ROWS && sorter.bytes() < LOOK_BYTES {
                    return Ok(());
                }
                self.decide(interrupt)
            }
        }
    }

    /// The first rows have come: are they in order?
    fn decide(&mut self, interrupt: &dyn Fn() -> bool) -> Result<(), Error> {
        let State::Looking(mut sorter) = std::mem::replace(&mut self.state, State::Ended) else {
            return Ok(());
        };
        if !sorter.is_in_order() {
            self.state = State::Sorting(sorter);
            return Ok(());
        }
        let mut building = Building {
            load: self
                .cluster
                .bulk_load(&self.table, self.following_bytes, interrupt)?,
            last: None,
        };
        let mut rows = sorter.sorted()?;
        while let Some(SortedRow { key, row, number }) = rows.next()? {
            building.push(
                self.options.on_conflict,
                &mut self.counts,
                &key,
                &row,
                number,
                interrupt,
            )?;
        }
        self.state = State::Building(Box::new(building));
        Ok(())
    }

    /// Makes the rows appear, durably and all at once.
    ///
    /// # Errors
    /// `LoadConflict` when others changed the same rows of the table again and again; otherwise as [`Ingest::push`].
    pub fn finish(mut self, tell: Tell<'_>, interrupt: &dyn Fn() -> bool) -> Result<Loaded, Error> {
        let commit = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Err(Error::Closed),
            State::Building(building) => building.finish(interrupt)?,
            State::Looking(sorter) | State::Sorting(sorter) => {
                self.write(sorter, tell, interrupt)?
            }
        };
        let Counts {
            rows,
            replaced,
            skipped,
        } = self.counts;
        Ok(Loaded {
            rows,
            replaced,
            skipped,
            commit,
        })
    }

    fn write(
        &mut self,
        mut sorter: Sorter,
        tell: Tell<'_>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Commit, Error> {
        let mut few =
            sorter.is_in_memory() && sorter.rows() <= FEW_ROWS && sorter.bytes() <= FEW_BYTES;
        let mut tries = TRIES;
        loop {
            tries -= 1;
            self.counts = Counts::default();
            let table = self.table.clone();
            let empty = self
                .cluster
                .run(interrupt, |engine| engine.is_empty(&table))?;
            let head = self
                .cluster
                .run(interrupt, |engine| engine.head_table(&table))?;
            few &= sorter.rows() * (1 + head.indexes.len() as u64) <= FEW_CHANGES;
            let rows = Unique::new(sorter.sorted()?, self.options.on_conflict, &table);
            let written = match (empty, few) {
                (true, _) => self.build(rows, tell, interrupt),
                (false, true) => self.transact(rows, interrupt),
                (false, false) => self.merge(rows, tell, interrupt),
            };
            match written {
                Err(Error::Engine(EngineError::TransactionTooLarge { .. })) if few => few = false,
                Err(Error::Engine(error)) if tries > 0 && may_pass(&error) => {}
                written => return written,
            }
        }
    }

    /// Into an empty table.
    fn build(
        &mut self,
        mut rows: Unique<'_>,
        tell: Tell<'_>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Commit, Error> {
        let mut load = self
            .cluster
            .bulk_load(&self.table, self.following_bytes, interrupt)?;
        let mut told = Told::new(tell);
        while let Some(row) = rows.next(&mut self.counts)? {
            load.push_encoded_row(&row.key, &row.row, Some(row.number), interrupt)?;
            self.counts.rows += 1;
            told.row(&row)?;
        }
        load.finish(interrupt)
    }

    /// By one transaction.
    fn transact(
        &mut self,
        mut rows: Unique<'_>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Commit, Error> {
        const CHUNK: usize = 1024;
        let (cluster, table) = (&self.cluster, &self.table);
        let mut txn = cluster.run(interrupt, |engine| engine.begin(Mode::ReadWrite))?;
        let mut new = cluster.engine().new_rows(table);
        let mut chunk: Vec<SortedRow> = Vec::with_capacity(CHUNK);
        loop {
            chunk.clear();
            while chunk.len() < CHUNK
                && let Some(row) = rows.next(&mut self.counts)?
            {
                chunk.push(row);
            }
            if chunk.is_empty() {
                break;
            }
            let keys: Vec<KeyBuf> = chunk.iter().map(|row| row.key.clone()).collect();
            let stored = cluster.run(interrupt, |engine| engine.get_many(&txn, table, &keys))?;
            for (row, stored) in chunk.drain(..).zip(stored) {
                if stored.is_some() && !taken(&self.options, table, &mut self.counts, &row, None)? {
                    continue;
                }
                self.counts.rows += 1;
                new.push_encoded(row.key, row.row)?;
            }
        }
        cluster.run(interrupt, |engine| engine.pass_numbers(&new, wall_us()))?;
        cluster.run(interrupt, |engine| engine.upsert_many(&mut txn, &mut new))?;
        let commit = cluster.run(interrupt, |engine| engine.commit(&mut txn, wall_us(), None))?;
        cluster.wait_durable(commit.lsn.max(commit.after), interrupt)?;
        Ok(commit)
    }

    /// Among the rows that are there.
    fn merge(
        &mut self,
        mut rows: Unique<'_>,
        tell: Tell<'_>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Commit, Error> {
        let (cluster, table) = (self.cluster.clone(), self.table.clone());
        let mut load = cluster.bulk_load_over(&table, self.following_bytes, interrupt)?;
        let at = load.base();
        // Open until the end: the link asks what was there at the base.
        let txn = cluster.run(interrupt, |engine| engine.begin(Mode::ReadOnly { at }))?;
        let mut stored = Stored::new(&cluster, &txn, &table, interrupt)?;
        let mut told = Told::new(tell);
        while let Some(row) = rows.next(&mut self.counts)? {
            stored.push_below(Some(&row.key), &mut load, interrupt)?;
            told.row(&row)?;
            if stored.key() == Some(&row.key) {
                load.note_overlap(&row.key);
                if !taken(&self.options, &table, &mut self.counts, &row, None)? {
                    continue;
                }
                stored.next(interrupt)?;
            }
            self.counts.rows += 1;
            load.push_encoded_row(&row.key, &row.row, Some(row.number), interrupt)?;
        }
        stored.push_below(None, &mut load, interrupt)?;
        load.note_base_rows(stored.passed);
        load.finish(interrupt)
    }
}

/// Whether the same may go well when it is done again.
fn may_pass(error: &EngineError) -> bool {
    let is_retry = error.class() == ErrorClass::Retry;
    // Whoever has kept a row locked for so long may go on doing so.
    is_retry && !matches!(error, EngineError::LockTimeout { .. })
        || matches!(
            error,
            EngineError::LoadConflict { .. } | EngineError::TableNotEmpty { .. }
        )
}

/// A row's key is taken: whether the row takes the other's place.
fn taken(
    options: &LoadOptions,
    table: &Table,
    counts: &mut Counts,
    row: &SortedRow,
    other: Option<u64>,
) -> Result<bool, EngineError> {
    match options.on_conflict {
        OnConflict::Replace => {
            counts.replaced += 1;
            Ok(true)
        }
        OnConflict::Skip => {
            counts.skipped += 1;
            Ok(false)
        }
        OnConflict::Error => Err(EngineError::LoadDuplicate {
            table: table.name.clone(),
            key: table.show_key(&row.key),
            row: row.number,
            other,
        }),
    }
}

impl Building {
    fn push(
        &mut self,
        on_conflict: OnConflict,
        counts: &mut Counts,
        key: &KeyBuf,
        row: &[u8],
        number: u64,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        if on_conflict == OnConflict::Error {
            counts.rows += 1;
            return self
                .load
                .push_encoded_row(key, row, Some(number), interrupt);
        }
        let row = || SortedRow {
            key: key.clone(),
            row: row.to_vec(),
            number,
        };
        match &mut self.last {
            Some(last) if last.key == *key && on_conflict == OnConflict::Skip => {
                counts.skipped += 1;
            }
            Some(last) if last.key == *key => {
                counts.replaced += 1;
                *last = row();
            }
            last => {
                counts.rows += 1;
                if let Some(last) = last.replace(row()) {
                    self.load.push_encoded_row(
                        &last.key,
                        &last.row,
                        Some(last.number),
                        interrupt,
                    )?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, interrupt: &dyn Fn() -> bool) -> Result<Commit, Error> {
        if let Some(last) = self.last.take() {
            self.load
                .push_encoded_row(&last.key, &last.row, Some(last.number), interrupt)?;
        }
        self.load.finish(interrupt)
    }
}

/// Sorted rows, one of each key.
struct Unique<'s> {
    rows: Merge<'s>,
    next: Option<SortedRow>,
    on_conflict: OnConflict,
    table: &'s Table,
    started: bool,
}

impl<'s> Unique<'s> {
    fn new(rows: Merge<'s>, on_conflict: OnConflict, table: &'s Table) -> Unique<'s> {
        Unique {
            rows,
            next: None,
            on_conflict,
            table,
            started: false,
        }
    }

    fn next(&mut self, counts: &mut Counts) -> Result<Option<SortedRow>, Error> {
        if !self.started {
            self.started = true;
            self.next = self.rows.next()?;
        }
        let Some(mut row) = self.next.take() else {
            return Ok(None);
        };
        loop {
            self.next = self.rows.next()?;
            match &self.next {
                Some(next) if next.key == row.key => {
                    let options = LoadOptions {
                        on_conflict: self.on_conflict,
                        ..LoadOptions::default()
                    };
                    if taken(&options, self.table, counts, next, Some(row.number))?
                        && let Some(next) = self.next.take()
                    {
                        row = next;
                    }
                }
                _ => return Ok(Some(row)),
            }
        }
    }
}

/// Tells how far writing has come, now and then.
struct Told<'t> {
    tell: Tell<'t>,
    rows: u64,
    bytes: u64,
}

impl<'t> Told<'t> {
    fn new(tell: Tell<'t>) -> Told<'t> {
        Told {
            tell,
            rows: 0,
            bytes: 0,
        }
    }

    fn row(&mut self, row: &SortedRow) -> Result<(), Error> {
        self.rows += 1;
        self.bytes += (row.key.len() + row.row.len()) as u64;
        if self.rows.is_multiple_of(TELL_ROWS)
            && (self.tell)(LoadPhase::Writing, self.rows, self.bytes)
        {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}

//! Bulk load: pages are built outside the log, stored as sealed blobs, and linked by one MTR.
//!
//! ```text
//!   begin_load   extents are taken, state loading: nobody sees them
//!   load_push    rows in key order fill leaves, leaves fill inner pages            (again and again)
//!   take_blob    finished pages of one segment: the shell seals and stores them at a write quorum
//!   load_stored  one MTR: reference records give the pages their content
//!   load_finish  the last pages are finished; take_blob and load_stored once more
//!   load_link    once all references are durable, one MTR: extents linked, the root filled. The rows are there.
//! ```
//! A load that ends before that leaves extents in state loading; `sweep` gives them back. Into a table that has rows: see
//! `over`.

mod build;
mod link;
mod over;

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_page::{KeyBuf, Lsn, Page, PageError, PageId, Value, decode_row, encode_row, seal};
use aurora_proto::Volume;
use aurora_redo::{BlobId, Op};

use crate::alter::same_definition;
use crate::btree::{Pages, Root, is_empty_leaf};
use crate::constraints::check_values;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::extents::Run;
use crate::overflow::{spill, var_bytes};
use crate::table::Table;
use crate::txn::Commit;
use build::{Builder, Ids};
use over::Over;

/// Pages of a blob: each is synced as a whole at every copy.
const BLOB_PAGES: usize = 128;
/// Finished pages that wait for their blobs to be full, at most.
const HELD_PAGES_MAX: usize = 4 * BLOB_PAGES;
/// Most extents taken by one MTR.
const TAKE_EXTENTS_MAX: u64 = 64;

/// Pages that the shell stores at every copy of a segment before the load goes on with [`Engine::load_stored`].
#[derive(Debug)]
pub struct LoadBlob {
    /// Its name, never given twice.
    pub id: BlobId,
    /// The segment (protection group) of all its pages.
    pub segment: u64,
    /// The pages, in the order of their index in the blob. They have no LSN yet.
    pub pages: Vec<Page>,
}

impl LoadBlob {
    /// The pages in sealed form. May run on any thread.
    pub fn seal(&self) -> Vec<Vec<u8>> {
        self.pages.iter().map(seal).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Building,
    Finished,
    Ended,
}

/// A bulk load under way.
pub struct Load {
    table: Arc<Table>,
    /// Marks its extents.
    id: u32,
    /// An LSN that no other load has; blobs are named by it.
    serial: u64,
    blobs: u64,
    runs: Vec<Run>,
    /// Pages of the runs that are not used yet.
    free: Ids,
    builder: Builder,
    /// Finished pages by segment.
    pages: BTreeMap<u64, Vec<Page>>,
    /// Blobs that were taken and are not stored yet.
    waiting: BTreeMap<BlobId, Vec<PageId>>,
    /// Everything up to here must be durable before the pages can be linked.
    referenced: Lsn,
    last_key: Option<KeyBuf>,
    rows: u64,
    root: Option<Root>,
    /// The branch of the volume that it was begun on.
    branch: u64,
    state: State,
    /// What a load into a table with rows has to know of those.
    over: Option<Over>,
}

impl Load {
    /// The table that is loaded.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Finished pages that are in no blob yet.
    pub fn held_pages(&self) -> usize {
        self.pages.values().map(Vec::len).sum()
    }

    /// The next blob to store, if one is full or many pages are held; after [`Engine::load_finish`] also those that are not.
    pub fn take_blob(&mut self) -> Option<LoadBlob> {
        let segment = self.next_segment()?;
        let mut pages = self.pages.remove(&segment)?;
        if pages.len() > BLOB_PAGES {
            self.pages.insert(segment, pages.split_off(BLOB_PAGES));
        }
        let id = BlobId(u128::from(self.serial) << 64 | u128::from(self.blobs));
        self.blobs += 1;
        self.waiting
            .insert(id, pages.iter().map(Page::id).collect());
        Some(LoadBlob { id, segment, pages })
    }

    /// The segment whose pages go out next. Small segments never have enough for a full blob.
    fn next_segment(&self) -> Option<u64> {
        let full = |(_, pages): &(&u64, &Vec<Page>)| pages.len() >= BLOB_PAGES;
        let next = match self.state == State::Building {
            true => self.pages.iter().find(full),
            false => self.pages.iter().next(),
        };
        let many = || {
            let most = self.pages.iter().max_by_key(|(_, pages)| pages.len());
            most.filter(|_| self.held_pages() > HELD_PAGES_MAX)
        };
        next.or_else(many).map(|(segment, _)| *segment)
    }

    fn check(
        &self,
        due: State,
        expected: &'static str,
        got: &'static str,
    ) -> Result<(), EngineError> {
        if self.state == due {
            return Ok(());
        }
        Err(EngineError::LoadStep {
            table: self.table.name.clone(),
            expected,
            got,
        })
    }

    /// Keys ascend: pages are filled in this order.
    fn check_order(&self, key: &KeyBuf) -> Result<(), EngineError> {
        match &self.last_key {
            Some(last) if last >= key => {
                let (last, got) = (self.table.show_key(last), self.table.show_key(key));
                Err(EngineError::LoadOrder {
                    table: self.table.name.clone(),
                    last,
                    got,
                })
            }
            _ => Ok(()),
        }
    }

    fn add_pages(&mut self, pages: Vec<Page>, segment_pages: u64) {
        for page in pages {
            self.pages
                .entry(page.id().0 / segment_pages)
                .or_default()
                .push(page);
        }
    }
}

/// A load fills one tree.
fn refuse_indexes(table: &Table) -> Result<(), EngineError> {
    match table.indexes.first() {
        None => Ok(()),
        Some(index) => Err(EngineError::LoadIndexed {
            table: table.name.clone(),
            index: index.name().to_owned(),
        }),
    }
}

impl<V: Volume> Engine<V> {
    /// Begins a load into a table without rows.
    pub fn begin_load(&self, table: &Arc<Table>, now_us: i64) -> Attempt<Load> {
        self.start_load(table, false, now_us)
    }

    /// Begins a load into a table that may have rows: the rows at [`Load::base`] are to be pushed among its own.
    pub fn begin_load_over(&self, table: &Arc<Table>, now_us: i64) -> Attempt<Load> {
        self.start_load(table, true, now_us)
    }

    fn start_load(&self, table: &Arc<Table>, over: bool, now_us: i64) -> Attempt<Load> {
        self.head_table(table)?;
        let take = |edit: &mut Edit<'_>, _: &_| {
            let head = self.check_still_live(table, edit.at)?;
            same_definition(&head, table)?;
            refuse_indexes(&head)?;
            if !over && !is_empty_leaf(&*edit.page(table.root)?) {
                return Err(EngineError::TableNotEmpty {
                    table: table.name.clone(),
                }
                .into());
            }
            let serial = self.volume.spent().next().0;
            let id = (serial as u32).max(1);
            let run = edit.take_extents(table.id, None, 1, id)?;
            edit.list_run(table.id, run)?;
            Ok((serial, run, edit.branch))
        };
        let ((serial, run, branch), _) = self.mutate_system(now_us, take, |_, _, _| {})?;
        let mut committing = self.committing.lock();
        committing.loads.insert(run.load);
        let over = over.then(|| {
            // Under the commit lock: what is published after this base is watched.
            committing.conflicts.watch_for_load(table.id, run.load);
            Over::new(self.published())
        });
        drop(committing);
        Ok(Load {
            table: table.clone(),
            id: run.load,
            serial,
            blobs: 0,
            free: Ids::from(self.pages_of(run)),
            runs: vec![run],
            builder: Builder::new(table, self.geometry.page_bytes)?,
            pages: BTreeMap::new(),
            waiting: BTreeMap::new(),
            referenced: Lsn::NONE,
            last_key: None,
            rows: 0,
            root: None,
            branch,
            state: State::Building,
            over,
        })
    }

    fn pages_of(&self, run: Run) -> std::ops::Range<u64> {
        self.geometry.page_range(run.first).start
            ..self.geometry.page_range(run.first + run.count - 1).end
    }

    /// Adds a row. Keys ascend.
    pub fn load_push(&self, load: &mut Load, row: &[Value], now_us: i64) -> Attempt<()> {
        load.check(State::Building, "load_finish or load_link", "load_push")?;
        let table = load.table.clone();
        let named = || table.name.clone();
        table
            .schema
            .check_row(row)
            .map_err(|source| EngineError::Value {
                table: named(),
                source,
            })?;
        if !table.checks.is_empty() {
            check_values(&table, row.to_vec(), |column, _| Ok(row[column].clone()))?;
        }
        let key = table.key_of(row)?;
        load.check_order(&key)?;
        if table.auto.is_some() {
            // Moves the next number past that of the row.
            self.number_row(&table, &mut row.to_vec(), now_us)?;
        }
        let columns = spill(&table.schema, row, self.geometry.page_bytes).map_err(|got| {
            EngineError::RowTooLarge {
                table: named(),
                key: table.show_key(&key),
                limit: aurora_page::row_heap_max(self.geometry.page_bytes),
                got,
            }
        })?;
        let chunk = aurora_page::chunk_capacity(self.geometry.page_bytes);
        let bytes =
            |column: &u16| var_bytes(row[usize::from(*column)].as_ref()).unwrap_or_default();
        let overflow: usize = columns
            .iter()
            .map(|column| bytes(column).len().div_ceil(chunk))
            .sum();
        self.load_reserve(
            load,
            (overflow + load.builder.pages_needed()) as u64,
            now_us,
        )?;
        // From here on nothing can stop.
        let segment_pages = self.geometry.segment_pages;
        let mut pages = Vec::new();
        let encoded = if columns.is_empty() {
            encode_row(&table.schema, row)
        } else {
            let mut row = row.to_vec();
            for column in &columns {
                let reference = build::chain(
                    &table,
                    bytes(column),
                    self.geometry.page_bytes,
                    &mut load.free,
                    &mut pages,
                )?;
                row[usize::from(*column)] = Value::Overflow(reference);
            }
            encode_row(&table.schema, &row)
        };
        load.builder
            .push(&table, &key, &encoded, &mut load.free, &mut pages)?;
        load.add_pages(pages, segment_pages);
        load.last_key = Some(key);
        load.rows += 1;
        Ok(())
    }

    /// Adds a row that is encoded already, with its key: as [`Engine::load_push`], for rows that came as Arrow.
    pub fn load_push_encoded(
        &self,
        load: &mut Load,
        key: &KeyBuf,
        row: &[u8],
        now_us: i64,
    ) -> Attempt<()> {
        load.check(
            State::Building,
            "load_finish or load_link",
            "load_push_encoded",
        )?;
        let table = load.table.clone();
        let is_long = row.len() > aurora_page::row_heap_max(self.geometry.page_bytes);
        if is_long || !table.checks.is_empty() || table.auto.is_some() {
            // Only a row as long as this can have a value that belongs into overflow pages.
            let named = |source| PageError::Row {
                page: table.root,
                source,
            };
            let values = decode_row(&table.schema, row).map_err(named)?;
            return self.load_push(load, &values, now_us);
        }
        load.check_order(key)?;
        self.load_reserve(load, load.builder.pages_needed() as u64, now_us)?;
        let mut pages = Vec::new();
        load.builder
            .push(&table, key, row, &mut load.free, &mut pages)?;
        load.add_pages(pages, self.geometry.segment_pages);
        match &mut load.last_key {
            Some(last) => last.clone_from(key),
            none => *none = Some(key.clone()),
        }
        load.rows += 1;
        Ok(())
    }

    /// Takes extents until so many pages are free.
    fn load_reserve(&self, load: &mut Load, pages: u64, now_us: i64) -> Attempt<()> {
        while load.free.len() < pages {
            // Twice as many each time, so that a small load takes little and a large one few MTRs.
            let taken: u64 = load.runs.iter().map(|run| run.count).sum();
            let count = taken
                .clamp(1, TAKE_EXTENTS_MAX)
                .max(pages.div_ceil(self.geometry.extent_pages));
            let (table, id, branch) = (load.table.clone(), load.id, load.branch);
            let near = load
                .runs
                .last()
                .map(|run| run.first / self.geometry.extents());
            let take = |edit: &mut Edit<'_>, _: &_| {
                edit.check_branch(branch)?;
                self.check_still_live(&table, edit.at)?;
                let run = edit.take_extents(table.id, near, count, id)?;
                edit.list_run(table.id, run)?;
                Ok(run)
            };
            let (run, _) = self.mutate_system(now_us, take, |_, _, _| {})?;
            load.runs.push(run);
            load.free.add(self.pages_of(run));
        }
        Ok(())
    }

    /// Logs that the pages of a blob, which every copy of a write quorum has stored, are the content of their pages.
    pub fn load_stored(&self, load: &mut Load, blob: BlobId, now_us: i64) -> Attempt<Commit> {
        let Some(pages) = load.waiting.get(&blob) else {
            let (expected, got) = (
                "the name of a blob that was taken and is not stored yet",
                "another",
            );
            return Err(EngineError::LoadStep {
                table: load.table.name.clone(),
                expected,
                got,
            }
            .into());
        };
        // An earlier life of a page may have ended a moment ago; only what is durable may be forgotten here.
        if let Some(lsn) = pages
            .iter()
            .filter_map(|page| self.pool.newest_above(*page, self.volume.vdl()))
            .max()
        {
            return Err(Stop::WaitLsn(lsn));
        }
        let (table, branch) = (&load.table, load.branch);
        let refer = |edit: &mut Edit<'_>, _: &_| {
            edit.check_branch(branch)?;
            self.check_still_live(table, edit.at)?;
            for (index, page) in pages.iter().enumerate() {
                edit.mark_used(*page)?;
                edit.work.reference(
                    *page,
                    &Op::Reference {
                        object: table.id,
                        blob,
                        index: index as u32,
                    },
                );
            }
            Ok(())
        };
        let (_, commit) = self.mutate_system(now_us, refer, |_, _, _| {})?;
        load.waiting.remove(&blob);
        let commit = commit.unwrap_or(Commit {
            lsn: load.referenced,
            time_us: now_us,
            after: load.referenced,
        });
        load.referenced = load.referenced.max(commit.lsn);
        Ok(commit)
    }

    /// Ends the rows. What [`Load::take_blob`] then still gives is to be stored.
    pub fn load_finish(&self, load: &mut Load, now_us: i64) -> Attempt<()> {
        load.check(State::Building, "load_link", "load_finish")?;
        self.load_reserve(load, load.builder.pages_needed() as u64, now_us)?;
        let table = load.table.clone();
        let mut pages = Vec::new();
        load.root = load.builder.finish(&table, &mut load.free, &mut pages)?;
        load.add_pages(pages, self.geometry.segment_pages);
        load.state = State::Finished;
        Ok(())
    }
}

impl Edit<'_> {
    /// Marks a page of a load as used.
    fn mark_used(&mut self, page: PageId) -> Attempt<()> {
        let Some(extent) = self.geometry.extent_of(page) else {
            return Err(EngineError::corrupt(
                page,
                self.at,
                "a page of an extent",
                "one of no extent",
            )
            .into());
        };
        let bit = page.0 - self.geometry.page_range(extent).start;
        let (map, index) = self.geometry.map_place(extent);
        self.change(
            map,
            &Op::ExtentUse {
                extent: index as u32,
                bit: bit as u8,
            },
        )
    }
}

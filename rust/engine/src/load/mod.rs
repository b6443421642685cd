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
//! A table with indexes is loaded with them: `load_push_entry` fills the tree of an index as `load_push` does the table's, once
//! the shell has sorted the entries, and all of them are linked by the same MTR. Checks are asked row by row; that the parents
//! of rows are there the shell has seen at the load's state, and `load_link` sees to it that none has gone since (`parents`).
//!
//! A load that ends before that leaves extents in state loading; `sweep` gives them back. Into a table that has rows: see
//! `over`.

mod build;
mod link;
mod over;
mod parents;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use aurora_page::{
    KeyBuf, Lsn, ObjectId, Page, PageError, PageId, Value, decode_row, encode_row, seal,
};
use aurora_proto::Volume;
use aurora_redo::{BlobId, Op};

use crate::alter::same_definition;
use crate::btree::{Pages, is_empty_leaf};
use crate::constraints::check_values;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::extents::Run;
use crate::overflow::{spill, var_bytes};
use crate::table::Table;
use crate::txn::Commit;
use over::Over;
use parents::Parents;
pub use tree::LoadEntry;
use tree::Tree;

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
    /// Marks its extents.
    id: u32,
    /// An LSN that no other load has; blobs are named by it.
    serial: u64,
    blobs: u64,
    /// The table's own tree, then those of its indexes.
    trees: Vec<Tree>,
    /// The table of each foreign key's parent.
    parents: Vec<Arc<Table>>,
    /// Rows of those that the load rests on.
    referred: Parents,
    /// Finished pages by segment.
    pages: BTreeMap<u64, Vec<Page>>,
    /// Blobs that were taken and are not stored yet.
    waiting: BTreeMap<BlobId, Vec<(PageId, ObjectId)>>,
    /// Everything up to here must be durable before the pages can be linked.
    referenced: Lsn,
    rows: u64,
    /// The branch of the volume that it was begun on.
    branch: u64,
    state: State,
    /// What others change after this state is watched.
    seen: Lsn,
    /// What a load into a table with rows has to know of those.
    over: Option<Over>,
}

impl Load {
    /// The table that is loaded, as it was defined when the load began.
    pub fn table(&self) -> &Arc<Table> {
        &self.trees[0].table
    }

    /// The state in which the parents of its rows are looked for.
    pub fn seen(&self) -> Lsn {
        self.seen
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
        self.waiting.insert(
            id,
            pages
                .iter()
                .map(|page| (page.id(), page.object()))
                .collect(),
        );
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
            table: self.table().name.clone(),
            expected,
            got,
        })
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

/// The table is to be what it was when the load began: its trees are filled, and its rows were checked, by that.
fn same_rules(head: &Table, table: &Table) -> Result<(), EngineError> {
    let trees = |table: &Table| table.objects().collect::<Vec<_>>();
    let (now, then) = (&head.definition, &table.definition);
    if trees(head) == trees(table) && now.checks == then.checks && now.references == then.references
    {
        return Ok(());
    }
    Err(EngineError::LoadConflict {
        table: table.name.clone(),
    })
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
            if !over && !is_empty_leaf(&*edit.page(table.root)?) {
                return Err(EngineError::TableNotEmpty {
                    table: table.name.clone(),
                }
                .into());
            }
            let serial = self.volume.spent().next().0;
            let id = (serial as u32).max(1);
            let indexes = head.indexes.iter().map(|index| index.tree.clone());
            let tables: Vec<Arc<Table>> = std::iter::once(head.clone()).chain(indexes).collect();
            let mut trees = Vec::with_capacity(tables.len());
            for table in tables {
                let run = edit.take_extents(table.id, None, 1, id)?;
                edit.list_run(table.id, run)?;
                trees.push((table, run));
            }
            let parents = head.references.iter().map(|of| match &of.def.parent {
                own if *own == head.name => Ok(head.clone()),
                name => self.head_in(edit, name),
            });
            let parents = parents.collect::<Attempt<Vec<_>>>()?;
            Ok((serial, id, trees, parents, edit.branch))
        };
        let (taken, _) = self.mutate_system(now_us, take, |_, _, _| {})?;
        let (serial, id, trees, parents, branch) = taken;
        let mut committing = self.committing.lock();
        committing.loads.insert(id);
        // Under the commit lock: what is published after this state is watched.
        let seen = self.published();
        let over = over.then(|| {
            committing.conflicts.watch_for_load(table.id, u64::from(id));
            Over::new(seen)
        });
        parents::watch(&mut committing.conflicts, table, &parents, id);
        drop(committing);
        let page_bytes = self.geometry.page_bytes;
        let trees = trees
            .into_iter()
            .map(|(table, run)| Tree::new(&table, run, self.pages_of(run), page_bytes));
        Ok(Load {
            id,
            serial,
            blobs: 0,
            trees: trees.collect::<Attempt<_>>()?,
            parents,
            referred: Parents::default(),
            pages: BTreeMap::new(),
            waiting: BTreeMap::new(),
            referenced: Lsn::NONE,
            rows: 0,
            branch,
            state: State::Building,
            seen,
            over,
        })
    }

    /// Under the commit lock: the table is there, and what it was when the load began.
    fn check_loadable(&self, edit: &Edit<'_>, table: &Table) -> Attempt<Arc<Table>> {
        let head = self.check_still_live(table, edit.at)?;
        same_definition(&head, table)?;
        same_rules(&head, table)?;
        Ok(head)
    }

    fn pages_of(&self, run: Run) -> std::ops::Range<u64> {
        self.geometry.page_range(run.first).start
            ..self.geometry.page_range(run.first + run.count - 1).end
    }

    /// Adds a row. Keys ascend.
    pub fn load_push(&self, load: &mut Load, row: &[Value], now_us: i64) -> Attempt<()> {
        load.check(State::Building, "load_finish or load_link", "load_push")?;
        let table = load.table().clone();
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
        load.trees[0].check_order(&key)?;
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
        let pages = overflow + load.trees[0].builder.pages_needed();
        self.load_reserve(load, 0, pages as u64, now_us)?;
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
                    &mut load.trees[0].free,
                    &mut pages,
                )?;
                row[usize::from(*column)] = Value::Overflow(reference);
            }
            encode_row(&table.schema, &row)
        };
        load.trees[0].push(&key, &encoded, &mut pages)?;
        load.add_pages(pages, segment_pages);
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
        let table = load.table().clone();
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
        load.trees[0].check_order(key)?;
        let pages = load.trees[0].builder.pages_needed() as u64;
        self.load_reserve(load, 0, pages, now_us)?;
        let mut pages = Vec::new();
        load.trees[0].push(key, row, &mut pages)?;
        load.add_pages(pages, self.geometry.segment_pages);
        load.rows += 1;
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
                table: load.table().name.clone(),
                expected,
                got,
            }
            .into());
        };
        // An earlier life of a page may have ended a moment ago; only what is durable may be forgotten here.
        if let Some(lsn) = pages
            .iter()
            .filter_map(|(page, _)| self.pool.newest_above(*page, self.volume.vdl()))
            .max()
        {
            return Err(Stop::WaitLsn(lsn));
        }
        let (table, branch) = (load.table(), load.branch);
        let refer = |edit: &mut Edit<'_>, _: &_| {
            edit.check_branch(branch)?;
            // An index that was dropped has lost its extents.
            self.check_loadable(edit, table)?;
            for (index, (page, object)) in pages.iter().enumerate() {
                edit.mark_used(*page)?;
                edit.work.reference(
                    *page,
                    &Op::Reference {
                        object: *object,
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
        for which in 0..load.trees.len() {
            let pages = load.trees[which].builder.pages_needed() as u64;
            self.load_reserve(load, which, pages, now_us)?;
        }
        // From here on nothing can stop.
        let mut pages = Vec::new();
        for tree in &mut load.trees {
            tree.finish(&mut pages)?;
        }
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

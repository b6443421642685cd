//! The trees that a load fills: the table's own, and those of its indexes.

use std::ops::Range;
use std::sync::Arc;

use aurora_page::{KeyBuf, Page, ValueRef, encode_row};
use aurora_proto::Volume;

use super::build::{Builder, Ids};
use super::{Load, State, TAKE_EXTENTS_MAX};
use crate::btree::Root;
use crate::constraints::Reference;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::extents::Run;
use crate::index::Index;
use crate::table::Table;

/// A tree in the making.
pub(super) struct Tree {
    pub table: Arc<Table>,
    pub runs: Vec<Run>,
    /// Pages of the runs that are not used yet.
    pub free: Ids,
    pub builder: Builder,
    pub last_key: Option<KeyBuf>,
    /// What the root page becomes; `None` before the end, and without rows.
    pub root: Option<Root>,
}

impl Tree {
    pub fn new(
        table: &Arc<Table>,
        run: Run,
        pages: Range<u64>,
        page_bytes: usize,
    ) -> Attempt<Tree> {
        Ok(Tree {
            table: table.clone(),
            runs: vec![run],
            free: Ids::from(pages),
            builder: Builder::new(table, page_bytes)?,
            last_key: None,
            root: None,
        })
    }

    /// Keys ascend: pages are filled in this order.
    pub fn check_order(&self, key: &KeyBuf) -> Result<(), EngineError> {
        match &self.last_key {
            Some(last) if last >= key => Err(EngineError::LoadOrder {
                table: self.table.name.clone(),
                last: self.table.show_key(last),
                got: self.table.show_key(key),
            }),
            _ => Ok(()),
        }
    }

    /// Adds a row after all others; there are pages enough.
    pub fn push(&mut self, key: &KeyBuf, row: &[u8], done: &mut Vec<Page>) -> Attempt<()> {
        self.builder
            .push(&self.table, key, row, &mut self.free, done)?;
        match &mut self.last_key {
            Some(last) => last.clone_from(key),
            none => *none = Some(key.clone()),
        }
        Ok(())
    }

    /// Ends the last pages.
    pub fn finish(&mut self, done: &mut Vec<Page>) -> Attempt<()> {
        self.root = self.builder.finish(&self.table, &mut self.free, done)?;
        Ok(())
    }
}

/// What an index is to have of one row of a load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadEntry {
    /// Its key. Entries are pushed in this order.
    pub key: KeyBuf,
    /// The entry, encoded.
    pub row: Vec<u8>,
    /// So many bytes of the key no other row may have.
    pub unique: Option<usize>,
}

impl Load {
    /// The indexes that are built in the pass of the load.
    pub fn indexes(&self) -> &[Arc<Index>] {
        &self.trees[0].table.indexes
    }

    /// The foreign keys of the table, each with the table that it refers to.
    pub fn references(&self) -> impl ExactSizeIterator<Item = (&Reference, &Arc<Table>)> {
        self.table().references.iter().zip(&self.parents)
    }

    /// What an index has of a row, whose values are whole.
    ///
    /// # Errors
    /// Values that make no key.
    pub fn entry(&self, index: usize, row: &[ValueRef<'_>]) -> Result<LoadEntry, EngineError> {
        let (table, index) = (self.table(), &self.indexes()[index]);
        let value = |column: u16| Ok(row[usize::from(column)].to_owned());
        let entry = index.entry(table, value).map_err(|stop| match stop {
            Stop::Failed(error) => error,
            // Whole values need no pages.
            stop => EngineError::corrupt(
                table.root,
                self.seen,
                "values of a row",
                format!("{stop:?}"),
            ),
        })?;
        Ok(LoadEntry {
            row: encode_row(&index.tree.schema, &entry.values),
            key: entry.key,
            unique: entry.unique,
        })
    }

    /// The key of the parent that a row refers to; `None` where it refers to none.
    ///
    /// # Errors
    /// Values that make no key.
    pub fn parent_key(
        &self,
        reference: usize,
        row: &[ValueRef<'_>],
    ) -> Result<Option<KeyBuf>, EngineError> {
        let columns = self.table().references[reference].columns.iter();
        let mut values = columns.map(|column| row[usize::from(*column)].to_owned());
        let values: Vec<_> = values.by_ref().collect();
        if values.contains(&aurora_page::Value::Null) {
            return Ok(None);
        }
        self.parents[reference].key(&values).map(Some)
    }

    /// The error of two rows that have the same values in a unique index.
    pub fn duplicate_entry(&self, index: usize, key: &[u8]) -> EngineError {
        let index = &self.indexes()[index];
        let shown = index.tree.key_values(key).map_or_else(
            |_| index.tree.show_key(key),
            |values| index.show_values(&values),
        );
        EngineError::DuplicateKey {
            table: self.table().name.clone(),
            index: Some(index.name().to_owned()),
            key: shown,
            seen: aurora_page::Lsn::NONE,
        }
    }

    /// The error of a row whose parent is not there.
    pub fn parent_missing(&self, reference: usize, key: &[u8]) -> EngineError {
        let parent = &self.parents[reference];
        EngineError::ParentMissing {
            table: self.table().name.clone(),
            constraint: self.table().references[reference].def.name.clone(),
            parent: parent.name.clone(),
            key: parent.show_key(key),
        }
    }
}

impl<V: Volume> Engine<V> {
    /// Adds an entry to an index. Keys ascend within each index.
    pub fn load_push_entry(
        &self,
        load: &mut Load,
        index: usize,
        key: &KeyBuf,
        entry: &[u8],
        now_us: i64,
    ) -> Attempt<()> {
        load.check(
            State::Building,
            "load_finish or load_link",
            "load_push_entry",
        )?;
        let which = index + 1;
        load.trees[which].check_order(key)?;
        let pages = load.trees[which].builder.pages_needed() as u64;
        self.load_reserve(load, which, pages, now_us)?;
        let mut pages = Vec::new();
        load.trees[which].push(key, entry, &mut pages)?;
        load.add_pages(pages, self.geometry.segment_pages);
        Ok(())
    }

    /// Takes extents for a tree until so many pages are free.
    pub(super) fn load_reserve(
        &self,
        load: &mut Load,
        which: usize,
        pages: u64,
        now_us: i64,
    ) -> Attempt<()> {
        while load.trees[which].free.len() < pages {
            let tree = &load.trees[which];
            // Twice as many each time, so that a small load takes little and a large one few MTRs.
            let taken: u64 = tree.runs.iter().map(|run| run.count).sum();
            let count = taken
                .clamp(1, TAKE_EXTENTS_MAX)
                .max(pages.div_ceil(self.geometry.extent_pages));
            let (object, id, branch) = (tree.table.id, load.id, load.branch);
            let last = tree.runs.last();
            let near = last.map(|run| run.first / self.geometry.extents());
            let table = load.table();
            let take = |edit: &mut Edit<'_>, _: &_| {
                edit.check_branch(branch)?;
                self.check_loadable(edit, table)?;
                let run = edit.take_extents(object, near, count, id)?;
                edit.list_run(object, run)?;
                Ok(run)
            };
            let (run, _) = self.mutate_system(now_us, take, |_, _, _| {})?;
            let pages = self.pages_of(run);
            let tree = &mut load.trees[which];
            tree.runs.push(run);
            tree.free.add(pages);
        }
        Ok(())
    }
}

//! Loading into a table that has rows: the shell merges the rows that are there, as of one LSN, with those of the load, and the
//! merged tree takes the place of the old one.
//!
//! ```text
//!   begin_load_over   from here on commits note which keys of the table they change; `base` is the state before them
//!   load_push ...     the rows at `base` and those of the load, in key order
//!   load_link         one MTR: the old extents are given up, the new ones linked, the root filled, and what was
//!                     committed since `base` is carried over
//! ```
//! Carrying over is for keys that the load has nothing to say of: then the load and those commits give the same in either
//! order. A key that both have changed, or more changes than one MTR should carry, make the load a `LoadConflict`, and the
//! shell merges again from a newer `base`.

use std::collections::BTreeMap;

use aurora_page::planted::{self, Fault};
use aurora_page::{ExtentState, KeyBuf, LeafRef, Lsn, Value, encode_row};
use aurora_proto::Volume;
use aurora_redo::Op;
use rustc_hash::FxHashSet;

use super::Load;
use super::parents::Parents;
use crate::btree::{Pages, descend};
use crate::commit::Change;
use crate::conflicts::{Conflicts, key_hash};
use crate::derive::Derived;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::extents::Run;
use crate::overflow::{Chains, OverflowReader, spill};
use crate::row::RowView;
use crate::table::Table;
use crate::txn::Row;

/// Keys of stored rows that the load has rows for, as far as they are remembered.
const OVERLAPS_MAX: usize = 1 << 22;

/// What a load into a table with rows has to know of those.
pub(super) struct Over {
    /// The state that its rows are merged with.
    pub base: Lsn,
    /// Rows that were there, as the shell has counted them.
    pub rows: u64,
    /// Hashes of keys that are there at the base and in the load too.
    overlaps: FxHashSet<u64>,
    overlaps_full: bool,
    /// Of keys that were changed since the base: whether they were there then.
    known: BTreeMap<KeyBuf, bool>,
    chains: Chains,
}

impl Over {
    pub fn new(base: Lsn) -> Over {
        Over {
            base,
            rows: 0,
            overlaps: FxHashSet::default(),
            overlaps_full: false,
            known: BTreeMap::new(),
            chains: Chains::default(),
        }
    }
}

impl Load {
    /// What the rows of the load are to be merged with: the table as of this LSN. `None` for a load into an empty table.
    pub fn base(&self) -> Option<Lsn> {
        self.over.as_ref().map(|over| over.base)
    }

    /// How many rows there are at the base.
    pub fn note_base_rows(&mut self, rows: u64) {
        if let Some(over) = &mut self.over {
            over.rows = rows;
        }
    }

    /// The load has a row for a key that is there at the base, whichever of the two is pushed.
    pub fn note_overlap(&mut self, key: &[u8]) {
        let object = self.table().id;
        if let Some(over) = &mut self.over {
            if over.overlaps.len() < OVERLAPS_MAX {
                over.overlaps.insert(key_hash(object, key));
            } else {
                over.overlaps_full = true;
            }
        }
    }
}

/// A row that was committed since the base: `None` if it is gone.
pub(super) struct Carried {
    key: KeyBuf,
    was_there: bool,
    row: Option<Row>,
}

impl<V: Volume> Engine<V> {
    /// Whether a table has no rows at all now.
    pub fn is_empty(&self, table: &Table) -> Attempt<bool> {
        let page = self.view(self.published()).page(table.root)?;
        Ok(crate::btree::is_empty_leaf(&page))
    }

    /// The rows of the old tree that were changed since the base, as they are now. Before the root changes.
    pub(super) fn changed_since(
        &self,
        edit: &Edit<'_>,
        conflicts: &Conflicts,
        load: u32,
        table: &Table,
        over: &mut Over,
    ) -> Attempt<Vec<Carried>> {
        let conflict = || EngineError::LoadConflict {
            table: table.name.clone(),
        };
        let changed = conflicts
            .watched(table.id, u64::from(load))
            .ok_or_else(conflict)?;
        if planted::is(Fault::CarryForgotten) {
            return Ok(Vec::new());
        }
        let mut carried = Vec::with_capacity(changed.len());
        for key in changed {
            let was_there = match over.known.get(key) {
                Some(was_there) => *was_there,
                None => {
                    let view = self.view(over.base);
                    let page = descend(&view, table, key, &mut Lsn::default())?;
                    let was_there = LeafRef::new(&page)?.search(key).is_ok();
                    over.known.insert(key.clone(), was_there);
                    was_there
                }
            };
            carried.push(Carried {
                key: key.clone(),
                was_there,
                row: self.row_now(edit, table, key)?,
            });
        }
        Ok(carried)
    }

    fn row_now(&self, edit: &Edit<'_>, table: &Table, key: &[u8]) -> Attempt<Option<Row>> {
        let view = self.view(edit.at);
        let page = descend(&view, table, key, &mut Lsn::default())?;
        let leaf = LeafRef::new(&page)?;
        let Ok(rank) = leaf.search(key) else {
            return Ok(None);
        };
        let slot = leaf.slot(rank);
        let mut values = RowView::of(table, page, slot)?.values()?;
        if !values
            .iter()
            .any(|value| matches!(value, Value::Overflow(_)))
        {
            return Ok(Some(Row::Inline(encode_row(&table.schema, &values))));
        }
        for (value, column) in values.iter_mut().zip(table.schema.columns()) {
            if let Value::Overflow(reference) = value {
                let bytes =
                    OverflowReader::new(*reference, edit.at).read(&self.pool, self.volume.vdl())?;
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                *value = match column.data_type {
                    aurora_page::DataType::Bytes => Value::Bytes(bytes),
                    aurora_page::DataType::Json => Value::Json(text(&bytes)),
                    _ => Value::Text(text(&bytes)),
                };
            }
        }
        let spill = spill(&table.schema, &values, self.geometry.page_bytes).map_err(|got| {
            EngineError::RowTooLarge {
                table: table.name.clone(),
                key: table.show_key(key),
                limit: aurora_page::row_heap_max(self.geometry.page_bytes),
                got,
            }
        })?;
        Ok(Some(Row::Spilled { values, spill }))
    }

    /// Brings the rows that were changed since the base into the new tree, and their entries into those of the indexes. After
    /// the roots have changed.
    pub(super) fn carry_over(
        &self,
        edit: &mut Edit<'_>,
        table: &Table,
        over: &mut Over,
        carried: &[Carried],
        referred: &Parents,
    ) -> Attempt<()> {
        let conflict = || EngineError::LoadConflict {
            table: table.name.clone(),
        };
        let mut derived = Derived::default();
        for Carried {
            key,
            was_there,
            row,
        } in carried
        {
            let found = edit.find(table, key)?;
            let loaded = if *was_there {
                over.overlaps_full || over.overlaps.contains(&key_hash(table.id, key))
            } else {
                found.rank.is_ok()
            };
            // A row that is gone, and that a row of the load refers to, is no parent any more.
            let orphans = row.is_none() && referred.has(table, key);
            if loaded || orphans {
                return Err(conflict().into());
            }
            let before = edit.seen(table, key, false)?;
            let mut change = Change {
                edit: &mut *edit,
                table,
                key,
                chains: &mut over.chains,
            };
            match (row, found.rank) {
                (None, Err(_)) => {}
                (None, Ok(rank)) => change.delete(&found, rank)?,
                (Some(row), Err(rank)) => change.insert(&found, rank, row)?,
                (Some(row), Ok(rank)) => change.replace(&found, rank, row)?,
            }
            derived.note(table, key, before, edit.seen(table, key, true)?);
        }
        let heads = |edit: &Edit<'_>, name: &str| self.head_in(edit, name);
        let at = edit.at;
        match derived.apply(edit, at, &mut Vec::new(), &heads) {
            // Among the rows as they are now, the next merge says what is wrong.
            Err(Stop::Failed(
                EngineError::DuplicateKey { .. } | EngineError::WriteConflict { .. },
            )) => Err(conflict().into()),
            applied => applied,
        }
    }
}

impl Edit<'_> {
    /// Gives up the extents of a table's old tree, all but that of the root, which stays where it is. They are listed as
    /// those of a load that has ended, so `sweep` gives them back, a part at a time.
    pub(super) fn retire_tree(&mut self, table: &Table, load: u32) -> Attempt<()> {
        let extents = self.system.extents.clone();
        let Some(home) = self.geometry.extent_of(table.root) else {
            let (expected, got) = ("a root page of an extent", "one of no extent");
            return Err(EngineError::corrupt(table.root, self.at, expected, got).into());
        };
        let old = self.runs_of(table.id, usize::MAX)?;
        for run in old.into_iter().filter(|run| run.load == 0) {
            if !run.contains(home) {
                self.relist(&extents, table.id, Run { load, ..run })?;
                continue;
            }
            self.unlist_run(table.id, run.first)?;
            let part = |first, end, load| Run {
                first,
                count: end - first,
                load,
            };
            let end = run.first + run.count;
            for part in [
                part(run.first, home, load),
                part(home, home + 1, 0),
                part(home + 1, end, load),
            ] {
                if part.count > 0 {
                    self.insert_run(&extents, table.id, part)?;
                }
            }
        }
        self.empty_extent(home, table)?;
        self.space.forget_object(table.id);
        Ok(())
    }

    /// Gives back every page of the root's extent but the root.
    fn empty_extent(&mut self, home: u64, table: &Table) -> Attempt<()> {
        let entry = self.extent(home)?;
        if entry.owner != table.id || entry.state != ExtentState::Linked {
            let (expected, got) = ("an extent of the table", "another's");
            return Err(EngineError::corrupt(table.root, self.at, expected, got).into());
        }
        let root = table.root.0 - self.geometry.page_range(home).start;
        let (map, index) = self.geometry.map_place(home);
        for bit in 0..self.geometry.extent_pages {
            if bit != root && entry.used >> bit & 1 == 1 {
                let release = Op::ExtentRelease {
                    extent: index as u32,
                    bit: bit as u8,
                };
                self.change(map, &release)?;
            }
        }
        Ok(())
    }
}

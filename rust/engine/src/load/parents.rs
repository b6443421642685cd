//! Foreign keys of a load: the parents of its rows were there at the state that the load has seen, and must still be there when
//! the rows appear.
//!
//! The shell looks each parent up and notes it. Meanwhile commits note which keys of the parents' tables they change. At the end
//! those that the load rests on and that were changed are looked up again: one that has gone makes the load a `LoadConflict`, and
//! the next try says which row has no parent.

use std::sync::Arc;

use aurora_page::KeyBuf;
use rustc_hash::FxHashSet;

use super::Load;
use crate::conflicts::{Conflicts, key_hash};
use crate::edit::Edit;
use crate::error::{Attempt, EngineError};
use crate::table::Table;

/// Parents that are remembered; beyond, every parent counts as referred to.
const PARENTS_MAX: usize = 1 << 22;

/// Rows that the rows of a load refer to, as hashes: one too many can at worst make a load begin again.
#[derive(Default)]
pub(super) struct Parents {
    hashes: FxHashSet<u64>,
    full: bool,
}

impl Parents {
    pub fn add(&mut self, table: &Table, key: &[u8]) {
        if self.hashes.len() < PARENTS_MAX {
            self.hashes.insert(key_hash(table.id, key));
        } else {
            self.full = true;
        }
    }

    /// Whether a row of the load may refer to this one.
    pub fn has(&self, table: &Table, key: &[u8]) -> bool {
        self.full || self.hashes.contains(&key_hash(table.id, key))
    }
}

/// The parents' tables, each once; a table that refers to itself is not among them.
fn others<'t>(table: &Table, parents: &'t [Arc<Table>]) -> Vec<&'t Arc<Table>> {
    let mut found: Vec<&Arc<Table>> = Vec::new();
    for parent in parents {
        let known = found.iter().any(|other| other.id == parent.id);
        if parent.id != table.id && !known {
            found.push(parent);
        }
    }
    found
}

/// From here on the changes of the parents' rows are kept. Under the commit lock.
pub(super) fn watch(conflicts: &mut Conflicts, table: &Table, parents: &[Arc<Table>], load: u32) {
    for parent in others(table, parents) {
        conflicts.watch_parents(parent.id, u64::from(load));
    }
}

impl Load {
    /// A row refers to this row of the parent, which was there.
    pub fn note_parent(&mut self, reference: usize, key: &KeyBuf) {
        self.referred.add(&self.parents[reference], key);
    }
}

impl Edit<'_> {
    /// No row that the load refers to has gone since it was looked up.
    pub(super) fn check_referred(
        &self,
        conflicts: &Conflicts,
        load: u32,
        table: &Table,
        parents: &[Arc<Table>],
        referred: &Parents,
    ) -> Attempt<()> {
        let conflict = || EngineError::LoadConflict {
            table: table.name.clone(),
        };
        for parent in others(table, parents) {
            let changed = conflicts
                .watched(parent.id, u64::from(load))
                .ok_or_else(conflict)?;
            for key in changed.iter().filter(|key| referred.has(parent, key)) {
                if self.find(parent, key)?.rank.is_err() {
                    return Err(conflict().into());
                }
            }
        }
        Ok(())
    }
}

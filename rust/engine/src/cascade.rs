//! Foreign keys as a transaction sees them: a row's parents are there, and rows that lose their parent are dealt with.
//!
//! What a delete brings with it is found first and done then: a delete that is refused somewhere far down has changed
//! nothing. A step that is stopped while it is done finds fewer rows when it is tried again.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use aurora_page::{KeyBuf, ObjectId, Value};
use aurora_proto::Volume;
use rustc_hash::FxHashSet;

use crate::constraints::Reference;
use crate::cursor::RangeSpec;
use crate::definition::OnDelete;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::overflow::Spill;
use crate::row::RowView;
use crate::table::Table;
use crate::txn::{Txn, Write};

/// What becomes of a row that loses its parent.
enum Fate {
    Deleted,
    Changed(Vec<(u16, Value)>),
}

/// Rows and what becomes of them, parents before children.
type Plan = Vec<(Arc<Table>, KeyBuf, Fate)>;

impl<V: Volume> Engine<V> {
    /// The rows that a new or changed row refers to are there.
    pub(crate) fn check_parents(
        &self,
        txn: &Txn,
        table: &Arc<Table>,
        key: &[u8],
        before: Option<&RowView>,
        after: &RowView,
    ) -> Attempt<()> {
        for reference in &table.references {
            let index = &table.indexes[reference.index];
            let entry = self.entry_of(txn, table, index, after)?;
            let Some(values) = reference.parent_values(&entry) else {
                continue;
            };
            if let Some(before) = before {
                let entry = self.entry_of(txn, table, index, before)?;
                if reference.parent_values(&entry).as_ref() == Some(&values) {
                    continue;
                }
            }
            let parent = self.head_named(&reference.def.parent)?;
            let parent_key = parent.key(&values)?;
            let is_itself = parent.id == table.id && *parent_key == *key;
            if !is_itself && self.get(txn, &parent, &parent_key)?.is_none() {
                return Err(EngineError::ParentMissing {
                    table: table.name.clone(),
                    constraint: reference.def.name.clone(),
                    parent: parent.name.clone(),
                    key: parent.show_key(&parent_key),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Deletes or changes the rows that refer to one which is to be deleted.
    pub(crate) fn cascade(&self, txn: &mut Txn, table: &Arc<Table>, key: &[u8]) -> Attempt<()> {
        let before = txn.savepoint(None)?;
        let done = self.carry_out(txn, table, key);
        // A row that others have locked, or changed: whatever the caller does about it, nothing has happened yet.
        if let Err(Stop::WaitLock(_) | Stop::Failed(_)) = &done {
            txn.rollback_to(before)?;
        }
        txn.release(before)?;
        done
    }

    fn carry_out(&self, txn: &mut Txn, table: &Arc<Table>, key: &[u8]) -> Attempt<()> {
        let plan = self.plan(txn, table, key)?;
        for (table, key, fate) in plan.into_iter().rev() {
            match fate {
                Fate::Deleted => self.delete_row(txn, &table, &key)?,
                Fate::Changed(changes) => self.update(txn, &table, &key, changes)?,
            };
        }
        Ok(())
    }

    fn plan(&self, txn: &Txn, table: &Arc<Table>, key: &[u8]) -> Attempt<Plan> {
        let mut plan = Plan::new();
        let mut deleted: FxHashSet<(ObjectId, KeyBuf)> = FxHashSet::default();
        let mut pending = VecDeque::from([(table.clone(), KeyBuf::from_slice(key))]);
        deleted.insert((table.id, KeyBuf::from_slice(key)));
        while let Some((parent, key)) = pending.pop_front() {
            for name in &parent.definition.referenced {
                let child = self.head_named(name)?;
                let to_parent = |of: &&Reference| of.def.parent == parent.name;
                for reference in child.references.iter().filter(to_parent) {
                    for row in self.referring(txn, &parent, &key, &child, reference)? {
                        if deleted.contains(&(child.id, row.clone())) {
                            continue;
                        }
                        let fate = self.fate(txn, &parent, &key, &child, reference, &row)?;
                        if matches!(fate, Fate::Deleted) {
                            deleted.insert((child.id, row.clone()));
                            pending.push_back((child.clone(), row.clone()));
                        }
                        plan.push((child.clone(), row, fate));
                    }
                }
            }
            self.check_plan(txn, &plan)?;
        }
        Ok(plan)
    }

    fn fate(
        &self,
        txn: &Txn,
        parent: &Table,
        parent_key: &[u8],
        child: &Arc<Table>,
        reference: &Reference,
        row: &[u8],
    ) -> Attempt<Fate> {
        match reference.def.on_delete {
            OnDelete::Cascade => Ok(Fate::Deleted),
            OnDelete::Restrict => Err(EngineError::ParentReferenced {
                table: child.name.clone(),
                constraint: reference.def.name.clone(),
                parent: parent.name.clone(),
                key: parent.show_key(parent_key),
            }
            .into()),
            OnDelete::SetNull => {
                let mut changes: Vec<(u16, Value)> = reference
                    .columns
                    .iter()
                    .map(|column| (*column, Value::Null))
                    .collect();
                changes.sort_unstable_by_key(|(column, _)| *column);
                // A check or the key may not bear it: then nothing is to have happened yet.
                crate::write::check_changes(child, &changes)?;
                let write = Write::Update {
                    changes: changes.clone(),
                    spill: Spill::new(),
                };
                if txn.writes.get(child, row).is_none() {
                    self.follow(txn, child, row, &write)?;
                }
                Ok(Fate::Changed(changes))
            }
        }
    }

    /// A plan that is larger than a transaction may be is not begun.
    fn check_plan(&self, txn: &Txn, plan: &Plan) -> Result<(), EngineError> {
        let (limit, got) = (
            self.config.tx_records_max,
            (txn.changes() + plan.len()) as u64,
        );
        if got <= limit {
            return Ok(());
        }
        Err(EngineError::TransactionTooLarge {
            what: "changes",
            limit,
            got,
        })
    }

    /// The keys of the rows that refer to one.
    fn referring(
        &self,
        txn: &Txn,
        parent: &Table,
        key: &[u8],
        child: &Arc<Table>,
        reference: &Reference,
    ) -> Attempt<Vec<KeyBuf>> {
        let index = &child.indexes[reference.index];
        let prefix = index.tree.key(&parent.key_values(key)?)?;
        let spec = RangeSpec {
            low: Bound::Included(prefix.clone()),
            high: Bound::Included(prefix),
            ..RangeSpec::default()
        };
        let mut cursor = self.index_range(txn, child, index, spec)?;
        let mut keys = Vec::new();
        while let Some(rows) = cursor.next_rows(self, txn)? {
            for row in rows {
                keys.push(child.key_of(&row.values()?)?);
            }
        }
        Ok(keys)
    }
}

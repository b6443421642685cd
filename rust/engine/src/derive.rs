//! What a commit does to indexes: entries are derived from what each row was at the head, and what it has become.
//!
//! ```text
//!   before the change of a row      the entries of the row at the head
//!   after it                        its entries in the MTR's drafts; those that differ are noted
//!   after all changes               entries leave, then entries come, unique ones checked against the head
//! ```
//! Nothing here depends on what the transaction had read, nor on the indexes that there were when it wrote: an index
//! that is being built is kept by every commit from the moment at which it is in the catalogue.

use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{
    DataType, InnerRef, KEY_BYTES_MAX, KeyBuf, LeafRef, Lsn, ObjectId, OverflowRef, Value,
    ValueRef, encode_row,
};

use crate::btree::{Pages, column_map, descend_with};
use crate::constraints::Reference;
use crate::edit::Edit;
use crate::error::{Attempt, EngineError, Stop};
use crate::index::{Entry, Index};
use crate::overflow::read_chain;
use crate::table::Table;

/// What a row is to indexes and foreign keys.
#[derive(Default)]
pub(crate) struct Seen {
    /// Whether there is such a row.
    exists: bool,
    /// Its entries: one for each index, `None` where it has none.
    entries: Vec<Option<Entry>>,
}

/// The changes of entries that follow from changes of rows, and what must hold after them.
#[derive(Default)]
pub(crate) struct Derived<'t> {
    leaving: Vec<(&'t Table, &'t Index, Entry)>,
    coming: Vec<(&'t Table, &'t Index, Entry)>,
    /// Rows that are referred to anew, by the values of their keys.
    parents: Vec<(&'t Reference, Vec<Value>)>,
    /// Rows that are gone, of tables that others refer to.
    gone: Vec<(&'t Table, KeyBuf)>,
}

/// Gives a table as it is defined at the head.
pub(crate) type Heads<'h> = dyn Fn(&Edit<'_>, &str) -> Attempt<Arc<Table>> + 'h;

impl<'t> Derived<'t> {
    /// A row has changed: what it was, and what it is.
    pub fn note(&mut self, table: &'t Table, key: &KeyBuf, before: Seen, after: Seen) {
        for reference in &table.references {
            let of = |seen: &Seen| {
                let entry = seen.entries.get(reference.index)?.as_ref()?;
                reference.parent_values(entry)
            };
            if let Some(values) = of(&after)
                && of(&before).as_ref() != Some(&values)
            {
                self.parents.push((reference, values));
            }
        }
        if before.exists && !after.exists && !table.definition.referenced.is_empty() {
            self.gone.push((table, key.clone()));
        }
        let none = || std::iter::repeat(None);
        let before = before.entries.into_iter().chain(none());
        let after = after.entries.into_iter().chain(none());
        for ((index, before), after) in table.indexes.iter().zip(before).zip(after) {
            let forgotten = !index.is_ready() && planted::is(Fault::BuildNotKept);
            let same =
                before.as_ref().map(|entry| &entry.key) == after.as_ref().map(|entry| &entry.key);
            if same || forgotten {
                continue;
            }
            self.leaving
                .extend(before.map(|entry| (table, &**index, entry)));
            self.coming
                .extend(after.map(|entry| (table, &**index, entry)));
        }
    }

    /// Changes the indexes, and checks foreign keys at the head. `noted` gets the entries' keys.
    pub fn apply(
        self,
        edit: &mut Edit<'_>,
        snapshot: Lsn,
        noted: &mut Vec<(ObjectId, KeyBuf)>,
        heads: &Heads<'_>,
    ) -> Attempt<()> {
        for (_, index, entry) in &self.leaving {
            edit.remove_entry(index, entry)?;
            noted.push((index.tree.id, entry.key.clone()));
        }
        for (table, index, entry) in &self.coming {
            edit.check_unique(table, index, entry, snapshot)?;
            edit.add_entry(index, entry)?;
            noted.push((index.tree.id, entry.key.clone()));
        }
        for (reference, values) in &self.parents {
            let parent = heads(edit, &reference.def.parent)?;
            edit.check_parent(&parent, values, snapshot)?;
        }
        for (table, key) in &self.gone {
            edit.check_unreferenced(table, key, snapshot, heads)?;
        }
        Ok(())
    }
}

impl Edit<'_> {
    /// The row with this key, as this MTR has left it so far, with its entries. A value that no key takes is an error only
    /// if `strict`: a row that is older than the index may have one, and has no entry then.
    pub fn seen(&self, table: &Table, key: &[u8], strict: bool) -> Attempt<Seen> {
        if !table.is_followed() {
            return Ok(Seen::default());
        }
        let exists = self.find(table, key)?.rank.is_ok();
        let entries = table
            .indexes
            .iter()
            .map(|index| self.entry_of(table, index, key, strict))
            .collect::<Attempt<_>>()?;
        Ok(Seen { exists, entries })
    }

    /// The row that is referred to is there. The transaction has seen it, so that its end is a conflict.
    fn check_parent(&self, parent: &Table, values: &[Value], snapshot: Lsn) -> Attempt<()> {
        let key = parent.key(values)?;
        let found = self.find(parent, &key)?;
        if found.rank.is_ok() {
            return Ok(());
        }
        Err(EngineError::WriteConflict {
            table: parent.name.clone(),
            key: parent.show_key(&key),
            snapshot,
            by: found.seen.min(self.at),
        }
        .into())
    }

    /// No row refers to one that is gone. The transaction has seen none, so that one is a conflict.
    fn check_unreferenced(
        &self,
        parent: &Table,
        key: &KeyBuf,
        snapshot: Lsn,
        heads: &Heads<'_>,
    ) -> Attempt<()> {
        let values = parent.key_values(key)?;
        for name in &parent.definition.referenced {
            let child = heads(self, name)?;
            for reference in &child.references {
                if reference.def.parent != parent.name {
                    continue;
                }
                let tree = &child.indexes[reference.index].tree;
                let prefix = tree.key(&values)?;
                if let Some((found, seen)) = first_from(self, tree, &prefix)?
                    && found.starts_with(&prefix)
                {
                    return Err(EngineError::WriteConflict {
                        table: child.name.clone(),
                        key: tree.show_key(&found),
                        snapshot,
                        by: seen.min(self.at),
                    }
                    .into());
                }
            }
        }
        Ok(())
    }

    /// The entry of the row with this key, as [`Edit::seen`].
    pub fn entry_of(
        &self,
        table: &Table,
        index: &Index,
        key: &[u8],
        strict: bool,
    ) -> Attempt<Option<Entry>> {
        let found = self.find(table, key)?;
        let Ok(rank) = found.rank else {
            return Ok(None);
        };
        let page = self.page(found.leaf)?;
        let leaf = LeafRef::new(&page)?;
        let map = column_map(table, &page, &leaf)?;
        let value = |column: u16| {
            let value = match &map {
                None => leaf.value_at(rank, usize::from(column)),
                Some(map) => map.value(column.into(), |at| leaf.value_at(rank, at)),
            };
            indexed_value(self, table, index, column, value)
        };
        match index.entry(table, value) {
            Err(Stop::Failed(EngineError::IndexKey { .. } | EngineError::IndexExpr { .. }))
                if !strict =>
            {
                Ok(None)
            }
            entry => entry.map(Some),
        }
    }

    fn remove_entry(&mut self, index: &Index, entry: &Entry) -> Attempt<()> {
        let found = self.find(&index.tree, &entry.key)?;
        match found.rank {
            Ok(rank) => self.delete_at(&index.tree, &found, rank),
            // Its row has not been added yet.
            Err(_) if !index.is_ready() => Ok(()),
            Err(_) => Err(self.inconsistent(index, entry, found.leaf, "an entry", "none")),
        }
    }

    /// Adds an entry, unless an index that is being built has it already.
    pub fn add_entry(&mut self, index: &Index, entry: &Entry) -> Attempt<()> {
        let found = self.find(&index.tree, &entry.key)?;
        match found.rank {
            Err(rank) => {
                let row = encode_row(&index.tree.schema, &entry.values);
                self.insert_at(&index.tree, &entry.key, &found, rank, &row)
            }
            Ok(_) if !index.is_ready() => Ok(()),
            Ok(_) => Err(self.inconsistent(index, entry, found.leaf, "no entry", "one")),
        }
    }

    /// No other row at the head has the entry's values. One that came after the snapshot is a conflict: what the
    /// transaction had seen is no longer so.
    pub fn check_unique(
        &self,
        table: &Table,
        index: &Index,
        entry: &Entry,
        snapshot: Lsn,
    ) -> Attempt<()> {
        let unique = entry.unique_prefix();
        let Some(prefix) = unique.filter(|_| !planted::is(Fault::UniqueIgnored)) else {
            return Ok(());
        };
        let Some((key, seen)) = first_from(self, &index.tree, prefix)? else {
            return Ok(());
        };
        if !key.starts_with(prefix) || key == entry.key {
            return Ok(());
        }
        let was_readable = match index.def.state {
            crate::definition::IndexState::Ready(after) => after < snapshot,
            crate::definition::IndexState::Building => false,
        };
        if was_readable && seen > snapshot {
            return Err(EngineError::WriteConflict {
                table: table.name.clone(),
                key: format!(
                    "{} of index {:?}",
                    index.show_values(&entry.values),
                    index.name()
                ),
                snapshot,
                by: seen.min(self.at),
            }
            .into());
        }
        Err(index.duplicate(table, entry, self.at).into())
    }

    fn inconsistent(
        &self,
        index: &Index,
        entry: &Entry,
        leaf: aurora_page::PageId,
        expected: &str,
        got: &str,
    ) -> Stop {
        let expected = format!(
            "index {:?}, key {}: {expected}",
            index.tree.name,
            index.tree.show_key(&entry.key)
        );
        EngineError::corrupt(leaf, self.at, expected, got).into()
    }
}

/// The key of the first row of a tree from `key` on, and the newest change of its leaf before the MTR.
fn first_from(edit: &Edit<'_>, tree: &Table, key: &[u8]) -> Attempt<Option<(KeyBuf, Lsn)>> {
    let mut from = KeyBuf::from_slice(key);
    loop {
        let choose = |inner: &InnerRef<'_>| inner.child_for(&from).0;
        let (page, fences) = descend_with(edit, tree, choose, &mut Lsn::default())?;
        let leaf = LeafRef::new(&page)?;
        let rank = leaf.lower_bound(key);
        if rank < leaf.len() {
            return Ok(Some((leaf.key_at(rank), edit.work.seen(page.id(), &page))));
        }
        match fences.upper {
            Some(upper) => from = upper,
            None => return Ok(None),
        }
    }
}

/// A value for a key, also where the row keeps it in overflow pages.
pub(crate) fn indexed_value(
    pages: &impl Pages,
    table: &Table,
    index: &Index,
    column: u16,
    value: ValueRef<'_>,
) -> Attempt<Value> {
    let ValueRef::Overflow(reference) = value else {
        return Ok(value.to_owned());
    };
    if reference.len > KEY_BYTES_MAX as u64 && index.has_column(column) {
        return Err(index.too_long(table, reference.len).into());
    }
    long_value(pages, table, column, reference)
}

/// A value of a row that keeps it in overflow pages.
pub(crate) fn long_value(
    pages: &impl Pages,
    table: &Table,
    column: u16,
    reference: OverflowRef,
) -> Attempt<Value> {
    let bytes = read_chain(pages, reference)?;
    let data_type = table.schema.columns()[usize::from(column)].data_type;
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|error| {
            let got = error.utf8_error().to_string();
            EngineError::corrupt(reference.first, pages.at(), "UTF-8", got)
        })
    };
    Ok(match data_type {
        DataType::Text => Value::Text(text(bytes)?),
        DataType::Json => Value::Json(text(bytes)?),
        _ => Value::Bytes(bytes),
    })
}

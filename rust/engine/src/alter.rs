//! Tables whose definition changes: columns come, go, get other names and wider types; the table gets another name.
//!
//! A change is a new row in the catalogue and nothing else, so it takes the same time whatever the table's size. Leaves
//! stay as they were written: a reader maps the columns of an older leaf to those of its definition
//! (`aurora_page::ColumnMap`), and a writer upgrades the leaf that it is about to change (`btree::upgrade`).
//!
//! Which definition counts:
//!
//! - A definition is valid from [`Table::since`] on, until the next. Read points before it see the earlier one.
//! - A reader may use a definition that is newer than its read point: rows that are older than a column have the
//!   column's initial value. An older one than that of its read point is refused ([`EngineError::SchemaChanged`]).
//! - A writer needs the newest: when it writes, and again at the commit [6]. A transaction that has written by an older
//!   one gets `SchemaChanged` at its next write to the table or at its commit, and is to be run again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aurora_page::{DataType, EvolveError, Lsn, ObjectId, PageId, Schema, Value, row_heap_max};
use aurora_proto::Volume;

use crate::btree::first_layout;
use crate::catalogue::{STATE_LIVE, check_name, plain};
use crate::definition::{IndexDef, IndexState};
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError};
use crate::index::Index;
use crate::overflow::{Chains, var_bytes};
use crate::table::{FIRST_USER_OBJECT, Table};
use crate::txn::{Commit, Txn};

/// A change of a table's definition.
#[derive(Clone, PartialEq, Debug)]
pub enum Alter {
    /// One column more, the last.
    AddColumn {
        /// Its name.
        name: String,
        /// What its values are.
        data_type: DataType,
        /// Whether a value may be null.
        nullable: bool,
        /// Its value in the rows that are there.
        initial: Value,
    },
    /// One column less. Not one of the key.
    DropColumn {
        /// Its name.
        name: String,
    },
    /// Another name for a column.
    RenameColumn {
        /// Its name.
        name: String,
        /// The name that it gets.
        to: String,
    },
    /// A type that holds every value of the present one. Not for a column of the key.
    WidenColumn {
        /// Its name.
        name: String,
        /// The wider type.
        to: DataType,
    },
    /// A column that takes null from now on. Not one of the key.
    Nullable {
        /// Its name.
        name: String,
    },
    /// Another name for the table.
    Rename {
        /// The name that it gets.
        to: String,
    },
}

impl Alter {
    fn apply(&self, schema: &Schema) -> Result<Schema, EvolveError> {
        match self {
            Alter::AddColumn {
                name,
                data_type,
                nullable,
                initial,
            } => schema.with_column(name, *data_type, *nullable, initial),
            Alter::DropColumn { name } => schema.without_column(name),
            Alter::RenameColumn { name, to } => schema.with_name(name, to),
            Alter::WidenColumn { name, to } => schema.with_type(name, *to),
            Alter::Nullable { name } => schema.with_nullable(name, true),
            Alter::Rename { .. } => Ok(schema.next_version()),
        }
    }
}

impl<V: Volume> Engine<V> {
    /// Changes the definition of a table. What the rows become is seen at once by everything that begins after it.
    pub fn alter_table(
        &self,
        name: &str,
        change: &Alter,
        now_us: i64,
    ) -> Attempt<(Arc<Table>, Option<Commit>)> {
        check_name(name)?;
        if let Alter::Rename { to } = change {
            check_name(to)?;
        }
        let mut chains = Chains::default();
        let alter = |edit: &mut Edit<'_>, _: &_| {
            let before = at_head(edit, name)?;
            let table = self.altered(edit, &before, change)?;
            edit.delete_entry(name, &mut chains)?;
            edit.insert_entry(&table, STATE_LIVE, &table.name)?;
            Ok(Arc::new(table))
        };
        // Under the commit lock: a commit that comes after is checked against the new definition.
        let note = |_: &mut _, _: Lsn, table: &Arc<Table>| self.note_altered(table.id, table);
        self.mutate_system(now_us, alter, note)
    }

    /// Empties a table, whatever its size: its extents are given back as those of a dropped table are, and it goes on
    /// under another number with new roots. Read points before it see the rows.
    pub fn truncate_table(&self, name: &str, now_us: i64) -> Attempt<(Arc<Table>, Option<Commit>)> {
        check_name(name)?;
        let mut chains = Chains::default();
        let truncate = |edit: &mut Edit<'_>, _: &_| {
            let before = at_head(edit, name)?;
            check_unreferenced(&before)?;
            let table = self.emptied(edit, &before)?;
            edit.delete_entry(name, &mut chains)?;
            for object in before.objects() {
                edit.free_object(object)?;
            }
            // Numbers of an auto-increment column begin anew, as in a new table.
            edit.forget_sequence(before.id)?;
            edit.insert_entry(&table, STATE_LIVE, name)?;
            Ok((before.id, Arc::new(table)))
        };
        let note = |_: &mut _, _: Lsn, (was, table): &(ObjectId, Arc<Table>)| {
            self.note_altered(*was, table);
        };
        let ((_, table), commit) = self.mutate_system(now_us, truncate, note)?;
        self.committing.lock().counts.begin(table.id);
        Ok((table, commit))
    }

    /// A table like this one, with trees of its own and no rows.
    fn emptied(&self, edit: &mut Edit<'_>, before: &Table) -> Attempt<Table> {
        // Numbers are given as for a new table and its indexes.
        let newest = self.volume.spent();
        let id = ObjectId(FIRST_USER_OBJECT + newest.0);
        let mut table = plain(&before.name, id, PageId::default(), &before.schema);
        // The mark that the catalogue sets: a table is dropped under the number that it has then.
        table.dropped = self.names.write().mark(id);
        table.root = edit.create_root(&table)?;
        let mut definition = before.definition.clone();
        for (def, number) in definition.indexes.iter_mut().zip(1..) {
            let fresh = IndexDef {
                id: ObjectId(id.0 + number),
                // Without rows it has every row, also one that was being built.
                state: IndexState::Ready(newest),
                ..def.clone()
            };
            *def = edit.create_index_root(&table, fresh)?;
        }
        definition.statistics = None;
        Ok(table.defined(before.version + 1, definition)?)
    }

    fn altered(&self, edit: &Edit<'_>, before: &Table, change: &Alter) -> Attempt<Table> {
        check_users(before, change)?;
        let refused = |source| EngineError::Alter {
            table: before.name.clone(),
            source,
        };
        let schema = change.apply(&before.schema).map_err(refused)?;
        let name = match change {
            Alter::Rename { to } => {
                if edit.entry(to)?.is_some() {
                    return Err(EngineError::TableExists { table: to.clone() }.into());
                }
                to.clone()
            }
            _ => before.name.clone(),
        };
        let table = Table {
            name,
            schema,
            since: self.volume.spent().next(),
            ..before.clone()
        };
        // Any row must go on to fit a leaf beside another: with the new columns, and with their initial values.
        first_layout(&table, self.geometry.page_bytes)?;
        self.check_initials(&table)?;
        Ok(table.defined(before.version + 1, before.definition.clone())?)
    }

    /// A row of the largest size grows by the initial values when its leaf is upgraded, and must still fit a leaf.
    fn check_initials(&self, table: &Table) -> Attempt<()> {
        let initials = (0..table.schema.columns().len()).map(|index| table.schema.initial(index));
        let bytes = initials.map(|value| var_bytes(value.as_ref()).map_or(0, <[u8]>::len));
        let (got, limit) = (bytes.sum::<usize>(), row_heap_max(self.geometry.page_bytes));
        if got <= limit {
            return Ok(());
        }
        Err(EngineError::InitialsTooLarge {
            table: table.name.clone(),
            limit,
            got,
        }
        .into())
    }

    /// Notes, under the commit lock, that a table has another definition from now on.
    pub(crate) fn note_altered(&self, was: ObjectId, table: &Arc<Table>) {
        self.names.write().alter(was, table);
        self.altered.fetch_max(table.since.0, Ordering::Release);
    }

    /// The newest definition of a table, if that is not the one at hand: known for what this engine has changed itself.
    pub fn newer_definition(&self, table: &Table) -> Option<Arc<Table>> {
        if self.altered.load(Ordering::Acquire) <= table.since.0 {
            return None;
        }
        self.names.read().newest(table)
    }

    /// The definition that a read point sees of a table whose definition is at hand: a newer one if there is one, the one
    /// at hand otherwise.
    pub fn definition_at(&self, table: &Arc<Table>, at: Lsn) -> Arc<Table> {
        if self.altered.load(Ordering::Acquire) <= table.since.0 {
            return table.clone();
        }
        self.names.read().newest_at(table, at)
    }

    /// Refuses to read by a definition that is older than the read point's.
    #[inline]
    pub(crate) fn check_definition(&self, table: &Table, at: Lsn) -> Attempt<()> {
        if self.altered.load(Ordering::Acquire) <= table.since.0 {
            return Ok(());
        }
        self.check_altered(table, at)
    }

    #[cold]
    fn check_altered(&self, table: &Table, at: Lsn) -> Attempt<()> {
        match self.names.read().first_after(table) {
            Some(newer) if newer.since <= at => Err(schema_changed(table, newer.since).into()),
            _ => Ok(()),
        }
    }

    /// [`Engine::check_definition`] in a transaction, whose own changes must be by the same definition too.
    #[inline]
    pub(crate) fn check_definition_in(&self, txn: &Txn, table: &Table) -> Attempt<()> {
        self.check_definition(table, txn.snapshot())?;
        match txn.writes.table(table.id) {
            Some(written) => same_definition(written, table),
            None => Ok(()),
        }
    }
}

/// The definition of the name, as the newest commit has left it.
fn at_head(edit: &Edit<'_>, name: &str) -> Attempt<Table> {
    if edit.entry(name)?.is_none() {
        let (table, at) = (name.to_owned(), edit.at);
        return Err(EngineError::UnknownTable { table, at }.into());
    }
    edit.read_table(name)
}

/// What something else rests on stays as it is: a column of an index or a check, the name of a table that is linked to
/// another by a foreign key.
fn check_users(table: &Table, change: &Alter) -> Attempt<()> {
    let (Alter::DropColumn { name } | Alter::WidenColumn { name, .. } | Alter::Nullable { name }) =
        change
    else {
        return match change {
            Alter::Rename { .. } => check_unlinked(table),
            _ => Ok(()),
        };
    };
    let columns = table.schema.columns();
    let Some(place) = columns.iter().position(|column| column.name == *name) else {
        return Ok(());
    };
    let id = columns[place].id;
    let nullable = matches!(change, Alter::Nullable { .. });
    let uses = |def: &&IndexDef| {
        let mut parts = def.parts.iter();
        // Keys that have a mark for null can go on to be what they are.
        parts.any(|part| part.is_column(id) && !(nullable && part.null_mark))
    };
    let computes = |index: &&Arc<Index>| !nullable && index.computes_from(place);
    let computed = table.indexes.iter().find(computes).map(|index| &index.def);
    let index = table.definition.indexes.iter().find(uses).or(computed);
    let check = table
        .checks
        .iter()
        .find(|check| check.condition.columns().contains(&place));
    let dropped = matches!(change, Alter::DropColumn { .. });
    let by = match (index, check) {
        (Some(index), _) => format!("index {:?}", index.name),
        (None, Some(check)) if !nullable => format!("check {:?}", check.name),
        _ if (dropped || nullable) && table.auto == Some(place as u16) => {
            "auto-increment".to_owned()
        }
        _ => return Ok(()),
    };
    Err(EngineError::ColumnInUse {
        table: table.name.clone(),
        column: name.clone(),
        by,
    }
    .into())
}

/// Refuses another name for a table that is linked to others by foreign keys.
fn check_unlinked(table: &Table) -> Attempt<()> {
    let parents = table.references.iter().map(|of| &of.def.parent);
    refuse_link(table, parents.chain(&table.definition.referenced).next())
}

/// Refuses to empty a table while rows of others may refer to its own.
fn check_unreferenced(table: &Table) -> Attempt<()> {
    let mut referenced = table.definition.referenced.iter();
    refuse_link(table, referenced.find(|name| **name != table.name))
}

fn refuse_link(table: &Table, by: Option<&String>) -> Attempt<()> {
    match by {
        None => Ok(()),
        Some(by) => Err(EngineError::TableReferenced {
            table: table.name.clone(),
            by: by.clone(),
        }
        .into()),
    }
}

/// Refuses a definition that is not the one a transaction has written by.
pub(crate) fn same_definition(written: &Table, table: &Table) -> Attempt<()> {
    if written.since == table.since {
        return Ok(());
    }
    Err(schema_changed(table, written.since.max(table.since)).into())
}

pub(crate) fn schema_changed(table: &Table, by: Lsn) -> EngineError {
    EngineError::SchemaChanged {
        table: table.name.clone(),
        since: table.since,
        by,
    }
}

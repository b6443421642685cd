//! The catalogue: which tables there are, as rows of `aurora.tables`. Versioned by LSN like everything else.

use std::sync::Arc;

use aurora_page::{
    ExtentState, KeyBuf, LeafRef, Lsn, ObjectId, PageId, PageKind, Schema, Value, ValueRef,
    encode_row,
};
use aurora_proto::Volume;
use aurora_redo::Op;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::btree::{Pages, descend, descend_with, first_layout};
use crate::edit::{Edit, View};
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::extents::Run;
use crate::overflow::{Chains, OverflowReader, spill};
use crate::table::{FIRST_USER_OBJECT, RESERVED_PREFIX, Table, tables_column};
use crate::txn::{Commit, Txn};

/// Most bytes of a table's name.
pub const TABLE_NAME_BYTES_MAX: usize = 100;

/// A table that can be used.
const STATE_LIVE: i64 = 1;
/// A table that was dropped and whose extents are still being given back; under a name that nobody can ask for.
const STATE_DROPPED: i64 = 2;

/// What this engine knows of tables, so that it need not ask the catalogue.
#[derive(Default)]
pub(crate) struct Names {
    /// Tables that are there at the head.
    live: FxHashSet<ObjectId>,
    /// Tables that were dropped since the engine began.
    dropped: FxHashSet<ObjectId>,
    /// Every table that was looked up. Definitions do not change.
    known: FxHashMap<ObjectId, Arc<Table>>,
}

/// What `aurora.tables` says of a table.
struct Entry {
    id: ObjectId,
    root: PageId,
    live: bool,
}

impl Entry {
    fn of_row(leaf: &LeafRef<'_>, rank: usize) -> Entry {
        let number = |column: usize| match leaf.value_at(rank, column) {
            ValueRef::Int(number) => number,
            _ => 0,
        };
        Entry {
            id: ObjectId(number(tables_column::ID) as u64),
            root: PageId(number(tables_column::ROOT) as u64),
            live: number(tables_column::STATE) == STATE_LIVE,
        }
    }
}

fn name_key(tables: &Table, name: &str) -> Attempt<KeyBuf> {
    Ok(tables.key(&[Value::Text(name.to_owned())])?)
}

fn check_name(name: &str) -> Result<(), EngineError> {
    let wrong = |expected| {
        Err(EngineError::TableName {
            expected,
            got: name.to_owned(),
        })
    };
    if name.is_empty() || name.len() > TABLE_NAME_BYTES_MAX {
        return wrong("1 to 100 bytes");
    }
    if name.starts_with(RESERVED_PREFIX) {
        return wrong("a name that does not begin with \"aurora.\"");
    }
    Ok(())
}

impl<V: Volume> Engine<V> {
    /// Prepares a volume that was never used: extent map, system tables. Does nothing to one that was.
    pub fn bootstrap(&self, now_us: i64) -> Attempt<Option<Commit>> {
        let make = |edit: &mut Edit<'_>, _: &_| {
            let root = edit.system.tables.root;
            if edit.segments == 0 {
                return Err(Stop::NeedSegment);
            }
            if edit.page(root)?.kind() != PageKind::Free {
                return Ok(());
            }
            let tables: Vec<Arc<Table>> = edit.system.all().into_iter().cloned().collect();
            tables
                .iter()
                .try_for_each(|table| edit.create_system_table(table))?;
            tables
                .iter()
                .try_for_each(|table| edit.insert_entry(table, STATE_LIVE, &table.name))
        };
        Ok(self.mutate_system(now_us, make, |_, _, _| {})?.1)
    }

    /// Creates a table. With `exist_ok`, a table of this name and the same columns and key is taken instead.
    ///
    /// The commit is `None` if the table was there.
    pub fn create_table(
        &self,
        name: &str,
        schema: Schema,
        exist_ok: bool,
        now_us: i64,
    ) -> Attempt<(Arc<Table>, Option<Commit>)> {
        check_name(name)?;
        let create = |edit: &mut Edit<'_>, _: &_| {
            if let Some(rank) = edit.entry(name)? {
                return Ok((rank, false));
            }
            // LSNs are never given twice, so neither are numbers made from the newest one before the table.
            let newest = self.volume.numbered();
            let id = ObjectId(FIRST_USER_OBJECT + newest.0);
            let root =
                edit.create_root(&self.user_table(name, id, PageId::default(), newest, &schema))?;
            let table = self.user_table(name, id, root, newest, &schema);
            edit.insert_entry(&table, STATE_LIVE, name)?;
            Ok((
                Entry {
                    id,
                    root,
                    live: true,
                },
                true,
            ))
        };
        let ((entry, created), commit) = self.mutate_system(now_us, create, |_, _, _| {})?;
        if !created {
            return self
                .existing(name, &schema, exist_ok)
                .map(|table| (table, None));
        }
        let created = Lsn(entry.id.0 - FIRST_USER_OBJECT);
        let table = Arc::new(self.user_table(name, entry.id, entry.root, created, &schema));
        self.note_live(&table);
        self.names.write().known.insert(table.id, table.clone());
        Ok((table, commit))
    }

    fn user_table(
        &self,
        name: &str,
        id: ObjectId,
        root: PageId,
        before: Lsn,
        schema: &Schema,
    ) -> Table {
        Table {
            id,
            name: name.to_owned(),
            schema: schema.clone(),
            root,
            created: before.next(),
        }
    }

    fn existing(&self, name: &str, schema: &Schema, exist_ok: bool) -> Attempt<Arc<Table>> {
        let exists = || EngineError::TableExists {
            table: name.to_owned(),
        };
        let at = self.published();
        let table = self
            .table(name, at)?
            .ok_or_else(|| EngineError::UnknownTable {
                table: name.to_owned(),
                at,
            })?;
        if !exist_ok {
            return Err(exists().into());
        }
        match difference(&table.schema, schema) {
            None => Ok(table),
            Some(difference) => Err(EngineError::TableDiffers {
                table: name.to_owned(),
                difference,
            }
            .into()),
        }
    }

    /// Drops a table; `None` if there is none. Its extents are given back at once, or by [`Engine::sweep`] if they
    /// are very many.
    pub fn drop_table(&self, name: &str, now_us: i64) -> Attempt<Option<Commit>> {
        check_name(name)?;
        let mut chains = Chains::default();
        let drop = |edit: &mut Edit<'_>, _: &_| {
            let Some(entry) = edit.entry(name)? else {
                return Ok(None);
            };
            edit.delete_entry(name, &mut chains)?;
            if !edit.free_runs(entry.id)? {
                let hidden = hidden_name(entry.id);
                let id = entry.id;
                let schema = edit.system.tables.schema.clone();
                let created = Lsn(id.0.saturating_sub(FIRST_USER_OBJECT));
                let table = self.user_table(&hidden, id, entry.root, created, &schema);
                edit.insert_entry(&table, STATE_DROPPED, &hidden)?;
            }
            // Under the commit lock: no commit after this one may write to the table.
            Ok(Some(entry.id))
        };
        let forget = |_: &mut _, _: Lsn, dropped: &Option<ObjectId>| {
            if let Some(id) = dropped {
                let mut names = self.names.write();
                names.live.remove(id);
                names.dropped.insert(*id);
            }
        };
        Ok(self.mutate_system(now_us, drop, forget)?.1)
    }

    /// The table of this name at a read point.
    pub fn table(&self, name: &str, at: Lsn) -> Attempt<Option<Arc<Table>>> {
        self.table_noting(name, at, &mut Lsn::default())
    }

    /// The table of this name as a transaction sees it.
    pub fn table_in(&self, txn: &Txn, name: &str) -> Attempt<Option<Arc<Table>>> {
        let mut newest = Lsn::NONE;
        let table = self.table_noting(name, txn.snapshot(), &mut newest)?;
        txn.point.note(newest);
        Ok(table)
    }

    fn table_noting(&self, name: &str, at: Lsn, newest: &mut Lsn) -> Attempt<Option<Arc<Table>>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let (tables, view) = (&self.system.tables, self.view(at));
        let key = name_key(tables, name)?;
        let page = descend(&view, tables, &key, newest)?;
        let leaf = LeafRef::new(&page)?;
        match leaf.search(&key) {
            Ok(rank) => self.table_of_row(&view, &leaf, rank).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// All tables at a read point, by name.
    pub fn tables(&self, at: Lsn) -> Attempt<Vec<Arc<Table>>> {
        let (catalogue, view) = (&self.system.tables, self.view(at));
        let (mut found, mut from) = (Vec::new(), KeyBuf::new());
        loop {
            let (page, fences) = descend_with(
                &view,
                catalogue,
                |inner| inner.child_for(&from).0,
                &mut Lsn::default(),
            )?;
            let leaf = LeafRef::new(&page)?;
            for rank in 0..leaf.len() {
                let entry = Entry::of_row(&leaf, rank);
                if entry.live && entry.id.0 >= FIRST_USER_OBJECT {
                    found.push(self.table_of_row(&view, &leaf, rank)?);
                }
            }
            match fences.upper {
                Some(upper) => from = upper,
                None => return Ok(found),
            }
        }
    }

    fn table_of_row(
        &self,
        view: &View<'_>,
        leaf: &LeafRef<'_>,
        rank: usize,
    ) -> Attempt<Arc<Table>> {
        let entry = Entry::of_row(leaf, rank);
        if let Some(table) = self.names.read().known.get(&entry.id) {
            return Ok(table.clone());
        }
        let ValueRef::Text(name) = leaf.value_at(rank, 0) else {
            return Err(EngineError::corrupt(
                self.system.tables.root,
                view.at,
                "a table's name",
                "none",
            )
            .into());
        };
        let encoded = match leaf.value_at(rank, tables_column::SCHEMA) {
            ValueRef::Bytes(bytes) => bytes.to_vec(),
            ValueRef::Overflow(reference) => {
                OverflowReader::new(reference, view.at).read(&self.pool, view.vdl)?
            }
            _ => Vec::new(),
        };
        let schema = Schema::decode(&encoded).map_err(|source| EngineError::Schema {
            table: name.to_owned(),
            source,
        })?;
        let created = Lsn(entry.id.0.saturating_sub(FIRST_USER_OBJECT));
        let table = Arc::new(self.user_table(name, entry.id, entry.root, created, &schema));
        self.names.write().known.insert(entry.id, table.clone());
        Ok(table)
    }

    /// Whether a transaction may write to the table: it is there, and not only in the past.
    pub(crate) fn check_live(&self, txn: &Txn, table: &Table) -> Attempt<()> {
        let unknown = || EngineError::UnknownTable {
            table: table.name.clone(),
            at: txn.snapshot(),
        };
        {
            let names = self.names.read();
            if names.live.contains(&table.id) {
                return Ok(());
            }
            if names.dropped.contains(&table.id) {
                return Err(unknown().into());
            }
        }
        let found = self
            .table_in(txn, &table.name)?
            .is_some_and(|found| found.id == table.id);
        if found && self.note_live(table) {
            Ok(())
        } else {
            Err(unknown().into())
        }
    }

    /// Notes that the catalogue has the table, unless it was dropped since that was read.
    pub(crate) fn note_live(&self, table: &Table) -> bool {
        let mut names = self.names.write();
        let live = !names.dropped.contains(&table.id);
        if live {
            names.live.insert(table.id);
        }
        live
    }

    /// The same at the commit, under its lock.
    pub(crate) fn check_still_live(&self, table: &Table, at: Lsn) -> Attempt<()> {
        if self.names.read().live.contains(&table.id) {
            return Ok(());
        }
        Err(EngineError::UnknownTable {
            table: table.name.clone(),
            at,
        }
        .into())
    }
}

/// The name under which a dropped table waits for its extents to be given back.
pub(crate) fn hidden_name(id: ObjectId) -> String {
    format!("{HIDDEN_PREFIX}{:020}", id.0)
}

/// How such names begin.
pub(crate) const HIDDEN_PREFIX: &str = "aurora.dropped.";

/// The first thing in which two schemas differ, apart from their version.
fn difference(have: &Schema, want: &Schema) -> Option<String> {
    if have.columns().len() != want.columns().len() {
        return Some(format!(
            "{} columns, asked for {}",
            have.columns().len(),
            want.columns().len()
        ));
    }
    for (a, b) in have.columns().iter().zip(want.columns()) {
        if (&a.name, a.data_type, a.nullable) != (&b.name, b.data_type, b.nullable) {
            let show = |c: &aurora_page::Column| {
                format!(
                    "{:?} {}{}",
                    c.name,
                    c.data_type,
                    if c.nullable { " or null" } else { "" }
                )
            };
            return Some(format!("column {}, asked for {}", show(a), show(b)));
        }
    }
    (have.key() != want.key()).then(|| "another key".to_owned())
}

impl Edit<'_> {
    /// The entry of a name.
    fn entry(&self, name: &str) -> Attempt<Option<Entry>> {
        let tables = self.system.tables.clone();
        let key = name_key(&tables, name)?;
        let found = self.find(&tables, &key)?;
        let page = self.page(found.leaf)?;
        let leaf = LeafRef::new(&page)?;
        Ok(found.rank.ok().map(|rank| Entry::of_row(&leaf, rank)))
    }

    fn insert_entry(&mut self, table: &Table, state: i64, name: &str) -> Attempt<()> {
        let tables = self.system.tables.clone();
        let mut row = [
            Value::Text(name.to_owned()),
            Value::Int(table.id.0 as i64),
            Value::Int(table.root.0 as i64),
            Value::Int(state),
            Value::Bytes(table.schema.encode()),
        ];
        let key = name_key(&tables, name)?;
        let columns = spill(&tables.schema, &row, self.geometry.page_bytes).map_err(|got| {
            let limit = aurora_page::row_heap_max(self.geometry.page_bytes);
            EngineError::RowTooLarge {
                table: tables.name.clone(),
                key: tables.show_key(&key),
                limit,
                got,
            }
        })?;
        self.spill_values(&tables, &mut row, &columns)?;
        self.insert_row(&tables, &key, &encode_row(&tables.schema, &row))
    }

    pub(crate) fn delete_entry(&mut self, name: &str, chains: &mut Chains) -> Attempt<()> {
        let tables = self.system.tables.clone();
        let key = name_key(&tables, name)?;
        let found = self.find(&tables, &key)?;
        let Ok(rank) = found.rank else {
            return Ok(());
        };
        let schema = {
            let page = self.page(found.leaf)?;
            match LeafRef::new(&page)?.value_at(rank, tables_column::SCHEMA) {
                ValueRef::Overflow(reference) => Some(reference),
                _ => None,
            }
        };
        self.delete_at(&tables, &found, rank)?;
        schema.map_or(Ok(()), |reference| self.free_value(reference, chains))
    }

    fn create_root(&mut self, table: &Table) -> Attempt<PageId> {
        let layout = first_layout(table, self.geometry.page_bytes)?;
        let root = self.allocate(table.id, PageId::default())?;
        let (object, schema_version) = (table.id, table.schema.version);
        self.start(
            root,
            &Op::FormatLeaf {
                object,
                schema_version,
                layout: &layout,
            },
        )?;
        Ok(root)
    }

    /// System tables have fixed places: each the first page of an extent of its own.
    fn create_system_table(&mut self, table: &Table) -> Attempt<()> {
        let Some(extent) = self.geometry.extent_of(table.root) else {
            return Err(EngineError::corrupt(
                table.root,
                self.at,
                "a page of an extent",
                "one of no extent",
            )
            .into());
        };
        if self.geometry.segment_of(table.root) >= self.segments {
            return Err(Stop::NeedSegment);
        }
        self.format_maps(self.geometry.segment_of(table.root))?;
        self.set_run(
            Run {
                first: extent,
                count: 1,
                load: 0,
            },
            table.id,
            ExtentState::Linked,
        )?;
        let (map, index) = self.geometry.map_place(extent);
        self.change(
            map,
            &Op::ExtentUse {
                extent: index as u32,
                bit: 0,
            },
        )?;
        let layout = first_layout(table, self.geometry.page_bytes)?;
        let (object, schema_version) = (table.id, table.schema.version);
        self.start(
            table.root,
            &Op::FormatLeaf {
                object,
                schema_version,
                layout: &layout,
            },
        )
    }
}

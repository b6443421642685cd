//! The catalogue: which tables there are, as rows of `aurora.tables`. Versioned by LSN like everything else.

use std::sync::Arc;

use aurora_page::planted::{self, Fault};
use aurora_page::{
    ExtentState, KeyBuf, LeafRef, Lsn, ObjectId, OverflowRef, PageId, PageKind, Schema, Value,
    ValueRef, encode_row,
};
use aurora_proto::Volume;
use aurora_redo::Op;
use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::alter::{same_definition, schema_changed};
use crate::btree::{Pages, descend, descend_with, first_layout};
use crate::constraints::{Check, CheckSpec, Reference, ReferenceSpec};
use crate::definition::{Definition, IndexDef};
use crate::edit::{Edit, View};
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::extents::Run;
use crate::index::{Index, IndexSpec};
use crate::overflow::{Chains, read_chain, spill};
use crate::table::{DropMark, FIRST_USER_OBJECT, RESERVED_PREFIX, Table, tables_column};
use crate::txn::{Commit, Txn};

/// Most bytes of a table's name.
pub const TABLE_NAME_BYTES_MAX: usize = 100;

/// A table that can be used.
pub(crate) const STATE_LIVE: i64 = 1;
/// A table that was dropped and whose extents are still being given back; under a name that nobody can ask for.
const STATE_DROPPED: i64 = 2;

/// What this engine knows of tables, so that it need not ask the catalogue.
#[derive(Default)]
pub(crate) struct Names {
    /// Tables that are there at the head, as they are defined there. Changes under the commit lock only, apart from
    /// tables that come in because they were looked up.
    live: FxHashMap<ObjectId, Arc<Table>>,
    /// Tables that were dropped since the engine began.
    dropped: FxHashSet<ObjectId>,
    /// Every table that was looked up, by the version of its definition.
    known: FxHashMap<(ObjectId, u64), Arc<Table>>,
    /// The definitions that this engine has given to tables that had other columns or another name, oldest first. A table
    /// that was emptied goes on under another number, which is that of its next definition.
    altered: FxHashMap<ObjectId, Vec<Arc<Table>>>,
    /// Tells those who have a table, in whichever version, that it was dropped.
    marks: FxHashMap<ObjectId, DropMark>,
    /// Indexes that this engine is building.
    pub builds: FxHashSet<ObjectId>,
    /// Whether no index is left that an earlier engine was building.
    pub builds_swept: bool,
}

impl Names {
    /// The mark that all versions of a table share.
    pub fn mark(&mut self, id: ObjectId) -> DropMark {
        self.marks.entry(id).or_default().clone()
    }

    /// Forgets everything but the marks: the volume goes over to a branch that has what was before `at`. A table that was
    /// dropped after it is back.
    pub fn rebranch(&mut self, at: Lsn) {
        let marks = std::mem::take(&mut self.marks);
        for mark in marks.values() {
            if mark.get().is_some_and(|dropped| dropped > at) {
                mark.clear();
            }
        }
        *self = Names {
            marks,
            ..Names::default()
        };
    }

    /// A table has other columns, another name or another number from now on.
    pub fn alter(&mut self, was: ObjectId, table: &Arc<Table>) {
        if was != table.id {
            self.live.remove(&was);
        }
        self.define(table);
        self.altered.entry(was).or_default().push(table.clone());
    }

    fn define(&mut self, table: &Arc<Table>) {
        self.live.insert(table.id, table.clone());
        self.known.insert((table.id, table.version), table.clone());
    }

    /// The definition that came after this one.
    pub fn first_after(&self, table: &Table) -> Option<&Arc<Table>> {
        let definitions = self.altered.get(&table.id)?;
        definitions.iter().find(|newer| newer.since > table.since)
    }

    /// The newest definition after this one.
    pub fn newest(&self, table: &Table) -> Option<Arc<Table>> {
        let mut newest = self.first_after(table)?;
        while let Some(newer) = self.first_after(newest) {
            newest = newer;
        }
        Some(newest.clone())
    }

    /// The newest definition that a read point sees, from this one on.
    pub fn newest_at(&self, table: &Arc<Table>, at: Lsn) -> Arc<Table> {
        let mut newest = table;
        while let Some(newer) = self.first_after(newest).filter(|newer| newer.since <= at) {
            newest = newer;
        }
        newest.clone()
    }
}

/// What `aurora.tables` says of a table.
pub(crate) struct Entry {
    pub id: ObjectId,
    root: PageId,
    live: bool,
    version: u64,
    since: Lsn,
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
            version: number(tables_column::VERSION) as u64,
            since: Lsn(number(tables_column::SINCE) as u64),
        }
    }
}

fn name_key(tables: &Table, name: &str) -> Attempt<KeyBuf> {
    Ok(tables.key(&[Value::Text(name.to_owned())])?)
}

pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
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

    /// Creates a table. With `exist_ok`, a table of this name and the same columns, key and indexes is taken instead.
    ///
    /// The commit is `None` if the table was there.
    pub fn create_table(
        &self,
        name: &str,
        schema: Schema,
        exist_ok: bool,
        now_us: i64,
    ) -> Attempt<(Arc<Table>, Option<Commit>)> {
        self.create_table_with(name, &TableSpec::new(schema), exist_ok, now_us)
    }

    /// Creates a table with everything that is asked for.
    pub fn create_table_with(
        &self,
        name: &str,
        spec: &TableSpec,
        exist_ok: bool,
        now_us: i64,
    ) -> Attempt<(Arc<Table>, Option<Commit>)> {
        check_name(name)?;
        let mut chains = Chains::default();
        let create = |edit: &mut Edit<'_>, _: &_| {
            if edit.entry(name)?.is_some() {
                return Ok(None);
            }
            // LSNs are never given twice, so neither are numbers made from the newest one before the table. No MTR has fewer
            // records than it makes objects: each begins with the page of its root.
            let newest = self.volume.spent();
            let (table, parents) = edit.make_table(name, spec, newest)?;
            let table = Arc::new(table);
            edit.insert_entry(&table, STATE_LIVE, name)?;
            for parent in &parents {
                edit.delete_entry(&parent.name, &mut chains)?;
                edit.insert_entry(parent, STATE_LIVE, &parent.name)?;
            }
            Ok(Some((table, parents)))
        };
        let note = |_: &mut _, _: Lsn, made: &Option<(Arc<Table>, Vec<Arc<Table>>)>| {
            if let Some((table, parents)) = made {
                self.note_defined(table);
                parents.iter().for_each(|parent| self.note_defined(parent));
            }
        };
        match self.mutate_system(now_us, create, note)? {
            (Some((table, _)), commit) => {
                self.committing.lock().counts.begin(table.id);
                Ok((table, commit))
            }
            (None, _) => Ok((self.existing(name, spec, exist_ok)?, None)),
        }
    }

    fn existing(&self, name: &str, spec: &TableSpec, exist_ok: bool) -> Attempt<Arc<Table>> {
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
        match difference(&table, spec) {
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
            let table = edit.read_table(name)?;
            let parents = edit.without_child(&table)?;
            edit.delete_entry(name, &mut chains)?;
            let kept = planted::is(Fault::DropKeepsExtents);
            for object in table.objects().filter(|_| !kept) {
                edit.free_object(object)?;
            }
            edit.forget_sequence(table.id)?;
            for parent in &parents {
                edit.delete_entry(&parent.name, &mut chains)?;
                edit.insert_entry(parent, STATE_LIVE, &parent.name)?;
            }
            // Under the commit lock: no commit after this one may write to the table.
            Ok(Some((entry.id, parents)))
        };
        let forget = |_: &mut _, lsn: Lsn, dropped: &Option<(ObjectId, Vec<Arc<Table>>)>| {
            if let Some((id, parents)) = dropped {
                parents.iter().for_each(|parent| self.note_defined(parent));
                let mut names = self.names.write();
                names.live.remove(id);
                names.known.retain(|(table, _), _| table != id);
                names.dropped.insert(*id);
                names.mark(*id).set(lsn);
            }
        };
        Ok(self.mutate_system(now_us, drop, forget)?.1)
    }

    /// Changes what a table is, in one MTR. `change` makes the new definition from the one at the head, under the commit
    /// lock; `None` changes nothing. From that commit on, every commit goes by the new one.
    pub(crate) fn redefine<T>(
        &self,
        table: &Table,
        now_us: i64,
        mut change: impl FnMut(&mut Edit<'_>, &Table, &mut Chains) -> Attempt<(Option<Table>, T)>,
    ) -> Attempt<(T, Arc<Table>, Option<Commit>)> {
        let known = self.head_table(table)?;
        let mut chains = Chains::default();
        let make = |edit: &mut Edit<'_>, _: &_| {
            let head = self.check_still_live(&known, edit.at)?;
            let (changed, made) = change(edit, &head, &mut chains)?;
            let Some(changed) = changed else {
                return Ok((made, head));
            };
            let changed = Arc::new(Table {
                version: head.version + 1,
                ..changed
            });
            edit.delete_entry(&head.name, &mut chains)?;
            edit.insert_entry(&changed, STATE_LIVE, &changed.name)?;
            Ok((made, changed))
        };
        let note = |_: &mut _, _: Lsn, (_, table): &(T, Arc<Table>)| self.note_defined(table);
        let ((made, table), commit) = self.mutate_system(now_us, make, note)?;
        Ok((made, table, commit))
    }

    /// The table as it is defined at the head.
    pub fn head_table(&self, table: &Table) -> Attempt<Arc<Table>> {
        {
            let names = self.names.read();
            let newest = names.newest(table);
            let id = newest.as_ref().map_or(table.id, |newest| newest.id);
            if let Some(head) = names.live.get(&id) {
                return Ok(head.clone());
            }
        }
        let at = self.published();
        let found = self.table(&table.name, at)?;
        match found.filter(|found| found.id == table.id) {
            Some(found) if self.note_live(&found) => Ok(self.newest_known(found)),
            _ => Err(gone(table, at).into()),
        }
    }

    /// The table that has this name at the head.
    pub(crate) fn head_named(&self, name: &str) -> Attempt<Arc<Table>> {
        let at = self.published();
        match self.table(name, at)? {
            Some(found) if self.note_live(&found) => Ok(self.newest_known(found)),
            _ => Err(unknown_table(name, at).into()),
        }
    }

    /// The same under the commit lock.
    pub(crate) fn head_in(&self, edit: &Edit<'_>, name: &str) -> Attempt<Arc<Table>> {
        let Some(entry) = edit.entry(name)? else {
            return Err(unknown_table(name, edit.at).into());
        };
        if let Some(head) = self.names.read().live.get(&entry.id) {
            return Ok(head.clone());
        }
        Ok(Arc::new(edit.read_table(name)?))
    }

    fn newest_known(&self, found: Arc<Table>) -> Arc<Table> {
        let names = self.names.read();
        names.live.get(&found.id).cloned().unwrap_or(found)
    }

    /// The table of this name at a read point.
    pub fn table(&self, name: &str, at: Lsn) -> Attempt<Option<Arc<Table>>> {
        self.table_noting(name, at, &mut Lsn::default())
    }

    /// The table of this name as a transaction sees it.
    pub fn table_in(&self, txn: &Txn, name: &str) -> Attempt<Option<Arc<Table>>> {
        let mut newest = Lsn::NONE;
        txn.fix();
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
        let known = (entry.id, entry.version);
        if let Some(table) = self.names.read().known.get(&known) {
            return Ok(table.clone());
        }
        let table = Arc::new(read_table(view, leaf, rank, &self.names)?);
        self.names.write().known.insert(known, table.clone());
        Ok(table)
    }

    /// The table for a transaction to write to, as it is defined at the head: it is there now, and not only in the past.
    pub(crate) fn check_live(&self, txn: &Txn, table: &Table) -> Attempt<Arc<Table>> {
        {
            let names = self.names.read();
            if let Some(newer) = names.first_after(table) {
                return Err(schema_changed(table, newer.since).into());
            }
            table.check_kept(Lsn::MAX)?;
            if let Some(head) = names.live.get(&table.id) {
                same_definition(head, table)?;
                return Ok(head.clone());
            }
        }
        // Asked at the newest state, which is not a read of the transaction's snapshot.
        let (at, mut newest) = (self.published(), Lsn::NONE);
        let found = self.table_noting(&table.name, at, &mut newest)?;
        txn.point.note(newest);
        match found.filter(|found| found.id == table.id) {
            Some(found) if self.note_live(&found) => {
                let head = self.newest_known(found);
                same_definition(&head, table)?;
                Ok(head)
            }
            _ => Err(gone(table, at).into()),
        }
    }

    /// Notes that the catalogue has the table, unless it was dropped since that was read. What is known of a newer
    /// definition stays.
    pub(crate) fn note_live(&self, table: &Arc<Table>) -> bool {
        let mut names = self.names.write();
        let live = !names.dropped.contains(&table.id);
        if live {
            let head = names.live.entry(table.id).or_insert_with(|| table.clone());
            if head.version < table.version {
                *head = table.clone();
            }
        }
        live
    }

    /// A commit has made or changed the table. Called under the commit lock.
    pub(crate) fn note_defined(&self, table: &Arc<Table>) {
        self.names.write().define(table);
    }

    /// The table as it is defined at the head, at the commit and under its lock, for a transaction that looked before.
    pub(crate) fn check_still_live(&self, table: &Table, at: Lsn) -> Attempt<Arc<Table>> {
        {
            let names = self.names.read();
            if let Some(head) = names.live.get(&table.id) {
                return Ok(head.clone());
            }
            if let Some(newer) = names.first_after(table) {
                return Err(schema_changed(table, newer.since).into());
            }
        }
        Err(gone(table, at).into())
    }
}

/// What a table is asked to be.
#[derive(Clone, PartialEq, Debug)]
pub struct TableSpec {
    /// Columns and key.
    pub schema: Schema,
    /// Indexes.
    pub indexes: Vec<IndexSpec>,
    /// Checks.
    pub checks: Vec<CheckSpec>,
    /// Foreign keys.
    pub references: Vec<ReferenceSpec>,
    /// The position of the column that is numbered where a row does not say.
    pub auto: Option<u16>,
}

impl TableSpec {
    /// Columns and a key, and nothing else.
    pub fn new(schema: Schema) -> TableSpec {
        TableSpec {
            schema,
            indexes: Vec::new(),
            checks: Vec::new(),
            references: Vec::new(),
            auto: None,
        }
    }
}

fn unknown_table(name: &str, at: Lsn) -> EngineError {
    EngineError::UnknownTable {
        table: name.to_owned(),
        at,
    }
}

pub(crate) fn index_exists(table: &str, index: &str) -> EngineError {
    EngineError::IndexExists {
        table: table.to_owned(),
        index: index.to_owned(),
    }
}

pub(crate) fn plain(name: &str, id: ObjectId, root: PageId, schema: &Schema) -> Table {
    let created = Lsn(id.0.saturating_sub(FIRST_USER_OBJECT)).next();
    Table::plain(id, name.to_owned(), schema.clone(), root, created)
}

/// The table that a row of the catalogue describes.
fn read_table(
    pages: &impl Pages,
    leaf: &LeafRef<'_>,
    rank: usize,
    names: &RwLock<Names>,
) -> Attempt<Table> {
    let entry = Entry::of_row(leaf, rank);
    let ValueRef::Text(name) = leaf.value_at(rank, 0) else {
        let error = EngineError::corrupt(PageId::default(), pages.at(), "a table's name", "none");
        return Err(error.into());
    };
    let bytes = |column: usize| match leaf.value_at(rank, column) {
        ValueRef::Bytes(bytes) => Ok(bytes.to_vec()),
        ValueRef::Overflow(reference) => read_chain(pages, reference),
        _ => Ok(Vec::new()),
    };
    let schema =
        Schema::decode(&bytes(tables_column::SCHEMA)?).map_err(|source| EngineError::Schema {
            table: name.to_owned(),
            source,
        })?;
    let definition = Definition::decode(name, &bytes(tables_column::DEFINITION)?)?;
    let table = Table {
        since: entry.since,
        dropped: names.write().mark(entry.id),
        ..plain(name, entry.id, entry.root, &schema)
    };
    Ok(table.defined(entry.version, definition)?)
}
/// The error of a table that is not there at `at`.
fn gone(table: &Table, at: Lsn) -> EngineError {
    let unknown = || EngineError::UnknownTable {
        table: table.name.clone(),
        at,
    };
    table.check_kept(Lsn::MAX).err().unwrap_or_else(unknown)
}

/// The name under which a dropped table waits for its extents to be given back.
pub(crate) fn hidden_name(id: ObjectId) -> String {
    format!("{HIDDEN_PREFIX}{:020}", id.0)
}

/// How such names begin.
pub(crate) const HIDDEN_PREFIX: &str = "aurora.dropped.";

/// The first thing in which a table differs from what is asked for, apart from versions.
fn difference(table: &Table, spec: &TableSpec) -> Option<String> {
    schema_difference(&table.schema, &spec.schema)
        .or_else(|| index_difference(table, spec))
        .or_else(|| constraint_difference(table, spec))
}

fn constraint_difference(table: &Table, spec: &TableSpec) -> Option<String> {
    for want in &spec.checks {
        let def = Check::def_of(table, want).ok();
        if !def.is_some_and(|def| table.definition.checks.contains(&def)) {
            return Some(format!("no such check {:?}", want.name));
        }
    }
    for want in &spec.references {
        let is_wanted = |have: &Reference| {
            let def = &have.def;
            (&def.name, &def.parent, def.on_delete) == (&want.name, &want.parent, want.on_delete)
                && have.columns == want.columns
        };
        if !table.references.iter().any(is_wanted) {
            return Some(format!("no such foreign key {:?}", want.name));
        }
    }
    (table.auto != spec.auto).then(|| "another auto-increment column".to_owned())
}

fn index_difference(table: &Table, spec: &TableSpec) -> Option<String> {
    for want in &spec.indexes {
        let Some(have) = table.index(&want.name) else {
            return Some(format!("no index {:?}", want.name));
        };
        if !have.is_as(table, want) {
            return Some(format!("index {:?} of other columns", want.name));
        }
    }
    None
}

fn schema_difference(have: &Schema, want: &Schema) -> Option<String> {
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
    pub(crate) fn entry(&self, name: &str) -> Attempt<Option<Entry>> {
        let tables = self.system.tables.clone();
        let key = name_key(&tables, name)?;
        let found = self.find(&tables, &key)?;
        let page = self.page(found.leaf)?;
        let leaf = LeafRef::new(&page)?;
        Ok(found.rank.ok().map(|rank| Entry::of_row(&leaf, rank)))
    }

    /// The table of a name that is there.
    pub(crate) fn read_table(&self, name: &str) -> Attempt<Table> {
        let tables = self.system.tables.clone();
        let found = self.find(&tables, &name_key(&tables, name)?)?;
        let page = self.page(found.leaf)?;
        let leaf = LeafRef::new(&page)?;
        let missing =
            || EngineError::corrupt(found.leaf, self.at, format!("table {name:?}"), "none");
        let rank = found.rank.map_err(|_| missing())?;
        read_table(self, &leaf, rank, self.names)
    }

    /// Gives an object's extents back, now or, if they are very many, in the background.
    pub(crate) fn free_object(&mut self, id: ObjectId) -> Attempt<()> {
        if self.free_runs(id)? {
            return Ok(());
        }
        let hidden = hidden_name(id);
        let schema = self.system.tables.schema.clone();
        let table = plain(&hidden, id, PageId::default(), &schema);
        self.insert_entry(&table, STATE_DROPPED, &hidden)
    }

    /// Makes the root of an index that has no entries.
    pub(crate) fn create_index_root(&mut self, table: &Table, def: IndexDef) -> Attempt<IndexDef> {
        let tree = Index::resolve(table, &def)?.tree;
        let root = self.create_root(&tree)?;
        Ok(IndexDef { root, ..def })
    }

    pub(crate) fn insert_entry(&mut self, table: &Table, state: i64, name: &str) -> Attempt<()> {
        let tables = self.system.tables.clone();
        let mut row = [
            Value::Text(name.to_owned()),
            Value::Int(table.id.0 as i64),
            Value::Int(table.root.0 as i64),
            Value::Int(state),
            Value::Bytes(table.schema.encode()),
            Value::Int(table.version as i64),
            Value::Bytes(table.definition.encode()),
            Value::Int(table.since.0 as i64),
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
        let outside: Vec<OverflowRef> = {
            let page = self.page(found.leaf)?;
            let leaf = LeafRef::new(&page)?;
            let of = |column| match leaf.value_at(rank, column) {
                ValueRef::Overflow(reference) => Some(reference),
                _ => None,
            };
            [tables_column::SCHEMA, tables_column::DEFINITION]
                .into_iter()
                .filter_map(of)
                .collect()
        };
        self.delete_at(&tables, &found, rank)?;
        outside
            .into_iter()
            .try_for_each(|reference| self.free_value(reference, chains))
    }

    pub(crate) fn create_root(&mut self, table: &Table) -> Attempt<PageId> {
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

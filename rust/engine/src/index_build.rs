//! Building an index while others write.
//!
//! ```text
//!   begin_index    one MTR: the index is in the catalogue, state building, without entries.
//!                  Every commit from here on keeps it: changes of rows leave and add entries, whether or not the row
//!                  has been reached
//!   index_step     the keys of a leaf's rows, read at any state since then; one MTR adds the entries of a batch of
//!                  them, made from the rows as they are at the head, where they are missing
//!   finish_index   one MTR: state ready
//! ```
//! A row is either older than the index and is reached, or younger and its writer has added its entry: there is nothing to
//! catch up with, and no snapshot is held open. A build that ends before it is finished leaves an index in state building:
//! `drop_index` removes it, and so does `sweep` if it belongs to an earlier engine.

use std::sync::Arc;

use aurora_page::{InnerRef, KeyBuf, LeafRef, Lsn, ObjectId};
use aurora_proto::Volume;

use crate::btree::descend_with;
use crate::catalogue::index_exists;
use crate::definition::IndexState;
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::index::{Index, IndexSpec};
use crate::overflow::Chains;
use crate::table::{FIRST_USER_OBJECT, Table};
use crate::txn::Commit;

/// Rows whose entries are added by one MTR: others commit in between.
const BATCH: usize = 256;

/// A build under way.
pub struct IndexBuild {
    table: Arc<Table>,
    index: ObjectId,
    /// The index is in the catalogue from here on.
    since: Lsn,
    /// Keys that were read, and whose rows have no entries yet.
    keys: Vec<KeyBuf>,
    /// Where to read on; `None` at the end.
    from: Option<KeyBuf>,
    rows: u64,
    /// The branch of the volume that it was begun on.
    branch: u64,
}

/// How far a build has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BuildProgress {
    /// Rows that were reached.
    pub rows: u64,
    /// Whether all were: [`Engine::finish_index`] comes next.
    pub done: bool,
}

impl IndexBuild {
    /// The table, as it was when the build began.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }
}

impl<V: Volume> Engine<V> {
    /// Begins to build an index.
    pub fn begin_index(&self, table: &Table, spec: &IndexSpec, now_us: i64) -> Attempt<IndexBuild> {
        let begin = |edit: &mut Edit<'_>, head: &Table, _: &mut Chains| {
            let mut definition = head.definition.clone();
            if let Some(there) = head.index(&spec.name) {
                if there.is_ready() || self.names.read().builds.contains(&there.tree.id) {
                    return Err(index_exists(&head.name, &spec.name).into());
                }
                // Left over by an engine that is gone.
                edit.free_object(there.tree.id)?;
                definition.indexes.retain(|def| def.id != there.tree.id);
            }
            // As for tables: LSNs are never given twice.
            let id = ObjectId(FIRST_USER_OBJECT + self.volume.spent().0);
            let def = Index::def_of(head, spec, id, IndexState::Building)?;
            definition.indexes.push(edit.create_index_root(head, def)?);
            let changed = head.clone().defined(head.version, definition)?;
            // Under the commit lock: whoever cleans up after others finds it here.
            self.names.write().builds.insert(id);
            Ok((Some(changed), (id, edit.branch)))
        };
        let ((index, branch), table, commit) = self.redefine(table, now_us, begin)?;
        Ok(IndexBuild {
            table,
            index,
            branch,
            since: commit.map_or(Lsn::NONE, |commit| commit.lsn),
            keys: Vec::new(),
            from: Some(KeyBuf::new()),
            rows: 0,
        })
    }

    /// Adds the entries of some rows. A duplicate in a unique index, or values that make no key, end the build: the caller
    /// drops the index.
    pub fn index_step(&self, build: &mut IndexBuild, now_us: i64) -> Attempt<BuildProgress> {
        while build.keys.is_empty() && build.from.is_some() {
            self.read_keys(build)?;
        }
        let count = build.keys.len().min(BATCH);
        let batch = &build.keys[..count];
        let add = |edit: &mut Edit<'_>, _: &_| {
            // Which rows were read may be otherwise now.
            edit.check_branch(build.branch)?;
            let head = self.check_still_live(&build.table, edit.at)?;
            edit.add_entries(&head, build.index_of(&head, edit.at)?, batch)
        };
        if count > 0 {
            self.mutate_system(now_us, add, |_, _, ()| {})?;
        }
        build.keys.drain(..count);
        build.rows += count as u64;
        Ok(BuildProgress {
            rows: build.rows,
            done: build.keys.is_empty() && build.from.is_none(),
        })
    }

    /// Reads the keys of the next leaf. Any state since the index came to be will do.
    fn read_keys(&self, build: &mut IndexBuild) -> Attempt<()> {
        let Some(from) = &build.from else {
            return Ok(());
        };
        let at = self.published();
        if at < build.since {
            return Err(Stop::WaitLsn(build.since));
        }
        let choose = |inner: &InnerRef<'_>| inner.child_for(from).0;
        let view = self.view(at);
        let (page, fences) = descend_with(&view, &build.table, choose, &mut Lsn::default())?;
        let leaf = LeafRef::new(&page)?;
        let ranks = leaf.lower_bound(from)..leaf.len();
        build.keys = ranks.map(|rank| leaf.key_at(rank)).collect();
        build.from = fences.upper;
        Ok(())
    }

    /// The index has every row: from this commit on it can be read.
    pub fn finish_index(
        &self,
        build: &IndexBuild,
        now_us: i64,
    ) -> Attempt<(Arc<Table>, Option<Commit>)> {
        let finish = |edit: &mut Edit<'_>, head: &Table, _: &mut Chains| {
            edit.check_branch(build.branch)?;
            let id = build.index_of(head, edit.at)?.tree.id;
            let mut definition = head.definition.clone();
            for def in &mut definition.indexes {
                if def.id == id {
                    def.state = IndexState::Ready(edit.at);
                }
            }
            Ok((Some(head.clone().defined(head.version, definition)?), ()))
        };
        let ((), table, commit) = self.redefine(&build.table, now_us, finish)?;
        self.names.write().builds.remove(&build.index);
        Ok((table, commit))
    }

    /// Gives up a build, with what it has done.
    pub fn abandon_index(&self, build: &IndexBuild, now_us: i64) -> Attempt<Option<Commit>> {
        self.remove_index(&build.table, now_us, |index| index.tree.id == build.index)
    }

    /// Drops an index; `None` if there is none of this name.
    pub fn drop_index(&self, table: &Table, name: &str, now_us: i64) -> Attempt<Option<Commit>> {
        self.remove_index(table, now_us, |index| index.name() == name)
    }

    fn remove_index(
        &self,
        table: &Table,
        now_us: i64,
        is_meant: impl Fn(&Index) -> bool,
    ) -> Attempt<Option<Commit>> {
        let remove = |edit: &mut Edit<'_>, head: &Table, _: &mut Chains| {
            let Some(index) = head.indexes.iter().find(|index| is_meant(index)) else {
                return Ok((None, None));
            };
            let id = index.tree.id;
            if let Some(reference) = head
                .references
                .iter()
                .find(|of| of.def.name == index.name())
            {
                return Err(EngineError::IndexSpec {
                    table: head.name.clone(),
                    index: index.name().to_owned(),
                    expected: "an index that no foreign key needs".to_owned(),
                    got: format!("that of foreign key {:?}", reference.def.name),
                }
                .into());
            }
            let mut definition = head.definition.clone();
            definition.indexes.retain(|def| def.id != id);
            edit.free_object(id)?;
            let changed = head.clone().defined(head.version, definition)?;
            Ok((Some(changed), Some(id)))
        };
        let (removed, _, commit) = self.redefine(table, now_us, remove)?;
        if let Some(id) = removed {
            self.names.write().builds.remove(&id);
        }
        Ok(commit)
    }

    /// Drops the indexes that an earlier engine was building: one step; whether there was one.
    pub(crate) fn sweep_builds(&self, now_us: i64) -> Attempt<bool> {
        if self.names.read().builds_swept {
            return Ok(false);
        }
        for table in self.tables(self.published())? {
            let abandoned = |index: &Index| {
                !index.is_ready() && !self.names.read().builds.contains(&index.tree.id)
            };
            if table.indexes.iter().any(|index| abandoned(index)) {
                self.remove_index(&table, now_us, abandoned)?;
                return Ok(true);
            }
        }
        self.names.write().builds_swept = true;
        Ok(false)
    }
}

impl IndexBuild {
    /// The index that is built, as the head has it.
    fn index_of<'t>(&self, head: &'t Table, at: Lsn) -> Attempt<&'t Arc<Index>> {
        let found = head
            .indexes
            .iter()
            .find(|index| index.tree.id == self.index);
        found.ok_or_else(|| {
            let mut defs = self.table.definition.indexes.iter();
            let name = defs.find(|def| def.id == self.index);
            EngineError::UnknownIndex {
                table: head.name.clone(),
                index: name.map_or_else(String::new, |def| def.name.clone()),
                at,
                got: "none: it was dropped while it was built",
            }
            .into()
        })
    }
}

impl Edit<'_> {
    /// The entries of the rows with these keys, as the rows are now, where they are missing.
    fn add_entries(&mut self, table: &Table, index: &Index, keys: &[KeyBuf]) -> Attempt<()> {
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            entries.extend(self.entry_of(table, index, key, true)?);
        }
        // In the order of the index, so that neighbours meet the same pages.
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for entry in entries {
            self.check_unique(table, index, &entry, Lsn::MAX)?;
            self.add_entry(index, &entry)?;
        }
        Ok(())
    }
}

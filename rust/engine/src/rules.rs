//! Constraints that come to a table with rows, and go.
//!
//! ```text
//!   begin_rule     from here on commits note which keys of the table, and of a parent, they change
//!   rule_step      the rows as they were then, a leaf at a time; then those that were changed meanwhile, as they are a
//!                  little later; and so on, until few are left. The first row that breaks the rule ends it
//!   finish_rule    one MTR, under the commit lock: the last of them as they are now, and a definition with the rule
//! ```
//! Until then the rule is nowhere, so one that is given up, or whose process ends, leaves nothing. A transaction that has
//! written to the table before gets `SchemaChanged`: its rows were not held against the rule.

use std::collections::VecDeque;
use std::sync::Arc;

use aurora_page::{Column, InnerRef, KeyBuf, LeafRef, Lsn, Value};
use aurora_proto::Volume;

use crate::alter::same_definition;
use crate::btree::{Pages, descend, descend_with};
use crate::catalogue::STATE_LIVE;
use crate::conflicts::Conflicts;
use crate::constraints::{
    Check, CheckSpec, Reference, ReferenceSpec, check_values, constraint_error,
};
use crate::cursor::{Cursor, RangeSpec};
use crate::definition::{Definition, ReferenceDef};
use crate::derive::long_value;
use crate::edit::{Edit, View};
use crate::engine::Engine;
use crate::error::{Attempt, EngineError, Stop};
use crate::index::{Index, IndexSpec};
use crate::index_build::BuildProgress;
use crate::overflow::Chains;
use crate::row::RowView;
use crate::table::Table;
use crate::txn::{Commit, Mode, Txn};

/// Changed rows that are looked at under the commit lock.
const FEW: usize = 256;
/// Changed rows that are looked at by one step.
const BATCH: usize = 256;
/// After so many rounds the rest is looked at under the lock, however many there are.
const ROUNDS_MAX: usize = 100;
/// Watches of rules have this bit, those of loads are below it.
const FIRST_WATCH: u64 = 1 << 63;

/// A constraint that is to be added.
#[derive(Clone, PartialEq, Debug)]
pub enum NewRule {
    /// A condition that no row may make false.
    Check(CheckSpec),
    /// A foreign key, whose index is there: it has its name and is by its columns.
    Reference(ReferenceSpec),
    /// A column takes no null.
    NotNull {
        /// Its name.
        column: String,
    },
}

/// A rule as it is held against rows.
enum Rule {
    /// A table that has this check and no other.
    Check(Box<Table>),
    Reference {
        columns: Vec<u16>,
        parent: Arc<Table>,
        index: Arc<Index>,
    },
    NotNull {
        place: u16,
        column: Column,
    },
}

/// A constraint on its way.
pub struct RuleBuild {
    table: Arc<Table>,
    new: NewRule,
    rule: Rule,
    watch: u64,
    /// The state whose rows are looked at.
    at: Lsn,
    /// Keeps that state, and where it has come to.
    reading: Option<(Txn, Option<Cursor>)>,
    /// Rows that were changed and are to be looked at again.
    changed: VecDeque<KeyBuf>,
    /// The same of the parent's.
    parents: VecDeque<KeyBuf>,
    rows: u64,
    rounds: usize,
    /// All rows of the first state were looked at.
    passed: bool,
    branch: u64,
}

impl RuleBuild {
    /// The parent's table, if it is another one.
    fn parent(&self) -> Option<&Arc<Table>> {
        match &self.rule {
            Rule::Reference { parent, .. } if parent.id != self.table.id => Some(parent),
            _ => None,
        }
    }
}

impl<V: Volume> Engine<V> {
    /// Begins to add a constraint.
    pub fn begin_rule(&self, table: &Table, new: &NewRule) -> Attempt<RuleBuild> {
        let table = self.head_table(table)?;
        let rule = self.rule_of(&table, new)?;
        let mut build = RuleBuild {
            new: new.clone(),
            rule,
            watch: 0,
            at: Lsn::NONE,
            reading: None,
            changed: VecDeque::new(),
            parents: VecDeque::new(),
            rows: 0,
            rounds: 0,
            passed: false,
            branch: self.branch(),
            table,
        };
        let mut committing = self.committing.lock();
        committing.rules += 1;
        // No two are the same, also where engines take turns: no two of them begin at one LSN.
        build.watch = FIRST_WATCH | self.volume.spent().0 << 10 | committing.rules & 1023;
        let conflicts = &mut committing.conflicts;
        conflicts.watch_parents(build.table.id, build.watch);
        if let Some(parent) = build.parent() {
            conflicts.watch_parents(parent.id, build.watch);
        }
        // Under the commit lock: what is published after this is watched.
        build.at = self.published();
        Ok(build)
    }

    fn rule_of(&self, table: &Arc<Table>, new: &NewRule) -> Attempt<Rule> {
        match new {
            NewRule::Check(spec) => {
                let check = Check::resolve(table, &Check::def_of(table, spec)?)?;
                let mut probe = (**table).clone();
                probe.checks = vec![check];
                Ok(Rule::Check(Box::new(probe)))
            }
            NewRule::NotNull { column } => {
                let place = table.schema.column_index(column);
                let Some(place) = place else {
                    // The schema says what is wrong.
                    let source = table.schema.with_nullable(column, false).err();
                    let unknown = || constraint_error(&table.name, column, "a column", "none");
                    return Err(source
                        .map_or_else(unknown, |source| EngineError::Alter {
                            table: table.name.clone(),
                            source,
                        })
                        .into());
                };
                let column = Column {
                    nullable: false,
                    ..table.schema.columns()[place].clone()
                };
                let place = place as u16;
                Ok(Rule::NotNull { place, column })
            }
            NewRule::Reference(spec) => {
                let parent = match &spec.parent {
                    own if *own == table.name => table.clone(),
                    name => self.head_named(name)?,
                };
                Reference::check_spec(table, &parent, spec)?;
                let columns: Vec<(u16, bool)> =
                    spec.columns.iter().map(|column| (*column, false)).collect();
                let wanted = IndexSpec::by(&spec.name, &columns, false);
                let is_it = |index: &&Arc<Index>| index.is_ready() && index.is_as(table, &wanted);
                let index = table.indexes.iter().find(is_it).cloned();
                let index = index.ok_or_else(|| {
                    let expected = "an index of its name by its columns, not unique";
                    constraint_error(&table.name, &spec.name, expected, "none")
                })?;
                Ok(Rule::Reference {
                    columns: spec.columns.clone(),
                    parent,
                    index,
                })
            }
        }
    }

    /// Looks at some rows. An error about a row ends it: the caller gives the rule up ([`Engine::abandon_rule`]).
    pub fn rule_step(&self, build: &mut RuleBuild) -> Attempt<BuildProgress> {
        if !build.passed {
            self.look_at_rows(build)?;
        } else if !build.changed.is_empty() || !build.parents.is_empty() {
            self.look_at_changed(build)?;
        } else {
            self.take_changed(build);
        }
        let left = build.changed.len() + build.parents.len();
        let few = left <= FEW || build.rounds >= ROUNDS_MAX;
        Ok(BuildProgress {
            rows: build.rows,
            done: build.passed && build.rounds > 0 && few,
        })
    }

    /// The next rows of the first state.
    fn look_at_rows(&self, build: &mut RuleBuild) -> Attempt<()> {
        self.open_state(build)?;
        let Some((txn, place)) = &mut build.reading else {
            return Ok(());
        };
        let cursor = match place {
            Some(cursor) => cursor,
            none => none.insert(self.range(txn, &build.table, RangeSpec::default())?),
        };
        let Some(block) = cursor.next_block(self)? else {
            build.passed = true;
            build.reading = None;
            return Ok(());
        };
        let view = self.view(build.at);
        for row in block.rows()? {
            self.hold_against(&view, &build.table, &build.rule, &row)?;
            build.rows += 1;
        }
        Ok(())
    }

    fn open_state(&self, build: &mut RuleBuild) -> Attempt<()> {
        if build.reading.is_none() {
            let at = Some(build.at);
            build.reading = Some((self.begin(Mode::ReadOnly { at })?, None));
        }
        Ok(())
    }

    /// What was changed since is to be looked at as of now. If it was too much to be remembered, everything is.
    fn take_changed(&self, build: &mut RuleBuild) {
        let mut committing = self.committing.lock();
        let conflicts = &mut committing.conflicts;
        let own = conflicts.take_watched(build.table.id, build.watch);
        let parents = match build.parent() {
            Some(parent) => conflicts.take_watched(parent.id, build.watch),
            None => own.clone(),
        };
        build.at = self.published();
        drop(committing);
        build.reading = None;
        build.rounds += 1;
        match (own, parents) {
            (Some(own), Some(parents)) => {
                build.changed.extend(own);
                if matches!(build.rule, Rule::Reference { .. }) {
                    build.parents.extend(parents);
                }
            }
            _ => (build.passed, build.rounds, build.rows) = (false, 0, 0),
        }
    }

    /// Some of the rows that were changed.
    fn look_at_changed(&self, build: &mut RuleBuild) -> Attempt<()> {
        self.open_state(build)?;
        let view = self.view(build.at);
        for _ in 0..BATCH {
            if let Some(key) = build.changed.front() {
                self.look_again(&view, &build.table, &build.rule, key)?;
                build.changed.pop_front();
            } else if let Some(key) = build.parents.front() {
                self.look_for_orphan(&view, &build.table, &build.rule, key)?;
                build.parents.pop_front();
            } else {
                break;
            }
        }
        Ok(())
    }

    /// The row with this key, if there is one, does not break the rule.
    fn look_again(&self, view: &View<'_>, table: &Table, rule: &Rule, key: &[u8]) -> Attempt<()> {
        match row_at(view, table, key)? {
            Some(row) => self.hold_against(view, table, rule, &row),
            None => Ok(()),
        }
    }

    fn hold_against(
        &self,
        view: &View<'_>,
        table: &Table,
        rule: &Rule,
        row: &RowView,
    ) -> Attempt<()> {
        let broken = match rule {
            Rule::Check(probe) => check_values(probe, row.values()?, |column, reference| {
                long_value(view, table, column as u16, reference)
            }),
            Rule::NotNull { place, column } => {
                let checked = column.check(row.value(usize::from(*place))?);
                checked.map_err(|source| {
                    let table = table.name.clone();
                    EngineError::Value { table, source }.into()
                })
            }
            Rule::Reference {
                columns,
                parent,
                index,
            } => check_parent(view, (table, index), columns, parent, row),
        };
        match broken {
            Err(Stop::Failed(source)) => {
                let key = table.key_of(&row.values()?)?;
                Err(row_breaks(table, &key, source).into())
            }
            other => other,
        }
    }

    /// A row of the parent that is gone is referred to by none.
    fn look_for_orphan(
        &self,
        view: &View<'_>,
        table: &Table,
        rule: &Rule,
        key: &[u8],
    ) -> Attempt<()> {
        let Rule::Reference { parent, index, .. } = rule else {
            return Ok(());
        };
        if row_at(view, parent, key)?.is_some() {
            return Ok(());
        }
        let prefix = index.tree.key(&parent.key_values(key)?)?;
        let Some(entry) = first_from(view, &index.tree, &prefix)? else {
            return Ok(());
        };
        if !entry.starts_with(&prefix) {
            return Ok(());
        }
        let values = index.tree.key_values(&entry)?;
        let child = index.row_key(table, &values)?;
        let source = parent_missing(table, index, parent, key);
        Err(row_breaks(table, &child, source).into())
    }

    /// The constraint is there from this commit on; `None` if more rows have to be looked at before ([`Engine::rule_step`]).
    pub fn finish_rule(
        &self,
        build: &mut RuleBuild,
        now_us: i64,
    ) -> Attempt<Option<(Arc<Table>, Option<Commit>)>> {
        let mut chains = Chains::default();
        let most = if build.rounds < ROUNDS_MAX {
            4 * FEW
        } else {
            usize::MAX
        };
        let made = {
            let build = &*build;
            let finish = |edit: &mut Edit<'_>, conflicts: &Conflicts| {
                edit.check_branch(build.branch)?;
                let head = self.check_still_live(&build.table, edit.at)?;
                same_definition(&head, &build.table)?;
                let parent = build.parent().map_or(build.table.id, |parent| parent.id);
                let own = conflicts.watched(build.table.id, build.watch);
                let parents = conflicts.watched(parent, build.watch);
                let (Some(own), Some(parents)) = (own, parents) else {
                    return Ok(None);
                };
                if own.len() + parents.len() > most {
                    return Ok(None);
                }
                let view = self.view(edit.at);
                for key in build.changed.iter().chain(own) {
                    self.look_again(&view, &build.table, &build.rule, key)?;
                }
                for key in build.parents.iter().chain(parents) {
                    self.look_for_orphan(&view, &build.table, &build.rule, key)?;
                }
                self.add_rule(edit, &head, &build.new, &mut chains)
                    .map(Some)
            };
            let note = |_: &mut Conflicts, _: Lsn, made: &Option<Changed>| {
                if let Some((table, parent)) = made {
                    self.note_altered(table.id, table);
                    parent.iter().for_each(|parent| self.note_defined(parent));
                }
            };
            self.mutate_system(now_us, finish, note)?
        };
        match made {
            (Some((table, _)), commit) => {
                self.abandon_rule(build);
                Ok(Some((table, commit)))
            }
            // More was changed than can be looked at under the lock, or than was remembered.
            (None, _) => Ok(None),
        }
    }

    /// Gives a rule up; nothing is left of it.
    pub fn abandon_rule(&self, build: &RuleBuild) {
        self.committing.lock().conflicts.unwatch(build.watch);
    }

    /// The definitions with the rule, in the catalogue.
    fn add_rule(
        &self,
        edit: &mut Edit<'_>,
        head: &Arc<Table>,
        new: &NewRule,
        chains: &mut Chains,
    ) -> Attempt<Changed> {
        let mut definition = head.definition.clone();
        let mut schema = head.schema.clone();
        let mut parent = None;
        match new {
            NewRule::Check(spec) => {
                edit.check_constraint_name(head, &definition, &spec.name)?;
                definition.checks.push(Check::def_of(head, spec)?);
            }
            NewRule::NotNull { column } => {
                let refused = |source| EngineError::Alter {
                    table: head.name.clone(),
                    source,
                };
                let place = schema.column_index(column).unwrap_or_default();
                let (id, nullable) = (schema.columns()[place].id, schema.columns()[place].nullable);
                schema = schema.with_nullable(column, false).map_err(refused)?;
                // The keys of indexes stay what they are.
                let parts = definition.indexes.iter_mut().flat_map(|def| &mut def.parts);
                for part in parts.filter(|part| part.is_column(id)) {
                    part.null_mark |= nullable;
                }
            }
            NewRule::Reference(spec) => {
                edit.check_constraint_name(head, &definition, &spec.name)?;
                parent = self.refer_to(edit, head, &mut definition, spec)?;
            }
        }
        let version = head.version + 1;
        let table = Table {
            schema,
            since: self.volume.spent().next(),
            ..(**head).clone()
        };
        let table = Arc::new(table.defined(version, definition)?);
        for changed in parent.iter().chain([&table]) {
            edit.delete_entry(&changed.name, chains)?;
            edit.insert_entry(changed, STATE_LIVE, &changed.name)?;
        }
        Ok((table, parent))
    }

    /// Notes the foreign key, also at its parent, which is given back if it is another table.
    fn refer_to(
        &self,
        edit: &Edit<'_>,
        head: &Table,
        definition: &mut Definition,
        spec: &ReferenceSpec,
    ) -> Attempt<Option<Arc<Table>>> {
        let column = |place: &u16| head.schema.columns()[usize::from(*place)].id;
        definition.references.push(ReferenceDef {
            name: spec.name.clone(),
            parent: spec.parent.clone(),
            on_delete: spec.on_delete,
            columns: spec.columns.iter().map(column).collect(),
        });
        if spec.parent == head.name {
            if !definition.referenced.contains(&head.name) {
                definition.referenced.push(head.name.clone());
            }
            return Ok(None);
        }
        let parent = self.head_in(edit, &spec.parent)?;
        Reference::check_spec(head, &parent, spec)?;
        if parent.definition.referenced.contains(&head.name) {
            return Ok(None);
        }
        let mut known = parent.definition.clone();
        known.referenced.push(head.name.clone());
        let version = parent.version + 1;
        Ok(Some(Arc::new((*parent).clone().defined(version, known)?)))
    }

    /// Drops a check, or a foreign key with its index.
    pub fn drop_constraint(
        &self,
        table: &Table,
        name: &str,
        now_us: i64,
    ) -> Attempt<(Arc<Table>, Option<Commit>)> {
        let known = self.head_table(table)?;
        let mut chains = Chains::default();
        let drop = |edit: &mut Edit<'_>, _: &Conflicts| {
            let head = self.check_still_live(&known, edit.at)?;
            let mut definition = head.definition.clone();
            let mut parent = None;
            let reference = definition
                .references
                .iter()
                .find(|of| of.name == name)
                .cloned();
            if let Some(reference) = reference {
                parent = self.refer_no_more(edit, &head, &mut definition, &reference)?;
                if let Some(index) = head.index(name) {
                    edit.free_object(index.tree.id)?;
                }
                definition.indexes.retain(|def| def.name != name);
            } else if definition.checks.iter().any(|check| check.name == name) {
                definition.checks.retain(|check| check.name != name);
            } else {
                let (table, constraint) = (head.name.clone(), name.to_owned());
                return Err(EngineError::UnknownConstraint { table, constraint }.into());
            }
            let table = (*head).clone().defined(head.version + 1, definition)?;
            let table = Arc::new(table);
            for changed in parent.iter().chain([&table]) {
                edit.delete_entry(&changed.name, &mut chains)?;
                edit.insert_entry(changed, STATE_LIVE, &changed.name)?;
            }
            Ok((table, parent))
        };
        let note = |_: &mut Conflicts, _: Lsn, (table, parent): &Changed| {
            self.note_defined(table);
            parent.iter().for_each(|parent| self.note_defined(parent));
        };
        let ((table, _), commit) = self.mutate_system(now_us, drop, note)?;
        Ok((table, commit))
    }

    /// Forgets the foreign key, also at its parent unless another one goes there too.
    fn refer_no_more(
        &self,
        edit: &Edit<'_>,
        head: &Table,
        definition: &mut Definition,
        reference: &ReferenceDef,
    ) -> Attempt<Option<Arc<Table>>> {
        definition.references.retain(|of| of.name != reference.name);
        let mut others = definition.references.iter();
        if others.any(|of| of.parent == reference.parent) {
            return Ok(None);
        }
        if reference.parent == head.name {
            definition.referenced.retain(|child| *child != head.name);
            return Ok(None);
        }
        let parent = self.head_in(edit, &reference.parent)?;
        let mut known = parent.definition.clone();
        known.referenced.retain(|child| *child != head.name);
        let version = parent.version + 1;
        Ok(Some(Arc::new((*parent).clone().defined(version, known)?)))
    }
}

/// A table that was changed, and its parent if that was changed with it.
type Changed = (Arc<Table>, Option<Arc<Table>>);

/// The row with this key.
fn row_at(view: &View<'_>, table: &Table, key: &[u8]) -> Attempt<Option<RowView>> {
    let page = descend(view, table, key, &mut Lsn::default())?;
    let leaf = LeafRef::new(&page)?;
    let slot = leaf.search(key).ok().map(|rank| leaf.slot(rank));
    slot.map(|slot| RowView::of(table, page, slot)).transpose()
}

/// The row that a row refers to is there.
fn check_parent(
    view: &View<'_>,
    (table, index): (&Table, &Index),
    columns: &[u16],
    parent: &Table,
    row: &RowView,
) -> Attempt<()> {
    let mut values = Vec::with_capacity(columns.len());
    for column in columns {
        let value = row.value(usize::from(*column))?;
        values.push(crate::derive::indexed_value(
            view, table, index, *column, value,
        )?);
    }
    if values.contains(&Value::Null) {
        return Ok(());
    }
    let key = parent.key(&values)?;
    match row_at(view, parent, &key)? {
        Some(_) => Ok(()),
        None => Err(parent_missing(table, index, parent, &key).into()),
    }
}

fn parent_missing(table: &Table, index: &Index, parent: &Table, key: &[u8]) -> EngineError {
    EngineError::ParentMissing {
        table: table.name.clone(),
        constraint: index.name().to_owned(),
        parent: parent.name.clone(),
        key: parent.show_key(key),
    }
}

fn row_breaks(table: &Table, key: &[u8], source: EngineError) -> EngineError {
    EngineError::RowBreaks {
        key: table.show_key(key),
        source: Box::new(source),
    }
}

/// The first key of a tree from `key` on.
fn first_from(pages: &impl Pages, tree: &Table, key: &[u8]) -> Attempt<Option<KeyBuf>> {
    let mut from = KeyBuf::from_slice(key);
    loop {
        let choose = |inner: &InnerRef<'_>| inner.child_for(&from).0;
        let (page, fences) = descend_with(pages, tree, choose, &mut Lsn::default())?;
        let leaf = LeafRef::new(&page)?;
        let rank = leaf.lower_bound(key);
        if rank < leaf.len() {
            return Ok(Some(leaf.key_at(rank)));
        }
        match fences.upper {
            Some(upper) => from = upper,
            None => return Ok(None),
        }
    }
}

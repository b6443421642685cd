//! Making a table with its indexes and constraints, in one MTR with what changes in the tables that it refers to.

use std::sync::Arc;

use aurora_page::{Lsn, ObjectId, PageId};

use crate::catalogue::{TableSpec, index_exists, plain};
use crate::constraints::{Check, Reference, ReferenceSpec, constraint_error};
use crate::definition::{Definition, IndexState, ReferenceDef};
use crate::edit::Edit;
use crate::error::{Attempt, EngineError};
use crate::index::{INDEX_NAME_BYTES_MAX, Index, IndexSpec};
use crate::table::{FIRST_USER_OBJECT, Table};

/// The auto-increment column is one of whole numbers.
fn check_auto(table: &Table, auto: u16) -> Result<u16, EngineError> {
    let wrong = |got: String| {
        let expected = "a column of whole numbers that is not nullable";
        constraint_error(&table.name, "auto-increment", expected, got)
    };
    match table.schema.columns().get(usize::from(auto)) {
        Some(column) if column.data_type.int_range().is_some() && !column.nullable => Ok(column.id),
        Some(column) => Err(wrong(format!(
            "column {:?}: {}",
            column.name, column.data_type
        ))),
        None => Err(wrong(format!("column position {auto}"))),
    }
}

impl Edit<'_> {
    /// The table, with the roots of its trees; and the tables that it refers to, which know of it now.
    pub fn make_table(
        &mut self,
        name: &str,
        spec: &TableSpec,
        newest: Lsn,
    ) -> Attempt<(Table, Vec<Arc<Table>>)> {
        let id = ObjectId(FIRST_USER_OBJECT + newest.0);
        let mut table = plain(name, id, PageId::default(), &spec.schema);
        table.dropped = self.names.write().mark(id);
        table.root = self.create_root(&table)?;
        let mut definition = Definition::default();
        for check in &spec.checks {
            self.check_constraint_name(&table, &definition, &check.name)?;
            definition.checks.push(Check::def_of(&table, check)?);
        }
        definition.auto = spec.auto.map(|auto| check_auto(&table, auto)).transpose()?;
        let indexes = spec.indexes.iter().cloned();
        let indexes = indexes.chain(spec.references.iter().map(index_for));
        for (index, number) in indexes.zip(1..) {
            if definition
                .indexes
                .iter()
                .any(|other| other.name == index.name)
            {
                return Err(index_exists(name, &index.name).into());
            }
            let id = ObjectId(id.0 + number);
            let def = Index::def_of(&table, &index, id, IndexState::Ready(newest))?;
            definition
                .indexes
                .push(self.create_index_root(&table, def)?);
        }
        let mut parents: Vec<Table> = Vec::new();
        for reference in &spec.references {
            self.check_constraint_name(&table, &definition, &reference.name)?;
            self.refer(&table, reference, &mut definition, &mut parents)?;
            let column = |place: &u16| table.schema.columns()[usize::from(*place)].id;
            definition.references.push(ReferenceDef {
                name: reference.name.clone(),
                parent: reference.parent.clone(),
                on_delete: reference.on_delete,
                columns: reference.columns.iter().map(column).collect(),
            });
        }
        let parents = parents.into_iter().map(Arc::new).collect();
        Ok((table.defined(1, definition)?, parents))
    }

    /// Lets the parent know of the table, which may be the parent itself.
    fn refer(
        &self,
        table: &Table,
        reference: &ReferenceSpec,
        definition: &mut Definition,
        parents: &mut Vec<Table>,
    ) -> Attempt<()> {
        let child = table.name.clone();
        if reference.parent == table.name {
            Reference::check_spec(table, table, reference)?;
            if !definition.referenced.contains(&child) {
                definition.referenced.push(child);
            }
            return Ok(());
        }
        if let Some(parent) = parents
            .iter()
            .find(|parent| parent.name == reference.parent)
        {
            Reference::check_spec(table, parent, reference)?;
            return Ok(());
        }
        if self.entry(&reference.parent)?.is_none() {
            return Err(EngineError::UnknownTable {
                table: reference.parent.clone(),
                at: self.at,
            }
            .into());
        }
        let parent = self.read_table(&reference.parent)?;
        Reference::check_spec(table, &parent, reference)?;
        let version = parent.version + 1;
        let mut known = parent.definition.clone();
        known.referenced.push(child);
        parents.push(parent.defined(version, known)?);
        Ok(())
    }

    pub fn check_constraint_name(
        &self,
        table: &Table,
        definition: &Definition,
        name: &str,
    ) -> Attempt<()> {
        let checks = definition.checks.iter().map(|check| &check.name);
        let references = definition
            .references
            .iter()
            .map(|reference| &reference.name);
        if name.is_empty() || name.len() > INDEX_NAME_BYTES_MAX {
            let expected = format!("a name of 1 to {INDEX_NAME_BYTES_MAX} bytes");
            let got = format!("one of {} bytes", name.len());
            return Err(constraint_error(&table.name, name, expected, got).into());
        }
        if checks.chain(references).any(|other| other == name) {
            return Err(constraint_error(&table.name, name, "each name once", "it twice").into());
        }
        Ok(())
    }

    /// The tables that a table refers to, when it is dropped: they know of it no more. A table that another refers to
    /// stays.
    pub fn without_child(&self, table: &Table) -> Attempt<Vec<Arc<Table>>> {
        let referenced = &table.definition.referenced;
        if let Some(by) = referenced.iter().find(|name| **name != table.name) {
            return Err(EngineError::TableReferenced {
                table: table.name.clone(),
                by: by.clone(),
            }
            .into());
        }
        let mut parents: Vec<Arc<Table>> = Vec::new();
        for reference in &table.references {
            let name = &reference.def.parent;
            if *name == table.name || parents.iter().any(|parent| parent.name == *name) {
                continue;
            }
            let parent = self.read_table(name)?;
            let (version, mut definition) = (parent.version + 1, parent.definition.clone());
            definition.referenced.retain(|child| *child != table.name);
            parents.push(Arc::new(parent.defined(version, definition)?));
        }
        Ok(parents)
    }
}

fn index_for(reference: &ReferenceSpec) -> IndexSpec {
    let columns: Vec<(u16, bool)> = reference
        .columns
        .iter()
        .map(|column| (*column, false))
        .collect();
    IndexSpec::by(&reference.name, &columns, false)
}

//! Indexes: trees of their own whose rows are the indexed columns and the primary key, all of it the key.
//!
//! ```text
//!   table    id | owner | at | ...            key (id)
//!   index    owner | at | id                  key (owner, at desc, id): unique, whatever the rows have
//! ```
//! An entry is found by its first columns; the primary key in it leads to the row. Entries are made from rows and never
//! written by themselves: at a commit, from what the row was at the head and what it has become (`derive`).

use std::sync::Arc;

use aurora_page::{
    Column, KEY_BYTES_MAX, KeyBuf, KeyError, KeyPart, ObjectId, Schema, Value, encode_key_values,
};

use crate::definition::{IndexDef, IndexPart, IndexState};
use crate::error::{Attempt, EngineError};
use crate::table::Table;

/// Most bytes of an index's or a constraint's name.
pub const INDEX_NAME_BYTES_MAX: usize = 100;

/// What an index is asked to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexSpec {
    /// Its name, unique within the table.
    pub name: String,
    /// Positions of its columns in the table, most significant first; whether the largest value comes first.
    pub columns: Vec<(u16, bool)>,
    /// Whether two rows may not have the same values, unless one of them is null.
    pub unique: bool,
}

/// An index of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Index {
    /// As the catalogue has it.
    pub def: IndexDef,
    /// Its tree: what cursors walk. The columns are the index's own, then those of the primary key.
    pub tree: Arc<Table>,
    /// For each column of the tree, its position in the table.
    columns: Vec<u16>,
    /// For each part of the table's key, its column in the tree.
    key: Vec<usize>,
}

/// What an index has of one row.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Entry {
    pub key: KeyBuf,
    pub values: Vec<Value>,
    /// The part of the key that no other row may have: bytes of it.
    pub unique: Option<usize>,
}

impl Entry {
    /// What no other row may have.
    pub fn unique_prefix(&self) -> Option<&[u8]> {
        self.unique.map(|len| &self.key[..len])
    }
}

impl Index {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.def.name
    }

    /// Whether it has every row.
    pub fn is_ready(&self) -> bool {
        matches!(self.def.state, IndexState::Ready(_))
    }

    /// Positions in the table of its own columns, and whether the largest value comes first.
    pub fn parts(&self) -> impl Iterator<Item = (u16, bool)> + '_ {
        self.columns
            .iter()
            .zip(&self.def.parts)
            .map(|(column, part)| (*column, part.descending))
    }

    /// The index of a table as its stored form describes it.
    pub(crate) fn resolve(table: &Table, def: &IndexDef) -> Result<Index, EngineError> {
        let missing = |what: &dyn std::fmt::Display| EngineError::Definition {
            table: table.name.clone(),
            offset: 0,
            expected: format!("columns of the table in index {:?}", def.name),
            got: what.to_string(),
        };
        let schema = &table.schema;
        let mut columns: Vec<u16> = Vec::new();
        let mut parts: Vec<KeyPart> = Vec::new();
        for part in &def.parts {
            let place = schema
                .columns()
                .iter()
                .position(|column| column.id == part.column);
            let place = place.ok_or_else(|| missing(&format!("column id {}", part.column)))?;
            push_part(&mut columns, &mut parts, place as u16, part.descending);
        }
        let mut key = Vec::new();
        for part in schema.key() {
            let there = columns.iter().position(|column| *column == part.column);
            key.push(there.unwrap_or(columns.len()));
            if there.is_none() {
                push_part(&mut columns, &mut parts, part.column, part.descending);
            }
        }
        let of = |(id, place): (usize, &u16)| {
            let column = schema.columns()[usize::from(*place)].clone();
            let marked = def.parts.get(id).is_some_and(|part| part.null_mark);
            Column {
                id: id as u16,
                nullable: column.nullable || marked,
                ..column
            }
        };
        let tree_columns = columns.iter().enumerate().map(of).collect();
        let tree_schema = Schema::new(1, tree_columns, parts).map_err(|source| missing(&source))?;
        let name = format!("{}.{}", table.name, def.name);
        let tree = Table {
            index_of: Some(table.id),
            dropped: table.dropped.clone(),
            ..Table::plain(def.id, name, tree_schema, def.root, table.created)
        };
        Ok(Index {
            def: def.clone(),
            tree: Arc::new(tree),
            columns,
            key,
        })
    }

    /// The entry of a row, whose values are asked for by position in the table.
    pub(crate) fn entry(
        &self,
        table: &Table,
        mut value: impl FnMut(u16) -> Attempt<Value>,
    ) -> Attempt<Entry> {
        let values = self
            .columns
            .iter()
            .map(|column| value(*column))
            .collect::<Attempt<Vec<_>>>()?;
        let own = &values[..self.def.parts.len()];
        let named = |source| self.key_error(table, source);
        let unique = if self.def.unique && !own.contains(&Value::Null) {
            Some(
                encode_key_values(&self.tree.schema, own)
                    .map_err(named)?
                    .len(),
            )
        } else {
            None
        };
        let key = encode_key_values(&self.tree.schema, &values).map_err(named)?;
        Ok(Entry {
            key,
            values,
            unique,
        })
    }

    /// The primary key of the row of an entry.
    pub(crate) fn row_key(&self, table: &Table, entry: &[Value]) -> Attempt<KeyBuf> {
        let values: Vec<Value> = self
            .key
            .iter()
            .map(|column| entry[*column].clone())
            .collect();
        Ok(table.key(&values)?)
    }

    /// Columns of the tree that hold the primary key, in the order of the key.
    pub(crate) fn key_columns(&self) -> &[usize] {
        &self.key
    }

    pub(crate) fn key_error(&self, table: &Table, source: KeyError) -> EngineError {
        EngineError::IndexKey {
            table: table.name.clone(),
            index: self.def.name.clone(),
            source: Box::new(source),
        }
    }

    /// An indexed value that lies in overflow pages and is too long for any key.
    pub(crate) fn too_long(&self, table: &Table, bytes: u64) -> EngineError {
        debug_assert!(bytes > KEY_BYTES_MAX as u64);
        let got = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.key_error(table, KeyError::TooLong { got })
    }

    /// The values of a unique prefix, for a message.
    pub(crate) fn show_values(&self, values: &[Value]) -> String {
        crate::table::show_values(&values[..self.def.parts.len()])
    }

    pub(crate) fn duplicate(
        &self,
        table: &Table,
        entry: &Entry,
        seen: aurora_page::Lsn,
    ) -> EngineError {
        EngineError::DuplicateKey {
            table: table.name.clone(),
            index: Some(self.def.name.clone()),
            key: self.show_values(&entry.values),
            seen,
        }
    }

    /// The stored form of what is asked for.
    pub(crate) fn def_of(
        table: &Table,
        spec: &IndexSpec,
        id: ObjectId,
        state: IndexState,
    ) -> Result<IndexDef, EngineError> {
        check_spec(table, spec)?;
        let part = |&(column, descending): &(u16, bool)| IndexPart {
            column: table.schema.columns()[usize::from(column)].id,
            descending,
            null_mark: false,
        };
        Ok(IndexDef {
            id,
            root: Default::default(),
            name: spec.name.clone(),
            parts: spec.columns.iter().map(part).collect(),
            unique: spec.unique,
            state,
        })
    }
}

fn push_part(columns: &mut Vec<u16>, parts: &mut Vec<KeyPart>, place: u16, descending: bool) {
    let column = columns.len() as u16;
    columns.push(place);
    parts.push(KeyPart { column, descending });
}

fn check_spec(table: &Table, spec: &IndexSpec) -> Result<(), EngineError> {
    let wrong = |expected: String, got: String| EngineError::IndexSpec {
        table: table.name.clone(),
        index: spec.name.clone(),
        expected,
        got,
    };
    if spec.name.is_empty() || spec.name.len() > INDEX_NAME_BYTES_MAX {
        let got = format!("one of {} bytes", spec.name.len());
        return Err(wrong(
            format!("a name of 1 to {INDEX_NAME_BYTES_MAX} bytes"),
            got,
        ));
    }
    if spec.columns.is_empty() {
        return Err(wrong("at least one column".into(), "none".into()));
    }
    let columns = table.schema.columns();
    for (place, (column, _)) in spec.columns.iter().enumerate() {
        let Some(found) = columns.get(usize::from(*column)) else {
            let expected = format!("column positions below {}", columns.len());
            return Err(wrong(expected, column.to_string()));
        };
        if spec.columns[..place]
            .iter()
            .any(|(earlier, _)| earlier == column)
        {
            let got = format!("column {:?} twice", found.name);
            return Err(wrong("each column once".into(), got));
        }
    }
    Ok(())
}

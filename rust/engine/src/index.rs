//! Indexes: trees of their own whose rows are the indexed columns and the primary key, all of it the key.
//!
//! ```text
//!   table    id | owner | at | ...            key (id)
//!   index    owner | at | id                  key (owner, at desc, id): unique, whatever the rows have
//! ```
//! A column of an index may be computed: the entry has the value of an expression over the row, which is evaluated when the row
//! is written and when the index is built. Only expressions that give the same for the same row can be written at all.
//!
//! An entry is found by its first columns; the primary key in it leads to the row. Entries are made from rows and never
//! written by themselves: at a commit, from what the row was at the head and what it has become (`derive`).

use std::sync::Arc;

use aurora_page::{
    Column, KEY_BYTES_MAX, KeyBuf, KeyError, KeyPart, ObjectId, Schema, Value, encode_key_values,
};
use aurora_scan::expr::{BoundExpr, Expr};

use crate::definition::{IndexDef, IndexPart, IndexState};
use crate::error::{Attempt, EngineError};
use crate::table::Table;

/// Most bytes of an index's or a constraint's name.
pub const INDEX_NAME_BYTES_MAX: usize = 100;

/// Longest text of an expression that names its column of an index.
const EXPR_NAME_BYTES_MAX: usize = 200;

/// What a column of an index is to be.
#[derive(Clone, PartialEq, Debug)]
pub enum IndexOn {
    /// The column at this position in the table.
    Column(u16),
    /// The value of an expression over the table's columns.
    Expr(Expr),
}

/// What an index is asked to be.
#[derive(Clone, PartialEq, Debug)]
pub struct IndexSpec {
    /// Its name, unique within the table.
    pub name: String,
    /// Its columns, most significant first; whether the largest value comes first.
    pub parts: Vec<(IndexOn, bool)>,
    /// Whether two rows may not have the same values, unless one of them is null.
    pub unique: bool,
}

impl IndexSpec {
    /// An index by columns, at these positions in the table.
    pub fn by(name: &str, columns: &[(u16, bool)], unique: bool) -> IndexSpec {
        let part = |(column, descending): &(u16, bool)| (IndexOn::Column(*column), *descending);
        IndexSpec {
            name: name.to_owned(),
            parts: columns.iter().map(part).collect(),
            unique,
        }
    }
}

/// Where the values of a column of an index come from.
#[derive(Clone, PartialEq, Debug)]
pub enum IndexSource {
    /// The column at this position in the table.
    Column(u16),
    /// An expression over the table's columns.
    Expr(Box<BoundExpr>),
}

impl IndexSource {
    fn is_column(&self, place: u16) -> bool {
        matches!(self, IndexSource::Column(column) if *column == place)
    }
}

/// An index of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct Index {
    /// As the catalogue has it.
    pub def: IndexDef,
    /// Its tree: what cursors walk. The columns are the index's own, then those of the primary key.
    pub tree: Arc<Table>,
    /// For each column of the tree, what it has of a row.
    sources: Vec<IndexSource>,
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

    /// Its own columns, and whether the largest value comes first.
    pub fn parts(&self) -> impl Iterator<Item = (&IndexSource, bool)> {
        let parts = self.sources.iter().zip(&self.def.parts);
        parts.map(|(source, part)| (source, part.descending))
    }

    /// Whether it is what is asked for.
    pub fn is_as(&self, table: &Table, spec: &IndexSpec) -> bool {
        let Ok(want) = Index::def_of(table, spec, self.def.id, self.def.state) else {
            return false;
        };
        let of = |part: &IndexPart| (part.column, part.expr.clone(), part.descending);
        let same = want.parts.iter().map(of).eq(self.def.parts.iter().map(of));
        same && want.name == self.def.name && want.unique == self.def.unique
    }

    /// Whether one of its expressions reads the column at this position.
    pub(crate) fn computes_from(&self, place: usize) -> bool {
        self.sources.iter().any(|source| match source {
            IndexSource::Expr(expr) => expr.columns().contains(&place),
            IndexSource::Column(_) => false,
        })
    }

    /// Whether the column at this position is in its keys as it is.
    pub(crate) fn has_column(&self, place: u16) -> bool {
        self.sources.iter().any(|source| source.is_column(place))
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
        let mut made = Parts::default();
        for part in &def.parts {
            if let Some(expr) = &part.expr {
                let bound = bind(table, expr).map_err(|got| missing(&got))?;
                made.push_expr(table, bound, part.descending)
                    .map_err(|got| missing(&got))?;
                continue;
            }
            let place = schema
                .columns()
                .iter()
                .position(|column| column.id == part.column);
            let place = place.ok_or_else(|| missing(&format!("column id {}", part.column)))?;
            made.push_column(table, place as u16, part.descending, part.null_mark);
        }
        let mut key = Vec::new();
        for part in schema.key() {
            let mut sources = made.sources.iter();
            let there = sources.position(|source| source.is_column(part.column));
            key.push(there.unwrap_or(made.sources.len()));
            if there.is_none() {
                made.push_column(table, part.column, part.descending, false);
            }
        }
        let Parts {
            sources,
            columns: tree_columns,
            parts,
        } = made;
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
            sources,
            key,
        })
    }

    /// The entry of a row, whose values are asked for by position in the table.
    pub(crate) fn entry(
        &self,
        table: &Table,
        mut value: impl FnMut(u16) -> Attempt<Value>,
    ) -> Attempt<Entry> {
        let mut values = Vec::with_capacity(self.sources.len());
        for (place, source) in self.sources.iter().enumerate() {
            values.push(match source {
                IndexSource::Column(column) => value(*column)?,
                IndexSource::Expr(expr) => self.compute(table, place, expr, &mut value)?,
            });
        }
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

    /// The value of an expression for a row.
    fn compute(
        &self,
        table: &Table,
        place: usize,
        expr: &BoundExpr,
        value: &mut impl FnMut(u16) -> Attempt<Value>,
    ) -> Attempt<Value> {
        let mut row = vec![Value::Null; table.schema.columns().len()];
        for column in expr.columns() {
            row[*column] = value(*column as u16)?;
        }
        let column = &self.tree.schema.columns()[place];
        let computed = expr.value_for(column, &|column| row[column].as_ref());
        computed.or_else(|error| {
            let key = table.key_columns().map(&mut *value);
            let key = table.key(&key.collect::<Attempt<Vec<_>>>()?)?;
            Err(EngineError::IndexExpr {
                table: table.name.clone(),
                index: self.def.name.clone(),
                key: table.show_key(&key),
                expected: column.name.as_str().into(),
                got: error.to_string().into(),
            }
            .into())
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
        let part = |(on, descending): &(IndexOn, bool)| {
            let (column, expr) = match on {
                IndexOn::Column(column) => (table.schema.columns()[usize::from(*column)].id, None),
                IndexOn::Expr(expr) => (0, Some(stored_expr(table, spec, expr)?)),
            };
            Ok(IndexPart {
                column,
                expr,
                descending: *descending,
                null_mark: false,
            })
        };
        let parts = spec.parts.iter().map(part);
        Ok(IndexDef {
            id,
            root: Default::default(),
            name: spec.name.clone(),
            parts: parts.collect::<Result<_, EngineError>>()?,
            unique: spec.unique,
            state,
        })
    }
}

/// Columns of an index's tree in the making.
#[derive(Default)]
struct Parts {
    sources: Vec<IndexSource>,
    columns: Vec<Column>,
    parts: Vec<KeyPart>,
}

impl Parts {
    fn push_column(&mut self, table: &Table, place: u16, descending: bool, null_mark: bool) {
        let column = table.schema.columns()[usize::from(place)].clone();
        let nullable = column.nullable || null_mark;
        let column = Column { nullable, ..column };
        self.push(IndexSource::Column(place), column, descending);
    }

    fn push_expr(
        &mut self,
        table: &Table,
        bound: BoundExpr,
        descending: bool,
    ) -> Result<(), String> {
        let data_type = bound.data_type().ok_or("a null without type")?;
        let text = expr_text(table, bound.expr());
        let name = match text.len() {
            0..=EXPR_NAME_BYTES_MAX => text,
            _ => format!("expression {}", self.columns.len() + 1),
        };
        // Whether it ever is null nobody says.
        let column = Column {
            id: 0,
            name,
            data_type,
            nullable: true,
        };
        self.push(IndexSource::Expr(Box::new(bound)), column, descending);
        Ok(())
    }

    fn push(&mut self, source: IndexSource, column: Column, descending: bool) {
        let id = self.columns.len() as u16;
        self.sources.push(source);
        self.columns.push(Column { id, ..column });
        let column = id;
        self.parts.push(KeyPart { column, descending });
    }
}

/// An expression as it is written, without the parentheses around it.
fn expr_text(table: &Table, expr: &Expr) -> String {
    let text = expr.with_names(&table.schema).to_string();
    crate::constraints::without_outer_pair(text)
}

/// A stored expression over the table's columns.
fn bind(table: &Table, expr: &[u8]) -> Result<BoundExpr, String> {
    let expr = Expr::decode(expr).map_err(|error| error.to_string())?;
    expr.bind(&table.schema).map_err(|error| error.to_string())
}

/// The form of an expression on disk, if an index can have it.
fn stored_expr(table: &Table, spec: &IndexSpec, expr: &Expr) -> Result<Vec<u8>, EngineError> {
    let wrong = |got: String| EngineError::IndexSpec {
        table: table.name.clone(),
        index: spec.name.clone(),
        expected: "an expression over the table's columns".to_owned(),
        got,
    };
    let bound = expr
        .bind(&table.schema)
        .map_err(|error| wrong(error.to_string()))?;
    if bound.data_type().is_none() || bound.columns().is_empty() {
        return Err(wrong(format!("{expr}, which reads none")));
    }
    let stored = expr.with_ids(&table.schema);
    Ok(stored.map_err(|error| wrong(error.to_string()))?.encode())
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
    if spec.parts.is_empty() {
        return Err(wrong("at least one column".into(), "none".into()));
    }
    let columns = table.schema.columns();
    for (place, (on, _)) in spec.parts.iter().enumerate() {
        let name = match on {
            IndexOn::Column(column) => match columns.get(usize::from(*column)) {
                Some(found) => format!("column {:?}", found.name),
                None => {
                    let expected = format!("column positions below {}", columns.len());
                    return Err(wrong(expected, column.to_string()));
                }
            },
            IndexOn::Expr(expr) => expr.to_string(),
        };
        if spec.parts[..place].iter().any(|(earlier, _)| earlier == on) {
            return Err(wrong("each column once".into(), format!("{name} twice")));
        }
    }
    Ok(())
}

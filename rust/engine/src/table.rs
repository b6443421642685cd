//! A table as the engine works with it, and the system tables.

use std::sync::Arc;

use aurora_page::{
    Column, DataType, Geometry, KeyBuf, KeyPart, Lsn, ObjectId, PageId, Schema, SchemaError, Value,
    decode_key, encode_key, encode_key_values,
};

use crate::error::EngineError;

/// Objects below this number are the engine's own.
pub(crate) const FIRST_USER_OBJECT: u64 = 16;

/// Names that begin like this are the engine's own.
pub(crate) const RESERVED_PREFIX: &str = "aurora.";

/// A table: one B+tree whose root page never moves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its number, never given twice within a History.
    pub id: ObjectId,
    /// Its name.
    pub name: String,
    /// Its columns and key.
    pub schema: Schema,
    /// The root page of its tree.
    pub root: PageId,
    /// No read point below this one has the table.
    pub created: Lsn,
}

impl Table {
    /// The key of a full row.
    pub fn key_of(&self, row: &[Value]) -> Result<KeyBuf, EngineError> {
        encode_key(&self.schema, row).map_err(|source| EngineError::Key {
            table: self.name.clone(),
            source,
        })
    }

    /// The key of the values of its first columns: all of them, or fewer for a bound of a range.
    pub fn key(&self, values: &[Value]) -> Result<KeyBuf, EngineError> {
        encode_key_values(&self.schema, values).map_err(|source| EngineError::Key {
            table: self.name.clone(),
            source,
        })
    }

    /// A key for a message.
    pub fn show_key(&self, key: &[u8]) -> String {
        let Ok(values) = decode_key(&self.schema, key) else {
            return format!("{key:02x?}");
        };
        let shown: Vec<String> = values.iter().map(show).collect();
        format!("({})", shown.join(", "))
    }

    pub(crate) fn key_columns(&self) -> impl Iterator<Item = u16> + '_ {
        self.schema.key().iter().map(|part| part.column)
    }
}

/// Long texts are cut: a message is no place for a kilobyte.
fn show(value: &Value) -> String {
    const CHARS_MAX: usize = 40;
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Float32(v) => v.to_string(),
        Value::Float64(v) => v.to_string(),
        Value::Decimal(v) => v.to_string(),
        Value::Date(v) => v.to_string(),
        Value::Time(v) | Value::Timestamp(v) => v.to_string(),
        Value::Text(v) | Value::Json(v) => format!("{v:?}"),
        other => format!("{other:?}"),
    };
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// The tables that the engine keeps for itself. Their roots are the first pages of the first extents of segment 0.
pub(crate) struct System {
    /// name -> id, root, state, schema.
    pub tables: Arc<Table>,
    /// Commit tokens -> commit time.
    pub tokens: Arc<Table>,
    /// object, first extent -> number of extents, load: which extents a user's table has.
    pub extents: Arc<Table>,
}

/// Columns of `aurora.tables`.
pub(crate) mod tables_column {
    pub const ID: usize = 1;
    pub const ROOT: usize = 2;
    pub const STATE: usize = 3;
    pub const SCHEMA: usize = 4;
}

/// Columns of `aurora.extents`.
pub(crate) mod extents_column {
    pub const FIRST: usize = 1;
    pub const COUNT: usize = 2;
    pub const LOAD: usize = 3;
}

impl System {
    /// The system tables of a volume of this geometry.
    pub fn new(geometry: Geometry) -> Result<System, EngineError> {
        let table = |id: u64, name: &str, columns: &[(&str, DataType)], keys: usize| {
            let schema = system_schema(columns, keys).map_err(|source| EngineError::Schema {
                table: name.to_owned(),
                source,
            })?;
            let root = PageId(geometry.page_range(id - 1).start);
            let (id, name, created) = (ObjectId(id), name.to_owned(), Lsn::NONE);
            Ok::<_, EngineError>(Arc::new(Table {
                id,
                name,
                schema,
                root,
                created,
            }))
        };
        use DataType::{Bytes, Int8, Int64, Text};
        let tables = [
            ("name", Text),
            ("id", Int64),
            ("root", Int64),
            ("state", Int8),
            ("schema", Bytes),
        ];
        let tokens = [("token", Text), ("time_us", Int64)];
        let extents = [
            ("object", Int64),
            ("first", Int64),
            ("count", Int64),
            ("load", Int64),
        ];
        Ok(System {
            tables: table(1, "aurora.tables", &tables, 1)?,
            tokens: table(2, "aurora.tokens", &tokens, 1)?,
            extents: table(3, "aurora.extents", &extents, 2)?,
        })
    }

    /// All of them, in the order of their extents.
    pub fn all(&self) -> [&Arc<Table>; 3] {
        [&self.tables, &self.tokens, &self.extents]
    }
}

fn system_schema(columns: &[(&str, DataType)], keys: usize) -> Result<Schema, SchemaError> {
    let column = |(id, &(name, data_type)): (usize, &(&str, DataType))| Column {
        id: id as u16,
        name: name.to_owned(),
        data_type,
        nullable: false,
    };
    let columns = columns.iter().enumerate().map(column).collect();
    let key = (0..keys)
        .map(|column| KeyPart {
            column: column as u16,
            descending: false,
        })
        .collect();
    Schema::new(1, columns, key)
}

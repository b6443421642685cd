//! A table as the engine works with it, and the system tables.

use std::sync::Arc;

use aurora_page::{
    Column, DataType, Geometry, KeyBuf, KeyPart, Lsn, ObjectId, PageId, Schema, SchemaError, Value,
    decode_key, encode_key, encode_key_values,
};

use crate::definition::Definition;
use crate::error::EngineError;
use crate::index::Index;

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
    /// No read point below this one has the table with this name and these columns.
    pub since: Lsn,
    /// Grows with every change of its row in the catalogue.
    pub version: u64,
    /// What the catalogue has of it beside columns and key.
    pub definition: Definition,
    /// Its indexes, in the order in which they were made.
    pub indexes: Vec<Arc<Index>>,
    /// The table whose index this tree is.
    pub index_of: Option<ObjectId>,
}

impl Table {
    /// A table that has columns and a key, and nothing else.
    pub(crate) fn plain(
        id: ObjectId,
        name: String,
        schema: Schema,
        root: PageId,
        created: Lsn,
    ) -> Table {
        Table {
            id,
            name,
            schema,
            root,
            created,
            since: created,
            version: 1,
            definition: Definition::default(),
            indexes: Vec::new(),
            index_of: None,
        }
    }

    /// The table with this definition.
    pub(crate) fn defined(
        self,
        version: u64,
        definition: Definition,
    ) -> Result<Table, EngineError> {
        let table = Table { version, ..self };
        let indexes = definition
            .indexes
            .iter()
            .map(|def| Index::resolve(&table, def).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Table {
            definition,
            indexes,
            ..table
        })
    }

    /// Its index of this name.
    pub fn index(&self, name: &str) -> Option<&Arc<Index>> {
        self.indexes.iter().find(|index| index.name() == name)
    }

    /// The objects whose extents it has: its own tree and those of its indexes.
    pub(crate) fn objects(&self) -> impl Iterator<Item = ObjectId> + '_ {
        std::iter::once(self.id).chain(self.indexes.iter().map(|index| index.tree.id))
    }

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
        show_values(&values)
    }

    pub(crate) fn key_columns(&self) -> impl Iterator<Item = u16> + '_ {
        self.schema.key().iter().map(|part| part.column)
    }
}

/// Values for a message.
pub(crate) fn show_values(values: &[Value]) -> String {
    let shown: Vec<String> = values.iter().map(show).collect();
    format!("({})", shown.join(", "))
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
    /// name -> id, root, state, schema, version, definition, since when it has name and columns.
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
    pub const VERSION: usize = 5;
    pub const DEFINITION: usize = 6;
    pub const SINCE: usize = 7;
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
            Ok::<_, EngineError>(Arc::new(Table::plain(id, name, schema, root, created)))
        };
        use DataType::{Bytes, Int8, Int64, Text};
        let tables = [
            ("name", Text),
            ("id", Int64),
            ("root", Int64),
            ("state", Int8),
            ("schema", Bytes),
            ("version", Int64),
            ("definition", Bytes),
            ("since", Int64),
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

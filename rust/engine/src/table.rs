//! A table as the engine works with it, and the system tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_page::{
    Column, DataType, Geometry, KeyBound, KeyBuf, KeyPart, Lsn, ObjectId, PageId, Schema,
    SchemaError, Value, decode_bound, decode_key, encode_key, encode_key_values,
};

use crate::constraints::{Check, Reference};
use crate::definition::Definition;
use crate::error::EngineError;
use crate::index::Index;

/// Objects below this number are the engine's own.
pub(crate) const FIRST_USER_OBJECT: u64 = 16;

/// Names that begin like this are the engine's own.
pub(crate) const RESERVED_PREFIX: &str = "aurora.";

/// A table: one B+tree whose root page never moves.
#[derive(Clone, Debug)]
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
    /// Conditions that no row may make false.
    pub checks: Vec<Check>,
    /// Its foreign keys.
    pub references: Vec<Reference>,
    /// The column that is numbered where a row does not say.
    pub auto: Option<u16>,
    /// The table whose index this tree is.
    pub index_of: Option<ObjectId>,
    /// Whether it was dropped since.
    pub(crate) dropped: DropMark,
}

impl PartialEq for Table {
    /// What the catalogue has of them; the rest follows from that.
    fn eq(&self, other: &Table) -> bool {
        let of = |table: &Table| (table.id, table.version, table.root, table.index_of);
        of(self) == of(other)
            && self.name == other.name
            && self.schema == other.schema
            && self.definition == other.definition
    }
}

impl Eq for Table {}
/// When a table was dropped, shared by everybody who has the table. It is no part of what makes two tables the same.
#[derive(Clone, Default, Debug)]
pub(crate) struct DropMark(Arc<AtomicU64>);

impl DropMark {
    pub fn set(&self, lsn: Lsn) {
        self.0.store(lsn.0, Ordering::Release);
    }

    /// It was not dropped after all.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// The commit that dropped it.
    #[inline]
    pub fn get(&self) -> Option<Lsn> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            lsn => Some(Lsn(lsn)),
        }
    }
}

impl PartialEq for DropMark {
    fn eq(&self, _: &DropMark) -> bool {
        true
    }
}

impl Eq for DropMark {}

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
            checks: Vec::new(),
            references: Vec::new(),
            auto: None,
            index_of: None,
            dropped: DropMark::default(),
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
            .collect::<Result<Vec<_>, _>>()?;
        let checks = definition.checks.iter();
        let checks = checks
            .map(|def| Check::resolve(&table, def))
            .collect::<Result<_, _>>()?;
        let references = definition.references.iter();
        let references = references
            .map(|def| Reference::resolve(&table, &indexes, def))
            .collect::<Result<_, _>>()?;
        let auto = definition
            .auto
            .map(|id| column_of(&table, id, "an auto-increment column"));
        Ok(Table {
            auto: auto.transpose()?,
            definition,
            indexes,
            checks,
            references,
            ..table
        })
    }

    /// Whether a change of a row brings more with it: entries of indexes, or checks.
    pub(crate) fn is_followed(&self) -> bool {
        !self.indexes.is_empty()
            || !self.checks.is_empty()
            || !self.definition.referenced.is_empty()
    }

    /// Its index of this name.
    pub fn index(&self, name: &str) -> Option<&Arc<Index>> {
        self.indexes.iter().find(|index| index.name() == name)
    }

    /// The objects whose extents it has: its own tree and those of its indexes.
    pub(crate) fn objects(&self) -> impl Iterator<Item = ObjectId> + '_ {
        std::iter::once(self.id).chain(self.indexes.iter().map(|index| index.tree.id))
    }

    /// Refuses a read point at which the table has been dropped. Its pages may still look like it until they are used
    /// again.
    #[inline]
    pub(crate) fn check_kept(&self, at: Lsn) -> Result<(), EngineError> {
        match self.dropped.get() {
            Some(dropped) if dropped <= at => Err(EngineError::TableDropped {
                table: self.name.clone(),
                dropped,
            }),
            _ => Ok(()),
        }
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

    /// The values of a whole key, in the order of its parts.
    pub(crate) fn key_values(&self, key: &[u8]) -> Result<Vec<Value>, EngineError> {
        decode_key(&self.schema, key).map_err(|source| EngineError::Key {
            table: self.name.clone(),
            source,
        })
    }

    /// A key for a message.
    pub fn show_key(&self, key: &[u8]) -> String {
        match decode_key(&self.schema, key) {
            Ok(values) => show_values(&values),
            Err(_) => self.show_bound(key),
        }
    }

    /// A bound of a range of keys for a message: the values with which keys begin.
    fn show_bound(&self, key: &[u8]) -> String {
        let KeyBound { values, begun } = decode_bound(&self.schema, key);
        let mut shown: Vec<String> = values.iter().map(show).collect();
        shown.extend(begun.map(|text| format!("{}...", show(&Value::Text(text)))));
        format!("({})", shown.join(", "))
    }

    pub(crate) fn key_columns(&self) -> impl Iterator<Item = u16> + '_ {
        self.schema.key().iter().map(|part| part.column)
    }
}

/// The position of the column of this id.
pub(crate) fn column_of(table: &Table, id: u16, what: &str) -> Result<u16, EngineError> {
    let columns = table.schema.columns();
    let place = columns.iter().position(|column| column.id == id);
    place
        .map(|place| place as u16)
        .ok_or_else(|| EngineError::Definition {
            table: table.name.clone(),
            offset: 0,
            expected: format!("{what} of the table"),
            got: format!("column id {id}"),
        })
}

/// A value of a type for a message.
pub(crate) fn show_value(value: &Value, data_type: DataType) -> String {
    match (value, data_type) {
        (Value::Decimal(unscaled), DataType::Decimal { scale, .. }) => {
            aurora_scan::decimal::format_decimal(*unscaled, scale)
        }
        (value, _) => show(value),
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
    /// object -> the first number that its auto-increment column was not given.
    pub sequences: Arc<Table>,
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
        let sequences = [("object", Int64), ("next", Int64)];
        Ok(System {
            tables: table(1, "aurora.tables", &tables, 1)?,
            tokens: table(2, "aurora.tokens", &tokens, 1)?,
            extents: table(3, "aurora.extents", &extents, 2)?,
            sequences: table(4, "aurora.sequences", &sequences, 1)?,
        })
    }

    /// All of them, in the order of their extents.
    pub fn all(&self) -> [&Arc<Table>; 4] {
        [&self.tables, &self.tokens, &self.extents, &self.sequences]
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

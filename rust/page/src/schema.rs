//! The schema of a table: columns, key, version; its form on disk; and the check of a row against it.
//!
//! On disk, little-endian:
//!
//! ```text
//! format u8 | version u32 | columns u16 | key parts u16
//! per column    id u16 | type code u8 | type parameter u16 | nullable u8 | name length u8 | name
//! per key part  column u16 | descending u8
//! in format 2   next id u32 | initials u16
//! per initial   column id u16 | bytes u32 | a row of this one value
//! ```
//! Format 2 is that of a schema whose columns have changed; format 1 that of one which is as it was made.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::types::{DataType, TIME_US_END, decimal_max};
use crate::value::{Value, ValueRef};

/// Most columns of a table: the column descriptors of a leaf must leave room for rows.
pub const COLUMNS_MAX: usize = 1024;

/// Most bytes of a column's name.
pub const COLUMN_NAME_BYTES_MAX: usize = 255;

/// First byte of an encoded schema: as it was made, or changed since.
const SCHEMA_FORMAT: u8 = 1;
const SCHEMA_FORMAT_CHANGED: u8 = 2;

/// One column.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Column {
    /// Stays with the column when others come and go; unique within the table.
    pub id: u16,
    /// Unique within the table.
    pub name: String,
    /// What its values are.
    pub data_type: DataType,
    /// Whether a value may be null.
    pub nullable: bool,
}

/// One column of the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyPart {
    /// Index into the columns (not the id).
    pub column: u16,
    /// Largest first.
    pub descending: bool,
}

/// Columns and key of a table, as of one version.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Schema {
    /// Grows with every change of the table's definition.
    pub version: u32,
    columns: Vec<Column>,
    key: Vec<KeyPart>,
    /// No column has had this id, or a higher one.
    next_id: u32,
    /// By column id, ascending: the value, encoded, of rows that are older than the column.
    initials: Vec<(u16, Vec<u8>)>,
}

/// Why a schema is not one.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SchemaError {
    /// No columns, or too many.
    #[error("a table has 1 to {COLUMNS_MAX} columns, got {got}")]
    ColumnCount {
        /// How many there are.
        got: usize,
    },
    /// A name that is empty or too long.
    #[error("a column name has 1 to {COLUMN_NAME_BYTES_MAX} bytes, got {got} ({name:?})")]
    ColumnName {
        /// The name.
        name: String,
        /// Its bytes.
        got: usize,
    },
    /// A name with a zero byte, which ends a name in Arrow's C interface.
    #[error("column {name:?}: expected a name without zero bytes, got one")]
    ZeroInName {
        /// The name.
        name: String,
    },
    /// Two columns share a name.
    #[error("column {name:?} is there twice")]
    DuplicateColumn {
        /// The name.
        name: String,
    },
    /// Two columns share an id.
    #[error("column id {id} is there twice")]
    DuplicateId {
        /// The id.
        id: u16,
    },
    /// A type with parameters outside their limits.
    #[error("column {column:?}: expected decimal(1..38, scale <= precision), got {got}")]
    BadType {
        /// The column's name.
        column: String,
        /// Its type.
        got: DataType,
    },
    /// A key without columns.
    #[error("a key has at least one column, got none")]
    NoKey,
    /// A key that names a column which is not there, or one twice.
    #[error(
        "key part {part}: expected a column below {columns} that is not yet in the key, got {column}"
    )]
    BadKey {
        /// Index of the key part.
        part: usize,
        /// The column index it names.
        column: u16,
        /// Columns of the table.
        columns: usize,
    },
    /// Bytes that are no encoded schema.
    #[error("encoded schema, byte {offset}: expected {expected}, got {got}")]
    Encoding {
        /// Where in the bytes.
        offset: usize,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        got: String,
    },
}

/// Why a value cannot be stored in a column.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ValueError {
    /// The row has another number of values than the schema has columns.
    #[error("expected a row of {expected} values, got {got}")]
    Count {
        /// Columns of the schema.
        expected: usize,
        /// Values of the row.
        got: usize,
    },
    /// A value of another type, or outside the range of its type, or null where null is not allowed.
    #[error("column {column:?}: expected {expected}, got {got}")]
    Mismatch {
        /// The column's name.
        column: String,
        /// What it takes.
        expected: String,
        /// The value.
        got: String,
    },
}

impl Schema {
    /// A schema of these columns with this key.
    pub fn new(
        version: u32,
        columns: Vec<Column>,
        key: Vec<KeyPart>,
    ) -> Result<Schema, SchemaError> {
        check_columns(&columns)?;
        check_key(&columns, &key)?;
        Ok(Schema {
            next_id: next_id(&columns),
            version,
            columns,
            key,
            initials: Vec::new(),
        })
    }

    /// The next version, with these columns and this key.
    pub(crate) fn next(
        &self,
        columns: Vec<Column>,
        key: Vec<KeyPart>,
    ) -> Result<Schema, SchemaError> {
        let changed = Schema::new(self.version + 1, columns, key)?;
        Ok(Schema {
            next_id: changed.next_id.max(self.next_id),
            initials: self.initials.clone(),
            ..changed
        })
    }

    /// The id of the next column that is added: ids are never given again.
    pub fn next_id(&self) -> u32 {
        self.next_id
    }

    pub(crate) fn initial_bytes(&self, id: u16) -> Option<&[u8]> {
        let (_, bytes) = self.initials.iter().find(|(of, _)| *of == id)?;
        Some(bytes)
    }

    pub(crate) fn set_initial(&mut self, id: u16, bytes: Vec<u8>) {
        self.forget_initial(id);
        let place = self.initials.partition_point(|(of, _)| *of < id);
        self.initials.insert(place, (id, bytes));
    }

    pub(crate) fn forget_initial(&mut self, id: u16) {
        self.initials.retain(|(of, _)| *of != id);
    }

    /// The columns, in the order of a row's values.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The key's parts, most significant first.
    pub fn key(&self) -> &[KeyPart] {
        &self.key
    }

    /// The index of the column of this name.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The column of a key part.
    pub fn key_column(&self, part: KeyPart) -> &Column {
        &self.columns[usize::from(part.column)]
    }

    /// The form on disk.
    pub fn encode(&self) -> Vec<u8> {
        let changed = self.next_id != next_id(&self.columns) || !self.initials.is_empty();
        let mut out = vec![if changed {
            SCHEMA_FORMAT_CHANGED
        } else {
            SCHEMA_FORMAT
        }];
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&(self.columns.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        for column in &self.columns {
            out.extend_from_slice(&column.id.to_le_bytes());
            out.push(column.data_type.code());
            out.extend_from_slice(&column.data_type.param().to_le_bytes());
            out.push(u8::from(column.nullable));
            out.push(column.name.len() as u8);
            out.extend_from_slice(column.name.as_bytes());
        }
        for part in &self.key {
            out.extend_from_slice(&part.column.to_le_bytes());
            out.push(u8::from(part.descending));
        }
        if changed {
            out.extend_from_slice(&self.next_id.to_le_bytes());
            out.extend_from_slice(&(self.initials.len() as u16).to_le_bytes());
            for (id, bytes) in &self.initials {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                out.extend_from_slice(bytes);
            }
        }
        out
    }

    /// Reads the form on disk. Every byte must belong to it.
    pub fn decode(bytes: &[u8]) -> Result<Schema, SchemaError> {
        let mut reader = Reader { bytes, offset: 0 };
        let format = reader.u8("a format byte")?;
        if format != SCHEMA_FORMAT && format != SCHEMA_FORMAT_CHANGED {
            return Err(reader.wrong(0, "schema format 1 or 2", format!("format {format}")));
        }
        let version = reader.u32("the schema version")?;
        let column_count = reader.u16("the number of columns")?;
        let part_count = reader.u16("the number of key parts")?;
        let columns = (0..column_count)
            .map(|_| reader.column())
            .collect::<Result<Vec<_>, _>>()?;
        let key = (0..part_count)
            .map(|_| reader.key_part())
            .collect::<Result<Vec<_>, _>>()?;
        let changed = (format == SCHEMA_FORMAT_CHANGED).then(|| reader.changed());
        let changed = changed.transpose()?;
        if reader.offset != bytes.len() {
            let rest = bytes.len() - reader.offset;
            return Err(reader.wrong(reader.offset, "the end", format!("{rest} bytes more")));
        }
        let schema = Schema::new(version, columns, key)?;
        Ok(match changed {
            Some((next_id, initials)) => Schema {
                next_id: next_id.max(schema.next_id),
                initials,
                ..schema
            },
            None => schema,
        })
    }

    /// Whether each value may be stored in its column: type, null, range, decimal precision.
    ///
    /// A value in an overflow chain is taken for any column of varying length.
    pub fn check_row(&self, row: &[Value]) -> Result<(), ValueError> {
        if row.len() != self.columns.len() {
            return Err(ValueError::Count {
                expected: self.columns.len(),
                got: row.len(),
            });
        }
        self.columns
            .iter()
            .zip(row)
            .try_for_each(|(column, value)| column.check(value.as_ref()))
    }
}

impl Column {
    /// Whether this value may be stored in the column.
    pub fn check(&self, value: ValueRef<'_>) -> Result<(), ValueError> {
        let fits = match value {
            ValueRef::Null => self.nullable,
            value => fits(self.data_type, value),
        };
        if fits {
            return Ok(());
        }
        let or_null = if self.nullable { " or null" } else { "" };
        Err(ValueError::Mismatch {
            column: self.name.clone(),
            expected: format!("{}{or_null}", takes(self.data_type)),
            got: describe(value),
        })
    }
}

/// Whether a value that is not null is one of the type.
fn fits(data_type: DataType, value: ValueRef<'_>) -> bool {
    match (data_type, value) {
        (DataType::Bool, ValueRef::Bool(_))
        | (DataType::Float32, ValueRef::Float32(_))
        | (DataType::Float64, ValueRef::Float64(_))
        | (DataType::Date, ValueRef::Date(_))
        | (DataType::Timestamp { .. }, ValueRef::Timestamp(_))
        | (DataType::Text, ValueRef::Text(_))
        | (DataType::Bytes, ValueRef::Bytes(_))
        | (DataType::Uuid, ValueRef::Uuid(_))
        | (DataType::Json, ValueRef::Json(_)) => true,
        (DataType::Time, ValueRef::Time(us)) => (0..TIME_US_END).contains(&us),
        (DataType::Decimal { precision, .. }, ValueRef::Decimal(unscaled)) => {
            unscaled.unsigned_abs() <= decimal_max(precision).unsigned_abs()
        }
        (_, ValueRef::Int(int)) => data_type
            .int_range()
            .is_some_and(|(min, max)| (min..=max).contains(&int)),
        (_, ValueRef::Overflow(_)) => data_type.fixed_width().is_none(),
        _ => false,
    }
}

/// What a column of the type takes, for an error.
fn takes(data_type: DataType) -> String {
    match (data_type.int_range(), data_type) {
        (Some((min, max)), _) => format!("{data_type} ({min} to {max})"),
        (None, DataType::Time) => "time (below 24 hours)".to_owned(),
        (None, DataType::Decimal { precision, .. }) => {
            format!("{data_type} (at most {precision} digits)")
        }
        (None, _) => data_type.to_string(),
    }
}

/// A value for an error: kind and value, shortened where it may be long.
pub(crate) fn describe(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Bool(value) => format!("bool {value}"),
        ValueRef::Int(value) => format!("int {value}"),
        ValueRef::Float32(value) => format!("float32 {value}"),
        ValueRef::Float64(value) => format!("float64 {value}"),
        ValueRef::Decimal(unscaled) => format!("decimal with digits {unscaled}"),
        ValueRef::Date(days) => format!("date {days} (days)"),
        ValueRef::Time(us) => format!("time {us} (us)"),
        ValueRef::Timestamp(us) => format!("timestamp {us} (us)"),
        ValueRef::Text(text) => format!("text of {} bytes", text.len()),
        ValueRef::Bytes(bytes) => format!("bytes, {} of them", bytes.len()),
        ValueRef::Uuid(_) => "uuid".to_owned(),
        ValueRef::Json(json) => format!("json of {} bytes", json.len()),
        ValueRef::Overflow(overflow) => format!("an overflow value of {} bytes", overflow.len),
    }
}

fn next_id(columns: &[Column]) -> u32 {
    let above = |column: &Column| u32::from(column.id) + 1;
    columns.iter().map(above).max().unwrap_or(0)
}

/// Next id and initial values: what format 2 adds.
type Changed = (u32, Vec<(u16, Vec<u8>)>);

fn check_columns(columns: &[Column]) -> Result<(), SchemaError> {
    if columns.is_empty() || columns.len() > COLUMNS_MAX {
        return Err(SchemaError::ColumnCount { got: columns.len() });
    }
    let mut names = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for column in columns {
        let bytes = column.name.len();
        if bytes == 0 || bytes > COLUMN_NAME_BYTES_MAX {
            return Err(SchemaError::ColumnName {
                name: column.name.clone(),
                got: bytes,
            });
        }
        if column.name.contains('\0') {
            return Err(SchemaError::ZeroInName {
                name: column.name.clone(),
            });
        }
        if !names.insert(column.name.as_str()) {
            return Err(SchemaError::DuplicateColumn {
                name: column.name.clone(),
            });
        }
        if !ids.insert(column.id) {
            return Err(SchemaError::DuplicateId { id: column.id });
        }
        if !column.data_type.is_valid() {
            return Err(SchemaError::BadType {
                column: column.name.clone(),
                got: column.data_type,
            });
        }
    }
    Ok(())
}

fn check_key(columns: &[Column], key: &[KeyPart]) -> Result<(), SchemaError> {
    if key.is_empty() {
        return Err(SchemaError::NoKey);
    }
    for (part, KeyPart { column, .. }) in key.iter().enumerate() {
        let repeated = key[..part].iter().any(|earlier| earlier.column == *column);
        if usize::from(*column) >= columns.len() || repeated {
            return Err(SchemaError::BadKey {
                part,
                column: *column,
                columns: columns.len(),
            });
        }
    }
    Ok(())
}

/// Reads an encoded schema from front to back.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, expected: &'static str) -> Result<&'a [u8], SchemaError> {
        let rest = &self.bytes[self.offset..];
        let Some(taken) = rest.get(..len) else {
            return Err(self.wrong(
                self.offset,
                expected,
                format!("the end after {} bytes", rest.len()),
            ));
        };
        self.offset += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], SchemaError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, expected)?);
        Ok(array)
    }

    fn u8(&mut self, expected: &'static str) -> Result<u8, SchemaError> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    fn u16(&mut self, expected: &'static str) -> Result<u16, SchemaError> {
        self.array(expected).map(u16::from_le_bytes)
    }

    fn u32(&mut self, expected: &'static str) -> Result<u32, SchemaError> {
        self.array(expected).map(u32::from_le_bytes)
    }

    fn flag(&mut self, expected: &'static str) -> Result<bool, SchemaError> {
        let offset = self.offset;
        match self.u8(expected)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(offset, expected, other.to_string())),
        }
    }

    fn column(&mut self) -> Result<Column, SchemaError> {
        let id = self.u16("a column id")?;
        let offset = self.offset;
        let code = self.u8("a type code")?;
        let param = self.u16("a type parameter")?;
        let data_type = DataType::from_code(code, param).ok_or_else(|| {
            self.wrong(
                offset,
                "a known type",
                format!("code {code}, parameter {param}"),
            )
        })?;
        let nullable = self.flag("nullable, 0 or 1")?;
        let name_bytes = self.u8("the length of a name")?;
        let offset = self.offset;
        let name = std::str::from_utf8(self.take(usize::from(name_bytes), "a column name")?)
            .map_err(|error| self.wrong(offset, "a name in UTF-8", error.to_string()))?;
        Ok(Column {
            id,
            name: name.to_owned(),
            data_type,
            nullable,
        })
    }

    fn changed(&mut self) -> Result<Changed, SchemaError> {
        let next_id = self.u32("the next column id")?;
        let count = self.u16("the number of initial values")?;
        let initials = (0..count).map(|_| {
            let id = self.u16("the column id of an initial value")?;
            let bytes = self.u32("the length of an initial value")?;
            let value = self.take(bytes as usize, "an initial value")?;
            Ok((id, value.to_vec()))
        });
        let initials = initials.collect::<Result<_, SchemaError>>()?;
        Ok((next_id, initials))
    }

    fn key_part(&mut self) -> Result<KeyPart, SchemaError> {
        Ok(KeyPart {
            column: self.u16("a key column")?,
            descending: self.flag("descending, 0 or 1")?,
        })
    }

    fn wrong(&self, offset: usize, expected: &'static str, got: String) -> SchemaError {
        SchemaError::Encoding {
            offset,
            expected,
            got,
        }
    }
}

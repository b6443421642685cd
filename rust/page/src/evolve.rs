//! Schemas that change: a new version from an old one, in time that does not depend on the rows.
//!
//! Rows are not rewritten. A column keeps its id for life, ids are never given again, and a leaf holds the ids and types
//! that its rows were written with; so a leaf of any earlier version is read through a [`ColumnMap`]: a column that is
//! there is taken as it is, or widened; one that is not there has its *initial* value in every row.

use thiserror::Error;

use crate::leaf::LeafRef;
use crate::row::{Columns, encode_row_from, read_row};
use crate::schema::{Column, Schema, SchemaError};
use crate::types::DataType;
use crate::value::{Value, ValueRef};

/// Why a schema cannot be changed so.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum EvolveError {
    /// There is no column of the name.
    #[error("expected a column among {columns}, got {got:?}")]
    UnknownColumn {
        /// The columns that there are.
        columns: String,
        /// The name.
        got: String,
    },
    /// A column of the key can be renamed, and nothing else.
    #[error("column {column:?}: expected one outside the key to {change}, got one of it")]
    InKey {
        /// The column.
        column: String,
        /// What was to be done.
        change: &'static str,
    },
    /// A type that does not hold every value of the present one.
    #[error("column {column:?}: expected a type that holds every {have} exactly, got {got}")]
    NotWider {
        /// The column.
        column: String,
        /// Its type.
        have: DataType,
        /// The type asked for.
        got: DataType,
    },
    /// A new column that is not nullable needs a value for the rows that are there.
    #[error(
        "column {column:?}: expected a default for the rows that are there, or a nullable column, got neither"
    )]
    NoInitial {
        /// The column.
        column: String,
    },
    /// The initial value is not one of the column.
    #[error(transparent)]
    Initial(#[from] crate::schema::ValueError),
    /// Every id has been given to a column at some time.
    #[error("expected a table with fewer than {max} columns in all its life, got one more")]
    Ids {
        /// Ids that there are.
        max: usize,
    },
    /// The schema that would come of it is none.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Whether a column of `from` may become one of `to`: every value stays exactly what it is.
pub fn widens(from: DataType, to: DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (Float32, Float64) => true,
        (
            Decimal { precision, scale },
            Decimal {
                precision: wider,
                scale: finer,
            },
        ) => {
            let digits_kept =
                i16::from(wider) - i16::from(finer) >= i16::from(precision) - i16::from(scale);
            (precision, scale) != (wider, finer) && finer >= scale && digits_kept && to.is_valid()
        }
        _ => false,
    }
}

/// A value of a column of type `from` in one of type `to`, which is the same type or one that it [`widens`] to.
#[inline]
pub(crate) fn widen(value: ValueRef<'_>, from: DataType, to: DataType) -> ValueRef<'_> {
    match (value, from, to) {
        (ValueRef::Float32(value), _, DataType::Float64) => ValueRef::Float64(f64::from(value)),
        (
            ValueRef::Decimal(unscaled),
            DataType::Decimal { scale, .. },
            DataType::Decimal { scale: finer, .. },
        ) => {
            let factor = 10i128.saturating_pow(u32::from(finer.saturating_sub(scale)));
            ValueRef::Decimal(unscaled.saturating_mul(factor))
        }
        (value, ..) => value,
    }
}

/// One column, for the codec of a single value.
struct One(DataType);

impl Columns for One {
    fn column_count(&self) -> usize {
        1
    }

    fn column_type(&self, _column: usize) -> DataType {
        self.0
    }
}

/// A value alone as bytes: a row of this one column.
///
/// # Panics
/// If the value is not of the type.
pub fn encode_value(data_type: DataType, value: ValueRef<'_>) -> Vec<u8> {
    encode_row_from(&One(data_type), [value])
}

/// The value in the bytes that [`encode_value`] gives; `None` if they are others.
pub fn decode_value(data_type: DataType, bytes: &[u8]) -> Option<Value> {
    let one = One(data_type);
    let mut values = read_row(&one, bytes);
    let value = values.next()?.ok()?.to_owned();
    values.next().is_none().then_some(value)
}

impl Schema {
    /// The value that the column of this index has in rows written before it was added; null for all others.
    pub fn initial(&self, index: usize) -> Value {
        let column = &self.columns()[index];
        self.initial_bytes(column.id)
            .and_then(|bytes| decode_value(column.data_type, bytes))
            .unwrap_or(Value::Null)
    }

    /// With one column more, the last. Rows that are there have `initial` in it.
    pub fn with_column(
        &self,
        name: &str,
        data_type: DataType,
        nullable: bool,
        initial: &Value,
    ) -> Result<Schema, EvolveError> {
        let id = u16::try_from(self.next_id()).map_err(|_| EvolveError::Ids {
            max: usize::from(u16::MAX) + 1,
        })?;
        let column = Column {
            id,
            name: name.to_owned(),
            data_type,
            nullable,
        };
        if initial.is_null() && !nullable {
            let column = column.name;
            return Err(EvolveError::NoInitial { column });
        }
        if !data_type.is_valid() {
            let (column, got) = (column.name, data_type);
            return Err(SchemaError::BadType { column, got }.into());
        }
        column.check(initial.as_ref())?;
        let mut columns = self.columns().to_vec();
        columns.push(column);
        let mut changed = self.next(columns, self.key().to_vec())?;
        if !initial.is_null() {
            changed.set_initial(id, encode_value(data_type, initial.as_ref()));
        }
        Ok(changed)
    }

    /// Without a column.
    pub fn without_column(&self, name: &str) -> Result<Schema, EvolveError> {
        let index = self.outside_key(name, "drop")?;
        let mut columns = self.columns().to_vec();
        let dropped = columns.remove(index);
        let key = self.key().iter().map(|part| {
            let column = part.column - u16::from(usize::from(part.column) > index);
            crate::schema::KeyPart { column, ..*part }
        });
        let mut changed = self.next(columns, key.collect())?;
        changed.forget_initial(dropped.id);
        Ok(changed)
    }

    /// With another name for a column.
    pub fn with_name(&self, name: &str, new: &str) -> Result<Schema, EvolveError> {
        let index = self.find(name)?;
        let mut columns = self.columns().to_vec();
        columns[index].name = new.to_owned();
        Ok(self.next(columns, self.key().to_vec())?)
    }

    /// With a wider type for a column.
    pub fn with_type(&self, name: &str, to: DataType) -> Result<Schema, EvolveError> {
        let index = self.outside_key(name, "widen")?;
        let mut columns = self.columns().to_vec();
        let (id, from) = (columns[index].id, columns[index].data_type);
        if !widens(from, to) {
            return Err(EvolveError::NotWider {
                column: name.to_owned(),
                have: from,
                got: to,
            });
        }
        let initial = self.initial(index);
        columns[index].data_type = to;
        let mut changed = self.next(columns, self.key().to_vec())?;
        if !initial.is_null() {
            let initial = widen(initial.as_ref(), from, to);
            changed.set_initial(id, encode_value(to, initial));
        }
        Ok(changed)
    }

    /// With a column that takes null, or none any more. In the latter case no row that is read by it may have one: whoever makes
    /// the change has looked.
    pub fn with_nullable(&self, name: &str, nullable: bool) -> Result<Schema, EvolveError> {
        let index = self.outside_key(name, "say whether it takes null")?;
        let mut columns = self.columns().to_vec();
        columns[index].nullable = nullable;
        Ok(self.next(columns, self.key().to_vec())?)
    }

    /// The same with the next version: what a change that is not of the columns makes.
    pub fn next_version(&self) -> Schema {
        let mut next = self.clone();
        next.version += 1;
        next
    }

    fn find(&self, name: &str) -> Result<usize, EvolveError> {
        self.column_index(name).ok_or_else(|| {
            let names = self
                .columns()
                .iter()
                .map(|column| format!("{:?}", column.name));
            EvolveError::UnknownColumn {
                columns: names.collect::<Vec<_>>().join(", "),
                got: name.to_owned(),
            }
        })
    }

    fn outside_key(&self, name: &str, change: &'static str) -> Result<usize, EvolveError> {
        let index = self.find(name)?;
        if self
            .key()
            .iter()
            .any(|part| usize::from(part.column) == index)
        {
            let column = name.to_owned();
            return Err(EvolveError::InKey { column, change });
        }
        Ok(index)
    }
}

/// Why a leaf cannot be read as rows of a schema: it is of a later version, or damaged.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("column {column:?}: expected {expected}, got {got}")]
pub struct MapError {
    /// The schema's column.
    pub column: String,
    /// What the leaf should have.
    pub expected: String,
    /// What it has.
    pub got: String,
}

/// Where the values of one column come from.
#[derive(Clone, PartialEq, Debug)]
enum Source {
    /// A column of the leaf, of the type `from`.
    Stored {
        column: usize,
        from: DataType,
        to: DataType,
    },
    /// The leaf is older than the column.
    Initial(Value),
}

/// How a leaf of an earlier version is read as rows of a schema.
#[derive(Clone, PartialEq, Debug)]
pub struct ColumnMap(Vec<Source>);

impl ColumnMap {
    /// The map for this leaf; `None` if it is of the schema's own version, so that none is needed.
    #[inline]
    pub fn needed(schema: &Schema, leaf: &LeafRef<'_>) -> Result<Option<ColumnMap>, MapError> {
        if leaf.schema_version() == schema.version {
            return Ok(None);
        }
        let stored = (0..leaf.column_count()).map(|column| {
            let nullable = leaf.column_nullable(column);
            (leaf.column_id(column), leaf.column_type(column), nullable)
        });
        let map = ColumnMap::new(schema, stored)?;
        // An older leaf may lack a column that takes null no more, as long as it has no rows of the present; a later one lacks
        // it because it was dropped.
        let lost = |(column, source): &(&crate::schema::Column, &Source)| {
            !column.nullable && matches!(source, Source::Initial(Value::Null))
        };
        let mut sources = schema.columns().iter().zip(&map.0);
        match sources.find(lost) {
            Some((column, _)) if leaf.schema_version() > schema.version => Err(MapError {
                column: column.name.clone(),
                expected: format!("{} or what widens to it", column.data_type),
                got: "no such column, and no value for it".to_owned(),
            }),
            _ => Ok(Some(map)),
        }
    }

    /// The map for a page with these columns: id, type, nullable.
    pub fn new(
        schema: &Schema,
        stored: impl IntoIterator<Item = (u16, DataType, bool)>,
    ) -> Result<ColumnMap, MapError> {
        let stored: Vec<(u16, DataType, bool)> = stored.into_iter().collect();
        let sources = schema.columns().iter().enumerate().map(|(index, column)| {
            let wrong = |got: String| MapError {
                column: column.name.clone(),
                expected: format!("{} or what widens to it", column.data_type),
                got,
            };
            let place = stored.iter().position(|(id, ..)| *id == column.id);
            let Some(place) = place else {
                return Ok(Source::Initial(schema.initial(index)));
            };
            // A column that takes null no more has none in rows of the present; in those of the past it may.
            let (_, from, _) = stored[place];
            let to = column.data_type;
            if from != to && !widens(from, to) {
                return Err(wrong(from.to_string()));
            }
            Ok(Source::Stored {
                column: place,
                from,
                to,
            })
        });
        sources.collect::<Result<_, _>>().map(ColumnMap)
    }

    /// Columns of the schema.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The page's column that a column of the schema lies in, if it lies there without a change of type.
    pub fn same(&self, column: usize) -> Option<usize> {
        match self.0.get(column)? {
            Source::Stored { column, from, to } if from == to => Some(*column),
            _ => None,
        }
    }

    /// The value of a column of the schema, where `stored` gives those of the page's columns.
    #[inline]
    pub fn value<'v>(
        &'v self,
        column: usize,
        stored: impl FnOnce(usize) -> ValueRef<'v>,
    ) -> ValueRef<'v> {
        match self.0.get(column) {
            Some(Source::Stored { column, from, to }) => widen(stored(*column), *from, *to),
            Some(Source::Initial(value)) => value.as_ref(),
            None => ValueRef::Null,
        }
    }
}

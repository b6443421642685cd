//! Rows of a table out of Arrow record batches.
//!
//! A column may come in any Arrow type whose values can be those of the column (see [`crate::arrow_schema`]):
//! narrower integers, other units of time, other scales of decimals, dictionaries. Every value is checked, and an
//! error names row and column.

use arrow_array::RecordBatch;
use aurora_page::{Column, KeyBuf, KeyError, Schema, Value, ValueError, ValueRef};
use thiserror::Error;

use crate::arrow_column::{Source, source};

/// Why a batch holds no rows of the table. Rows count from the first batch on.
#[derive(Clone, PartialEq, Debug, Error)]
pub enum FromArrowError {
    /// The batch has a column that the table lacks.
    #[error("expected columns among {columns:?}, got {got:?}")]
    UnknownColumn {
        /// The table's columns.
        columns: Vec<String>,
        /// The batch's.
        got: String,
    },
    /// The batch has two columns of one name.
    #[error("expected column {column:?} once, got it twice")]
    RepeatedColumn {
        /// The name.
        column: String,
    },
    /// A column is missing, and it cannot be null.
    #[error("expected column {column:?} (not nullable), got none")]
    MissingColumn {
        /// The name.
        column: String,
    },
    /// A column of a type that cannot hold values of the table's column.
    #[error("column {column:?}: expected Arrow values for {expected}, got {got}")]
    Type {
        /// The name.
        column: String,
        /// The table's type.
        expected: String,
        /// The batch's.
        got: String,
    },
    /// A value that the table's column does not take.
    #[error("row {row}, column {column:?}: expected {expected}, got {got}")]
    Value {
        /// The row.
        row: u64,
        /// The name.
        column: String,
        /// What the column takes.
        expected: String,
        /// The value.
        got: String,
    },
    /// A row whose key cannot be encoded.
    #[error("row {row}: {source}")]
    Key {
        /// The row.
        row: u64,
        /// What is wrong with it.
        source: KeyError,
    },
}

/// One row of a table, as trees and log records take it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedRow {
    /// Its key.
    pub key: KeyBuf,
    /// All of it, as [`aurora_page::encode_row`] writes it.
    pub row: Vec<u8>,
}

/// The rows of one batch.
pub struct BatchRows<'a> {
    schema: &'a Schema,
    sources: Vec<Source<'a>>,
    first_row: u64,
    rows: usize,
}

impl<'a> BatchRows<'a> {
    /// Matches the batch's columns with the table's by name; a nullable column that the batch lacks is null.
    /// `first_row` is the number of the batch's first row, for errors.
    pub fn new(
        schema: &'a Schema,
        batch: &'a RecordBatch,
        first_row: u64,
    ) -> Result<BatchRows<'a>, FromArrowError> {
        check_names(schema, batch)?;
        let sources = schema
            .columns()
            .iter()
            .map(|column| bind(column, batch))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(BatchRows {
            schema,
            sources,
            first_row,
            rows: batch.num_rows(),
        })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Key and bytes of a row.
    pub fn encode(&self, row: usize) -> Result<EncodedRow, FromArrowError> {
        let mut values = Vec::with_capacity(self.sources.len());
        self.encode_with(row, &mut values)
    }

    /// Key and bytes of each row in turn.
    pub fn iter(&self) -> impl Iterator<Item = Result<EncodedRow, FromArrowError>> + '_ {
        let mut values = Vec::with_capacity(self.sources.len());
        (0..self.rows).map(move |row| self.encode_with(row, &mut values))
    }

    /// Gives key and bytes of each row in turn to `with`, from one place that is used again: nothing is allocated by the row.
    pub fn for_each<E: From<FromArrowError>>(
        &self,
        mut with: impl FnMut(&EncodedRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut values = Vec::with_capacity(self.sources.len());
        let mut encoded = EncodedRow {
            key: KeyBuf::new(),
            row: Vec::new(),
        };
        for row in 0..self.rows {
            self.read(row, &mut values)?;
            encoded.key = self.key(row, &values)?;
            aurora_page::encode_row_into(&mut encoded.row, self.schema, values.iter().copied());
            with(&encoded)?;
        }
        Ok(())
    }

    /// The values of a row.
    pub fn values(&self, row: usize) -> Result<Vec<Value>, FromArrowError> {
        let mut values = Vec::with_capacity(self.sources.len());
        self.read(row, &mut values)?;
        Ok(values.into_iter().map(ValueRef::to_owned).collect())
    }

    fn encode_with(
        &self,
        row: usize,
        values: &mut Vec<ValueRef<'a>>,
    ) -> Result<EncodedRow, FromArrowError> {
        self.read(row, values)?;
        let key = self.key(row, values)?;
        let row = aurora_page::encode_row_from(self.schema, values.iter().copied());
        Ok(EncodedRow { key, row })
    }

    fn key(&self, row: usize, values: &[ValueRef<'a>]) -> Result<KeyBuf, FromArrowError> {
        aurora_page::encode_key_from(self.schema, values).map_err(|source| FromArrowError::Key {
            row: self.first_row + row as u64,
            source,
        })
    }

    fn read(&self, row: usize, values: &mut Vec<ValueRef<'a>>) -> Result<(), FromArrowError> {
        values.clear();
        for (column, source) in self.schema.columns().iter().zip(&self.sources) {
            let value = source
                .value(row)
                .map_err(|got| self.wrong(row, column, got))?;
            if let Err(error) = column.check(value) {
                return Err(self.refused(row, column, error));
            }
            values.push(value);
        }
        Ok(())
    }

    #[cold]
    fn wrong(&self, row: usize, column: &Column, got: String) -> FromArrowError {
        FromArrowError::Value {
            row: self.first_row + row as u64,
            column: column.name.clone(),
            expected: column.data_type.to_string(),
            got,
        }
    }

    #[cold]
    fn refused(&self, row: usize, column: &Column, error: ValueError) -> FromArrowError {
        let (expected, got) = match error {
            ValueError::Mismatch { expected, got, .. } => (expected, got),
            ValueError::Count { expected, got } => (expected.to_string(), got.to_string()),
        };
        let row = self.first_row + row as u64;
        FromArrowError::Value {
            row,
            column: column.name.clone(),
            expected,
            got,
        }
    }
}

fn check_names(schema: &Schema, batch: &RecordBatch) -> Result<(), FromArrowError> {
    let fields = batch.schema_ref().fields();
    for (index, field) in fields.iter().enumerate() {
        let name = field.name();
        if schema.column_index(name).is_none() {
            let columns = schema
                .columns()
                .iter()
                .map(|column| column.name.clone())
                .collect();
            return Err(FromArrowError::UnknownColumn {
                columns,
                got: name.clone(),
            });
        }
        if fields[..index].iter().any(|earlier| earlier.name() == name) {
            return Err(FromArrowError::RepeatedColumn {
                column: name.clone(),
            });
        }
    }
    Ok(())
}

fn bind<'a>(column: &Column, batch: &'a RecordBatch) -> Result<Source<'a>, FromArrowError> {
    match batch.column_by_name(&column.name) {
        None if column.nullable => Ok(Source::nothing()),
        None => Err(FromArrowError::MissingColumn {
            column: column.name.clone(),
        }),
        Some(array) => {
            source(column.data_type, array.as_ref()).ok_or_else(|| FromArrowError::Type {
                column: column.name.clone(),
                expected: column.data_type.to_string(),
                got: array.data_type().to_string(),
            })
        }
    }
}

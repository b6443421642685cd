//! Rows of Python as Arrow: what a list of changes is handed out as.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray, StructArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use aurora_page::Value;
use aurora_runtime::Error;
use aurora_scan::BatchBuilder;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyList};
use pyo3_arrow::ffi::ArrayIterator;

use crate::errors::Raise;
use crate::table::PyTable;

/// The column that says what became of a row.
const KIND: &str = "_change";
/// Rows of a record batch.
const BATCH_ROWS: usize = 64 << 10;

/// Record batches: hand them to anything that takes an Arrow stream.
#[pyclass(module = "aurora_engine._engine", frozen)]
pub struct Batches {
    schema: Arc<Schema>,
    batches: Vec<RecordBatch>,
}

#[pymethods]
impl Batches {
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(pyo3_arrow::ffi::to_schema_pycapsule(
            py,
            (*self.schema).clone(),
        )?)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let field = Arc::new(Field::new_struct("", self.schema.fields().clone(), false));
        let array = |batch: RecordBatch| Ok(Arc::new(StructArray::from(batch)) as ArrayRef);
        let arrays: Vec<Result<ArrayRef, ArrowError>> =
            self.batches.iter().cloned().map(array).collect();
        let arrays = Box::new(ArrayIterator::new(arrays.into_iter(), field));
        Ok(pyo3_arrow::ffi::to_stream_pycapsule(
            py,
            arrays,
            requested_schema,
        )?)
    }
}

/// Rows of a table, each with what became of it.
pub fn batches(table: &PyTable, kinds: Vec<String>, rows: &Bound<'_, PyList>) -> PyResult<Batches> {
    let py = rows.py();
    let internal =
        |error: &dyn std::fmt::Display| Raise::new(py, "InternalError", error.to_string()).err();
    let table_schema = &table.table.schema;
    let mut builder =
        BatchBuilder::new(table_schema, None, BATCH_ROWS).map_err(|error| internal(&error))?;
    let mut fields = vec![Arc::new(Field::new(KIND, DataType::Utf8, false))];
    fields.extend(builder.schema().fields().iter().cloned());
    let schema = Arc::new(Schema::new(fields));
    let mut done = Vec::new();
    let mut kinds = kinds.into_iter();
    let mut finish = |builder: &mut BatchBuilder| -> PyResult<()> {
        let batch = builder.finish().map_err(|error| internal(&error))?;
        let said: Vec<String> = kinds.by_ref().take(batch.num_rows()).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(said))];
        columns.extend(batch.columns().iter().cloned());
        let batch = RecordBatch::try_new(schema.clone(), columns);
        done.push(batch.map_err(|error| internal(&error))?);
        Ok(())
    };
    for row in rows {
        let values = table.values(&row)?;
        let values: Vec<_> = values.iter().map(Value::as_ref).collect();
        // The values are whole: none lies in overflow pages.
        let mut overflow = |_| Err::<Vec<u8>, Error>(Error::Closed);
        let mut taken = false;
        while !taken {
            taken = builder
                .append_row(&values, &mut overflow)
                .map_err(|error| internal(&format!("{error:?}")))?;
            if !taken {
                finish(&mut builder)?;
            }
        }
    }
    if !builder.is_empty() {
        finish(&mut builder)?;
    }
    Ok(Batches {
        schema,
        batches: done,
    })
}

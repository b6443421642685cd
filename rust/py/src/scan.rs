//! An ordered scan of a table: rows to iterate over, or Arrow record batches.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_schema::{ArrowError, Field, SchemaRef};
use aurora_engine::{Block, Cursor, OverflowReader, RangeSpec, Txn};
use aurora_page::{LeafRef, Lsn, OverflowRef};
use aurora_runtime::{Cluster, Error};
use aurora_scan::{AppendError, BatchBuilder};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::ffi::ArrayIterator;

use crate::db::Db;
use crate::errors::Raise;
use crate::fork::ForkSafe;
use crate::range::{RangeArgs, RowIterator};
use crate::schema::PySchema;
use crate::table::PyTable;
use crate::txn::Core;

/// Rows of a record batch: enough for the consumer's loops to run hot, little enough to stay in its cache.
const BATCH_ROWS: usize = 64 << 10;

/// The rows of a table, or of a range of its keys, as they were when the scan was made. Iterate over it, or hand it to
/// anything that takes an Arrow stream.
#[pyclass(module = "aurora_engine._engine", frozen, generic)]
pub struct Scan {
    core: Arc<Core>,
    table: Py<PyTable>,
    spec: RangeSpec,
}

impl Scan {
    pub fn new(
        py: Python<'_>,
        core: Arc<Core>,
        table: &Bound<'_, PyTable>,
        args: RangeArgs<'_, '_>,
    ) -> PyResult<Scan> {
        let table = core.table(table)?;
        let spec = args.encode(py, table.get())?;
        Ok(Scan {
            core,
            table: table.unbind(),
            spec,
        })
    }
}

#[pymethods]
impl Scan {
    fn __iter__(&self, py: Python<'_>) -> RowIterator {
        RowIterator::of(
            self.core.clone(),
            self.table.clone_ref(py),
            self.spec.clone(),
        )
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        PySchema(Arc::new(self.table.get().table.schema.clone())).to_capsule(py)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let reader = self.reader(py)?;
        let field = Arc::new(Field::new_struct("", reader.schema.fields().clone(), false));
        let arrays = Box::new(ArrayIterator::new(reader, field));
        Ok(pyo3_arrow::ffi::to_stream_pycapsule(
            py,
            arrays,
            requested_schema,
        )?)
    }

    /// How many rows there are.
    fn count(&self, py: Python<'_>) -> PyResult<u64> {
        let mut reader = self.reader(py)?;
        let mut rows = 0;
        while let Some(block) =
            crate::db::interruptible(py, |interrupt| reader.next_block(interrupt))?
        {
            rows += block.len() as u64;
        }
        Ok(rows)
    }

    fn __repr__(&self) -> String {
        format!("<Scan of table {:?}>", self.table.get().table.name)
    }
}

impl Scan {
    fn reader(&self, py: Python<'_>) -> PyResult<BatchReader> {
        let table = &self.table.get().table;
        let builder = BatchBuilder::new(&table.schema, None, BATCH_ROWS)
            .map_err(|error| Raise::new(py, "InternalError", error.to_string()).err())?;
        let (cursor, at) = self.core.step(py, |_, engine, txn: &mut Txn| {
            Ok((engine.range(txn, table, self.spec.clone())?, txn.snapshot()))
        })?;
        Ok(BatchReader {
            db: self.core.db.clone(),
            schema: Arc::new(aurora_scan::to_arrow_schema(&table.schema)),
            cursor: ForkSafe::new(cursor),
            at,
            builder,
            part: None,
            done: false,
        })
    }
}

/// A block of which some rows are already in a batch.
struct Part {
    block: Block,
    taken: usize,
}

/// Reads record batches; needs no interpreter but to look for signals.
struct BatchReader {
    db: Arc<Db>,
    schema: SchemaRef,
    cursor: ForkSafe<Cursor>,
    at: Lsn,
    builder: BatchBuilder,
    part: Option<Part>,
    done: bool,
}

impl BatchReader {
    fn next_block(&mut self, interrupt: &dyn Fn() -> bool) -> Result<Option<Block>, Error> {
        let cluster = self.db.cluster_unattached().ok_or(Error::Closed)?;
        let cursor = self.cursor.get_mut();
        cluster.run(interrupt, |engine| cursor.next_block(engine))
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let interrupt = || Python::attach(|py| py.check_signals().is_err());
        while !self.done && !self.builder.is_full() {
            let part = match self.part.take() {
                Some(part) => part,
                None => match self.next_block(&interrupt).map_err(external)? {
                    Some(block) => Part { block, taken: 0 },
                    None => {
                        self.done = true;
                        break;
                    }
                },
            };
            self.part = self.append(part, &interrupt)?;
        }
        if self.builder.is_empty() {
            return Ok(None);
        }
        self.builder.finish().map(Some).map_err(external)
    }

    /// Appends what fits of a block; gives back what is left of it.
    fn append(
        &mut self,
        mut part: Part,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Option<Part>, ArrowError> {
        let cluster = self
            .db
            .cluster_unattached()
            .ok_or_else(|| external(Error::Closed))?;
        let at = self.at;
        let mut overflow = |reference| read_long(cluster, at, reference, interrupt);
        let taken = if let Some((page, ranks)) = part.block.leaf() {
            let leaf = LeafRef::new(page).map_err(external)?;
            let rest = ranks.start + part.taken..ranks.end;
            self.builder
                .append_leaf(&leaf, rest, &mut overflow)
                .map_err(append_error)?
        } else {
            let rows = part
                .block
                .rows()
                .map_err(|stop| external(StoppedRows(format!("{stop:?}"))))?;
            let mut taken = 0;
            for row in &rows[part.taken..] {
                let values = row
                    .values()
                    .map_err(|stop| external(StoppedRows(format!("{stop:?}"))))?;
                let values: Vec<_> = values.iter().map(aurora_page::Value::as_ref).collect();
                if !self
                    .builder
                    .append_row(&values, &mut overflow)
                    .map_err(append_error)?
                {
                    break;
                }
                taken += 1;
            }
            taken
        };
        part.taken += taken;
        Ok(if part.taken < part.block.len() {
            Some(part)
        } else {
            None
        })
    }
}

fn read_long(
    cluster: &Cluster,
    at: Lsn,
    reference: OverflowRef,
    interrupt: &dyn Fn() -> bool,
) -> Result<Vec<u8>, Error> {
    let mut reader = OverflowReader::new(reference, at);
    cluster.run(interrupt, |engine| engine.read_overflow_on(&mut reader))
}

/// A row of a page that is not what it says.
#[derive(Debug, thiserror::Error)]
#[error("a row could not be read: {0}")]
struct StoppedRows(String);

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

fn append_error(error: AppendError<Error>) -> ArrowError {
    match error {
        AppendError::Rows(error) => external(error),
        AppendError::Overflow(error) => external(error),
    }
}

impl Iterator for BatchReader {
    type Item = Result<ArrayRef, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.next_batch().transpose()?;
        Some(batch.map(|batch| Arc::new(StructArray::from(batch)) as ArrayRef))
    }
}

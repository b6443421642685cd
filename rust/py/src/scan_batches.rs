//! The rows of a scan as record batches, read a block at a time.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use aurora_engine::Block;
use aurora_page::{LeafRef, OverflowRef};
use aurora_runtime::Error;
use aurora_scan::{AppendError, BatchBuilder, Job};
use pyo3::prelude::*;

use crate::blocks::BlockSource;
use crate::txn::Core;

/// A block of which some rows are already in a batch.
struct Part {
    block: Block,
    /// The ranks of a leaf that pass the filter, if there is one.
    passing: Option<Vec<usize>>,
    taken: usize,
}

/// Reads record batches; needs no interpreter but to look for signals.
pub struct BatchReader {
    core: Arc<Core>,
    pub schema: SchemaRef,
    source: BlockSource,
    builder: BatchBuilder,
    /// Filter and projection, if the rows are not wanted as they are.
    job: Option<Arc<Job>>,
    /// Rows that are still wanted.
    left: usize,
    part: Option<Part>,
    done: bool,
}

impl BatchReader {
    /// Reads what the source gives through filter and projection if there is a job, at most `limit` rows.
    pub fn new(
        core: Arc<Core>,
        source: BlockSource,
        (schema, builder): (SchemaRef, BatchBuilder),
        job: Option<Arc<Job>>,
        limit: Option<usize>,
    ) -> BatchReader {
        BatchReader {
            core,
            schema,
            source,
            builder,
            job,
            left: limit.unwrap_or(usize::MAX),
            part: None,
            done: false,
        }
    }

    fn next_block(&mut self, interrupt: &dyn Fn() -> bool) -> Result<Option<Block>, Error> {
        self.source.next(&self.core, interrupt)
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let interrupt = || Python::attach(|py| py.check_signals().is_err());
        while !self.done && !self.builder.is_full() {
            let part = match self.part.take() {
                Some(part) => part,
                None => match self.next_block(&interrupt).map_err(external)? {
                    Some(block) => Part {
                        block,
                        passing: None,
                        taken: 0,
                    },
                    None => {
                        self.done = true;
                        break;
                    }
                },
            };
            self.part = if let Some(job) = self.job.clone() {
                self.append_query(part, &job, &interrupt)?
            } else {
                self.append(part, &interrupt)?
            };
            if self.left == 0 {
                self.done = true;
            }
        }
        if self.builder.is_empty() {
            return Ok(None);
        }
        self.builder.finish().map(Some).map_err(external)
    }

    /// Appends what a query makes of a block, as much as fits; gives back what is left of it.
    fn append_query(
        &mut self,
        mut part: Part,
        job: &Job,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Option<Part>, ArrowError> {
        let cluster = self
            .core
            .db
            .cluster_unattached()
            .ok_or_else(|| external(Error::Closed))?;
        let at = self.source.at();
        let mut long = |reference: OverflowRef| {
            cluster
                .read_long(reference, at, interrupt)
                .map_err(|error| error.to_string())
        };
        let mut fetch = |reference: OverflowRef| cluster.read_long(reference, at, interrupt);
        if let Some((page, ranks)) = part.block.leaf() {
            let leaf = LeafRef::new(page).map_err(external)?;
            if part.passing.is_none() {
                let mut passing = job
                    .passing_ranks(&leaf, ranks, &mut long)
                    .map_err(external)?;
                if part.block.is_reverse() {
                    passing.reverse();
                }
                part.passing = Some(passing);
            }
            let passing = part.passing.as_deref().unwrap_or_default();
            for rank in &passing[part.taken..] {
                if self.left == 0 {
                    return Ok(None);
                }
                let slot = leaf.slot(*rank);
                let row = job
                    .project(&|column| leaf.value(slot, column), &mut long)
                    .map_err(external)?;
                if !append_values(&mut self.builder, &row, &mut fetch)? {
                    break;
                }
                part.taken += 1;
                self.left -= 1;
            }
            let all = part.taken == passing.len();
            return Ok(if all { None } else { Some(part) });
        }
        let rows = part.block.rows().map_err(stopped)?;
        for row in &rows[part.taken..] {
            if self.left == 0 {
                return Ok(None);
            }
            let values = row.values().map_err(stopped)?;
            if job.passes(&values, &mut long).map_err(external)? {
                let row = job
                    .project(&|column| values[column].as_ref(), &mut long)
                    .map_err(external)?;
                if !append_values(&mut self.builder, &row, &mut fetch)? {
                    break;
                }
                self.left -= 1;
            }
            part.taken += 1;
        }
        let all = part.taken == rows.len();
        Ok(if all { None } else { Some(part) })
    }

    /// Appends what fits of a block; gives back what is left of it.
    fn append(
        &mut self,
        mut part: Part,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Option<Part>, ArrowError> {
        let cluster = self
            .core
            .db
            .cluster_unattached()
            .ok_or_else(|| external(Error::Closed))?;
        let at = self.source.at();
        let mut overflow = |reference| cluster.read_long(reference, at, interrupt);
        let taken = if let Some((page, ranks)) = part.block.leaf() {
            let leaf = LeafRef::new(page).map_err(external)?;
            if part.block.is_reverse() {
                let rest = ranks.start..ranks.end - part.taken;
                let slots: Vec<u16> = rest.rev().map(|rank| leaf.slot(rank)).collect();
                self.builder.append_slots(&leaf, &slots, &mut overflow)
            } else {
                let rest = ranks.start + part.taken..ranks.end;
                self.builder.append_leaf(&leaf, rest, &mut overflow)
            }
            .map_err(append_error)?
        } else {
            let rows = part.block.rows().map_err(stopped)?;
            let mut taken = 0;
            for row in &rows[part.taken..] {
                let values = row.values().map_err(stopped)?;
                if !append_values(&mut self.builder, &values, &mut overflow)? {
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

fn append_values(
    builder: &mut BatchBuilder,
    values: &[aurora_page::Value],
    fetch: &mut dyn FnMut(OverflowRef) -> Result<Vec<u8>, Error>,
) -> Result<bool, ArrowError> {
    let values: Vec<_> = values.iter().map(aurora_page::Value::as_ref).collect();
    builder.append_row(&values, fetch).map_err(append_error)
}

/// A row of a page that is not what it says.
#[derive(Debug, thiserror::Error)]
#[error("a row could not be read: {0}")]
struct StoppedRows(String);

fn stopped(stop: aurora_engine::Stop) -> ArrowError {
    external(StoppedRows(format!("{stop:?}")))
}

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
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

//! What gives a scan its rows: a table in the order of its key, or in that of an index.

use aurora_engine::{Block, Cursor, IndexCursor};
use aurora_page::Lsn;
use aurora_runtime::Error;

use crate::fork::ForkSafe;
use crate::txn::Core;

enum Source {
    Table(Cursor),
    Index(Box<IndexCursor>),
}

/// Blocks of rows, each with the read point that it is of. It needs no interpreter.
pub struct BlockSource {
    source: ForkSafe<Source>,
    at: Lsn,
}

impl BlockSource {
    /// The rows of a table, as of a read point.
    pub fn table(cursor: Cursor, at: Lsn) -> BlockSource {
        let source = ForkSafe::new(Source::Table(cursor));
        BlockSource { source, at }
    }

    /// The rows in the order of an index. Its transaction or view must be open as long as they are read.
    pub fn index(cursor: IndexCursor, at: Lsn) -> BlockSource {
        let source = ForkSafe::new(Source::Index(Box::new(cursor)));
        BlockSource { source, at }
    }

    /// Where the last rows were read.
    pub fn at(&self) -> Lsn {
        self.at
    }

    /// The next rows; `None` at the end.
    pub fn next(
        &mut self,
        core: &Core,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Option<Block>, Error> {
        match self.source.get_mut() {
            Source::Table(cursor) => {
                core.run_unattached(interrupt, |engine| cursor.next_block(engine))
            }
            Source::Index(cursor) => {
                let next = core.run_within(interrupt, |engine, txn| {
                    let block = cursor.next_block(engine, txn)?;
                    Ok(block.map(|block| (block, txn.snapshot())))
                })?;
                Ok(next.map(|(block, at)| {
                    self.at = at;
                    block
                }))
            }
        }
    }
}

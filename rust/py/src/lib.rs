//! The Python binding of aurora-engine, and nothing else: it extracts arguments, calls, and wraps results.
//!
//! - An operation is tried once with the interpreter attached; only when it must wait (a page, a durable commit) is
//!   the interpreter given free, and Ctrl-C ends that wait.
//! - A row's Python objects are made straight from the page's columns, without values in between.
//! - No lock is waited for while the interpreter is attached, if its holder may want the interpreter.
//! - Errors are the classes of `aurora_engine.exceptions`, with what they say as attributes.
//! - A fork is refused: checked at every call, silent in destructors.
//!
//! | module | idea |
//! |---|---|
//! | `backup` | where backups go, and clusters that begin with one |
//! | `history`, `batches` | moments: backtrack, snapshots, the window |
//! | `cluster`, `instance`, `table`, `transaction`, `savepoint`, `view`, `range`, `filter` | the classes that Python sees |
//! | `index` | indexes: handles, look-ups, ranges, builds |
//! | `scan`, `query`, `group_by`, `load` | classes for many rows |
//! | `aio`, `pending`, `in_flight`, `ready` | the same for event loops |
//! | `txn`, `ops`, `many`, `waiting` | what transactions do, written once for both |
//! | `db`, `lock`, `fork` | trying, waiting, signals, forks |
//! | `shape`, `input`, `to_py`, `from_py`, `pytypes`, `schema`, `expr`, `expr_functions` | rows, values and keys across the border |
//! | `alter`, `definition` | tables whose columns change |
//! | `errors`, `failure`, `status`, `commit` | what is reported |

mod aio;
mod alter;
mod backup;
mod batches;
mod cluster;
mod commit;
mod db;
mod definition;
mod errors;
mod expr;
mod expr_functions;
mod failure;
mod faults;
mod filter;
mod fork;
mod from_py;
mod group_by;
mod history;
mod in_flight;
mod index;
mod input;
mod instance;
mod load;
mod lock;
mod many;
mod ops;
mod pending;
mod pytypes;
mod query;
mod range;
mod ready;
mod savepoint;
mod scan;
mod scan_batches;
mod schema;
mod shape;
mod statistics;
mod status;
mod table;
mod to_py;
mod transaction;
mod txn;
mod view;
mod waiting;

use mimalloc::MiMalloc;
use pyo3::prelude::*;

/// Page versions come and go by the commit, 32 KiB each: the C library's allocator gives such memory back to the system and takes
/// it again, zeroed, every time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The compiled part of aurora_engine.
#[pymodule]
mod _engine {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::aio::{Aio, AsyncRowIterator, AsyncTransaction};
    #[pymodule_export]
    use super::alter::{
        add_column, drop_column, rename_column, rename_table, truncate, widen_column,
    };
    #[pymodule_export]
    use super::backup::{backups, explain_restore};
    #[pymodule_export]
    use super::batches::Batches;
    #[pymodule_export]
    use super::cluster::Cluster;
    #[pymodule_export]
    use super::commit::PyCommit;
    #[pymodule_export]
    use super::expr::{_case, Agg, Expr, coalesce, col, count, lit};
    #[pymodule_export]
    use super::expr_functions::{TextFunctions, TimeFunctions};
    #[pymodule_export]
    use super::faults::Faults;
    #[pymodule_export]
    use super::group_by::GroupBy;
    #[pymodule_export]
    use super::index::{PyIndex, create_index, drop_index};
    #[pymodule_export]
    use super::instance::Instance;
    #[pymodule_export]
    use super::range::RowIterator;
    #[pymodule_export]
    use super::ready::Ready;
    #[pymodule_export]
    use super::savepoint::{AsyncSavepoint, Savepoint};
    #[pymodule_export]
    use super::scan::Scan;
    #[pymodule_export]
    use super::schema::PySchema;
    #[pymodule_export]
    use super::statistics::{analyze, statistics};
    #[pymodule_export]
    use super::table::PyTable;
    #[pymodule_export]
    use super::transaction::Transaction;
    #[pymodule_export]
    use super::view::View;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::fork::watch();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

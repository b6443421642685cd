//! The errors of runtime and engine as Python exceptions: which class, and which attributes.

use aurora_engine::{EngineError, LockName, WaitsFor};
use aurora_page::{EvolveError, KeyError, Lsn, ValueError};
use aurora_proto::Refused;
use aurora_runtime::Error;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use crate::errors::Raise;

/// An error of the cluster.
pub fn raise(py: Python<'_>, error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        // The signal's own exception is pending; this stands in for it if it was cleared.
        Error::Interrupted => PyErr::take(py).unwrap_or_else(|| PyKeyboardInterrupt::new_err(())),
        Error::Engine(error) => raise_engine(py, &error),
        Error::InvalidOption {
            option: "region",
            expected,
            got,
        } => Raise::new(py, "RegionMismatch", message)
            .with("expected", expected)
            .with("got", got)
            .err(),
        Error::InvalidOption {
            option,
            expected,
            got,
        } => Raise::new(py, "InvalidOption", message)
            .with("option", option)
            .with("expected", expected)
            .with("got", got)
            .err(),
        Error::AlreadyOpen { path, pid } => Raise::new(py, "AlreadyOpen", message)
            .with("path", path.display().to_string())
            .with("pid", pid)
            .err(),
        Error::NotACluster {
            path,
            expected,
            got,
        } => Raise::new(py, "NotACluster", message)
            .with("path", path.display().to_string())
            .with("expected", expected)
            .with("got", got)
            .err(),
        Error::NewerFormat {
            path,
            expected,
            got,
        } => Raise::new(py, "NewerFormat", message)
            .with("path", path.display().to_string())
            .with("expected", expected)
            .with("got", got)
            .err(),
        Error::QuorumLost {
            have,
            of,
            need,
            missing,
            hint,
        } => Raise::new(py, "QuorumLost", message)
            .with("have", have)
            .with("of", of)
            .with("need", need)
            .with("missing", missing)
            .with("hint", hint)
            .err(),
        Error::ReadOnly { reason } => Raise::new(py, "ReadOnlyCluster", message)
            .with("reason", reason)
            .err(),
        Error::DiskFull { path } => Raise::new(py, "DiskFull", message)
            .with("path", path.display().to_string())
            .err(),
        Error::Io { path, .. } => Raise::new(py, "DiskFailed", message)
            .with("path", path.display().to_string())
            .err(),
        Error::Corrupt { .. } => Raise::new(py, "Corrupt", message).err(),
        Error::Fenced { by } => Raise::new(py, "Fenced", message).with("by", by).err(),
        Error::LogFailed { .. } => Raise::new(py, "LogFailed", message).err(),
        Error::OutsideWindow {
            what,
            expected,
            got,
        } => Raise::new(py, "OutsideWindow", message)
            .with("what", what)
            .with("expected", expected)
            .with("got", got)
            .err(),
        Error::UnknownSnapshot { name } => Raise::new(py, "UnknownSnapshot", message)
            .with("name", name)
            .err(),
        Error::SnapshotExists { name } => Raise::new(py, "SnapshotExists", message)
            .with("name", name)
            .err(),
        Error::VolumeFull { bytes_max } => Raise::new(py, "VolumeFull", message)
            .with("bytes_max", bytes_max)
            .err(),
        Error::ReplicaLag {
            instance,
            expected,
            got,
        } => Raise::new(py, "ReplicaLag", message)
            .with("instance", instance)
            .with("expected", expected.0)
            .with("got", got.0)
            .err(),
        Error::InstanceGone { instance } => Raise::new(py, "InstanceGone", message)
            .with("instance", instance)
            .err(),
        Error::UnknownInstance { instance, there } => Raise::new(py, "UnknownInstance", message)
            .with("instance", instance)
            .with("there", there)
            .err(),
        Error::WriterCrashed => Raise::new(py, "WriterMoved", message)
            .with("writer", py.None())
            .err(),
        Error::Backup { url, .. } => Raise::new(py, "BackupFailed", message)
            .with("url", url)
            .err(),
        Error::Closed => Raise::new(py, "ClusterClosed", message).err(),
    }
}

/// A commit that was numbered and whose durability could not be learnt.
pub fn commit_unknown(py: Python<'_>, lsn: Lsn, token: Option<&str>, cause: Error) -> PyErr {
    if matches!(cause, Error::Interrupted) {
        return raise(py, cause);
    }
    let advice = match token {
        Some(token) => format!("ask db.committed({token:?}) once the cluster is open again"),
        None => "read back what it wrote, or use tokens".to_owned(),
    };
    let message = format!("commit {lsn} was not confirmed durable ({cause}): {advice}");
    let error = Raise::new(py, "CommitUnknown", message)
        .with("lsn", lsn.0)
        .with("token", token)
        .err();
    error.set_cause(py, Some(raise(py, cause)));
    error
}

/// An error of the engine.
pub fn raise_engine(py: Python<'_>, error: &EngineError) -> PyErr {
    let message = error.to_string();
    let new = |class| Raise::new(py, class, message.clone());
    match error {
        EngineError::WriteConflict {
            table,
            key,
            snapshot,
            by,
        } => new("WriteConflict")
            .with("table", table)
            .with("key", key)
            .with("snapshot", snapshot.0)
            .with("by", by.0)
            .err(),
        EngineError::Branched { at } => new("HistoryChanged").with("lsn", at.0).err(),
        EngineError::SerializationFailure {
            table,
            what,
            snapshot,
            by,
        } => new("SerializationFailure")
            .with("table", table)
            .with("what", what)
            .with("snapshot", snapshot.0)
            .with("by", by.0)
            .err(),
        EngineError::Deadlock { cycle } => {
            let edge = |edge: &WaitsFor| {
                let LockName { table, key } = &edge.lock;
                (edge.txn.0, table.clone(), key.clone(), edge.holder.0)
            };
            let cycle: Vec<_> = cycle.iter().map(edge).collect();
            new("Deadlock").with("cycle", cycle).err()
        }
        EngineError::LockNotAvailable { table, key, holder } => new("LockNotAvailable")
            .with("table", table)
            .with("key", key)
            .with("holder", holder.0)
            .err(),
        EngineError::LockTimeout {
            table,
            key,
            holder,
            waited_ms,
        } => new("LockTimeout")
            .with("table", table)
            .with("key", key)
            .with("holder", holder.0)
            .with("waited_s", *waited_ms as f64 / 1000.0)
            .err(),
        EngineError::SnapshotTooOld { snapshot, floor } => new("SnapshotTooOld")
            .with("snapshot", snapshot.0)
            .with("floor", floor.0)
            .err(),
        EngineError::WriterMoved { writer, .. } => {
            new("WriterMoved").with("writer", writer.clone()).err()
        }
        EngineError::ReadOnlyInstance { writer } => {
            new("ReadOnlyInstance").with("writer", writer).err()
        }
        EngineError::SchemaChanged { table, since, by } => new("SchemaChanged")
            .with("table", table)
            .with("since", since.0)
            .with("by", by.0)
            .err(),
        EngineError::Alter { table, source } => raise_alter(py, &message, table, source),
        EngineError::ColumnInUse { table, column, by } => new("SchemaError")
            .with("table", table)
            .with("column", column)
            .with("got", by)
            .err(),
        EngineError::InitialsTooLarge { table, .. } => {
            new("SchemaError").with("table", table).err()
        }
        EngineError::LoadConflict { table } => new("LoadConflict").with("table", table).err(),
        EngineError::DuplicateKey {
            table,
            index,
            key,
            seen,
        } => new("DuplicateKey")
            .with("table", table)
            .with("index", index.as_deref())
            .with("key", key)
            .with("seen", seen.0)
            .err(),
        EngineError::UnknownTable { table, .. } => new("UnknownTable").with("table", table).err(),
        EngineError::TableDropped { table, dropped } => new("TableDropped")
            .with("table", table)
            .with("dropped", dropped.0)
            .err(),
        EngineError::UnknownSavepoint { name } => new("UnknownSavepoint").with("name", name).err(),
        EngineError::TableExists { table } => new("TableExists").with("table", table).err(),
        EngineError::TableDiffers { table, difference } => new("SchemaMismatch")
            .with("table", table)
            .with("got", difference)
            .err(),
        EngineError::TableName { expected, got } => new("InvalidOption")
            .with("option", "name")
            .with("expected", expected)
            .with("got", got)
            .err(),
        EngineError::Schema { table, .. } | EngineError::SchemaTooWide { table, .. } => {
            new("SchemaError").with("table", table).err()
        }
        EngineError::Value { source, .. } => raise_value(py, &message, source),
        EngineError::Key { source, .. } => raise_key(py, &message, source),
        EngineError::IndexKey {
            table,
            index,
            source,
        } => match &**source {
            KeyError::TooLong { got } => new("KeyTooLong")
                .with("table", table)
                .with("index", index)
                .with("limit", aurora_page::KEY_BYTES_MAX)
                .with("got", got.to_string())
                .err(),
            source => raise_key(py, &message, source),
        },
        EngineError::UnknownIndex { table, index, .. } => new("UnknownIndex")
            .with("table", table)
            .with("index", index)
            .err(),
        EngineError::IndexExists { table, index } => new("IndexExists")
            .with("table", table)
            .with("index", index)
            .err(),
        EngineError::IndexSpec {
            table,
            index,
            expected,
            got,
        } => new("SchemaError")
            .with("table", table)
            .with("index", index)
            .with("expected", expected)
            .with("got", got)
            .err(),
        EngineError::CheckViolation {
            table,
            constraint,
            key,
            expected,
            got,
        } => new("CheckViolation")
            .with("table", table)
            .with("constraint", constraint)
            .with("key", key)
            .with("expected", &**expected)
            .with("got", &**got)
            .err(),
        EngineError::ParentMissing {
            table,
            constraint,
            parent,
            key,
        } => new("ForeignKeyViolation")
            .with("table", table)
            .with("constraint", constraint)
            .with("parent", parent)
            .with("key", key)
            .with("expected", "a row with this key in the parent")
            .with("got", "none")
            .err(),
        EngineError::ParentReferenced {
            table,
            constraint,
            parent,
            key,
        } => new("ForeignKeyViolation")
            .with("table", table)
            .with("constraint", constraint)
            .with("parent", parent)
            .with("key", key)
            .with("expected", "no row that refers to this key of the parent")
            .with("got", "one")
            .err(),
        EngineError::TableReferenced { table, by } => new("TableReferenced")
            .with("table", table)
            .with("by", by)
            .err(),
        EngineError::ConstraintSpec {
            table,
            constraint,
            expected,
            got,
        } => new("SchemaError")
            .with("table", table)
            .with("constraint", constraint)
            .with("expected", &**expected)
            .with("got", &**got)
            .err(),
        EngineError::AutoIncrementEnd {
            table,
            column,
            last,
        } => new("ValueOutOfRange")
            .with("table", table)
            .with("column", column)
            .with("expected", format!("a number after {last}"))
            .with("got", "none")
            .err(),
        EngineError::IndexNotUnique { table, index } => new("InvalidOption")
            .with("option", "index")
            .with("table", table)
            .with("index", index)
            .with("expected", "a unique index")
            .with("got", "one that is not unique")
            .err(),
        EngineError::LoadIndexed { table, index } => new("TableIndexed")
            .with("table", table)
            .with("index", index)
            .err(),
        EngineError::UnknownColumn { table, .. } => new("UnknownColumn").with("table", table).err(),
        EngineError::KeyColumn { table, column } => new("KeyUpdate")
            .with("table", table)
            .with("column", column)
            .err(),
        EngineError::ValueTooLarge {
            column, limit, got, ..
        } => new("RowTooLarge")
            .with("column", column)
            .with("limit", limit)
            .with("got", got.to_string())
            .err(),
        EngineError::RowTooLarge { limit, got, .. } => new("RowTooLarge")
            .with("limit", limit)
            .with("got", got.to_string())
            .err(),
        EngineError::TransactionTooLarge { what, limit, got } => new("TransactionTooLarge")
            .with("what", what)
            .with("limit", limit)
            .with("got", got)
            .err(),
        EngineError::ReadOnlyTransaction { .. } => new("ReadOnlyTransaction").err(),
        EngineError::TransactionClosed { .. } => new("TransactionClosed").err(),
        EngineError::Token { limit, got } => new("InvalidOption")
            .with("option", "token")
            .with("expected", format!("1 to {limit} bytes"))
            .with("got", got)
            .err(),
        EngineError::TokenUsed { token, time_us, .. } => {
            let zoned = aurora_page::DataType::Timestamp { zoned: true };
            match crate::to_py::timestamp_to_py(py, *time_us, zoned) {
                Ok(time) => {
                    let message = format!(
                        "commit token {token:?}: expected an unused one, got one that was committed at {time}"
                    );
                    Raise::new(py, "TokenUsed", message)
                        .with("token", token)
                        .with("time", time)
                        .err()
                }
                Err(error) => error,
            }
        }
        EngineError::TableNotEmpty { table } => new("TableNotEmpty").with("table", table).err(),
        EngineError::LoadDuplicate {
            table, key, row, ..
        } => new("DuplicateKey")
            .with("table", table)
            .with("key", key)
            .with("row", row)
            .err(),
        EngineError::LoadOrder { table, last, got } => new("LoadOrder")
            .with("table", table)
            .with("last", last)
            .with("got", got)
            .err(),
        EngineError::LoadStep { .. } => new("InternalError").err(),
        EngineError::Volume(refused) => raise_refused(py, &message, refused),
        EngineError::Page(_)
        | EngineError::Redo(_)
        | EngineError::Definition { .. }
        | EngineError::Corrupt { .. } => new("Corrupt").err(),
    }
}

fn raise_alter(py: Python<'_>, message: &str, table: &str, error: &EvolveError) -> PyErr {
    let new = |class| Raise::new(py, class, message).with("table", table);
    match error {
        EvolveError::UnknownColumn { columns, got } => new("UnknownColumn")
            .with("column", got)
            .with("expected", columns)
            .with("got", got)
            .err(),
        EvolveError::Initial(error) => raise_value(py, message, error),
        EvolveError::InKey { column, .. } | EvolveError::NoInitial { column } => {
            new("SchemaError").with("column", column).err()
        }
        EvolveError::NotWider { column, have, got } => new("SchemaError")
            .with("column", column)
            .with("expected", format!("a type that holds every {have}"))
            .with("got", got.to_string())
            .err(),
        EvolveError::Ids { .. } | EvolveError::Schema(_) => new("SchemaError").err(),
    }
}

fn raise_value(py: Python<'_>, message: &str, error: &ValueError) -> PyErr {
    match error {
        ValueError::Count { expected, got } => Raise::new(py, "TypeMismatch", message)
            .with("expected", format!("{expected} values"))
            .with("got", got.to_string())
            .err(),
        ValueError::Mismatch {
            column,
            expected,
            got,
        } => Raise::new(py, "ValueOutOfRange", message)
            .with("column", column)
            .with("expected", expected)
            .with("got", got)
            .err(),
    }
}

/// An error of a key.
pub fn raise_key(py: Python<'_>, message: &str, error: &KeyError) -> PyErr {
    match error {
        KeyError::TooLong { got } => Raise::new(py, "KeyTooLong", message)
            .with("limit", aurora_page::KEY_BYTES_MAX)
            .with("got", got.to_string())
            .err(),
        KeyError::Value(error) => raise_value(py, message, error),
        KeyError::Overflow { column, .. } => Raise::new(py, "KeyTooLong", message)
            .with("column", column)
            .with("limit", aurora_page::KEY_BYTES_MAX)
            .err(),
        KeyError::Count { expected, got } => Raise::new(py, "TypeMismatch", message)
            .with("expected", format!("at most {expected} key values"))
            .with("got", got.to_string())
            .err(),
        KeyError::Encoding { .. } => Raise::new(py, "Corrupt", message).err(),
    }
}

fn raise_refused(py: Python<'_>, message: &str, refused: &Refused) -> PyErr {
    match refused {
        Refused::BackPressure { .. } => Raise::new(py, "BackPressure", message).err(),
        Refused::Fenced { by, .. } => Raise::new(py, "Fenced", message).with("by", by).err(),
        Refused::QuorumLost { missing } => Raise::new(py, "QuorumLost", message)
            .with("missing", vec![missing.to_string()])
            .err(),
        Refused::Branching => Raise::new(py, "HistoryChanged", message)
            .with("lsn", py.None())
            .err(),
        Refused::NeedSegment => Raise::new(py, "InternalError", message).err(),
    }
}

//! What clients do to a database in a world, and what they check.
//!
//! Each workload is a setup, clients that run until the world's end, and a last look when everything has come to rest. What
//! must hold is written at the top of each module.

mod append;
mod bank;
mod ddl;
mod graph;
mod indexes;
mod large;
mod load;
mod register;
mod replicas;
mod ring;
mod snapshots;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use aurora_engine::{Isolation, LockWaiting, Mode, RangeSpec, Table, TableSpec, Txn};
use aurora_page::{Column, DataType, KeyPart, Schema, Value};

use crate::session::{Client, Fail, Hub, Session, Task};

pub use graph::{Found, History, Transaction};

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// Rows that point to each other in a ring.
    Ring,
    /// Accounts with a constant sum.
    Bank,
    /// Lists that are appended to; cycles in what saw what.
    Append,
    /// Counters whose increments carry tokens.
    Register,
    /// Values of many pages, and growth through many segments.
    Large,
    /// Tables that come and go while rows are written.
    Ddl,
    /// Snapshots that stay open while versions are collected.
    Snapshots,
    /// A table and its indexes, of which one is built and dropped under load.
    Indexes,
    /// Bulk loads that are interrupted, given up, and met by changes.
    Load,
    /// Replicas that are read, and take the writer's place.
    Replicas,
}

impl Workload {
    /// All of them.
    pub const ALL: [Workload; 10] = [
        Workload::Ring,
        Workload::Bank,
        Workload::Append,
        Workload::Register,
        Workload::Large,
        Workload::Ddl,
        Workload::Snapshots,
        Workload::Indexes,
        Workload::Load,
        Workload::Replicas,
    ];

    /// The setup first, then the clients.
    pub(crate) fn start(self, hub: &Rc<Hub>) -> Vec<Task> {
        match self {
            Workload::Ring => ring::start(hub),
            Workload::Bank => bank::start(hub),
            Workload::Append => append::start(hub),
            Workload::Register => register::start(hub),
            Workload::Large => large::start(hub),
            Workload::Ddl => ddl::start(hub),
            Workload::Snapshots => snapshots::start(hub),
            Workload::Indexes => indexes::start(hub),
            Workload::Load => load::start(hub),
            Workload::Replicas => replicas::start(hub),
        }
    }
}

/// A client that begins once the setup is done, and does its work until the world ends.
fn client<F: Future<Output = ()> + 'static>(
    hub: &Rc<Hub>,
    number: u32,
    work: impl Fn(Client) -> F + 'static,
) -> Task {
    let client = Client {
        hub: hub.clone(),
        number,
    };
    Box::pin(async move {
        client.when_ready().await;
        while !client.ending() {
            work(client.clone()).await;
            client.pause(5_000, 150_000).await;
        }
    })
}

/// The first client: makes what the others need, and waits for the end to look at everything once more.
fn first<
    F: Future<Output = Result<(), Fail>> + 'static,
    G: Future<Output = Result<(), Fail>> + 'static,
>(
    hub: &Rc<Hub>,
    setup: impl Fn(Client, Rc<Session>) -> F + 'static,
    verify: impl Fn(Client, Rc<Session>) -> G + 'static,
) -> Task {
    let client = Client {
        hub: hub.clone(),
        number: 0,
    };
    Box::pin(async move {
        loop {
            let session = client.session().await;
            let done = async {
                let now = client.now_us(&session);
                if let Some(commit) = client
                    .step(&session, |engine| engine.bootstrap(now))
                    .await?
                {
                    client.durable(&session, commit.lsn).await?;
                }
                setup(client.clone(), session.clone()).await
            };
            match done.await {
                Ok(()) => break,
                Err(Fail::Refused(error)) => {
                    return client.fail(format!("the setup is refused: {error}"));
                }
                Err(_) => client.sleep(30_000).await,
            }
        }
        client.note(format_args!("the setup is done"));
        if let Some(session) = &*client.hub.newest.borrow() {
            client.hub.ready_at.set(session.engine().published());
        }
        client.hub.ready.set(true);
        while !client.hub.verified.get() {
            client.sleep(200_000).await;
            if !client.ending() || !client.hub.rested.get() {
                continue;
            }
            let session = client.session().await;
            let done = async {
                verify(client.clone(), session.clone()).await?;
                list_extents(&client, &session).await
            };
            match done.await {
                Ok(()) => client.hub.verified.set(true),
                Err(Fail::Refused(error)) => {
                    return client.fail(format!("the last look is refused: {error}"));
                }
                Err(_) => {}
            }
        }
    })
}

/// What the catalogue says, for the check of the whole volume.
async fn list_extents(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    while client
        .step(session, |engine| engine.sweep(client.now_us(session)))
        .await?
    {}
    let at = session.engine().published();
    client.durable(session, at).await?;
    let tables = client.step(session, |engine| engine.tables(at)).await?;
    let mut listed = Vec::new();
    for table in tables {
        let trees = table.indexes.iter().map(|index| index.tree.clone());
        for tree in std::iter::once(table.clone()).chain(trees) {
            let runs = client
                .step(session, |engine| engine.extents_of(&tree, at))
                .await?;
            listed.push((tree, runs));
        }
    }
    *client.hub.tables.borrow_mut() = listed;
    Ok(())
}

/// `id int64` is the key; the other columns follow.
fn schema(columns: &[(&str, DataType)]) -> Schema {
    let column = |id: usize, name: &str, data_type| Column {
        id: id as u16,
        name: name.to_owned(),
        data_type,
        nullable: false,
    };
    let others = columns
        .iter()
        .enumerate()
        .map(|(index, (name, data_type))| column(index + 1, name, *data_type));
    let all = std::iter::once(column(0, "id", DataType::Int64)).chain(others);
    let key = vec![KeyPart {
        column: 0,
        descending: false,
    }];
    Schema::new(1, all.collect(), key).expect("a valid schema")
}

/// Makes a table, or finds it.
async fn make_table(
    client: &Client,
    session: &Rc<Session>,
    name: &str,
    schema: Schema,
) -> Result<Arc<Table>, Fail> {
    make_table_with(client, session, name, TableSpec::new(schema)).await
}

/// The same with indexes.
async fn make_table_with(
    client: &Client,
    session: &Rc<Session>,
    name: &str,
    spec: TableSpec,
) -> Result<Arc<Table>, Fail> {
    let (table, commit) = client
        .step(session, |engine| {
            engine.create_table_with(name, &spec, true, client.now_us(session))
        })
        .await?;
    if let Some(commit) = commit {
        client.acknowledged(session, commit).await?;
    }
    Ok(table)
}

/// A table that must be there.
async fn table(
    client: &Client,
    session: &Rc<Session>,
    txn: &Txn,
    name: &str,
) -> Result<Arc<Table>, Fail> {
    let found = client
        .step(session, |engine| engine.table_in(txn, name))
        .await?;
    if found.is_none() {
        let at = txn.snapshot();
        client.fail(format!("[10] table {name} is not there at {at}"));
    }
    found.ok_or(Fail::Gone)
}

/// One row.
async fn get(
    client: &Client,
    session: &Rc<Session>,
    txn: &Txn,
    table: &Arc<Table>,
    id: i64,
) -> Result<Option<Vec<Value>>, Fail> {
    let key = table.key(&[Value::Int(id)]).map_err(Fail::Refused)?;
    client
        .step(session, |engine| {
            let row = engine.get(txn, table, &key)?;
            row.map(|row| row.values()).transpose()
        })
        .await
}

/// A level of isolation for a transaction that reads rows with [`get_to_change`] before it changes them: each keeps what it
/// has read so.
fn level(client: &Client) -> Isolation {
    match client.below(4) {
        0 => Isolation::ReadCommitted,
        1 => Isolation::Serializable,
        _ => Isolation::Snapshot,
    }
}

/// One row that is to be changed by what is in it. Where nothing else would notice that somebody changes it meanwhile, and at
/// other levels now and then, it is locked before it is read.
async fn get_to_change(
    client: &Client,
    session: &Rc<Session>,
    txn: &mut Txn,
    table: &Arc<Table>,
    id: i64,
) -> Result<Option<Vec<Value>>, Fail> {
    if txn.isolation() != Isolation::ReadCommitted && client.chance(700) {
        return get(client, session, txn, table, id).await;
    }
    let key = table.key(&[Value::Int(id)]).map_err(Fail::Refused)?;
    let waiting = match client.chance(100) {
        true => LockWaiting::NoWait,
        false => LockWaiting::Wait,
    };
    if session.alive.get() {
        session.engine().begin_statement(txn);
    }
    client
        .step(session, |engine| {
            let row = engine.get_for_update(txn, table, &key, waiting)?;
            row.map(|row| row.values()).transpose()
        })
        .await
}

/// All rows.
async fn rows(
    client: &Client,
    session: &Rc<Session>,
    txn: &Txn,
    table: &Arc<Table>,
) -> Result<Vec<Vec<Value>>, Fail> {
    let mut cursor = client
        .step(session, |engine| {
            engine.range(txn, table, RangeSpec::default())
        })
        .await?;
    let mut all = Vec::new();
    loop {
        let block = client
            .step(session, |engine| match cursor.next_block(engine)? {
                Some(block) => {
                    let rows = block.rows()?;
                    rows.iter()
                        .map(|row| row.values())
                        .collect::<Result<Vec<_>, _>>()
                        .map(Some)
                }
                None => Ok(None),
            })
            .await?;
        let Some(block) = block else { break };
        all.extend(block);
    }
    client.hub.reads.set(client.hub.reads.get() + 1);
    Ok(all)
}

/// All rows, by way of an index.
async fn rows_by_index(
    client: &Client,
    session: &Rc<Session>,
    txn: &Txn,
    table: &Arc<Table>,
) -> Result<Vec<Vec<Value>>, Fail> {
    let Some(index) = table.indexes.first().cloned() else {
        client.fail(format!("[10] an index of table {} is gone", table.name));
        return Err(Fail::Gone);
    };
    let mut cursor = client
        .step(session, |engine| {
            engine.index_range(txn, table, &index, RangeSpec::default())
        })
        .await?;
    let mut all = Vec::new();
    loop {
        let block = client
            .step(session, |engine| match cursor.next_rows(engine, txn)? {
                Some(rows) => {
                    let values = rows.iter().map(|row| row.values());
                    values.collect::<Result<Vec<_>, _>>().map(Some)
                }
                None => Ok(None),
            })
            .await?;
        let Some(block) = block else { break };
        all.extend(block);
    }
    Ok(all)
}

/// Changes one column of one row.
async fn set(
    client: &Client,
    session: &Rc<Session>,
    txn: &mut Txn,
    table: &Arc<Table>,
    id: i64,
    value: Value,
) -> Result<bool, Fail> {
    let key = table.key(&[Value::Int(id)]).map_err(Fail::Refused)?;
    client
        .step(session, |engine| {
            engine.update(txn, table, &key, vec![(1, value.clone())])
        })
        .await
}

/// An integer of a row.
fn int(row: &[Value], column: usize) -> i64 {
    match row.get(column) {
        Some(Value::Int(n)) => *n,
        _ => i64::MIN,
    }
}

/// Reads of the present: at the durable point, or at the newest numbered with a commit that waits for it.
fn read_mode(client: &Client) -> Mode {
    match client.chance(500) {
        true => Mode::ReadWrite,
        false => Mode::ReadOnly { at: None },
    }
}

//! A table whose rows come, change and go, with a unique index, and another one that is built and dropped meanwhile. At every
//! snapshot an index that can be read has the table's rows, no fewer and no others, and no two rows share a unique value; a
//! transaction sees its own changes in both.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use aurora_engine::{EngineError, IndexSpec, Isolation, Mode, RangeSpec, Table, TableSpec, Txn};
use aurora_page::{DataType, Value};

use super::{client, first, int, level, make_table_with, read_mode, rows, schema, table};
use crate::session::{Client, Fail, Hub, Session, Task};

/// Keys in use, and values that may be in only one row each.
const KEYS: u64 = 400;
const TAGS: u64 = 2_000;
const OWNERS: u64 = 6;

const UNIQUE: &str = "by_tag";
const BUILT: &str = "by_owner";

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let verify = |client: Client, session: Rc<Session>| async move {
        let txn = client.begin(&session, Mode::ReadWrite).await?;
        look(&client, &session, &txn).await.map(drop)
    };
    let mut tasks = vec![first(hub, setup, verify)];
    for number in 1..=4 {
        tasks.push(client(hub, number, move |client| async move {
            let session = client.session().await;
            let done = match client.chance(200) {
                true => read(&client, &session).await,
                false => write(&client, &session).await,
            };
            allow(&client, done);
        }));
    }
    tasks.push(client(hub, 5, |client| async move {
        let session = client.session().await;
        let built = build(&client, &session).await;
        allow(&client, built);
        client.pause(50_000, 3_000_000).await;
    }));
    tasks
}

/// What clients must reckon with: two want one value, and the index that is built comes and goes.
fn allow(client: &Client, done: Result<(), Fail>) {
    match done {
        Err(Fail::Refused(EngineError::DuplicateKey { index, .. })) if index.is_some() => {}
        Err(Fail::Refused(EngineError::UnknownIndex { index, .. })) if index == BUILT => {}
        Err(Fail::Refused(error)) => client.fail(format!("indexes: refused: {error}")),
        _ => {}
    }
}

fn index(name: &str, columns: &[(u16, bool)], unique: bool) -> IndexSpec {
    IndexSpec::by(name, columns, unique)
}

async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    let columns = [("owner", DataType::Int64), ("tag", DataType::Int64)];
    let spec = TableSpec {
        indexes: vec![index(UNIQUE, &[(2, false)], true)],
        ..TableSpec::new(schema(&columns))
    };
    make_table_with(&client, &session, "items", spec)
        .await
        .map(drop)
}

/// A few rows are written over, changed in part, or deleted.
async fn write(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    let mut txn = client.begin_isolated(session, level(client)).await?;
    let items = table(client, session, &txn, "items").await?;
    for _ in 0..client.between(1, 12) {
        let id = client.below(KEYS) as i64;
        let owner = Value::Int(client.below(OWNERS) as i64);
        let tag = Value::Int(client.below(TAGS) as i64);
        let key = items.key(&[Value::Int(id)]).map_err(Fail::Refused)?;
        let what = client.below(10);
        client
            .step(session, |engine| match what {
                0..2 => engine.delete(&mut txn, &items, &key).map(drop),
                2..4 => {
                    let changes = vec![(1, owner.clone())];
                    engine.update(&mut txn, &items, &key, changes).map(drop)
                }
                4..6 => {
                    let changes = vec![(1, owner.clone()), (2, tag.clone())];
                    engine.update(&mut txn, &items, &key, changes).map(drop)
                }
                _ => {
                    let row = vec![Value::Int(id), owner.clone(), tag.clone()];
                    engine.upsert(&mut txn, &items, row)
                }
            })
            .await?;
        if client.chance(100) {
            client.pause(100, 20_000).await;
        }
    }
    // What it has written and not committed may have a value twice; indexes and table agree all the same.
    if client.chance(200) && txn.isolation() != Isolation::ReadCommitted {
        compare(client, session, &txn, &items).await?;
    }
    client.commit(session, &mut txn, None).await.map(drop)
}

async fn read(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    let mut txn = client.begin(session, read_mode(client)).await?;
    let duplicate = look(client, session, &txn).await?;
    // What was read at the newest numbered state counts once that is durable.
    client.commit(session, &mut txn, None).await?;
    if let Some(what) = duplicate {
        client.fail(what);
    }
    Ok(())
}

/// Compares all indexes with the table, and says which unique value is there twice.
async fn look(client: &Client, session: &Rc<Session>, txn: &Txn) -> Result<Option<String>, Fail> {
    let items = table(client, session, txn, "items").await?;
    let all = compare(client, session, txn, &items).await?;
    let mut tags = BTreeMap::new();
    for row in &all {
        if let Some(other) = tags.insert(int(row, 2), int(row, 0)) {
            let (at, tag, id) = (txn.snapshot(), int(row, 2), int(row, 0));
            let what = format!("indexes: at {at} rows {other} and {id} both have tag {tag}");
            return Ok(Some(what));
        }
    }
    Ok(None)
}

/// The rows of the table, which are those of each of its indexes that can be read.
async fn compare(
    client: &Client,
    session: &Rc<Session>,
    txn: &Txn,
    items: &Arc<Table>,
) -> Result<Vec<Vec<Value>>, Fail> {
    let all = rows(client, session, txn, items).await?;
    for name in [UNIQUE, BUILT] {
        // By its name, as the transaction's snapshot has it: a lock may have moved that since the table was looked up.
        let opened = client
            .step(session, |engine| {
                let index = engine.index_at(txn, items, name)?;
                engine.index_range(txn, items, &index, RangeSpec::default())
            })
            .await;
        let mut cursor = match opened {
            // It is not there at this snapshot, or not ready.
            Err(Fail::Refused(EngineError::UnknownIndex { .. })) if name == BUILT => continue,
            opened => opened?,
        };
        let mut found = Vec::new();
        while let Some(block) = client
            .step(session, |engine| match cursor.next_rows(engine, txn)? {
                Some(rows) => {
                    let values = rows.iter().map(|row| row.values());
                    values.collect::<Result<Vec<_>, _>>().map(Some)
                }
                None => Ok(None),
            })
            .await?
        {
            found.extend(block);
        }
        let mut expected = all.clone();
        let descends = name == BUILT;
        expected.sort_by_key(|row| match descends {
            true => (int(row, 1), -int(row, 2), int(row, 0)),
            false => (int(row, 2), int(row, 0), 0),
        });
        if found != expected {
            let at = txn.snapshot();
            let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
            let strange: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
            client.fail(format!(
                "indexes: at {at} {name} has {} rows and the table {}: it lacks {missing:?} and has {strange:?}",
                found.len(), expected.len()
            ));
        }
    }
    Ok(all)
}

/// Builds the other index while everybody writes, or drops it; now and then a build is given up or left alone.
async fn build(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    let txn = client.begin(session, Mode::ReadWrite).await?;
    let items = table(client, session, &txn, "items").await?;
    drop(txn);
    let now = || client.now_us(session);
    if items.index(BUILT).is_some() {
        return drop_built(client, session, &items).await;
    }
    let spec = index(BUILT, &[(1, false), (2, true)], false);
    let begun = client
        .step(session, |engine| engine.begin_index(&items, &spec, now()))
        .await;
    let mut build = match begun {
        // Left alone by this client a while ago.
        Err(Fail::Refused(EngineError::IndexExists { .. })) => {
            return drop_built(client, session, &items).await;
        }
        begun => begun?,
    };
    let given_up = client.chance(200);
    loop {
        let progress = client
            .step(session, |engine| engine.index_step(&mut build, now()))
            .await?;
        if progress.done {
            break;
        }
        if given_up && client.chance(300) {
            let commit = client
                .step(session, |engine| engine.abandon_index(&build, now()))
                .await?;
            client.note(format_args!(
                "gives up a build after {} rows",
                progress.rows
            ));
            if let Some(commit) = commit {
                client.acknowledged(session, commit).await?;
            }
            return Ok(());
        }
        client.pause(100, 60_000).await;
    }
    let (_, commit) = client
        .step(session, |engine| engine.finish_index(&build, now()))
        .await?;
    client.note(format_args!("has built an index"));
    if let Some(commit) = commit {
        client.acknowledged(session, commit).await?;
    }
    Ok(())
}

async fn drop_built(
    client: &Client,
    session: &Rc<Session>,
    items: &Arc<Table>,
) -> Result<(), Fail> {
    let dropped = client
        .step(session, |engine| {
            engine.drop_index(items, BUILT, client.now_us(session))
        })
        .await?;
    if let Some(commit) = dropped {
        client.acknowledged(session, commit).await?;
    }
    Ok(())
}

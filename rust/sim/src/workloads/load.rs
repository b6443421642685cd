//! Bulk loads that are interrupted: by crashes, by clients that give up, by changes and drops of the table.
//!
//! Even keys of a table come by loads only: at any time they are what they were before a load or what they are after it, all of
//! them. Odd keys are changed by transactions while loads go on: a load carries them over. When everything has come to
//! rest, no extent of a load that ended without its link is left (`structure`), and every copy has every blob that a page needs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use aurora_engine::{EngineError, Load, Mode, Table};
use aurora_page::{DataType, Value};

use super::{client, first, int, make_table, rows, schema, table};
use crate::session::{Client, Fail, Hub, Session, Task};

/// Loaders; each has tables of its own.
const LOADERS: u32 = 2;
/// Tables that a loader has before it drops one.
const TABLES: usize = 2;
/// Keys are below this.
const KEYS: u64 = 300;
/// Rows between two pauses of a load.
const ROWS_AT_ONCE: usize = 24;

/// A version by its seed, by key.
type Rows = BTreeMap<i64, i64>;

/// What a table may hold.
#[derive(Clone, Debug, Default)]
struct Contents {
    /// Even keys: one of these states, as a whole. More than one while a load's end is in doubt.
    whole: Vec<Rows>,
    /// Odd keys: one of these versions, 0 for none.
    odd: BTreeMap<i64, Vec<i64>>,
}

/// Tables that are there. One that is about to be dropped is not listed any more.
#[derive(Default)]
struct Known {
    tables: BTreeMap<String, Contents>,
    named: u64,
}

type Shared = Rc<RefCell<Known>>;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let known = Shared::default();
    let seen = known.clone();
    let verify = move |client: Client, session: Rc<Session>| {
        let seen = seen.clone();
        async move {
            let names: Vec<String> = seen.borrow().tables.keys().cloned().collect();
            for name in names {
                look(&client, &session, &seen, &name).await?;
            }
            Ok(())
        }
    };
    let mut tasks = vec![first(hub, |_, _| async { Ok(()) }, verify)];
    for number in 1..=LOADERS + 1 {
        let known = known.clone();
        tasks.push(client(hub, number, move |client| {
            let known = known.clone();
            async move {
                let session = client.session().await;
                let done = match number {
                    1..=LOADERS => act(&client, &session, &known, number).await,
                    _ => change(&client, &session, &known).await,
                };
                match done {
                    Ok(()) | Err(Fail::Gone | Fail::InDoubt | Fail::Retry(_) | Fail::TooOld) => {}
                    // Rows came into an empty table, or the table went, while it was being loaded.
                    Err(Fail::Refused(
                        EngineError::TableNotEmpty { .. }
                        | EngineError::TableDropped { .. }
                        | EngineError::UnknownTable { .. },
                    )) => {}
                    Err(Fail::Refused(error)) => client.fail(format!("load: refused: {error}")),
                }
            }
        }));
    }
    tasks
}

/// What a loader does next: something with one of its tables, or with a new one.
async fn act(
    client: &Client,
    session: &Rc<Session>,
    known: &Shared,
    number: u32,
) -> Result<(), Fail> {
    let own = format!("load{number}_");
    let names: Vec<String> = known
        .borrow()
        .tables
        .keys()
        .filter(|name| name.starts_with(&own))
        .cloned()
        .collect();
    let chosen = names.get(client.below(names.len() as u64) as usize);
    match (chosen, client.below(10)) {
        (Some(name), 0) if names.len() >= TABLES => drop_table(client, session, known, name).await,
        (Some(name), 0..3) => look(client, session, known, name).await,
        (Some(name), 3..7) => load(client, session, known, name).await,
        (Some(name), _) if names.len() >= TABLES => load(client, session, known, name).await,
        _ => {
            let count = {
                let mut known = known.borrow_mut();
                known.named += 1;
                known.named
            };
            let name = format!("{own}{count}");
            let columns = [("seed", DataType::Int64), ("body", DataType::Bytes)];
            make_table(client, session, &name, schema(&columns)).await?;
            let empty = Contents {
                whole: vec![Rows::new()],
                odd: BTreeMap::new(),
            };
            known.borrow_mut().tables.insert(name.clone(), empty);
            load(client, session, known, &name).await
        }
    }
}

async fn drop_table(
    client: &Client,
    session: &Rc<Session>,
    known: &Shared,
    name: &str,
) -> Result<(), Fail> {
    known.borrow_mut().tables.remove(name);
    let dropped = client
        .step(session, |engine| {
            engine.drop_table(name, client.now_us(session))
        })
        .await?;
    if let Some(commit) = dropped {
        client.acknowledged(session, commit).await?;
    }
    Ok(())
}

/// What the seed of a version says its value is: some are longer than a page.
fn body(id: i64, seed: i64) -> Vec<u8> {
    let mut rng = crate::rng::Rng::new((id as u64) << 32 | seed as u64);
    let len = match rng.below(40) {
        0 => rng.below(6_000),
        1..12 => rng.below(30),
        _ => rng.below(260),
    };
    (0..len).map(|_| rng.bits() as u8).collect()
}

fn row_of(id: i64, seed: i64) -> Vec<Value> {
    vec![
        Value::Int(id),
        Value::Int(seed),
        Value::Bytes(body(id, seed)),
    ]
}

/// A load into a table, from its beginning to its link or its end. What ends it before the link gives it up, as dropping a load does.
async fn load(
    client: &Client,
    session: &Rc<Session>,
    known: &Shared,
    name: &str,
) -> Result<(), Fail> {
    let txn = client.begin(session, Mode::ReadWrite).await?;
    let table = table(client, session, &txn, name).await?;
    drop(txn);
    let now = client.now_us(session);
    let is_empty = client
        .step(session, |engine| engine.is_empty(&table))
        .await?;
    // A table without rows can be merged with, too.
    let over = !is_empty || client.chance(200);
    let mut load = client
        .step(session, |engine| match over {
            true => engine.begin_load_over(&table, now),
            false => engine.begin_load(&table, now),
        })
        .await?;
    let done = fill_and_link(client, session, known, &table, &mut load).await;
    if done.is_err() {
        session.engine().load_abort(&mut load);
    }
    done
}

async fn fill_and_link(
    client: &Client,
    session: &Rc<Session>,
    known: &Shared,
    table: &Arc<Table>,
    load: &mut Load,
) -> Result<(), Fail> {
    let count = match client.below(4) {
        0 => client.between(0, 5),
        1 => client.between(5, 60),
        _ => client.between(60, KEYS / 2),
    };
    let mut new = Rows::new();
    for _ in 0..count {
        let id = 2 * client.below(KEYS / 2) as i64;
        new.insert(id, client.between(1, 1 << 30) as i64);
    }
    // Open until the end: the link asks what was there at the base.
    let at = load.base();
    let txn = match at {
        Some(_) => Some(client.begin(session, Mode::ReadOnly { at }).await?),
        None => None,
    };
    let stored = match &txn {
        Some(txn) => {
            seeds(
                client,
                session,
                rows(client, session, txn, table).await?,
                txn.snapshot(),
            )
            .await?
        }
        None => Rows::new(),
    };
    load.note_base_rows(stored.len() as u64);
    let mut merged = stored.clone();
    for (id, seed) in &new {
        if merged.insert(*id, *seed).is_some() {
            let key = table.key(&[Value::Int(*id)]).map_err(Fail::Refused)?;
            load.note_overlap(&key);
        }
    }
    let give_up_at = match client.chance(150) {
        true => Some(client.below(merged.len() as u64 + 1) as usize),
        false => None,
    };
    for (index, (id, seed)) in merged.iter().enumerate() {
        if give_up_at == Some(index) {
            client.note(format_args!("gives up the load of {}", table.name));
            return Err(Fail::Gone);
        }
        let row = row_of(*id, *seed);
        client
            .step(session, |engine| {
                engine.load_push(load, &row, client.now_us(session))
            })
            .await?;
        store_blobs(client, session, load).await?;
        if index % ROWS_AT_ONCE == 0 {
            client.pause(500, 60_000).await;
        }
    }
    client
        .step(session, |engine| {
            engine.load_finish(load, client.now_us(session))
        })
        .await?;
    store_blobs(client, session, load).await?;
    let even = merged.into_iter().filter(|(id, _)| id % 2 == 0).collect();
    link(client, session, known, load, even).await
}

/// Full blobs go to the copies, and are referred to.
async fn store_blobs(client: &Client, session: &Rc<Session>, load: &mut Load) -> Result<(), Fail> {
    while let Some(blob) = load.take_blob() {
        client.store(session, &blob).await?;
        client
            .step(session, |engine| {
                engine.load_stored(load, blob.id, client.now_us(session))
            })
            .await?;
    }
    Ok(())
}

async fn link(
    client: &Client,
    session: &Rc<Session>,
    known: &Shared,
    load: &mut Load,
    after: Rows,
) -> Result<(), Fail> {
    let name = load.table().name.clone();
    let linked = client
        .step(session, |engine| {
            engine.load_link(load, client.now_us(session))
        })
        .await?;
    if let Some(contents) = known.borrow_mut().tables.get_mut(&name) {
        contents.whole.push(after.clone());
    }
    let rows = after.len();
    client.note(format_args!(
        "links {rows} loaded rows of {name} at {}",
        linked.lsn
    ));
    client.acknowledged(session, linked).await?;
    if let Some(contents) = known.borrow_mut().tables.get_mut(&name) {
        contents.whole = vec![after];
    }
    Ok(())
}

/// The versions of rows, each with the value that belongs to it.
async fn seeds(
    client: &Client,
    session: &Rc<Session>,
    rows: Vec<Vec<Value>>,
    at: aurora_page::Lsn,
) -> Result<Rows, Fail> {
    let mut found = Rows::new();
    for row in rows {
        let (id, seed) = (int(&row, 0), int(&row, 1));
        let value = match row.get(2) {
            Some(Value::Bytes(bytes)) => bytes.clone(),
            Some(Value::Overflow(reference)) => {
                client
                    .step(session, |engine| engine.read_overflow(at, *reference))
                    .await?
            }
            other => {
                client.fail(format!("load: row {id} at {at} holds {other:?}"));
                continue;
            }
        };
        if value != body(id, seed) {
            let len = value.len();
            client.fail(format!(
                "load: row {id} of version {seed} at {at} has {len} bytes that are not its own"
            ));
        }
        found.insert(id, seed);
    }
    Ok(found)
}

/// Rows with odd keys come, change and go by transactions, whatever is loaded meanwhile.
async fn change(client: &Client, session: &Rc<Session>, known: &Shared) -> Result<(), Fail> {
    let names: Vec<String> = known.borrow().tables.keys().cloned().collect();
    let Some(name) = names.get(client.below(names.len() as u64) as usize) else {
        return Ok(());
    };
    let mut txn = client.begin(session, Mode::ReadWrite).await?;
    let found = client
        .step(session, |engine| engine.table_in(&txn, name))
        .await?;
    // Dropped a moment ago.
    let Some(table) = found else { return Ok(()) };
    let mut after = BTreeMap::new();
    for _ in 0..client.between(1, 4) {
        let id = 2 * client.below(KEYS / 2) as i64 + 1;
        let seed = match client.chance(300) {
            true => 0,
            false => client.between(1, 1 << 30) as i64,
        };
        let key = table.key(&[Value::Int(id)]).map_err(Fail::Refused)?;
        client
            .step(session, |engine| match seed {
                0 => engine.delete(&mut txn, &table, &key).map(drop),
                _ => engine.upsert(&mut txn, &table, row_of(id, seed)),
            })
            .await?;
        after.insert(id, seed);
    }
    let done = client.commit(session, &mut txn, None).await;
    let mut known = known.borrow_mut();
    let Some(contents) = known.tables.get_mut(name) else {
        return Ok(());
    };
    for (id, seed) in after {
        let may_be = contents.odd.entry(id).or_insert_with(|| vec![0]);
        match &done {
            Ok(_) => *may_be = vec![seed],
            Err(Fail::InDoubt) => may_be.push(seed),
            Err(_) => {}
        }
    }
    done.map(drop)
}

/// Reads a table whose loads are this client's. Where a load's end was in doubt, what is read settles it, once it is durable and nobody has
/// taken over.
async fn look(
    client: &Client,
    session: &Rc<Session>,
    known: &Shared,
    name: &str,
) -> Result<(), Fail> {
    let mut txn = client.begin(session, Mode::ReadWrite).await?;
    let at = txn.snapshot();
    let table = table(client, session, &txn, name).await?;
    let all = rows(client, session, &txn, &table).await?;
    let found = seeds(client, session, all, at).await?;
    client.commit(session, &mut txn, None).await?;
    let (even, odd): (Rows, Rows) = found.into_iter().partition(|(id, _)| id % 2 == 0);
    let mut known = known.borrow_mut();
    let Some(contents) = known.tables.get_mut(name) else {
        return Ok(());
    };
    if !contents.whole.contains(&even) {
        let may_be: Vec<usize> = contents.whole.iter().map(Rows::len).collect();
        let closest = contents.whole.iter().map(|rows| {
            let same = |(id, seed): &(&i64, &i64)| rows.get(id) == Some(seed);
            even.iter().filter(same).count()
        });
        let same = closest.max().unwrap_or(0);
        client.fail(format!(
            "[10] load: table {name} at {at} has {} loaded rows, of which at most {same} are of one load; it should have all of {may_be:?} rows of one",
            even.len()
        ));
    }
    if client.is_current(session) {
        contents.whole = vec![even];
    }
    // Others change these meanwhile; at rest nobody does.
    if client.hub.rested.get() {
        for (id, may_be) in &contents.odd {
            let seed = odd.get(id).copied().unwrap_or(0);
            if !may_be.contains(&seed) {
                client.fail(format!(
                    "[10] load: row {id} of {name} is version {seed}, and should be one of {may_be:?}"
                ));
            }
        }
        if let Some(id) = odd.keys().find(|id| !contents.odd.contains_key(id)) {
            client.fail(format!("load: row {id} of {name} was written by nobody"));
        }
    }
    Ok(())
}

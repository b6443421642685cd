//! Tables that are created and dropped while rows are written into them. A table whose creation was acknowledged is there until it is
//! dropped, with the rows that were acknowledged; one that was dropped is gone, and its extents come back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use aurora_engine::{EngineError, Mode};
use aurora_page::{DataType, Value};

use super::{client, first, int, make_table, rows, schema};
use crate::session::{Client, Fail, Hub, Session, Task};

const TABLES: u64 = 4;

/// What is known of a table.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Is it there? `None` while nobody knows.
    exists: Option<bool>,
    /// Rows that are there for certain, and those that may be.
    rows: BTreeSet<i64>,
    maybe: BTreeSet<i64>,
}

type Tables = Rc<RefCell<BTreeMap<String, Known>>>;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let known = Tables::default();
    let seen = known.clone();
    let verify = move |client: Client, session: Rc<Session>| {
        let seen = seen.clone();
        async move { verify(&client, &session, &seen).await }
    };
    let mut tasks = vec![first(hub, setup, verify)];
    // Each client has tables of its own and knows what should be there; the catalogue and the extents are everybody's.
    for number in 1..=3 {
        let known = known.clone();
        tasks.push(client(hub, number, move |client| {
            let known = known.clone();
            async move {
                let name = format!("t{number}_{}", client.below(TABLES));
                let session = client.session().await;
                let done = match client.below(10) {
                    0..2 => create(&client, &session, &known, &name).await,
                    2 => remove(&client, &session, &known, &name).await,
                    3 => sweep(&client, &session).await,
                    _ => fill(&client, &session, &known, &name).await,
                };
                if let Err(Fail::Refused(error)) = done {
                    client.fail(format!("ddl: {name}: refused: {error}"));
                }
            }
        }));
    }
    tasks
}

async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    make_table(
        &client,
        &session,
        "other",
        schema(&[("n", DataType::Int64)]),
    )
    .await
    .map(drop)
}

async fn create(
    client: &Client,
    session: &Rc<Session>,
    known: &Tables,
    name: &str,
) -> Result<(), Fail> {
    let shape = schema(&[("body", DataType::Text)]);
    let made = client
        .step(session, |engine| {
            engine.create_table(name, shape.clone(), true, client.now_us(session))
        })
        .await?;
    known.borrow_mut().entry(name.to_owned()).or_default();
    let entry = |change: &dyn Fn(&mut Known)| {
        if let Some(entry) = known.borrow_mut().get_mut(name) {
            change(entry);
        }
    };
    let Some(commit) = made.1 else {
        // It was there; whether for good is known once that is durable, by the next write.
        return Ok(());
    };
    match client.acknowledged(session, commit).await {
        Ok(_) => entry(&|known| known.exists = Some(true)),
        Err(Fail::InDoubt) => entry(&|known| known.exists = None),
        Err(fail) => return Err(fail),
    }
    Ok(())
}

async fn remove(
    client: &Client,
    session: &Rc<Session>,
    known: &Tables,
    name: &str,
) -> Result<(), Fail> {
    let dropped = client
        .step(session, |engine| {
            engine.drop_table(name, client.now_us(session))
        })
        .await;
    let commit = match dropped {
        Ok(Some(commit)) => commit,
        Ok(None) | Err(Fail::Refused(EngineError::UnknownTable { .. })) => {
            return missing(client, session, known, name);
        }
        Err(fail) => return Err(fail),
    };
    let done = client.acknowledged(session, commit).await;
    let mut known = known.borrow_mut();
    let entry = known.entry(name.to_owned()).or_default();
    match done {
        Ok(_) => {
            *entry = Known {
                exists: Some(false),
                ..Known::default()
            }
        }
        // Its rows may be there or not, so none of them is certain.
        Err(_) => {
            entry.exists = None;
            let rows = std::mem::take(&mut entry.rows);
            entry.maybe.extend(rows);
        }
    }
    Ok(())
}

/// The engine says that there is no such table: can that be?
fn missing(client: &Client, session: &Session, known: &Tables, name: &str) -> Result<(), Fail> {
    let exists = known.borrow().get(name).and_then(|known| known.exists);
    if exists == Some(true) && client.is_current(session) {
        client.fail(format!(
            "[10] ddl: table {name} was created and is not there"
        ));
    }
    Ok(())
}

async fn sweep(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    client
        .step(session, |engine| engine.sweep(client.now_us(session)))
        .await
        .map(drop)
}

async fn fill(
    client: &Client,
    session: &Rc<Session>,
    known: &Tables,
    name: &str,
) -> Result<(), Fail> {
    let mut txn = client.begin(session, Mode::ReadWrite).await?;
    let found = client
        .step(session, |engine| engine.table_in(&txn, name))
        .await?;
    let Some(table) = found else {
        return missing(client, session, known, name);
    };
    let mut ids = BTreeSet::new();
    for _ in 0..client.between(1, 6) {
        let id = client.below(1 << 20) as i64;
        let text = "x".repeat(client.below(120) as usize);
        client
            .step(session, |engine| {
                engine.upsert(
                    &mut txn,
                    &table,
                    vec![Value::Int(id), Value::Text(text.clone())],
                )
            })
            .await?;
        ids.insert(id);
    }
    let done = client.commit(session, &mut txn, None).await;
    let mut known = known.borrow_mut();
    let entry = known.entry(name.to_owned()).or_default();
    match &done {
        Ok(_) => {
            entry.exists = Some(true);
            entry.rows.extend(ids);
        }
        Err(Fail::InDoubt) => entry.maybe.extend(ids),
        Err(_) => {}
    }
    done.map(drop)
}

async fn verify(client: &Client, session: &Rc<Session>, known: &Tables) -> Result<(), Fail> {
    let known: Vec<_> = known.borrow().clone().into_iter().collect();
    for (name, known) in known {
        let mut txn = client.begin(session, Mode::ReadWrite).await?;
        let found = client
            .step(session, |engine| engine.table_in(&txn, &name))
            .await?;
        if known.exists.is_some_and(|exists| exists != found.is_some()) {
            let (expected, got) = (known.exists, found.is_some());
            client.fail(format!(
                "[10] ddl: table {name}: is there: {got}, expected {expected:?}"
            ));
        }
        let Some(table) = found else { continue };
        let all = rows(client, session, &txn, &table).await?;
        client.commit(session, &mut txn, None).await?;
        let ids: BTreeSet<i64> = all.iter().map(|row| int(row, 0)).collect();
        let lost: Vec<_> = known.rows.difference(&ids).take(5).collect();
        let strange: Vec<_> = ids
            .iter()
            .filter(|id| !known.rows.contains(id) && !known.maybe.contains(id))
            .take(5)
            .collect();
        if !lost.is_empty() || !strange.is_empty() {
            client.fail(format!(
                "[10] ddl: table {name} lacks rows {lost:?} and has rows {strange:?} that nobody wrote"
            ));
        }
    }
    Ok(())
}

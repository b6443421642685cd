//! Snapshots that stay open for seconds while rows change, the pool forgets and versions are collected: each reads the same as
//! long as it is open.

use std::rc::Rc;

use aurora_engine::Mode;
use aurora_page::{DataType, Value};

use super::{client, first, make_table, rows, schema, set, table};
use crate::session::{Client, Fail, Hub, Session, Task};

const ROWS: i64 = 60;

pub(super) fn start(hub: &Rc<Hub>) -> Vec<Task> {
    let verify =
        |client: Client, session: Rc<Session>| async move { hold(&client, &session, 1).await };
    let mut tasks = vec![first(hub, setup, verify)];
    for number in 1..=2 {
        tasks.push(client(hub, number, |client| async move {
            let session = client.session().await;
            check(&client, change(&client, &session).await);
        }));
    }
    for number in 3..=5 {
        tasks.push(client(hub, number, |client| async move {
            let session = client.session().await;
            let times = client.between(2, 5);
            check(&client, hold(&client, &session, times).await);
        }));
    }
    tasks
}

fn check(client: &Client, done: Result<(), Fail>) {
    if let Err(Fail::Refused(error)) = done {
        client.fail(format!("snapshots: refused: {error}"));
    }
}

async fn setup(client: Client, session: Rc<Session>) -> Result<(), Fail> {
    let columns = [("n", DataType::Int64), ("pad", DataType::Text)];
    let table = make_table(&client, &session, "snapshots", schema(&columns)).await?;
    let mut txn = client.begin(&session, Mode::ReadWrite).await?;
    for id in 0..ROWS {
        let row = vec![Value::Int(id), Value::Int(0), Value::Text("p".repeat(40))];
        client
            .step(&session, |engine| {
                engine.upsert(&mut txn, &table, row.clone())
            })
            .await?;
    }
    client.commit(&session, &mut txn, None).await.map(drop)
}

async fn change(client: &Client, session: &Rc<Session>) -> Result<(), Fail> {
    let mut txn = client.begin(session, Mode::ReadWrite).await?;
    let table = table(client, session, &txn, "snapshots").await?;
    for _ in 0..client.between(1, 8) {
        let (id, n) = (
            client.below(ROWS as u64) as i64,
            client.below(1 << 30) as i64,
        );
        set(client, session, &mut txn, &table, id, Value::Int(n)).await?;
    }
    client.commit(session, &mut txn, None).await.map(drop)
}

async fn hold(client: &Client, session: &Rc<Session>, times: u64) -> Result<(), Fail> {
    let txn = client.begin(session, Mode::ReadOnly { at: None }).await?;
    let at = txn.snapshot();
    let table = table(client, session, &txn, "snapshots").await?;
    let before = rows(client, session, &txn, &table).await?;
    for _ in 0..times {
        client.pause(100_000, 3_000_000).await;
        if client.chance(300) && session.alive.get() {
            session.engine().evict_all();
        }
        let now = match rows(client, session, &txn, &table).await {
            // The floor of a writer that was overtaken is its successor's business.
            Err(Fail::TooOld) if !client.is_current(session) => return Ok(()),
            Err(Fail::TooOld) => {
                client.fail(format!("snapshots: {at} was collected while it was open"));
                return Ok(());
            }
            now => now?,
        };
        if now != before {
            let different = before.iter().zip(&now).find(|(a, b)| a != b);
            client.fail(format!(
                "snapshots: the snapshot at {at} has changed: {different:?}"
            ));
            return Ok(());
        }
    }
    Ok(())
}
